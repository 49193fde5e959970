//! The words of the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use dragonfly_core::Mac;
use dragonfly_core::resource::power::PowerPolicy;
use url::Url;

use super::import::Foreign;
use super::power::{BmcCommand, PowerCommand};
use super::words;
use crate::config::{self, Config, ConfigError, Options};

/// Bare-metal provisioning: power on, discovered, assigned, installed, ready.
///
/// Without a command, serves: boot services for machines, an API and web pages for people.
#[derive(Debug, Parser)]
#[command(name = "dragonfly", version, max_term_width = 100, subcommand_help_heading = "Commands", after_long_help = EXAMPLES)]
pub struct Cli {
    /// What to do; serve, without
    #[command(subcommand)]
    pub(super) command: Option<Command>,

    /// Data directory [default: /var/lib/dragonfly]
    #[arg(long, env = "DRAGONFLY_DATA", value_name = "DIR", global = true)]
    pub(super) data: Option<PathBuf>,

    /// Configuration file; it must exist when named here [default: /etc/dragonfly/config.toml]
    #[arg(long, env = "DRAGONFLY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten, next_help_heading = "Serving")]
    options: Options,

    #[command(flatten, next_help_heading = "Reaching a server")]
    pub(super) reach: Reach,
}

const EXAMPLES: &str = "\
Examples:
  dragonfly --data /srv/dragonfly              serve on port 3000
  dragonfly apply -f network.yaml              say on which network to answer DHCP
  dragonfly get machines                       what has been discovered
  dragonfly assign CensusAbleQualityParent --template debian-12
  dragonfly watch CensusAbleQualityParent --until ready
  dragonfly why 52:54:00:ab:cd:01              what it would boot now, and why

Environment for commands:
  DRAGONFLY_SERVER      the server [default: http://127.0.0.1:3000]
  DRAGONFLY_TOKEN       the token itself; or
  DRAGONFLY_TOKEN_FILE  a file that holds it [default: admin.token in the data directory]
  DRAGONFLY_PIN         the server's fingerprint, as it prints at its start

Exit codes: 0 done, 1 failed, 2 the command line was not understood.";

/// Which server, and how it is trusted.
#[derive(Debug, Args)]
pub(super) struct Reach {
    /// The server
    #[arg(long, env = "DRAGONFLY_SERVER", value_name = "URL", global = true, default_value = "http://127.0.0.1:3000",
          value_parser = words::server)]
    pub(super) server: Url,
    /// Fingerprint of the server's key (SHA-256, hex), as the server prints at its start
    #[arg(long, env = "DRAGONFLY_PIN", value_name = "HEX", global = true, value_parser = crate::tls::parse_pin)]
    pub(super) pin: Option<String>,
}

impl Cli {
    /// The settings to serve with.
    pub(super) fn settle(self) -> Result<Config, ConfigError> {
        let file = config::read_file(self.config.as_deref())?;
        let flags = Options { data: self.data, ..self.options };
        flags.or(file).settle()
    }
}

/// How something is written out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns for people
    #[default]
    Table,
    /// More columns
    Wide,
    /// JSON for programs
    Json,
    /// YAML, as `apply` takes it
    Yaml,
    /// Kind and name only
    Name,
}

/// How a template is installed.
#[derive(Debug, Args)]
pub(super) struct Install {
    /// A value for the template; several times for several
    #[arg(long = "value", value_name = "KEY=VALUE")]
    pub(super) values: Vec<String>,
    /// A disk that may be overwritten although it carries data, or `all`; several times for several.
    /// A reimage takes all that the template names, without
    #[arg(long, value_name = "DISK")]
    pub(super) overwrite: Vec<String>,
    /// What is done with the machine's power, where its controller is known [default: cycle]
    #[arg(long, value_enum, value_name = "HOW")]
    pub(super) power: Option<Power>,
    /// Do not ask
    #[arg(short, long)]
    pub(super) yes: bool,
}

/// What an assignment does with a machine's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Power {
    /// Nothing: somebody else boots it
    None,
    /// One that is off is booted from the network; one that is on is left alone
    On,
    /// One that is off, or on and not waiting in the agent, is booted from the network
    Cycle,
}

impl From<Power> for PowerPolicy {
    fn from(power: Power) -> Self {
        match power {
            Power::None => Self::None,
            Power::On => Self::On,
            Power::Cycle => Self::Cycle,
        }
    }
}

/// Where `watch` ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Until {
    /// When the machine is Ready; fails when it is in Error or Held
    Ready,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show objects: machines, templates, workflows, networks, secrets; and Proxmox clusters
    #[command(after_help = "Examples:\n  dragonfly get machines\n  dragonfly get template debian-12 -o yaml\n  \
        dragonfly get machines -l rack=a1 -o json\n  dragonfly get clusters")]
    Get {
        /// machines (hardware, hw), templates (tpl), workflows (wf), networks (net), secrets (sec), clusters
        what: String,
        /// Only these; machines in any spelling of their name, or by MAC
        #[arg(value_parser = words::name)]
        names: Vec<String>,
        /// Only objects with these labels: `rack=a1,role=db`
        #[arg(short = 'l', long, value_name = "LABELS", value_parser = words::labels)]
        selector: Option<String>,
        /// How to write it
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Show everything about one object, for people
    Describe {
        /// As for `get`
        what: String,
        /// Its name; a machine's in any spelling, or a MAC
        #[arg(value_parser = words::name)]
        name: String,
    },
    /// Create or change objects from files
    #[command(after_help = "Examples:\n  dragonfly apply -f template.yaml\n  dragonfly apply -f site/\n  \
        cat network.yaml | dragonfly apply -f -\n\nAll of a file is checked before any of it is written; the first file that fails is the last that is tried. What was\n\
        written and what was not is told, and the same may be applied again.")]
    Apply {
        /// A file of YAML or JSON, `-` for standard input, or a directory (its *.yaml, *.yml, *.json)
        #[arg(short = 'f', long = "file", value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// How to write what was done
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Delete objects
    #[command(after_help = "Examples:\n  dragonfly delete template debian-12\n  dragonfly delete -f old.yaml\n  \
        dragonfly delete machines --unclaimed\n\nA machine that is deleted registers anew when it boots from the network.")]
    Delete {
        /// As for `get`
        #[arg(required_unless_present = "files")]
        what: Option<String>,
        /// Their names
        #[arg(required_unless_present_any = ["files", "unclaimed"], value_parser = words::name)]
        names: Vec<String>,
        /// Of machines: all that registered themselves, that nobody has labelled, edited or assigned to, and that were
        /// not heard for an hour
        #[arg(long, requires = "what", conflicts_with_all = ["names", "files"])]
        unclaimed: bool,
        /// What these files hold
        #[arg(short = 'f', long = "file", value_name = "FILE", conflicts_with_all = ["what", "names"])]
        files: Vec<PathBuf>,
    },
    /// Have a template installed on machines
    #[command(after_help = "Examples:\n  dragonfly assign CensusAbleQualityParent --template debian-12\n  \
        dragonfly assign 52:54:00:ab:cd:01 --template debian-12 --value user=ops --overwrite sda\n\n\
        Disks that carry data are refused unless --overwrite names them (kernel name or serial) or says `all`.")]
    Assign {
        /// Their names in any spelling, or MACs
        #[arg(required = true, value_parser = words::name)]
        machines: Vec<String>,
        /// The template
        #[arg(short, long, value_name = "NAME", value_parser = words::name)]
        template: String,
        #[command(flatten)]
        install: Install,
    },
    /// Install machines anew, whatever is on their disks
    #[command(after_help = "Examples:\n  dragonfly reimage CensusAbleQualityParent\n  \
        dragonfly reimage CensusAbleQualityParent --template debian-13 --yes")]
    Reimage {
        /// Their names in any spelling, or MACs
        #[arg(required = true, value_parser = words::name)]
        machines: Vec<String>,
        /// The template; the one installed last, without
        #[arg(short, long, value_name = "NAME", value_parser = words::name)]
        template: Option<String>,
        #[command(flatten)]
        install: Install,
    },
    /// Give what failed another attempt, from the right place
    Retry {
        /// Their names in any spelling, or MACs
        #[arg(required = true, value_parser = words::name)]
        machines: Vec<String>,
    },
    /// Call off what machines are to run
    Abort {
        /// Their names in any spelling, or MACs
        #[arg(required = true, value_parser = words::name)]
        machines: Vec<String>,
    },
    /// Refuse assign, reimage and delete for machines
    Protect {
        /// Their names in any spelling, or MACs
        #[arg(required = true, value_parser = words::name)]
        machines: Vec<String>,
        /// Allow them again
        #[arg(long)]
        off: bool,
    },
    /// Do nothing to machines: they boot from their disks
    #[command(
        after_help = "Examples:\n  dragonfly hold CensusAbleQualityParent --reason \"fan replaced on Friday\"\n  \
        dragonfly hold 52:54:00:ab:cd:01 52:54:00:ab:cd:02"
    )]
    Hold {
        /// Their names in any spelling, or MACs
        #[arg(required = true, value_parser = words::name)]
        machines: Vec<String>,
        /// Why, for whoever finds it held [default: by an operator]
        #[arg(long, value_name = "WORDS")]
        reason: Option<String>,
    },
    /// Release from a hold; with --question, say yes to what is asked about a machine's identity
    #[command(
        after_help = "Who asks is named by `dragonfly why`: the card that it boots from, and what its board says. Take the command from\n\
        there: --question answers that, and nothing that somebody else asks at that moment. Without it a hold is released,\n\
        and nothing is said of who asks."
    )]
    Release {
        /// Their names in any spelling, or MACs
        #[arg(required = true, value_parser = words::name)]
        machines: Vec<String>,
        /// Say yes to this question of `dragonfly why`, of one machine
        #[arg(long, value_name = "ID", value_parser = words::question)]
        question: Option<String>,
    },
    /// Say no to what is asked about a machine's identity: whoever asks is not the machine
    #[command(
        after_help = "Who asks is named by `dragonfly why`: the card that it boots from, and what its board says. Take the command from\n\
        there: --question answers that, and nothing that somebody else asks at that moment.\n\
        It is refused from now on; nobody else is asked about for 15 minutes.\n\
        `dragonfly release` takes it back."
    )]
    Deny {
        /// Its name in any spelling, or a MAC
        #[arg(value_parser = words::name)]
        machine: String,
        /// Which question of `dragonfly why` is answered
        #[arg(long, value_name = "ID", value_parser = words::question)]
        question: String,
    },
    /// Write every object as YAML, for `import` on another server, whatever its store is
    #[command(after_help = "Examples:\n  dragonfly export -o site.yaml\n  dragonfly export --kind templates\n\n\
        What the engine knows goes with machines and workflows. Left out: secrets, each is named; what this server has\n\
        allowed; images, logs, events, DHCP leases.")]
    Export {
        /// Only this kind, as for `get`
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
        /// The file, which must not exist; standard output, without
        #[arg(short, long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Take what `export` has written, or write down what is expected
    #[command(
        subcommand_negates_reqs = true,
        args_conflicts_with_subcommands = true,
        arg_required_else_help = true,
        after_help = "Examples:\n  dragonfly import site.yaml --dry-run\n  dragonfly import site.yaml\n  \
        dragonfly import machines rack-a1.csv\n\n\
        Nothing is overwritten: an object that is there and differs is refused, and then nothing is written. Machines\n\
        and workflows that had work under way are held."
    )]
    Import {
        /// What `export` has written, `-` for standard input
        #[arg(required = true)]
        file: Option<PathBuf>,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
        /// What
        #[command(subcommand)]
        what: Option<ImportCommand>,
    },
    /// Switch machines by their controllers, and choose what they boot from
    #[command(
        subcommand_required = true,
        arg_required_else_help = true,
        after_help = "Examples:\n  \
        dragonfly power status -l rack=a1\n  dragonfly power on CensusAbleQualityParent\n  \
        dragonfly power boot-device db-1 --set pxe\n  dragonfly power cycle -l rack=a1 --yes\n\n\
        Where a machine's controller is: dragonfly bmc set. With several machines, each failure is told, the others go on,\n\
        and the exit code is 1."
    )]
    Power {
        /// What is done
        #[command(subcommand)]
        command: PowerCommand,
    },
    /// Machines' controllers: where they are, whether they answer, what they measure
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Bmc {
        /// What is done
        #[command(subcommand)]
        command: BmcCommand,
    },
    /// Follow what happens, live
    #[command(
        after_help = "Examples:\n  dragonfly watch\n  dragonfly watch CensusAbleQualityParent --until ready --timeout 1800\n\n\
        With --until the exit code is 1 when the machine ends in Error or Held, or the time is over."
    )]
    Watch {
        /// Only this machine
        #[arg(value_parser = words::name)]
        machine: Option<String>,
        /// End when the machine has come this far
        #[arg(long, value_enum, requires = "machine")]
        until: Option<Until>,
        /// End after this many seconds
        #[arg(long, value_name = "SECONDS", requires = "until")]
        timeout: Option<u64>,
    },
    /// Say what a machine would boot now, and why
    Why {
        /// Its name in any spelling, or a MAC, also one that nobody has seen
        #[arg(value_parser = words::name)]
        machine: String,
        /// How to write it
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Show what happened to a machine, boot by boot: DHCP, TFTP, HTTP, its agent's steps and log
    #[command(after_help = "Examples:\n  dragonfly timeline CensusAbleQualityParent\n  \
        dragonfly timeline 52:54:00:ab:cd:01 --follow\n  dragonfly timeline db-1 -o json\n\n\
        Seconds count from the beginning of each boot. With --follow and -o json, one object a line.")]
    Timeline {
        /// Its name in any spelling, or any of its MACs, also one that has only asked so far
        #[arg(value_parser = words::name)]
        machine: String,
        /// Go on with what happens next, until interrupted
        #[arg(short, long)]
        follow: bool,
        /// How to write it
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Show the end of a machine's agent log
    Log {
        /// Its name in any spelling, or a MAC
        #[arg(value_parser = words::name)]
        machine: String,
    },
    /// Write everything the server keeps to a new file, while it serves
    #[command(after_help = "Example:\n  dragonfly backup dragonfly-2026-11-21.backup\n\n\
        Left out: the sealing key, images, boot files, logs, DHCP leases.")]
    Backup {
        /// The file; it must not exist
        file: PathBuf,
    },
    /// Make the data directory's store from a backup, before the server starts
    #[command(after_help = "Example:\n  dragonfly restore dragonfly-2026-11-21.backup --data /var/lib/dragonfly\n\n\
        Every byte of the backup is checked first, and a store that is there is never overwritten. When the server starts,\n\
        machines that were being worked on are held.")]
    Restore {
        /// The backup
        file: PathBuf,
    },
    /// Print a one-time link that signs a browser in
    Login,
    /// Write what kubectl and other clients of Kubernetes need to use this server
    #[command(
        after_help = "Examples:\n  dragonfly kubeconfig --server https://10.0.0.1:3000 --out ~/.kube/dragonfly\n  \
        kubectl --kubeconfig ~/.kube/dragonfly get hardware\n\n\
        The file holds the token and is for its owner alone. With several configurations: KUBECONFIG=FILE:FILE."
    )]
    Kubeconfig {
        /// The file; standard output, without
        #[arg(short, long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Print the definitions of Dragonfly's kinds for a Kubernetes cluster
    #[command(after_help = "Example:\n  dragonfly crds | kubectl apply -f -")]
    Crds,
    /// Install into a Kubernetes cluster what a server needs there: definitions, namespace, permissions
    #[command(after_help = "Examples:\n  dragonfly install --kubernetes --dry-run\n  \
        dragonfly install --kubernetes && dragonfly --backend kubernetes\n  \
        dragonfly install --kubernetes --image registry.example/dragonfly:0.1.0\n\n\
        May be repeated: what is there is made to be as it says.")]
    Install(super::cluster::InstallArgs),
    /// Print completions for a shell
    #[command(after_help = "Examples:\n  source <(dragonfly completions bash)\n  \
        dragonfly completions zsh > ~/.zfunc/_dragonfly\n  \
        dragonfly completions fish > ~/.config/fish/completions/dragonfly.fish")]
    Completions {
        /// Which
        shell: clap_complete::Shell,
    },
    /// Say the memorable name of a MAC
    #[command(after_help = "Example:\n  dragonfly name 52:54:00:ab:cd:01      CensusAbleQualityParent")]
    Name {
        /// The MAC
        mac: Mac,
    },
    /// Mage, the agent that machines boot into
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Mage {
        /// What to do with it
        #[command(subcommand)]
        command: MageCommand,
    },
    /// Run the boot services alone at a remote site (not in this version)
    #[command(hide = true)]
    Boot,
}

#[derive(Debug, Subcommand)]
pub(super) enum ImportCommand {
    /// Machines from a CSV file, before any of them was seen; names those that do not appear
    #[command(
        after_help = "The first line names the columns, in any order: mac, serial (one of the two at least), name, bmc,\n\
        secret (the name of a Secret with username and password), labels (KEY=VALUE, set apart by `;`).\n\n\
        mac,serial,bmc,secret,labels\n\
        52:54:00:ab:cd:01,SN-1042,ipmi://10.0.0.6,rack-a1,rack=a1\n\n\
        Examples:\n  dragonfly import machines rack-a1.csv --dry-run\n  \
        dragonfly import machines rack-a1.csv --power-on --wait 900\n\n\
        All of the file is checked before anything is done. A machine that tells another serial number than the file is\n\
        refused as a conflict. With --wait the exit code is 1 when one of them did not appear."
    )]
    Machines {
        /// The file, `-` for standard input
        file: PathBuf,
        /// Boot those that have a controller from the network
        #[arg(long)]
        power_on: bool,
        /// Wait so long for all of them to appear
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
        /// Only say what would be done
        #[arg(long, conflicts_with_all = ["power_on", "wait"])]
        dry_run: bool,
    },
    /// Machines, templates and their pairs from manifests of Tinkerbell
    #[command(
        after_help = "Hardware, Template and Workflow of tinkerbell.org/v1alpha1, Machine of bmc.tinkerbell.org/v1alpha1, and the\n\
        Secrets that they refer to: as files, or as `kubectl get hw,tpl,wf -A -o yaml` writes them. Templates are filled for\n\
        the machines that Workflows name; their actions become the native ones. Every field that is not carried over as it\n\
        stands is told.\n\n\
        Examples:\n  dragonfly import tinkerbell -f manifests/ --dry-run\n  \
        dragonfly import tinkerbell -f stack.yaml --dry-run -o yaml > ours.yaml\n  \
        dragonfly import tinkerbell -f manifests/ --map-url http://10.1.1.11:8080/=/images/ --assign\n\n\
        The exit code is 1 when nothing could be made, and when an assignment failed."
    )]
    Tinkerbell(Foreign),
    /// Machines and their images from manifests of Metal3
    #[command(
        after_help = "BareMetalHost of metal3.io/v1alpha1 and the Secrets that it refers to. Of an image, a template is made that\n\
        writes it and reboots.\n\n\
        Examples:\n  dragonfly import metal3 -f hosts.yaml --dry-run\n  dragonfly import metal3 -f hosts.yaml --assign"
    )]
    Metal3(Foreign),
}

#[derive(Debug, Subcommand)]
pub(super) enum MageCommand {
    /// Build kernel, RAM disk and UEFI image into a directory, as --boot-files takes it
    #[command(after_help = "Examples:\n  dragonfly mage build --out /var/lib/dragonfly/boot\n  \
        dragonfly mage build --out DIR --modules-from alpine-netboot/")]
    Build {
        /// Where the files go
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// The agent's static binary; found beside this program or built, without
        #[arg(long, value_name = "PATH")]
        mage: Option<PathBuf>,
        /// Kernel and modules from a directory laid out as Alpine's netboot, not from Debian
        #[arg(long, value_name = "DIR")]
        modules_from: Option<PathBuf>,
        /// The Debian package of the kernel [default: linux-image-amd64]
        #[arg(long, value_name = "NAME")]
        kernel_package: Option<String>,
        /// Where fetched packages are kept
        #[arg(long, value_name = "DIR")]
        cache: Option<PathBuf>,
        /// Firmware of network cards, laid out as /lib/firmware, which is taken without
        #[arg(long, value_name = "DIR")]
        firmware: Option<PathBuf>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_words_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_deleted_is_said_in_one_way() {
        for (line, is_good) in [
            ("delete machine a", true),
            ("delete -f a.yaml", true),
            ("delete machines --unclaimed", true),
            ("delete machines", false),
            ("delete --unclaimed", false),
            ("delete machines a --unclaimed", false),
            ("delete machines --unclaimed -f a.yaml", false),
        ] {
            let words = ["dragonfly", "--data", "/d"].into_iter().chain(line.split(' '));
            assert_eq!(Cli::try_parse_from(words).is_ok(), is_good, "{line}");
        }
    }

    #[test]
    fn no_secret_is_taken_on_the_command_line() {
        let command = Cli::command();
        let mut all = vec![&command];
        while let Some(command) = all.pop() {
            all.extend(command.get_subcommands());
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                // A file that holds one is another matter.
                let is_secret = id.contains("token") || id.contains("password");
                assert!(!is_secret || id.ends_with("_file"), "{} {id}", command.get_name());
            }
        }
    }
}
