//! The rules that the promise stands on, by name, so that a test can take one away and see that it
//! is missed. Without the feature `testing` every rule is kept, and asking costs nothing.

use super::Engine;

/// A rule that an engine can be built without, for tests of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(not(feature = "testing"), allow(unreachable_pub, dead_code))]
#[non_exhaustive]
pub enum Rule {
    /// Each authorisation of a machine has a higher number than those before it.
    Generation,
    /// A run that failed for good begins again only when somebody asks.
    RetryLimit,
    /// What is reported of a run or an attempt that is over changes nothing.
    LateReport,
    /// A boot token opens one session.
    TokenOnce,
    /// Only the latest session speaks for its machine.
    LatestSession,
    /// A workflow that somebody applies is authorised by nobody.
    AppliedIsInert,
    /// The hand-over ends the authorisation.
    EndsWithSuccess,
    /// What was called off is void.
    EndsWithAbort,
    /// An authorisation lasts for its time and no longer.
    Expiry,
    /// A protected machine is not imaged.
    Protection,
    /// A machine that a person holds is not imaged.
    Hold,
    /// What a restored backup allowed is void.
    HoldRestored,
    /// Nothing is written before it is certain enough that an agent runs on the machine that it speaks for.
    Proven,
    /// A workflow that was changed since it was authorised is not carried out.
    AsMade,
    /// What is judged of a machine is judged on what is written, where others may write too.
    LastLook,
}

impl Rule {
    /// Every rule that one engine stands on; [`LastLook`](Self::LastLook) is for several.
    #[cfg(feature = "testing")]
    pub const ALL: [Self; 14] = [
        Self::Generation,
        Self::RetryLimit,
        Self::LateReport,
        Self::TokenOnce,
        Self::LatestSession,
        Self::AppliedIsInert,
        Self::EndsWithSuccess,
        Self::EndsWithAbort,
        Self::Expiry,
        Self::Protection,
        Self::Hold,
        Self::HoldRestored,
        Self::Proven,
        Self::AsMade,
    ];
}

impl Engine {
    /// Whether this engine keeps a rule.
    #[cfg(feature = "testing")]
    pub(super) fn keeps(&self, rule: Rule) -> bool {
        self.inner.without != Some(rule)
    }

    /// Whether this engine keeps a rule: always.
    #[cfg(not(feature = "testing"))]
    #[allow(clippy::unused_self)]
    pub(super) const fn keeps(&self, _: Rule) -> bool {
        true
    }
}

#[cfg(feature = "testing")]
mod broken {
    use super::super::{Engine, EngineBuilder, Result};
    use super::Rule;
    use crate::lifecycle::Phase;
    use crate::resource::hardware::{Authorisation, Overwrite};
    use crate::resource::workflow::StepStatus;
    use crate::resource::{HardwareSpec, Kind, Record, WorkflowSpec};
    use crate::workflow::RunState;

    impl EngineBuilder {
        /// An engine that breaks this rule.
        #[must_use]
        pub fn without(mut self, rule: Option<Rule>) -> Self {
            self.without = rule;
            self
        }
    }

    impl Engine {
        /// Without [`Rule::AppliedIsInert`]: whoever applies a workflow authorises it.
        pub(in super::super) async fn authorise_applied(&self, record: &Record) -> Result<()> {
            if self.keeps(Rule::AppliedIsInert) || record.kind != Kind::WORKFLOW {
                return Ok(());
            }
            let run = record.decode::<WorkflowSpec>()?;
            let Some(machine) = self.inner.cache.get::<HardwareSpec>(&run.spec.hardware) else { return Ok(()) };
            let generation = machine.status.authorisation_generation + 1;
            self.change_status::<WorkflowSpec, _>(run.name(), |w| {
                w.status.attempt = 1;
                w.status.authorisation_generation = generation;
                w.status.steps = w.spec.content.actions.iter().map(step).collect();
                Ok(())
            })
            .await?;
            let now = self.now();
            self.change_status::<HardwareSpec, _>(machine.name(), |m| {
                m.status.phase = Some(Phase::Assigned);
                m.status.workflow = Some(run.name().to_owned());
                m.status.authorisation_generation = generation;
                m.status.authorisation = Some(Authorisation {
                    workflow: run.name().to_owned(),
                    workflow_uid: run.metadata.uid.unwrap_or_default(),
                    generation,
                    granted_at: now,
                    expires_at: now.plus(self.inner.settings.authorisation_life),
                    granted_by: String::new(),
                    overwrite: Overwrite::All,
                    power: Default::default(),
                    used_at: None,
                });
                Ok(())
            })
            .await?;
            Ok(())
        }

        /// Without [`Rule::EndsWithSuccess`]: what was carried out may be carried out again.
        pub(in super::super) async fn keep_after_success(&self, machine: &str, run: &str) -> Result<()> {
            self.change_status::<WorkflowSpec, _>(run, |w| {
                w.status.state = RunState::Pending;
                w.status.attempt += 1;
                w.status.session = None;
                Ok(())
            })
            .await?;
            self.change_status::<HardwareSpec, _>(machine, |m| {
                m.status.phase = Some(Phase::Assigned);
                Ok(())
            })
            .await?;
            Ok(())
        }
    }

    fn step(action: &crate::resource::template::TemplateAction) -> StepStatus {
        StepStatus { name: action.name.clone(), action: action.action.clone(), ..StepStatus::default() }
    }
}
