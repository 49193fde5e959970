//! The driver against a simulated service, with every habit of real ones.

use super::peer::{Command, Peer, Personality, Tags};
use super::*;
use crate::inventory::Bytes;
use crate::power::operation::{Operation, Outcome};
use crate::power::{
    BootDevice, BootMode, BootOverride, Dispatcher, Health, Limits, NextBoot as _, PowerDrivers, PowerSense as _,
    PowerState, Target,
};
use crate::testing::power::check;

/// Short, for a service on the same machine.
const PATIENCE: Patience =
    Patience { request: Duration::from_secs(5), task: Duration::from_secs(5), poll: Duration::from_millis(20) };
const SETTLE: Duration = Duration::from_secs(8);

async fn peer(is: Personality) -> Peer {
    Peer::start("127.0.0.1:0".parse().unwrap(), is).await.unwrap()
}

fn credential(username: &str, password: &str) -> Credential {
    Credential { username: username.to_owned(), password: password.to_owned().into() }
}

fn address(peer: &Peer, path: &str) -> Url {
    format!("redfish://{}{path}?tls=off", peer.address()).parse().unwrap()
}

async fn open(peer: &Peer, path: &str, password: &str) -> Result<Controller> {
    let driver = Redfish::new().with_patience(PATIENCE);
    driver.controller(&address(peer, path), Some(&credential("admin", password))).await
}

async fn controller(peer: &Peer) -> Controller {
    open(peer, "", "secret").await.unwrap()
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// Services that keep their word, each in its own way.
fn honest() -> Vec<(&'static str, Personality)> {
    let plain = Personality::default;
    let with = |maker: &str, model: &str| Personality { vendor: maker.into(), model: model.into(), ..plain() };
    vec![
        ("plain", plain()),
        ("slow", Personality { delay: Duration::from_millis(60), ..plain() }),
        ("late", Personality { takes: Duration::from_secs(3), ..plain() }),
        ("weak tags", Personality { tags: Tags::Weak, ..plain() }),
        ("weak tags that never match", Personality { tags: Tags::WeakAlways, ..plain() }),
        ("no tags", Personality { tags: Tags::None, ..plain() }),
        ("somebody else is faster", Personality { races: 1, ..plain() }),
        ("no sessions", Personality { has_sessions: false, ..plain() }),
        ("tasks", Personality { has_tasks: true, has_own_name: true, ..plain() }),
        ("no boot mode", Personality { has_boot_mode: false, ..plain() }),
        ("once is for ever", Personality { forgets_once: true, ..plain() }),
        (
            "action info",
            Personality { has_action_info: true, allowed: words(&["ForceOn", "ForceOff", "ForceRestart"]), ..plain() },
        ),
        ("no links", Personality { has_links: false, ..plain() }),
        ("expands", Personality { expands: true, ..plain() }),
        ("pages of one", Personality { page: 1, ..plain() }),
        ("thermal and power", Personality { has_sensors: false, ..plain() }),
        ("HPE", Personality { rejects_none: true, tags: Tags::Weak, ..with("HPE", "DL385") }),
        ("AMI", Personality { has_future_state: true, ..with("ASRockRack", "X570D4U") }),
        ("Supermicro", Personality { has_boot_mode: false, reverts: 1, ..with("Supermicro", "X10DRi") }),
        ("Dell", with("Dell", "PowerEdge R750")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_honest_service_keeps_every_promise() {
    let all = honest().into_iter().map(async |(name, is)| {
        let peer = peer(is).await;
        let report = check(&controller(&peer).await, SETTLE).await.unwrap_or_else(|broken| panic!("{name}: {broken}"));
        let absent: &[&str] = if name == "action info" { &["soft"] } else { &[] };
        assert_eq!(report.absent, absent, "{name}");
        let seen = peer.seen();
        assert_eq!((seen.opened, seen.refused, seen.parallel), (seen.closed, 0, 1), "{name}");
    });
    futures_util::future::join_all(all).await;
}

#[tokio::test]
async fn everything_that_it_can_do() {
    for (name, is) in honest().into_iter().filter(|(name, _)| !matches!(*name, "late" | "action info" | "Supermicro")) {
        let (persistent, has_mode) = (is.forgets_once, is.has_boot_mode);
        let peer = peer(is).await;
        let control = controller(&peer).await;
        let able = control.abilities();
        assert_eq!(able.words().len(), 14, "{name}: {able:?}");
        let boot = able.next_boot.unwrap();
        assert_eq!(boot.next_boot().await.unwrap(), None, "{name}");
        for device in [BootDevice::Pxe, BootDevice::Disk, BootDevice::Cdrom, BootDevice::Bios] {
            for mode in [None, Some(BootMode::Legacy), Some(BootMode::Uefi)] {
                let wish = BootOverride { mode, ..BootOverride::once(device) };
                let kept = boot.set_next_boot(Some(wish)).await.unwrap().unwrap();
                // What it says is returned, whatever was wished.
                assert_eq!((kept.device, kept.persistent), (device, persistent), "{name}");
                assert_eq!(kept.mode.is_some(), has_mode, "{name}");
                assert!(mode.is_none() || !has_mode || kept.mode == mode, "{name}");
                assert_eq!(boot.next_boot().await.unwrap(), Some(kept), "{name}");
            }
        }
        assert_eq!(boot.set_next_boot(None).await.unwrap(), None, "{name}");
        let image: Url = "http://10.0.0.1/boot.efi".parse().unwrap();
        let http = able.http_boot.unwrap();
        assert_eq!(http.set_http_boot(Some(&image)).await.unwrap().as_deref(), Some(image.as_str()), "{name}");
        assert_eq!(peer.machine().tls_mode == "None", name == "Dell", "{name}");
        assert_eq!(boot.next_boot().await.unwrap(), None, "no device that we have a word for");
        assert_eq!(http.set_http_boot(None).await.unwrap(), None, "{name}");
        let media = able.media.unwrap();
        media.eject().await.unwrap();
        for image in ["http://10.0.0.1/a.iso", "http://10.0.0.1/b.iso"] {
            assert_eq!(media.insert(&image.parse().unwrap()).await.unwrap().as_deref(), Some(image), "{name}");
        }
        media.eject().await.unwrap();
        assert_eq!(media.inserted().await.unwrap(), None, "{name}");
        able.identify.unwrap().identify(Some(Duration::from_secs(9))).await.unwrap();
        assert!(peer.machine().is_lit, "{name}");
        let sensors = able.sensors.unwrap().sensors().await.unwrap();
        let seen: Vec<_> = sensors.iter().map(|s| (&*s.name, &*s.kind, s.value, &*s.unit, s.health)).collect();
        let wanted = [
            ("CPU1 Temp", "Temperature", Some(42.0), "degrees C", Health::Ok),
            ("FAN1", "Fan", Some(0.0), "RPM", Health::Critical),
            ("FAN2", "Fan", None, "RPM", Health::Unknown),
        ];
        assert_eq!(seen, wanted, "{name}");
        let events = able.events.unwrap().events(2).await.unwrap();
        let seen: Vec<_> = events.iter().map(|e| (&*e.id, &*e.sensor, &*e.message, e.health)).collect();
        let wanted = [
            ("2", "Fan", "A fan turns slowly.", Health::Warning),
            ("3", "Fan", "A fan stands still.", Health::Critical),
        ];
        assert_eq!(seen, wanted, "{name}");
        let inventory = able.inventory.unwrap().inventory().await.unwrap();
        assert_eq!((inventory.cpu.cores, inventory.memory.total), (Some(8), Some(Bytes(16 << 30))), "{name}");
        assert_eq!((inventory.disks.len(), inventory.nics.len(), inventory.memory.modules.len()), (1, 1, 1), "{name}");
        let firmware = able.firmware.unwrap().firmware().await.unwrap();
        let seen: Vec<_> = firmware.iter().map(|part| (&*part.name, &*part.version, part.updateable)).collect();
        assert_eq!(seen, [("BIOS", "1.2.3", Some(true)), ("BMC", "1.2.3", Some(false))], "{name}");
        control.close().await.unwrap();
        assert_eq!(peer.seen().opened, peer.seen().closed, "{name}");
    }
}

#[tokio::test]
async fn power_by_what_the_system_has() {
    for (allowed, able, done) in [
        (
            &["On", "ForceOff", "PowerCycle", "ForceRestart"][..],
            "off, cycle, reset",
            vec![Command::Cycle, Command::Reset],
        ),
        (&["On", "ForceOff", "ForceRestart"], "off, cycle, reset", vec![Command::Reset, Command::Reset]),
        (&["On", "ForceOff"], "off, cycle", vec![Command::Off, Command::On]),
        (&["On", "GracefulShutdown"], "soft", vec![]),
    ] {
        let peer = peer(Personality { allowed: words(allowed), ..Personality::default() }).await;
        let control = controller(&peer).await;
        let abilities = control.abilities();
        assert!(abilities.words().join(", ").starts_with(&format!("on, {able}, status")), "{abilities:?}");
        control.on().await.unwrap();
        if let Some(cycle) = abilities.cycle {
            cycle.cycle().await.unwrap();
        }
        if let Some(reset) = abilities.reset {
            reset.reset().await.unwrap();
        }
        assert_eq!(peer.machine().done, [vec![Command::On], done].concat(), "{allowed:?}");
        if let Some(off) = abilities.off {
            off.off().await.unwrap();
            let requests = || peer.seen().requests.iter().filter(|request| request.starts_with("POST")).count();
            let before = requests();
            if let Some(reset) = abilities.reset {
                assert!(reset.reset().await.unwrap_err().to_string().contains("it is off"));
            }
            assert_eq!(requests(), before, "what is off is not reset, and not asked to be");
        }
    }
}

#[tokio::test]
async fn one_of_several_systems() {
    let peer = peer(Personality { systems: 3, ..Personality::default() }).await;
    let error = open(&peer, "", "secret").await.unwrap_err().to_string();
    assert!(error.contains("the controller has 3 systems; name one"), "{error}");
    for number in 1..=3 {
        assert!(error.contains(&format!("/redfish/v1/Systems/blade{number}?tls=off")), "{error}");
    }
    let control = open(&peer, "/redfish/v1/Systems/blade2/", "secret").await.unwrap();
    assert_eq!(control.system(), "/redfish/v1/Systems/blade2");
    control.on().await.unwrap();
    assert_eq!(peer.machines().iter().map(|machine| machine.is_on).collect::<Vec<_>>(), [false, true, false]);
    let error = open(&peer, "/redfish/v1/Systems/blade9", "secret").await.unwrap_err();
    assert!(error.to_string().contains("no such system; it has"), "{error}");
    control.close().await.unwrap();
    assert_eq!(peer.seen().opened, peer.seen().closed, "also after an error");
}

#[tokio::test]
async fn a_refused_password_is_sent_once() {
    for has_sessions in [true, false] {
        let peer = peer(Personality { has_sessions, ..Personality::default() }).await;
        let error = open(&peer, "", "wrong").await.unwrap_err();
        assert!(matches!(error, PowerError::Unauthorised), "{error}");
        assert_eq!(peer.seen().refused, 1);
        assert!(peer.seen().requests.iter().all(|request| !request.contains("wrong")));
        // In the middle: the session is forgotten, and the password was changed.
        let control = controller(&peer).await;
        peer.change(|is, _| "other".clone_into(&mut is.password));
        peer.forget_sessions();
        for _ in 0..3 {
            assert!(matches!(control.on().await.unwrap_err(), PowerError::Unauthorised));
        }
        control.close().await.unwrap();
        assert!(matches!(control.on().await.unwrap_err(), PowerError::Unauthorised));
        assert_eq!(peer.seen().refused, 2, "{has_sessions}");
    }
}

#[tokio::test]
async fn a_session_that_was_forgotten_is_opened_anew() {
    let peer = peer(Personality::default()).await;
    let control = controller(&peer).await;
    peer.forget_sessions();
    assert_eq!(control.state().await.unwrap(), PowerState::Off);
    assert_eq!((peer.seen().opened, peer.seen().refused), (2, 0));
    // There is no room: somebody else's sessions are in it.
    peer.change(|is, _| is.sessions = 1);
    let error = open(&peer, "", "secret").await.unwrap_err();
    assert!(matches!(&error, PowerError::Busy { reason } if reason.contains("simultaneous")), "{error}");
}

#[tokio::test]
async fn what_an_account_may_not_do_is_named() {
    let peer = peer(Personality { reads_only: true, ..Personality::default() }).await;
    let control = controller(&peer).await;
    let error = control.on().await.unwrap_err();
    assert_eq!(error.to_string(), "the account may not switch on on this controller; it needs more rights");
    let error = control.set_next_boot(None).await.unwrap_err();
    assert!(matches!(&error, PowerError::Forbidden { what } if what == "set the boot device"), "{error}");
    peer.change(|is, _| is.wants_new_password = true);
    assert!(matches!(control.on().await.unwrap_err(), PowerError::PasswordChangeRequired));
    let driver = Redfish::new().with_patience(PATIENCE);
    let error = driver.controller(&address(&peer, ""), None).await.unwrap_err();
    assert!(matches!(error, PowerError::NoCredential), "{error}");
    assert!(matches!(open(&peer, "", "secret").await.unwrap_err(), PowerError::PasswordChangeRequired));
}

#[tokio::test]
async fn a_lie_is_told_as_such() {
    let peer = peer(Personality { lies: true, ..Personality::default() }).await;
    let limits = Limits { settle: Duration::from_millis(1200), ..Limits::default() };
    let drivers = PowerDrivers::new().with(Redfish::new().with_patience(PATIENCE));
    let dispatcher = Dispatcher::new(drivers, limits);
    let target = Target { address: address(&peer, ""), credential: Some(credential("admin", "secret")) };
    let ask = async |operation| dispatcher.carry_out(&target, operation).await;
    let error = ask(Operation::On).await.unwrap_err();
    assert!(matches!(error, PowerError::NotDone { found: PowerState::Off, .. }), "{error}");
    let wish = BootOverride::once(BootDevice::Pxe);
    assert_eq!(ask(Operation::SetNextBoot(Some(wish))).await.unwrap(), Outcome::Boot(None));
    let error = ask(Operation::NetworkBoot(None)).await.unwrap_err();
    assert!(error.to_string().contains("nothing is set"), "{error}");
    let error = ask(Operation::Identify(Some(Duration::from_secs(1)))).await.unwrap_err();
    assert!(error.to_string().contains("the lamp is as it was"), "{error}");
    let image: Url = "http://10.0.0.1/a.iso".parse().unwrap();
    let error = ask(Operation::InsertMedia(image.clone())).await.unwrap_err();
    assert!(error.to_string().contains("its drive is empty"), "{error}");
    let error = ask(Operation::SetHttpBoot(Some(image))).await.unwrap_err();
    assert!(error.to_string().contains("it said yes, and says that nothing is set"), "{error}");
    peer.change(|_, machines| machines[0].media = Some("http://10.0.0.1/a.iso".to_owned()));
    let error = ask(Operation::EjectMedia).await.unwrap_err();
    assert!(error.to_string().contains("is still in it"), "{error}");
    let report = check(&controller(&peer).await, Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(report.promise, "what was switched on is on");
    assert!(peer.machine().done.is_empty());
}

#[tokio::test]
async fn a_task_that_fails_says_why() {
    let is =
        Personality { has_tasks: true, task_fails: Some("The fuse is gone.".to_owned()), ..Personality::default() };
    let peer = peer(is).await;
    let error = controller(&peer).await.on().await.unwrap_err().to_string();
    assert_eq!(error, "the controller refused to switch on: its task ended as Exception: The fuse is gone.");
    assert!(!peer.machine().is_on);
}

#[tokio::test]
async fn the_dispatcher_boots_it_from_the_network() {
    let peer = peer(Personality { takes: Duration::from_millis(300), ..Personality::default() }).await;
    let hooked = Arc::new(std::sync::Mutex::new(vec![]));
    let told = hooked.clone();
    peer.change(|_, machines| {
        machines[0].hook =
            Some(Arc::new(move |command, boot| told.lock().unwrap().push((command, boot.target.clone()))));
    });
    let drivers = PowerDrivers::new().with(Redfish::new().with_patience(PATIENCE));
    let dispatcher = Dispatcher::new(drivers, Limits::default());
    let target = Target { address: address(&peer, ""), credential: Some(credential("admin", "secret")) };
    for _ in 0..2 {
        let done = dispatcher.carry_out(&target, Operation::NetworkBoot(Some(BootMode::Uefi))).await.unwrap();
        assert_eq!(done, Outcome::Done);
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    let wanted = [(Command::On, "Pxe".to_owned()), (Command::Cycle, "Pxe".to_owned())];
    assert_eq!(*hooked.lock().unwrap(), wanted);
    assert_eq!(peer.machine().boot.enabled, "Disabled", "it was for one boot");
    let done = dispatcher.carry_out(&target, Operation::Inventory).await.unwrap();
    assert!(matches!(done, Outcome::Inventory(inventory) if inventory.nics.len() == 1));
    let seen = peer.seen();
    assert_eq!((seen.opened, seen.closed, seen.parallel), (3, 3, 1));
}

#[tokio::test]
async fn a_session_is_given_back_by_one_that_was_too_slow() {
    let peer = peer(Personality { takes: Duration::from_secs(60), ..Personality::default() }).await;
    let drivers = PowerDrivers::new().with(Redfish::new().with_patience(PATIENCE));
    let limits = Limits { call: Duration::from_millis(1500), tries: 1, ..Limits::default() };
    let dispatcher = Dispatcher::new(drivers, limits);
    let target = Target { address: address(&peer, ""), credential: Some(credential("admin", "secret")) };
    let error = dispatcher.carry_out(&target, Operation::On).await.unwrap_err();
    assert!(matches!(error, PowerError::TimedOut { .. }), "{error}");
    assert_eq!((peer.seen().opened, peer.seen().closed), (1, 1));
}

#[tokio::test]
async fn tls_by_a_pin() {
    use sha2::{Digest as _, Sha256};
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["bmc".to_owned()]).unwrap().self_signed(&key).unwrap();
    let der = certificate.der().to_vec();
    let pin = hex::encode(Sha256::digest(&der));
    let at = "127.0.0.1:0".parse().unwrap();
    let peer = Peer::start_tls(at, Personality::default(), der, key.serialize_der()).await.unwrap();
    let open = async |query: &str| {
        let url = format!("redfish://{}{query}", peer.address()).parse().unwrap();
        let driver = Redfish::new().with_patience(PATIENCE);
        driver.controller(&url, Some(&credential("admin", "secret"))).await
    };
    let error = open("").await.unwrap_err();
    assert!(matches!(&error, PowerError::NotTrusted { reason } if reason.contains(&pin)), "{error}");
    assert_eq!(peer.seen().requests.len(), 0, "nothing was told to it");
    let wrong = open(&format!("?tls=sha256:{}", "0".repeat(64))).await.unwrap_err();
    assert!(matches!(wrong, PowerError::NotTrusted { .. }), "{wrong}");
    let control = open(&format!("?tls=sha256:{pin}")).await.unwrap();
    check(&control, SETTLE).await.unwrap();
    assert_eq!(open("?tls=insecure").await.unwrap().state().await.unwrap(), PowerState::On);
}

#[test]
fn addresses() {
    let parse = |text: &str| Address::parse(&text.parse().unwrap());
    let plain = parse("redfish://10.0.0.6").unwrap();
    assert_eq!((plain.base.as_str(), plain.system, plain.trust), ("https://10.0.0.6/", None, Trust::Roots));
    let whole = parse("redfish://[fe80::1]:8000/redfish/v1/Systems/1/?tls=off").unwrap();
    assert_eq!(whole.base.as_str(), "http://[fe80::1]:8000/");
    assert_eq!((whole.system.as_deref(), whole.trust), (Some("/redfish/v1/Systems/1"), Trust::Off));
    assert_eq!(parse("redfish://bmc/redfish/v1/").unwrap().system, None);
    for (text, why) in [
        ("redfish:///x", "expected redfish://HOST"),
        ("redfish://10.0.0.6/Systems/1", "is no path of a system"),
        ("redfish://10.0.0.6?cipher=3", "`cipher` is not known; there is tls"),
        ("redfish://10.0.0.6?tls=maybe", "`tls=maybe` is not known"),
        ("redfish://admin:hunter2@10.0.0.6", "do not belong into an address"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(why) && !error.contains("hunter2"), "{text}: {error}");
    }
}
