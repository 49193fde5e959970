//! What operators ask for: assign, reimage, retry, abort, protect, hold, release.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::boot::{ADOPTED, CONFLICT};
use super::found::DOUBLED;
use super::identity::settle;
use super::restore::RESTORED;
use super::rules::Rule;
use super::{Engine, EngineError, Result, found, room, values};
use crate::clock::Timestamp;
use crate::lifecycle::{self, Phase, PhaseEvent};
use crate::resource::hardware::{Authorisation, Overwrite};
use crate::resource::power::PowerPolicy;
use crate::resource::template::ValueSource;
use crate::resource::workflow::StepStatus;
use crate::resource::{
    ConditionStatus, Hardware, HardwareSpec, Kind, Template, TemplateSpec, Workflow, WorkflowSpec, condition,
    set_condition,
};
use crate::workflow::{self, RunEvent, RunState};

/// Install this on that machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssignRequest {
    /// The template's name.
    pub template: String,
    /// Values for it; each overrides the template's own.
    #[serde(default)]
    pub values: BTreeMap<String, ValueSource>,
    /// Which disks that carry data may be overwritten; none unless told.
    #[serde(default)]
    pub overwrite: Overwrite,
    /// Whether its controller boots it for this; as the engine is set unless told.
    #[serde(default)]
    pub power: Option<PowerPolicy>,
}

/// Install anew, whatever is on the disks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReimageRequest {
    /// The template's name; the one that was installed last unless told.
    #[serde(default)]
    pub template: Option<String>,
    /// Values for it.
    #[serde(default)]
    pub values: BTreeMap<String, ValueSource>,
    /// Which disks may be overwritten; all that the template names unless told.
    #[serde(default)]
    pub overwrite: Option<Overwrite>,
    /// Whether its controller boots it for this; as the engine is set unless told.
    #[serde(default)]
    pub power: Option<PowerPolicy>,
}

/// What somebody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Assign,
    Reimage,
}

impl Engine {
    /// Authorises one run of a template on a machine. The machine takes it up when its agent next
    /// asks.
    ///
    /// # Errors
    /// `NotFound`; `Protected`; `Illegal` while another workflow runs; `Invalid` when the template
    /// makes no plan on this machine, a value is unset or unknown, or an image of this server is not there; `WouldDestroy` when an operating system was found on it and
    /// nothing says that it may go.
    pub async fn assign(&self, machine: &str, request: AssignRequest, by: &str) -> Result<Workflow> {
        let name = self.resolve(machine)?;
        self.authorise(&name, request, Asked::Assign, by).await
    }

    /// Authorises one run on a machine that has been installed already.
    ///
    /// # Errors
    /// As [`assign`](Self::assign).
    pub async fn reimage(&self, machine: &str, request: ReimageRequest, by: &str) -> Result<Workflow> {
        let (name, request) = self.as_assignment(machine, request).await?;
        self.authorise(&name, request, Asked::Reimage, by).await
    }

    /// Whether [`reimage`](Self::reimage) would be taken now: gives the template that it would install. Nothing is
    /// changed, so that a person can be asked before anything is.
    ///
    /// # Errors
    /// As [`assign`](Self::assign).
    pub async fn check_reimage(&self, machine: &str, request: ReimageRequest) -> Result<String> {
        let (name, request) = self.as_assignment(machine, request).await?;
        self.admissible(&name, &request, Asked::Reimage).await?;
        Ok(request.template)
    }

    async fn as_assignment(&self, machine: &str, request: ReimageRequest) -> Result<(String, AssignRequest)> {
        let name = self.resolve(machine)?;
        let object = self.machine_now(&name).await?;
        let template = request.template.or_else(|| object.status.installed.clone()).ok_or_else(|| {
            EngineError::Illegal { why: format!("nothing was installed on {name} from here; say which template") }
        })?;
        let overwrite = request.overwrite.unwrap_or(Overwrite::All);
        Ok((name, AssignRequest { template, values: request.values, overwrite, power: request.power }))
    }

    /// Whether a machine may be given something to run, as far as the machine itself says.
    pub(super) fn may_have(&self, machine: &Hardware, overwrite: &Overwrite, asked: Asked) -> Result<()> {
        let name = machine.name();
        not_being_deleted(machine)?;
        if asked == Asked::Assign && machine.status.phase == Some(Phase::Ready) {
            let installed = machine.status.installed.as_deref().unwrap_or("something");
            return Err(EngineError::Illegal {
                why: format!("{name} is Ready with {installed}; to install it anew, ask for reimage"),
            });
        }
        if machine.spec.protected && self.keeps(Rule::Protection) {
            return Err(EngineError::Protected { machine: name.to_owned() });
        }
        if let Some(why) = machine.spec.hold.as_ref().filter(|_| self.keeps(Rule::Hold)) {
            return Err(EngineError::Illegal { why: format!("{name} is held: {why}; release it first") });
        }
        if let Some(conflict) =
            condition(&machine.status.conditions, CONFLICT).filter(|c| c.status == ConditionStatus::True)
        {
            return Err(EngineError::Illegal {
                why: format!("the identity of {name} is in conflict: {}; release it first", conflict.message),
            });
        }
        if let Some(why) = found::doubled(machine) {
            return Err(EngineError::Illegal {
                why: format!("{name} cannot be told from another: {why}; give one of them another MAC"),
            });
        }
        if let Some(why) = found::gone(machine) {
            return Err(EngineError::Illegal {
                why: format!("there is nothing to install on: {why}; if it comes back, it is found again"),
            });
        }
        lifecycle::next(machine.status.phase, PhaseEvent::Assigned).map_err(|_| EngineError::Illegal {
            why: match machine.status.phase {
                Some(Phase::Assigned | Phase::Provisioning) => {
                    format!("{name} has a workflow under way; abort it first, or wait")
                }
                _ => format!("{name} is held; release it first"),
            },
        })?;
        let foreign = condition(&machine.status.conditions, ADOPTED).filter(|c| c.status == ConditionStatus::True);
        if let (Some(found), Overwrite::Blank) = (foreign, overwrite) {
            return Err(EngineError::WouldDestroy { machine: name.to_owned(), what: found.message.clone() });
        }
        Ok(())
    }

    /// The machine and the template, if the one may have the other now.
    async fn admissible(
        &self,
        name: &str,
        request: &AssignRequest,
        asked: Asked,
    ) -> Result<(Arc<Hardware>, Arc<Template>)> {
        let machine = self.machine_now(name).await?;
        // What it would destroy is said last: the rest is to be put right before anybody is asked that.
        self.may_have(&machine, &Overwrite::All, asked)?;
        let template = self
            .fresh::<TemplateSpec>(&request.template)
            .await?
            .ok_or_else(|| self.not_found(Kind::TEMPLATE, &request.template))?;
        if self.is_tinkerbells() {
            Self::may_overwrite_unseen(name, &request.overwrite)?;
            return Ok((machine, template));
        }
        self.fresh_secrets(template.spec.values.values().chain(request.values.values())).await?;
        let unused = values::unused_values(&request.template, &template.spec, &request.values);
        if !unused.is_empty() {
            return Err(EngineError::Invalid(unused));
        }
        let mut problems = self.problems_on(&machine, &template.spec, &request.values);
        problems.extend(room::too_large(&template.spec, &request.values));
        if !problems.is_empty() {
            return Err(EngineError::Invalid(problems));
        }
        let missing = self.missing_images(&machine, &template.spec, &request.values).await;
        if !missing.is_empty() {
            return Err(EngineError::Invalid(missing));
        }
        self.may_have(&machine, &request.overwrite, asked)?;
        Ok((machine, template))
    }

    async fn authorise(&self, name: &str, request: AssignRequest, asked: Asked, by: &str) -> Result<Workflow> {
        let _guard = self.lock(name).await;
        let (machine, template) = self.admissible(name, &request, asked).await?;
        if self.is_tinkerbells() {
            return self.hand_to_tinkerbell(&machine, &template, request, asked, by).await;
        }
        let now = self.now();
        let steps = template
            .spec
            .actions
            .iter()
            .map(|a| StepStatus { name: a.name.clone(), action: a.action.clone(), ..StepStatus::default() })
            .collect();
        let run = Workflow::new(
            workflow_name(name, now)?,
            WorkflowSpec {
                hardware: name.to_owned(),
                template: request.template.clone(),
                content: template.spec.clone(),
                values: request.values,
            },
        );
        let generation = match self.keeps(Rule::Generation) {
            true => next_number(machine.status.authorisation_generation, now),
            false => machine.status.authorisation_generation,
        };
        // 1. The workflow. A stop from here to 3 leaves an orphan, which the sweep takes away.
        let run = self.create(&run).await?;
        // 2. Its first state.
        let steps: Vec<StepStatus> = steps;
        let (run, ()) = self
            .change_status::<WorkflowSpec, _>(run.name(), |w| {
                w.status.attempt = 1;
                w.status.authorisation_generation = generation;
                w.status.steps.clone_from(&steps);
                "waits for the machine".clone_into(&mut w.status.message);
                Ok(())
            })
            .await?;
        let uid = run.metadata.uid.unwrap_or_default();
        let expires_at = now.plus(self.inner.settings.authorisation_life);
        // 3. The machine: the commit point. Another instance may have written it since it was judged.
        let committed = self.change_status::<HardwareSpec, _>(name, |m| {
            if !self.keeps(Rule::LastLook) {
                // As it was judged.
                m.status.phase = machine.status.phase;
            } else if m.status.authorisation_generation != machine.status.authorisation_generation {
                let why = format!("somebody else gave {name} something to run at this moment; look, and ask again");
                return Err(EngineError::Illegal { why });
            }
            if self.keeps(Rule::LastLook) {
                self.may_have(m, &request.overwrite, asked)?;
            }
            m.status.phase = Some(lifecycle::next(m.status.phase, PhaseEvent::Assigned)?);
            m.status.phase_since = Some(now);
            m.status.workflow = Some(run.name().to_owned());
            m.status.authorisation_generation = generation;
            m.status.message =
                format!("{} is assigned; it begins when the machine boots from the network", request.template);
            m.status.authorisation = Some(Authorisation {
                workflow: run.name().to_owned(),
                workflow_uid: uid,
                generation,
                granted_at: now,
                expires_at,
                granted_by: by.to_owned(),
                overwrite: request.overwrite.clone(),
                power: request.power.unwrap_or(self.inner.settings.power),
                used_at: None,
            });
            Ok(())
        });
        if let Err(error) = committed.await {
            // Nobody stands behind it. After a stop here, or when this fails too, the sweep takes it away.
            self.abort_run(run.name(), "its machine could not be given it").await.ok();
            return Err(error);
        }
        let words = format!("{by} assigned {} to it", request.template);
        self.tell("workflow.assigned", name, Some(run.name()), words);
        self.boot_soon(name);
        Ok(run)
    }

    /// Runs a failed workflow again, as a new attempt under the same authorisation: steps that were done
    /// are verified and skipped if they still hold.
    ///
    /// # Errors
    /// `Illegal` when nothing has failed or the authorisation has expired.
    pub async fn retry(&self, machine: &str, by: &str) -> Result<Workflow> {
        let name = self.resolve(machine)?;
        let _guard = self.lock(&name).await;
        let now = self.now();
        let object = self.machine_now(&name).await?;
        if object.spec.protected && self.keeps(Rule::Protection) {
            return Err(EngineError::Protected { machine: name });
        }
        not_being_deleted(&object)?;
        if object.status.phase != Some(Phase::Error) {
            return Err(EngineError::Illegal {
                why: format!("{name} has no failed workflow to retry: it is {}", phase_word(&object)),
            });
        }
        if self.is_tinkerbells() {
            return self.retry_by_tinkerbell(&object, by).await;
        }
        let authorisation =
            object.status.authorisation.as_ref().ok_or_else(|| EngineError::Illegal {
                why: format!("the authorisation of {name} is gone; assign anew"),
            })?;
        if now >= authorisation.expires_at && self.keeps(Rule::Expiry) {
            return Err(EngineError::Illegal {
                why: format!("the authorisation of {name} expired at {}; assign anew", authorisation.expires_at),
            });
        }
        let run = authorisation.workflow.clone();
        let kept = self.kept_template(&name, &run).await?;
        let (run, ()) = self
            .change_status::<WorkflowSpec, _>(&run, |w| {
                w.status.state = workflow::next(w.status.state, RunEvent::Retried)?;
                w.status.attempt += 1;
                w.status.session = None;
                w.status.ended_at = None;
                w.status.message = format!("{by} asked for another attempt{kept}");
                Ok(())
            })
            .await?;
        self.change_status::<HardwareSpec, _>(&name, |m| {
            // The sweep of another instance has done it already.
            if m.status.phase == Some(Phase::Assigned) && self.is_shared() {
                return Ok(());
            }
            m.status.phase = Some(lifecycle::next(m.status.phase, PhaseEvent::Retried)?);
            m.status.phase_since = Some(now);
            m.status.message =
                format!("attempt {} of {} waits for the machine{kept}", run.status.attempt, run.spec.template);
            Ok(())
        })
        .await?;
        self.tell(
            "workflow.retried",
            &name,
            Some(run.name()),
            format!("{by} asked for attempt {}{kept}", run.status.attempt),
        );
        self.boot_soon(&name);
        Ok(run)
    }

    /// That a run which is tried again is not what its template says by now, and how that is installed; else nothing.
    async fn kept_template(&self, machine: &str, run: &str) -> Result<String> {
        let Some(run) = self.fresh::<WorkflowSpec>(run).await? else { return Ok(String::new()) };
        let template = &run.spec.template;
        Ok(match self.fresh::<TemplateSpec>(template).await? {
            Some(now) if now.spec == run.spec.content => String::new(),
            Some(_) => format!(
                "; it runs {template} as it was when it was assigned, and {template} has been changed since: for the new \
                 one, dragonfly abort {machine} and assign it again"
            ),
            None => format!("; it runs {template} as it was when it was assigned, and {template} is gone since"),
        })
    }

    /// Calls the workflow of a machine off. What it has written stays as it is.
    ///
    /// # Errors
    /// `Illegal` when none is under way.
    pub async fn abort(&self, machine: &str, by: &str) -> Result<()> {
        let name = self.resolve(machine)?;
        let _guard = self.lock(&name).await;
        let now = self.now();
        let object = self.machine_now(&name).await?;
        let under_way = matches!(object.status.phase, Some(Phase::Assigned | Phase::Provisioning | Phase::Error));
        let run = object.status.workflow.clone().filter(|_| under_way);
        let Some(run) = run else {
            return Err(EngineError::Illegal {
                why: format!("{name} has no workflow under way: it is {}", phase_word(&object)),
            });
        };
        if self.is_tinkerbells() {
            return self.abort_by_tinkerbell(&object, &run, by).await;
        }
        if !self.keeps(Rule::EndsWithAbort) {
            return Ok(());
        }
        // The machine first: without its authorisation the workflow is inert.
        self.change_status::<HardwareSpec, _>(&name, |m| {
            if m.status.workflow.as_deref() != Some(&run) {
                let why = format!("{name} was given another workflow at this moment; look, and ask again");
                return Err(EngineError::Illegal { why });
            }
            let begun = m.status.authorisation.as_ref().is_some_and(|a| a.used_at.is_some());
            m.status.phase = Some(lifecycle::next(m.status.phase, PhaseEvent::Aborted)?);
            m.status.phase_since = Some(now);
            m.status.authorisation = None;
            m.status.message = format!("{by} called {run} off");
            if begun {
                let words = "a workflow had begun: what was on its disks may be gone";
                set_condition(&mut m.status.conditions, ADOPTED, ConditionStatus::False, "WorkflowBegun", words, now);
            }
            Ok(())
        })
        .await?;
        self.abort_run(&run, &format!("called off by {by}")).await?;
        self.tell("workflow.aborted", &name, Some(&run), format!("{by} called it off"));
        Ok(())
    }

    pub(super) async fn abort_run(&self, run: &str, why: &str) -> Result<()> {
        let now = self.now();
        self.change_status::<WorkflowSpec, _>(run, |w| {
            if !w.status.state.is_final() {
                w.status.state = workflow::next(w.status.state, RunEvent::Aborted)?;
                w.status.ended_at = Some(now);
                why.clone_into(&mut w.status.message);
            }
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// Protects a machine from assign and reimage, or takes the protection back.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn protect(&self, machine: &str, on: bool, by: &str) -> Result<()> {
        let name = self.resolve(machine)?;
        let _guard = self.lock(&name).await;
        self.change_spec::<HardwareSpec>(&name, |m| {
            m.spec.protected = on;
            Ok(())
        })
        .await?;
        let word = if on { "protected it" } else { "took its protection back" };
        self.tell("machine.protected", &name, None, format!("{by} {word}"));
        Ok(())
    }

    /// Holds a machine: it boots from its disk and nothing is done to it until it is released.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn hold(&self, machine: &str, why: &str, by: &str) -> Result<()> {
        let name = self.resolve(machine)?;
        let _guard = self.lock(&name).await;
        self.change_spec::<HardwareSpec>(&name, |m| {
            m.spec.hold = Some(why.to_owned());
            Ok(())
        })
        .await?;
        self.tell("machine.held", &name, None, format!("{by} holds it: {why}"));
        Ok(())
    }

    /// Releases a machine: from a person's hold, and from an identity conflict that a person has settled.
    ///
    /// # Errors
    /// `Illegal` when nothing holds it.
    pub async fn release(&self, machine: &str, by: &str) -> Result<()> {
        let name = self.resolve(machine)?;
        let _guard = self.lock(&name).await;
        let now = self.now();
        let object = self.machine_now(&name).await?;
        let conflict =
            condition(&object.status.conditions, CONFLICT).is_some_and(|c| c.status == ConditionStatus::True);
        let doubled = found::doubled(&object).is_some();
        let held = object.status.phase == Some(Phase::Held);
        if object.spec.hold.is_none() && !conflict && !doubled && !held {
            return Err(EngineError::Illegal { why: format!("nothing holds {name}") });
        }
        if object.spec.hold.is_some() {
            self.change_spec::<HardwareSpec>(&name, |m| {
                m.spec.hold = None;
                Ok(())
            })
            .await?;
        }
        self.change_status::<HardwareSpec, _>(&name, |m| {
            if conflict {
                let words = format!("settled by {by}: the next agent that asks is believed");
                settle(m, &words, now);
            }
            if doubled {
                // A cluster that still says so marks it again.
                let words = format!("settled by {by}");
                set_condition(&mut m.status.conditions, DOUBLED, ConditionStatus::False, "Settled", &words, now);
            }
            if held && m.status.phase == Some(Phase::Held) {
                m.status.phase = Some(lifecycle::next(m.status.phase, PhaseEvent::Released)?);
                m.status.phase_since = Some(now);
                m.status.authorisation = None;
                let words = format!("released by {by}");
                if condition(&m.status.conditions, RESTORED).is_some() {
                    set_condition(&mut m.status.conditions, RESTORED, ConditionStatus::False, "Released", &words, now);
                }
                m.status.message = format!("{words}; waiting for an assignment");
            }
            Ok(())
        })
        .await?;
        // What was held with it has nobody behind it any more. The sweep does the same after a stop here.
        let held = object.status.workflow.as_ref().filter(|_| held);
        if let Some(run) = held
            && let Some(run) = self.fresh::<WorkflowSpec>(run).await?
            && run.status.state == RunState::Held
        {
            self.abort_run(run.name(), &format!("{by} released its machine; assign or reimage anew")).await?;
        }
        self.tell("machine.released", &name, None, format!("{by} released it"));
        Ok(())
    }

    pub(super) fn machine(&self, name: &str) -> Result<Arc<Hardware>> {
        self.inner.cache.get::<HardwareSpec>(name).ok_or_else(|| self.not_found(Kind::HARDWARE, name))
    }

    /// As [`machine`](Self::machine), as it is stored.
    pub(super) async fn machine_now(&self, name: &str) -> Result<Arc<Hardware>> {
        self.fresh::<HardwareSpec>(name).await?.ok_or_else(|| self.not_found(Kind::HARDWARE, name))
    }

    /// Whether a run is under way on a machine.
    pub(super) fn busy(machine: &Hardware) -> bool {
        matches!(machine.status.phase, Some(Phase::Assigned | Phase::Provisioning))
    }
}

/// A Kubernetes cluster keeps an object whose deletion was asked for until its finalizers are gone.
fn not_being_deleted(machine: &Hardware) -> Result<()> {
    if machine.metadata.deletion_timestamp.is_none() {
        return Ok(());
    }
    let (name, waits) = (machine.name(), machine.metadata.finalizers.join(", "));
    Err(EngineError::Illegal { why: format!("{name} is being deleted (it waits for {waits}); nothing is begun on it") })
}

fn phase_word(machine: &Hardware) -> String {
    machine.status.phase.map_or_else(|| "not seen yet".to_owned(), |p| p.to_string())
}

/// A name that no run had before.
/// The number of an authorisation that is given now. It is beyond the last one on record, and beyond what disks
/// bear of records that are gone: those of a machine that was deleted and found anew, or came from another site.
pub(super) fn next_number(last: u64, now: Timestamp) -> u64 {
    u64::try_from(now.unix_seconds()).unwrap_or(0).max(last.saturating_add(1))
}

pub(super) fn workflow_name(machine: &str, now: Timestamp) -> Result<String> {
    let ulid = Ulid::from_parts(now.unix_millis().max(0) as u64, random_80()?);
    Ok(format!("{machine}-{}", ulid.to_string().to_lowercase()))
}

fn random_80() -> Result<u128> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes[6..]).map_err(|_| crate::secret::SealError::NoRandom)?;
    Ok(u128::from_be_bytes(bytes))
}
