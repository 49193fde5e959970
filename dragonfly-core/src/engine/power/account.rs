//! Accounts of our own on machines' controllers, made by the agent from inside: one user and one random password for
//! each machine.
//!
//! The password stands in the Secret `bmc-MACHINE` before it goes out, and the same one goes out again until the
//! agent says that the account is there; then `spec.bmc` names it. So a crash at any point leaves nothing behind, or an
//! account that can be opened.
//!
//! Whoever opens a session as a machine is given that machine's password: a machine in an identity conflict gets none,
//! nor does one that asks for more trust than the network's (`spec.trust`). It does not protect from a stranger on the
//! provisioning network who is there before the machine's first agent: that one learns the password which the real
//! agent sets later, or names a controller of its own as the machine's. Where that may be, give the account by hand.

use std::net::IpAddr;

use serde_json::json;
use url::Url;

use super::{CONFLICT, own};
use crate::engine::proof::unproven;
use crate::engine::resources::Change;
use crate::engine::{Engine, EngineError, Result};
use crate::power::Credential;
use crate::resource::hardware::{Bmc, NameRef, Trust};
use crate::resource::{ConditionStatus, Hardware, HardwareSpec, SecretSpec, condition};
use crate::secret::{Mask, random_password};
use crate::store::{StoreError, When};
use crate::text;
use crate::wire::{BmcAccount, BmcAccountReport, Failure, Heard};

/// Who logs in. IPMI has room for 16 bytes.
const USERNAME: &str = "dragonfly";
/// The longest text of a failure that is kept, in bytes, and how many causes.
const LONGEST: usize = 1024;
const CAUSES: usize = 8;

/// The annotation of a machine that gets no account by itself, because a person took its controller away.
pub(super) const ANNOTATION: &str = "dragonfly.computer/bmc-account";
/// That annotation's value.
pub(super) const NONE: &str = "none";

/// Whether a person took its controller away, and has not given one back.
fn is_declined(machine: &Hardware) -> bool {
    machine.metadata.annotations.get(ANNOTATION).is_some_and(|word| word == NONE)
}

/// Where a machine is to get an account, if it is to get one by what is known of it.
fn wanted(machine: &Hardware) -> Option<Url> {
    let conflict = condition(&machine.status.conditions, CONFLICT).is_some_and(|c| c.status != ConditionStatus::False);
    let doubtful = conflict || unproven(machine).is_some();
    if machine.spec.bmc.is_some() || machine.spec.trust != Trust::Network || doubtful || is_declined(machine) {
        return None;
    }
    machine.status.inventory.as_ref()?.bmc.as_ref()?.address.and_then(url)
}

/// Where it is reached, if that is an address at all.
fn url(address: IpAddr) -> Option<Url> {
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        return None;
    }
    let text = match address {
        IpAddr::V4(address) => format!("ipmi://{address}"),
        IpAddr::V6(address) => format!("ipmi://[{address}]"),
    };
    text.parse().ok()
}

impl Engine {
    /// The account that a machine's agent is to make, if it is to make one. Call it without the machine's lock.
    pub(in crate::engine) async fn account_for(&self, machine: &Hardware) -> Option<BmcAccount> {
        if !self.inner.settings.bmc_accounts {
            return None;
        }
        let address = wanted(machine)?;
        // An account that nothing could use is none.
        self.inner.power.drivers().check(&address).ok()?;
        match self.own_account(machine.name()).await {
            Ok(Credential { username, password }) => Some(BmcAccount { username, password }),
            Err(why) => {
                self.tell_no_account(machine.name(), &Failure::message(why));
                None
            }
        }
    }

    /// What stands in the machine's own Secret; a new account is put there first. Or why it cannot be had.
    async fn own_account(&self, machine: &str) -> std::result::Result<Credential, String> {
        let name = own::name(machine);
        if self.fresh::<SecretSpec>(&name).await.map_err(|error| error.to_string())?.is_none() {
            let password = random_password().map_err(|error| error.to_string())?;
            let data = json!({ "username": USERNAME, "password": password.reveal() });
            let sealed = self.sealed(own::record(machine, data)).map_err(|error| error.to_string())?;
            match self.put_spec(sealed, When::Absent).await {
                Ok(created) => self.noted(&created, Change::Created, "dragonfly"),
                // Somebody was faster: theirs counts, once it is known here.
                Err(StoreError::AlreadyExists { .. }) => {
                    self.fresh::<SecretSpec>(&name).await.map_err(|error| error.to_string())?;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        // As it is kept, so that nothing goes out that is not.
        let credential = self.credential(&name)?;
        if credential.username != USERNAME {
            return Err(format!(
                "Secret `{name}` holds the account `{}` and is left alone; use it with dragonfly bmc set {machine} \
                 ADDRESS --secret {name}, or delete it",
                credential.username
            ));
        }
        Ok(credential)
    }

    /// An agent says what came of the account that it was given. The answer is given when it is durable.
    ///
    /// # Errors
    /// `Unauthenticated` when the session has ended.
    pub async fn bmc_account(&self, session: &str, report: BmcAccountReport) -> Result<Heard> {
        let (claims, _) = self.session(session).await?;
        let name = claims.machine;
        let _guard = self.lock(&name).await;
        self.fresh::<SecretSpec>(&own::name(&name)).await?;
        let Some(machine) = self.fresh::<HardwareSpec>(&name).await? else {
            return Ok(Heard::Stop { reason: "the machine was deleted".to_owned() });
        };
        if !self.inner.settings.bmc_accounts {
            return Ok(Heard::Stop { reason: "this server makes no accounts on controllers".to_owned() });
        }
        if let Some(failure) = report.failure {
            // The agent does this too; what is told must not depend on how well it did.
            let known = self.credential(&own::name(&name)).ok();
            let mask = Mask::new(known.iter().map(|credential| &credential.password));
            let mut failure = text::tidy(&mask.hide_in(failure), LONGEST, text::harmless);
            failure.causes.truncate(CAUSES);
            self.tell_no_account(&name, &failure);
            return Ok(Heard::GoOn);
        }
        let secret = own::name(&name);
        let kept = self.credential(&secret).is_ok_and(|credential| credential.username == USERNAME);
        let Some(address) = wanted(&machine).filter(|_| kept && report.username == USERNAME) else {
            // A second report of the same, or somebody was faster: what stands there counts.
            return Ok(Heard::GoOn);
        };
        let bmc = Bmc { address: address.clone(), secret_ref: Some(NameRef { name: secret }), boot_mode: None };
        let mut changed = false;
        self.change_spec::<HardwareSpec>(&name, |m| {
            changed = m.spec.bmc.is_none();
            if changed {
                m.spec.bmc = Some(bmc.clone());
            }
            Ok::<(), EngineError>(())
        })
        .await?;
        if changed {
            // An account that was refused before is another one now.
            self.inner.power.forgive(&address);
            let slot = report.slot.map(|slot| format!(" in slot {slot}")).unwrap_or_default();
            let tested = if report.verified { "" } else { "; the controller cannot test passwords" };
            let words = format!("its agent made the account `{USERNAME}`{slot} on its controller, {address}{tested}");
            let data = json!({ "address": address, "slot": report.slot, "verified": report.verified });
            self.tell_with("bmc.account", &name, None, words, data);
        }
        Ok(Heard::GoOn)
    }

    /// A machine's agent may make an account on its controller again, after [`remove_bmc`](Self::remove_bmc).
    ///
    /// # Errors
    /// `NotFound`; `Illegal` when nothing keeps it from that.
    pub async fn allow_bmc_account(&self, machine: &str, by: &str) -> Result<()> {
        let name = self.resolve(machine)?;
        let object = self.machine_now(&name).await?;
        if !is_declined(&object) {
            let why = if self.inner.settings.bmc_accounts {
                "its agent makes one at its next start, if no controller is known then".to_owned()
            } else {
                "this server makes no accounts (--bmc-accounts)".to_owned()
            };
            return Err(EngineError::Illegal { why: format!("nobody forbade an account on {name}: {why}") });
        }
        {
            let _guard = self.lock(&name).await;
            self.change_spec::<HardwareSpec>(&name, |m| {
                m.metadata.annotations.remove(ANNOTATION);
                Ok(())
            })
            .await?;
        }
        let words = format!("{by} lets its agent make an account on its controller again");
        self.tell("power.controller", &name, None, words);
        Ok(())
    }

    fn tell_no_account(&self, machine: &str, failure: &Failure) {
        let causes: String = failure.causes.iter().map(|cause| format!(": {cause}")).collect();
        let words = format!(
            "no account was made on its controller: {}{causes}; it is tried again when its agent starts again, or \
             give it by hand: dragonfly bmc set {machine} ADDRESS",
            failure.message
        );
        self.tell_with("bmc.account", machine, None, words, json!({ "failure": failure }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::inventory::{BmcSeen, Inventory};
    use crate::resource::set_condition;

    fn machine(address: Option<&str>) -> Hardware {
        let mut machine = Hardware::new("a".to_owned(), HardwareSpec::default());
        let seen = BmcSeen { address: address.map(|a| a.parse().unwrap()), ..BmcSeen::default() };
        machine.status.inventory = Some(Inventory { bmc: Some(seen), ..Inventory::default() });
        machine
    }

    #[test]
    fn who_is_to_get_an_account() {
        let at = |text: &str| Some::<Url>(text.parse().unwrap());
        for (address, want) in [
            (Some("10.0.0.6"), at("ipmi://10.0.0.6")),
            (Some("2001:db8::6"), at("ipmi://[2001:db8::6]")),
            (Some("0.0.0.0"), None),
            // Of the server itself, which is not the machine.
            (Some("127.0.0.1"), None),
            (Some("224.0.0.1"), None),
            (None, None),
        ] {
            assert_eq!(wanted(&machine(address)), want, "{address:?}");
        }
        let mut unseen = machine(None);
        unseen.status.inventory = None;
        assert_eq!(wanted(&unseen), None);

        let change = |change: &dyn Fn(&mut Hardware)| {
            let mut machine = machine(Some("10.0.0.6"));
            change(&mut machine);
            wanted(&machine)
        };
        let bmc = Bmc { address: "redfish://10.0.0.6".parse().unwrap(), secret_ref: None, boot_mode: None };
        assert_eq!(change(&|m| m.spec.bmc = Some(bmc.clone())), None, "it has a controller already");
        let annotated = |word: &str| {
            change(&|m: &mut Hardware| drop(m.metadata.annotations.insert(ANNOTATION.to_owned(), word.to_owned())))
        };
        assert_eq!((annotated(NONE), annotated("any")), (None, at("ipmi://10.0.0.6")), "a person took it away");
        assert_eq!(change(&|m| m.spec.trust = Trust::Bmc), None, "it has not proven itself");
        assert_eq!(change(&|m| m.spec.trust = Trust::Tpm), None);
        let conflict = |status| {
            change(&|m: &mut Hardware| {
                let now = Timestamp::from_unix_seconds(0);
                set_condition(&mut m.status.conditions, CONFLICT, status, "x", "x", now);
            })
        };
        assert_eq!(conflict(ConditionStatus::True), None);
        assert_eq!(conflict(ConditionStatus::Unknown), None);
        assert_eq!(conflict(ConditionStatus::False), at("ipmi://10.0.0.6"), "settled");
    }
}
