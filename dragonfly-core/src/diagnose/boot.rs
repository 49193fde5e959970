//! From the firmware's first packet to the agent's hello: where a boot stopped, and why.

use std::sync::Arc;
use std::time::Duration;

use super::network;
use super::trip::Trip;
use super::{Cause, Fault, Patient};
use crate::boot::{Firmware, Seen};
use crate::clock::Timestamp;
use crate::inventory::{Inventory, Nic};
use crate::lifecycle::Phase;
use crate::timeline::Entry;

/// How long another DHCP server may take to tell what it offers, in seconds.
const TO_ANSWER: u64 = 3;
/// How long firmware may take from its address to its first TFTP packet, in seconds.
const TO_TFTP: u64 = 15;
/// From the boot program's last block to iPXE's script: iPXE looks at every card and waits for links.
const TO_SCRIPT: u64 = 45;
/// From the script to the first file that it names.
const TO_KERNEL: u64 = 30;
/// An agent that finds no driver for its card says so on the console and restarts after a minute; a machine's own
/// tests take their time after that.
const TO_RETURN: u64 = 900;
/// From kernel to hello: drivers, link (spanning tree takes 90 s), address.
const TO_HELLO: u64 = 150;
/// From an assignment to the first sign of the machine.
const TO_FIRST_SIGN: u64 = 300;
/// An agent that was heard so long ago at most is there still.
const LIVE: Duration = Duration::from_secs(30);
/// A transfer over HTTP that broke off within this many bytes never got past the first full packets.
const FIRST_BYTES: u64 = 512 * 1024;
/// The same for TFTP, in blocks.
const FIRST_BLOCKS: u64 = 16;

/// Why this boot did not get to its hello. The latest stage that it reached decides.
pub(super) fn causes(trip: &Trip<'_>, patient: &Patient<'_>) -> Vec<Cause> {
    if trip.greeted.is_some() {
        return Vec::new();
    }
    // An address that is not given and an identity that is not given are answers, not silence: they come first.
    let rules: [fn(&Trip<'_>, &Patient<'_>) -> Option<Cause>; 11] = [
        network::no_address,
        network::outside,
        refused,
        broken_off,
        no_file,
        no_hello,
        no_kernel,
        no_script,
        foreign,
        no_loader,
        no_tftp,
    ];
    rules.iter().find_map(|rule| rule(trip, patient)).into_iter().collect()
}

fn refused(trip: &Trip<'_>, patient: &Patient<'_>) -> Option<Cause> {
    let entry = trip.refused?;
    // Beside a live agent it is a stranger who is refused.
    if patient.agent_heard.is_some_and(|heard| heard.plus(LIVE) > entry.time) {
        return None;
    }
    let says = "its agent shows a boot token that is not good any more, so it is refused";
    let next = "its agent fetches a new one by itself; where it cannot, power-cycle the machine. If it comes back, \
                something between it and this server keeps old answers of /boot/MAC/identity (an HTTP cache), gives \
                it another address, or speaks in its place";
    Some(Cause::new(Fault::StaleToken, says, next).seen(entry))
}

/// A transfer stopped in its middle.
fn broken_off(trip: &Trip<'_>, _: &Patient<'_>) -> Option<Cause> {
    let mtu = |entry: &Entry, words: String| Cause::new(Fault::Mtu, words, mend_mtu()).seen(entry);
    if let Some(entry) = trip.lost
        && let Some(Seen::TftpEnded { file, passed, block, .. }) = entry.seen()
    {
        let block = u64::from(*block);
        if block > 512 && *passed <= FIRST_BLOCKS * block {
            let words =
                format!("{file} stops at the first blocks of {block} bytes: small packets pass, large ones do not");
            return Some(mtu(entry, words));
        }
        if *passed == 0 {
            let says = format!("it asked for {file}, and our answers, which come from another port, do not arrive");
            return Some(Cause::new(Fault::BlockedTftp, says, open_tftp()).seen(entry));
        }
        return Some(far_into(entry, file));
    }
    let entry = trip.cut?;
    let Some(Seen::FileEnded { file, bytes, passed, .. }) = entry.seen() else { return None };
    Some(if *passed <= FIRST_BYTES && *bytes > FIRST_BYTES {
        mtu(entry, format!("{file} stops at its first packets of full size: small ones pass, large ones do not"))
    } else {
        far_into(entry, file)
    })
}

/// A machine that is reset in a transfer looks the same from here until its next packet.
fn far_into(entry: &Entry, file: &str) -> Cause {
    let says = format!("{file} broke off in its middle: packets of every size came through, and then none did");
    let next = "if it was reset or switched off just then, wait for its next boot; else look at the link lights and error \
                counters of its card and switch port, at the console (iPXE names its error), and at every firewall or VPN \
                between it and this server that may end long connections; then power-cycle it";
    Cause::new(Fault::BrokenTransfer, says, next).seen(entry)
}

fn mend_mtu() -> &'static str {
    "compare the MTU of the machine's port, of this server's and of every switch, tunnel and VLAN between them \
     (ping -M do -s 1472); make them equal, or lower this server's"
}

fn open_tftp() -> &'static str {
    "let UDP from the machines to port 69 of this server through, and UDP from any port of this server back (a firewall on \
     this server, on a router, or on the switch); behind a relay the Network's nextServer must name an address that they reach"
}

/// What it asked for is not there.
fn no_file(trip: &Trip<'_>, _: &Patient<'_>) -> Option<Cause> {
    let entry = trip.refused_file?;
    let (file, by_tftp) = match entry.seen()? {
        Seen::TftpEnded { file, .. } => (file, true),
        // An identity is refused by policy, not for want of a file.
        Seen::HttpRefused { path, .. } if !path.contains("identity") => (path, false),
        _ => return None,
    };
    if by_tftp && file.contains("arm64") {
        let says = format!("it needs {file}, the boot program for arm64, which this server does not have");
        return Some(Cause::new(Fault::WrongArchitecture, says, other_loader()).seen(entry));
    }
    let says = format!("it asked for {file}, which this server does not have");
    let next = "build the boot files: dragonfly mage build --out DIR, and serve them with --boot-files DIR";
    Some(Cause::new(Fault::MissingFile, says, next).seen(entry))
}

fn other_loader() -> &'static str {
    "switch its firmware to UEFI x86-64 or BIOS if it can; else put a boot program for its architecture into the boot \
     files, or take the machine out of network boot"
}

/// Kernel and identity are there, and the agent says nothing.
fn no_hello(trip: &Trip<'_>, patient: &Patient<'_>) -> Option<Cause> {
    let kernel = trip.kernel?;
    if !trip.waited(kernel, TO_HELLO) {
        return None;
    }
    if let Some(system) = trip.system {
        let says = "its agent has an address and does not get through to this server";
        let next = "let TCP from the machines to this server's port through (its TLS, not only plain HTTP); if the server \
                    is reached by another name or address, set --server-url; look at the machine's console";
        let cause = Cause::new(Fault::ServerUnreachable, says, next).seen(kernel).seen(system);
        return Some(cause.known("no hello came after that"));
    }
    let link =
        patient.inventory.and_then(|seen| seen.nics.iter().find(|nic| nic.link == Some(false) && is_boot(seen, nic)));
    if let Some(nic) = link {
        let says = format!("{} had no link when its agent last looked, and its agent asks for no address", nic.name);
        let next =
            "look at the cable, the transceiver and the switch port (speed, VLAN, spanning tree: set it to edge)";
        return Some(Cause::new(Fault::NoLink, says, next).seen(kernel));
    }
    let back = trip.came_back(kernel);
    if back.is_none_or(|back| back > Duration::from_secs(TO_RETURN))
        && patient.inventory.and_then(without_driver).is_none()
    {
        let says = "its kernel started and asks for no address, and it does not restart: its card has no link any more, or \
                    its kernel hangs";
        let next = "look at the console: an agent that waits for a link says so there. Then at the cable, the transceiver \
                    and the switch port (speed, VLAN, spanning tree: set it to edge); if the console shows no kernel at \
                    all, try another firmware mode";
        let cause = Cause::new(Fault::NoLink, says, next).seen(kernel);
        return Some(cause.known("no DHCP message of an operating system came after that"));
    }
    let says =
        "its kernel started and asks for no address: most likely it has no driver for the card that it booted from";
    let next = "read the machine's console: it names the card. Build the boot files with its driver (dragonfly mage build \
                --modules-from DIR, or another --kernel-package); if the console shows no kernel at all, try another firmware mode";
    let cause = Cause::new(Fault::MissingDriver, says, next)
        .seen(kernel)
        .known("no DHCP message of an operating system came after that");
    let cause = match back {
        Some(back) => {
            cause.known(format!("it came back {} s later, as an agent without a driver does", back.as_secs()))
        }
        None => cause,
    };
    Some(match patient.inventory.and_then(without_driver) {
        Some(card) => cause.known(format!("PCI network device {card} had no driver when its agent last looked")),
        None => cause,
    })
}

fn is_boot(seen: &Inventory, nic: &Nic) -> bool {
    seen.boot_interface.as_deref() == Some(nic.name.as_str())
}

/// A network card without a driver: PCI class 02.
fn without_driver(seen: &Inventory) -> Option<String> {
    let cards = seen.pci.iter().filter(|device| device.class.trim_start_matches("0x").starts_with("02"));
    cards.filter(|device| device.driver.is_none()).map(|device| format!("{} ({})", device.id, device.address)).next()
}

/// The script was sent, and nothing that it names is asked for.
fn no_kernel(trip: &Trip<'_>, _: &Patient<'_>) -> Option<Cause> {
    let script = trip.script?;
    let Some(Seen::Script { fate, .. }) = script.seen() else { return None };
    let names_files = matches!(fate.as_str(), "discover" | "image");
    let came = [trip.file, trip.refused_file, trip.identity].into_iter().flatten().any(|file| file.id > script.id);
    if !names_files || came || !trip.waited(script, TO_KERNEL) {
        return None;
    }
    let says =
        "its boot script was sent and does nothing: its request came through, the answer, which is longer, did not";
    let cause = Cause::new(Fault::Mtu, says, mend_mtu()).seen(script);
    Some(cause.known("nothing that the script names was asked for after that"))
}

/// The boot program is there, and no script is asked for.
fn no_script(trip: &Trip<'_>, _: &Patient<'_>) -> Option<Cause> {
    let loader = trip.loader?;
    if trip.script.is_some() || trip.identity.is_some() && trip.kernel.is_none() {
        return None;
    }
    let since = trip.ipxe.unwrap_or(loader);
    if !trip.waited(since, TO_SCRIPT) {
        return None;
    }
    let uefi = matches!(trip.firmware, Some(Firmware::Uefi | Firmware::UefiHttp));
    if let (true, None) = (uefi, trip.ipxe) {
        let says =
            "its firmware fetched the whole boot program and did not start it: Secure Boot refuses what is not signed";
        let next = "turn Secure Boot off in the machine's firmware, or enrol the key that signed the boot program";
        let cause = Cause::new(Fault::UnsignedImage, says, next).seen(loader);
        return Some(cause.known("neither a DHCP message of iPXE nor a request for its script came after that"));
    }
    let says = "its boot program is there and does not get its script by HTTP";
    let next = "let TCP from the machines to this server's port through (plain HTTP), in both directions; if the server is \
                reached by another address, set --server-url; read iPXE's message on the console";
    let cause = Cause::new(Fault::BlockedHttp, says, next).seen(loader);
    let cause = trip.ipxe.map_or(cause.clone(), |ipxe| cause.seen(ipxe));
    Some(cause.known("no request for /boot/MAC came after that"))
}

/// It takes its address elsewhere, and with it the other's word on what to boot.
fn foreign(trip: &Trip<'_>, _: &Patient<'_>) -> Option<Cause> {
    let entry = trip.foreign?;
    let Some(Seen::DhcpForeign { server, .. }) = entry.seen() else { return None };
    if trip.tftp.is_some_and(|tftp| tftp.id > entry.id) || trip.script.is_some() {
        return None;
    }
    let find = format!(
        "find {server} by its hardware address (ip neigh; the switches' tables) and turn its DHCP off on this network"
    );
    let beside = "; or, if addresses are to come from it, set this Network's dhcp to `proxy`";
    let other =
        trip.other.filter(|other| matches!(other.seen(), Some(Seen::DhcpOther { server: it, .. }) if it == server));
    if let Some(other) = other
        && let Some(Seen::DhcpOther { file: Some(file), .. }) = other.seen()
    {
        let says = format!("{server} answers DHCP on a network where only this server is to, and has it boot {file}");
        return Some(Cause::new(Fault::RogueDhcp, says, format!("{find}{beside}")).seen(entry).seen(other));
    }
    if other.is_none() && !trip.waited(entry, TO_ANSWER) {
        return None;
    }
    let told = |cause: Cause| match other {
        Some(other) => cause.seen(other),
        None => cause,
    };
    Some(told(match trip.offered {
        Some(offered) => {
            let says = format!("we offered, and it took the offer of {server}");
            Cause::new(Fault::ForeignOffer, says, format!("{find}{beside}")).seen(offered).seen(entry)
        }
        None => {
            let says = format!("{server} answers DHCP on a network where only this server is to");
            Cause::new(Fault::RogueDhcp, says, format!("{find}{beside}")).seen(entry)
        }
    }))
}

fn no_loader(trip: &Trip<'_>, _: &Patient<'_>) -> Option<Cause> {
    let entry = trip.no_loader?;
    if trip.tftp.is_some() || trip.script.is_some() || trip.loader.is_some() {
        return None;
    }
    let says = "there is no boot program of ours for its firmware and processor, so it is offered none";
    Some(Cause::new(Fault::WrongArchitecture, says, other_loader()).seen(entry))
}

/// It knows what to fetch, and does not ask.
fn no_tftp(trip: &Trip<'_>, _: &Patient<'_>) -> Option<Cause> {
    let (confirmed, file) = (trip.confirmed?, trip.file_to_fetch()?);
    let came = trip.tftp.is_some() || trip.loader.is_some() || trip.cut.is_some() || trip.script.is_some();
    if came || !trip.waited(confirmed, TO_TFTP) {
        return None;
    }
    if file.contains("://") {
        let says = format!("it was told to fetch {file}, and no request came");
        let next = "let TCP from the machines to this server's port through (plain HTTP), in both directions";
        return Some(Cause::new(Fault::BlockedHttp, says, next).seen(confirmed));
    }
    let says = format!("it was told to fetch {file} by TFTP, and no request came");
    let cause = Cause::new(Fault::BlockedTftp, says, open_tftp()).seen(confirmed);
    Some(cause.known("no TFTP packet came after that"))
}

/// An order waits, and nothing at all comes from the machine.
pub(super) fn nothing_comes(timeline: &[Arc<Entry>], patient: &Patient<'_>, now: Timestamp) -> Option<Cause> {
    let since = patient.phase_since?;
    let silent = !timeline.iter().any(|entry| entry.seen().is_some() && entry.time >= since);
    let heard = patient.agent_heard.is_some_and(|heard| heard >= since);
    if patient.phase != Some(Phase::Assigned)
        || !silent
        || heard
        || now.since(since) < Duration::from_secs(TO_FIRST_SIGN)
    {
        return None;
    }
    let says = "not one packet has come from any of its cards since it was assigned";
    let next = "is it switched on? Look at the link lights of card and switch port, at the port's VLAN, and whether the \
                network comes first in its boot order; then power-cycle it";
    Some(Cause::new(Fault::NoLink, says, next).known(format!("nothing by DHCP, TFTP or HTTP since {since}")))
}
