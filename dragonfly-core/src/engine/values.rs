//! What can be said of a template on a machine before the machine asks for it: values that nobody has set,
//! values that nobody uses, images that are not there.

use std::collections::{BTreeMap, BTreeSet};

use super::render::{Facts, MachineFacts, Pen, Unfilled, each_text, is_filled_in, is_readable, references};
use super::{Engine, written};
use crate::action::Problem;
use crate::near::did_you_mean;
use crate::resource::template::ValueSource;
use crate::resource::{Hardware, TemplateSpec};

impl Engine {
    /// What is wrong with a template whatever the machine turns out to be: values that are set nowhere, names that cannot
    /// exist, texts that are certain and do not fit. For a machine that no agent has seen: of one that has been seen,
    /// filling the template says the same and more.
    pub(super) fn wrong_for_any(
        &self,
        machine: &Hardware,
        content: &TemplateSpec,
        given: &BTreeMap<String, ValueSource>,
    ) -> Vec<Problem> {
        // What is in them does not matter, only that they are set.
        let set = content.values.keys().chain(given.keys()).map(|name| (name.clone(), name.clone()));
        let pen = Pen::unseen(&facts(machine, set.collect()));
        let mut problems = written::problems(content);
        each_text(&mut content.clone(), &mut |path, _, text| {
            if problems.iter().any(|found| found.path == path) {
                return;
            }
            if let Err(unset @ Unfilled::Unset { .. }) = pen.fill(text) {
                problems.push(Problem { path: path.to_owned(), problem: unset.to_string() });
            }
        });
        if problems.is_empty() {
            let (known, mut wrong) = as_far_as_known(machine, content, given);
            wrong.extend(self.inner.checker.check(&known));
            return wrong;
        }
        problems
    }

    /// Images that a template fetches from this server and that are not there.
    pub(super) async fn missing_images(
        &self,
        machine: &Hardware,
        content: &TemplateSpec,
        given: &BTreeMap<String, ValueSource>,
    ) -> Vec<Problem> {
        let mut missing = Vec::new();
        for (path, image) in own_images(machine, content, given) {
            if let Some(problem) = self.inner.images.missing(&image).await {
                missing.push(Problem { path, problem });
            }
        }
        missing
    }
}

fn facts(machine: &Hardware, values: BTreeMap<String, String>) -> Facts<'_> {
    Facts {
        machine: MachineFacts::of(machine),
        inventory: machine.status.inventory.as_ref(),
        values,
        server: String::new(),
        phone_home: String::new(),
    }
}

/// The values that stand in the open. What a Secret holds is nobody's to judge before it goes out.
fn plain(content: &TemplateSpec, given: &BTreeMap<String, ValueSource>) -> BTreeMap<String, String> {
    let all: BTreeMap<&String, &ValueSource> = content.values.iter().chain(given).collect();
    let plain = all.into_iter().filter_map(|(name, source)| match source {
        ValueSource::Plain(text) => Some((name.clone(), text.clone())),
        ValueSource::From { .. } => None,
    });
    plain.collect()
}

/// A template with those texts filled for which nothing is awaited from the machine, and what of them cannot be.
fn as_far_as_known(
    machine: &Hardware,
    content: &TemplateSpec,
    given: &BTreeMap<String, ValueSource>,
) -> (TemplateSpec, Vec<Problem>) {
    let (mut known, mut problems) = (content.clone(), Vec::new());
    let values = plain(content, given);
    let is_known = |name: &String| {
        name == "machine.name" || name.strip_prefix("values.").is_some_and(|name| values.contains_key(name))
    };
    let pen = Pen::new(&facts(machine, values.clone()));
    each_text(&mut known, &mut |path, _, text| {
        if is_filled_in(text) && references(text).iter().all(is_known) {
            match pen.fill(text) {
                Ok(filled) => *text = filled,
                Err(unfilled) => problems.push(Problem { path: path.to_owned(), problem: unfilled.to_string() }),
            }
        }
    });
    (known, problems)
}

/// The images of this server that a template names, each with its place in the template. One whose name is not
/// certain yet, or is made of a secret, is left out.
fn own_images(
    machine: &Hardware,
    content: &TemplateSpec,
    given: &BTreeMap<String, ValueSource>,
) -> Vec<(String, String)> {
    let pen = Pen::new(&facts(machine, plain(content, given)));
    let seen = machine.status.inventory.is_some();
    let mut images = Vec::new();
    each_text(&mut content.clone(), &mut |path, field, text| {
        let of_machine = |name: &String| !(name == "values" || name.starts_with("values."));
        let uncertain = !seen && is_filled_in(text) && references(text).iter().any(of_machine);
        if field != "url" || uncertain {
            return;
        }
        if let Ok(url) = pen.fill(text)
            && url.starts_with("/images/")
        {
            images.push((path.to_owned(), url));
        }
    });
    images
}

/// Given values that a template does not use.
pub(super) fn unused_values(
    template: &str,
    content: &TemplateSpec,
    given: &BTreeMap<String, ValueSource>,
) -> Vec<Problem> {
    let mut used: BTreeSet<String> = content.values.keys().cloned().collect();
    let mut any = false;
    each_text(&mut content.clone(), &mut |_, _, text| {
        // Of one that cannot be read nobody knows; that is told beside it.
        any |= is_filled_in(text) && !is_readable(text);
        for name in references(text) {
            // Without its name it may be every one of them.
            any |= name == "values";
            let name = name.strip_prefix("values.").map(|name| name.split('.').next().unwrap_or(name));
            used.extend(name.map(str::to_owned));
        }
    });
    if any {
        return Vec::new();
    }
    let unused = given.keys().filter(|name| !used.contains(*name));
    unused
        .map(|name| {
            let question = did_you_mean(name, used.iter().map(String::as_str)).map(|q| format!("; {q}"));
            let uses = match used.len() {
                0 => "it uses none".to_owned(),
                _ => format!("it uses {}", used.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")),
            };
            let problem = format!("`{template}` uses no such value: {uses}{}", question.unwrap_or_default());
            Problem { path: format!("values.{name}"), problem }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::HardwareSpec;
    use crate::resource::template::{SecretKeyRef, TemplateAction, ValueFrom};
    use serde_json::{Value, json};

    fn template(values: &[&str], with: Value) -> TemplateSpec {
        let action = TemplateAction { name: "a".into(), action: "writefile".into(), with, timeout_seconds: None };
        let values = values.iter().map(|name| ((*name).to_owned(), ValueSource::Plain("x".into())));
        TemplateSpec { actions: vec![action], values: values.collect(), ..TemplateSpec::default() }
    }

    fn given(names: &[(&str, &str)]) -> BTreeMap<String, ValueSource> {
        names.iter().map(|(name, value)| ((*name).to_owned(), ValueSource::Plain((*value).to_owned()))).collect()
    }

    #[test]
    fn a_value_that_the_template_does_not_use_is_refused_with_those_that_it_uses() {
        type Words = [&'static str];
        let table: &[(&Words, &str, &Words, &Words)] = &[
            (&["motd"], "{{ values.user }}", &["motd", "user"], &[]),
            (&["motd"], "{{ values.user }}", &["mtod"], &["it uses `motd`, `user`; did you mean `motd`?"]),
            (&[], "plain", &["a", "b"], &["it uses none", "it uses none"]),
            (&[], "{{ values.user | default('x') }}", &["user"], &[]),
            // Which one it takes is known only when it is filled.
            (&[], "{{ values[machine.name] }}", &["anything"], &[]),
            (&[], "{% for v in values %}{{ v }}{% endfor %}", &["anything"], &[]),
        ];
        for (declared, text, names, want) in table {
            let names: Vec<_> = names.iter().map(|name| (*name, "x")).collect();
            let problems = unused_values("t", &template(declared, json!({ "c": text })), &given(&names));
            assert_eq!(problems.len(), want.len(), "{text}: {problems:?}");
            for (problem, want) in problems.iter().zip(*want) {
                assert!(problem.problem.ends_with(want), "{text}: {}", problem.problem);
            }
        }
    }

    #[test]
    fn images_are_those_whose_name_is_certain_and_no_secret() {
        let mut machine = Hardware::new("m", HardwareSpec::default());
        let secret = SecretKeyRef { name: "s".into(), key: "k".into() };
        let mut values = given(&[("os", "debian")]);
        values.insert("token".into(), ValueSource::From { value_from: ValueFrom { secret_ref: secret } });
        let with = json!({ "list": [
            { "url": "/images/{{ values.os }}.raw" }, { "url": "/images/{{ machine.name }}.raw" },
            { "url": "/images/{{ values.token }}.raw" }, { "url": "https://a/images/x" }, { "path": "/images/y" },
        ]});
        let template = template(&[], with);
        let names = |machine: &Hardware| -> Vec<String> {
            own_images(machine, &template, &values).into_iter().map(|(_, url)| url).collect()
        };
        assert_eq!(names(&machine), ["/images/debian.raw"], "nobody has seen it: its facts may change");
        machine.status.inventory = Some(Default::default());
        assert_eq!(names(&machine), ["/images/debian.raw", "/images/m.raw"]);
        assert_eq!(own_images(&machine, &template, &values)[0].0, "actions[0].with.list[0].url");
    }
}
