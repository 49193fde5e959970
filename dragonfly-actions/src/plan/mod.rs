//! What an action is to do, judged before anything is done. Pure: no disk, no clock, no network.

mod bootloader;
mod catalog;
mod check;
mod chroot;
mod digest;
mod disk;
mod format;
mod given;
mod grow;
mod image;
mod layout;
mod leave;
mod partition;
mod parttype;
mod size;
mod target;
mod writefile;

pub use bootloader::{BootloaderKind, BootloaderParams, FirmwareChoice};
pub use catalog::Catalog;
pub(crate) use check::Check;
pub use check::Stage;
pub use chroot::{ChrootExecParams, ExtraMount};
pub use digest::{Algorithm, Digest};
pub use disk::{ChoiceError, DiskSelector};
pub use format::{FileSystem, FormatParams};
pub use given::{Given, Word};
pub use grow::GrowParams;
pub use image::{Compression, ImageParams, ImageUrl, ReadBack, SERVER_SCHEME};
pub use layout::{Placed, layout};
#[cfg(feature = "run")]
pub(crate) use leave::LONGEST_COMMAND_LINE;
pub use leave::{ChainParams, KexecParams, LeaveParams, ScriptUrl};
pub use partition::{Attribute, PartitionParams, PartitionSpec, TableKind};
pub use parttype::PartitionType;
pub use size::Size;
#[cfg(feature = "run")]
pub(crate) use size::human;
pub use target::Target;
pub use writefile::{Mode, WriteFileParams};

/// Writes a partition table.
pub const PARTITION: &str = "partition";
/// Makes a file system.
pub const FORMAT: &str = "format";
/// Streams an image to a disk or a partition.
pub const IMAGE2DISK: &str = "image2disk";
/// Writes one file into what was installed.
pub const WRITEFILE: &str = "writefile";
/// Grows a partition and its file system to the disk's end.
pub const GROW: &str = "grow";
/// Makes what was installed bootable.
pub const BOOTLOADER: &str = "bootloader";
/// Runs a program inside what was installed.
pub const CHROOT_EXEC: &str = "chroot-exec";
/// Leaves by starting the installed kernel.
pub const KEXEC: &str = "kexec";
/// Leaves by starting iPXE with a script.
pub const CHAIN: &str = "chain";
/// Leaves through the firmware.
pub const REBOOT: &str = "reboot";
/// Leaves by switching the machine off.
pub const POWEROFF: &str = "poweroff";

/// Whether an action ends the agent's time on the machine: it prepares in its `run`, and the agent
/// leaves when the server has acknowledged the hand-over.
pub fn is_hand_over(name: &str) -> bool {
    matches!(name, KEXEC | CHAIN | REBOOT | POWEROFF)
}
