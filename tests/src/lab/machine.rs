//! One virtual machine of the lab.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use dragonfly_core::{Mac, name};

use super::args::Firmware;
use super::events::Timeline;
use super::namespace::Namespace;
use super::process::Process;
use super::qemu::{self, Accel, Bus, Disk, Hardware};
use super::serial;

/// Size of a blank disk: an image fits, and there is something to grow into.
pub(crate) const DISK: u64 = 3 << 30;

/// A machine, running or not.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) index: usize,
    /// Its memorable name, with capitals.
    pub(crate) name: String,
    pub(crate) mac: String,
    /// What `writefile` is to place on it in this run.
    pub(crate) nonce: String,
    pub(crate) hardware: Hardware,
    directory: PathBuf,
    running: Option<Running>,
    /// It is off because its power was cut on purpose.
    unplugged: bool,
    /// When it was switched on.
    pub(crate) started: Option<Instant>,
}

#[derive(Debug)]
struct Running {
    qemu: Process,
    follower: Arc<AtomicBool>,
}

impl Machine {
    /// Machine number `index`, with one blank disk; its files go to `directory`.
    pub(crate) fn new(index: usize, firmware: Firmware, directory: &Path) -> Result<Self> {
        let mac: Mac = format!("52:54:00:77:00:{:02x}", index + 1).parse()?;
        let name = name::memorable(mac);
        let directory = directory.join(format!("{}-{}", index + 1, firmware.word()));
        std::fs::create_dir_all(&directory)?;
        let disk = directory.join("disk.raw");
        File::create(&disk)?.set_len(DISK)?;
        let hardware = Hardware {
            firmware,
            mac: mac.to_string(),
            uuid: format!("52540077-00{:02x}-4000-8000-{:012x}", index + 1, std::process::id()),
            tap: format!("tap{index}"),
            memory_mib: 1536,
            disks: vec![Disk { file: disk, bus: Bus::Virtio, serial: format!("LABDISK{:02}", index + 1) }],
            serial_log: directory.join("serial.log"),
            monitor: directory.join("monitor"),
            vars: directory.join("vars.fd"),
            card: "virtio-net-pci",
            network_boot: true,
            secure_boot: false,
            more: Vec::new(),
        };
        Ok(Self {
            index,
            name,
            mac: mac.to_string(),
            nonce: nonce()?,
            hardware,
            directory,
            running: None,
            unplugged: false,
            started: None,
        })
    }

    /// Its first disk.
    pub(crate) fn disk(&self) -> &Path {
        &self.hardware.disks[0].file
    }

    /// Switches it on.
    pub(crate) fn start(&mut self, namespace: &Namespace, accel: Accel, timeline: &Timeline) -> Result<()> {
        if self.hardware.firmware != Firmware::Bios && !self.hardware.vars.exists() {
            let vars = if self.hardware.secure_boot { qemu::SECURE_VARS } else { qemu::VARS };
            std::fs::copy(vars, &self.hardware.vars).context(vars)?;
        }
        self.started = Some(Instant::now());
        self.power_on(namespace, accel, timeline)
    }

    /// Switches it on (again); its time goes on from its first start.
    pub(crate) fn power_on(&mut self, namespace: &Namespace, accel: Accel, timeline: &Timeline) -> Result<()> {
        let mut command = namespace.door().command("qemu-system-x86_64");
        command.args(qemu::arguments(&self.hardware, accel));
        std::fs::write(self.directory.join("command"), format!("{command:?}\n"))?;
        let follower = Arc::new(AtomicBool::new(false));
        self.unplugged = false;
        let qemu = Process::start("qemu", command, &self.directory.join("qemu.log"))?;
        serial::follow(self.index, self.hardware.serial_log.clone(), timeline.clone(), Arc::clone(&follower));
        self.running = Some(Running { qemu, follower });
        Ok(())
    }

    /// An error if it has stopped by itself.
    pub(crate) fn must_run(&mut self) -> Result<()> {
        match &mut self.running {
            Some(running) => running.qemu.must_run(),
            None if self.unplugged => Ok(()),
            None => bail!("{} was not switched on", self.name),
        }
    }

    /// Whether it has power.
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// It is off and waits for its controller to switch it on.
    pub(crate) fn wait_for_power(&mut self) {
        self.unplugged = true;
        self.hardware.network_boot = false;
    }

    /// Whatever it boots from now, from its next reset on it is its disk: an order of one boot was for this one.
    pub(crate) fn boot_from_disk_again(&self) -> Result<()> {
        if !self.hardware.network_boot {
            return Ok(());
        }
        let end = Instant::now() + Duration::from_secs(10);
        while !self.hardware.monitor.exists() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        // Firmware reads the order when it starts, from a file that QEMU writes at each reset.
        self.order(
            r#"{"execute":"qom-set","arguments":{"path":"/machine/peripheral/card","property":"bootindex","value":-1}}"#,
        )
    }

    /// Starts QEMU with a machine that is switched off: its monitor is its controller.
    pub(crate) fn start_switched_off(&mut self, world: &super::world::World) -> Result<()> {
        self.hardware.more.extend(["-S", "-no-shutdown"].map(str::to_owned));
        self.start(&world.namespace, world.accel, &world.timeline)?;
        let end = Instant::now() + Duration::from_secs(10);
        while !self.hardware.monitor.exists() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Presses its power button for a moment.
    pub(crate) fn shut_down(&self) -> Result<()> {
        self.order(r#"{"execute":"system_powerdown"}"#)
    }

    /// Presses its reset button.
    pub(crate) fn reset(&self) -> Result<()> {
        self.order(r#"{"execute":"system_reset"}"#)
    }

    /// Stops its processors where they are, or lets them go on.
    pub(crate) fn pause(&self, paused: bool) -> Result<()> {
        self.order(if paused { r#"{"execute":"stop"}"# } else { r#"{"execute":"cont"}"# })
    }

    /// Pulls its cable out of its card, which notices, or plugs it in.
    pub(crate) fn cable(&self, plugged: bool) -> Result<()> {
        self.order(&format!(r#"{{"execute":"set_link","arguments":{{"name":"card","up":{plugged}}}}}"#))
    }

    /// Gives QEMU an order over its monitor.
    fn order(&self, order: &str) -> Result<()> {
        let stream = UnixStream::connect(&self.hardware.monitor).context("QEMU's monitor")?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        lines.next().context("no greeting")??;
        for command in [r#"{"execute":"qmp_capabilities"}"#, order] {
            writeln!(&stream, "{command}")?;
            loop {
                let line = lines.next().context("no answer")??;
                if line.contains("\"return\"") {
                    break;
                }
                anyhow::ensure!(!line.contains("\"error\""), "{command}: {line}");
            }
        }
        Ok(())
    }

    /// Its power fails, and it stays off until [`power_on`](Self::power_on).
    pub(crate) fn cut_power(&mut self) {
        self.unplugged = true;
        // Else the next start finds the way to a machine that is gone.
        let _ = std::fs::remove_file(&self.hardware.monitor);
        if let Some(mut running) = self.running.take() {
            running.follower.store(true, Ordering::SeqCst);
            running.qemu.kill();
        }
    }

    /// Pulls its plug.
    pub(crate) fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.follower.store(true, Ordering::SeqCst);
            running.qemu.stop(Duration::from_secs(5));
        }
    }
}

/// 128 random bits in hexadecimal.
fn nonce() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(hex::encode(bytes))
}
