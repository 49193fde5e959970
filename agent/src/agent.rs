//! The agent from its start to its leaving.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dragonfly_core::Mac;
use dragonfly_core::clock::{Clock as _, SystemClock};
use dragonfly_core::inventory::Inventory;
use dragonfly_core::wire::{Hello, Identity, Versions};
use nix::sys::resource::{Resource, setrlimit};
use uuid::Uuid;

use crate::client::{Link, chain};
use crate::cmdline::Cmdline;
use crate::console::Console;
use crate::images::{CA_BUNDLE, HttpImages};
use crate::inventory::{self, BmcAsked, Roots};
use crate::journal::Journal;
use crate::modules::{self, Loader, Phase};
use crate::net::{self, card, dhcp, lldp::Neighbours};
use crate::options::Options;
use crate::rescue::Rescue;
use crate::run::Runner;
use crate::session::{self, Leave};
use crate::{VERSION, account, discover, init};

/// How long a link may take to come up: spanning tree and link aggregation need their time.
const LINK_PATIENCE: Duration = Duration::from_secs(90);
/// How long to wait before the firmware is asked again, when nothing can be done here.
const BEFORE_RESTART: Duration = Duration::from_secs(60);

/// Runs the agent; comes back only when it is an ordinary process.
pub fn main(options: Options) -> ExitCode {
    let roots = Roots { sys: options.sysfs.clone().unwrap_or_else(|| "/sys".into()), ..Roots::default() };
    if options.inventory {
        return print_inventory(&roots);
    }
    let console = if options.owns_machine { Console::of_the_kernel(&roots.sys, &roots.dev) } else { Console::stderr() };
    let journal = Journal::new(console);
    if options.owns_machine {
        // Secrets of the machine's template are in its memory: a crash must leave none of them behind.
        // A program that the kernel hands dumps to minds only the second.
        let kept = setrlimit(Resource::RLIMIT_CORE, 0, 0).and_then(|()| nix::sys::prctl::set_dumpable(false));
        if let Err(error) = kept {
            journal.say(format!("a core dump of this agent would hold its secrets: {error}"));
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            journal.say(format!("the agent cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let agent = Agent { roots, journal, rescue: Rescue::default(), owns_machine: options.owns_machine };
    match runtime.block_on(agent.run(&options)) {
        Ok(leave) => agent.leave(&leave),
        Err(why) => {
            agent.journal.say(&why);
            if !agent.owns_machine {
                return ExitCode::FAILURE;
            }
            agent.rescue.offer(agent.journal.console());
            agent.journal.say(format!("The machine restarts in {} s.", BEFORE_RESTART.as_secs()));
            std::thread::sleep(BEFORE_RESTART);
            agent.leave(&Leave::Restart { reason: why })
        }
    }
}

struct Agent {
    roots: Roots,
    journal: Journal,
    rescue: Rescue,
    owns_machine: bool,
}

impl Agent {
    async fn run(&self, options: &Options) -> Result<Leave, String> {
        let cmdline = Cmdline::parse(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default());
        if self.owns_machine && cmdline.shell {
            self.rescue.offer(self.journal.console());
        }
        let identity = read_identity(options)?;
        // A clock that lies by years is an empty battery: the server tells people.
        let clock_offset_seconds = self.owns_machine.then(|| {
            let offset = SystemClock.now().unix_seconds() - identity.time.unix_seconds();
            set_clock(identity.time.unix_seconds());
            offset
        });
        self.journal.say(format!("Mage {VERSION}: {} asks {}", identity.mac, identity.server));
        let (inventory, existing_os, address) = if self.owns_machine {
            self.prepare_machine(identity.mac).await?
        } else {
            let roots = self.roots.clone();
            let (inventory, trouble) = blocking(move || gather_all(&roots)).await?;
            if let Some(trouble) = trouble {
                self.journal.say(trouble);
            }
            (inventory, None, None)
        };
        if let Some(os) = &existing_os {
            self.journal.say(format!("found {} on {} ({})", os.name, os.disk, os.evidence));
        }
        let hello = Hello {
            protocol: Versions::OURS,
            agent: VERSION.to_owned(),
            boot_id: boot_id(),
            mac: identity.mac,
            anchors: inventory::anchors(&inventory),
            inventory,
            existing_os,
            uptime_seconds: None,
            clock_offset_seconds,
        };
        let images = identity
            .pin
            .parse()
            .map_err(|e: crate::pin::BadPin| e.to_string())
            .and_then(|pin| HttpImages::new(crate::client::servers(&identity), pin, Path::new(CA_BUNDLE)))?;
        let link = Link::new(identity, hello, self.journal.clone()).map_err(|e| chain(&e))?;
        let link = Arc::new(link);
        let welcome = link.connect().await.map_err(|e| chain(&e))?;
        for line in session::greeting(&welcome, address.as_deref()) {
            self.journal.console().line(&line);
        }
        self.journal.note(format!("welcome: this is {}", welcome.machine));
        if self.owns_machine {
            set_clock(welcome.time.unix_seconds());
        }
        tokio::spawn(session::ship(Arc::clone(&link), self.journal.clone()));
        // Beside the work, which need not wait for it.
        let account = welcome.bmc_account.filter(|_| self.owns_machine).map(|wanted| {
            tokio::spawn(account::make(Arc::clone(&link), self.journal.clone(), self.roots.dev.clone(), wanted))
        });
        let host = dragonfly_actions::run::Host::default();
        let runner = Runner {
            actions: dragonfly_actions::run::builtin_on(host.clone()),
            images: Arc::new(images.with_session(Arc::clone(&link))),
            reports: Arc::clone(&link) as Arc<dyn crate::client::Reports>,
            journal: self.journal.clone(),
            heartbeat: Duration::from_secs(u64::from(welcome.heartbeat_seconds.clamp(2, 300))),
            is_hand_over: dragonfly_actions::is_hand_over,
            handed_over: Arc::new(move |permit| host.hand_over(permit)),
        };
        let on_failure = || {
            if self.owns_machine {
                self.rescue.offer(self.journal.console());
            }
        };
        let leave = session::serve(&link, &runner, &self.journal, &on_failure).await;
        if let Some(account) = account {
            // A machine that leaves at once, for its own disk, gets its account all the same.
            let _ = tokio::time::timeout(account::PATIENCE, account).await;
        }
        Ok(leave)
    }

    /// Drivers, network, and a look around. Disks are found while the network comes up.
    async fn prepare_machine(
        &self,
        mac: Mac,
    ) -> Result<(Inventory, Option<dragonfly_core::resource::hardware::ExistingOs>, Option<String>), String> {
        let started = Instant::now();
        let loader = Arc::new(Loader::open(modules::directory()));
        let (l, sys) = (Arc::clone(&loader), self.roots.sys.clone());
        let failed = blocking(move || l.load_for_devices(&sys, Phase::Network)).await?;
        for error in failed {
            self.journal.say(format!("driver: {error}"));
        }
        let (l, roots) = (Arc::clone(&loader), self.roots.clone());
        let bmc = BmcAsked::start(&self.roots.dev, move || load_for_bmc(&l, &roots.sys));
        let (l, roots) = (Arc::clone(&loader), self.roots.clone());
        let rest = tokio::task::spawn_blocking(move || {
            let failed = l.load_for_devices(&roots.sys, Phase::Rest);
            for module in ["ext4", "vfat", "nls_cp437", "nls_ascii", "nls_utf8", "efivarfs"] {
                let _ = l.load(module);
            }
            mount_efivars(&roots.sys);
            failed
        });
        let neighbours = Neighbours::listen();
        let lease = self.bring_up(mac).await;
        self.journal.note(format!("network after {:.1} s", started.elapsed().as_secs_f64()));
        for error in rest.await.map_err(|e| e.to_string())? {
            self.journal.say(format!("driver: {error}"));
        }
        let lease = match lease {
            Some(lease) => lease,
            // A card on a bus whose driver came late: USB.
            None => self.bring_up(mac).await.ok_or_else(|| self.no_card(mac))?,
        };
        let roots = self.roots.clone();
        let (mut inventory, existing, trouble) = blocking(move || {
            let (mut inventory, existing) = (inventory::gather(&roots, probe), discover::existing_os(&roots));
            let trouble = bmc.tell(&mut inventory);
            (inventory, existing, trouble)
        })
        .await?;
        if let Some(trouble) = trouble {
            self.journal.say(trouble);
        }
        for nic in &mut inventory.nics {
            nic.lldp = neighbours.on(&nic.name);
        }
        inventory.boot_interface = Some(lease.interface.clone());
        self.journal.note(format!("looked around after {:.1} s", started.elapsed().as_secs_f64()));
        Ok((inventory, existing, Some(format!("{}/{}", lease.address, lease.prefix))))
    }

    fn no_card(&self, mac: Mac) -> String {
        let there: Vec<String> = card::list(&self.roots.sys).iter().map(|c| format!("{} {}", c.name, c.mac)).collect();
        let there = if there.is_empty() { "none at all".to_owned() } else { there.join(", ") };
        format!(
            "the network card {mac} that this machine booted from has no driver here (cards with one: {there}); \
             build the boot files with its driver: dragonfly mage build --help"
        )
    }

    /// Link, then address; `None` when the card is not there. Waits for an address for ever: a DHCP
    /// server that is away comes back.
    async fn bring_up(&self, mac: Mac) -> Option<dhcp::Lease> {
        let card = self.wait_for_card(mac).await?;
        for name in ["lo", &card.name] {
            if let Err(error) = net::ip(&["link", "set", "dev", name, "up"]) {
                self.journal.say(error.to_string());
            }
        }
        // Switches tell who they are to a group address. Not heard is not known, and that is all.
        net::listen_to_groups(&card.name);
        let began = Instant::now();
        let mut said = false;
        while card::carrier(&self.roots.sys, &card.name) != Some(true) {
            if began.elapsed() > Duration::from_secs(3) && !said {
                self.journal.say(format!("{} ({mac}) waits for its link", card.name));
                said = true;
            }
            if began.elapsed() > LINK_PATIENCE {
                self.journal.say(format!(
                    "{} has no link after {} s; look at its cable and switch port. Asking for an address all the same.",
                    card.name,
                    LINK_PATIENCE.as_secs()
                ));
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut said = Instant::now();
        let mut client = None;
        loop {
            if client.is_none() {
                match dhcp::start(&card.name) {
                    Ok(child) => client = Some(child),
                    Err(error) => self.journal.say(format!("the DHCP client cannot be started: {error}")),
                }
            }
            for _ in 0..50 {
                if let Some(lease) = dhcp::lease() {
                    self.journal.say(format!(
                        "{}: {}/{} from {}",
                        card.name,
                        lease.address,
                        lease.prefix,
                        lease.server.map_or_else(|| "a DHCP server".to_owned(), |s| s.to_string())
                    ));
                    self.keep(client, card.name.clone());
                    return Some(lease);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if let Some(child) = &mut client
                && matches!(child.try_wait(), Ok(Some(_)))
            {
                client = None;
            }
            if said.elapsed() > Duration::from_secs(15) {
                self.journal.say(format!("{}: no DHCP server answers yet", card.name));
                said = Instant::now();
            }
        }
    }

    /// The DHCP client renews the lease; should it die, it is started again.
    fn keep(&self, client: Option<std::process::Child>, name: String) {
        let journal = self.journal.clone();
        std::thread::spawn(move || {
            let mut client = client;
            loop {
                if let Some(child) = &mut client {
                    let _ = child.wait();
                    journal.say(format!("{name}: the DHCP client ended; it is started again"));
                }
                std::thread::sleep(Duration::from_secs(10));
                client = dhcp::start(&name).ok();
            }
        });
    }

    async fn wait_for_card(&self, mac: Mac) -> Option<card::Card> {
        for _ in 0..100 {
            if let Some(card) = card::find(&self.roots.sys, mac) {
                return Some(card);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    }

    fn leave(&self, leave_by: &Leave) -> ExitCode {
        match leave_by {
            Leave::HandOver(action) => self.journal.say(format!("handing over: {action}")),
            Leave::Restart { reason } => self.journal.say(format!("restarting: {reason}")),
        }
        if !self.owns_machine {
            return ExitCode::SUCCESS;
        }
        use dragonfly_actions::run::{Leave as How, leave};
        if let Leave::HandOver(action) = leave_by
            && let Some(how) = How::of(action)
            && let Err(error) = leave(how)
        {
            self.journal.say(format!("{action}: {}; restarting instead", chain(&error)));
        }
        let Err(error) = leave(How::Reboot);
        self.journal.say(chain(&error));
        ExitCode::FAILURE
    }
}

/// Loads the drivers of a management controller; whether one of them has found it.
fn load_for_bmc(loader: &Loader, sys: &Path) -> bool {
    // That there is none is no failure, and one that is dead shows by its silence.
    let _ = loader.load_for_devices(sys, Phase::Management);
    if inventory::smbios::Table::read(sys).bmc().is_some() {
        let _ = loader.load("ipmi_si");
    }
    // They stay only where they have found one.
    let found = ["ipmi_si", "ipmi_ssif"].iter().any(|driver| sys.join("module").join(driver).exists());
    found && (loader.load("ipmi_devintf").is_ok() || sys.join("module/ipmi_devintf").exists())
}

/// The inventory with what the management controller says, where its driver is there already; and why it
/// said nothing.
fn gather_all(roots: &Roots) -> (Inventory, Option<String>) {
    let bmc = BmcAsked::start(&roots.dev, || false);
    let mut inventory = inventory::gather(roots, probe);
    let trouble = bmc.tell(&mut inventory);
    (inventory, trouble)
}

fn print_inventory(roots: &Roots) -> ExitCode {
    use std::io::Write;
    let (inventory, trouble) = gather_all(roots);
    if let Some(trouble) = trouble {
        Console::stderr().line(&trouble);
    }
    let text = serde_json::to_string_pretty(&inventory).unwrap_or_default();
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn read_identity(options: &Options) -> Result<Identity, String> {
    let text = match &options.identity {
        Some(path) => init::take(path).ok_or_else(|| format!("{} cannot be read", path.display()))?,
        None => {
            let mut text = Vec::new();
            std::io::stdin().take(64 * 1024).read_to_end(&mut text).map_err(|e| e.to_string())?;
            text
        }
    };
    if text.is_empty() {
        return Err(
            "this boot brought no identity: the server gave none for this network card, or the boot loader did \
                    not load its second archive (/boot/MAC/identity). Ask the server: dragonfly why MAC"
                .to_owned(),
        );
    }
    // The cause names a place in the text, never the text: it holds a token.
    serde_json::from_slice(&text)
        .map_err(|e| format!("the identity cannot be read: line {} column {}", e.line(), e.column()))
}

fn mount_efivars(sys: &Path) {
    use nix::mount::{MsFlags, mount};
    let place = sys.join("firmware/efi/efivars");
    if place.is_dir() {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let _ = mount(Some("efivarfs"), &place, Some("efivarfs"), flags, None::<&str>);
    }
}

/// Clocks of machines that were never set lie by years, and file systems write what they say.
fn set_clock(seconds: i64) {
    use nix::sys::time::TimeSpec;
    let _ = nix::time::clock_settime(nix::time::ClockId::CLOCK_REALTIME, TimeSpec::new(seconds, 0));
}

fn boot_id() -> Uuid {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().parse().unwrap_or_default()
}

async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(f).await.map_err(|e| e.to_string())
}

/// What is on a disk, in words.
fn probe(device: &Path) -> Option<Vec<String>> {
    let host = dragonfly_actions::run::Host::default();
    let disk = host.disk(device.file_name()?.to_str()?)?;
    let mut file = std::fs::File::open(device).ok()?;
    dragonfly_actions::probe::look(&mut file, disk.size.0, disk.sector.unwrap_or(512)).ok().map(|look| look.names())
}
