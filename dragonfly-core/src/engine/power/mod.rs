//! Power: what machines' controllers are told, and what came of it.
//!
//! A machine's controller stands in `spec.bmc`, its account in a Secret. Every operation that changes something is
//! an event with its outcome; whether a machine is on is the condition [`POWERED`], written when it changes.

mod account;
mod assigned;
mod look;
mod own;

use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;
use uuid::Uuid;

pub(super) use assigned::Boots;

use super::boot::CONFLICT;
use super::found::{doubled, not_adopted};
use super::{Engine, EngineError, Result};
use crate::action::Problem;
use crate::inventory::FirmwareMode;
use crate::power::{BootMode, Credential, Operation, Outcome, PowerError, PowerState, Target};
use crate::resource::hardware::{Bmc, NameRef};
use crate::resource::power::{PowerOperation, PowerStatus};
use crate::resource::{ConditionStatus, Hardware, HardwareSpec, Kind, SecretSpec, condition, set_condition};
use crate::secret::SecretString;

/// The condition that a machine has power.
pub const POWERED: &str = "Powered";

/// A machine's controller, as a person gives it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BmcRequest {
    /// `ipmi://10.0.0.6`, `redfish://10.0.0.5`; never with a password in it.
    pub address: Url,
    /// Who logs in; with `password`.
    #[serde(default)]
    pub username: Option<String>,
    /// That account's password: goes into a Secret of the machine's own.
    #[serde(default)]
    pub password: Option<SecretString>,
    /// A Secret that is there already, with the keys `username` and `password`.
    #[serde(default)]
    pub secret: Option<String>,
    /// As `spec.bmc.bootMode`.
    #[serde(default)]
    pub boot_mode: Option<BootMode>,
}

/// What a controller turned out to be.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BmcTested {
    /// Where it answers.
    pub address: Url,
    /// What it can do, as words of `dragonfly power`.
    pub can: Vec<&'static str>,
    /// Whether the machine is on, where the controller can tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<PowerState>,
}

impl Engine {
    /// Has a machine's controller do something when it is its turn, and notes what came of it.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for the address of an image that cannot be used; `Illegal` when the machine has no
    /// controller; `Power` with what the controller said.
    pub async fn power(&self, machine: &str, operation: Operation, by: &str) -> Result<Outcome> {
        let name = self.resolve(machine)?;
        let object = self.machine(&name)?;
        operation.check().map_err(|error| {
            EngineError::Invalid(vec![Problem { path: "image".to_owned(), problem: error.to_string() }])
        })?;
        let operation = match operation {
            Operation::NetworkBoot(None) => Operation::NetworkBoot(boot_mode(&object)),
            Operation::SetNextBoot(Some(boot)) if boot.mode.is_none() => {
                Operation::SetNextBoot(Some(crate::power::BootOverride { mode: boot_mode(&object), ..boot }))
            }
            other => other,
        };
        self.operate(&object, operation, by, || true).await
    }

    /// A machine that was found and that nobody has adopted is asked, and nothing of it is changed.
    async fn operate(
        &self,
        machine: &Hardware,
        operation: Operation,
        by: &str,
        wanted: impl Fn() -> bool + Send,
    ) -> Result<Outcome> {
        let name = machine.name();
        if let Some(why) = not_adopted(machine).filter(|_| operation.changes()) {
            return Err(EngineError::Illegal { why: format!("{name} is held: {why}") });
        }
        if let Some(why) = doubled(machine).filter(|_| operation.changes()) {
            return Err(EngineError::Illegal { why: format!("{name} cannot be told from another: {why}") });
        }
        let spoke = machine.status.session.as_ref().map(|session| session.id);
        let done = match self.target(machine)? {
            Ok(target) => self.inner.power.carry_out_while(&target, operation.clone(), wanted).await,
            Err(error) => Err(error),
        };
        self.note_power(name, &operation, by, spoke, &done).await?;
        done.map_err(|source| EngineError::Power { machine: name.to_owned(), operation: operation.word(), source })
    }

    /// Says where a machine's controller is and who logs in to it. A password goes into the Secret `bmc-MACHINE`,
    /// which goes when the machine is deleted.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for an address that no driver knows or half an account.
    pub async fn set_bmc(&self, machine: &str, request: BmcRequest, by: &str) -> Result<()> {
        let name = self.resolve(machine)?;
        let BmcRequest { address, username, password, secret, boot_mode } = request;
        let mut problems = Vec::new();
        let mut wrong = |path: &str, problem: String| problems.push(Problem { path: path.to_owned(), problem });
        if let Err(error) = self.inner.power.drivers().check(&address) {
            wrong("address", error.to_string());
        }
        if address.password().is_some() || !address.username().is_empty() {
            wrong("address", "user and password do not belong here; give them as username and password".to_owned());
        }
        match (&username, &password, &secret) {
            (_, None, _) if username.is_some() => wrong("password", "missing: a user alone opens nothing".to_owned()),
            (_, Some(_), Some(_)) => wrong("secret", "give either a Secret or an account, not both".to_owned()),
            (_, _, Some(named)) if self.inner.cache.get::<SecretSpec>(named).is_none() => {
                wrong("secret", format!("Secret `{named}` does not exist"));
            }
            _ => {}
        }
        if !problems.is_empty() {
            return Err(EngineError::Invalid(problems));
        }
        self.machine(&name)?;
        let secret = match password {
            Some(password) => {
                let data = json!({ "username": username.unwrap_or_default(), "password": password.reveal() });
                self.apply_one(own::record(&name, data), by).await?;
                Some(own::name(&name))
            }
            None => secret,
        };
        let bmc = Bmc { address: address.clone(), secret_ref: secret.map(|name| NameRef { name }), boot_mode };
        {
            let _guard = self.lock(&name).await;
            self.change_spec::<HardwareSpec>(&name, |m| {
                m.spec.bmc = Some(bmc.clone());
                m.metadata.annotations.remove(account::ANNOTATION);
                Ok(())
            })
            .await?;
        }
        // Somebody says that it is right now.
        self.inner.power.forgive(&address);
        self.tell("power.controller", &name, None, format!("{by} says that its controller is {address}"));
        Ok(())
    }

    /// A machine has no controller any more; its own Secret goes with it. Its agent makes no account by itself until
    /// [`set_bmc`](Self::set_bmc) or [`allow_bmc_account`](Self::allow_bmc_account).
    ///
    /// # Errors
    /// `NotFound`; `Illegal` when it has none.
    pub async fn remove_bmc(&self, machine: &str, by: &str) -> Result<()> {
        let name = self.resolve(machine)?;
        let own = own::name(&name);
        let bmc = self.machine(&name)?.spec.bmc.clone().ok_or_else(|| no_controller(&name))?;
        {
            let _guard = self.lock(&name).await;
            self.change_spec::<HardwareSpec>(&name, |m| {
                m.spec.bmc = None;
                m.metadata.annotations.insert(account::ANNOTATION.to_owned(), account::NONE.to_owned());
                Ok(())
            })
            .await?;
            self.change_status::<HardwareSpec, _>(&name, |m| {
                m.status.conditions.retain(|c| c.kind != POWERED);
                Ok(())
            })
            .await?;
        }
        self.tell("power.controller", &name, None, format!("{by} took its controller away"));
        if bmc.secret_ref.is_some_and(|secret| secret.name == own) {
            self.delete(Kind::SECRET, &own, by).await?;
        }
        Ok(())
    }

    /// Logs in to a machine's controller and sees what it can do. A password that was refused before is tried
    /// once more: somebody is there who looks.
    ///
    /// # Errors
    /// As [`power`](Self::power).
    pub async fn test_bmc(&self, machine: &str, by: &str) -> Result<BmcTested> {
        let name = self.resolve(machine)?;
        let object = self.machine(&name)?;
        let bmc = object.spec.bmc.as_ref().ok_or_else(|| no_controller(&name))?;
        self.inner.power.forgive(&bmc.address);
        match self.operate(&object, Operation::Test, by, || true).await? {
            Outcome::Tested { can, state } => Ok(BmcTested { address: bmc.address.clone(), can, state }),
            _ => Ok(BmcTested { address: bmc.address.clone(), can: Vec::new(), state: None }),
        }
    }

    /// The controller of a machine and its account, or why there is no account.
    fn target(&self, machine: &Hardware) -> Result<std::result::Result<Target, PowerError>> {
        let bmc = machine.spec.bmc.as_ref().ok_or_else(|| no_controller(machine.name()))?;
        let credential = match &bmc.secret_ref {
            None => None,
            Some(secret) => match self.credential(&secret.name) {
                Ok(credential) => Some(credential),
                Err(reason) => return Ok(Err(PowerError::InvalidCredential { reason })),
            },
        };
        Ok(Ok(Target { address: bmc.address.clone(), credential }))
    }

    pub(super) fn credential(&self, secret: &str) -> std::result::Result<Credential, String> {
        let read = |key: &str| {
            let found = self
                .inner
                .cache
                .get::<SecretSpec>(secret)
                .ok_or_else(|| format!("Secret `{secret}` does not exist"))?;
            self.secret_value(&found, key).transpose().map_err(|error| format!("Secret `{secret}`: {error}"))
        };
        // A password alone is enough where there are no users, as for Wake-on-LAN.
        let username = read("username")?.map(|name| name.reveal().to_owned()).unwrap_or_default();
        let password = read("password")?.ok_or_else(|| format!("Secret `{secret}` has no key `password`"))?;
        Ok(Credential { username, password })
    }

    /// Writes down what is now known, if it is something new, and tells it.
    async fn note_power(
        &self,
        name: &str,
        operation: &Operation,
        by: &str,
        spoke: Option<Uuid>,
        done: &std::result::Result<Outcome, PowerError>,
    ) -> Result<()> {
        if matches!(done, Err(PowerError::Withdrawn)) {
            return Ok(());
        }
        let (now, word) = (self.now(), operation.word());
        let failure = done.as_ref().err().map(whole);
        let known = known(operation, done);
        let changes = operation.changes();
        let restarts =
            matches!(operation, Operation::Off | Operation::Cycle | Operation::Reset | Operation::NetworkBoot(_));
        if restarts && done.is_ok() {
            // Whoever spoke for it is gone: the next agent need not wait until that is noticed.
            self.inner.sessions.forget(name);
        }
        let _guard = self.lock(name).await;
        let Some(machine) = self.inner.cache.get::<HardwareSpec>(name) else { return Ok(()) };
        let before = condition(&machine.status.conditions, POWERED);
        let is_new = known.as_ref().is_some_and(|(status, reason, _)| {
            before.is_none_or(|before| before.status != *status || before.reason != *reason)
        });
        if changes || is_new {
            self.change_status::<HardwareSpec, _>(name, |m| {
                if let Some((status, reason, message)) = &known {
                    set_condition(&mut m.status.conditions, POWERED, *status, reason, message, now);
                }
                if changes {
                    let power = m.status.power.get_or_insert_default();
                    let last = PowerOperation {
                        operation: word.to_owned(),
                        at: now,
                        by: by.to_owned(),
                        failure: failure.clone(),
                        may_repeat: done.as_ref().is_err_and(PowerError::is_retryable),
                    };
                    note_last(power, operation, last);
                    // Neither other instances nor this one after a restart need to ask whether it lives.
                    let session = m.status.session.as_mut().filter(|session| Some(session.id) == spoke);
                    if let Some(session) = session.filter(|_| restarts && done.is_ok()) {
                        session.ended = true;
                    }
                }
                Ok(())
            })
            .await?;
        }
        if changes {
            let (kind, message) = match &failure {
                None => ("power.done", format!("{by}: {operation}")),
                Some(failure) => ("power.failed", format!("{by}: {operation}: {failure}")),
            };
            self.tell_with(kind, name, None, message, json!({ "operation": word, "failure": failure }));
        } else if let Some((status, reason, message)) = known.filter(|_| is_new) {
            let state = match status {
                ConditionStatus::True => "on",
                ConditionStatus::False => "off",
                ConditionStatus::Unknown => "unknown",
            };
            self.tell_with("power.changed", name, None, message, json!({ "power": state, "reason": reason }));
        }
        Ok(())
    }
}

fn note_last(power: &mut PowerStatus, operation: &Operation, last: PowerOperation) {
    let done = last.failure.is_none();
    if done && matches!(operation, Operation::Cycle | Operation::Reset | Operation::NetworkBoot(_)) {
        power.cycled_at = Some(last.at);
    }
    power.failures = if done { 0 } else { power.failures.saturating_add(1) };
    power.last = Some(last);
}

fn no_controller(name: &str) -> EngineError {
    EngineError::Illegal {
        why: format!("no power controller of {name} is known; say where it is: dragonfly bmc set {name} ADDRESS"),
    }
}

/// An error with its causes: the first alone says little.
pub(super) fn whole(error: &PowerError) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |e| e.source());
    causes.fold(error.to_string(), |words, cause| format!("{words}: {cause}"))
}

/// How its firmware is to be told to boot: a controller that is told nothing has many a UEFI machine boot as a BIOS.
fn boot_mode(machine: &Hardware) -> Option<BootMode> {
    let seen = machine.status.inventory.as_ref().and_then(|inventory| inventory.firmware);
    machine.spec.bmc.as_ref().and_then(|bmc| bmc.boot_mode).or(match seen {
        Some(FirmwareMode::Uefi) => Some(BootMode::Uefi),
        Some(FirmwareMode::Bios) => Some(BootMode::Legacy),
        None => None,
    })
}

/// What an outcome says of a machine's power: status, reason and words of the condition.
fn known(
    operation: &Operation,
    done: &std::result::Result<Outcome, PowerError>,
) -> Option<(ConditionStatus, &'static str, String)> {
    let seen = |state: PowerState| match state {
        PowerState::On => (ConditionStatus::True, "Seen", "its controller says that it is on".to_owned()),
        PowerState::Off => (ConditionStatus::False, "Seen", "its controller says that it is off".to_owned()),
    };
    let unknown = |reason: &'static str, error: &PowerError| Some((ConditionStatus::Unknown, reason, whole(error)));
    match done {
        Ok(Outcome::State(state) | Outcome::Tested { state: Some(state), .. }) => Some(seen(*state)),
        Ok(Outcome::Done) => match operation {
            Operation::On | Operation::Cycle | Operation::NetworkBoot(_) => Some(seen(PowerState::On)),
            Operation::Off => Some(seen(PowerState::Off)),
            _ => None,
        },
        Ok(_) => None,
        Err(PowerError::NotDone { found, .. }) => Some(seen(*found)),
        Err(error @ (PowerError::Unauthorised | PowerError::LockedOut { .. })) => unknown("Unauthorised", error),
        Err(error @ (PowerError::NoCredential | PowerError::InvalidCredential { .. })) => {
            unknown("NoCredential", error)
        }
        Err(error @ (PowerError::Unreachable { .. } | PowerError::TimedOut { .. })) => unknown("Unreachable", error),
        Err(error @ PowerError::NotTrusted { .. }) => unknown("NotTrusted", error),
        Err(error @ (PowerError::NoDriver { .. } | PowerError::InvalidAddress { .. })) => {
            unknown("InvalidAddress", error)
        }
        Err(_) => None,
    }
}
