//! Everything joined: store, engine, boot services, one port; until somebody says stop.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use dragonfly_actions::plan::Catalog;
use dragonfly_boot::http::BootHttp;
use dragonfly_boot::{BootConfig, BootFiles, BootServer};
use dragonfly_core::action::TemplateChecker;
use dragonfly_core::clock::{Clock, SystemClock};
use dragonfly_core::engine::{Engine, Settings};
use dragonfly_core::power::ipmi::Ipmi;
use dragonfly_core::power::proxmox::Proxmox;
use dragonfly_core::power::redfish::Redfish;
use dragonfly_core::power::wol::WakeOnLan;
use dragonfly_core::power::{Dispatcher, Limits as PowerLimits, PowerDrivers};
use dragonfly_core::secret::SealingKey;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::auth::{Auth, TOKEN_FILE};
use crate::backend::{self, Backends, Opened};
use crate::boot::Services;
use crate::config::Config;
use crate::http::{App, Parts};
use crate::images::Images;
use crate::leases::RedbLeases;
use crate::listen::{self, Limits};
use crate::metrics::{Counted, Meters, Timed};
use crate::signals::{self, Told};
use crate::{config, files, http, log, networks, tls};

/// What the store's secrets are sealed with, in the data directory.
pub(crate) const SEALING_KEY: &str = "sealing.key";

/// How long the parts have to end once somebody said stop.
const STOP: Duration = Duration::from_secs(15);

/// What a server is able to do beyond itself: the default is what this crate brings.
#[derive(Debug, Clone)]
pub struct Kit {
    /// The kinds of controllers that it can talk to.
    pub drivers: PowerDrivers,
    /// The kinds of stores that it can be told to use.
    pub backends: Backends,
}

impl Default for Kit {
    fn default() -> Self {
        Self { drivers: drivers(), backends: Backends::default() }
    }
}

/// Serves until SIGTERM, SIGINT or SIGHUP, with this kit; a second one ends it at once.
pub async fn serve(config: Config, kit: Kit) -> anyhow::Result<()> {
    log::to_stderr(&config.log)?;
    for name in config::unknown_variables(std::env::vars_os().map(|(name, _)| name)) {
        tracing::warn!("{name} is set, and nothing reads it; is it misspelt?");
    }
    let told = Told::default();
    tokio::spawn(signals::watch(told.clone()));
    let served = async {
        let server = start_with(config, kit, told.stop).await?;
        server.announce();
        server.run().await
    };
    tokio::select! {
        served = served => served,
        () = told.end.cancelled() => {
            anyhow::bail!("ended at once by a second signal; what was under way was cut off")
        }
    }
}

/// A server whose port is open and whose parts have not begun yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: tls::ServerTls,
    app: App,
    config: Config,
    opened: Opened,
    counted: Arc<Counted>,
    leases: Arc<RedbLeases>,
    boot_files: Arc<BootFiles>,
}

/// Opens the store and the port and builds everything, so that what cannot work fails here.
pub async fn start(config: Config, stop: CancellationToken) -> anyhow::Result<Server> {
    start_with(config, Kit::default(), stop).await
}

/// As [`start`], with this kit.
pub async fn start_with(config: Config, kit: Kit, stop: CancellationToken) -> anyhow::Result<Server> {
    let backend = kit.backends.find(&config.backend)?;
    backend::check_mode(&config, &*backend)?;
    let data = config.data.clone();
    files::create_dir(&data).with_context(|| {
        format!("the data directory {} cannot be made; give another with --data DIR", data.display())
    })?;
    for dir in [&config.boot_files, &config.images] {
        std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    }
    if config.backend.as_str() != config::TINKERBELL && !config.boot_files.join("vmlinuz").exists() {
        tracing::warn!(
            "no boot files in {}: machines get addresses and nothing to boot; make them with dragonfly mage build --out {}",
            config.boot_files.display(),
            config.boot_files.display()
        );
    }
    let (drivers, clusters) = trusting(kit.drivers, config.bmc_ca.as_deref())?;
    // A store that several servers share is waited for while it is away.
    let opened = tokio::select! {
        opened = backend.open(&config) => opened?,
        () = stop.cancelled() => anyhow::bail!("stopped before the store was open"),
    };
    let hostname = hostname();
    let names: Vec<String> = hostname.iter().chain(&config.names).cloned().chain(url_host(&config)).collect();
    let tls = tls::server(&data.join("tls"), &tls::certificate_names(hostname.as_deref(), config.host, &config.names))?;

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let auth = Arc::new(Auth::open(&data, Arc::clone(&clock))?);
    let key = sealing_key(&data.join(SEALING_KEY))?;
    let meters = Meters::new(clock.now());
    let coordinator = backend::coordinator(&config, &opened, hostname.as_deref())?;
    let settings = Settings {
        discovery: config.discovery,
        server_url: config.server_url.clone(),
        also: config.also.clone(),
        region: config.region.clone(),
        server_pin: tls.pin.clone(),
        bmc_accounts: config.bmc_accounts,
        unclaimed: config.unclaimed,
        log_bytes: config.log_bytes,
        runner: opened.runner,
        clusters: config.clusters.clone(),
        ..Settings::default()
    };
    let images = Arc::new(Images::new(Arc::clone(&auth), &config.images));
    let restored = match &opened.embedded {
        Some(store) => store.is_restored().await.context("the store cannot be read")?,
        None => false,
    };
    let timed = Arc::new(Timed::new(Arc::clone(&opened.store), Arc::clone(&meters)));
    let mut builder = Engine::builder(timed, key, opened.checker.clone().unwrap_or_else(checker));
    if let Some(coordinator) = coordinator {
        builder = builder.coordinator(coordinator);
    }
    let engine = builder
        .clock(clock)
        .settings(settings)
        .images(Arc::clone(&images) as _)
        .logs(data.join("logs"))
        .power(Dispatcher::new(drivers, PowerLimits::default()))
        .clusters(Arc::new(clusters))
        .restored(restored)
        .build()
        .await
        .context("the engine cannot start")?;
    let unopened = engine.unopened_secrets();
    if !unopened.is_empty() {
        tracing::error!(
            "{} cannot open these Secrets of the store, they were sealed with another key: {}. Stop the server and put the \
             old sealing.key back, or apply these Secrets anew",
            data.join(SEALING_KEY).display(),
            unopened.join(", ")
        );
    }
    if let Some(store) = opened.embedded.as_ref().filter(|_| restored) {
        tracing::warn!(
            "the store is a backup that was put back: what it had authorised is held (dragonfly get machines)"
        );
        store.settle_restored().await.context("the store cannot be written")?;
    }

    let counted = Arc::new(Counted { engine: engine.clone(), meters: Arc::clone(&meters) });
    let path = data.join("leases.redb");
    let leases = Arc::new(tokio::task::spawn_blocking(move || RedbLeases::open(&path)).await??);
    let boot_files = Arc::new(BootFiles::new(&config.boot_files).with_ipxe_package());
    let (provider, observer) = (Arc::clone(&counted), Arc::clone(&counted));
    let public = config.server_url.as_ref().map(plain);
    let boot_http = BootHttp::new(provider, observer, Arc::clone(&boot_files), public);

    let wanted = SocketAddr::new(config.host, config.port);
    let listener = TcpListener::bind(wanted).await.map_err(|error| listen::refused(wanted, error))?;
    let address = listener.local_addr()?;
    let app = App::new(Parts {
        engine,
        auth,
        meters,
        boot: Services::new(boot_http),
        images: images.files(),
        store: opened.embedded.clone(),
        names,
        mode: config.mode,
        stop,
    });
    Ok(Server { listener, address, tls, app, config, opened, counted, leases, boot_files })
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it serves.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// The fingerprint of its key.
    pub fn pin(&self) -> &str {
        &self.tls.pin
    }

    /// Says on standard error where it is and how to get in.
    fn announce(&self) {
        use std::io::Write as _;
        let shown = SocketAddr::new(reachable(self.address.ip()), self.address.port());
        let mut text = format!(
            "Dragonfly {} listens on {}\n  token        {}\n  fingerprint  sha256:{}\n",
            env!("CARGO_PKG_VERSION"),
            self.address,
            self.config.data.join(TOKEN_FILE).display(),
            self.tls.pin,
        );
        if let Some(link) = self.app.auth.new_link() {
            text.push_str(&format!(
                "  sign in      http://{shown}/login?once={}  (once, within 15 min)\n",
                link.reveal()
            ));
        }
        // To a person's eyes and not to the log: the link is a secret.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    /// Serves until it is told to stop, then ends in order: the port, the engine, the store.
    pub async fn run(self) -> anyhow::Result<()> {
        keep_from_dumps();
        let stop = self.app.stop.clone();
        let mut parts = JoinSet::new();
        let mut boot = BootConfig::new(self.app.engine.networks(), self.address.port());
        boot.public_url = self.config.server_url.as_ref().map(plain);
        let (connections, transfers) = shares(open_files());
        boot.tftp.transfers = transfers;
        tracing::info!(connections, transfers, "at most so many HTTP connections and TFTP transfers at one time");
        let (provider, observer) = (Arc::clone(&self.counted), self.counted);
        let boot = BootServer::start(boot, provider, self.leases, observer, self.boot_files, stop.clone()).await?;
        self.app.boot.running(boot.status());
        parts.spawn(networks::tell_served(self.app.engine.clone(), boot.status(), stop.clone()));
        parts.spawn(boot.join());
        let (engine, cancel) = (self.app.engine.clone(), stop.clone());
        parts.spawn(async move { engine.run(cancel).await });
        let router = http::guarded(self.app.clone());
        let limits = Limits { connections, ..Limits::default() };
        parts.spawn(listen::serve(self.listener, self.tls.config, router, limits, stop.clone()));
        // Each part ends only when it is told to: one that ends before is broken, and half a server is
        // worse than none, which is started again.
        let broken = tokio::select! {
            () = stop.cancelled() => false,
            _ = parts.join_next() => !stop.is_cancelled(),
        };
        if broken {
            tracing::error!("a part of the server ended by itself; the rest is stopped");
            stop.cancel();
        }
        tracing::info!("stopping");
        let ended = tokio::time::timeout(STOP, async { while parts.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            tracing::warn!("not everything ended in time");
        }
        if let Some(store) = &self.opened.embedded {
            store.close().await.context("the store could not be closed in order")?;
        }
        anyhow::ensure!(!broken, "a part of the server ended by itself; the log says which");
        Ok(())
    }
}

/// Every kind of controller that this server can talk to.
pub fn drivers() -> PowerDrivers {
    PowerDrivers::new().with(Ipmi::default()).with(WakeOnLan).with(Redfish::new()).with(Proxmox::default())
}

/// The drivers of controllers and of clusters, trusting also what the authorities in a PEM file vouch for.
fn trusting(drivers: PowerDrivers, file: Option<&Path>) -> anyhow::Result<(PowerDrivers, Proxmox)> {
    let Some(file) = file else { return Ok((drivers, Proxmox::default())) };
    let of = || format!("--bmc-ca {}", file.display());
    let pem = std::fs::read_to_string(file).with_context(of)?;
    let drivers = drivers.with_authorities(&pem).with_context(of)?;
    Ok((drivers, Proxmox::default().with_roots(&pem).with_context(of)?))
}

/// Who judges templates when they are applied.
pub fn checker() -> Arc<dyn TemplateChecker> {
    Arc::new(Catalog::builtin())
}

/// Keeps what it knows out of core dumps: keys and passwords are in its memory.
fn keep_from_dumps() {
    // A program that the kernel hands dumps to minds only the second.
    let limited = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    if let Err(error) = limited.and_then(|()| nix::sys::prctl::set_dumpable(false)) {
        tracing::warn!(%error, "a core dump of this server, should it crash, would hold its secrets");
    }
}

/// How many files may be open: as many as are allowed, and no more than are of use.
fn open_files() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1024 };
    let wanted = hard.min(65_536).max(soft);
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).map_or(soft, |()| wanted)
}

/// How many connections and TFTP transfers fit into so many open files: each may need one more for what it
/// sends, and the store, logs and the boot services' own sockets need some.
fn shares(files: u64) -> (usize, usize) {
    let (connections, transfers) = (Limits::default().connections, dragonfly_boot::tftp::Limits::default().transfers);
    let part = |of: u64| usize::try_from(files / of).unwrap_or(usize::MAX).max(1);
    (part(3).min(connections), part(16).min(transfers))
}

pub(crate) fn sealing_key(path: &std::path::Path) -> anyhow::Result<SealingKey> {
    let made = || {
        let key = SealingKey::generate().map_err(std::io::Error::other)?;
        Ok(key.to_bytes().to_vec())
    };
    let bytes =
        files::read_or_create(path, made).with_context(|| format!("cannot read or create {}", path.display()))?;
    let checked = files::check_key(&bytes).map_err(anyhow::Error::msg);
    checked.and_then(|()| Ok(SealingKey::from_bytes(&bytes)?)).with_context(|| {
        format!(
            "{} is not a sealing key; put the right file back, or the secrets in the store are lost",
            path.display()
        )
    })
}

pub(crate) fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?.trim().to_owned();
    (!name.is_empty() && name != "(none)").then_some(name)
}

/// The same place by plain HTTP, on the same port: firmware knows no key of ours.
fn plain(url: &Url) -> Url {
    let port = url.port_or_known_default();
    let mut url = url.clone();
    // Both are special schemes, and the host is there: neither is refused.
    let _ = url.set_scheme("http");
    let _ = url.set_port(port);
    url
}

fn url_host(config: &Config) -> Option<String> {
    config.server_url.as_ref()?.host_str().map(str::to_owned)
}

/// An address that a person at this machine can open.
fn reachable(ip: IpAddr) -> IpAddr {
    if ip.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { ip }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_open_at_one_time_fits_into_the_files_that_may_be_open() {
        for files in [64, 256, 1024, 4096, 65_536] {
            let (connections, transfers) = shares(files);
            assert!(connections > 0 && transfers > 0);
            let most = 2 * (connections + transfers);
            assert!(u64::try_from(most).unwrap() + files / 8 <= files, "{files}: {most}");
        }
        assert_eq!(shares(65_536), (8192, 1024));
    }
}
