//! A template with a machine's values, secrets and facts in it, and what is wrong with it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Engine;
use super::render::{self, Facts, MachineFacts};
use crate::action::Problem;
use crate::resource::hardware::Trust;
use crate::resource::template::{SecretKeyRef, ValueSource};
use crate::resource::{Hardware, SecretSpec, TemplateSpec, Workflow};
use crate::secret::{Mask, SecretString};

/// A template that has been filled in and found good.
pub(super) struct Filled {
    /// The template, with secrets in it: for the machine's own eyes.
    pub content: TemplateSpec,
    /// The secrets that stand in it.
    pub secrets: Vec<SecretString>,
}

/// One value of a template.
enum Known {
    Plain(String),
    Secret(SecretKeyRef, SecretString),
}

impl Engine {
    /// A template with its values and this machine's facts filled in, checked.
    ///
    /// What is wrong is told without a word that a Secret holds.
    pub(super) fn filled(
        &self,
        machine: &Hardware,
        content: &TemplateSpec,
        given: &BTreeMap<String, ValueSource>,
        server: url::Url,
        run: &str,
    ) -> Result<Filled, Vec<Problem>> {
        let known = self.known(machine, content, given)?;
        let phone_home = self.phone_home_url(machine, run, &server);
        let fill = |reveal: &dyn Fn(&SecretKeyRef, &SecretString) -> String| {
            let text = |value: &Known| match value {
                Known::Plain(text) => text.clone(),
                Known::Secret(place, secret) => reveal(place, secret),
            };
            let facts = Facts {
                machine: MachineFacts::of(machine),
                inventory: machine.status.inventory.as_ref(),
                values: known.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
                server: server.as_str().trim_end_matches('/').to_owned(),
                phone_home: phone_home.clone(),
            };
            let mut content = render::render(content, &facts)?;
            for action in &mut content.actions {
                self.link_images(&mut action.with, &server);
            }
            let problems = self.inner.checker.check(&content);
            if problems.is_empty() { Ok(content) } else { Err(problems) }
        };
        let secrets: Vec<&SecretString> = known
            .values()
            .filter_map(|value| match value {
                Known::Secret(_, secret) => Some(secret),
                Known::Plain(_) => None,
            })
            .collect();
        match fill(&|_, secret| secret.reveal().to_owned()) {
            Ok(content) => Ok(Filled { content, secrets: secrets.into_iter().cloned().collect() }),
            Err(problems) if secrets.is_empty() => Err(problems),
            // A problem's words may quote what stands there. So they are found again with the secrets' names
            // in their place; what is wrong only with the secrets themselves is told by its place alone.
            Err(problems) => match fill(&|place, _| format!("[secret {}/{}]", place.name, place.key)) {
                Err(named) => Err(named),
                Ok(_) => Err(without_words(problems, &Mask::new(secrets))),
            },
        }
    }

    /// The template's values with what overrides them.
    fn known(
        &self,
        machine: &Hardware,
        content: &TemplateSpec,
        given: &BTreeMap<String, ValueSource>,
    ) -> Result<BTreeMap<String, Known>, Vec<Problem>> {
        let mut known = BTreeMap::new();
        let mut problems = Vec::new();
        let all: BTreeMap<&String, &ValueSource> = content.values.iter().chain(given).collect();
        for (name, source) in all {
            let value = match source {
                ValueSource::Plain(text) => Ok(Known::Plain(text.clone())),
                ValueSource::From { value_from } => self
                    .opened(machine, &value_from.secret_ref)
                    .map(|secret| Known::Secret(value_from.secret_ref.clone(), secret)),
            };
            match value {
                Ok(value) => {
                    known.insert(name.clone(), value);
                }
                Err(problem) => problems.push(Problem { path: format!("values.{name}"), problem }),
            }
        }
        if problems.is_empty() { Ok(known) } else { Err(problems) }
    }

    /// What takes this run's secrets out of text. Secrets that cannot be opened (any more) are not in it.
    pub(super) fn mask(&self, machine: &Hardware, run: &Workflow) -> Mask {
        let sources = run.spec.content.values.values().chain(run.spec.values.values());
        let secrets: Vec<SecretString> = sources
            .filter_map(|source| match source {
                ValueSource::From { value_from } => self.opened(machine, &value_from.secret_ref).ok(),
                ValueSource::Plain(_) => None,
            })
            .collect();
        Mask::new(&secrets)
    }

    fn opened(&self, machine: &Hardware, from: &SecretKeyRef) -> Result<SecretString, String> {
        match machine.spec.trust {
            // Whether its controller has cycled it is asked when they are about to go out.
            Trust::Network => {}
            Trust::Bmc if machine.spec.bmc.is_some() => {}
            Trust::Bmc => {
                return Err("spec.trust is `bmc`, and no controller is known: dragonfly bmc set".to_owned());
            }
            Trust::Tpm => return Err("spec.trust is `tpm`, which this version cannot verify".to_owned()),
        }
        let secret = self
            .inner
            .cache
            .get::<SecretSpec>(&from.name)
            .ok_or_else(|| format!("Secret `{}` does not exist", from.name))?;
        let value = self
            .secret_value(&secret, &from.key)
            .ok_or_else(|| format!("Secret `{}` has no key `{}`", from.name, from.key))?;
        value.map_err(|e| format!("Secret `{}`: {e}", from.name))
    }

    /// Every `url` that begins with `/images/`, or with this server's address before that, becomes a link to its own images.
    fn link_images(&self, value: &mut Value, server: &url::Url) {
        match value {
            Value::Object(fields) => {
                for (key, item) in fields {
                    match item {
                        Value::String(text) if key == "url" => {
                            let path = text.strip_prefix(server.as_str().trim_end_matches('/')).unwrap_or(text);
                            if path.starts_with("/images/") {
                                *text = self.inner.images.link(server, path);
                            }
                        }
                        other => self.link_images(other, server),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.link_images(item, server)),
            _ => {}
        }
    }

    /// Everything that is wrong with a template on this machine.
    pub(super) fn problems_on(
        &self,
        machine: &Hardware,
        content: &TemplateSpec,
        given: &BTreeMap<String, ValueSource>,
    ) -> Vec<Problem> {
        let unchecked = self.inner.checker.check(content);
        if !unchecked.is_empty() {
            return unchecked;
        }
        // Where the machine will reach this server is not known yet; any address shows what is wrong.
        let server = self.inner.settings.server_url.clone().or_else(|| "https://127.0.0.1:3000".parse().ok());
        let Some(server) = server else { return Vec::new() };
        // Facts of a machine that was never seen are not known yet either.
        if machine.status.inventory.is_none() {
            return self.wrong_for_any(machine, content, given);
        }
        self.filled(machine, content, given, server, "").err().unwrap_or_default()
    }
}

/// Problems by their places alone: their words may quote a secret, whole or in part.
fn without_words(problems: Vec<Problem>, mask: &Mask) -> Vec<Problem> {
    let problem = "what a Secret fills in here is not accepted; look at the Secrets that `values` names";
    problems
        .into_iter()
        .map(|p| Problem { path: mask.hide(&p.path).into_owned(), problem: problem.to_owned() })
        .collect()
}
