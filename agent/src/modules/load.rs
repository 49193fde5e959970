//! Loading modules: each once, needs first, several at a time.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use super::index::{Index, Phase, phase_of};

/// Why a module is not loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The RAM disk does not carry it; it may be part of the kernel.
    #[error("there is no module {0}")]
    Absent(String),
    /// The kernel refused it.
    #[error("module {module}: {errno}")]
    Kernel {
        /// Which one.
        module: String,
        /// What the kernel said.
        errno: Errno,
    },
}

/// What came of loading one module; whoever comes second waits for it.
type Once = Arc<OnceLock<Result<(), LoadError>>>;

/// Loads modules of the running kernel. Cheap to share between threads.
#[derive(Debug)]
pub struct Loader {
    root: PathBuf,
    index: Index,
    done: Mutex<HashMap<String, Once>>,
    seen: Mutex<HashSet<String>>,
}

/// Parameters that make the agent's start predictable.
fn parameters(module: &str) -> &'static str {
    match module {
        // Disks behind SAS controllers are then there when the controller's driver is loaded,
        // and nobody has to guess how long to wait for them.
        "scsi_mod" => "scan=sync",
        _ => "",
    }
}

impl Loader {
    /// A loader for the modules below a directory such as `/lib/modules/6.1.0-56-amd64`. A missing
    /// directory is a kernel without modules.
    pub fn open(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let text = |name: &str| std::fs::read_to_string(root.join(name)).unwrap_or_default();
        let index = Index::parse(&text("modules.dep"), &text("modules.alias"), &text("modules.softdep"));
        Self { root, index, done: Mutex::default(), seen: Mutex::default() }
    }

    /// Loads a module and what it needs. Several threads may ask for the same one: one loads, the
    /// others wait for it.
    pub fn load(&self, module: &str) -> Result<(), LoadError> {
        self.load_within(module, &mut Vec::new())
    }

    /// Loads a module by its name or by an alias: `ext4`, `fs-ext4`, `crypto-crc32c`.
    pub fn load_any(&self, name: &str) -> Result<(), LoadError> {
        let module = name.replace('-', "_");
        if self.index.file(&module).is_some() {
            return self.load(&module);
        }
        self.load_alias(name, &mut Vec::new())
    }

    fn load_within(&self, module: &str, path: &mut Vec<String>) -> Result<(), LoadError> {
        // A circle among soft dependencies would wait for itself.
        if path.iter().any(|m| m == module) {
            return Ok(());
        }
        let cell = {
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(done.entry(module.to_owned()).or_default())
        };
        if let Some(result) = cell.get() {
            return result.clone();
        }
        let Some((file, needs)) = self.index.file(module) else {
            return self.load_alias(module, path);
        };
        path.push(module.to_owned());
        let (before, after) = self.index.soft(module);
        for soft in before {
            let _ = self.load_within(soft, path);
        }
        // depmod lists the nearest first: the last one stands on nothing.
        for need in needs.iter().rev() {
            self.load_within(need, path)?;
        }
        let result = cell.get_or_init(|| insert(&self.root.join(file), module)).clone();
        for soft in after {
            let _ = self.load_within(soft, path);
        }
        path.pop();
        result
    }

    /// A name that is no module may be an alias: `crc32c` is whatever computes it. One of those behind
    /// it is enough.
    fn load_alias(&self, alias: &str, path: &mut Vec<String>) -> Result<(), LoadError> {
        let mut result = Err(LoadError::Absent(alias.to_owned()));
        for module in self.index.for_device(alias) {
            if self.index.file(module).is_some() {
                let one = self.load_within(module, path);
                result = result.or(one);
            }
        }
        result
    }

    /// Loads the drivers of every device below a sysfs root whose turn it is, until no new device
    /// shows up: a bus driver brings devices that need drivers of their own. Returns what failed.
    pub fn load_for_devices(&self, sysfs: &Path, phase: Phase) -> Vec<LoadError> {
        let mut errors = Vec::new();
        // Devices within devices are few levels deep; a loop beyond that is somebody's bug.
        for _ in 0..16 {
            let mut wanted: Vec<&str> = Vec::new();
            for modalias in modaliases(sysfs) {
                if !phase.includes(phase_of(&modalias)) {
                    continue;
                }
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                if seen.insert(modalias.clone()) {
                    for module in self.index.for_device(&modalias) {
                        if !wanted.contains(&module) {
                            wanted.push(module);
                        }
                    }
                }
            }
            if wanted.is_empty() {
                break;
            }
            // Each probe mostly waits for its hardware, so they wait together.
            std::thread::scope(|scope| {
                let threads: Vec<_> = wanted.iter().map(|module| scope.spawn(|| self.load(module))).collect();
                for thread in threads {
                    if let Ok(Err(error @ LoadError::Kernel { .. })) = thread.join() {
                        errors.push(error)
                    }
                }
            });
        }
        errors
    }
}

fn insert(path: &Path, module: &str) -> Result<(), LoadError> {
    let failed = |errno| LoadError::Kernel { module: module.to_owned(), errno };
    let file = File::open(path).map_err(|e| failed(Errno::from_raw(e.raw_os_error().unwrap_or(0))))?;
    let parameters = CString::new(parameters(module)).unwrap_or_default();
    match finit_module(&file, &parameters, ModuleInitFlags::empty()) {
        // EEXIST: built in or loaded already. ENODEV: it looked and its hardware is not here.
        Ok(()) | Err(Errno::EEXIST | Errno::ENODEV) => Ok(()),
        Err(errno) => Err(failed(errno)),
    }
}

/// What every device on every bus says it is.
fn modaliases(sysfs: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let buses = std::fs::read_dir(sysfs.join("bus")).into_iter().flatten().flatten();
    for bus in buses {
        for device in std::fs::read_dir(bus.path().join("devices")).into_iter().flatten().flatten() {
            if let Ok(text) = std::fs::read_to_string(device.path().join("modalias")) {
                found.push(text.trim().to_owned());
            }
        }
    }
    found
}
