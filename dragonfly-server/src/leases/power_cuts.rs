//! Power cuts and full disks: an address that was acknowledged is its client's, whatever the disk forgot. Some of what a
//! cut leaves is opened as a file too, as a server does, and some is cut again while it is opened.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use dragonfly_boot::dhcp::{Lease, LeaseState, LeaseStore as _};
use dragonfly_core::clock::{Clock as _, Timestamp};
use dragonfly_core::testing::{Dice, ManualClock, PowerCutDisk};
use redb::{Builder, Database, Durability};

use super::RedbLeases;
use super::file::{FileError, LeaseFile, PAGE_CACHE};
use super::talk::{LEASE, Talk, address, key};

const HISTORIES: u64 = 6;
/// More clients than addresses.
const ADDRESSES: u16 = 8;
const CLIENTS: u64 = 12;
/// Of one cut that is cut again.
const MORE_CUTS: usize = 3;

fn database(disk: &PowerCutDisk) -> Result<Database, redb::Error> {
    Ok(Builder::new().set_cache_size(PAGE_CACHE).create_with_backend(disk.clone())?)
}

fn on(disk: &PowerCutDisk, durability: Durability) -> Result<RedbLeases, FileError> {
    let disk = disk.clone();
    let opener = Box::new(move || database(&disk));
    Ok(RedbLeases::start(LeaseFile::open_by(Path::new("disk"), opener, durability)?).unwrap())
}

#[derive(Debug, Clone)]
enum Event {
    /// It was told that the address is its own until then.
    Has(u16, Ipv4Addr, Timestamp),
    /// It is about to give it back.
    Leaves(Ipv4Addr),
    /// Time has passed.
    Later,
}

struct History {
    disk: PowerCutDisk,
    /// At which moment of the disk, and when.
    events: Mutex<Vec<(usize, Timestamp, Event)>>,
    clock: ManualClock,
}

impl History {
    fn note(&self, event: Event) {
        self.events.lock().unwrap().push((self.disk.moment(), self.clock.now(), event));
    }

    async fn live(seed: u64, durability: Durability, lies: bool) -> Self {
        let mut dice = Dice::new(seed);
        let made = PowerCutDisk::default();
        drop(on(&made, Durability::Immediate).unwrap());
        let disk = PowerCutDisk::holding(made.bytes());
        if lies {
            disk.lie();
        }
        let clock = ManualClock::at(Timestamp::from_unix_seconds(1_800_000_000));
        let history = Self { disk: disk.clone(), events: Mutex::default(), clock: clock.clone() };
        let store = Arc::new(on(&disk, durability).unwrap());
        let mut talk = Talk::with(store, Arc::new(clock.clone()), ADDRESSES).await.unwrap();
        for _ in 0..6 + dice.below(10) {
            disk.set_full(dice.below(8) == 0);
            let conversations: Vec<_> = (0..1 + dice.below(4))
                // Each in one conversation at a time.
                .map(|n| ((dice.below(CLIENTS / 4) * 4 + n) as u16, dice.below(4) == 0, dice.below(3) == 0))
                .collect();
            let conversations = conversations.into_iter().map(|(who, wishes, leaves)| {
                let (history, talk) = (&history, &talk);
                async move {
                    let until = history.clock.now().plus(std::time::Duration::from_secs(LEASE));
                    let Some(address) = talk.lease(who, wishes.then(|| address(0))).await else { return };
                    history.note(Event::Has(who, address, until));
                    if leaves {
                        history.note(Event::Leaves(address));
                        talk.release(who, address).await;
                    }
                }
            });
            futures_util::future::join_all(conversations).await;
            disk.set_full(false);
            clock.advance(std::time::Duration::from_secs(dice.below(1200)));
            history.note(Event::Later);
            if dice.below(6) == 0 {
                drop(talk);
                let store = Arc::new(on(&disk, durability).unwrap());
                talk = Talk::with(store, Arc::new(clock.clone()), ADDRESSES).await.unwrap();
            }
        }
        history
    }

    /// Cuts the power at every sync and between every two. Gives how many cuts there were, or what was
    /// found to be wrong.
    async fn judge(&self, seed: u64) -> Result<usize, String> {
        let mut dice = Dice::new(seed ^ 0xfeed);
        let moments = self.disk.moments(&mut dice);
        let mut cuts = moments.len();
        for moment in &moments {
            cuts += self
                .cut(*moment, &mut dice)
                .await
                .map_err(|wrong| format!("history {seed}, cut at {moment}: {wrong}"))?;
        }
        Ok(cuts)
    }

    /// Cuts the power once, and maybe again. Gives how many more times.
    async fn cut(&self, moment: usize, dice: &mut Dice) -> Result<usize, String> {
        let told = Told::until(moment, &self.events.lock().unwrap());
        let bytes = self.disk.cut(moment, dice);
        let rows = told.open(&bytes).await?;
        // A file's syncs are those of a real disk: fewer of them.
        match dice.below(24) {
            0..6 => told.again(&bytes, &rows, dice).await,
            6 => told.as_a_file(&bytes, &rows).await.map(|()| 0).map_err(|wrong| format!("as a file: {wrong}")),
            _ => Ok(0),
        }
    }
}

/// What the clients had been told at some moment.
struct Told {
    /// Whose an address is, and until when.
    holders: HashMap<Ipv4Addr, (u16, Timestamp)>,
    now: Option<Timestamp>,
}

impl Told {
    fn until(moment: usize, events: &[(usize, Timestamp, Event)]) -> Self {
        let (mut holders, mut now) = (HashMap::new(), None);
        for (_, at, event) in events.iter().filter(|(at, _, _)| *at <= moment) {
            now = Some(*at);
            match event {
                Event::Has(who, address, until) => drop(holders.insert(*address, (*who, *until))),
                Event::Leaves(address) => drop(holders.remove(address)),
                Event::Later => {}
            }
        }
        holders.retain(|_, (_, until)| now.is_some_and(|now| *until > now));
        Self { holders, now }
    }

    /// Opens what a cut left, and judges it. Gives its rows.
    async fn open(&self, bytes: &[u8]) -> Result<Vec<Lease>, String> {
        let found = PowerCutDisk::holding(bytes.to_vec());
        let store = on(&found, Durability::Immediate).map_err(|error| format!("does not open: {error:?}"))?;
        self.judge(store).await
    }

    /// Cuts the power again while what a cut left is opened, put in order and closed. Gives how many times.
    async fn again(&self, bytes: &[u8], rows: &[Lease], dice: &mut Dice) -> Result<usize, String> {
        let disk = PowerCutDisk::holding(bytes.to_vec());
        let mut opened = database(&disk).map_err(|error| format!("does not open a second time: {error:?}"))?;
        opened.check_integrity().map_err(|error| format!("is not put in order: {error:?}"))?;
        drop(opened);
        let moments = disk.some_moments(MORE_CUTS, dice);
        // It writes nothing of its own: what is there is what was.
        for moment in &moments {
            match self.open(&disk.cut(*moment, dice)).await {
                Ok(after) if after == rows => {}
                Ok(after) => return Err(format!("a second cut, at {moment}: {after:?} was {rows:?}")),
                Err(wrong) => return Err(format!("a second cut, at {moment}: {wrong}")),
            }
        }
        Ok(moments.len())
    }

    /// Opens what a cut left as a server does.
    async fn as_a_file(&self, bytes: &[u8], rows: &[Lease]) -> Result<(), String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("leases.redb");
        std::fs::write(&path, bytes).unwrap();
        let store = RedbLeases::open(&path).map_err(|error| format!("does not open: {error:?}"))?;
        let found = self.judge(store).await?;
        if found == rows { Ok(()) } else { Err(format!("{found:?} was {rows:?}")) }
    }

    /// Judges a store, and that it goes on. Gives what was in it, or what is wrong.
    async fn judge(&self, store: RedbLeases) -> Result<Vec<Lease>, String> {
        let rows = store.load().await.map_err(|error| format!("cannot be read: {error:?}"))?;
        let (Some(now), holders) = (self.now, &self.holders) else { return Ok(rows) };
        for (address, (who, until)) in holders {
            let kept = rows.iter().any(|row: &Lease| {
                row.address == *address && row.expires >= *until && row.state == LeaseState::Bound { client: key(*who) }
            });
            if !kept {
                return Err(format!("{address} was acknowledged to {who} until {until}, and there is {rows:?}"));
            }
        }
        // Whoever comes first after the restart: a stranger that wants it, or its owner.
        let talk = Talk::with(Arc::new(store), Arc::new(ManualClock::at(now)), ADDRESSES).await.unwrap();
        for (n, (address, (who, _))) in holders.iter().enumerate() {
            let stranger = 1000 + n as u16;
            if talk.lease(stranger, Some(*address)).await.is_some_and(|got| holders.contains_key(&got)) {
                return Err(format!("{address} has two clients, {who} and {stranger}"));
            }
            let got = talk.lease(*who, None).await;
            if got != Some(*address) {
                return Err(format!(
                    "{who} has lost {address} and got {got:?} at {now}; of {holders:?} there was {rows:?}"
                ));
            }
        }
        Ok(rows)
    }
}

fn histories() -> u64 {
    std::env::var("DRAGONFLY_HISTORIES").map_or(HISTORIES, |number| number.parse().unwrap())
}

#[tokio::test]
async fn no_acknowledged_lease_is_lost_in_a_power_cut() {
    let (mut cuts, mut acknowledged) = (0, 0);
    let first = std::env::var("DRAGONFLY_SEED").map_or(0, |number| number.parse().unwrap());
    for seed in first..first + histories() {
        let history = History::live(seed, Durability::Immediate, false).await;
        cuts += history.judge(seed).await.unwrap_or_else(|wrong| panic!("{wrong}"));
        let events = history.events.into_inner().unwrap();
        acknowledged += events.iter().filter(|(_, _, event)| matches!(event, Event::Has(..))).count();
    }
    assert!(acknowledged as u64 > histories() * 5, "only {acknowledged} leases were acknowledged");
    assert!(cuts as u64 > histories() * 20, "only {cuts} cuts");
    println!("{cuts} cuts in {} histories, {acknowledged} acknowledged leases, none lost", histories());
}

#[tokio::test]
async fn a_lease_file_that_does_not_sync_is_caught() {
    for (durability, lies) in [(Durability::None, false), (Durability::Immediate, true)] {
        for seed in 0..4 {
            let judged = History::live(seed, durability, lies).await.judge(seed).await;
            assert!(judged.is_err(), "history {seed}, {durability:?}: {judged:?}");
        }
    }
}

#[tokio::test]
async fn a_full_disk_gives_no_address_and_goes_on_when_there_is_room() {
    let disk = PowerCutDisk::default();
    let store = Arc::new(on(&disk, Durability::Immediate).unwrap());
    let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_800_000_000)));
    let talk = Talk::with(Arc::clone(&store) as _, clock, ADDRESSES).await.unwrap();
    let first = talk.lease(1, None).await.unwrap();
    disk.set_full(true);
    assert_eq!(talk.lease(2, None).await, None, "no address that is not kept");
    // It may be opened again already, or not yet.
    let said = match store.load().await {
        Err(error) => super::told(&error),
        Ok(rows) => super::told(&store.put(&rows[0]).await.unwrap_err()),
    };
    assert!(said.contains("make room on its disk"), "{said}");
    disk.set_full(false);
    let second = talk.lease(2, None).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(talk.lease(1, None).await, Some(first));
    assert_eq!(store.load().await.unwrap().len(), 2);
}
