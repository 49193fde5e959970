//! Proxmox VE: `proxmoxer` takes our simulated cluster for a real one, and our driver and discovery stand before what
//! clusters do: VMs that move, tasks that fail, nodes that are not there.

// Helpers outside `#[test]` functions unwrap and say what they did.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod discovery;
mod foreign;
mod rights;
mod tasks;

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
use dragonfly_core::testing::power::proxmox::{Account, Machine, Peer, Schema, World};
use rcgen::{CertificateParams, KeyPair};
use sha2::{Digest as _, Sha256};

const TOKEN: &str = "root@pam!dragonfly";

fn as_user(username: &str, password: &str) -> Credential {
    Credential { username: username.to_owned(), password: password.to_owned().into() }
}

/// The API as it is published, where that is at hand.
fn published() -> Option<Schema> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file =
        ["../../shared/fixtures", "../../../shared/fixtures"].map(|at| dir.join(at).join("proxmox-api-8.4.json.xz"));
    let Some(file) = file.into_iter().find(|file| file.is_file()) else {
        eprintln!("skipped: the published API of Proxmox VE is not at hand");
        return None;
    };
    let out = Command::new("xz").arg("-dc").arg(file).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(Schema::read(&*out.stdout).unwrap())
}

async fn start(world: World) -> Option<Peer> {
    Some(Peer::start("127.0.0.1:0".parse().unwrap(), world, published()?, None).await.unwrap())
}

/// A cluster with VMs 101 to 103, on pve1, pve2 and pve3.
async fn small() -> Option<Peer> {
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

/// A cluster with TLS, its certificate as PEM and its fingerprint.
async fn with_tls(world: World) -> Option<(Peer, String, String)> {
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let fingerprint = hex::encode(Sha256::digest(own.der()));
    let tls = Some((&*own.pem(), &*key.serialize_pem()));
    let peer = Peer::start("127.0.0.1:0".parse().unwrap(), world, published()?, tls).await.unwrap();
    Some((peer, own.pem(), fingerprint))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_keeps_every_promise_of_power() {
    for who in [as_user(TOKEN, "secret"), as_user("root@pam", "secret")] {
        let Some(peer) = small().await else { return };
        let control = Proxmox::default().open(&url(&peer, "/qemu/102"), Some(&who)).await.unwrap();
        let report = check(&*control, Duration::from_secs(5)).await.unwrap();
        assert_eq!(report.kept.len(), 10, "{report:?}");
        for word in ["off", "soft", "cycle", "reset", "status", "boot-device"] {
            assert!(!report.absent.contains(&word), "{word}: {report:?}");
        }
        let left = peer.vm(102).unwrap();
        assert_eq!(left.config, Machine::new(102, "pve2").config, "nothing of ours is left");
        assert_eq!(peer.vm(101).unwrap().done.len() + peer.vm(103).unwrap().done.len(), 0);
        is_lawful(&peer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_boot_order_is_changed_and_given_back() {
    let Some(peer) = small().await else { return };
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
    let Some(peer) = small().await else { return };
    peer.change(|world| world.delay = Duration::from_millis(400));
    let vm = vm(&peer, 101);
    vm.state().await.unwrap();
    let writer = async {
        // Between the reading and the writing.
        while !peer.seen().requests.iter().any(|request| request.ends_with("/config")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
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
    let Some(peer) = small().await else { return };
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
