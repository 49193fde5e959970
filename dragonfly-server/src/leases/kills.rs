//! A server that is killed keeps the leases that it acknowledged. `DRAGONFLY_KILLS=1000` kills more.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use dragonfly_boot::dhcp::{LeaseState, LeaseStore as _};
use dragonfly_core::clock::SystemClock;
use dragonfly_core::testing::Dice;

use super::RedbLeases;
use super::talk::{Talk, key};

const ROUNDS: u64 = 40;
/// Acknowledged before a server is killed.
const ANSWERS: usize = 12;
const ADDRESSES: u16 = 600;
/// Where the server that is killed has its file.
const FILE: &str = "DRAGONFLY_TEST_LEASE_FILE";

/// One line, whole, at once.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Not a test but the server of the one below, in a process of its own.
#[tokio::test]
#[ignore = "started by a_server_that_is_killed_keeps_what_it_acknowledged"]
async fn serve_until_killed() {
    let path = std::env::var(FILE).unwrap();
    let seed = u64::from(std::process::id());
    let store = Arc::new(RedbLeases::open(Path::new(&path)).unwrap());
    let talk = Talk::with(store, Arc::new(SystemClock), ADDRESSES).await.unwrap();
    let clients = (0..8).map(|n| {
        let (talk, mut dice) = (&talk, Dice::new(seed * 8 + n));
        async move {
            loop {
                // Each in one conversation at a time.
                let who = (dice.below(250) * 8 + n) as u16;
                if let Some(address) = talk.lease(who, None).await {
                    say(&format!("has {who} {address}"));
                    if dice.below(3) > 0 {
                        say(&format!("leaves {who} {address}"));
                        talk.release(who, address).await;
                    }
                }
            }
        }
    });
    futures_util::future::join_all(clients).await;
}

#[tokio::test]
async fn a_server_that_is_killed_keeps_what_it_acknowledged() {
    let rounds = std::env::var("DRAGONFLY_KILLS").map_or(ROUNDS, |number| number.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leases.redb");
    let mut holders: HashMap<Ipv4Addr, u16> = HashMap::new();
    let mut dice = Dice::new(u64::from(std::process::id()));
    let mut acknowledged = 0;
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "leases::kills::serve_until_killed", "--ignored", "--nocapture"])
            .env(FILE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        // One in eight is killed while it opens, and mends what the one before it left.
        let early = round % 8 == 7;
        let mut text = String::new();
        while !early && text.matches("has ").count() < ANSWERS {
            assert!(lines.read_line(&mut text).unwrap() > 0, "the server ended by itself: {text}");
        }
        std::thread::sleep(Duration::from_micros(dice.below(if early { 20_000 } else { 80_000 })));
        child.kill().unwrap();
        lines.read_to_string(&mut text).unwrap();
        child.wait().unwrap();
        // The last line may be cut.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["has", who, address] => {
                    acknowledged += 1;
                    let (who, address) = (who.parse().unwrap(), address.parse().unwrap());
                    let before = holders.insert(address, who);
                    assert!(before.is_none_or(|before| before == who), "{address} has two clients: {before:?}, {who}");
                }
                ["leaves", _, address] => drop(holders.remove(&address.parse().unwrap())),
                _ => {}
            }
        }
        let rows = RedbLeases::open(&path).unwrap().load().await.unwrap();
        for (address, who) in &holders {
            let row = rows.iter().find(|row| row.address == *address);
            let kept = row.is_some_and(|row| row.state == LeaseState::Bound { client: key(*who) });
            assert!(kept, "round {round}: {address} was acknowledged to {who}, and there is {row:?}");
        }
        // Most leave at last, so that there are addresses for the rest.
        if holders.len() > usize::from(ADDRESSES) / 2 {
            let store = Arc::new(RedbLeases::open(&path).unwrap());
            let talk = Talk::with(store, Arc::new(SystemClock), ADDRESSES).await.unwrap();
            for (address, who) in holders.drain() {
                assert_eq!(talk.lease(who, None).await, Some(address), "its owner has it again");
                talk.release(who, address).await;
            }
        }
    }
    assert!(acknowledged as u64 >= rounds * 7 / 8 * ANSWERS as u64, "only {acknowledged} leases were acknowledged");
    println!("{acknowledged} acknowledged leases, {rounds} kills, none lost");
}
