use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::engine::anchors::{Known, Word, find};
use crate::resource::hardware::Reservation;
use crate::store::{MemoryStore, StoreError, StoreExt};

const MOST: Duration = Duration::from_secs(5);

fn mac(n: u8) -> Mac {
    Mac::new([2, 0, 0, 0, 0, n])
}

fn machine(name: &str, macs: &[u8]) -> Hardware {
    let spec = HardwareSpec {
        display_name: name.to_uppercase(),
        macs: macs.iter().map(|n| mac(*n)).collect(),
        ..HardwareSpec::default()
    };
    Resource::new(name, spec)
}

fn at(mut machine: Hardware, version: &str) -> Record {
    machine.metadata.resource_version = version.to_owned();
    Record::from(&machine)
}

fn told(cache: &Cache, event: WatchEvent) -> Vec<(Key, String)> {
    cache.change(|state| state.take(Kind::HARDWARE, event))
}

fn applied(machine: &Hardware, version: &str) -> WatchEvent {
    WatchEvent::Applied(Arc::new(at(machine.clone(), version)))
}

fn deleted(machine: &Hardware, version: &str) -> WatchEvent {
    WatchEvent::Deleted(Arc::new(at(machine.clone(), version)))
}

fn held(cache: &Cache, name: &str) -> Option<String> {
    cache.get::<HardwareSpec>(name).map(|m| m.metadata.resource_version.clone())
}

#[tokio::test]
async fn follows_a_store_and_finds_machines_by_every_address() {
    let store = Arc::new(MemoryStore::default());
    let a = store.create(&machine("a", &[1, 2])).await.unwrap();
    let cache = Cache::new();
    assert!(!cache.ready());
    let follow = cache.follow(store.clone());
    let test = async {
        cache.wait_ready().await;
        assert_eq!(cache.by_mac(mac(2)).one().unwrap().name(), "a");
        assert_eq!(cache.machine("A").one().unwrap().name(), "a");
        let seen = store
            .update_status("a", |m: &mut Hardware| {
                m.status.anchors = Some(Anchors { macs: vec![mac(7)], ..Anchors::default() });
                Ok::<_, StoreError>(())
            })
            .await
            .unwrap();
        let key = Key::new(Kind::HARDWARE, "a");
        assert!(cache.wait_for(&key, &seen.metadata.resource_version, MOST).await);
        assert_eq!(cache.by_mac(mac(7)), Owner::Nobody, "an agent may name any card");
        assert!(!cache.wait_for(&key, "999", Duration::from_millis(1)).await, "nobody wrote that");

        let b = store.create(&machine("b", &[7])).await.unwrap();
        assert!(cache.wait_for(&Key::new(Kind::HARDWARE, "b"), &b.metadata.resource_version, MOST).await);
        assert_eq!(cache.by_mac(mac(7)).one().unwrap().name(), "b");
        let seen = store
            .update_status("a", |m: &mut Hardware| {
                m.status.proven = m.status.anchors.clone();
                Ok::<_, StoreError>(())
            })
            .await
            .unwrap();
        assert!(cache.wait_for(&key, &seen.metadata.resource_version, MOST).await);
        assert_eq!(cache.by_mac(mac(7)), Owner::Several(vec!["a".into(), "b".into()]));
        assert_eq!(cache.contested_macs(), [(mac(7), vec!["a".into(), "b".into()])]);

        store.remove(&seen).await.unwrap();
        let mut changes = cache.changes();
        while cache.get::<HardwareSpec>("a").is_some() {
            changes.changed().await.unwrap();
        }
        assert_eq!(cache.by_mac(mac(7)).one().unwrap().name(), "b");
        assert_eq!(cache.by_mac(mac(1)), Owner::Nobody);
        assert_eq!(cache.machine("A"), Owner::Nobody);
        assert_eq!(a.name(), "a");
    };
    tokio::select! {
        () = follow => panic!("the store is open"),
        done = tokio::time::timeout(MOST, test) => done.unwrap(),
    }
}

#[test]
fn an_object_never_goes_back() {
    let cache = Cache::new();
    let a = machine("a", &[1]);
    told(&cache, WatchEvent::Snapshot(vec![at(a.clone(), "9")]));
    // (what comes, version held afterwards)
    cache.applied_record(&at(a.clone(), "12")).unwrap();
    assert_eq!(held(&cache, "a").as_deref(), Some("12"), "an own write is seen at once");
    told(&cache, applied(&a, "10"));
    assert_eq!(held(&cache, "a").as_deref(), Some("12"), "the watch is behind");
    told(&cache, WatchEvent::Snapshot(vec![at(a.clone(), "11")]));
    assert_eq!(held(&cache, "a").as_deref(), Some("12"), "a snapshot from before the write");
    told(&cache, applied(&a, "12"));
    told(&cache, applied(&a, "100"));
    assert_eq!(held(&cache, "a").as_deref(), Some("100"), "compared as numbers");
    cache.applied_record(&at(a, "99")).unwrap();
    assert_eq!(held(&cache, "a").as_deref(), Some("100"), "told late");
}

#[test]
fn what_is_deleted_does_not_come_back() {
    let cache = Cache::new();
    let (mut a, key) = (machine("a", &[1]), Key::new(Kind::HARDWARE, "a"));
    a.metadata.uid = Some(uuid::Uuid::from_u128(1));
    told(&cache, WatchEvent::Snapshot(vec![at(a.clone(), "1")]));
    cache.applied_record(&at(a.clone(), "3")).unwrap();
    cache.removed(&key, "3");
    told(&cache, applied(&a, "2"));
    told(&cache, applied(&a, "3"));
    assert_eq!(held(&cache, "a"), None, "the watch tells of it from before its deletion");
    told(&cache, deleted(&a, "4"));
    cache.applied_record(&at(a.clone(), "3")).unwrap();
    assert_eq!(held(&cache, "a"), None, "the write that came before is told after");
    a.metadata.uid = Some(uuid::Uuid::from_u128(5));
    cache.applied_record(&at(a.clone(), "5")).unwrap();
    assert_eq!(held(&cache, "a").as_deref(), Some("5"), "made again");
    cache.removed(&key, "3");
    assert_eq!(held(&cache, "a").as_deref(), Some("5"), "an old deletion");
    told(&cache, deleted(&a, "6"));
    assert_eq!(held(&cache, "a"), None);
}

#[test]
fn a_snapshot_without_an_own_write_leaves_it_in_doubt() {
    let cache = Cache::new();
    let (a, key) = (machine("a", &[1]), Key::new(Kind::HARDWARE, "a"));
    cache.applied_record(&at(a.clone(), "5")).unwrap();
    let doubtful = told(&cache, WatchEvent::Snapshot(Vec::new()));
    assert_eq!(doubtful, [(key.clone(), "5".to_owned())]);
    assert_eq!(held(&cache, "a").as_deref(), Some("5"), "kept until the store has answered");
    cache.change(|state| state.settle(&key, "4", None));
    assert_eq!(held(&cache, "a").as_deref(), Some("5"), "an answer about another version");
    cache.change(|state| state.settle(&key, "5", None));
    assert_eq!(held(&cache, "a"), None);
    // What the watch has told is gone when a snapshot lacks it.
    told(&cache, applied(&a, "7"));
    assert!(told(&cache, WatchEvent::Snapshot(Vec::new())).is_empty());
    assert_eq!(held(&cache, "a"), None);
}

#[test]
fn without_numbers_the_watch_is_right() {
    let cache = Cache::new();
    let a = machine("a", &[1]);
    told(&cache, WatchEvent::Snapshot(vec![at(a.clone(), "xyz")]));
    cache.applied_record(&at(a.clone(), "abc")).unwrap();
    assert_eq!(held(&cache, "a").as_deref(), Some("xyz"));
    told(&cache, applied(&a, "abc"));
    assert_eq!(held(&cache, "a").as_deref(), Some("abc"));
}

#[test]
fn an_object_that_cannot_be_read_is_named_and_in_nobodys_way() {
    let cache = Cache::new();
    let a = machine("a", &[1]);
    let mut bad = at(a.clone(), "2");
    bad.spec = json!({"macs": ["not an address"]});
    told(&cache, WatchEvent::Snapshot(vec![at(a.clone(), "1"), at(machine("b", &[2]), "1")]));
    told(&cache, WatchEvent::Applied(Arc::new(bad)));
    assert_eq!(cache.by_mac(mac(1)), Owner::Nobody);
    assert_eq!(cache.by_mac(mac(2)).one().unwrap().name(), "b");
    let unreadable = cache.unreadable();
    assert_eq!(unreadable[0].0, Key::new(Kind::HARDWARE, "a"));
    assert!(unreadable[0].1.contains("spec.macs[0]"), "{unreadable:?}");
    told(&cache, applied(&a, "3"));
    assert!(cache.unreadable().is_empty());
    assert_eq!(cache.by_mac(mac(1)).one().unwrap().name(), "a");
}

#[tokio::test(start_paused = true)]
async fn an_own_write_that_was_undone_unseen_does_not_stay() {
    let store = Arc::new(MemoryStore::default());
    let made = store.create(&machine("a", &[1])).await.unwrap();
    store.remove(&made).await.unwrap();
    let cache = Cache::new();
    let test = async {
        cache.wait_ready().await;
        // Told late, after a snapshot from beyond its deletion.
        cache.applied(&made);
        assert!(cache.get::<HardwareSpec>("a").is_some());
        tokio::time::sleep(DOUBT * 3).await;
        assert_eq!(cache.get::<HardwareSpec>("a"), None);
    };
    tokio::select! {
        () = cache.follow(store.clone()) => panic!("the store is open"),
        () = test => {}
    }
}

#[tokio::test]
async fn what_was_read_in_pages_is_followed_from_the_first_of_them() {
    let store = Arc::new(MemoryStore::default());
    let count = 2 * PAGE + 1;
    for n in 0..count {
        store.create(&machine(&format!("m{n:04}"), &[])).await.unwrap();
    }
    let cache = Cache::new();
    cache.load(&*store).await.unwrap();
    assert!(cache.ready());
    assert_eq!(cache.all::<HardwareSpec>().len(), count);
    assert_eq!(cache.read().untold(), [], "nothing of it is in doubt");
    // Before it follows, and behind its back.
    let first = store.fetch::<HardwareSpec>("m0000").await.unwrap();
    store.remove(&first).await.unwrap();
    store.create(&machine("new", &[9])).await.unwrap();
    let told = cache.wait_until(|state| state.hardware.get("new").is_some());
    tokio::select! {
        () = cache.follow(store.clone()) => panic!("the store is open"),
        done = tokio::time::timeout(MOST, told) => done.unwrap(),
    }
    assert!(cache.get::<HardwareSpec>("m0000").is_none());
    assert_eq!(cache.all::<HardwareSpec>().len(), count);
}

/// A machine with few cards, serial numbers, boards and addresses to share.
fn likely() -> impl Strategy<Value = Hardware> {
    let some = |most: u8| prop::option::of(0..most);
    (prop::collection::vec(0u8..6, 0..3), some(3), some(2), some(3), some(3)).prop_map(
        |(macs, serial, product, uuid, address)| {
            let mut machine = machine("x", &macs[..macs.len().min(1)]);
            machine.spec.dhcp = address.map(|n| Reservation { address: [10, 0, 0, n].into(), hostname: None });
            machine.status.proven = Some(Anchors {
                macs: macs.into_iter().map(mac).collect(),
                smbios_uuid: uuid.map(|n| Uuid::from_u128(u128::from(n) + 1)),
                serial: serial.map(|n| format!("SN-{n}")),
                product: product.map(|n| format!("R{n}")),
            });
            machine
        },
    )
}

proptest! {
    /// However a fleet came to be, looking at those that are alike finds what looking at all finds.
    #[test]
    fn look_ups_find_what_a_search_finds(
        steps in prop::collection::vec((0usize..6, prop::option::weighted(0.8, likely())), 0..24),
        asks in likely(),
    ) {
        let cache = Cache::new();
        told(&cache, WatchEvent::Snapshot(Vec::new()));
        for (version, (name, now)) in steps.into_iter().enumerate() {
            let mut object = now.clone().unwrap_or_else(|| machine("x", &[]));
            object.metadata.name = format!("m{name}");
            object.metadata.uid = Some(Uuid::from_u128(version as u128 + 100));
            let version = (version + 1).to_string();
            told(&cache, if now.is_some() { applied(&object, &version) } else { deleted(&object, &version) });
        }
        let all = cache.all::<HardwareSpec>();
        let mut anchors = asks.status.proven.unwrap();
        let booted = anchors.macs.first().copied().unwrap_or(mac(0));
        anchors.macs.push(booted);
        let find = |machines: &[Arc<Hardware>]| {
            let known: Vec<_> = machines.iter().map(|m| {
                let proven = m.status.proven.as_ref();
                let macs = m.spec.macs.iter().chain(proven.iter().flat_map(|p| &p.macs)).copied().collect();
                Known { name: m.name(), macs, expected: None, proven, uid: None, believed: Word::None, unclaimed: false }
            }).collect();
            find(&anchors, booted, &known)
        };
        prop_assert_eq!(find(&cache.alike(&anchors)), find(&all));
        for n in 0..3 {
            let address = IpAddr::from([10, 0, 0, n]);
            let searched = all.iter().find(|m| m.spec.dhcp.as_ref().is_some_and(|d| d.address == address));
            prop_assert_eq!(cache.reserved_for(address).map(|m| m.name().to_owned()), searched.map(|m| m.name().to_owned()));
        }
    }
}
