//! What people at the machine see: every console of the kernel, one line at a time.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Where lines for people go.
#[derive(Clone)]
pub struct Console {
    outputs: Arc<Mutex<Vec<Box<dyn Write + Send>>>>,
    devices: Arc<Vec<PathBuf>>,
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").field("devices", &self.devices).finish_non_exhaustive()
    }
}

impl Console {
    /// Every console that the kernel has: a screen and a serial line mostly. `/dev/console` alone
    /// would be only the last one named on the command line.
    pub fn of_the_kernel(sysfs: &Path, dev: &Path) -> Self {
        let active = std::fs::read_to_string(sysfs.join("class/tty/console/active")).unwrap_or_default();
        let mut outputs: Vec<Box<dyn Write + Send>> = Vec::new();
        let mut devices = Vec::new();
        for name in active.split_ascii_whitespace() {
            let path = dev.join(name);
            // Not blocking: a serial line without a reader must not stop an installation.
            if let Ok(file) = open_console(&path) {
                outputs.push(Box::new(file));
                devices.push(path);
            }
        }
        if outputs.is_empty() {
            outputs.push(Box::new(std::io::stderr()));
        }
        Self { outputs: Arc::new(Mutex::new(outputs)), devices: Arc::new(devices) }
    }

    /// Standard error, for an agent that is an ordinary process.
    pub fn stderr() -> Self {
        Self { outputs: Arc::new(Mutex::new(vec![Box::new(std::io::stderr())])), devices: Arc::default() }
    }

    /// The terminals behind it.
    pub fn devices(&self) -> &[PathBuf] {
        &self.devices
    }

    /// Writes one line. What a stranger wrote cannot steer the terminal: control characters are
    /// shown as `?`.
    pub fn line(&self, text: &str) {
        let mut clean: String = text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect();
        clean = clean.replace('\n', "\r\n");
        clean.push_str("\r\n");
        let mut outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        for output in outputs.iter_mut() {
            // A console that is gone is no reason to stop.
            let _ = output.write_all(clean.as_bytes()).and_then(|()| output.flush());
        }
    }
}

fn open_console(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = (nix::fcntl::OFlag::O_NOCTTY | nix::fcntl::OFlag::O_NONBLOCK).bits();
    OpenOptions::new().write(true).custom_flags(flags).open(path)
}
