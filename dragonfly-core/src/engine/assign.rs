//! What operators ask a machine to run: assign and reimage.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::boot::{ADOPTED, CONFLICT};
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
};

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
}

/// A Kubernetes cluster keeps an object whose deletion was asked for until its finalizers are gone.
pub(super) fn not_being_deleted(machine: &Hardware) -> Result<()> {
    if machine.metadata.deletion_timestamp.is_none() {
        return Ok(());
    }
    let (name, waits) = (machine.name(), machine.metadata.finalizers.join(", "));
    Err(EngineError::Illegal { why: format!("{name} is being deleted (it waits for {waits}); nothing is begun on it") })
}

/// The number of an authorisation that is given now. It is beyond the last one on record, and beyond what disks
/// bear of records that are gone: those of a machine that was deleted and found anew, or came from another site.
pub(super) fn next_number(last: u64, now: Timestamp) -> u64 {
    u64::try_from(now.unix_seconds()).unwrap_or(0).max(last.saturating_add(1))
}

/// A name that no run had before.
pub(super) fn workflow_name(machine: &str, now: Timestamp) -> Result<String> {
    let ulid = Ulid::from_parts(now.unix_millis().max(0) as u64, random_80()?);
    Ok(format!("{machine}-{}", ulid.to_string().to_lowercase()))
}

fn random_80() -> Result<u128> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes[6..]).map_err(|_| crate::secret::SealError::NoRandom)?;
    Ok(u128::from_be_bytes(bytes))
}
