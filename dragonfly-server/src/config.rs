//! Settings of the server: flags, then `DRAGONFLY_*`, then the configuration file, then defaults.

mod clusters;

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use dragonfly_core::boot::Discovery;
use dragonfly_core::engine::{ClusterSource, Settings};
use serde::Deserialize;
use url::Url;

pub use clusters::ClusterError;

use crate::cli::words::agents_server;

/// Where the configuration file stands unless told.
pub const CONFIG_FILE: &str = "/etc/dragonfly/config.toml";
/// Where the data stands unless told.
pub const DATA_DIR: &str = "/var/lib/dragonfly";
/// The namespace in a Kubernetes cluster unless told.
pub const NAMESPACE: &str = "dragonfly";
/// The backend whose machines, templates and workflows are Tinkerbell's.
pub const TINKERBELL: &str = "tinkerbell";
/// Tinkerbell's own namespace unless told.
pub const TINKERBELL_NAMESPACE: &str = "tinkerbell";
/// How many other instances an agent can be told of: its identity has a place of its own in boot files.
const MOST_ALSO: usize = 7;
/// The port unless told.
pub const PORT: u16 = 3000;

/// What can be set on the command line, in the environment and in the file.
///
/// One type for all three: a flag, its variable and its key cannot drift apart.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Address to listen on [default: 0.0.0.0]
    #[arg(long, env = "DRAGONFLY_HOST", value_name = "ADDRESS")]
    pub host: Option<IpAddr>,
    /// Port for TLS and plain HTTP, told apart by their first byte [default: 3000]
    #[arg(long, env = "DRAGONFLY_PORT", value_name = "PORT")]
    pub port: Option<u16>,
    /// Directory of boot files: iPXE binaries, Mage's kernel and initramfs [default: DATA/boot]
    #[arg(long, env = "DRAGONFLY_BOOT_FILES", value_name = "DIR")]
    pub boot_files: Option<PathBuf>,
    /// Directory of operating system images [default: DATA/images]
    #[arg(long, env = "DRAGONFLY_IMAGES", value_name = "DIR")]
    pub images: Option<PathBuf>,
    /// What is done with machines that nobody has seen [default: local]
    #[arg(long, env = "DRAGONFLY_DISCOVERY", value_enum, value_name = "HOW")]
    pub discovery: Option<DiscoveryName>,
    /// How much of a datacenter this server runs [default: simple]
    #[arg(long, env = "DRAGONFLY_MODE", value_enum, value_name = "MODE")]
    pub mode: Option<Mode>,
    /// Where state is kept: redb, one file in the data directory; kubernetes; tinkerbell, a Kubernetes cluster whose
    /// machines, templates and workflows are Tinkerbell's; or another store of this build [default: redb]
    #[arg(long, env = "DRAGONFLY_BACKEND", value_name = "STORE")]
    pub backend: Option<BackendName>,
    /// With --backend kubernetes: the namespace of its Secrets [default: dragonfly]; with tinkerbell: Tinkerbell's
    /// [default: tinkerbell]
    ///
    /// The cluster is the one of KUBECONFIG, else of ~/.kube/config, else the one that this runs in.
    #[arg(long, env = "DRAGONFLY_NAMESPACE", value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Where machines reach this server, if not at the address their request came to
    #[arg(long, env = "DRAGONFLY_SERVER_URL", value_name = "URL", value_parser = agents_server)]
    pub server_url: Option<Url>,
    /// Where machines reach the other servers on the same store, by the same key: agents ask them when this one is gone
    #[arg(long, env = "DRAGONFLY_ALSO", value_name = "URL", value_delimiter = ',', value_parser = agents_server)]
    pub also: Option<Vec<Url>>,
    /// Region of this server: it serves the networks with this label `dragonfly.computer/region`, and those without one
    #[arg(long, env = "DRAGONFLY_REGION", value_name = "REGION")]
    pub region: Option<String>,
    /// Name of this server among those on the same store [default: its host name and a random part]
    #[arg(long, env = "DRAGONFLY_INSTANCE", value_name = "NAME")]
    pub instance: Option<String>,
    /// Host names, besides its own, under which browsers may reach this server
    #[arg(long, env = "DRAGONFLY_NAMES", value_name = "NAME", value_delimiter = ',')]
    pub names: Option<Vec<String>>,
    /// Have Mage make an account on a machine's BMC where none is known, and use it [default: false]
    ///
    /// For provisioning networks without strangers: whoever boots as a machine is given that account's password.
    #[arg(long, env = "DRAGONFLY_BMC_ACCOUNTS", value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub bmc_accounts: Option<bool>,
    /// PEM file of certificate authorities that vouch for BMCs and Proxmox clusters
    ///
    /// For addresses without `tls`; a fingerprint in an address counts as before.
    #[arg(long, env = "DRAGONFLY_BMC_CA", value_name = "FILE")]
    pub bmc_ca: Option<PathBuf>,
    /// How many machines there may be that registered themselves and that nobody has labelled, edited or assigned to:
    /// with more, new ones are refused [default: 10000]
    #[arg(long, env = "DRAGONFLY_UNCLAIMED", value_name = "MACHINES")]
    pub unclaimed: Option<usize>,
    /// The most that agents' logs take on the disk, in MiB: the oldest are deleted [default: 1024]
    #[arg(long, env = "DRAGONFLY_LOG_SPACE", value_name = "MIB")]
    pub log_space: Option<u32>,
    /// What is logged, as in `dragonfly_boot=debug,info` [default: info]
    #[arg(long, env = "DRAGONFLY_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// The data directory, when it is set in the file
    #[arg(skip)]
    pub data: Option<PathBuf>,
    /// Proxmox clusters whose VMs are machines, in the file alone: `[[proxmox]]` with `address` and `secret` for each
    #[arg(skip)]
    pub proxmox: Option<Vec<ClusterSource>>,
}

/// [`Discovery`] as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiscoveryName {
    /// Mage looks; a machine that carries an operating system is adopted and booted from its disk
    Local,
    /// Mage looks and waits, whatever is on the disk
    Wait,
    /// They boot from their disk
    Off,
}

impl From<DiscoveryName> for Discovery {
    fn from(name: DiscoveryName) -> Self {
        match name {
            DiscoveryName::Local => Self::Local,
            DiscoveryName::Wait => Self::Wait,
            DiscoveryName::Off => Self::Off,
        }
    }
}

/// How much of a datacenter one server runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One server, basic provisioning
    #[default]
    Simple,
    /// The whole datacenter from one server
    Flight,
    /// Several servers that share one store; not with redb
    Swarm,
}

impl Mode {
    /// As it is typed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Flight => "flight",
            Self::Swarm => "swarm",
        }
    }
}

/// The name of a kind of store, as `redb`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct BackendName(String);

impl BackendName {
    /// As it is typed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for BackendName {
    fn default() -> Self {
        Self("redb".to_owned())
    }
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for BackendName {
    type Error = &'static str;

    fn try_from(word: String) -> Result<Self, Self::Error> {
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if word.is_empty() || !word.bytes().all(is_plain) {
            return Err("a store is named by lower-case letters, digits and `-`, as redb");
        }
        Ok(Self(word))
    }
}

impl FromStr for BackendName {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::try_from(word.to_owned())
    }
}

/// Settings with nothing left open.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port to listen on; 0 takes any.
    pub port: u16,
    /// Where everything durable stands.
    pub data: PathBuf,
    /// Boot files.
    pub boot_files: PathBuf,
    /// Operating system images.
    pub images: PathBuf,
    /// What is done with unknown machines.
    pub discovery: Discovery,
    /// How much this server runs.
    pub mode: Mode,
    /// Where state is kept.
    pub backend: BackendName,
    /// The namespace of Secrets in a Kubernetes cluster, and of Tinkerbell's objects.
    pub namespace: String,
    /// Where machines reach the server, if not where their request came to.
    pub server_url: Option<Url>,
    /// Where machines reach the other servers on the same store.
    pub also: Vec<Url>,
    /// The region that it serves.
    pub region: Option<String>,
    /// Its name among the servers on the same store, if it is given one.
    pub instance: Option<String>,
    /// Host names accepted beside the machine's own.
    pub names: Vec<String>,
    /// Whether agents make accounts on controllers.
    pub bmc_accounts: bool,
    /// A PEM file of certificate authorities that vouch for controllers and clusters.
    pub bmc_ca: Option<PathBuf>,
    /// How many machines there may be that nobody has claimed.
    pub unclaimed: usize,
    /// The most that agents' logs take, in bytes.
    pub log_bytes: u64,
    /// The log filter.
    pub log: String,
    /// Proxmox clusters whose VMs are machines.
    pub clusters: Vec<ClusterSource>,
}

/// Why the settings do not make a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}; give another with --config FILE, or make this one readable")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not right.
    #[error("the configuration file {path} is not right")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// An entry of `[[proxmox]]` is not right.
    #[error("entry {number} of [[proxmox]] is not right")]
    Cluster {
        /// Which, from 1.
        number: usize,
        /// Why.
        #[source]
        source: ClusterError,
    },
    /// A name cannot be used.
    #[error("{what} is `{name}`: write lower-case letters, digits and `-` between them, 63 at most")]
    Name {
        /// Which setting.
        what: &'static str,
        /// What was given.
        name: String,
    },
    /// The server's URL cannot be used.
    #[error("{what} is `{url}`: {problem}")]
    ServerUrl {
        /// Which setting.
        what: &'static str,
        /// What was given.
        url: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// The options in a configuration file. Without `named`, a missing default file is an empty one.
pub fn read_file(named: Option<&Path>) -> Result<Options, ConfigError> {
    let path = named.unwrap_or(Path::new(CONFIG_FILE));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => return Ok(Options::default()),
        Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
    };
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Options, ConfigError> {
    toml::from_str(text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })
}

impl Options {
    /// These options, and where they are silent, those.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            host: self.host.or(other.host),
            port: self.port.or(other.port),
            boot_files: self.boot_files.or(other.boot_files),
            images: self.images.or(other.images),
            discovery: self.discovery.or(other.discovery),
            mode: self.mode.or(other.mode),
            backend: self.backend.or(other.backend),
            namespace: self.namespace.or(other.namespace),
            server_url: self.server_url.or(other.server_url),
            also: self.also.or(other.also),
            region: self.region.or(other.region),
            instance: self.instance.or(other.instance),
            names: self.names.or(other.names),
            bmc_accounts: self.bmc_accounts.or(other.bmc_accounts),
            bmc_ca: self.bmc_ca.or(other.bmc_ca),
            unclaimed: self.unclaimed.or(other.unclaimed),
            log_space: self.log_space.or(other.log_space),
            log: self.log.or(other.log),
            data: self.data.or(other.data),
            proxmox: self.proxmox.or(other.proxmox),
        }
    }

    /// Fills what is still open with defaults and refuses what does not fit together.
    pub fn settle(self) -> Result<Config, ConfigError> {
        if let Some(url) = &self.server_url {
            check_server_url("server_url", url)?;
        }
        let also = self.also.unwrap_or_default();
        for url in &also {
            check_server_url("also", url)?;
        }
        if also.len() > MOST_ALSO {
            let problem = "an agent carries seven at most";
            return Err(ConfigError::ServerUrl { what: "also", url: format!("{} URLs", also.len()), problem });
        }
        check_name("region", self.region.as_deref())?;
        check_name("instance", self.instance.as_deref())?;
        let clusters = self.proxmox.unwrap_or_default();
        clusters::check(&clusters)?;
        let data = self.data.unwrap_or_else(|| DATA_DIR.into());
        let backend = self.backend.unwrap_or_default();
        let namespace = self.namespace.unwrap_or_else(|| namespace_of(backend.as_str()).to_owned());
        let engine = Settings::default();
        Ok(Config {
            host: self.host.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            port: self.port.unwrap_or(PORT),
            boot_files: self.boot_files.unwrap_or_else(|| data.join("boot")),
            images: self.images.unwrap_or_else(|| data.join("images")),
            discovery: self.discovery.map_or(Discovery::default(), Discovery::from),
            mode: self.mode.unwrap_or_default(),
            backend,
            namespace,
            server_url: self.server_url,
            also,
            region: self.region,
            instance: self.instance,
            names: self.names.unwrap_or_default(),
            bmc_accounts: self.bmc_accounts.unwrap_or_default(),
            bmc_ca: self.bmc_ca,
            unclaimed: self.unclaimed.unwrap_or(engine.unclaimed),
            log_bytes: self.log_space.map_or(engine.log_bytes, |mebibytes| u64::from(mebibytes) << 20),
            log: self.log.unwrap_or_else(|| "info".to_owned()),
            clusters,
            data,
        })
    }
}

/// The namespace of a backend unless told.
pub(crate) fn namespace_of(backend: &str) -> &'static str {
    if backend == TINKERBELL { TINKERBELL_NAMESPACE } else { NAMESPACE }
}

/// Variables that begin like ours and that neither the server nor its commands read. Those of the project's own lab and
/// tests are none of them.
pub fn unknown_variables(names: impl Iterator<Item = OsString>) -> Vec<String> {
    const OURS: [&str; 24] = [
        "HOST",
        "PORT",
        "BOOT_FILES",
        "IMAGES",
        "DISCOVERY",
        "MODE",
        "BACKEND",
        "NAMESPACE",
        "SERVER_URL",
        "NAMES",
        "ALSO",
        "REGION",
        "INSTANCE",
        "BMC_ACCOUNTS",
        "BMC_CA",
        "UNCLAIMED",
        "LOG_SPACE",
        "LOG",
        "DATA",
        "CONFIG",
        "SERVER",
        "PIN",
        "TOKEN",
        "TOKEN_FILE",
    ];
    let is_project = |rest: &str| rest.starts_with("LAB_") || rest.starts_with("TEST_") || rest == "KUBE_APISERVER";
    let is_unknown = |rest: &str| !OURS.contains(&rest) && !is_project(rest);
    let names = names.filter_map(|name| name.into_string().ok());
    names.filter(|name| name.strip_prefix("DRAGONFLY_").is_some_and(is_unknown)).collect()
}

/// A label's value, and a part of a lease's name: what Kubernetes takes for both.
fn check_name(what: &'static str, name: Option<&str>) -> Result<(), ConfigError> {
    let Some(name) = name else { return Ok(()) };
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = name.len() <= 63 && name.chars().all(|c| is_plain(c) || c == '-');
    if fits && name.starts_with(is_plain) && name.ends_with(is_plain) {
        return Ok(());
    }
    Err(ConfigError::Name { what, name: name.to_owned() })
}

fn check_server_url(what: &'static str, url: &Url) -> Result<(), ConfigError> {
    let bad = |problem| Err(ConfigError::ServerUrl { what, url: url.to_string(), problem });
    if url.scheme() != "https" {
        return bad("Mage speaks only TLS to the server; write https://HOST:PORT");
    }
    if url.host().is_none() || !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return bad("write a host and a port and nothing after them: https://HOST:PORT");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return bad("it must not carry a user name or a password");
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(super) fn read(text: &str) -> Result<Options, ConfigError> {
        parse(Path::new("config.toml"), text)
    }

    pub(super) fn causes(error: &dyn std::error::Error) -> String {
        std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }

    #[test]
    fn earlier_sources_win_over_later_ones() {
        let flags = Options { port: Some(1), ..Options::default() };
        let file = read("port = 2\nhost = \"127.0.0.1\"\ndata = \"/d\"").unwrap();
        let config = flags.or(file).settle().unwrap();
        assert_eq!((config.port, config.host.to_string().as_str()), (1, "127.0.0.1"));
        assert_eq!(config.images, Path::new("/d/images"));
    }

    #[test]
    fn a_switch_is_off_until_it_is_set_anywhere() {
        use clap::FromArgMatches as _;
        let flags = |words: &[&str]| {
            let command = Options::augment_args(clap::Command::new("dragonfly"));
            let matches = command.try_get_matches_from([&["dragonfly"], words].concat())?;
            Options::from_arg_matches(&matches).map(|options| options.bmc_accounts)
        };
        assert_eq!(flags(&[]).unwrap(), None);
        assert_eq!(flags(&["--bmc-accounts"]).unwrap(), Some(true));
        assert_eq!(flags(&["--bmc-accounts=no"]).unwrap(), Some(false));
        assert!(flags(&["--bmc-accounts=maybe"]).is_err());
        let settled = |options: Options| options.settle().unwrap().bmc_accounts;
        assert!(!settled(Options::default()));
        assert!(settled(read("bmc_accounts = true").unwrap()));
        let off = Options { bmc_accounts: Some(false), ..Options::default() };
        assert!(!settled(off.or(read("bmc_accounts = true").unwrap())), "the flag wins");
    }

    #[test]
    fn bounds_are_as_they_are_set() {
        let settled = |text: &str| read(text).unwrap().settle().map(|c| (c.unclaimed, c.log_bytes)).unwrap();
        assert_eq!(settled(""), (10_000, 1 << 30));
        assert_eq!(settled("unclaimed = 50000\nlog_space = 20"), (50_000, 20 << 20));
    }

    #[test]
    fn a_misspelt_key_is_named() {
        let error = read("prot = 3000").unwrap_err();
        assert!(causes(&error).contains("prot"), "{}", causes(&error));
        let error = read("backend = \"Re Db\"").unwrap_err();
        assert!(causes(&error).contains("lower-case"), "{}", causes(&error));
        let error = read("port = \"x\"").unwrap_err();
        assert!(causes(&error).contains("port"), "{}", causes(&error));
    }

    #[test]
    fn a_misspelt_variable_is_noticed_and_ours_are_known() {
        use clap::CommandFactory as _;
        let command = crate::cli::Cli::command();
        let ours = command.get_arguments().filter_map(clap::Arg::get_env).map(ToOwned::to_owned);
        assert_eq!(unknown_variables(ours), [""; 0]);
        let others = ["DRAGONFLY_LAB_BIN", "DRAGONFLY_TEST_KUBERNETES", "DRAGONFLY_KUBE_APISERVER"].map(OsString::from);
        assert_eq!(unknown_variables(others.into_iter()), [""; 0]);
        let names = ["DRAGONFLY_PROT", "DRAGONFLY_TOKEN_FILE", "PATH"].map(OsString::from);
        assert_eq!(unknown_variables(names.into_iter()), ["DRAGONFLY_PROT"]);
    }

    #[test]
    fn what_does_not_fit_together_is_refused_in_clear_words() {
        for (text, want) in [
            ("server_url = \"http://10.0.0.1:3000\"", "https"),
            ("server_url = \"https://u:p@10.0.0.1\"", "password"),
            ("server_url = \"https://10.0.0.1/x\"", "nothing after"),
            ("also = [\"https://10.0.0.2\", \"http://10.0.0.3\"]", "also is `http://10.0.0.3/`"),
            ("region = \"Frankfurt 1\"", "region is `Frankfurt 1`"),
            ("instance = \"-a\"", "instance"),
        ] {
            let error = read(text).unwrap().settle().unwrap_err();
            assert!(causes(&error).contains(want), "{text}: {}", causes(&error));
        }
    }

    #[test]
    fn an_empty_file_gives_the_documented_defaults() {
        let config = read("").unwrap().settle().unwrap();
        assert_eq!(config.data, Path::new("/var/lib/dragonfly"));
        assert_eq!((config.host.to_string().as_str(), config.port), ("0.0.0.0", 3000));
        assert_eq!(config.discovery, Discovery::Local);
    }
}
