//! Kernel modules: which ones a device needs, and loading them.

use std::ffi::OsString;
use std::process::ExitCode;

mod index;
mod load;

pub use index::{Index, NIC_CLASSES, Pattern, Phase, phase_of};
pub use load::{LoadError, Loader};

/// The name under which the kernel calls this binary when it wants a module.
pub const MODPROBE: &str = "modprobe";

/// Where the running kernel's modules are.
pub fn directory() -> std::path::PathBuf {
    let release = nix::sys::utsname::uname().ok().and_then(|u| u.release().to_str().map(str::to_owned));
    std::path::Path::new("/lib/modules").join(release.unwrap_or_default())
}

/// `modprobe [-q] [--] NAME...`, as the kernel and people in the rescue shell call it.
pub fn modprobe(args: &[OsString]) -> ExitCode {
    let loader = Loader::open(directory());
    let mut quiet = false;
    let mut code = ExitCode::SUCCESS;
    for name in args.iter().filter_map(|a| a.to_str()) {
        match name {
            "-q" | "--quiet" => quiet = true,
            option if option.starts_with('-') => {}
            name => {
                if let Err(error) = loader.load_any(name) {
                    code = ExitCode::FAILURE;
                    if !quiet {
                        crate::console::Console::stderr().line(&format!("modprobe: {error}"));
                    }
                }
            }
        }
    }
    code
}
