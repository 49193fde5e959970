//! What may become a run: what leaves room in its object for how it went.

use std::collections::BTreeMap;

use crate::action::Problem;
use crate::resource::template::ValueSource;
use crate::resource::{MAX_OBJECT_BYTES, TemplateSpec, room};

/// What an object has beside its spec and status.
const METADATA_ROOM: usize = 16 * 1024;

/// Whether a run of this would leave no room to tell how it went.
pub(super) fn too_large(content: &TemplateSpec, values: &BTreeMap<String, ValueSource>) -> Option<Problem> {
    let bytes = |json: serde_json::Result<Vec<u8>>| json.map_or(0, |json| json.len());
    let steps = room::room_of_steps(content.actions.iter().map(|a| (a.name.as_str(), a.action.as_str())));
    let has = bytes(serde_json::to_vec(content)) + bytes(serde_json::to_vec(values)) + steps;
    let most = MAX_OBJECT_BYTES - room::STATUS_ROOM - METADATA_ROOM;
    (has > most).then(|| Problem {
        path: "spec".to_owned(),
        problem: format!(
            "with its values and {} actions it takes {has} bytes in a workflow, which has room for {most}; \
             make its texts shorter, or put them into the image",
            content.actions.len()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::template::TemplateAction;

    #[test]
    fn there_is_room_left_for_how_it_went() {
        let action = |bytes: usize| TemplateAction {
            name: "note".to_owned(),
            action: "writefile".to_owned(),
            with: serde_json::json!({ "content": "x".repeat(bytes) }),
            timeout_seconds: None,
        };
        let content = |actions: Vec<TemplateAction>| TemplateSpec {
            description: String::new(),
            values: BTreeMap::new(),
            actions,
            timeout_seconds: None,
        };
        let table = [
            (content(vec![action(10)]), 0, true),
            (content(vec![action(180 * 1024), action(180 * 1024)]), 0, true),
            (content(vec![action(230 * 1024), action(230 * 1024)]), 0, false),
            (content(vec![action(180 * 1024)]), 200 * 1024, false),
            // Each step has something to tell.
            (content(vec![action(1); 900]), 0, true),
            (content(vec![action(1); 2000]), 0, false),
        ];
        for (content, value, fits) in table {
            let values = BTreeMap::from([("v".to_owned(), ValueSource::Plain("y".repeat(value)))]);
            let problem = too_large(&content, &values);
            assert_eq!(problem.is_none(), fits, "{} actions, {problem:?}", content.actions.len());
        }
    }
}
