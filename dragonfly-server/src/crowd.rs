//! Who leaves when every place is taken: whoever has the most connections, and of those the ones that
//! only wait.
//!
//! No address has a fixed share: a whole rack may stand behind one. But while there are more callers
//! than places, the fullest address gives way first, so that a machine that boots gets in beside
//! somebody who opens ten thousand connections and says nothing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// All connections that are open.
#[derive(Debug, Clone, Default)]
pub(crate) struct Crowd {
    guests: Arc<Mutex<Guests>>,
}

#[derive(Debug, Default)]
struct Guests {
    next: u64,
    inside: HashMap<u64, Inside>,
}

#[derive(Debug)]
struct Inside {
    peer: IpAddr,
    answering: Arc<AtomicUsize>,
    leave: CancellationToken,
}

/// One connection. It is out when this is dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    crowd: Crowd,
    id: u64,
    answering: Arc<AtomicUsize>,
    leave: CancellationToken,
}

/// An answer that is under way on a connection.
#[derive(Debug)]
pub(crate) struct Answering(Arc<AtomicUsize>);

impl Crowd {
    /// Lets a connection in.
    pub(crate) fn enter(&self, peer: IpAddr) -> Guest {
        let (answering, leave) = (Arc::<AtomicUsize>::default(), CancellationToken::new());
        let mut guests = self.guests();
        let id = guests.next;
        guests.next += 1;
        let inside = Inside { peer: host(peer), answering: Arc::clone(&answering), leave: leave.clone() };
        guests.inside.insert(id, inside);
        drop(guests);
        Guest { crowd: self.clone(), id, answering, leave }
    }

    /// Asks some to leave, a few at a time so that it need not be asked for each.
    pub(crate) fn make_room(&self, places: usize) {
        let guests = self.guests();
        let all: Vec<Standing> = guests
            .inside
            .iter()
            // Who has been asked already makes room by himself.
            .filter(|(_, inside)| !inside.leave.is_cancelled())
            .map(|(id, inside)| Standing {
                id: *id,
                peer: inside.peer,
                answering: inside.answering.load(Ordering::Relaxed) > 0,
            })
            .collect();
        for id in leaving(all, (places / 64).max(1)) {
            if let Some(inside) = guests.inside.get(&id) {
                inside.leave.cancel();
            }
        }
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// Somebody else needs the place.
    pub(crate) async fn must_leave(&self) {
        self.leave.cancelled().await;
    }

    /// What to hold while it is being answered.
    pub(crate) fn answers(&self) -> impl Fn() -> Answering + Clone + use<> {
        let answering = Arc::clone(&self.answering);
        move || {
            answering.fetch_add(1, Ordering::Relaxed);
            Answering(Arc::clone(&answering))
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.crowd.guests().inside.remove(&self.id);
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection as the choice sees it. A lower `id` has been there for longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    id: u64,
    peer: IpAddr,
    answering: bool,
}

/// Which `count` connections leave: from the addresses that have the most, until they have no more than
/// others; of each address first those that are not being answered, and of those the oldest.
fn leaving(mut all: Vec<Standing>, count: usize) -> Vec<u64> {
    all.sort_unstable_by_key(|one| (one.answering, one.id));
    let mut left: HashMap<IpAddr, usize> = HashMap::new();
    for one in &all {
        *left.entry(one.peer).or_default() += 1;
    }
    let mut ranked: Vec<_> = all
        .into_iter()
        .map(|one| {
            // How many its address has while this one is the next of them to leave.
            let has = left.entry(one.peer).or_default();
            let rank = (std::cmp::Reverse(*has), one.answering, one.id);
            *has = has.saturating_sub(1);
            rank
        })
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().take(count).map(|(_, _, id)| id).collect()
}

/// What counts as one address: of IPv6 the network, of which a host may take any address.
pub(crate) fn host(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(id: u64, peer: u8, answering: bool) -> Standing {
        Standing { id, peer: IpAddr::from([10, 0, 0, peer]), answering }
    }

    #[test]
    fn the_fullest_address_gives_way_and_its_silent_connections_first() {
        let all = vec![
            standing(1, 1, false),
            standing(2, 9, true),
            standing(3, 9, false),
            standing(4, 9, false),
            standing(5, 2, false),
            standing(6, 9, true),
        ];
        assert_eq!(leaving(all.clone(), 2), [3, 4]);
        // Down to the others' level, where the oldest goes that is silent.
        assert_eq!(leaving(all.clone(), 4), [3, 4, 2, 1]);
        assert_eq!(leaving(all.clone(), 100).len(), 6);
        assert_eq!(leaving(Vec::new(), 3), [0; 0]);
    }

    #[test]
    fn one_host_is_one_address_however_many_it_takes() {
        assert_eq!(host("2001:db8::1".parse().unwrap()), host("2001:db8::2:3".parse().unwrap()));
        assert_ne!(host("2001:db8::1".parse().unwrap()), host("2001:db8:0:1::1".parse().unwrap()));
        assert_eq!(host("10.0.0.1".parse().unwrap()), IpAddr::from([10, 0, 0, 1]));
    }

    #[tokio::test]
    async fn who_is_answered_stays_while_others_of_its_address_wait() {
        let crowd = Crowd::default();
        let peer = IpAddr::from([10, 0, 0, 1]);
        let (busy, silent) = (crowd.enter(peer), crowd.enter(peer));
        let answer = busy.answers()();
        crowd.make_room(2);
        silent.must_leave().await;
        assert!(!busy.leave.is_cancelled());
        drop((answer, silent));
        crowd.make_room(2);
        busy.must_leave().await;
        drop(busy);
        assert!(crowd.guests().inside.is_empty());
    }
}
