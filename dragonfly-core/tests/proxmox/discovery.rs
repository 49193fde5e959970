//! What is found, and what becomes of it.

use super::*;

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
    let Some(peer) = start(World::new().with_vms(100, 500)).await else { return };
    peer.change(|world| {
        world.delay = Duration::from_millis(2);
        world.vms.get_mut(&100).unwrap().is_on = true;
        world
            .vms
            .get_mut(&101)
            .unwrap()
            .config
            .insert("tags".to_owned(), format!("{}dragonfly", "a-long-word;".repeat(40)));
        world.vms.get_mut(&102).unwrap().config.insert("template".to_owned(), "1".to_owned());
        world.containers.insert(9000);
    });
    let cluster = cluster(&peer);
    let begin = Instant::now();
    let snapshot = tokio::spawn(async move { cluster.snapshot().await }).await.unwrap().unwrap();
    let seen = peer.seen();
    eprintln!(
        "500 VMs: {:?}, {} requests, {} connections, {} at the same time",
        begin.elapsed(),
        seen.requests.len(),
        seen.connections,
        seen.parallel
    );
    assert_eq!(seen.requests.len(), 503, "three, and one for each VM");
    assert!(seen.parallel <= 8 && seen.connections <= 64, "{} {}", seen.parallel, seen.connections);
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
async fn a_token_that_is_taken_back_is_not_tried_for_every_vm() {
    let Some(peer) = start(World::new().with_vms(100, 500)).await else { return };
    peer.change(|world| world.delay = Duration::from_millis(5));
    let cluster = cluster(&peer);
    let revoke = async {
        while peer.seen().requests.len() < 50 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        peer.change(|world| world.accounts.clear());
    };
    let (snapshot, ()) = tokio::join!(cluster.snapshot(), revoke);
    assert!(matches!(snapshot.unwrap_err(), PowerError::Unauthorised));
    assert!(peer.seen().requests.len() < 150, "{}", peer.seen().requests.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_vms_is_told() {
    let Some(peer) = start(World::new().with_vms(101, 6)).await else { return };
    let cluster = cluster(&peer);
    let first = cluster.snapshot().await.unwrap();
    let known = remember(&first);
    let at = first.machines.iter().find(|found| found.vmid == 105).unwrap().address(&url(&peer, "/qemu/7"));
    assert!(at.as_str().ends_with("/qemu/105?tls=off&uuid=00000000-0000-0069-0000-0000000000d0"), "{at}");
    let fifth = Proxmox::default().vm(&at, Some(&as_user(TOKEN, "secret"))).unwrap();
    fifth.on().await.unwrap();
    fifth.close().await.unwrap();
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

    // What is asked of the one is not done to the other.
    let error = fifth.on().await.unwrap_err();
    assert!(matches!(&error, PowerError::NotTrusted { .. }), "{error:?}");
    assert!(error.to_string().contains("was the number given to another?"), "{error}");
    assert!(!peer.vm(105).unwrap().is_on);

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
    let Some(peer) = start(world.with_vms(101, 2)).await else { return };
    let snapshot = cluster(&peer).snapshot().await.unwrap();
    assert_eq!((&*snapshot.cluster, snapshot.machines.len(), snapshot.is_whole()), ("pve7", 2, true));
    vm(&peer, 102).on().await.unwrap();
    is_lawful(&peer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_answer_is_not_waited_for_again_and_again() {
    let Some(peer) = start(World::new().with_vms(100, 300)).await else { return };
    peer.change(|world| world.silent.insert("pve3".to_owned()));
    let snapshot = cluster(&peer).snapshot().await.unwrap();
    let dark: Vec<&Found> = snapshot.machines.iter().filter(|found| found.trouble.is_some()).collect();
    assert!(dark.len() == 100 && dark.iter().all(|found| found.node == "pve3"), "{dark:?}");
    assert!(dark.iter().all(|found| found.trouble.as_ref().unwrap().contains("No route to host")), "{dark:?}");
    let asked = peer.seen().requests.iter().filter(|request| request.contains("/pve3/")).count();
    assert!(asked <= 8, "{asked}");
}
