//! Faults on purpose: the server or a machine killed, a cable pulled, at a given point of the way.

use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::console::say;
use super::disk;
use super::events::{Entry, Fact};
use super::interrupt::Interrupt;
use super::machine::Machine;
use super::serial::Mark;
use super::world::World;

/// How long the server stays away.
const AWAY: Duration = Duration::from_secs(3);

/// How long a machine is given to boot a disk that must not: several times what a whole disk takes.
const COMES_UP: Duration = Duration::from_secs(30);

/// What breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    /// The server, by SIGKILL; started again 3 s later.
    Server,
    /// The server, by SIGKILL, for good: another instance is to go on.
    Instance,
    /// The store behind the servers, by SIGKILL; started again after so long.
    Etcd(Duration),
    /// The machine's power; on again 3 s later.
    Machine,
    /// The machine's cable, for so long.
    Link(Duration),
}

/// Where on its way a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    Dhcp,
    Script,
    Kernel,
    Mage,
    Registered,
    Assigned,
    Began,
    Image,
    Configure,
    Handover,
    Ready,
}

impl Point {
    pub(crate) const ALL: [(&'static str, Self); 11] = [
        ("dhcp", Self::Dhcp),
        ("script", Self::Script),
        ("kernel", Self::Kernel),
        ("mage", Self::Mage),
        ("registered", Self::Registered),
        ("assigned", Self::Assigned),
        ("began", Self::Began),
        ("image", Self::Image),
        ("configure", Self::Configure),
        ("handover", Self::Handover),
        ("ready", Self::Ready),
    ];

    pub(crate) fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, point)| *point == self).map_or("", |(word, _)| word)
    }

    /// Whether this fact says that the machine has got here.
    fn is_reached(self, fact: &Fact) -> bool {
        let event = match fact {
            Fact::Event(event) => event,
            Fact::Serial(_, mark) => return self == Self::Mage && *mark == Mark::Mage,
            Fact::Echo(_) => return false,
        };
        let said = |path: &str| event.data.pointer(path);
        match (self, event.kind.as_str()) {
            (Self::Dhcp, "dhcp.offer")
            | (Self::Script, "boot.script")
            | (Self::Registered, "machine.registered")
            | (Self::Assigned, "workflow.assigned")
            | (Self::Began, "workflow.began")
            | (Self::Ready, "machine.ready") => true,
            (Self::Kernel, "boot.file") => event.message.starts_with("vmlinuz") || event.message.starts_with("mage"),
            (Self::Image, "step.progress") => {
                let writes = said("/step").is_some_and(|s| s == "image" || s == "root");
                let number = |path| said(path).and_then(Value::as_u64).unwrap_or(0);
                let (done, total) = (number("/progress/done"), number("/progress/total"));
                writes && done > 0 && done.saturating_mul(4) >= total
            }
            (Self::Configure, "step.began") => said("/action").is_some_and(|a| a == "writefile"),
            (Self::Handover, "step.began") => said("/action").is_some_and(|a| a == "reboot"),
            _ => false,
        }
    }
}

/// `server@image`, `machine@began`, `link:60@image`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) victim: Victim,
    pub(crate) at: Point,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.victim {
            Victim::Server => write!(f, "server@{}", self.at.word()),
            Victim::Instance => write!(f, "instance@{}", self.at.word()),
            Victim::Etcd(away) => write!(f, "etcd:{}@{}", away.as_secs(), self.at.word()),
            Victim::Machine => write!(f, "machine@{}", self.at.word()),
            Victim::Link(away) => write!(f, "link:{}@{}", away.as_secs(), self.at.word()),
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (victim, at) = text.split_once('@').ok_or("as in server@image, machine@began or link:60@image")?;
        let victim = match victim.split_once(':') {
            None if victim == "server" => Victim::Server,
            None if victim == "instance" => Victim::Instance,
            None if victim == "etcd" => Victim::Etcd(Duration::from_secs(30)),
            None if victim == "machine" => Victim::Machine,
            None if victim == "link" => Victim::Link(Duration::from_secs(60)),
            Some((what @ ("link" | "etcd"), seconds)) => {
                let seconds = seconds.parse().map_err(|_| format!("`{seconds}` is not a number of seconds"))?;
                let away = Duration::from_secs(seconds);
                if what == "link" { Victim::Link(away) } else { Victim::Etcd(away) }
            }
            _ => {
                let known = "server, instance, machine, link, link:SECONDS, etcd, etcd:SECONDS";
                return Err(format!("`{victim}` is not one of {known}"));
            }
        };
        let points = Point::ALL.map(|(word, _)| word).join(", ");
        let at = Point::ALL
            .iter()
            .find(|(word, _)| *word == at)
            .map(|(_, point)| *point)
            .ok_or_else(|| format!("`{at}` is not one of {points}"))?;
        Ok(Self { victim, at })
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    Waiting,
    /// Broken, and mended at this time.
    Broken(Instant),
    Over,
}

/// Breaks each thing once, when the first machine gets there, and mends it a little later.
#[derive(Debug)]
pub(crate) struct Faults {
    faults: Vec<(Fault, State)>,
    seen: usize,
}

impl Faults {
    pub(crate) fn new(faults: &[Fault]) -> Self {
        Self { faults: faults.iter().map(|fault| (*fault, State::Waiting)).collect(), seen: 0 }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.faults.iter().all(|(_, state)| matches!(state, State::Over))
    }

    /// Looks at what is new.
    pub(crate) fn step(&mut self, world: &mut World, machines: &mut [Machine], interrupt: &Interrupt) -> Result<()> {
        let news = world.timeline.since(self.seen);
        self.seen += news.len();
        for (fault, state) in &mut self.faults {
            *state = match *state {
                State::Waiting => match news.iter().find(|entry| fault.at.is_reached(&entry.fact)) {
                    Some(entry) => State::Broken(fault.strike(entry, world, machines)?),
                    None => State::Waiting,
                },
                State::Broken(until) if Instant::now() >= until => {
                    fault.mend(world, machines, interrupt)?;
                    State::Over
                }
                other => other,
            };
        }
        let away = self
            .faults
            .iter()
            .any(|(fault, state)| fault.victim == Victim::Server && matches!(state, State::Broken(_)));
        if away { Ok(()) } else { world.server.must_run() }
    }

    pub(crate) fn must_have_happened(&self) -> Result<()> {
        for (fault, state) in &self.faults {
            ensure!(matches!(state, State::Over), "{fault}: that point was never seen, so nothing was broken");
        }
        Ok(())
    }
}

impl Fault {
    fn strike(self, entry: &Entry, world: &mut World, machines: &mut [Machine]) -> Result<Instant> {
        let late = entry.at.elapsed().as_millis();
        match self.victim {
            Victim::Server => {
                say(format_args!("           the server is killed at `{}`, {late} ms after it", self.at.word()));
                world.server.kill();
                Ok(Instant::now() + AWAY)
            }
            Victim::Instance => {
                say(format_args!(
                    "           an instance is killed for good at `{}`, {late} ms after it",
                    self.at.word()
                ));
                world.fail_over()?;
                Ok(Instant::now())
            }
            Victim::Etcd(away) => {
                say(format_args!("           etcd is killed for {} s at `{}`", away.as_secs(), self.at.word()));
                world.cluster.as_mut().context("there is no etcd: --store kubernetes has one")?.kill_etcd();
                Ok(Instant::now() + away)
            }
            Victim::Machine => {
                let machine = machines.first_mut().context("no machine")?;
                say(format_args!("           the machine's power is cut at `{}`, {late} ms after it", self.at.word()));
                machine.cut_power();
                if self.at == Point::Image {
                    disk::must_not_boot(machine.disk()).context("a half-written disk")?;
                    must_not_come_up(machine, world)?;
                    say("           its half-written disk does not boot");
                }
                Ok(Instant::now() + AWAY)
            }
            Victim::Link(away) => {
                say(format_args!("           the cable is pulled for {} s at `{}`", away.as_secs(), self.at.word()));
                world.namespace.link(&tap(machines)?, false)?;
                Ok(Instant::now() + away)
            }
        }
    }

    fn mend(self, world: &mut World, machines: &mut [Machine], interrupt: &Interrupt) -> Result<()> {
        match self.victim {
            Victim::Server => {
                world.server.run(interrupt)?;
                say("           the server is back");
            }
            Victim::Instance => {}
            Victim::Etcd(_) => {
                world.cluster.as_mut().context("no etcd")?.start_etcd()?;
                say("           etcd is back");
            }
            Victim::Machine => {
                let machine = machines.first_mut().context("no machine")?;
                machine.power_on(&world.namespace, world.accel, &world.timeline)?;
                say("           the machine is on again");
            }
            Victim::Link(_) => {
                world.namespace.link(&tap(machines)?, true)?;
                say("           the cable is plugged in again");
            }
        }
        Ok(())
    }
}

/// Switches a machine on with nothing but its disk to boot from, and off again.
fn must_not_come_up(machine: &mut Machine, world: &World) -> Result<()> {
    let from = (world.timeline.all().len(), machine.hardware.serial_log.clone());
    // What it said before is kept by the timeline.
    std::fs::write(&from.1, "")?;
    machine.hardware.network_boot = false;
    machine.power_on(&world.namespace, world.accel, &world.timeline)?;
    let end = Instant::now() + COMES_UP;
    while Instant::now() < end {
        machine.must_run()?;
        std::thread::sleep(Duration::from_millis(200));
    }
    machine.cut_power();
    machine.hardware.network_boot = true;
    let of_it = |fact: &Fact| match fact {
        Fact::Serial(index, mark) => *index == machine.index && matches!(mark, Mark::SmallUp | Mark::Trouble),
        Fact::Echo(echo) => echo.mac.eq_ignore_ascii_case(&machine.mac),
        Fact::Event(_) => false,
    };
    let came_up = world.timeline.since(from.0).iter().any(|entry| of_it(&entry.fact));
    ensure!(!came_up, "a half-written disk booted");
    Ok(())
}

fn tap(machines: &[Machine]) -> Result<String> {
    Ok(machines.first().context("no machine")?.hardware.tap.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_written_as_they_are_read() {
        for text in ["server@image", "instance@image", "machine@began", "link:60@image", "link:5@ready", "etcd:7@began"]
        {
            assert_eq!(text.parse::<Fault>().unwrap().to_string(), text);
        }
        assert_eq!("etcd@image".parse::<Fault>().unwrap().to_string(), "etcd:30@image");
        assert_eq!("link@image".parse::<Fault>().unwrap().to_string(), "link:60@image");
        for (text, word) in [("server", "@"), ("disk@image", "disk"), ("server@lunch", "lunch"), ("link:x@image", "x")]
        {
            assert!(text.parse::<Fault>().unwrap_err().contains(word), "{text}");
        }
    }
}
