//! The safety promise where several instances share a store: no machine is wiped without an operator's own
//! authorisation, whichever of them hears whom. Three real engines stand on one store, each with a cache that lags, a
//! clock of its own and calls that are interrupted at any read or write; they are killed and started again, and now and
//! then two of them take themselves for the leader. Operators, agents and strangers talk to any of them, all at once.
//!
//! `DRAGONFLY_HISTORIES=100000` plays so many; `DRAGONFLY_SEED=7` begins elsewhere.

mod actors;
#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code, reason = "the other promise's test uses more of it")]
#[path = "../safety/machine.rs"]
mod machine;
mod oracle;
mod store;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use oracle::Seen;
use world::Wrong;

/// How many histories are played unless told.
const HISTORIES: u64 = 300;
/// How many histories a broken engine may survive.
const PATIENCE: u64 = 600;

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|e| panic!("{variable}={text}: {e}")),
        Err(_) => default,
    }
}

/// Plays histories on every core until one breaks the promise or `most` are done.
fn search(wrong: Wrong, first: u64, most: u64) -> (Vec<Seen>, Option<(u64, String)>) {
    let workers = std::thread::available_parallelism().map_or(2, usize::from) as u64;
    let (next, found, all) = (AtomicU64::new(0), Mutex::new(None::<(u64, String)>), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..workers.min(most) {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= most {
                        return;
                    }
                    let (seen, broken) = world::play(first + n, wrong);
                    all.lock().expect("no worker panics while it holds this").push(seen);
                    if let Some(broken) = broken {
                        next.store(most, Ordering::Relaxed);
                        let mut found = found.lock().expect("no worker panics while it holds this");
                        if found.as_ref().is_none_or(|(seed, _)| first + n < *seed) {
                            *found = Some((first + n, broken));
                        }
                    }
                }
            });
        }
    });
    (all.into_inner().expect("checked"), found.into_inner().expect("checked"))
}

#[test]
fn no_history_breaks_the_promise() {
    let (most, first) = (number("DRAGONFLY_HISTORIES", HISTORIES), number("DRAGONFLY_SEED", 0));
    let (all, found) = search(Wrong::No, first, most);
    if let Some((seed, broken)) = found {
        panic!("seed {seed}: {broken}");
    }
    assert_eq!(all.len() as u64, most);
    let sum = |what: fn(&Seen) -> u64| all.iter().map(what).sum::<u64>();
    let counts = [
        ("calls", sum(|s| s.calls)),
        ("calls that were cut off", sum(|s| s.cut)),
        ("instances killed", sum(|s| s.killed)),
        ("authorisations", sum(|s| s.granted)),
        ("attempts begun", sum(|s| s.begun)),
        ("wipes", sum(|s| s.wiped)),
        ("installed", sum(|s| s.installed)),
        ("agents stopped", sum(|s| s.stopped)),
        ("second agents refused", sum(|s| s.refused)),
        ("moments with two leaders", sum(|s| s.two_leaders)),
        ("words said to two at once", sum(|s| s.doubled)),
    ];
    for (what, count) in counts {
        println!("{count:>10} {what}");
        assert!(count >= most / 10, "{what}: {count} in {most} histories; this test proves too little");
    }
}

#[test]
fn engines_that_do_not_heed_each_other_are_caught() {
    for wrong in [Wrong::EachAlone, Wrong::NoLastLook] {
        let (_, found) = search(wrong, 1 << 32, PATIENCE);
        let (seed, told) = found.unwrap_or_else(|| panic!("{wrong:?} survived {PATIENCE} histories"));
        println!("{wrong:?}: caught after {} histories: {told}", seed - (1 << 32) + 1);
    }
}
