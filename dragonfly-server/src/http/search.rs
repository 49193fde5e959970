//! How machines are searched and paged, in the API and on the pages alike.

use std::collections::BTreeSet;

use dragonfly_core::cache::Find;
use dragonfly_core::lifecycle::Phase;
use dragonfly_core::resource::REGION_LABEL;
use serde::Deserialize;

use super::kube::{PAGE, equality};
use super::problem::Problem;
use crate::view::phase_word;

/// The query of a search.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Search {
    /// Words as a person types them.
    pub(super) q: String,
    /// Phases, several with commas; `unseen` for machines that never reported.
    pub(super) phase: String,
    /// Those of a region: as `labelSelector` with its label.
    pub(super) region: String,
    /// `key=value`, several with commas.
    pub(super) label_selector: String,
    /// How many at most; 0 is all.
    pub(super) limit: usize,
    /// The last name of the page before.
    #[serde(rename = "continue")]
    pub(super) after: String,
}

impl Search {
    /// What is looked for.
    pub(super) fn find(&self) -> Result<Find, Problem> {
        let words = self.phase.split(',').map(str::trim).filter(|word| !word.is_empty());
        let phases = words.map(phase).collect::<Result<BTreeSet<_>, _>>()?;
        let mut labels = equality(&self.label_selector)?.labels;
        if !self.region.is_empty() {
            labels.insert(REGION_LABEL.to_owned(), self.region.clone());
        }
        Ok(Find { phases, labels, ..Find::typed(&self.q) })
    }

    /// After which machine, if not from the first.
    pub(super) fn after(&self) -> Option<&str> {
        Some(self.after.as_str()).filter(|name| !name.is_empty())
    }

    /// How many at most in one answer, as the API counts; 0 is all.
    pub(super) fn most(&self) -> usize {
        self.limit.min(PAGE)
    }
}

fn phase(word: &str) -> Result<Option<Phase>, Problem> {
    let mut all = [None].into_iter().chain(Phase::ALL.map(Some));
    all.find(|phase| phase_word(*phase).eq_ignore_ascii_case(word)).ok_or_else(|| {
        let known = [None].into_iter().chain(Phase::ALL.map(Some)).map(|phase| phase_word(phase).to_lowercase());
        let known = known.collect::<Vec<_>>().join(", ");
        Problem::bad_request(format!("phase: no machine is ever in `{word}`; phases are: {known}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_which_machines_are_meant_or_what_is_wrong_with_it() {
        let search = |phase: &str, labels: &str| Search {
            q: " AA-bb  Rack ".into(),
            phase: phase.into(),
            label_selector: labels.into(),
            ..Search::default()
        };
        let find = search("ready, Unseen", "a=b,c==d").find().unwrap();
        assert_eq!(find.words, ["aa:bb", "rack"]);
        assert_eq!(find.phases, BTreeSet::from([None, Some(Phase::Ready)]));
        assert_eq!(find.labels.len(), 2);
        assert_eq!(search("", "").find().unwrap().phases, BTreeSet::new());
        let wrong = search("done", "").find().unwrap_err().detail;
        assert!(wrong.contains("`done`") && wrong.contains("provisioning"), "{wrong}");
        assert!(search("", "a!=b").find().is_err());
        assert_eq!([0, 7, 9999].map(|limit| Search { limit, ..Search::default() }.most()), [0, 7, PAGE]);
    }
}
