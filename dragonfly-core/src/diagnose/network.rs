//! What this server itself does not give a machine, and why: an address, an identity.

use super::trip::Trip;
use super::{Cause, Fault, Patient};
use crate::boot::{Seen, silence};

/// How long another DHCP server may take to give what we do not, in seconds.
const ELSEWHERE: u64 = 3;

/// It asks for an address, and we have none for it.
pub(super) fn no_address(trip: &Trip<'_>, _: &Patient<'_>) -> Option<Cause> {
    let entry = trip.unanswered?;
    let Some(Seen::DhcpSilence { why, .. }) = entry.seen() else { return None };
    let network = trip.network.unwrap_or("on which it asks");
    match why.as_str() {
        silence::POOL_EMPTY => {
            let says = format!("it asks for an address, and the pool of Network {network} has none left");
            let next = format!(
                "widen the pool of Network {network} (spec.pool), or wait until leases of machines that are gone expire \
                 (spec.leaseSeconds; a shorter one counts from the next lease on); it goes on asking by itself, or \
                 power-cycle it"
            );
            Some(Cause::new(Fault::PoolExhausted, says, next).seen(entry))
        }
        silence::NO_RESERVATION if trip.waited(entry, ELSEWHERE) => {
            let says = format!(
                "Network {network} gives addresses only to machines that have one reserved (dhcp: reservation), and this one has \
                 none there"
            );
            let next = format!(
                "give it one: a Hardware with its MAC in spec.macs and, in spec.dhcp.address, an address of the Network's subnet; \
                 or set dhcp of Network {network} to full or auto"
            );
            Some(Cause::new(Fault::NoReservation, says, next).seen(entry))
        }
        _ => None,
    }
}

/// It asks for its identity from an address whose machines get none.
pub(super) fn outside(trip: &Trip<'_>, _: &Patient<'_>) -> Option<Cause> {
    let entry = trip.outside?;
    let Some(Seen::HttpRefused { why, .. }) = entry.seen() else { return None };
    let says = format!("it gets no identity, so its agent has no boot token and is refused: {why}");
    let next = "set provisioning: true on the Network whose subnet has that address; where none has it, write down a Network \
                with its subnet (behind a relay, too). If it is not the machine's own address, something between it and \
                this server (NAT, an HTTP proxy) asks in its place: take it out of the way";
    Some(Cause::new(Fault::OutsideNetworks, says, next).seen(entry))
}
