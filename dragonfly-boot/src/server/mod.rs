//! The boot services with their sockets: the only module that has any.
//!
//! A [`BootServer`] follows the list of Networks: for each interface that one names it listens on
//! ports 67 (DHCP), 4011 (PXE), 69 (TFTP), and, where it gives addresses or `auto` is to find out who else does, 68,
//! and sends router advertisements where addresses come from us. Besides, it hears relayed requests
//! on any interface. An interface that is missing is looked for again every few seconds.

mod admission;
mod advertise;
mod conflict;
mod dhcp;
mod outlook;
mod served;
mod sockets;
mod tftp;

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use dragonfly_core::Mac;
use dragonfly_core::boot::{BootObserver, BootProvider};
use dragonfly_core::clock::{Clock, SystemClock};
use dragonfly_core::resource::network::Network;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::dhcp::{ConflictProbe, LeaseError, LeaseStore, Mode, Responder, Segment};
use crate::tftp::Limits;
use crate::{Base, BootFiles};
use outlook::Outlook;
pub use outlook::warnings;
pub use served::NetworkStatus;
use served::Served;
use sockets::{Interface, PacketSocket};
use tftp::TftpServer;

/// How often interfaces are looked at.
const LOOK: Duration = Duration::from_secs(3);
/// Messages that are being answered at one time; more wait in the socket.
const MAX_MESSAGES: usize = 1024;
/// How long open work may take when the server stops.
const STOP: Duration = Duration::from_secs(5);

/// What the boot services need to know.
#[derive(Debug, Clone)]
pub struct BootConfig {
    /// The Networks, now and later.
    pub networks: watch::Receiver<Vec<Network>>,
    /// Where our HTTP listens: boot files and scripts are named there.
    pub http_port: u16,
    /// Where machines reach our HTTP, if not at the address that they see as the DHCP server's.
    pub public_url: Option<Url>,
    /// What TFTP clients may ask for.
    pub tftp: Limits,
    /// The time, for leases.
    pub clock: Arc<dyn Clock>,
    /// Whether addresses are probed by ICMP before they are leased for the first time.
    pub probe_conflicts: bool,
}

impl BootConfig {
    /// The usual, for these Networks.
    pub fn new(networks: watch::Receiver<Vec<Network>>, http_port: u16) -> Self {
        Self {
            networks,
            http_port,
            public_url: None,
            tftp: Limits::default(),
            clock: Arc::new(SystemClock),
            probe_conflicts: true,
        }
    }
}

/// Why the boot services cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Without its leases a server would give addresses twice.
    #[error("the boot services cannot start without their leases")]
    Leases {
        /// The cause.
        #[source]
        source: LeaseError,
    },
}

/// Running boot services. They end when the token that they were started with is cancelled.
#[derive(Debug)]
pub struct BootServer {
    shared: Arc<Shared>,
    supervisor: tokio::task::JoinHandle<()>,
}

impl BootServer {
    /// Starts. Comes back when all leases are read; sockets follow, and come and go with the Networks.
    pub async fn start(
        config: BootConfig,
        provider: Arc<dyn BootProvider>,
        leases: Arc<dyn LeaseStore>,
        observer: Arc<dyn BootObserver>,
        files: Arc<BootFiles>,
        cancel: CancellationToken,
    ) -> Result<Self, ServerError> {
        let tasks = TaskTracker::new();
        let conflicts = if config.probe_conflicts { echo_probe(&tasks, &cancel) } else { None };
        let clock = config.clock.clone();
        let responder = Responder::load(provider, leases, observer.clone(), clock, files.clone(), conflicts).await;
        let responder = Arc::new(responder.map_err(|source| ServerError::Leases { source })?);
        let tftp = Arc::new(TftpServer {
            files,
            observer,
            limits: config.tftp,
            leases: responder.clone(),
            tasks: tasks.clone(),
            cancel: cancel.clone(),
            open: Mutex::default(),
            begun: AtomicU64::default(),
        });
        let shared = Arc::new(Shared {
            responder,
            tftp,
            tasks,
            messages: Arc::new(Semaphore::new(MAX_MESSAGES)),
            segments: RwLock::default(),
            status: watch::Sender::default(),
            http_port: config.http_port,
            public_url: config.public_url,
            cancel,
        });
        let supervisor = tokio::spawn(shared.clone().supervise(config.networks));
        Ok(Self { shared, supervisor })
    }

    /// How each Network is doing, now and later.
    pub fn status(&self) -> watch::Receiver<Vec<NetworkStatus>> {
        self.shared.status.subscribe()
    }

    /// The card that has leased an address from us, if that lease holds.
    pub fn holder(&self, address: Ipv4Addr) -> Option<Mac> {
        self.shared.responder.holder(address)
    }

    /// Waits for the end, which begins when the token is cancelled.
    pub async fn join(self) {
        if let Err(error) = self.supervisor.await {
            tracing::error!(%error, "the boot services ended abnormally");
        }
    }
}

fn echo_probe(tasks: &TaskTracker, cancel: &CancellationToken) -> Option<Arc<dyn ConflictProbe>> {
    match conflict::EchoProbe::open() {
        Ok(probe) => {
            let probe = Arc::new(probe);
            tasks.spawn(probe.clone().listen(cancel.clone()));
            Some(probe)
        }
        Err(error) => {
            tracing::warn!(%error, "addresses are leased unprobed: no raw ICMP socket (needs CAP_NET_RAW)");
            None
        }
    }
}

/// What all tasks of one server use.
#[derive(Debug)]
struct Shared {
    responder: Arc<Responder>,
    tftp: Arc<TftpServer>,
    tasks: TaskTracker,
    messages: Arc<Semaphore>,
    segments: RwLock<Vec<Arc<Served>>>,
    status: watch::Sender<Vec<NetworkStatus>>,
    http_port: u16,
    public_url: Option<Url>,
    cancel: CancellationToken,
}

/// The listeners of one interface.
#[derive(Debug)]
struct Listening {
    interface: Option<Interface>,
    served: Vec<Arc<Served>>,
    stop: CancellationToken,
    /// Why they ended, when they did.
    ended: watch::Receiver<Option<String>>,
}

impl Shared {
    /// Keeps listeners and Networks in step until cancelled, then ends everything.
    async fn supervise(self: Arc<Self>, mut networks: watch::Receiver<Vec<Network>>) {
        // By interface name; the empty name is the one for relayed requests.
        let mut listening: HashMap<String, Listening> = HashMap::new();
        let mut closed = false;
        loop {
            let wanted: Vec<Network> = networks.borrow_and_update().clone();
            self.follow(&wanted);
            self.reconcile(&mut listening);
            tokio::select! {
                () = self.cancel.cancelled() => break,
                changed = networks.changed(), if !closed => closed = changed.is_err(),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        self.tasks.close();
        if tokio::time::timeout(STOP, self.tasks.wait()).await.is_err() {
            tracing::warn!("some boot services did not end in time");
        }
    }

    /// Takes over a list of Networks. One that has not changed keeps its state.
    fn follow(&self, wanted: &[Network]) {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *segments);
        *segments = wanted
            .iter()
            .filter_map(|network| {
                let same = |s: &&Arc<Served>| s.name == network.metadata.name && s.spec == network.spec;
                before.iter().find(same).cloned().or_else(|| Served::new(network).map(Arc::new))
            })
            .collect();
        segments.sort_by(|a, b| a.name.cmp(&b.name));
    }

    fn served(&self) -> Vec<Arc<Served>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts listeners that are missing, stops those that are not wanted any more or have changed.
    fn reconcile(self: &Arc<Self>, listening: &mut HashMap<String, Listening>) {
        let served = self.served();
        let (interfaces, unknown) = match sockets::interfaces() {
            Ok(interfaces) => (interfaces, None),
            Err(error) => (Vec::new(), Some(format!("interfaces cannot be listed: {error}"))),
        };
        let mut wanted: HashMap<String, (Option<Interface>, Vec<Arc<Served>>)> = HashMap::new();
        let mut problems: HashMap<String, String> = HashMap::new();
        for one in &served {
            let name = one.spec.interface.as_str();
            match outlook::usable(name, &interfaces) {
                Ok(interface) => {
                    let entry = wanted.entry(name.to_owned()).or_insert_with(|| (Some(interface.clone()), vec![]));
                    entry.1.push(one.clone());
                }
                Err(why) => drop(problems.insert(name.to_owned(), unknown.clone().unwrap_or(why))),
            }
        }
        if !served.is_empty() {
            wanted.insert(String::new(), (None, vec![]));
        }
        listening.retain(|name, l| {
            let ended = l.ended.borrow().clone();
            let same = wanted.get(name).is_some_and(|(interface, served)| {
                *interface == l.interface
                    && served.len() == l.served.len()
                    && served.iter().zip(&l.served).all(|(a, b)| Arc::ptr_eq(a, b))
            });
            let keep = same && ended.is_none();
            if !keep {
                l.stop.cancel();
            }
            keep
        });
        for (name, (interface, served)) in wanted {
            if listening.contains_key(&name) {
                continue;
            }
            let (stop, (ended, end)) = (self.cancel.child_token(), watch::channel(None));
            match self.listen(interface.as_ref(), &served, &stop, ended) {
                Ok(()) => {
                    if !name.is_empty() {
                        tracing::info!(interface = name, "boot services listen");
                    }
                    listening.insert(name, Listening { interface, served, stop, ended: end });
                }
                Err(error) => {
                    stop.cancel();
                    let why = format!("not served: {error}");
                    match name.is_empty() {
                        false => drop(problems.insert(name, why)),
                        true => tracing::debug!(why, "relayed requests are heard on configured interfaces only"),
                    }
                }
            }
        }
        let all: Vec<_> = served.iter().map(|s| (s.name.as_str(), &s.spec)).collect();
        let status: Vec<_> = served
            .iter()
            .map(|s| match problems.get(s.spec.interface.as_str()) {
                Some(problem) => s.status(&Outlook::Not(problem.clone())),
                None => s.status(&outlook::beside((&s.name, &s.spec), &all, &interfaces)),
            })
            .collect();
        self.status.send_if_modified(|old| {
            for new in status.iter().filter(|new| !old.contains(new)) {
                let mode = new.mode.map_or("not served", Mode::word);
                tracing::info!(network = new.network, mode, reason = new.reason, "DHCP");
            }
            let changed = *old != status;
            *old = status;
            changed
        });
    }

    /// Opens the sockets of one interface, or of all for relays, and starts their tasks.
    fn listen(
        self: &Arc<Self>,
        interface: Option<&Interface>,
        served: &[Arc<Served>],
        stop: &CancellationToken,
        ended: watch::Sender<Option<String>>,
    ) -> io::Result<()> {
        let dhcp = PacketSocket::on(interface, 67)?;
        let tftp = PacketSocket::on(interface, 69)?;
        let boot_server = interface.map(|i| PacketSocket::on(Some(i), 4011)).transpose()?;
        let autos = || served.iter().filter(|s| s.auto.is_some());
        // Whoever gives addresses wants to know who else does.
        let listens = served.iter().any(|s| s.auto.is_some() || s.mode().gives_addresses());
        let client = match interface {
            Some(interface) if listens => match PacketSocket::on(Some(interface), 68) {
                Ok(socket) => Some(socket),
                Err(error) => {
                    let name = interface.name.as_str();
                    tracing::warn!(interface = name, %error, "port 68 cannot be listened on: other DHCP servers are not heard, and auto stays proxy");
                    for served in autos() {
                        served.with_auto(|auto, _| auto.deaf());
                    }
                    None
                }
            },
            _ => None,
        };
        let advertiser = interface.filter(|_| served.iter().any(|s| s.spec.router_advertisements)).and_then(|i| {
            advertise::Advertiser::open(i)
                .inspect_err(|error| tracing::info!(interface = i.name, %error, "no router advertisements"))
                .ok()
        });
        let listener = dhcp::Listener {
            shared: self.clone(),
            interface: interface.cloned(),
            served: served.to_vec(),
            dhcp: Arc::new(dhcp),
            boot_server: boot_server.map(Arc::new),
            client: client.map(Arc::new),
            asked: std::sync::Mutex::default(),
            sooner: tokio::sync::Notify::new(),
        };
        let (stop, this) = (stop.clone(), self.clone());
        self.tasks.spawn(async move {
            let advertise = async {
                match &advertiser {
                    Some(advertiser) => {
                        advertiser.run(|| listener.owns_addresses(), |mac| this.responder.is_booting(mac)).await
                    }
                    None => std::future::pending().await,
                }
            };
            let admit = |peer: Ipv4Addr, index: u32| listener.interface.is_some() || this.knows_relayed(peer, index);
            let end = tokio::select! {
                () = stop.cancelled() => Ok(()),
                end = listener.run() => end,
                end = this.tftp.listen(&tftp, admit) => end,
                () = advertise => Ok(()),
            };
            if let Err(error) = end {
                tracing::warn!(%error, "a boot service's socket broke; it is opened again");
            }
            // Closed before this is told: they are opened again at once.
            drop((listener, tftp));
            ended.send_replace(Some("ended".to_owned()));
        });
        Ok(())
    }

    /// Whether an address on an interface that no Network names belongs to one of their subnets.
    fn knows_relayed(&self, address: Ipv4Addr, _interface: u32) -> bool {
        self.served().iter().any(|s| s.spec.subnet.contains(&address))
    }

    /// A Network as it is now, seen from one of our addresses.
    fn segment(&self, served: &Served, server: Ipv4Addr) -> Segment {
        let reached = served.spec.next_server.unwrap_or(server);
        let base = match &self.public_url {
            Some(url) => Base::from_url(url),
            None => Base::new(reached.into(), self.http_port),
        };
        Segment { name: served.name.clone(), spec: served.spec.clone(), mode: served.mode(), server, base }
    }
}

#[cfg(test)]
mod tests {
    use dragonfly_core::boot::Fate;

    use super::*;
    use crate::dhcp::MemoryLeases;
    use crate::testing::{Observer, Provider};

    fn network(name: &str, spec: &serde_json::Value) -> Network {
        Network::new(name, serde_json::from_value(spec.clone()).unwrap())
    }

    /// Networks come and go while it runs, and it ends when it is told to.
    #[tokio::test]
    async fn networks_are_followed_and_the_end_is_clean() {
        let (sender, receiver) = watch::channel(vec![]);
        let cancel = CancellationToken::new();
        let dir = tempfile::tempdir().unwrap();
        let server = BootServer::start(
            BootConfig { probe_conflicts: false, ..BootConfig::new(receiver, 3000) },
            Arc::new(Provider::with(Some(Fate::Local))),
            Arc::new(MemoryLeases::default()),
            Arc::new(Observer::default()),
            Arc::new(BootFiles::new(dir.path())),
            cancel.clone(),
        );
        let server = server.await.unwrap();
        let mut status = server.status();
        let spec = serde_json::json!({"interface": "df-none0", "dhcp": "full", "subnet": "10.0.0.0/24"});
        let off = serde_json::json!({"interface": "df-none1", "dhcp": "off", "subnet": "10.0.1.0/24"});
        sender.send_replace(vec![network("a", &spec), network("b", &off)]);
        let said = status.wait_for(|s| !s.is_empty()).await.unwrap().clone();
        let reason = "there is no interface df-none0 that is up".to_owned();
        assert_eq!(said, [NetworkStatus { network: "a".into(), mode: None, reason }]);
        sender.send_replace(vec![]);
        status.wait_for(Vec::is_empty).await.unwrap();
        cancel.cancel();
        tokio::time::timeout(STOP, server.join()).await.expect("it ends");
    }
}
