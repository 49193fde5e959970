//! Does it, on a Linux machine.
//!
//! [`builtin_on`] gives every action for one [`Host`]. Actions that hand the machine over
//! ([`crate::is_hand_over`]) only prepare in their `run`; the agent reports, waits for the server's
//! word, and then calls [`leave`](leave()).

pub mod bootentry;
mod bootloader;
mod chain;
mod chroot;
mod disk;
mod efi;
mod fail;
mod format;
mod fstab;
mod go;
mod grow;
mod grub;
mod guard;
mod host;
mod image;
pub mod ipmi;
mod kexec;
mod leave;
mod marker;
mod mount;
mod node;
pub mod nvme;
mod partition;
mod place;
mod program;
mod realmode;
mod root;
mod sys;
mod writefile;

pub use disk::DiskUse;
pub use host::Host;
pub use leave::{Leave, leave};
pub use marker::Marker;

use dragonfly_core::action::Actions;

/// What only the fuzzer may reach.
#[cfg(any(fuzzing, debug_assertions))]
#[doc(hidden)]
pub mod fuzzing {
    use std::io;

    use super::image::unpack_all;

    /// Unpacks bytes to at most `most` bytes, as `image2disk` would.
    pub fn unpack(bytes: &[u8], most: u64) -> io::Result<u64> {
        unpack_all(bytes, most)
    }
}

/// Every action of this crate, for one host.
pub fn builtin_on(host: Host) -> Actions {
    Actions::new()
        .with(partition::PartitionAction(host.clone()))
        .with(format::FormatAction(host.clone()))
        .with(image::ImageAction { host: host.clone(), patience: image::Patience::default() })
        .with(writefile::WriteFileAction(host.clone()))
        .with(grow::GrowAction(host.clone()))
        .with(chroot::ChrootExecAction(host.clone()))
        .with(bootloader::BootloaderAction(host.clone()))
        .with(kexec::KexecAction(host.clone()))
        .with(chain::ChainAction(host))
        .with(go::RebootAction)
        .with(go::PowerOffAction)
}
