//! Proxmox VE: `proxmoxer` takes our simulated cluster for a real one, and our driver and discovery stand before what
//! clusters do: VMs that move, tasks that fail, nodes that are not there.

// Helpers outside `#[test]` functions unwrap and say what they did.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dragonfly_core::power::proxmox::{Change, Cluster, Found, Known, Place, Proxmox, Snapshot, Vm, changes};
use dragonfly_core::power::{
    BootDevice, BootMode, BootOverride, Credential, Dispatcher, Limits, NextBoot as _, Operation, Outcome,
    PowerControl as _, PowerCycle as _, PowerDriver as _, PowerDrivers, PowerError, PowerOff as _, PowerSense as _,
    PowerState, Reset as _, SoftOff as _, Target,
};
use dragonfly_core::testing::power::check;
use dragonfly_core::testing::power::proxmox::{Account, Machine, Peer, World};
use rcgen::{CertificateParams, KeyPair};
use sha2::{Digest as _, Sha256};

const TOKEN: &str = "root@pam!dragonfly";

fn as_user(username: &str, password: &str) -> Credential {
    Credential { username: username.to_owned(), password: password.to_owned().into() }
}

async fn start(world: World) -> Peer {
    Peer::start("127.0.0.1:0".parse().unwrap(), world, None).await.unwrap()
}

/// A cluster with VMs 101 to 103, on pve1, pve2 and pve3.
async fn small() -> Peer {
    start(World::new().with_vms(101, 3)).await
}

fn url(peer: &Peer, path: &str) -> url::Url {
    format!("proxmox://{}{path}?tls=off", peer.address()).parse().unwrap()
}

fn vm_as(peer: &Peer, vmid: u32, who: &Credential) -> Vm {
    Proxmox::default().vm(&url(peer, &format!("/qemu/{vmid}")), Some(who)).unwrap()
}

fn vm(peer: &Peer, vmid: u32) -> Vm {
    vm_as(peer, vmid, &as_user(TOKEN, "secret"))
}

fn cluster(peer: &Peer) -> Cluster {
    Cluster::open(&url(peer, ""), &as_user(TOKEN, "secret")).unwrap()
}

/// What every request was allowed, and every answer too.
fn is_lawful(peer: &Peer) {
    let seen = peer.seen();
    assert_eq!((seen.strange, seen.faults), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_keeps_every_promise_of_power() {
    for who in [as_user(TOKEN, "secret"), as_user("root@pam", "secret")] {
        let peer = small().await;
        let control = Proxmox::default().open(&url(&peer, "/qemu/102"), Some(&who)).await.unwrap();
        let report = check(&*control, Duration::from_secs(5)).await.unwrap();
        assert_eq!(report.absent, ["identify", "sensors", "events"], "{report:?}");
        let left = peer.vm(102).unwrap();
        assert_eq!(left.config, Machine::new(102, "pve2").config, "nothing of ours is left");
        assert_eq!(peer.vm(101).unwrap().done.len() + peer.vm(103).unwrap().done.len(), 0);
        is_lawful(&peer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_boot_order_is_changed_and_given_back() {
    let peer = small().await;
    let theirs = "order=ide2;scsi0;net0";
    let first = Machine::new(101, "pve1").with("boot", theirs).with("description", "Rack 3\nnot ours\n");
    peer.change(|world| world.vms.insert(101, first.clone()));
    let vm = vm(&peer, 101);
    assert_eq!(vm.next_boot().await.unwrap(), None);
    let pxe = BootOverride::once(BootDevice::Pxe);
    let set = BootOverride { persistent: true, mode: Some(BootMode::Legacy), ..pxe };
    assert_eq!(vm.set_next_boot(Some(pxe)).await.unwrap(), Some(set), "it holds until it is taken back, and says so");
    let now = peer.vm(101).unwrap();
    assert_eq!(now.config["boot"], "order=net0;ide2;scsi0");
    assert!(now.config["description"].starts_with("Rack 3\nnot ours\n<!-- dragonfly-boot "), "{:?}", now.config);

    // While it runs, a new order waits for the next start; what is read back is what that start takes.
    vm.on().await.unwrap();
    let disk = BootOverride::once(BootDevice::Disk);
    assert_eq!(vm.set_next_boot(Some(disk)).await.unwrap().unwrap().device, BootDevice::Disk);
    let now = peer.vm(101).unwrap();
    assert_eq!(now.config["boot"], "order=net0;ide2;scsi0");
    assert_eq!(now.pending["boot"].as_deref(), Some("order=scsi0;ide2;net0"));
    vm.reset().await.unwrap();
    assert!(!peer.vm(101).unwrap().pending.is_empty(), "a reset takes nothing over");
    vm.cycle().await.unwrap();
    assert_eq!(peer.vm(101).unwrap().config["boot"], "order=scsi0;ide2;net0");

    assert_eq!(vm.set_next_boot(None).await.unwrap(), None);
    vm.off().await.unwrap();
    vm.on().await.unwrap();
    let end = peer.vm(101).unwrap();
    assert_eq!((&*end.config["boot"], &*end.config["description"]), (theirs, "Rack 3\nnot ours\n"));
    assert_eq!(end.config, first.config);

    let wish = BootOverride { mode: Some(BootMode::Uefi), ..pxe };
    let error = vm.set_next_boot(Some(wish)).await.unwrap_err().to_string();
    assert!(error.contains("SeaBIOS"), "{error}");
    is_lawful(&peer);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_at_the_same_time_is_not_written_over() {
    let peer = small().await;
    peer.change(|world| world.delay = Duration::from_millis(60));
    let vm = vm(&peer, 101);
    vm.state().await.unwrap();
    let writer = async {
        // Between the reading and the writing.
        tokio::time::sleep(Duration::from_millis(90)).await;
        peer.change(|world| {
            let vm = world.vms.get_mut(&101).unwrap();
            vm.config.insert("description".to_owned(), "written meanwhile\n".to_owned());
        });
    };
    let (set, ()) = tokio::join!(vm.set_next_boot(Some(BootOverride::once(BootDevice::Pxe))), writer);
    assert_eq!(set.unwrap().unwrap().device, BootDevice::Pxe);
    let description = &peer.vm(101).unwrap().config["description"];
    assert!(description.starts_with("written meanwhile\n<!-- dragonfly-boot "), "{description}");
    let writes = peer.seen().requests.iter().filter(|request| request.starts_with("PUT")).count();
    assert_eq!(writes, 2, "the first was refused for its digest");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_is_found_wherever_it_moves() {
    let peer = small().await;
    let vm = vm(&peer, 101);
    vm.on().await.unwrap();
    assert_eq!(vm.node().await.as_deref(), Some("pve1"));
    // Called by path, by task, and for its settings.
    peer.migrate(101, "pve3");
    assert_eq!(vm.state().await.unwrap(), PowerState::On);
    assert_eq!(vm.node().await.as_deref(), Some("pve3"));
    peer.migrate(101, "pve2");
    vm.set_next_boot(Some(BootOverride::once(BootDevice::Pxe))).await.unwrap();
    peer.migrate(101, "pve1");
    vm.reset().await.unwrap();
    peer.change(|world| world.nodes.insert("pve9".to_owned(), true));
    peer.migrate(101, "pve9");
    vm.cycle().await.unwrap();
    // The node that it was on is taken out of the cluster.
    peer.migrate(101, "pve2");
    peer.change(|world| world.nodes.remove("pve9"));
    vm.off().await.unwrap();
    assert!(!peer.vm(101).unwrap().is_on);
    // A task that begins on one node, after the VM has gone from there.
    peer.migrate(101, "pve3");
    let dispatcher = Dispatcher::new(PowerDrivers::new().with(Proxmox::default()), Limits::default());
    let target = Target { address: url(&peer, "/qemu/101"), credential: Some(as_user(TOKEN, "secret")) };
    assert_eq!(dispatcher.carry_out(&target, Operation::NetworkBoot(None)).await.unwrap(), Outcome::Done);
    let is = peer.vm(101).unwrap();
    assert!(is.is_on && is.config["boot"].starts_with("order=net0;"), "{is:?}");

    peer.change(|world| world.vms.remove(&101));
    let error = vm.state().await.unwrap_err();
    assert!(matches!(error, PowerError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("the cluster shows no VM 101"), "{error}");
    peer.change(|world| world.containers.insert(101));
    let error = vm.state().await.unwrap_err().to_string();
    assert!(error.contains("101 is a container, and no VM"), "{error}");
    is_lawful(&peer);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_fail_and_vms_that_are_locked_say_so() {
    let peer = small().await;
    let vm = vm(&peer, 101);
    peer.change(|world| world.vms.get_mut(&101).unwrap().fails = Some("no space left on device".to_owned()));
    let error = vm.on().await.unwrap_err();
    assert_eq!(error.to_string(), "the controller refused to switch on: no space left on device");
    assert!(!error.is_retryable());

    let lock = |lock: Option<&str>| {
        peer.change(|world| {
            let vm = world.vms.get_mut(&101).unwrap();
            vm.fails = None;
            vm.config.remove("lock");
            vm.config.extend(lock.map(|lock| ("lock".to_owned(), lock.to_owned())));
        });
    };
    lock(Some("backup"));
    let on = vm.on().await.unwrap_err();
    let boot = vm.set_next_boot(Some(BootOverride::once(BootDevice::Pxe))).await.unwrap_err();
    for error in [on, boot] {
        assert!(matches!(&error, PowerError::Busy { reason } if reason == "VM is locked (backup)"), "{error:?}");
        assert!(error.is_retryable());
    }
    // One that was suspended to disk is continued.
    lock(Some("suspended"));
    vm.on().await.unwrap();
    assert!(peer.vm(101).unwrap().is_on);

    // An operating system that does not go, and whoever takes the power all the same.
    peer.change(|world| world.vms.get_mut(&101).unwrap().obeys = false);
    let asked = Instant::now();
    vm.soft_off().await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(5), "it is asked, and not waited for");
    assert_eq!(vm.state().await.unwrap(), PowerState::On);
    vm.off().await.unwrap();
    assert_eq!(peer.vm(101).unwrap().done, ["start", "stop"]);
    is_lawful(&peer);
    // Releases that cannot overrule one wait for it.
    peer.change(|world| (world.is_old, world.lock) = (true, Duration::from_millis(300)));
    vm.on().await.unwrap();
    vm.soft_off().await.unwrap();
    let error = vm.off().await.unwrap_err();
    assert!(matches!(&error, PowerError::Busy { reason } if reason.contains("got timeout")), "{error:?}");
    let strange = peer.seen().strange;
    assert!(strange.len() == 1 && strange[0].contains("overrule-shutdown"), "{strange:?}");

    let error = vm_as(&peer, 102, &as_user(TOKEN, "secret")).reset().await.unwrap_err().to_string();
    assert_eq!(error, "the controller refused to reset the machine: it is off");
    peer.change(|world| world.vms.get_mut(&103).unwrap().config.insert("template".to_owned(), "1".to_owned()));
    let error = self::vm(&peer, 103).on().await.unwrap_err().to_string();
    assert!(error.contains("it's a template"), "{error}");
    peer.change(|world| world.nodes.insert("pve2".to_owned(), false));
    let error = self::vm(&peer, 102).on().await.unwrap_err();
    let PowerError::Unreachable { source } = &error else { panic!("{error:?}") };
    assert_eq!(source.to_string(), "the VM's node does not answer: No route to host");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_told_what_is_missing() {
    let peer = small().await;
    let sees = Account::new("viewer@pve!a", "secret", &[("/vms", "VM.Audit")]);
    let switches = Account::new(
        "half@pve",
        "secret",
        &[("/vms/101", "VM.Audit"), ("/vms/101", "VM.PowerMgmt"), ("/vms/101", "VM.Config.Disk")],
    );
    peer.change(|world| world.accounts.extend([sees, switches]));
    for is_terse in [false, true] {
        peer.change(|world| world.is_terse = is_terse);
        let viewer = as_user("viewer@pve!a", "secret");
        let error = vm_as(&peer, 101, &viewer).on().await.unwrap_err();
        let words = "the account may not switch on (VM.PowerMgmt on /vms/101) on this controller; it needs more rights";
        assert!(matches!(error, PowerError::Forbidden { .. }) && error.to_string() == words, "{error}");
        let open = Cluster::open(&url(&peer, ""), &viewer).unwrap();
        let error = open.snapshot().await.unwrap_err().to_string();
        assert!(error.contains("may not see the cluster's state (Sys.Audit on /)"), "{error}");
        let half = vm_as(&peer, 101, &as_user("half@pve", "secret"));
        let error = half.set_next_boot(Some(BootOverride::once(BootDevice::Pxe))).await.unwrap_err().to_string();
        assert!(error.contains("may not boot from pxe (VM.Config.Options on /vms/101)"), "{error}");
        let other = vm_as(&peer, 102, &as_user("half@pve", "secret"));
        let error = other.on().await.unwrap_err().to_string();
        assert!(error.contains("shows no VM 102") && error.contains("VM.Audit on /vms/102"), "{error}");
    }
    for (user, password) in
        [(TOKEN, "wrong"), ("root@pam!other", "secret"), ("root@pam", "wrong"), ("nobody@pam", "secret")]
    {
        let error = vm_as(&peer, 101, &as_user(user, password)).on().await.unwrap_err();
        assert!(matches!(error, PowerError::Unauthorised), "{user}: {error:?}");
    }
    assert_eq!(peer.vm(101).unwrap().config, Machine::new(101, "pve1").config);
    is_lawful(&peer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_used_until_it_ends_and_renewed_once() {
    let peer = small().await;
    let vm = vm_as(&peer, 101, &as_user("root@pam", "secret"));
    vm.on().await.unwrap();
    vm.state().await.unwrap();
    assert_eq!(peer.seen().logins, 1);
    peer.change(World::end_tickets);
    vm.off().await.unwrap();
    assert_eq!(peer.seen().logins, 2);
    // The password was changed meanwhile: it is tried once and not again and again.
    peer.change(|world| {
        world.end_tickets();
        world.accounts.retain(|account| account.name != "root@pam");
    });
    let before = peer.seen().requests.len();
    assert!(matches!(vm.state().await.unwrap_err(), PowerError::Unauthorised));
    assert_eq!(peer.seen().requests.len() - before, 2);
    // Many at the same time log in once.
    let peer = start(World::new().with_vms(101, 40)).await;
    let many = Cluster::open(&url(&peer, ""), &as_user("root@pam", "secret")).unwrap();
    assert_eq!(many.snapshot().await.unwrap().machines.len(), 40);
    peer.change(World::end_tickets);
    assert_eq!(many.snapshot().await.unwrap().machines.len(), 40);
    assert_eq!(peer.seen().logins, 2);
    is_lawful(&peer);
}

/// What the caller keeps of a snapshot.
fn remember(snapshot: &Snapshot) -> Vec<Known> {
    let known = |found: &Found| {
        let Found { cluster, vmid, node, uuid, name, macs, .. } = found.clone();
        Known { machine: format!("m{vmid}"), macs, place: Some(Place { cluster, vmid, node, uuid, name }) }
    };
    snapshot.machines.iter().map(known).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_vms_on_three_nodes_are_found() {
    let peer = start(World::new().with_vms(100, 500)).await;
    peer.change(|world| {
        world.delay = Duration::from_millis(2);
        world.vms.get_mut(&100).unwrap().is_on = true;
        world.vms.get_mut(&101).unwrap().config.insert("tags".to_owned(), "dragonfly;rack-3".to_owned());
        world.vms.get_mut(&102).unwrap().config.insert("template".to_owned(), "1".to_owned());
        world.containers.insert(9000);
    });
    let cluster = cluster(&peer);
    let begin = Instant::now();
    let snapshot = cluster.snapshot().await.unwrap();
    let seen = peer.seen();
    eprintln!(
        "500 VMs: {:?}, {} requests, {} connections, {} at the same time",
        begin.elapsed(),
        seen.requests.len(),
        seen.connections,
        seen.parallel
    );
    assert_eq!(seen.requests.len(), 503, "three, and one for each VM");
    assert!(seen.parallel <= 8 && seen.connections <= 16, "{} {}", seen.parallel, seen.connections);
    assert!(begin.elapsed() < Duration::from_secs(30));
    assert_eq!((&*snapshot.cluster, snapshot.nodes.len(), snapshot.machines.len()), ("lab", 3, 500));
    assert!(snapshot.is_whole());
    let [first, second, third] = &snapshot.machines[..3] else { panic!("three") };
    assert_eq!((first.vmid, first.state, &*first.node), (100, Some(PowerState::On), "pve1"));
    assert_eq!(first.macs, ["bc:24:11:00:00:64".parse().unwrap()]);
    assert!(!first.adopted && second.adopted && third.template && first.uuid.is_some());
    assert!(vm(&peer, 101).is_adopted().await.unwrap() && !vm(&peer, 100).is_adopted().await.unwrap());
    let appeared = changes(&[], &snapshot);
    assert_eq!(appeared.len(), 499, "a template is no machine");
    assert_eq!(changes(&remember(&snapshot), &snapshot), []);
    is_lawful(&peer);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_vms_is_told() {
    let peer = start(World::new().with_vms(101, 6)).await;
    let cluster = cluster(&peer);
    let first = cluster.snapshot().await.unwrap();
    let known = remember(&first);
    peer.migrate(101, "pve2");
    peer.change(|world| {
        world.vms.remove(&102);
        let renamed = world.vms.get_mut(&103).unwrap();
        renamed.config.insert("name".to_owned(), "web".to_owned());
        // Restored under another number.
        let moved = world.vms.remove(&104).unwrap();
        world.vms.insert(900, moved);
        // The number given to another VM.
        let mut other = Machine::new(777, "pve2");
        other.config.insert("name".to_owned(), "other".to_owned());
        world.vms.insert(105, other);
        world.vms.insert(901, Machine::new(901, "pve1"));
    });
    let now = cluster.snapshot().await.unwrap();
    let told = changes(&known, &now);
    let found = |vmid: u32| now.machines.iter().find(|found| found.vmid == vmid).unwrap().clone();
    let m = |n: u32| format!("m{n}");
    let wanted = [
        Change::Moved { machine: m(101), from: "pve1".into(), to: "pve2".into() },
        Change::Renamed { machine: m(103), to: "web".into() },
        Change::Appeared { found: found(105) },
        Change::Recognised { machine: m(104), found: found(900) },
        Change::Appeared { found: found(901) },
        Change::Gone { machine: m(102) },
        Change::Gone { machine: m(105) },
    ];
    assert_eq!(told, wanted);

    // A node that is offline takes nothing away, nor does an account that may not see everything.
    let known = remember(&now);
    peer.change(|world| {
        world.nodes.insert("pve2".to_owned(), false);
    });
    let offline = cluster.snapshot().await.unwrap();
    let dark = offline.machines.iter().find(|found| found.vmid == 101).unwrap();
    assert_eq!((dark.state, dark.macs.len()), (None, 0));
    let trouble = dark.trouble.as_deref().unwrap();
    assert!(trouble.starts_with("VM 101 on pve2: ") && trouble.contains("it is offline"), "{trouble}");
    assert!(offline.machines.iter().any(|found| found.trouble.is_none()), "the others are read");
    assert_eq!(changes(&known, &offline), []);
    peer.change(|world| world.vms.retain(|_, vm| vm.node != "pve2"));
    assert_eq!(changes(&known, &cluster.snapshot().await.unwrap()), [], "its VMs are not even listed");
    peer.change(|world| {
        world.nodes.insert("pve2".to_owned(), true);
        world.has_quorum = false;
    });
    let split = cluster.snapshot().await.unwrap();
    assert_eq!(split.gaps, ["the node that answers is not with the majority of its cluster"]);
    assert_eq!(changes(&known, &split), []);
    peer.change(|world| {
        world.has_quorum = true;
        let rights = [("/", "Sys.Audit"), ("/vms/103", "VM.Audit")];
        world.accounts.push(Account::new("part@pve!a", "secret", &rights));
    });
    let part = Cluster::open(&url(&peer, ""), &as_user("part@pve!a", "secret")).unwrap().snapshot().await.unwrap();
    assert_eq!((part.machines.len(), part.gaps.len()), (1, 1));
    assert_eq!(changes(&known, &part), []);
    let gone = changes(&known, &cluster.snapshot().await.unwrap());
    assert!(!gone.is_empty() && gone.iter().all(|change| matches!(change, Change::Gone { .. })), "{gone:?}");
    // And a cluster that does not answer is an error, not an empty one.
    peer.change(|world| world.accounts.clear());
    assert!(matches!(cluster.snapshot().await.unwrap_err(), PowerError::Unauthorised));
    is_lawful(&peer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_alone_is_a_cluster_by_its_own_name() {
    let mut world = World::new();
    (world.cluster, world.nodes) = (None, [("pve7".to_owned(), true)].into());
    let peer = start(world.with_vms(101, 2)).await;
    let snapshot = cluster(&peer).snapshot().await.unwrap();
    assert_eq!((&*snapshot.cluster, snapshot.machines.len(), snapshot.is_whole()), ("pve7", 2, true));
    vm(&peer, 102).on().await.unwrap();
    is_lawful(&peer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_answer_is_not_waited_for_again_and_again() {
    let peer = start(World::new().with_vms(100, 300)).await;
    peer.change(|world| world.silent.insert("pve3".to_owned()));
    let snapshot = cluster(&peer).snapshot().await.unwrap();
    let dark: Vec<&Found> = snapshot.machines.iter().filter(|found| found.trouble.is_some()).collect();
    assert!(dark.len() == 100 && dark.iter().all(|found| found.node == "pve3"), "{dark:?}");
    assert!(dark.iter().all(|found| found.trouble.as_ref().unwrap().contains("No route to host")), "{dark:?}");
    let asked = peer.seen().requests.iter().filter(|request| request.contains("/pve3/")).count();
    assert!(asked <= 8, "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_the_cluster_keeps_running_is_cycled() {
    let peer = small().await;
    peer.change(|world| world.vms.get_mut(&101).unwrap().is_kept = true);
    let vm = vm(&peer, 101);
    vm.on().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(vm.state().await.unwrap(), PowerState::On);
    vm.cycle().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let is = peer.vm(101).unwrap();
    assert!(is.is_on && is.done == ["start", "stop", "start"], "{is:?}");
    let dispatcher = Dispatcher::new(PowerDrivers::new().with(Proxmox::default()), Limits::default());
    let target = Target { address: url(&peer, "/qemu/101"), credential: Some(as_user(TOKEN, "secret")) };
    assert_eq!(dispatcher.carry_out(&target, Operation::Off).await.unwrap(), Outcome::Done);
    assert!(!peer.vm(101).unwrap().is_on);
}

/// A cluster with TLS, its certificate as PEM and its fingerprint.
async fn with_tls(world: World) -> (Peer, String, String) {
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let fingerprint = hex::encode(Sha256::digest(own.der()));
    let tls = Some((&*own.pem(), &*key.serialize_pem()));
    let peer = Peer::start("127.0.0.1:0".parse().unwrap(), world, tls).await.unwrap();
    (peer, own.pem(), fingerprint)
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_to_trust_is_in_the_address() {
    let (peer, pem, fingerprint) = with_tls(World::new().with_vms(101, 1)).await;
    let port = peer.address().port();
    let vm = |driver: &Proxmox, host: &str, tls: &str| {
        let url = format!("proxmox://{host}:{port}/qemu/101{tls}").parse().unwrap();
        driver.vm(&url, Some(&as_user(TOKEN, "secret"))).unwrap()
    };
    let none = Proxmox::default();
    vm(&none, "127.0.0.1", &format!("?tls=sha256:{fingerprint}")).on().await.unwrap();
    vm(&none, "127.0.0.1", "?tls=insecure").off().await.unwrap();
    let roots = Proxmox::default().with_roots(&pem).unwrap();
    vm(&roots, "localhost", "").on().await.unwrap();
    let asked = peer.seen().requests.len();
    for (driver, host, tls) in [
        (&none, "127.0.0.1", format!("?tls=sha256:{}", "ab".repeat(32))),
        (&none, "localhost", String::new()),
        (&roots, "127.0.0.1", String::new()),
    ] {
        let error = vm(driver, host, &tls).on().await.unwrap_err();
        assert!(matches!(error, PowerError::NotTrusted { .. }), "{host}{tls}: {error:?}");
        assert!(error.to_string().contains(&fingerprint), "{error}");
    }
    assert_eq!(peer.seen().requests.len(), asked, "nobody untrusted was told the secret");
    assert!(Proxmox::default().with_roots("").is_err());
}

/// The Python of an environment with `proxmoxer`, made below `target` when it is not there. Where tests must run
/// (`CI` is set), it has to be.
fn python() -> Option<PathBuf> {
    const PACKAGES: [&str; 6] = [
        "proxmoxer==2.3.0",
        "requests==2.34.2",
        "certifi==2026.10.18",
        "charset-normalizer==3.5.2",
        "idna==3.20",
        "urllib3==2.8.0",
    ];
    let at = Path::new(env!("CARGO_TARGET_TMPDIR")).join("proxmoxer-2.3.0");
    let (python, made) = (at.join("bin/python3"), at.join("made"));
    if made.exists() {
        return Some(python);
    }
    let run = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        let out = command.args(arguments).stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
        if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
    };
    let begin = ["-m", "venv", "--clear", at.to_str().unwrap()];
    let install = [&["-m", "pip", "install", "--quiet", "--disable-pip-version-check"][..], &PACKAGES].concat();
    match run(Path::new("python3"), &begin).and_then(|()| run(&python, &install)) {
        Ok(()) => {
            std::fs::write(made, "").unwrap();
            Some(python)
        }
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "these tests need proxmoxer: {error}");
            eprintln!("skipped: there is no proxmoxer: {error}");
            None
        }
    }
}

/// It logs in either way, and prints a line for each thing that it did.
const SCRIPT: &str = r#"
import sys
from proxmoxer import AuthenticationError, ProxmoxAPI, ResourceException
from proxmoxer.tools import Tasks
host, port = sys.argv[1].split(":")
common = dict(port=int(port), verify_ssl=False)
by_ticket = ProxmoxAPI(host, user="root@pam", password="secret", **common)
by_token = ProxmoxAPI(host, user="root@pam", token_name="dragonfly", token_value="secret", **common)
for api, vmid in [(by_ticket, 101), (by_token, 102)]:
    print(api.version.get()["release"], sorted(node["node"] for node in api.nodes.get()))
    listed = {vm["vmid"]: vm["node"] for vm in api.cluster.resources.get(type="vm")}
    node = api.nodes(listed[vmid])
    print([vm["vmid"] for vm in node.qemu.get()], node.qemu(vmid).status.current.get()["status"])
    task = Tasks.blocking_status(api, node.qemu(vmid).status.start.post(), polling_interval=0.05)
    print(task["status"], task["exitstatus"], task["type"], task["id"])
    print(node.qemu(vmid).status.current.get()["status"])
    config = node.qemu(vmid).config.get()
    print(config["net0"])
    node.qemu(vmid).config.put(boot="order=net0;scsi0", digest=config["digest"])
    print([entry["pending"] for entry in node.qemu(vmid).pending.get() if "pending" in entry])
    task = Tasks.blocking_status(api, node.qemu(vmid).status.start.post(), polling_interval=0.05)
    print(task["exitstatus"])
    task = Tasks.blocking_status(api, node.qemu(vmid).status.shutdown.post(timeout=5), polling_interval=0.05)
    print(task["exitstatus"], node.qemu(vmid).status.current.get()["status"])
    for wrong in [
        lambda: node.qemu(vmid).config.put(boot="order=net9"),
        lambda: node.qemu(vmid).config.put(description="x", digest="0" * 40),
        lambda: node.qemu(vmid).config.put(colour="red"),
        lambda: node.qemu(vmid).status.reset.post(),
        lambda: node.qemu(4711).config.get(),
    ]:
        try:
            print("went well", wrong())
        except ResourceException as error:
            print(error.status_code, error.content, error.errors)
try:
    ProxmoxAPI(host, user="root@pam", password="wrong", **common)
except AuthenticationError:
    print("refused")
"#;

#[tokio::test(flavor = "multi_thread")]
async fn another_client_takes_our_cluster_for_a_real_one() {
    let Some(python) = tokio::task::spawn_blocking(python).await.unwrap() else { return };
    let (peer, ..) = with_tls(World::new().with_vms(101, 3)).await;
    let at = peer.address().to_string();
    let out = tokio::task::spawn_blocking(move || {
        Command::new(python).args(["-c", SCRIPT, &at]).stdin(Stdio::null()).output().unwrap()
    });
    let out = out.await.unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{said}{wrong}");
    let wanted = [101, 102].map(|vmid: u32| {
        let node = vmid - 100;
        format!(
            "8.4 ['pve1', 'pve2', 'pve3']\n[{vmid}] stopped\nstopped OK qmstart {vmid}\nrunning\n\
             virtio=BC:24:11:00:00:{vmid:02X},bridge=vmbr0,firewall=1\n['order=net0;scsi0']\nVM {vmid} already running\n\
             OK stopped\n\
             500 invalid bootorder: device 'net9' does not exist' None\n\
             500 checksum mismatch (file change by other user?) None\n\
             400 Parameter verification failed. {{'colour': 'property is not defined in schema and the schema does not \
             allow additional properties'}}\n\
             500 VM {vmid} not running None\n\
             500 Configuration file 'nodes/pve{node}/qemu-server/4711.conf' does not exist None\n"
        )
    });
    assert_eq!(said, format!("{}refused\n", wanted.concat()), "{wrong}");
    assert_eq!(peer.seen().faults, [""; 0]);
}
