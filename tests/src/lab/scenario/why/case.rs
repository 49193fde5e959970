//! Which faults are injected, into what machine, when, and how it is mended.

use dragonfly_core::diagnose::Fault;

use crate::lab::args::Firmware;
use crate::lab::machine::Machine;

/// One injected fault.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) fault: Fault,
    pub(super) firmware: Firmware,
    /// When it strikes.
    pub(super) at: At,
    pub(super) strike: Strike,
    /// What must follow when it has been mended.
    pub(super) after: After,
}

/// When a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// Before the machine is switched on.
    Start,
    /// At the first event of this type.
    Event(&'static str),
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strike {
    /// The other DHCP server answers it too, with or without a boot server of its own, and its answers are the
    /// only ones that arrive: so it is for a machine that hears the other first.
    OtherDhcp,
    /// A client of an architecture that nobody has a boot program for; not a machine of QEMU's.
    Alien,
    /// Packets from the machine to this port of the server are lost.
    Port(&'static str, u16),
    /// The server's packets to it are lost when they are longer than this many bytes; TCP goes on trying. So many bytes
    /// of longer ones come through before that.
    Longer(u16, u32),
    /// Everything that the server sends it by HTTP is lost when so many bytes have come through.
    After(u32),
    /// The machine's card is one that the lab's kernel has no driver for.
    Card(&'static str),
    /// Its firmware starts only what is signed.
    SecureBoot,
    /// Its clock says this.
    Clock(&'static str),
    /// It is assigned this template when it has registered.
    Template(&'static str),
    /// Its processors stop.
    Pause,
    /// Somebody else says hello with a later token of its.
    Hello,
    /// Its cable is pulled.
    Cable,
}

/// What must follow when a fault has been mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// Nothing is tried.
    Nothing,
    /// It goes on by itself; the fault is named no more.
    GoesOn,
    /// It is power-cycled, and its agent says hello; the fault is named no more.
    Boots,
}

/// The template of each run that is to fail or to be interrupted.
pub(super) const BAD: &str = "why-bad-image";
pub(super) const BIG: &str = "why-big-image";
pub(super) const GOOD: &str = "why-good-image";

/// A file that the lab publishes: not the image that the template says, and larger than the disk.
pub(super) const NOISE: &str = "why-noise.raw";
/// How large the disk of the machine is whose image is too large.
pub(super) const SMALL_DISK: u64 = 16 << 20;
pub(super) const NOISE_BYTES: u64 = 24 << 20;

/// More than a boot script, and less than TCP's first burst of a file.
const SCRIPT: u32 = 6000;

/// Every fault that the lab injects.
pub(super) fn all() -> Vec<Case> {
    use {After as A, At::Event, At::Start, Fault as F, Firmware as Fw, Strike as S};
    let case = |fault, firmware, at, strike, after| Case { fault, firmware, at, strike, after };
    let http = S::Port("tcp", 3000);
    vec![
        case(F::RogueDhcp, Fw::Bios, Start, S::OtherDhcp, A::Boots),
        case(F::ForeignOffer, Fw::Bios, Start, S::OtherDhcp, A::Boots),
        case(F::WrongArchitecture, Fw::Uefi, Start, S::Alien, A::Nothing),
        case(F::BlockedTftp, Fw::Uefi, Start, S::Port("udp", 69), A::Boots),
        case(F::BlockedHttp, Fw::Bios, Start, http, A::Boots),
        // The script does not arrive; the kernel; a boot program, by HTTP in the end: where our own system will not
        // send, TFTP ends at once. All is there before the machine has its address: a machine is faster than we are.
        case(F::Mtu, Fw::Bios, Event("dhcp.offer"), S::Longer(1200, 0), A::Boots),
        case(F::Mtu, Fw::Bios, Event("dhcp.offer"), S::Longer(1200, SCRIPT), A::Nothing),
        case(F::Mtu, Fw::Uefi, Event("dhcp.offer"), S::Longer(1200, 0), A::Nothing),
        case(F::BrokenTransfer, Fw::Bios, Event("dhcp.offer"), S::After(4 << 20), A::Boots),
        case(F::MissingDriver, Fw::Bios, Start, S::Card("rtl8139"), A::Boots),
        case(F::WrongClock, Fw::Bios, Start, S::Clock("2001-01-01"), A::Nothing),
        case(F::BadImage, Fw::Bios, Event("machine.registered"), S::Template(BAD), A::Nothing),
        case(F::FullDisk, Fw::Bios, Event("machine.registered"), S::Template(BIG), A::Nothing),
        case(F::DeadAgent, Fw::Bios, Event("step.began"), S::Pause, A::GoesOn),
        case(F::StaleToken, Fw::Bios, Event("boot.identity"), S::Hello, A::GoesOn),
        case(F::NoLink, Fw::Bios, Event("boot.identity"), S::Cable, A::Boots),
        case(F::UnsignedImage, Fw::Uefi, Start, S::SecureBoot, A::Boots),
        case(F::ServerUnreachable, Fw::Bios, Event("boot.identity"), http, A::Boots),
    ]
}

/// Gives the machine what it must have from its start.
pub(super) fn furnish(case: &Case, machine: &mut Machine) -> anyhow::Result<()> {
    let hardware = &mut machine.hardware;
    match case.strike {
        Strike::Card(card) => hardware.card = card,
        Strike::SecureBoot => hardware.secure_boot = true,
        Strike::Clock(time) => hardware.more.extend(["-rtc".to_owned(), format!("base={time}")]),
        Strike::Template(BIG) => {
            std::fs::File::options().write(true).open(machine.disk())?.set_len(SMALL_DISK)?;
        }
        _ => {}
    }
    Ok(())
}

/// Takes it away again, for the time after the fault.
pub(super) fn refurnish(case: &Case, machine: &mut Machine) -> anyhow::Result<()> {
    let hardware = &mut machine.hardware;
    match case.strike {
        Strike::Card(_) => hardware.card = "virtio-net-pci",
        Strike::SecureBoot => {
            hardware.secure_boot = false;
            std::fs::remove_file(&hardware.vars)?;
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_that_has_a_name_is_injected_but_those_that_other_scenarios_have() {
        let ours: Vec<Fault> = all().iter().map(|case| case.fault).collect();
        let others = [
            Fault::MissingFile,
            Fault::RestartLoop,
            // What this server itself refuses needs no machine: the engine's and the diagnoser's tests have it.
            Fault::PoolExhausted,
            Fault::NoReservation,
            Fault::OutsideNetworks,
            Fault::SecondAgent,
        ];
        for fault in Fault::ALL {
            assert_eq!(ours.contains(&fault), !others.contains(&fault), "{fault}");
        }
        let different: std::collections::HashSet<_> = ours.iter().collect();
        assert_eq!(different.len(), 16);
    }
}
