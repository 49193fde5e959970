//! `kexec`: the installed kernel is loaded now and started when the agent leaves.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use dragonfly_core::action::{Action, ActionContext, ActionError, Resume};

use super::bootentry;
use super::bootloader::kernel_path;
use super::fail::{OrFailed, because, blocking};
use super::host::Host;
use super::root::Root;
use super::sys;
use crate::plan::{self, Check, KexecParams, LONGEST_COMMAND_LINE, Stage};

/// What to do where the kernel has no kexec.
const REBOOT_INSTEAD: &str = "end the template with `reboot` instead of `kexec`";

/// Where boot loaders keep kernels and configurations.
const BOOT: [&str; 4] = ["/boot", "/boot/efi", "/boot/firmware", "/efi"];

/// Loads the installed kernel.
#[derive(Debug, Clone)]
pub(crate) struct KexecAction(pub(crate) Host);

impl Action for KexecAction {
    const NAME: &'static str = plan::KEXEC;
    const RESUME: Resume = Resume::Restart;
    type Params = KexecParams;

    fn check(&self, params: &KexecParams) -> Vec<(String, String)> {
        let mut check = Check::new(Stage::Rendered);
        params.check(&mut check);
        check.into_problems()
    }

    async fn run(&self, params: KexecParams, cx: &ActionContext) -> Result<(), ActionError> {
        let (host, cx) = (self.0.clone(), cx.clone());
        blocking(move || {
            cx.check_cancelled()?;
            let place = host.find(&params.target, cx.permit())?;
            let root = Root::look(&host, place, &cx)?;
            let loaded = from_root(&host, &root, &params, &cx);
            // The first of two errors is the cause. The kernel has been read: nothing of it is needed
            // on the disk any more.
            loaded.and(root.close())
        })
        .await
    }
}

fn from_root(host: &Host, root: &Root, params: &KexecParams, cx: &ActionContext) -> Result<(), ActionError> {
    let (kernel, initrds, cmdline) = match &params.kernel {
        Some(kernel) => {
            (kernel.clone(), params.initrd.clone().into_iter().collect(), params.cmdline.clone().unwrap_or_default())
        }
        None => {
            let entry = bootentry::find(root, params.entry.as_deref())
                .map_err(|error| root.with_left_out(format!("{}: {error}", root.place().name()), &BOOT))
                .map_err(ActionError::because)?;
            cx.log(format!("{}: `{}`", entry.from, entry.title));
            (entry.kernel, entry.initrds, params.cmdline.clone().unwrap_or(entry.cmdline))
        }
    };
    let cmdline = match &params.append {
        Some(append) => format!("{cmdline} {append}").trim().to_owned(),
        None => cmdline,
    };
    if cmdline.len() > LONGEST_COMMAND_LINE {
        return because(format!("the command line is longer than {LONGEST_COMMAND_LINE} bytes: {cmdline}"));
    }
    let open = |path: &str| {
        let Some(found) = kernel_path(root, path) else {
            return because(root.with_left_out(format!("there is no {path} on {}", root.place().name()), &BOOT));
        };
        File::open(&found).or_failed(|| format!("{path} could not be opened"))
    };
    let image = open(&kernel)?;
    let initrd = match &initrds[..] {
        [] => None,
        [one] => Some(open(one)?),
        several => {
            let files = several.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
            Some(joined(host, files).or_failed(|| "the initial RAM disks could not be joined")?)
        }
    };
    load(host, &kernel, &image, initrd.as_ref(), &cmdline)?;
    cx.log(format!("{kernel} is loaded with: {cmdline}"));
    Ok(())
}

/// Several initial RAM disks as one, each at a multiple of four bytes, as boot loaders join them
/// (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
fn joined(host: &Host, files: Vec<File>) -> std::io::Result<File> {
    std::fs::create_dir_all(&host.scratch)?;
    let path = host.scratch.join(format!("initrd-{}", uuid::Uuid::new_v4().simple()));
    let mut to = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    join(files, &mut to)?;
    to.seek(SeekFrom::Start(0))?;
    Ok(to)
}

fn join<R: Read, W: Write>(files: Vec<R>, to: &mut W) -> std::io::Result<()> {
    for mut file in files {
        let length = std::io::copy(&mut file, to)?;
        let rest = usize::try_from(length % 4).unwrap_or(0);
        to.write_all(&[0u8; 4][..(4 - rest) % 4])?;
    }
    Ok(())
}

/// Loads a kernel for [`leave`](super::leave()).
pub(crate) fn load(
    host: &Host,
    name: &str,
    kernel: &File,
    initrd: Option<&File>,
    cmdline: &str,
) -> Result<(), ActionError> {
    sys::kexec_file_load(kernel, initrd, cmdline).map_err(|error| refused(name, error))?;
    confirm(host, name)
}

/// Why the kernel does not load another one, and what to do.
pub(crate) fn refused(name: &str, error: std::io::Error) -> ActionError {
    let what = match error.raw_os_error() {
        Some(libc::ENOSYS) => format!("this kernel has no kexec (CONFIG_KEXEC and its like are off); {REBOOT_INSTEAD}"),
        Some(libc::EPERM) => format!(
            "this kernel does not allow kexec (lockdown, kernel.kexec_load_disabled, or not root); {REBOOT_INSTEAD}"
        ),
        Some(libc::ENOEXEC) => format!("{name} is not a kernel that kexec can start on this machine"),
        Some(libc::EKEYREJECTED | libc::ENOKEY | libc::ENODATA | libc::ENOPKG) => {
            format!("{name} carries no signature that this kernel accepts; {REBOOT_INSTEAD}")
        }
        Some(libc::ENOMEM | libc::EADDRNOTAVAIL) => {
            format!("there is not enough memory to load {name}; {REBOOT_INSTEAD}")
        }
        _ => format!("the kernel did not load {name}; {REBOOT_INSTEAD}"),
    };
    ActionError::failed(what, error)
}

/// Where the kernel can be asked, it is: leaving without a loaded kernel would go nowhere.
pub(crate) fn confirm(host: &Host, name: &str) -> Result<(), ActionError> {
    match is_loaded(&host.sys) {
        Some(false) => because(format!("the kernel took {name} but has nothing loaded; {REBOOT_INSTEAD}")),
        _ => Ok(()),
    }
}

/// Whether a kernel is loaded; `None`: this kernel does not tell.
pub(crate) fn is_loaded(sys: &Path) -> Option<bool> {
    super::host::read(&sys.join("kernel/kexec_loaded")).map(|text| text == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_ram_disks_are_joined_at_multiples_of_four() {
        let table: [(&[&[u8]], &[u8]); 4] = [
            (&[b"abcd", b"ef"], b"abcdef\0\0"),
            (&[b"a", b"bc", b"def"], b"a\0\0\0bc\0\0def\0"),
            (&[b"", b"x"], b"x\0\0\0"),
            (&[], b""),
        ];
        for (parts, want) in table {
            let mut got = Vec::new();
            join(parts.to_vec(), &mut got).unwrap();
            assert_eq!(got, want);
        }
    }
}
