use std::cell::Cell;

use dragonfly_core::resource::network::Pool;
use proptest::prelude::*;

use super::choose::fnv;
use super::*;
use crate::dhcp::segment::{Mode, Segment};
use crate::dhcp::tests::segment;

fn client(n: u8) -> ClientKey {
    ClientKey::of_mac(Mac::new([2, 0, 0, 0, 0, n]))
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(1_800_000_000 + seconds)
}

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

fn ask(book: &mut LeaseBook, segment: &Segment, who: u8, asked: Option<Ipv4Addr>, now: i64) -> Standing {
    let query = Query { segment, client: &client(who), reservation: None, asked, now: at(now) };
    book.standing(query, |_| None)
}

#[test]
fn a_machine_keeps_its_address_over_offer_lease_release_and_loss() {
    let segment = segment(Mode::Full);
    let mut book = LeaseBook::default();
    let address = ask(&mut book, &segment, 1, None, 0).candidate.unwrap();
    book.offer(address, &client(1), at(0));
    assert_eq!(ask(&mut book, &segment, 1, None, 1).held, Some(address));
    book.bind(address, &client(1), at(3600));
    assert_eq!(ask(&mut book, &segment, 1, None, 60).held, Some(address));
    assert_eq!(book.holder(address, at(60)), Some(Mac::new([2, 0, 0, 0, 0, 1])));
    let row = book.release(address, &client(1), at(100)).unwrap();
    assert_eq!((row.expires, book.holder(address, at(100))), (at(100), None));
    let standing = ask(&mut book, &segment, 1, Some(ip(199)), 200);
    assert_eq!((standing.held, standing.candidate), (None, Some(address)));
    assert_eq!(ask(&mut LeaseBook::default(), &segment, 1, None, 0).candidate, Some(address));
}

#[test]
fn of_several_addresses_on_record_the_one_given_last_is_a_machines() {
    let segment = segment(Mode::Full);
    let row =
        |last, until| Lease { address: ip(last), expires: at(until), state: LeaseState::Bound { client: client(1) } };
    let rows = [row(120, 300), row(110, 500), row(130, 400)];
    for first in 0..rows.len() {
        let mut rows = rows.to_vec();
        rows.rotate_left(first);
        let mut book = LeaseBook::from_rows(rows);
        for (now, held) in [(0, Some(ip(110))), (450, Some(ip(110))), (600, None)] {
            let standing = ask(&mut book, &segment, 1, None, now);
            assert_eq!((standing.held, standing.candidate), (held, Some(ip(110))), "at {now}, from {first}");
        }
    }
}

#[test]
fn a_reservation_is_its_owners_alone() {
    let segment = segment(Mode::Full);
    let mut book = LeaseBook::default();
    let owner = Mac::new([2, 0, 0, 0, 0, 9]);
    let reserved = |a: Ipv4Addr| (a == ip(150)).then_some(owner);
    let mut ask = |who, reservation| {
        let query = Query { segment: &segment, client: &client(who), reservation, asked: Some(ip(150)), now: at(0) };
        book.standing(query, reserved)
    };
    assert_eq!(ask(9, Some(ip(150))).candidate, Some(ip(150)));
    let other = ask(1, None);
    assert!(!other.asked_is_free && other.candidate.is_some_and(|a| a != ip(150)));
    // Outside the pool, and where no pool is.
    assert_eq!(ask(9, Some(ip(20))).candidate, Some(ip(20)));
    // One that cannot be used here counts as none.
    let elsewhere = ask(9, Some(Ipv4Addr::new(192, 168, 9, 9))).candidate;
    assert!(elsewhere.is_some_and(|a| segment.pooled(a)));
}

#[test]
fn a_pool_ends_and_begins_again() {
    let segment = segment(Mode::Full);
    let mut book = LeaseBook::default();
    for n in 0..100 {
        let address = ask(&mut book, &segment, n, None, 0).candidate.unwrap();
        book.bind(address, &client(n), at(100 + i64::from(n)));
    }
    assert_eq!(ask(&mut book, &segment, 200, None, 0).candidate, None);
    let again = ask(&mut book, &segment, 200, None, 100).candidate;
    assert_eq!(again, ask(&mut book, &segment, 0, None, 99).held, "the only one that has expired");
}

#[test]
fn offers_that_nobody_takes_keep_no_machine_out() {
    let segment = segment(Mode::Full);
    let mut book = LeaseBook::default();
    // A machine is offered an address, and before it accepts, strangers are offered all of them, twice.
    let offered = ask(&mut book, &segment, 250, None, 0).candidate.unwrap();
    book.offer(offered, &client(250), at(0));
    for n in 0..200 {
        let address = ask(&mut book, &segment, n, None, 1).candidate.unwrap();
        book.offer(address, &client(n), at(1));
        assert!(book.offers.len() <= 100 && book.by_age.len() == book.offers.len());
        assert!(book.offer_of.len() == book.offers.len());
    }
    assert_eq!(ask(&mut book, &segment, 250, None, 2).held, None, "a stranger has been offered it since");
    assert!(ask(&mut book, &segment, 250, Some(offered), 2).asked_is_free, "but nobody has taken it");
    book.bind(offered, &client(250), at(3600));
    assert_eq!(ask(&mut book, &segment, 250, None, 3).held, Some(offered));
    for n in 0..200 {
        let standing = ask(&mut book, &segment, n, Some(offered), 3);
        assert!(!standing.asked_is_free && standing.held != Some(offered) && standing.candidate != Some(offered));
    }
    // A lease is never taken for it, nor what is kept for another.
    let reserved = |a: Ipv4Addr| (a == ip(150)).then_some(Mac::new([2, 0, 0, 0, 0, 251]));
    let query = Query { segment: &segment, client: &client(249), reservation: None, asked: None, now: at(3) };
    for _ in 0..100 {
        let address = book.standing(query, reserved).candidate.unwrap();
        assert!(address != offered && address != ip(150));
        book.offer(address, &client(249), at(3));
    }
}

#[test]
fn what_somebody_else_uses_is_left_alone_for_a_while() {
    let segment = segment(Mode::Full);
    let mut book = LeaseBook::default();
    let address = ask(&mut book, &segment, 1, None, 0).candidate.unwrap();
    book.offer(address, &client(1), at(0));
    book.quarantine(address, at(0));
    let standing = ask(&mut book, &segment, 1, Some(address), 1);
    assert!(standing.held.is_none() && !standing.asked_is_free && standing.candidate != Some(address));
    assert!(ask(&mut book, &segment, 1, Some(address), 4000).asked_is_free);
}

fn big(n: u16) -> Ipv4Addr {
    let [high, low] = n.to_be_bytes();
    Ipv4Addr::new(10, 1, high, low)
}

/// A pool of as many addresses and one, and a book in which each is leased until then, if it is.
fn full(last: u16, until: impl Fn(u16) -> Option<i64>) -> (Segment, LeaseBook) {
    let mut segment = segment(Mode::Full);
    segment.spec.subnet = "10.0.0.0/8".parse().unwrap();
    segment.spec.pool = Some(Pool { start: big(0), end: big(last) });
    let row = |n: u16| {
        let [high, low] = n.to_be_bytes();
        let client = ClientKey::of_mac(Mac::new([2, 1, 0, 0, high, low]));
        Some(Lease { address: big(n), expires: at(until(n)?), state: LeaseState::Bound { client } })
    };
    (segment, LeaseBook::from_rows((0..=last).filter_map(row).collect()))
}

/// What is offered to a stranger, and how many addresses were looked at for it.
fn discover(
    book: &mut LeaseBook,
    segment: &Segment,
    who: u8,
    now: i64,
    reserved: impl Fn(u16) -> bool,
) -> (Option<u16>, usize) {
    let looks = Cell::new(0);
    let query = Query { segment, client: &client(who), reservation: None, asked: None, now: at(now) };
    let standing = book.standing(query, |a| {
        looks.set(looks.get() + 1);
        let [_, _, high, low] = a.octets();
        reserved(u16::from_be_bytes([high, low])).then_some(Mac::new([2, 9, 9, 9, 9, 9]))
    });
    let [_, _, high, low] = standing.candidate.unwrap_or(Ipv4Addr::UNSPECIFIED).octets();
    (standing.candidate.map(|_| u16::from_be_bytes([high, low])), looks.get())
}

#[test]
fn a_full_large_pool_costs_few_looks() {
    type Case = (&'static str, fn(u16) -> Option<i64>, fn(u16) -> bool, usize, Option<u16>);
    // How many messages it takes at most until one is found, and which.
    let cases: [Case; 7] = [
        ("all leased", |_| Some(100), |_| false, 20, None),
        ("one never used", |n| (n != 40_000).then_some(100), |_| false, 1, Some(40_000)),
        ("one expired", |n| Some(if n == 50_000 { 0 } else { 100 }), |_| false, 1, Some(50_000)),
        ("all expired", |n| Some(-i64::from(n ^ 0x1234)), |_| false, 1, Some(!0x1234)),
        ("kept for others but one", |_| None, |n| n != 7, 65536 / 40, Some(7)),
        ("expired and kept for others", |n| Some(i64::from(n) - 70_000), |n| n < 5000, 5000 / 40, Some(5000)),
        ("all kept for others", |n| Some(i64::from(n) - 70_000), |_| true, 20, None),
    ];
    for (name, until, reserved, most, want) in cases {
        let (segment, mut book) = full(u16::MAX, until);
        let tried = (0..most).map(|_| discover(&mut book, &segment, 1, 1, reserved));
        let tried: Vec<_> = tried.collect();
        let worst = tried.iter().map(|(_, looks)| *looks).max();
        assert!(worst <= Some(256), "{name}: {worst:?}");
        let found = tried.iter().find_map(|(found, _)| *found);
        assert_eq!(found, want, "{name}");
    }
}

#[test]
fn a_flood_over_a_large_pool_costs_few_looks_and_ends() {
    for used in [None, Some(0), Some(100)] {
        let (segment, mut book) = full(4095, |n| if n < 3000 { used } else { None });
        let mut given = HashMap::new();
        for n in 0..5000u32 {
            let [_, a, b, c] = n.to_be_bytes();
            let who = ClientKey::of_mac(Mac::new([2, 5, 0, a, b, c]));
            let now = at(1).plus(Duration::from_micros(u64::from(n) * 100));
            let looks = Cell::new(0);
            let query = Query { segment: &segment, client: &who, reservation: None, asked: None, now };
            let standing = book.standing(query, |_| {
                looks.set(looks.get() + 1);
                None
            });
            assert!(looks.get() <= 256, "{n}: {}", looks.get());
            let address = standing.candidate.unwrap();
            *given.entry(address).or_insert(0) += 1;
            book.offer(address, &who, now);
        }
        // Each of those that may be given is given once before any is given twice.
        let free = if used == Some(100) { 1096 } else { 4096 };
        let often = 5000_usize.div_ceil(free);
        assert!(given.len() == free && given.values().all(|count| *count <= often), "{used:?}");
        // They lapse, and somebody gets the first again that nobody has had.
        for _ in 0..300 {
            book.sweep(at(60));
        }
        assert!(book.offers.is_empty() && book.offer_of.is_empty() && book.by_age.is_empty());
        let (found, _) = discover(&mut book, &segment, 1, 60, |_| false);
        assert!(found.is_some_and(|n| book.row(big(n)).is_none()), "{used:?}");
    }
}

#[test]
fn one_that_leases_the_whole_pool_costs_no_more() {
    let (segment, mut book) = full(u16::MAX, |_| None);
    for n in 0..=u16::MAX {
        book.bind(big(n), &client(1), at(100 + i64::from(n)));
    }
    let (found, looks) = discover(&mut book, &segment, 1, 1, |_| false);
    assert_eq!((found, looks), (Some(u16::MAX), 1), "the one leased last is held, and offered");
    let (found, looks) = discover(&mut book, &segment, 1, 100_000, |n| n > 100);
    assert!(found.is_some_and(|n| n <= 100) && looks <= 256, "{looks}");
}

/// The rule as it was, address by address.
fn walked(book: &LeaseBook, segment: &Segment, who: &ClientKey, now: Timestamp) -> Option<Ipv4Addr> {
    let first = (fnv(who.as_bytes()) % 100) as u8;
    let all = || (0..100).map(|n| ip(100 + (first + n) % 100)).filter(|a| segment.pooled(*a));
    let free = || all().filter(|a| book.is_free_for(*a, who, now));
    let mut old: Vec<_> = book.offers.iter().map(|(a, offer)| (offer.expires, *a)).collect();
    old.sort_unstable();
    let mut offered = old.into_iter().map(|(_, a)| a).filter(|a| segment.pooled(*a) && !book.is_leased(*a, now));
    free().find(|a| !book.rows.contains_key(a)).or_else(|| free().next()).or_else(|| offered.next())
}

proptest! {
    /// What is kept to find an address says what the rows and offers say, and a small pool is given as it was.
    #[test]
    fn the_index_agrees_and_small_pools_are_as_before(
        steps in prop::collection::vec((0u8..=255, 0u8..7, 0u8..=255, 0i64..9), 1..400),
    ) {
        let segment = segment(Mode::Full);
        let (mut book, mut now) = (LeaseBook::default(), 0);
        for (who, what, last, wait) in steps {
            now += wait;
            // Some addresses of each kind outside the pool.
            let address = ip(last / 2 + 90);
            match what {
                0..3 => if let Some(address) = ask(&mut book, &segment, who, None, now).candidate {
                    book.offer(address, &client(who), at(now));
                },
                3 => drop(book.bind(address, &client(who), at(now + i64::from(last)))),
                4 => drop(book.release(address, &client(who), at(now))),
                5 => drop(book.quarantine(address, at(now - 3590))),
                _ => book.erase(address),
            }
            let stranger = ClientKey::of_mac(Mac::new([2, 7, 0, 0, who, last]));
            let query = Query { segment: &segment, client: &stranger, reservation: None, asked: None, now: at(now) };
            let want = walked(&book, &segment, &stranger, at(now));
            prop_assert_eq!(book.standing(query, |_| None).candidate, want);
            let mut anew = LeaseBook::from_rows(book.rows().cloned().collect());
            prop_assert_eq!(&anew.of_client, &book.of_client);
            for (address, offer) in &book.offers {
                anew.unshelve(*address);
                let Offer { client, expires, contested } = offer;
                let offer = Offer { client: client.clone(), expires: *expires, contested: *contested };
                anew.offers.insert(*address, offer);
                anew.shelve(*address);
            }
            prop_assert!(anew.shelves.same(&book.shelves));
        }
    }

    /// Whatever happens in whatever order, and over restarts, no address has two holders.
    #[test]
    fn one_address_one_holder(steps in prop::collection::vec((0u8..12, 0u8..6, 0i64..50), 1..120)) {
        let segment = segment(Mode::Full);
        let mut book = LeaseBook::default();
        let mut holders: HashMap<Ipv4Addr, (u8, i64)> = HashMap::new();
        let mut now = 0;
        for (who, what, wait) in steps {
            now += wait;
            let standing = ask(&mut book, &segment, who, None, now);
            match what {
                0 | 1 => if let Some(address) = standing.candidate {
                    book.offer(address, &client(who), at(now));
                },
                2 | 3 => if let Some(address) = standing.held {
                    if let Some((holder, until)) = holders.get(&address) {
                        prop_assert!(*holder == who || *until <= now, "{address} has two holders");
                    }
                    book.bind(address, &client(who), at(now + 100));
                    holders.insert(address, (who, now + 100));
                },
                4 => if let Some(address) = standing.held
                    && book.release(address, &client(who), at(now)).is_some()
                {
                    holders.remove(&address);
                },
                _ => book = LeaseBook::from_rows(book.rows().cloned().collect()),
            }
        }
    }
}
