//! What is held of bodies that are being read, of all callers together.
//!
//! Each route bounds the body of one request, but thousands may be sent at once, and whoever can boot from the network
//! can have a session that is let in. So there is one bound to all of them: when it is reached, the address that holds
//! the most gives way first, its oldest body before the others, so that a machine that says hello is heard beside somebody
//! who sends a thousand bodies and ends none.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::crowd::host;

/// The most that is held of all bodies, in bytes.
pub(crate) const MOST: usize = 64 * 1024 * 1024;

/// All bodies that are being read, or that a handler works with. A clone is the same.
#[derive(Debug, Clone)]
pub(crate) struct Bodies {
    all: Arc<Mutex<All>>,
    most: usize,
}

#[derive(Debug, Default)]
struct All {
    next: u64,
    /// What all hold together, less those that have been told to leave.
    held: usize,
    each: BTreeMap<u64, One>,
}

#[derive(Debug)]
struct One {
    peer: Option<IpAddr>,
    bytes: usize,
    state: State,
    leave: CancellationToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Arriving,
    /// A handler has it: it ends by itself.
    Whole,
    Leaving,
}

/// One body. It is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    bodies: Bodies,
    id: u64,
    leave: CancellationToken,
}

/// There is no room for it beside those of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoRoom;

impl Bodies {
    /// None yet, and so many bytes at most.
    pub(crate) fn new(most: usize) -> Self {
        Self { all: Arc::default(), most }
    }

    /// A body that begins to arrive.
    pub(crate) fn begin(&self, peer: Option<IpAddr>) -> Held {
        let leave = CancellationToken::new();
        let mut all = self.all();
        let id = all.next;
        all.next += 1;
        let one = One { peer: peer.map(host), bytes: 0, state: State::Arriving, leave: leave.clone() };
        all.each.insert(id, one);
        drop(all);
        Held { bodies: self.clone(), id, leave }
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// It takes so many bytes from now on; others may have to leave for it.
    ///
    /// # Errors
    /// `NoRoom` when it is the one that has to leave.
    pub(crate) fn takes(&self, bytes: usize) -> Result<(), NoRoom> {
        let mut all = self.bodies.all();
        let Some(one) = all.each.get_mut(&self.id) else { return Ok(()) };
        if one.state == State::Leaving {
            return Err(NoRoom);
        }
        let before = std::mem::replace(&mut one.bytes, bytes);
        all.held = (all.held + bytes).saturating_sub(before);
        if all.held <= self.bodies.most {
            return Ok(());
        }
        // More than has to, so that it need not be chosen for every packet.
        let over = all.held - self.bodies.most / 8 * 7;
        let arriving = all.each.iter().filter(|(_, one)| one.state == State::Arriving);
        let arriving = arriving.map(|(id, one)| Standing { id: *id, peer: one.peer, bytes: one.bytes }).collect();
        let go = leaving(arriving, over);
        for id in &go {
            if let Some(one) = all.each.get_mut(id) {
                one.state = State::Leaving;
                one.leave.cancel();
                all.held -= one.bytes;
            }
        }
        if go.contains(&self.id) { Err(NoRoom) } else { Ok(()) }
    }

    /// All of it is there, and a handler has it.
    pub(crate) fn is_whole(&self) {
        if let Some(one) = self.bodies.all().each.get_mut(&self.id)
            && one.state == State::Arriving
        {
            one.state = State::Whole;
        }
    }

    /// Somebody else needs the room.
    pub(crate) async fn must_leave(&self) {
        self.leave.cancelled().await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut all = self.bodies.all();
        if let Some(one) = all.each.remove(&self.id)
            && one.state != State::Leaving
        {
            all.held -= one.bytes;
        }
    }
}

/// A body as the choice sees it. A lower `id` has been arriving for longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    id: u64,
    peer: Option<IpAddr>,
    bytes: usize,
}

/// Which leave, in this order, so that there are `over` bytes less: of the address that holds the most at the time, the
/// oldest.
fn leaving(mut all: Vec<Standing>, mut over: usize) -> Vec<u64> {
    // The oldest is the last of its address' list.
    all.sort_unstable_by_key(|one| std::cmp::Reverse(one.id));
    let mut addresses: HashMap<Option<IpAddr>, (usize, Vec<Standing>)> = HashMap::new();
    for one in all {
        let (sum, bodies) = addresses.entry(one.peer).or_default();
        *sum += one.bytes;
        bodies.push(one);
    }
    let mut go = Vec::new();
    while over > 0 {
        // Of two that hold as much, the one whose body is older.
        let fullest = addresses.values_mut().filter(|(sum, _)| *sum > 0);
        let fullest =
            fullest.max_by_key(|(sum, bodies)| (*sum, std::cmp::Reverse(bodies.last().map_or(u64::MAX, |one| one.id))));
        let Some((sum, bodies)) = fullest else { break };
        let Some(oldest) = bodies.pop() else { break };
        *sum -= oldest.bytes;
        if oldest.bytes > 0 {
            over = over.saturating_sub(oldest.bytes);
            go.push(oldest.id);
        }
    }
    go
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, n]))
    }

    #[test]
    fn the_fullest_address_gives_way_its_oldest_first() {
        let of = |id, peer, bytes| Standing { id, peer: address(peer), bytes };
        let all = vec![of(1, 1, 30), of(2, 9, 20), of(3, 9, 0), of(4, 9, 20), of(5, 9, 20), of(6, 2, 10)];
        let table: [(usize, &[u64]); 6] = [
            (0, &[]),
            (1, &[2]),
            (20, &[2]),
            // Nine has forty left, more than one has.
            (21, &[2, 4]),
            // Now one has the most.
            (41, &[2, 4, 1]),
            (1000, &[2, 4, 1, 5, 6]),
        ];
        for (over, want) in table {
            assert_eq!(leaving(all.clone(), over), want, "{over} too many");
        }
        assert_eq!(leaving(Vec::new(), 5), [0; 0]);
    }

    #[tokio::test]
    async fn one_who_sends_many_leaves_room_for_another() {
        let bodies = Bodies::new(800);
        let many: Vec<Held> = (0..8).map(|_| bodies.begin(address(9))).collect();
        for held in &many {
            held.takes(100).unwrap();
        }
        let honest = bodies.begin(address(1));
        honest.takes(100).unwrap();
        many[0].must_leave().await;
        many[1].must_leave().await;
        assert!(!many[2].leave.is_cancelled(), "no more than were in the way");
        assert_eq!(many[0].takes(101), Err(NoRoom));
        assert_eq!(bodies.all().held, 700);
        // Once more, and it is its own that leaves.
        many[7].takes(250).unwrap();
        assert!(many[2].leave.is_cancelled() && many[3].leave.is_cancelled());
        drop((many, honest));
        let all = bodies.all();
        assert_eq!((all.held, all.each.len()), (0, 0));
    }

    #[test]
    fn what_a_handler_has_stays_and_counts() {
        let bodies = Bodies::new(800);
        let first = bodies.begin(address(9));
        first.takes(750).unwrap();
        first.is_whole();
        let second = bodies.begin(address(1));
        assert_eq!(second.takes(100), Err(NoRoom), "there is nobody else who could leave");
        drop((first, second));
        bodies.begin(None).takes(800).unwrap();
        assert_eq!(bodies.all().held, 0);
    }
}
