//! The management controller, asked where it is on the network.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dragonfly_actions::run::ipmi::{Ask, Device, IpmiError, Lan, lan, users};
use dragonfly_core::inventory::{BmcSeen, BmcUser, Inventory};

use super::limit::Asked;

/// How long everything about it may take, its driver's start included.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long its device node may take to appear once its driver has found it.
const DEVICE: Duration = Duration::from_secs(3);
/// How long one answer may take. Most come within 50 ms.
const ANSWER: Duration = Duration::from_secs(3);
/// How long its users may take to be told: two answers for each of up to 63 slots.
const USERS: Duration = Duration::from_secs(5);
/// What Linux calls the first one, by the age of the system.
const NAMES: [&str; 3] = ["ipmi0", "ipmi/0", "ipmidev/0"];

/// What a controller has said of its network, and of who may log in there.
#[derive(Debug)]
pub struct BmcAsked(Asked<Option<Said>>);

type Said = Result<(Lan, Vec<BmcUser>), IpmiError>;

impl BmcAsked {
    /// Lets `prepare` load its driver, which tells whether that has found a controller, and asks it.
    pub fn start(dev: &Path, prepare: impl FnOnce() -> bool + Send + 'static) -> Self {
        let dev = dev.to_owned();
        let question = move || {
            let device = wait_for_device(&dev, if prepare() { DEVICE } else { Duration::ZERO })?;
            Some(Device::open(&device).and_then(|mut device| {
                let lan = lan(&mut |request| device.ask(request, ANSWER))?;
                let end = Instant::now() + USERS;
                let users = users_of(&lan, &mut |request| {
                    let left = end.saturating_duration_since(Instant::now()).min(ANSWER);
                    if left.is_zero() { Err(IpmiError::Silent) } else { device.ask(request, left) }
                });
                Ok((lan, users))
            }))
        };
        Self(Asked::all([question], PATIENCE))
    }

    /// Puts what it has said in an inventory. What keeps it from being asked comes back, for the log.
    pub fn tell(self, inventory: &mut Inventory) -> Option<String> {
        match self.0.answers().pop() {
            Some(None) => None,
            Some(Some(Ok((lan, users)))) => {
                put(lan, users, inventory);
                None
            }
            Some(Some(Err(error))) => Some(error.to_string()),
            None => Some(format!("the management controller was not heard in {} s", PATIENCE.as_secs())),
        }
    }
}

/// All who may log in on its network; none where they cannot all be told.
fn users_of(lan: &Lan, ask: Ask<'_>) -> Vec<BmcUser> {
    lan.channel.and_then(|channel| users(channel, ask).ok()).unwrap_or_default()
}

/// Its device node.
pub(crate) fn device(dev: &Path) -> Option<PathBuf> {
    NAMES.iter().map(|name| dev.join(name)).find(|path| path.exists())
}

fn wait_for_device(dev: &Path, patience: Duration) -> Option<PathBuf> {
    let end = Instant::now() + patience;
    loop {
        if let Some(device) = device(dev) {
            return Some(device);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One that answers is there, whatever the SMBIOS table says.
fn put(lan: Lan, users: Vec<BmcUser>, inventory: &mut Inventory) {
    let seen = inventory.bmc.get_or_insert_with(BmcSeen::default);
    seen.address = lan.address.map(Into::into);
    seen.mac = lan.mac;
    seen.users = users;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_stands_beside_what_smbios_says() {
        let kcs = BmcSeen { interface: Some("KCS".into()), ipmi_version: Some("2.0".into()), ..BmcSeen::default() };
        let mac = "02:00:00:00:00:09".parse().ok();
        let lan = Lan { channel: Some(1), address: "192.0.2.9".parse().ok(), mac };
        let admin = BmcUser { slot: 2, name: Some("ADMIN".into()), enabled: None, privilege: None };
        let mut inventory = Inventory { bmc: Some(kcs.clone()), ..Inventory::default() };
        put(lan, vec![admin.clone()], &mut inventory);
        let want = BmcSeen { address: "192.0.2.9".parse().ok(), mac, users: vec![admin], ..kcs };
        assert_eq!(inventory.bmc, Some(want));
        let mut inventory = Inventory::default();
        put(Lan::default(), Vec::new(), &mut inventory);
        assert_eq!(inventory.bmc, Some(BmcSeen::default()), "it answers, so it is there");
    }

    #[test]
    fn a_machine_without_one_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut inventory = Inventory::default();
        assert_eq!(BmcAsked::start(dir.path(), || false).tell(&mut inventory), None);
        assert_eq!(inventory, Inventory::default());
    }

    #[test]
    fn one_that_cannot_be_spoken_to_leaves_the_inventory_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ipmi0"), b"").unwrap();
        let mut inventory = Inventory::default();
        let said = BmcAsked::start(dir.path(), || true).tell(&mut inventory).unwrap();
        assert!(said.contains("IPMI"), "{said}");
        assert_eq!(inventory, Inventory::default());
    }
}
