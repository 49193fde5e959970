//! One VM.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::answer::Failed;
use super::client::Client;
use super::config::VmConfig;
use super::listing::{self, Listed};
use super::order;
use super::task::{Patience, Upid};
use crate::power::{
    Abilities, BootOverride, NextBoot, PowerControl, PowerCycle, PowerError, PowerOff, PowerSense, PowerState, Reset,
    Result, SoftOff,
};

/// Starts wait for storage and for other tasks.
const TO_ITS_END: Patience = Patience { longest: Duration::from_secs(120), must_end: true };
/// A shutdown is watched for an error: its task runs until the operating system has gone.
const GLANCE: Patience = Patience { longest: Duration::from_millis(1500), must_end: false };
/// How long the cluster's manager may take to stop a VM that it keeps running: it looks every ten seconds.
const STOPPING: Duration = Duration::from_secs(60);
/// How often that is looked for.
const LOOK: Duration = Duration::from_millis(500);
/// How often settings are written again that others wrote at the same time.
const WRITES: u32 = 4;

/// One VM, wherever in its cluster it is.
#[derive(Debug)]
pub struct Vm {
    client: Client,
    vmid: u32,
    /// The one that it must have.
    uuid: Option<Uuid>,
    node: Mutex<Option<String>>,
}

/// One call about a VM.
struct Ask<'a> {
    method: Method,
    /// Behind `/nodes/{node}/qemu/{vmid}`.
    part: &'a [&'a str],
    parameters: &'a [(&'a str, &'a str)],
    /// Of a call that begins a task.
    follow: Option<Patience>,
}

impl Vm {
    pub(super) fn new(client: Client, vmid: u32, uuid: Option<Uuid>) -> Self {
        Self { client, vmid, uuid, node: Mutex::new(None) }
    }

    /// The node that it was on when it was last asked; `None` before the first call.
    pub async fn node(&self) -> Option<String> {
        self.node.lock().await.clone()
    }

    /// Whether it carries the tag [`ADOPTED`](super::ADOPTED).
    pub async fn is_adopted(&self) -> Result<bool> {
        let what = "see whether it is adopted";
        Ok(self.listed(what).await?.is_adopted())
    }

    async fn listed(&self, what: &str) -> Result<Listed> {
        let all = listing::list(&self.client).await.map_err(|failed| failed.because(what))?;
        let vmid = self.vmid;
        all.vms.into_iter().find(|listed| listed.vmid == vmid).ok_or_else(|| PowerError::Refused {
            what: what.to_owned(),
            reason: match all.containers.contains(&vmid) {
                true => format!("{vmid} is a container, and no VM"),
                false => format!(
                    "the cluster shows no VM {vmid}: it does not exist, or the account lacks VM.Audit on /vms/{vmid}"
                ),
            },
        })
    }

    /// The node that it is on; looked for unless it is known and not the one where it was `missed`.
    async fn find(&self, what: &str, missed: Option<&str>) -> Result<String> {
        let mut place = self.node.lock().await;
        if let Some(node) = &*place
            && Some(&**node) != missed
        {
            return Ok(node.clone());
        }
        let node = self.listed(what).await?.node;
        if let Some(wanted) = self.uuid {
            self.is_the_one(&node, wanted).await.map_err(|failed| failed.because(what))?;
        }
        *place = Some(node.clone());
        Ok(node)
    }

    /// Numbers of VMs that are gone are given to others.
    async fn is_the_one(&self, node: &str, wanted: Uuid) -> Result<(), Failed> {
        let vmid = self.vmid.to_string();
        let found = read_config(&self.client.get(&["nodes", node, "qemu", &vmid, "config"], &[]).await?)?.uuid();
        if found == Some(wanted) {
            return Ok(());
        }
        let is = found.map_or("it has none".to_owned(), |found| format!("it has {found}"));
        let reason = format!("VM {vmid} is not the one with the UUID {wanted}, {is}; was the number given to another?");
        Err(PowerError::NotTrusted { reason }.into())
    }

    /// Does something where the VM is. VMs move: it is looked for anew, once, when it is not there.
    async fn there(&self, what: &str, ask: &Ask<'_>) -> Result<Value, Failed> {
        let node = self.find(what, None).await?;
        match self.at(&node, ask).await {
            Err(Failed::NotThere(words)) => {
                let now = self.find(what, Some(&node)).await?;
                if now == node { Err(Failed::NotThere(words)) } else { self.at(&now, ask).await }
            }
            done => done,
        }
    }

    async fn at(&self, node: &str, ask: &Ask<'_>) -> Result<Value, Failed> {
        let vmid = self.vmid.to_string();
        let path = [&["nodes", node, "qemu", &vmid][..], ask.part].concat();
        let data = self.client.call(ask.method.clone(), &path, ask.parameters).await?;
        match ask.follow {
            None => return Ok(data),
            Some(patience) => Upid::read(&data)?.follow(&self.client, patience).await?,
        }
        Ok(Value::Null)
    }

    async fn get(&self, what: &str, part: &[&str]) -> Result<Value, Failed> {
        self.there(what, &Ask { method: Method::GET, part, parameters: &[], follow: None }).await
    }

    async fn power(&self, what: &str) -> Result<PowerState> {
        let status = self.get(what, &["status", "current"]).await.map_err(|failed| failed.because(what))?;
        match status.get("status").and_then(Value::as_str) {
            Some("running") => Ok(PowerState::On),
            Some("stopped") => Ok(PowerState::Off),
            _ => Err(PowerError::Malformed { reason: "a VM that is neither running nor stopped".to_owned() }),
        }
    }

    /// Changes its power.
    async fn switch(
        &self,
        what: &str,
        word: &str,
        parameters: &[(&str, &str)],
        follow: Patience,
    ) -> Result<(), Failed> {
        let ask = Ask { method: Method::POST, part: &["status", word], parameters, follow: Some(follow) };
        self.there(what, &ask).await.map(drop)
    }

    /// Brings it into a state in which it may be already, or be brought by others.
    async fn bring(&self, what: &str, wanted: PowerState) -> Result<()> {
        if self.power(what).await? == wanted {
            return Ok(());
        }
        let done = match wanted {
            PowerState::On => self.switch(what, "start", &[], TO_ITS_END).await,
            PowerState::Off => self.stop(what).await,
        };
        match done {
            Err(Failed::Said(_)) if self.power(what).await.ok() == Some(wanted) => Ok(()),
            done => done.map_err(|failed| failed.because(what)),
        }
    }

    async fn stop(&self, what: &str) -> Result<(), Failed> {
        // A shutdown that is not obeyed holds the VM's lock for minutes.
        const OVERRULE: &str = "overrule-shutdown";
        match self.switch(what, "stop", &[(OVERRULE, "1")], TO_ITS_END).await {
            // Releases before 8.1 do not know it, and VMs with high availability do not take it.
            Err(Failed::Parameters(errors)) if errors.len() == 1 && errors.contains_key(OVERRULE) => {
                self.switch(what, "stop", &[], TO_ITS_END).await
            }
            done => done,
        }
    }

    async fn config(&self, what: &str) -> Result<VmConfig, Failed> {
        Ok(read_config(&self.get(what, &["config"]).await?)?)
    }

    async fn write_boot(&self, what: &str, wish: Option<BootOverride>) -> Result<(), Failed> {
        for _ in 0..WRITES {
            let config = self.config(what).await?;
            let Some(settings) = order::plan(&config, wish)? else { return Ok(()) };
            let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (*key, &**value)).collect();
            let ask = Ask { method: Method::PUT, part: &["config"], parameters: &settings, follow: None };
            match self.there(what, &ask).await {
                // Read by us, written by others, written by us: what they wrote is read again.
                Err(Failed::Conflict) => {}
                done => return done.map(drop),
            }
        }
        Err(Failed::Conflict)
    }
}

fn read_config(data: &Value) -> Result<VmConfig> {
    VmConfig::read(data).ok_or_else(|| listing::malformed("a configuration that is no object"))
}

#[async_trait]
impl PowerControl for Vm {
    async fn on(&self) -> Result<()> {
        self.bring("switch on", PowerState::On).await
    }

    fn abilities(&self) -> Abilities<'_> {
        Abilities::none()
            .with_off(self)
            .with_soft_off(self)
            .with_cycle(self)
            .with_reset(self)
            .with_sense(self)
            .with_next_boot(self)
    }

    async fn close(&self) -> Result<()> {
        *self.node.lock().await = None;
        self.client.close().await;
        Ok(())
    }
}

#[async_trait]
impl PowerOff for Vm {
    async fn off(&self) -> Result<()> {
        self.bring("switch off", PowerState::Off).await
    }
}

#[async_trait]
impl SoftOff for Vm {
    async fn soft_off(&self) -> Result<()> {
        let what = "ask the operating system to shut down";
        if self.power(what).await? == PowerState::Off {
            return Ok(());
        }
        self.switch(what, "shutdown", &[], GLANCE).await.map_err(|failed| failed.because(what))
    }
}

#[async_trait]
impl PowerCycle for Vm {
    /// Stops and starts it, which is also when a changed boot order comes into force.
    async fn cycle(&self) -> Result<()> {
        let what = "cycle the power";
        self.bring(what, PowerState::Off).await?;
        // Of a VM that the cluster keeps running, "stopped" is a wish until the cluster has done it; what is still on
        // would not be switched on.
        let last = Instant::now() + STOPPING;
        loop {
            match self.power(what).await? {
                PowerState::Off => break,
                found if Instant::now() >= last => {
                    return Err(PowerError::NotDone { wanted: PowerState::Off, found, after: STOPPING });
                }
                PowerState::On => sleep(LOOK).await,
            }
        }
        self.bring(what, PowerState::On).await
    }
}

#[async_trait]
impl Reset for Vm {
    async fn reset(&self) -> Result<()> {
        let what = "reset the machine";
        match self.power(what).await? {
            PowerState::Off => Err(PowerError::Refused { what: what.to_owned(), reason: "it is off".to_owned() }),
            PowerState::On => self.switch(what, "reset", &[], TO_ITS_END).await.map_err(|failed| failed.because(what)),
        }
    }
}

#[async_trait]
impl PowerSense for Vm {
    async fn state(&self) -> Result<PowerState> {
        self.power("tell whether it is on").await
    }
}

#[async_trait]
impl NextBoot for Vm {
    /// Proxmox knows no order for the next start only: what is set holds until it is taken back, and says so. It comes
    /// into force when the VM is stopped and started, not with a reset.
    async fn set_next_boot(&self, boot: Option<BootOverride>) -> Result<Option<BootOverride>> {
        let what = match boot {
            Some(boot) => format!("boot from {}", boot.device),
            None => "boot as it did before".to_owned(),
        };
        self.write_boot(&what, boot).await.map_err(|failed| failed.because(&what))?;
        self.next_boot().await
    }

    async fn next_boot(&self) -> Result<Option<BootOverride>> {
        let what = "tell what it boots from";
        let config = self.config(what).await.map_err(|failed| failed.because(what))?;
        Ok(order::in_force(&config))
    }
}
