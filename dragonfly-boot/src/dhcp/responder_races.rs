//! Messages about one address that come side by side, while the store is slow and fails.

use std::collections::HashMap;
use std::sync::Condvar;
use std::sync::atomic::Ordering;

use super::super::lease::LeaseState;
use super::super::segment::Mode;
use super::super::tests::segment;
use super::tests::{Bench, Now, Store, discover, from, mac};
use super::*;

const SERVER: [u8; 4] = [10, 0, 0, 1];

fn request(who: u8, address: Ipv4Addr) -> Vec<u8> {
    from(who, &[(53, &[3]), (54, &SERVER), (50, &address.octets())])
}

fn decline(who: u8, address: Ipv4Addr) -> Vec<u8> {
    from(who, &[(53, &[4]), (54, &SERVER), (50, &address.octets())])
}

fn release(who: u8, address: Ipv4Addr) -> Vec<u8> {
    let mut release = from(who, &[(53, &[7]), (54, &SERVER)]);
    release[12..16].copy_from_slice(&address.octets());
    release
}

fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

impl Bench {
    /// Says something and tells whether it was acknowledged.
    async fn acknowledges(&self, message: &[u8]) -> bool {
        self.say(message, false).await.is_some_and(|(answer, _)| answer.kind == Kind::Ack)
    }

    fn fates(&self, fates: impl IntoIterator<Item = (Duration, bool)>) {
        self.store.fates.lock().unwrap().extend(fates);
    }

    /// The client that has an address, in memory and in the store.
    async fn has(&self, address: Ipv4Addr, who: u8) -> bool {
        let bound = LeaseState::Bound { client: ClientKey::of_mac(mac(who)) };
        let rows = self.store.rows.load().await.unwrap();
        let kept = rows.iter().any(|row| row.address == address && row.state == bound);
        kept && self.responder.holder(address) == Some(mac(who))
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_request_that_comes_twice_one_that_fails_does_not_undo_one_that_is_kept() {
    for formerly_anothers in [false, true] {
        for (first, second) in [(10, 30), (30, 10), (10, 10)] {
            let bench = Bench::new(Mode::Full, discover()).await;
            let address = Ipv4Addr::new(10, 0, 0, 150);
            if formerly_anothers {
                assert!(bench.acknowledges(&request(9, address)).await);
                bench.pass(2 * 3600);
            }
            bench.fates([(millis(first), false), (millis(second), true)]);
            let message = request(1, address);
            let (a, b) = tokio::join!(bench.acknowledges(&message), bench.acknowledges(&message));
            let case = format!("{formerly_anothers} {first} {second}");
            assert!(!a && b, "{case}: what the store refused is not acknowledged, what it took is");
            assert!(bench.has(address, 1).await, "{case}: it was acknowledged");
            assert!(!bench.acknowledges(&request(2, address)).await, "{case}: it is given to another");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn where_both_fail_nothing_is_left() {
    for (first, second) in [(10, 30), (30, 10), (10, 10)] {
        let bench = Bench::new(Mode::Full, discover()).await;
        let address = Ipv4Addr::new(10, 0, 0, 150);
        assert!(bench.acknowledges(&request(9, address)).await);
        bench.pass(2 * 3600);
        let before = bench.responder.book().row(address).cloned();
        bench.fates([(millis(first), false), (millis(second), false)]);
        let message = request(1, address);
        let (a, b) = tokio::join!(bench.acknowledges(&message), bench.acknowledges(&message));
        assert!(!a && !b);
        assert_eq!(bench.responder.book().row(address).cloned(), before, "{first} {second}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_for_one_address_share_a_write() {
    let bench = Bench::new(Mode::Full, discover()).await;
    let message = request(1, Ipv4Addr::new(10, 0, 0, 150));
    bench.fates([(millis(10), true), (millis(10), true)]);
    let all = futures_util::future::join_all((0..5).map(|_| bench.acknowledges(&message))).await;
    assert_eq!(all, [true; 5]);
    assert_eq!(bench.store.writes.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn who_floods_one_address_has_no_more_than_a_few_answered() {
    let bench = Bench::new(Mode::Full, discover()).await;
    let address = Ipv4Addr::new(10, 0, 0, 150);
    let all = [request(1, address), release(1, address)];
    bench.fates((0..1000).map(|_| (millis(10), true)));
    assert!(bench.acknowledges(&all[0]).await);
    futures_util::future::join_all((0..1000).map(|n| bench.acknowledges(&all[n % 2]))).await;
    assert!(bench.store.writes.load(Ordering::Relaxed) < 20);
    assert!(bench.acknowledges(&all[0]).await, "and goes on afterwards");
}

#[tokio::test(start_paused = true)]
async fn what_is_declined_or_given_back_during_a_renewal_stays_so() {
    for (message, name) in [(decline as fn(u8, Ipv4Addr) -> Vec<u8>, "decline"), (release, "release")] {
        for fates in [[true, true], [false, true], [true, false]] {
            let bench = Bench::new(Mode::Full, discover()).await;
            let address = bench.lease(1).await.unwrap();
            bench.pass(60);
            bench.fates(fates.map(|succeeds| (millis(10), succeeds)));
            let (renew, end) = (request(1, address), message(1, address));
            let (renewed, silent) = tokio::join!(bench.acknowledges(&renew), bench.acknowledges(&end));
            let case = format!("{name} {fates:?}");
            assert!(renewed == fates[0] && !silent, "{case}");
            let row = bench.responder.book().row(address).cloned().unwrap();
            let ended = match row.state {
                LeaseState::Quarantined => name == "decline",
                LeaseState::Bound { .. } => name == "release" && row.expires <= bench.responder.clock.now(),
            };
            assert!(ended, "{case}: {row:?}");
            if fates[1] {
                assert_eq!(bench.store.rows.load().await.unwrap(), [row], "{case}");
            }
        }
    }
}

/// Holds whoever asks until another has asked too, or for a while.
#[derive(Debug, Default)]
struct Meeting {
    came: Mutex<u32>,
    both: Condvar,
}

impl BootObserver for Meeting {
    fn saw(&self, sighting: Sighting) {
        if sighting.seen.kind() == "dhcp.request" {
            let mut came = self.came.lock().unwrap();
            *came += 1;
            self.both.notify_all();
            drop(self.both.wait_timeout_while(came, millis(300), |came| *came < 2).unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_clients_that_are_judged_side_by_side_one_has_the_address() {
    let (store, files) = (Arc::new(Store::default()), Arc::new(BootFiles::new("/nonexistent")));
    let (provider, clock) = (Arc::new(discover()), Arc::new(Now(Mutex::new(1_800_000_000))));
    let responder = Responder::load(provider, store.clone(), Arc::new(Meeting::default()), clock, files, None).await;
    let (responder, address) = (Arc::new(responder.unwrap()), Ipv4Addr::new(10, 0, 0, 150));
    let asks = [1, 2].map(|who| {
        let responder = responder.clone();
        tokio::spawn(async move {
            let packet = Packet::decode(&request(who, address)).unwrap();
            let (segment, source) = (segment(Mode::Full), SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68));
            let arrival = Arrival { boot_server_port: false, unicast: false };
            let received = Received { packet: &packet, segment: &segment, source, arrival };
            let (answer, _) = responder.answer(received).await?;
            (Packet::decode(&answer).unwrap().kind == Kind::Ack).then(|| mac(who))
        })
    });
    let mut holders = Vec::new();
    for ask in asks {
        holders.extend(ask.await.unwrap());
    }
    assert_eq!(holders.len(), 1, "{holders:?}");
    assert_eq!(responder.holder(address), Some(holders[0]));
    let rows = store.rows.load().await.unwrap();
    assert_eq!(rows[0].state, LeaseState::Bound { client: ClientKey::of_mac(holders[0]) });
}

/// Numbers that look random and are the same for a seed.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % most
    }
}

/// Clients that ask, renew, repeat themselves, give back and decline, of a pool that is too small for them and a
/// store that fails every third time: nobody is told that he has what another has, and who was told so has it.
#[tokio::test(start_paused = true)]
async fn whoever_was_acknowledged_has_his_address_whatever_fails_beside_it() {
    let mut acknowledged = 0;
    for seed in 0..60 {
        let mut bench = Bench::new(Mode::Full, discover()).await;
        let pool = bench.segment.spec.pool.as_mut().unwrap();
        pool.end = Ipv4Addr::from(u32::from(pool.start) + 2);
        let start = pool.start;
        let mut dice = Dice::new(seed);
        bench.fates((0..400).map(|_| (millis(dice.below(20)), dice.below(3) > 0)));
        let (bench, holders) = (&bench, &Mutex::new(HashMap::<Ipv4Addr, u8>::new()));
        let clients = (1..=5).map(|who| {
            let mut dice = Dice::new(seed * 8 + u64::from(who));
            async move {
                let mut acknowledged = 0;
                let mut mine = None;
                for _ in 0..12 {
                    tokio::time::sleep(millis(dice.below(15))).await;
                    match (mine, dice.below(4)) {
                        (Some(address), end @ 0..2) => {
                            holders.lock().unwrap().remove(&address);
                            mine = None;
                            let end = if end == 0 && dice.below(8) == 0 { decline } else { release };
                            bench.say(&end(who, address), false).await;
                        }
                        _ => {
                            let wish = Ipv4Addr::from(u32::from(start) + dice.below(3) as u32);
                            let wish = mine.unwrap_or(wish);
                            let ask = request(who, wish);
                            let again = millis(dice.below(8));
                            let ask = async |after: Duration| {
                                tokio::time::sleep(after).await;
                                if bench.acknowledges(&ask).await {
                                    let other = holders.lock().unwrap().insert(wish, who);
                                    assert!(other.is_none_or(|other| other == who), "seed {seed}: {wish} has two");
                                    return true;
                                }
                                false
                            };
                            let (first, second) = tokio::join!(ask(Duration::ZERO), ask(again));
                            if first || second {
                                mine = Some(wish);
                                acknowledged += 1;
                            }
                        }
                    }
                }
                acknowledged
            }
        });
        acknowledged += futures_util::future::join_all(clients).await.into_iter().sum::<u32>();
        let holders = holders.lock().unwrap().clone();
        for (address, who) in holders {
            assert!(bench.has(address, who).await, "seed {seed}: {address} was acknowledged to {who}");
        }
    }
    assert!(acknowledged > 200, "{acknowledged}");
}
