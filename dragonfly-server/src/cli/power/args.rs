//! The words of `dragonfly power` and `dragonfly bmc`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use url::Url;

use crate::cli::args::Format;
use crate::cli::words;

/// Which machines.
#[derive(Debug, Args)]
pub(in crate::cli) struct Machines {
    /// Their names in any spelling, or MACs
    #[arg(required_unless_present = "selector", value_parser = words::name)]
    pub(super) machines: Vec<String>,
    /// Every machine with these labels: `rack=a1,role=db`
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "machines", value_parser = words::labels)]
    pub(super) selector: Option<String>,
}

/// Which machines, and whether somebody is asked.
#[derive(Debug, Args)]
pub(in crate::cli) struct Switched {
    #[command(flatten)]
    pub(super) which: Machines,
    /// Do not ask
    #[arg(short, long)]
    pub(super) yes: bool,
}

/// What firmware boots from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Device {
    /// The network card
    Pxe,
    /// A local disk
    Disk,
    /// Optical drive, real or virtual
    Cdrom,
    /// The firmware's setup pages
    Bios,
    /// An address over UEFI HTTP boot, once; with --uri
    Http,
    /// Nothing is set: as the firmware likes
    None,
}

impl Device {
    /// What the server calls it, if it is a device.
    pub(super) fn word(self) -> Option<&'static str> {
        match self {
            Self::Pxe => Some("pxe"),
            Self::Disk => Some("disk"),
            Self::Cdrom => Some("cdrom"),
            Self::Bios => Some("bios"),
            Self::Http | Self::None => None,
        }
    }
}

/// How firmware boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Mode {
    /// By boot sector
    Legacy,
    /// By EFI application
    Uefi,
}

impl Mode {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Uefi => "uefi",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PowerCommand {
    /// Switch machines on, and see them on
    On(Machines),
    /// Take the power away from machines, and see them off
    Off(Switched),
    /// Ask operating systems to shut down
    Soft(Switched),
    /// Take the power away and give it back; what is off is switched on
    Cycle(Switched),
    /// Reset machines that are on
    Reset(Switched),
    /// Boot machines from the network once, whatever they do now
    NetworkBoot(Switched),
    /// Ask controllers whether their machines are on
    Status {
        #[command(flatten)]
        which: Machines,
        /// How to write it
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Show or set what machines boot from
    #[command(
        after_help = "Examples:\n  dragonfly power boot-device db-1\n  dragonfly power boot-device db-1 --set pxe\n  \
        dragonfly power boot-device -l rack=a1 --set disk --persistent\n  dragonfly power boot-device db-1 --set none\n  \
        dragonfly power boot-device db-1 --set http --uri http://10.0.0.1/boot.efi"
    )]
    BootDevice {
        #[command(flatten)]
        which: Machines,
        /// Set this; what the controller says afterwards is shown
        #[arg(long, value_enum, value_name = "DEVICE")]
        set: Option<Device>,
        /// With `--set http`: where the boot program or image is; without user and password
        #[arg(long, value_name = "URL", requires = "set", value_parser = words::link)]
        uri: Option<Url>,
        /// At every boot from now on, not only at the next
        #[arg(long, requires = "set")]
        persistent: bool,
        /// How firmware is to boot [default: as the agent saw it]
        #[arg(long, value_enum, requires = "set")]
        mode: Option<Mode>,
        /// How to write it
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Light machines' lamps, to find them in the rack
    Identify {
        #[command(flatten)]
        which: Machines,
        /// For so long
        #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u8).range(1..))]
        seconds: u8,
        /// Put them out
        #[arg(long, conflicts_with = "seconds")]
        off: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum BmcCommand {
    /// Say where a machine's controller is and who logs in to it
    #[command(
        after_help = "Examples:\n  dragonfly bmc set db-1 ipmi://10.0.0.6 --username admin           (asks for the password)\n  \
        dragonfly bmc set db-1 ipmi://10.0.0.6 --username admin --password-file pw\n  \
        dragonfly bmc set db-1 redfish://10.0.0.6 --secret rack-a1\n  dragonfly bmc set pc-1 wol://52-54-00-12-34-56\n\n\
        Addresses: ipmi://HOST[:PORT], redfish://HOST[/redfish/v1/Systems/ID], proxmox://HOST/qemu/VMID, wol://MAC with\n\
        dashes. redfish and proxmox are trusted by ?tls=sha256:FINGERPRINT, which an error of `bmc test` tells. A password\n\
        never stands in an address."
    )]
    Set {
        /// Its name in any spelling, or a MAC
        #[arg(value_parser = words::name)]
        machine: String,
        /// Where its controller answers
        #[arg(value_parser = words::controller)]
        address: Url,
        /// Who logs in
        #[arg(short, long, value_name = "NAME", conflicts_with = "secret")]
        username: Option<String>,
        /// The password stands in this file, `-` for standard input; asked for, without
        #[arg(long, value_name = "FILE", requires = "username")]
        password_file: Option<PathBuf>,
        /// A Secret with the keys username and password
        #[arg(long, value_name = "NAME", value_parser = words::name)]
        secret: Option<String>,
        /// How firmware is to boot [default: as the agent saw it]
        #[arg(long, value_enum)]
        boot_mode: Option<Mode>,
        /// Do not log in to see that it is right
        #[arg(long)]
        no_test: bool,
    },
    /// Machines have no controller any more, and their agents make no accounts until `set` or `allow-account`
    #[command(after_help = "Example:\n  dragonfly bmc remove db-1")]
    Remove {
        /// Their names in any spelling, or MACs
        #[arg(required = true, value_parser = words::name)]
        machines: Vec<String>,
    },
    /// Let machines' agents make accounts on their controllers again, after `remove`
    #[command(after_help = "For a server with --bmc-accounts.\n\nExample:\n  dragonfly bmc allow-account db-1")]
    AllowAccount {
        /// Their names in any spelling, or MACs
        #[arg(required = true, value_parser = words::name)]
        machines: Vec<String>,
    },
    /// Log in to controllers and see what they can do
    Test {
        #[command(flatten)]
        which: Machines,
        /// How to write it
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Show, insert or eject the image in a controller's virtual drive
    #[command(
        disable_help_subcommand = true,
        after_help = "Examples:\n  dragonfly bmc media db-1\n  dragonfly bmc media db-1 insert https://10.0.0.1/rescue.iso\n  \
        dragonfly bmc media db-1 eject\n  dragonfly power boot-device db-1 --set cdrom"
    )]
    Media {
        /// Its name in any spelling, or a MAC
        #[arg(value_parser = words::name)]
        machine: String,
        /// What to do; show what is in the drive, without
        #[command(subcommand)]
        command: Option<MediaCommand>,
        /// How to write it
        #[arg(short, long, value_enum, default_value_t, global = true)]
        output: Format,
    },
    /// Show a machine's hardware as its controller tells it, and where its agent saw something else
    #[command(after_help = "Examples:\n  dragonfly bmc inventory db-1\n  dragonfly bmc inventory db-1 -o json")]
    Inventory {
        /// Its name in any spelling, or a MAC
        #[arg(value_parser = words::name)]
        machine: String,
        /// How to write it
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Show what firmware a machine's parts have
    #[command(after_help = "Examples:\n  dragonfly bmc firmware db-1\n  dragonfly bmc firmware db-1 -o yaml")]
    Firmware {
        /// Its name in any spelling, or a MAC
        #[arg(value_parser = words::name)]
        machine: String,
        /// How to write it
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Show what a controller measures
    Sensors {
        /// Its name in any spelling, or a MAC
        #[arg(value_parser = words::name)]
        machine: String,
        /// How to write it
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Show the end of a controller's event log
    Events {
        /// Its name in any spelling, or a MAC
        #[arg(value_parser = words::name)]
        machine: String,
        /// So many entries at most
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
        /// How to write it
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum MediaCommand {
    /// Put an image in, in the place of one that is there
    Insert {
        /// Where the controller fetches it: http, https, nfs, cifs; without user and password
        #[arg(value_parser = words::link)]
        image: Url,
    },
    /// Take the image out
    Eject,
}
