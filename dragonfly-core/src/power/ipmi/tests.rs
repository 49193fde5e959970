//! The driver against a simulated controller, with every habit of real ones and on a bad network.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;

use super::peer::{Command, Peer, Personality};
use super::*;
use crate::power::{
    BootDevice, BootMode, BootOverride, Health, NextBoot, PowerCycle, PowerSense, PowerState, Reset, Sensors,
};

/// Short, for a controller on the same machine.
const PATIENCE: Patience = Patience { first: Duration::from_millis(60), tries: 6 };

async fn peer(is: Personality) -> Peer {
    Peer::start("127.0.0.1:0".parse().unwrap(), is).await.unwrap()
}

fn credential(username: &str, password: &str) -> Credential {
    Credential { username: username.to_owned(), password: password.to_owned().into() }
}

fn controller(address: SocketAddr, query: &str) -> Controller {
    let url = format!("ipmi://{address}{query}").parse().unwrap();
    Ipmi::with_patience(PATIENCE).controller(&url, Some(&credential("admin", "secret"))).unwrap()
}

/// Everything that the driver can do.
async fn exercise(control: &Controller, peer: &Peer) {
    let able = control.abilities();
    let state = async || able.sense.unwrap().state().await.unwrap();
    assert_eq!(state().await, PowerState::Off);
    control.on().await.unwrap();
    control.on().await.unwrap();
    assert_eq!(state().await, PowerState::On);
    able.reset.unwrap().reset().await.unwrap();
    able.cycle.unwrap().cycle().await.unwrap();
    able.soft_off.unwrap().soft_off().await.unwrap();
    assert_eq!(state().await, PowerState::Off);
    let refused = able.reset.unwrap().reset().await.unwrap_err();
    assert!(refused.to_string().contains("it is off"), "{refused}");
    able.cycle.unwrap().cycle().await.unwrap();
    assert_eq!(state().await, PowerState::On, "a cycle switches on what is off");
    able.off.unwrap().off().await.unwrap();
    able.off.unwrap().off().await.unwrap();
    let boot = able.next_boot.unwrap();
    assert_eq!(boot.next_boot().await.unwrap(), None);
    for device in [BootDevice::Pxe, BootDevice::Disk, BootDevice::Cdrom, BootDevice::Bios] {
        for persistent in [false, true] {
            for mode in [None, Some(BootMode::Uefi)] {
                let wish = Some(BootOverride { device, persistent, mode });
                assert_eq!(boot.set_next_boot(wish).await.unwrap(), wish);
                assert_eq!(boot.next_boot().await.unwrap(), wish);
            }
        }
    }
    assert_eq!(boot.set_next_boot(None).await.unwrap(), None);
    able.identify.unwrap().identify(Some(Duration::from_secs(30))).await.unwrap();
    assert_eq!(peer.chassis().identify, 30);
    able.identify.unwrap().identify(None).await.unwrap();
    assert_eq!(peer.chassis().identify, 0);
    let sensors = able.sensors.unwrap().sensors().await.unwrap();
    let seen: Vec<_> = sensors.iter().map(|s| (&*s.name, s.value, &*s.unit, s.health)).collect();
    let wanted = [
        ("CPU1 Temp", Some(42.0), "degrees C", Health::Ok),
        ("FAN1", Some(0.0), "RPM", Health::Critical),
        ("FAN2", None, "RPM", Health::Unknown),
    ];
    assert_eq!(seen, wanted);
    let events = able.events.unwrap().events(2).await.unwrap();
    let seen: Vec<_> = events.iter().map(|e| (&*e.id, e.health)).collect();
    assert_eq!(seen, [("2", Health::Critical), ("3", Health::Critical)]);
    assert_eq!(control.device_id().await.unwrap().product, 0x0f02);
}

#[tokio::test]
async fn everything_with_either_suite() {
    for (suite, query) in [(Suite::Sha1, "?cipher=3"), (Suite::Sha256, "?cipher=17"), (Suite::Sha256, "")] {
        let peer = peer(Personality::default()).await;
        let control = controller(peer.address(), query);
        exercise(&control, &peer).await;
        assert_eq!(control.cipher_suite().await, Some(suite.id()));
        control.close().await.unwrap();
        control.close().await.unwrap();
        let seen = peer.seen();
        assert_eq!((seen.opened, seen.closed, seen.parallel, seen.refused), (1, 1, 1, 0));
        let done = peer.chassis().done;
        let wanted = [Command::On, Command::On, Command::Reset, Command::Cycle, Command::Soft, Command::On];
        assert_eq!(done, [&wanted[..], &[Command::Off, Command::Off]].concat());
    }
}

#[tokio::test]
async fn the_suite_that_both_know_is_taken() {
    let peer = peer(Personality { suites: vec![Suite::Sha1], ..Personality::default() }).await;
    let control = controller(peer.address(), "");
    control.on().await.unwrap();
    assert_eq!(control.cipher_suite().await, Some(3));
    let strict = controller(peer.address(), "?cipher=17").on().await.unwrap_err();
    let words = strict.to_string();
    assert!(words.contains("cipher suite 17") && words.contains("does not offer"), "{words}");
}

#[tokio::test]
async fn each_fault_by_its_name() {
    let peer = peer(Personality { privilege: Privilege::User, sessions: 1, ..Personality::default() }).await;
    let ipmi = Ipmi::with_patience(PATIENCE);
    let url: Url = format!("ipmi://{}?privilege=user", peer.address()).parse().unwrap();
    let open = |who: Credential| ipmi.controller(&url, Some(&who)).unwrap();
    // A wrong password shows in what the controller proves: ours is never sent to it.
    for (user, password) in [("admin", "wrong"), ("nobody", "secret"), ("admin", "")] {
        let error = open(credential(user, password)).on().await.unwrap_err();
        assert!(matches!(error, PowerError::Unauthorised) && !error.is_retryable(), "{user}: {error}");
        peer.forget_sessions();
    }
    let error = controller(peer.address(), "").on().await.unwrap_err();
    assert!(matches!(error, PowerError::Forbidden { .. }), "{error}");
    assert!(error.to_string().contains("operator"), "{error}");
    // A user may look, and not touch.
    let user = controller(peer.address(), "?privilege=user");
    assert_eq!(PowerSense::state(&user).await.unwrap(), PowerState::Off);
    let error = user.on().await.unwrap_err();
    assert!(matches!(error, PowerError::Forbidden { .. }) && error.to_string().contains("switch on"), "{error}");
    // Its only session is taken.
    let error = controller(peer.address(), "?privilege=user").on().await.unwrap_err();
    assert!(matches!(error, PowerError::Busy { .. }) && error.is_retryable(), "{error}");

    let deaf = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = deaf.local_addr().unwrap();
    let error = controller(address, "").on().await.unwrap_err();
    assert!(matches!(error, PowerError::TimedOut { .. }) && error.is_retryable(), "{error}");
    drop(deaf);
    let error = controller(address, "").on().await.unwrap_err();
    assert!(matches!(error, PowerError::Unreachable { .. }), "{error}");

    let none = ipmi.controller(&url, None).unwrap_err();
    assert!(matches!(none, PowerError::NoCredential), "{none}");
    for (user, password) in [("seventeen-letters", "x"), ("x", "a password of more than twenty")] {
        let error = ipmi.controller(&url, Some(&credential(user, password))).unwrap_err();
        assert!(matches!(error, PowerError::InvalidCredential { .. }), "{error}");
        assert!(!error.to_string().contains("more than twenty"), "{error}");
    }
}

#[tokio::test]
async fn a_controller_that_forgets_flags_is_reported_as_it_is() {
    let peer = peer(Personality { forgets_flags: true, ..Personality::default() }).await;
    let control = controller(peer.address(), "");
    let wish = BootOverride { device: BootDevice::Pxe, persistent: true, mode: Some(BootMode::Uefi) };
    let kept = NextBoot::set_next_boot(&control, Some(wish)).await.unwrap();
    assert_eq!(kept, Some(BootOverride::once(BootDevice::Pxe)));
}

#[tokio::test]
async fn a_session_that_was_forgotten_is_opened_anew() {
    let peer = peer(Personality::default()).await;
    let control = controller(peer.address(), "");
    control.on().await.unwrap();
    peer.forget_sessions();
    assert_eq!(PowerSense::state(&control).await.unwrap(), PowerState::On);
    assert_eq!(peer.seen().opened, 2);
}

#[tokio::test]
async fn slow_controllers_and_those_that_answer_twice() {
    let slow = Duration::from_millis(240);
    for (delay, answers_twice, new_challenges) in
        [(slow, false, false), (Duration::ZERO, true, false), (slow, true, true), (slow, false, true)]
    {
        let is = Personality { delay, answers_twice, new_challenges, ..Personality::default() };
        let peer = peer(is).await;
        let control = controller(peer.address(), "");
        let told = format!("{delay:?} {answers_twice} {new_challenges}");
        control.on().await.unwrap_or_else(|e| panic!("{told}: {e}"));
        assert_eq!(PowerSense::state(&control).await.unwrap(), PowerState::On, "{told}");
        let wish = Some(BootOverride::once(BootDevice::Pxe));
        assert_eq!(NextBoot::set_next_boot(&control, wish).await.unwrap(), wish, "{told}");
    }
}

/// A relay that loses, doubles and reorders datagrams, each of them one in five, always in the same way.
async fn bad_network(to: SocketAddr, seed: u64) -> SocketAddr {
    let inside = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let outside = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let address = inside.local_addr().unwrap();
    outside.connect(to).await.unwrap();
    tokio::spawn(async move {
        let (mut state, mut client) = (seed, None);
        let (mut from_client, mut from_server) = ([0; 2048], [0; 2048]);
        loop {
            let (bytes, forth) = tokio::select! {
                Ok((length, from)) = inside.recv_from(&mut from_client) => {
                    // A new socket is a new client: what is late for the old one is lost.
                    client = Some(from);
                    (from_client[..length].to_vec(), true)
                }
                Ok(length) = outside.recv(&mut from_server) => (from_server[..length].to_vec(), false),
            };
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (times, late) = match state >> 33 {
                n if n % 5 == 0 => (0, false),
                n if n % 5 == 1 => (2, false),
                n => (1, n % 5 == 2),
            };
            let (inside, outside, client) = (inside.clone(), outside.clone(), client);
            tokio::spawn(async move {
                if late {
                    tokio::time::sleep(Duration::from_millis(25)).await;
                }
                for _ in 0..times {
                    let _ = match (forth, client) {
                        (true, _) => outside.send(&bytes).await,
                        (false, Some(client)) => inside.send_to(&bytes, client).await,
                        (false, None) => Ok(0),
                    };
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_bad_network_costs_time_and_nothing_else() {
    for seed in 0..6 {
        let peer = peer(Personality { new_challenges: seed % 2 == 0, sessions: 60, ..Personality::default() }).await;
        let address = bad_network(peer.address(), seed).await;
        // The same as on a good one. Of two hundred requests none may lose every try, or its answer: a third of them does.
        let patient = Patience { tries: 12, ..PATIENCE };
        let url = format!("ipmi://{address}").parse().unwrap();
        let control = Ipmi::with_patience(patient).controller(&url, Some(&credential("admin", "secret"))).unwrap();
        control.on().await.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        for device in [BootDevice::Pxe, BootDevice::Disk, BootDevice::Bios] {
            let wish = Some(BootOverride::once(device));
            assert_eq!(NextBoot::set_next_boot(&control, wish).await.unwrap(), wish, "seed {seed}");
        }
        assert_eq!(Sensors::sensors(&control).await.unwrap().len(), 3, "seed {seed}");
        assert_eq!(PowerSense::state(&control).await.unwrap(), PowerState::On, "seed {seed}");
        assert_eq!(peer.seen().refused, 0, "seed {seed}: a lost packet is not a wrong password");
    }
}

#[test]
fn addresses() {
    let parse = |text: &str| Address::parse(&text.parse().unwrap());
    let plain = parse("ipmi://10.0.0.6").unwrap();
    assert_eq!((&*plain.host, plain.port, plain.privilege), ("10.0.0.6", 623, Privilege::Operator));
    assert_eq!(plain.suites, [Suite::Sha256, Suite::Sha1]);
    let whole = parse("ipmi://[fd00::6]:6230?cipher=3&privilege=administrator").unwrap();
    assert_eq!((&*whole.host, whole.port, whole.privilege), ("fd00::6", 6230, Privilege::Administrator));
    assert_eq!(whole.suites, [Suite::Sha1]);
    for (text, why) in [
        ("ipmi:10.0.0.6", "expected ipmi://HOST"),
        ("ipmi://10.0.0.6/system", "nothing goes behind the host"),
        ("ipmi://u:p@10.0.0.6", "do not belong into an address"),
        ("ipmi://10.0.0.6?cipher=8", "cipher suite 8 is not known; there are 3 and 17"),
        ("ipmi://10.0.0.6?privilege=root", "privilege root is not known"),
        ("ipmi://10.0.0.6?user=admin", "`user` is not known"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(why) && !error.contains("u:p"), "{text}: {error}");
    }
}

#[tokio::test]
async fn it_keeps_the_promises_of_a_driver() {
    let peer = peer(Personality::default()).await;
    let url = format!("ipmi://{}", peer.address()).parse().unwrap();
    let control = Ipmi::default().open(&url, Some(&credential("admin", "secret"))).await.unwrap();
    let report = crate::testing::power::check(&*control, Duration::from_secs(1)).await.unwrap();
    assert_eq!(report.absent, ["http-boot", "media", "inventory", "firmware"]);
    let seen = peer.seen();
    assert_eq!((seen.opened, seen.closed, seen.parallel), (2, 2, 1));
    let lying = self::peer(Personality { lies: true, ..Personality::default() }).await;
    let broken =
        crate::testing::power::check(&controller(lying.address(), ""), Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(broken.promise, "what was switched on is on");
}

#[tokio::test]
async fn what_may_not_be_done_twice_is_not_asked_twice() {
    let peer = peer(Personality { silent_switch: true, ..Personality::default() }).await;
    peer.change(|_, chassis| chassis.is_on = true);
    let control = controller(peer.address(), "");
    // The session is old when the command is sent: silence could mean that the controller has forgotten it.
    assert_eq!(control.state().await.unwrap(), PowerState::On);
    for (done, command) in [(control.cycle().await, Command::Cycle), (control.reset().await, Command::Reset)] {
        assert!(matches!(done, Err(PowerError::TimedOut { .. })), "{done:?}");
        let done = peer.chassis().done;
        assert_eq!(done.iter().filter(|one| **one == command).count(), 1, "{done:?}");
    }
}
