//! `cargo lab run`: unattended, judged from outside.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use dragonfly_core::event::Event;

use super::args::{self, Bmc, Scenario, Store, TemplateChoice};
use super::artifacts::Program;
use super::console::say;
use super::controllers::Controllers;
use super::events::{Entry, Fact};
use super::fault::{Fault, Faults, Point, Victim};
use super::image::{self, OsImage};
use super::interrupt::Interrupt;
use super::machine::Machine;
use super::qemu::Accel;
use super::report::{Host, MachineReport, Report, ServerReport};
use super::serial::Mark;
use super::stages::{Moment, What, stages};
use super::world::{CLOUD_KERNEL, Wish, World};
use super::{disk, host, manifest, process, scenario};

/// The template's name in the store.
pub(crate) const TEMPLATE: &str = "lab";

/// `cargo lab run`.
pub(crate) fn run(args: &args::Run, interrupt: &Interrupt) -> Result<()> {
    if args.bmc != Bmc::None && !matches!(args.scenario, Scenario::Install | Scenario::Expected) {
        bail!("--bmc goes with --scenario install or expected: the others switch their machines themselves");
    }
    if args.instances > 1 && args.store != Store::Kubernetes {
        bail!("--instances {} wants a store that several servers share: --store kubernetes", args.instances);
    }
    if args.store != Store::Redb && !matches!(args.scenario, Scenario::Install | Scenario::Faults) {
        bail!("--store goes with --scenario install or faults");
    }
    if !args.manifests.is_empty() && args.scenario != Scenario::Tinkerbell {
        bail!("--manifests goes with --scenario tinkerbell");
    }
    host::prepare(args.yes)?;
    match args.scenario {
        Scenario::Install => install(args, interrupt),
        Scenario::Adopt => scenario::adopt(args, interrupt),
        Scenario::BmcAccount => scenario::account(args, interrupt),
        Scenario::Inventory => scenario::inventory(args, interrupt),
        Scenario::Faults => scenario::faults(args, interrupt),
        Scenario::BadImage => scenario::bad_image(args, interrupt),
        Scenario::Expected => scenario::expected(args, interrupt),
        Scenario::Secrets => scenario::secrets(args, interrupt),
        Scenario::Identity => scenario::identity(args, interrupt),
        Scenario::Rollback => scenario::rollback(args, interrupt),
        Scenario::Tinkerbell if !args.manifests.is_empty() => scenario::manifests(args, interrupt),
        Scenario::Tinkerbell => scenario::tinkerbell(args, interrupt),
        Scenario::Why => scenario::why(args, interrupt),
    }
}

/// The steps that install an image as the template says.
pub(crate) fn steps(template: TemplateChoice, image: &OsImage) -> String {
    match template {
        TemplateChoice::Disk => manifest::disk_steps(image),
        TemplateChoice::Partitions => manifest::partition_steps(image),
    }
}

pub(crate) fn install(args: &args::Run, interrupt: &Interrupt) -> Result<()> {
    let image = image::find_or_build(args.image, args.template, interrupt)?;
    let wish = Wish {
        machines: usize::from(args.machines),
        dhcp: args.dhcp,
        kernel: CLOUD_KERNEL,
        image: &image,
        keep: args.keep.as_deref(),
        program: Program::of(args)?,
        capture: args.keep.is_some(),
        store: args.store,
        instances: args.instances,
        ..Wish::new(&image)
    };
    let mut world = World::build(&wish, interrupt)?;
    let mut machines = world.machines(wish.machines, args.firmware, args.dhcp)?;
    world.server.apply(&manifest::template(TEMPLATE, &steps(args.template, &image)))?;
    let controllers = Controllers::start(args.bmc, &world, &mut machines)?;
    if let Some(controllers) = &controllers {
        controllers.make_known(&world, &machines)?;
    }
    let mut watch = Watch::new(&machines, controllers.is_none());
    let mut wanted = args.faults_at_points()?;
    if args.kill_server_while_imaging {
        wanted.push(Fault { victim: Victim::Server, at: Point::Image });
    }
    for machine in machines.iter_mut().filter(|_| !wanted.is_empty()) {
        machine.hardware.boot_again();
    }
    for machine in &mut machines {
        if controllers.is_some() {
            // Off, and never seen: the one assignment is all that anybody does.
            watch.assign(machine, &world);
            continue;
        }
        machine.start(&world.namespace, world.accel, &world.timeline)?;
        say(format_args!("{} ({}, {}) is on", machine.name, machine.mac, machine.hardware.firmware.word()));
    }
    let mut faults = Faults::new(&wanted);
    let end = Instant::now() + Duration::from_secs(args.timeout);
    while !(watch.all_settled() && (faults.is_over() || watch.any_failed()))
        && Instant::now() < end
        && !interrupt.is_set()
    {
        if let Some(controllers) = &controllers {
            controllers.step(&world, &mut machines)?;
        }
        watch.step(&world, &mut machines)?;
        faults.step(&mut world, &mut machines, interrupt)?;
        std::thread::sleep(Duration::from_millis(30));
    }
    watch.give_up(&machines);
    if watch.all_ready() && args.ready_reboots > 0 {
        let end = Instant::now() + Duration::from_secs(args.timeout);
        if let Err(error) = reboot_often(args.ready_reboots, &world, &mut watch, &mut machines, end, interrupt) {
            watch.fail_all(&format!("{error:#}"));
        }
    }
    if let Err(error) = faults.must_have_happened() {
        watch.fail_all(&format!("{error:#}"));
    }
    check_outside(&world, &mut watch, &mut machines);
    if let Some(controllers) = &controllers {
        say(format_args!("operations of each controller: {:?}", controllers.done()));
    }
    let report = report(&mut world, &watch, &machines)?;
    if let Some(path) = &args.report {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?).with_context(|| path.display().to_string())?;
    }
    table(&report);
    interrupt.check()?;
    let failed: Vec<_> = report.machines.iter().filter(|m| !m.ready).map(|m| m.name.as_str()).collect();
    for machine in machines.iter().filter(|m| failed.contains(&m.name.as_str())) {
        say(format_args!(
            "--- {}: its serial line ends\n{}",
            machine.name,
            process::tail(&machine.hardware.serial_log, 25)
        ));
    }
    ensure!(failed.is_empty(), "not ready: {}", failed.join(", "));
    Ok(())
}

/// What has become of each machine so far.
#[derive(Debug)]
pub(crate) struct Watch {
    /// By memorable name in lower case, as the server calls them.
    states: BTreeMap<String, State>,
    seen: usize,
    assign: bool,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct State {
    pub(crate) registered: bool,
    pub(crate) ready: bool,
    pub(crate) echoes: u32,
    pub(crate) began: u32,
    /// What its installed system said last that its first boot called it.
    pub(crate) machine_id: String,
    pub(crate) error: Option<String>,
    progress: u64,
}

impl State {
    fn is_settled(&self) -> bool {
        self.error.is_some() || (self.ready && self.echoes > 0)
    }
}

impl Watch {
    /// Watches these; assigns the lab's template to each when it has registered, if `assign`.
    pub(crate) fn new(machines: &[Machine], assign: bool) -> Self {
        let states = machines.iter().map(|m| (m.name.to_lowercase(), State::default())).collect();
        Self { states, seen: 0, assign }
    }

    /// Takes in what is new.
    pub(crate) fn step(&mut self, world: &World, machines: &mut [Machine]) -> Result<()> {
        for entry in world.timeline.since(self.seen) {
            self.seen += 1;
            self.take(&entry, world, machines)?;
        }
        for machine in machines {
            if let Err(error) = machine.must_run() {
                self.fail(&machine.name, format!("{error:#}"));
            }
        }
        Ok(())
    }

    fn take(&mut self, entry: &Entry, world: &World, machines: &[Machine]) -> Result<()> {
        match &entry.fact {
            Fact::Event(event) => {
                let Some(machine) = machine_of(event, machines) else { return Ok(()) };
                self.tell(entry, machine, event);
                self.learn(machine, event, world)
            }
            Fact::Serial(index, mark) => {
                if let Some(machine) = machines.get(*index)
                    && *mark == Mark::Trouble
                {
                    line(entry, machine, "its console asks for help");
                }
                Ok(())
            }
            Fact::Echo(echo) => {
                let Some(machine) = machines.iter().find(|m| m.mac.eq_ignore_ascii_case(&echo.mac)) else {
                    return Ok(());
                };
                line(
                    entry,
                    machine,
                    &format!("the installed system answers (root file system of {} MiB)", echo.root_kib / 1024),
                );
                if echo.nonce == machine.nonce {
                    // A server that was killed has forgotten the events it did not send; what it knows it says.
                    let ready = || world.server.machine(&machine.name).is_ok_and(|m| is_ready(&m));
                    let state = self.state(&machine.name);
                    state.echoes += 1;
                    echo.machine_id.clone_into(&mut state.machine_id);
                    state.ready = state.ready || ready();
                } else {
                    self.fail(&machine.name, format!("it echoed `{}`, not this run's nonce", echo.nonce));
                }
                Ok(())
            }
        }
    }

    fn learn(&mut self, machine: &Machine, event: &Event, world: &World) -> Result<()> {
        let assign = self.assign;
        let state = self.state(&machine.name);
        match event.kind.as_str() {
            "machine.registered" | "machine.hello" if !state.registered => {
                state.registered = true;
                if assign {
                    self.assign(machine, world);
                }
            }
            "workflow.began" => state.began += 1,
            "machine.ready" => state.ready = true,
            // A failed attempt is not the end: the next one begins by itself, up to the limit.
            "machine.error" | "machine.held" | "identity.conflict" => {
                self.fail(&machine.name, event.message.clone());
            }
            _ => {}
        }
        Ok(())
    }

    /// Has the lab's template installed on a machine.
    fn assign(&mut self, machine: &Machine, world: &World) {
        let value = format!("nonce={}", machine.nonce);
        let order = ["assign", &machine.name, "--template", TEMPLATE, "--value", &value, "--yes"];
        if let Err(error) = world.server.cli(&order) {
            self.fail(&machine.name, format!("{error:#}"));
        }
    }

    fn tell(&mut self, entry: &Entry, machine: &Machine, event: &Event) {
        let state = self.state(&machine.name);
        if event.kind == "step.progress" {
            let number = |path| event.data.pointer(path).and_then(serde_json::Value::as_u64);
            let (Some(done), Some(total)) = (number("/progress/done"), number("/progress/total")) else { return };
            let quarter = (done * 4).checked_div(total).unwrap_or(0);
            if quarter == state.progress {
                return;
            }
            state.progress = quarter;
        }
        line(entry, machine, &format!("{:18} {}", event.kind, event.message));
    }

    pub(crate) fn state(&mut self, name: &str) -> &mut State {
        self.states.entry(name.to_lowercase()).or_default()
    }

    pub(crate) fn fail(&mut self, name: &str, why: String) {
        let state = self.state(name);
        if state.error.is_none() {
            state.error = Some(why);
        }
    }

    fn fail_all(&mut self, why: &str) {
        let names: Vec<_> = self.states.keys().cloned().collect();
        for name in names {
            self.fail(&name, why.to_owned());
        }
    }

    pub(crate) fn all_settled(&self) -> bool {
        self.states.values().all(State::is_settled)
    }

    fn any_failed(&self) -> bool {
        self.states.values().any(|s| s.error.is_some())
    }

    fn all_ready(&self) -> bool {
        self.states.values().all(|s| s.error.is_none() && s.ready && s.echoes > 0)
    }

    pub(crate) fn give_up(&mut self, machines: &[Machine]) {
        for machine in machines {
            let state = self.state(&machine.name).clone();
            if !state.is_settled() {
                let so_far = match (state.ready, state.echoes, state.registered) {
                    (true, 0, _) => "handed over, but the installed system never answered",
                    (false, 1.., _) => "its system answered, but the server does not call it Ready",
                    (_, _, true) => "registered, but never became Ready",
                    (_, _, false) => "its agent never registered",
                };
                self.fail(&machine.name, format!("time is over: {so_far}"));
            }
        }
    }
}

pub(crate) fn machine_of<'a>(event: &Event, machines: &'a [Machine]) -> Option<&'a Machine> {
    let mac = event.data.get("mac").and_then(serde_json::Value::as_str);
    machines.iter().find(|machine| {
        event.machine.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(&machine.name))
            || mac.is_some_and(|mac| mac.eq_ignore_ascii_case(&machine.mac))
    })
}

fn line(entry: &Entry, machine: &Machine, what: &str) {
    let seconds = machine.started.map_or(0.0, |on| entry.at.saturating_duration_since(on).as_secs_f64());
    say(format_args!("{seconds:7.1} s  {:28} {what}", machine.name));
}

/// A machine that is Ready comes up from its disk however often it boots from the network, and is
/// never installed again.
fn reboot_often(
    times: u32,
    world: &World,
    watch: &mut Watch,
    machines: &mut [Machine],
    end: Instant,
    interrupt: &Interrupt,
) -> Result<()> {
    let identities = machines.iter().map(|m| disk::identity(m.disk())).collect::<Result<Vec<_>>>()?;
    for machine in machines.iter() {
        ensure!(!watch.state(&machine.name).machine_id.is_empty(), "{}: its system has no machine-id", machine.name);
    }
    for time in 1..=times {
        let before: Vec<_> = machines.iter().map(|m| watch.state(&m.name).clone()).collect();
        let seen = world.timeline.all().len();
        for machine in machines.iter() {
            machine.reset()?;
        }
        say(format_args!("           reset {time} of {times}"));
        let back = interrupt.wait_until(end, || {
            watch.step(world, machines).is_ok()
                && machines.iter().zip(&before).all(|(m, before)| watch.state(&m.name).echoes > before.echoes)
        });
        ensure!(back, "after reset {time} of a machine that is Ready, its system did not come up again");
        let news = world.timeline.since(seen);
        for ((machine, before), identity) in machines.iter().zip(&before).zip(&identities) {
            let (now, name) = (watch.state(&machine.name), &machine.name);
            ensure!(now.began == before.began, "{name} was Ready and began a workflow again");
            let (id, was) = (&now.machine_id, &before.machine_id);
            ensure!(id == was, "{name}: its machine-id was {was} and is {id}: it was installed again");
            if let Some(what) = disk::identity(machine.disk())?.differs(identity) {
                bail!("{name}: after reset {time}, {what} is another");
            }
            let fates = fates(&news, machine, machines);
            ensure!(!fates.is_empty(), "{name}: reset {time} did not reach the server: no boot script was asked for");
            ensure!(fates.iter().all(|fate| fate == "local"), "{name} was Ready and was told to boot {fates:?}");
        }
    }
    say("           partition tables, UUIDs, machine-ids and marks are as they were; every script said `local`");
    Ok(())
}

/// What a machine's boot scripts told it, in one word each.
fn fates(news: &[Entry], machine: &Machine, machines: &[Machine]) -> Vec<String> {
    let of_it = |entry: &Entry| match &entry.fact {
        Fact::Event(event)
            if event.kind == "boot.script" && machine_of(event, machines).is_some_and(|m| m.index == machine.index) =>
        {
            Some(event.message.split([':', ' ']).next().unwrap_or_default().to_owned())
        }
        _ => None,
    };
    news.iter().filter_map(of_it).collect()
}

/// Asks the server once more, stops the machines, and reads their disks.
fn check_outside(world: &World, watch: &mut Watch, machines: &mut [Machine]) {
    for machine in machines {
        let settled = watch.state(&machine.name).error.is_none();
        if settled && let Err(error) = check_attempts(world, &machine.name) {
            watch.fail(&machine.name, format!("{error:#}"));
        }
        if settled {
            match world.server.machine(&machine.name) {
                Ok(shown) if is_ready(&shown) => {
                    if !has_phoned_home(&shown) {
                        watch.fail(&machine.name, "its system echoed, but did not phone home before".to_owned());
                    }
                }
                Ok(shown) => {
                    let phase = shown.pointer("/status/phase").cloned().unwrap_or_default();
                    watch.fail(&machine.name, format!("the server shows phase {phase}, not Ready"));
                }
                Err(error) => watch.fail(&machine.name, format!("{error:#}")),
            }
        }
        machine.stop();
        if settled && let Err(error) = disk::check_installed(machine.disk(), &machine.nonce) {
            watch.fail(&machine.name, format!("its disk: {error:#}"));
        }
    }
}

/// Whatever went wrong on the way, a machine is Ready after at most one retry, and each attempt that failed says why.
fn check_attempts(world: &World, machine: &str) -> Result<()> {
    let shown = world.server.machine(machine)?;
    let Some(run) = shown.pointer("/status/workflow").and_then(serde_json::Value::as_str) else { return Ok(()) };
    let run = world.server.object("workflow", run)?;
    let attempt =
        run.pointer("/status/attempt").and_then(serde_json::Value::as_u64).context("a run without attempt")?;
    ensure!(attempt <= 2, "it took {attempt} attempts");
    let failures = run.pointer("/status/failures").and_then(serde_json::Value::as_array);
    for failed in failures.into_iter().flatten() {
        let why = failed.pointer("/failure/message").and_then(serde_json::Value::as_str).unwrap_or_default();
        ensure!(!why.trim().is_empty(), "attempt {} failed without a reason", failed["attempt"]);
        say(format_args!("           attempt {} failed: {why}", failed["attempt"]));
    }
    Ok(())
}

fn is_ready(shown: &serde_json::Value) -> bool {
    shown.pointer("/status/phase").is_some_and(|phase| phase == "Ready")
}

/// The server knows from the installed system itself that it is up.
fn has_phoned_home(shown: &serde_json::Value) -> bool {
    let conditions = shown.pointer("/status/conditions").and_then(serde_json::Value::as_array);
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Booted" && c["status"] == "True"))
}

/// What was learned about one machine, in milliseconds from its start.
fn moments(machine: &Machine, machines: &[Machine], entries: &[Entry]) -> Vec<Moment> {
    let Some(on) = machine.started else { return Vec::new() };
    entries
        .iter()
        .filter_map(|entry| {
            let what = match &entry.fact {
                Fact::Event(event) if machine_of(event, machines).is_some_and(|m| m.index == machine.index) => {
                    What::Event {
                        kind: event.kind.clone(),
                        action: event.data.get("action").and_then(serde_json::Value::as_str).map(str::to_owned),
                    }
                }
                Fact::Serial(index, mark) if *index == machine.index => What::Serial(*mark),
                Fact::Echo(echo) if echo.mac.eq_ignore_ascii_case(&machine.mac) => What::Echo,
                _ => return None,
            };
            let ms = u64::try_from(entry.at.saturating_duration_since(on).as_millis()).unwrap_or(u64::MAX);
            Some(Moment { ms, what })
        })
        .collect()
}

fn report(world: &mut World, watch: &Watch, machines: &[Machine]) -> Result<Report> {
    let entries = world.timeline.all();
    let machines = machines
        .iter()
        .map(|machine| {
            let state = watch.states.get(&machine.name.to_lowercase()).cloned().unwrap_or_default();
            MachineReport {
                name: machine.name.clone(),
                mac: machine.mac.clone(),
                firmware: machine.hardware.firmware.word(),
                ready: state.error.is_none() && state.ready && state.echoes > 0,
                error: state.error,
                stages: stages(&moments(machine, machines, &entries)),
            }
        })
        .collect();
    Ok(Report {
        machines,
        host: Host {
            kvm: world.accel == Accel::Kvm,
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        },
        server: ServerReport {
            max_rss_bytes: world.server.most_memory(),
            http_bytes_sent: world.namespace.bytes_sent()?,
        },
    })
}

fn table(report: &Report) {
    for machine in &report.machines {
        let verdict = if machine.ready { "Ready" } else { "failed" };
        say(format_args!("{} ({}): {verdict}", machine.name, machine.firmware));
        let stages: Vec<_> = machine
            .stages
            .iter()
            .map(|s| format!("{} {:.1}", s.name, s.end_ms.saturating_sub(s.start_ms) as f64 / 1000.0))
            .collect();
        say(format_args!("  seconds: {}", stages.join(", ")));
        if let Some(end) = machine.stages.last() {
            say(format_args!("  {} ends {:.1} s after power-on", end.name, end.end_ms as f64 / 1000.0));
        }
        if let Some(error) = &machine.error {
            say(format_args!("  {error}"));
        }
    }
    say(format_args!(
        "server: at most {} MiB of memory, {} MiB sent; {} on {} cores",
        report.server.max_rss_bytes >> 20,
        report.server.http_bytes_sent >> 20,
        if report.host.kvm { "KVM" } else { "emulation" },
        report.host.cores
    ));
}
