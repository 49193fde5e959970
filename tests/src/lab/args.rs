//! The words of `cargo lab`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::fault::Fault;
use dragonfly_core::diagnose::Fault as Named;

/// Blank virtual machines from power-on to Ready, through the real server.
///
/// Without a command: starts some, shows them come up, and keeps the web pages at
/// http://127.0.0.1:3000 until Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "cargo lab", max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Lab {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) interactive: Interactive,
}

const EXAMPLES: &str = "\
Examples:
  cargo lab
  cargo lab --machines 1 --firmware uefi --image small   (a smaller system, sooner)
  cargo lab run --machines 3 --firmware mixed --template disk --report report.json --keep kept/
  cargo lab run --firmware uefi --dhcp proxy --template partitions
  cargo lab run --scenario bad-image
  cargo lab run --scenario why --fault mtu --keep kept/

Needs root, for a network namespace of its own. DRAGONFLY_LAB_ACCEL=kvm|tcg sets how QEMU runs
machines; unset, KVM is tried by booting something on it. DRAGONFLY_LAB_BIN names a directory with
`dragonfly` and `mage` to be used as they are; DRAGONFLY_LAB_CACHE one where images are kept.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The same unattended; exits 0 only if every machine came up as wished
    Run(Run),
    /// Only build the operating system images, or find them in the cache
    Image(Image),
}

#[derive(Debug, Args)]
pub(crate) struct Interactive {
    /// How many machines
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) machines: u8,
    /// Their firmware
    #[arg(long, value_enum, default_value_t = FirmwareChoice::Mixed)]
    pub(crate) firmware: FirmwareChoice,
    /// The template that is assigned to them
    #[arg(long, value_enum, default_value_t = TemplateChoice::Disk)]
    pub(crate) template: TemplateChoice,
    /// The Debian that is installed: a small one, or one with systemd, cloud-init and SSH
    #[arg(long, value_enum, default_value_t = ImageChoice::Full)]
    pub(crate) image: ImageChoice,
    /// Port of the web pages on this machine's loopback
    #[arg(long, default_value_t = 3000)]
    pub(crate) port: u16,
    /// Assign nothing: do it yourself in the web pages
    #[arg(long)]
    pub(crate) no_assign: bool,
    /// Install missing packages without asking
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Run {
    /// How many machines
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) machines: u8,
    /// Their firmware; mixed is bios, uefi, uefi-http in that order
    #[arg(long, value_enum, default_value_t = FirmwareChoice::Bios)]
    pub(crate) firmware: FirmwareChoice,
    /// What the server's DHCP does; proxy and auto stand beside a dnsmasq that owns the addresses
    #[arg(long, value_enum, default_value_t = Dhcp::Full)]
    pub(crate) dhcp: Dhcp,
    /// Give the machines management controllers: each is off, and one assign is to be enough
    #[arg(long, value_enum, default_value_t = Bmc::None)]
    pub(crate) bmc: Bmc,
    /// Where the server keeps its state
    #[arg(long, value_enum, default_value_t = Store::Redb)]
    pub(crate) store: Store,
    /// How many servers run on one store; two want --store kubernetes
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(crate) instances: u8,
    /// What is installed: a whole-disk image, or partitions with a root file system and a boot loader
    #[arg(long, value_enum, default_value_t = TemplateChoice::Disk)]
    pub(crate) template: TemplateChoice,
    /// Which Debian
    #[arg(long, value_enum, default_value_t = ImageChoice::Small)]
    pub(crate) image: ImageChoice,
    /// What is tried
    #[arg(long, value_enum, default_value_t = Scenario::Install)]
    pub(crate) scenario: Scenario,
    /// Write the report here, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Keep captures, command lines, serial logs, disks and the store in this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    /// Give up after this many seconds, counted from the first machine's start
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) timeout: u64,
    /// Break something when the first machine gets somewhere, and mend it: server@POINT (killed),
    /// machine@POINT (its power cut), link:SECONDS@POINT (its cable pulled), instance@POINT (one of two servers
    /// killed for good), etcd:SECONDS@POINT. POINT is one of dhcp, script,
    /// kernel, mage, registered, assigned, began, image, configure, handover, ready. With --scenario why the
    /// name of a fault: blocked-tftp, mtu, ...
    #[arg(long, value_name = "WHAT@POINT|NAME", value_parser = clap::value_parser!(Wanted))]
    pub(crate) fault: Vec<Wanted>,
    /// Kill the server while an image streams, and start it again: the same as --fault server@image
    #[arg(long)]
    pub(crate) kill_server_while_imaging: bool,
    /// Reset each machine this many times once it is Ready: it must come up from its disk each time
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) ready_reboots: u32,
    /// With --scenario tinkerbell: these files, or those in these directories, instead of the lab's own; every image that
    /// they name is the lab's, with its root file system in partition 1 as cloud images have it
    #[arg(long, value_name = "FILE|DIR", num_args = 1..)]
    pub(crate) manifests: Vec<PathBuf>,
    /// With --manifests: what they say is something else here, as in `/dev/sda=/dev/vda` or `http://10.0.0.9/=/images/`
    #[arg(long, value_name = "FROM=TO", value_parser = pair, requires = "manifests")]
    pub(crate) map: Vec<(String, String)>,
    /// Install missing packages without asking
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// `FROM=TO`
fn pair(word: &str) -> Result<(String, String), String> {
    match word.split_once('=') {
        Some((from, to)) if !from.is_empty() => Ok((from.to_owned(), to.to_owned())),
        _ => Err("write FROM=TO".to_owned()),
    }
}

/// What is to go wrong: something at a point of the way, or a fault that the server is to name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    At(Fault),
    Named(Named),
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('@') {
            return text.parse().map(Self::At);
        }
        let found = Named::ALL.into_iter().find(|fault| fault.code() == text);
        found.map(Self::Named).ok_or_else(|| {
            let names = Named::ALL.map(Named::code).join(", ");
            format!("as in server@image, or with --scenario why one of {names}")
        })
    }
}

impl Run {
    /// The faults at points of the way.
    pub(crate) fn faults_at_points(&self) -> anyhow::Result<Vec<Fault>> {
        let one = |wanted: &Wanted| match wanted {
            Wanted::At(fault) => Ok(*fault),
            Wanted::Named(name) => {
                anyhow::bail!("--fault {}: belongs to --scenario why; here as in server@image", name.code())
            }
        };
        self.fault.iter().map(one).collect()
    }

    /// The faults that the server is to name.
    pub(crate) fn named_faults(&self) -> anyhow::Result<Vec<Named>> {
        let one = |wanted: &Wanted| match wanted {
            Wanted::Named(name) => Ok(*name),
            Wanted::At(fault) => anyhow::bail!("--fault {fault}: --scenario why wants a name, as in blocked-tftp"),
        };
        self.fault.iter().map(one).collect()
    }
}

#[derive(Debug, Args)]
pub(crate) struct Image {
    /// Which Debian
    #[arg(long, value_enum, default_value_t = ImageChoice::Small)]
    pub(crate) image: ImageChoice,
    /// For which template
    #[arg(long, value_enum, default_value_t = TemplateChoice::Disk)]
    pub(crate) template: TemplateChoice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FirmwareChoice {
    Bios,
    Uefi,
    UefiHttp,
    Mixed,
}

/// What one machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Firmware {
    Bios,
    Uefi,
    UefiHttp,
}

impl Firmware {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Uefi => "uefi",
            Self::UefiHttp => "uefi-http",
        }
    }
}

impl FirmwareChoice {
    /// What machine number `index`, from 0, has.
    pub(crate) fn of(self, index: usize) -> Firmware {
        match self {
            Self::Bios => Firmware::Bios,
            Self::Uefi => Firmware::Uefi,
            Self::UefiHttp => Firmware::UefiHttp,
            Self::Mixed => [Firmware::Bios, Firmware::Uefi, Firmware::UefiHttp][index % 3],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dhcp {
    Full,
    Reservation,
    Proxy,
    Auto,
}

impl Dhcp {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Reservation => "reservation",
            Self::Proxy => "proxy",
            Self::Auto => "auto",
        }
    }

    /// Whether another server owns the addresses.
    pub(crate) fn has_peer(self) -> bool {
        matches!(self, Self::Proxy | Self::Auto)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Bmc {
    None,
    Ipmi,
    Redfish,
    /// QEMU's own monitor, by the driver of examples/power_driver
    Qmp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Store {
    /// The embedded store
    Redb,
    /// The third party's, of examples/store
    Sqlite,
    /// A real API server with etcd, which .ci/kubernetes builds
    Kubernetes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TemplateChoice {
    /// A whole-disk image; its last partition is grown
    Disk,
    /// A partition table, a root file system streamed into it, a boot loader
    Partitions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImageChoice {
    /// Debian's essential packages, kernel and udev; under 100 MB
    Small,
    /// systemd, cloud-init, SSH
    Full,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Blank machines are installed
    Install,
    /// A disk that already carries a system, unknown to the server, comes up unchanged
    Adopt,
    /// The agent makes an account on the machine's controller, and the server and others log in with it
    BmcAccount,
    /// What the agent reports of a machine is what the machine was given
    Inventory,
    /// Server, machine and cable fail at every point of the way, one after the other
    Faults,
    /// Images and templates that are wrong end in errors that name the cause
    BadImage,
    /// A marked secret goes through an installation and is found nowhere but on the disk
    Secrets,
    /// Placeholder serial numbers, a card that was replaced, a cloned address: no two machines become one
    Identity,
    /// The server is put back to a time at which a machine that is Ready was being installed: its disk stays as it is
    Rollback,
    /// `dragonfly why` and the machine's page name each fault while it lasts; --machines: how many at a time
    Why,
    /// A CSV of expected machines: those that are there are switched on and matched, the one that is not is named
    Expected,
    /// Manifests of Tinkerbell are imported and assigned by one command, and install a machine
    Tinkerbell,
}
