//! What an agent that asks is to do.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::render::{self, Facts, MachineFacts};
use super::sessions::SessionClaims;
use super::{Engine, EngineError, Result};
use crate::action::{Permit, Problem};
use crate::boot::Fate;
use crate::resource::hardware::Trust;
use crate::resource::template::ValueSource;
use crate::resource::{Hardware, HardwareSpec, SecretSpec, TemplateSpec, Workflow};
use crate::wire::{Ask, Failure, Orders, Work, WorkStep};
use crate::workflow::{RunState, StepState};

/// The longest that an agent may be kept waiting for an answer.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long a step may take unless its template says.
const STEP_SECONDS: u64 = 3600;

impl Engine {
    /// What the machine of this session is to do. Waits for something to do as long as the agent asks,
    /// 30 s at most.
    ///
    /// # Errors
    /// `Unauthenticated` when the session has ended.
    pub async fn work(&self, session: &str, ask: Ask) -> Result<Orders> {
        let wait = Duration::from_secs(ask.wait_seconds.into()).min(LONGEST_WAIT);
        let deadline = tokio::time::Instant::now() + wait;
        // Subscribed before the first look, so that nothing falls between.
        let mut news = self.inner.events.subscribe(None).live;
        loop {
            let (claims, machine) = self.session(session)?;
            let orders = self.orders(&claims, &machine).await?;
            if !matches!(orders, Orders::Wait { .. }) {
                return Ok(orders);
            }
            let mine = async {
                use tokio::sync::broadcast::error::RecvError;
                loop {
                    match news.recv().await {
                        Ok(event) if event.machine.as_deref() != Some(claims.machine.as_str()) => {}
                        Ok(_) | Err(RecvError::Lagged(_)) => return,
                        Err(RecvError::Closed) => std::future::pending().await,
                    }
                }
            };
            if tokio::time::timeout_at(deadline, mine).await.is_err() {
                return Ok(orders);
            }
        }
    }

    async fn orders(&self, claims: &SessionClaims, machine: &Hardware) -> Result<Orders> {
        let decision = self.decision_for(machine);
        Ok(match decision.fate {
            Fate::Discover => Orders::Wait { reason: decision.reason },
            Fate::Local | Fate::Hold => Orders::BootLocal { reason: decision.reason },
            Fate::Chain { .. } => Orders::Reboot { reason: decision.reason },
            Fate::Image { .. } => match self.authorised(machine, self.now()) {
                Err(why) => Orders::Wait { reason: why },
                Ok(workflow) => match self.prepare(claims, machine, &workflow).await {
                    Ok(Some(work)) => Orders::Execute(Box::new(work)),
                    Ok(None) => Orders::Wait { reason: "this attempt is at work already".to_owned() },
                    Err(failure) => {
                        self.refuse(machine.name(), &workflow, failure).await?;
                        Orders::Wait { reason: "its workflow cannot be carried out".to_owned() }
                    }
                },
            },
        })
    }

    /// One attempt, rendered for this machine; `None` when this very session has begun it already.
    async fn prepare(
        &self,
        claims: &SessionClaims,
        machine: &Hardware,
        workflow: &Workflow,
    ) -> std::result::Result<Option<Work>, Failure> {
        let run = &workflow.status;
        let ours = run.session.as_deref() == Some(claims.id.to_string().as_str());
        if run.state == RunState::Running && ours {
            return Ok(None);
        }
        // Begun under another session: that agent is gone. What it did is verified, and it counts.
        let attempt = if run.state == RunState::Running { run.attempt + 1 } else { run.attempt };
        let most = self.inner.settings.attempts;
        if run.state == RunState::Running && attempt > most {
            return Err(Failure::message(format!(
                "the machine was restarted in the middle of {most} attempts; look at its console and log, then retry"
            )));
        }
        let authorisation =
            machine.status.authorisation.as_ref().ok_or_else(|| Failure::message("the authorisation is gone"))?;
        let content = self
            .rendered(machine, &workflow.spec.content, &workflow.spec.values, claims.server.clone(), workflow.name())
            .map_err(|problems| failure(&problems))?;
        let problems = self.inner.checker.check(&content);
        if !problems.is_empty() {
            return Err(failure(&problems));
        }
        let steps = content
            .actions
            .into_iter()
            .enumerate()
            .map(|(index, action)| WorkStep {
                done_before: run
                    .steps
                    .get(index)
                    .is_some_and(|s| matches!(s.state, StepState::Succeeded | StepState::Skipped)),
                timeout_seconds: action.timeout_seconds.unwrap_or(STEP_SECONDS),
                name: action.name,
                action: action.action,
                with: action.with,
            })
            .collect();
        Ok(Some(Work {
            workflow: workflow.name().to_owned(),
            attempt,
            permit: Permit {
                workflow_uid: authorisation.workflow_uid,
                generation: authorisation.generation,
                overwrite: authorisation.overwrite.clone(),
            },
            steps,
        }))
    }

    /// A template with its values and this machine's facts filled in.
    pub(super) fn rendered(
        &self,
        machine: &Hardware,
        content: &TemplateSpec,
        given: &BTreeMap<String, ValueSource>,
        server: url::Url,
        run: &str,
    ) -> std::result::Result<TemplateSpec, Vec<Problem>> {
        let mut values = BTreeMap::new();
        let mut problems = Vec::new();
        let all: BTreeMap<&String, &ValueSource> = content.values.iter().chain(given).collect();
        for (name, source) in all {
            match self.value(machine, source) {
                Ok(text) => {
                    values.insert(name.clone(), text);
                }
                Err(problem) => problems.push(Problem { path: format!("values.{name}"), problem }),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let facts = Facts {
            machine: MachineFacts::of(machine),
            inventory: machine.status.inventory.as_ref(),
            values,
            server: server.as_str().trim_end_matches('/').to_owned(),
            phone_home: self.phone_home_url(machine, run, &server),
        };
        let mut content = render::render(content, &facts)?;
        for action in &mut content.actions {
            self.link_images(&mut action.with, &server);
        }
        Ok(content)
    }

    fn value(&self, machine: &Hardware, source: &ValueSource) -> std::result::Result<String, String> {
        let from = match source {
            ValueSource::Plain(text) => return Ok(text.clone()),
            ValueSource::From { value_from } => &value_from.secret_ref,
        };
        match machine.spec.trust {
            Trust::Network => {}
            Trust::Bmc => {
                return Err("spec.trust is `bmc`: secrets go out only after a power cycle through the BMC, which this version cannot do".to_owned());
            }
            Trust::Tpm => return Err("spec.trust is `tpm`, which this version cannot verify".to_owned()),
        }
        let secret = self
            .inner
            .cache
            .get::<SecretSpec>(&from.name)
            .ok_or_else(|| format!("Secret `{}` does not exist", from.name))?;
        let sealed = secret
            .spec
            .sealed
            .get(&from.key)
            .ok_or_else(|| format!("Secret `{}` has no key `{}`", from.name, from.key))?;
        let place = super::resources::sealing_place(&from.name, &from.key);
        let opened = self.inner.key.open(&place, sealed).map_err(|e| format!("Secret `{}`: {e}", from.name))?;
        Ok(opened.reveal().to_owned())
    }

    /// Every `url` that begins with `/images/` becomes a link to this server's own images.
    fn link_images(&self, value: &mut Value, server: &url::Url) {
        match value {
            Value::Object(fields) => {
                for (key, item) in fields {
                    match item {
                        Value::String(text) if key == "url" && text.starts_with("/images/") => {
                            *text = self.inner.images.link(server, text);
                        }
                        other => self.link_images(other, server),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.link_images(item, server)),
            _ => {}
        }
    }

    /// Fails a workflow that cannot be carried out on its machine. Nothing was done to it.
    async fn refuse(&self, machine: &str, workflow: &Workflow, failure: Failure) -> Result<()> {
        let _guard = self.lock(machine).await;
        self.fail_run(machine, workflow.name(), None, failure, super::report::Again::Never).await
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
            return Vec::new();
        }
        match self.rendered(machine, content, given, server, "") {
            Ok(filled) => self.inner.checker.check(&filled),
            Err(problems) => problems,
        }
    }

    /// The machine by name, in any spelling that people use: name, display name or MAC.
    ///
    /// # Errors
    /// `NotFound` when there is none, `Illegal` when a MAC belongs to several.
    pub fn resolve(&self, word: &str) -> Result<String> {
        use crate::cache::Owner;
        let lower = word.to_lowercase();
        if self.inner.cache.get::<HardwareSpec>(&lower).is_some() {
            return Ok(lower);
        }
        if let Ok(mac) = word.parse() {
            return match self.inner.cache.by_mac(mac) {
                Owner::One(machine) => Ok(machine.name().to_owned()),
                Owner::Several(names) => Err(EngineError::Illegal {
                    why: format!("{mac} belongs to {}; name one of them", names.join(" and ")),
                }),
                Owner::Nobody => Err(EngineError::NotFound { what: format!("a machine with the card {mac}") }),
            };
        }
        let named =
            self.inner.cache.all::<HardwareSpec>().into_iter().find(|m| m.spec.display_name.eq_ignore_ascii_case(word));
        named.map(|m| m.name().to_owned()).ok_or_else(|| EngineError::NotFound { what: format!("machine `{word}`") })
    }
}

fn failure(problems: &[Problem]) -> Failure {
    Failure {
        message: "the template cannot be carried out on this machine; nothing was written".to_owned(),
        causes: problems.iter().map(|p| format!("{}: {}", p.path, p.problem)).collect(),
    }
}
