//! Which TFTP transfer ends so that another can begin, when there is room for no more.
//!
//! Opening one costs a stranger a single packet from an address that he need not have. So transfers that
//! were never acknowledged give way first, of the address that has the most; one that goes on gives way
//! only where its address has taken a quarter of all places and somebody else wants one.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};

/// A transfer as the choice sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) peer: SocketAddrV4,
    /// Whether its client has answered anything.
    pub(super) answered: bool,
    /// Transfers that began before have lower ones.
    pub(super) number: u64,
}

/// Whether an address has opened so many transfers and answered none of them that it is heard again only when
/// they are over: looking at what a flood asks for would keep the others waiting.
pub(super) fn is_flooding(mut open: impl Iterator<Item = Standing>, asker: Ipv4Addr, places: usize) -> bool {
    let most = (places / 16).max(8);
    open.by_ref().filter(|one| *one.peer.ip() == asker && !one.answered).nth(most - 1).is_some()
}

/// The transfer that ends for one of `asker`; `None` when that one must wait.
pub(super) fn gives_way(
    open: impl Iterator<Item = Standing> + Clone,
    asker: Ipv4Addr,
    places: usize,
) -> Option<SocketAddrV4> {
    let mut of_address: HashMap<Ipv4Addr, usize> = HashMap::new();
    for one in open.clone() {
        *of_address.entry(*one.peer.ip()).or_default() += 1;
    }
    let count = |one: &Standing| of_address.get(one.peer.ip()).copied().unwrap_or_default();
    open.filter(|one| !one.answered || (*one.peer.ip() != asker && count(one) * 4 > places))
        .min_by_key(|one| (one.answered, std::cmp::Reverse(count(one)), one.number))
        .map(|one| one.peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(number: u64, host: u8, answered: bool) -> Standing {
        let peer = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, host), 1000 + u16::try_from(number).unwrap());
        Standing { peer, answered, number }
    }

    #[test]
    fn an_address_that_answers_nothing_is_not_heard_for_a_while() {
        let asker = Ipv4Addr::new(10, 0, 0, 5);
        let open = |silent: u64, answered: u64, others: u64| {
            let own = (0..silent).map(|n| standing(n, 5, false)).chain((0..answered).map(|n| standing(n, 5, true)));
            own.chain((0..others).map(|n| standing(n, 6, false))).collect::<Vec<_>>()
        };
        for (all, want) in
            [(open(0, 1000, 0), false), (open(63, 900, 0), false), (open(64, 0, 0), true), (open(10, 0, 1000), false)]
        {
            assert_eq!(is_flooding(all.iter().copied(), asker, 1024), want, "{}", all.len());
        }
    }

    #[test]
    fn who_never_answers_gives_way_and_who_has_the_most_of_them_first() {
        let asker = Ipv4Addr::new(10, 0, 0, 5);
        let way =
            |open: &[Standing], places| gives_way(open.iter().copied(), asker, places).map(|peer| peer.port() - 1000);
        let (going, silent) = (|n, host| standing(n, host, true), |n, host| standing(n, host, false));
        for (open, want) in [
            (vec![], None),
            (vec![going(1, 1), going(2, 2), going(3, 3), going(4, 4)], None),
            // The oldest of those that stay silent.
            (vec![going(1, 1), silent(2, 2), silent(3, 3)], Some(2)),
            // A machine that has only just asked is not pushed out by somebody with many.
            (vec![silent(1, 1), silent(2, 9), silent(3, 9), silent(4, 9)], Some(2)),
            // An address with more than a quarter gives way to another, though its transfers go on.
            (vec![going(1, 1), going(2, 9), going(3, 9), going(4, 3)], Some(2)),
            // Not to itself.
            (vec![going(1, 5), going(2, 5), going(3, 5), going(4, 3)], None),
        ] {
            assert_eq!(way(&open, 4), want, "{open:?}");
        }
    }
}
