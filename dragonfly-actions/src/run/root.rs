//! An installed system, mounted with all that a program inside it expects.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dragonfly_core::action::{ActionContext, ActionError};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::bootentry::{Files, LONGEST_FILE};
use super::fail::{OrFailed, because};
use super::guard::Guarded;
use super::host::{Done, Host};
use super::mount::Mount;
use super::place::Place;
use super::program::Program;
use crate::plan::ExtraMount;

mod table;

/// How long a file system may stay busy after the programs on it were killed.
const PATIENCE: Duration = Duration::from_secs(2);

/// A root with its partitions and this machine's `/dev`, `/proc`, `/sys`, EFI variables and `/run`.
/// Everything is unmounted when it is dropped; [`close`](Self::close) says whether that went well.
#[derive(Debug)]
pub(crate) struct Root {
    host: Host,
    cx: ActionContext,
    place: Place,
    /// Mounted for changing it, not for reading alone.
    write: bool,
    /// The root's disk, and others that this run may write: what is mounted lies on these.
    disks: Vec<String>,
    /// Lines of its `/etc/fstab` whose partitions are there and are not mounted.
    left_out: Vec<table::LeftOut>,
    /// The root's own file system first; each of the others lies in one before it.
    partitions: Vec<(Place, String, Mount)>,
    binds: Vec<PathBuf>,
    /// Made for the time of the run.
    made: Vec<PathBuf>,
    /// The machine's other disks, while programs may run.
    guarded: Guarded,
}

impl Root {
    /// Mounts an installed system for changing it. The disks must be this run's to write. Blocks.
    pub(crate) fn open(
        host: &Host,
        place: Place,
        extra: Vec<(Place, String)>,
        cx: &ActionContext,
    ) -> Result<Self, ActionError> {
        let mut disks = vec![&place.disk];
        disks.extend(extra.iter().map(|(place, _)| &place.disk));
        disks.sort_by(|a, b| a.name.cmp(&b.name));
        disks.dedup_by(|a, b| a.name == b.name);
        for disk in &disks {
            host.claim(disk, cx.permit())?.note(cx.permit(), Done::Written);
        }
        let disks = disks.iter().map(|disk| disk.name.clone()).collect();
        let mut this = Self::mount(host, place, true, cx)?;
        this.disks = disks;
        for (place, path) in extra {
            this.attach(place, &path)?;
        }
        this.attach_from_fstab()?;
        this.guarded = Guarded::all_but(host, &this.disks, cx);
        this.bind_system()?;
        Ok(this)
    }

    /// Mounts an installed system, and the partitions of its `/etc/fstab`, for reading: not a byte of
    /// its disks changes. Blocks.
    pub(crate) fn look(host: &Host, place: Place, cx: &ActionContext) -> Result<Self, ActionError> {
        let mut this = Self::mount(host, place, false, cx)?;
        this.attach_from_fstab()?;
        Ok(this)
    }

    fn mount(host: &Host, place: Place, write: bool, cx: &ActionContext) -> Result<Self, ActionError> {
        let mounted = Mount::partition(host, &place, write)?;
        Ok(Self {
            host: host.clone(),
            cx: cx.clone(),
            write,
            disks: vec![place.disk.name.clone()],
            left_out: Vec::new(),
            place: place.clone(),
            partitions: vec![(place, "/".to_owned(), mounted)],
            binds: Vec::new(),
            made: Vec::new(),
            guarded: Guarded::default(),
        })
    }

    /// The partition with the root.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Where the root is mounted.
    pub(crate) fn path(&self) -> &Path {
        self.partitions.first().map_or(Path::new("/"), |(_, _, mount)| mount.path())
    }

    /// The node of the disk with the root.
    pub(crate) fn disk_node(&self) -> PathBuf {
        self.host.dev.join(&self.place.disk.name)
    }

    /// The partition that is mounted at a path of the system, if one is.
    pub(crate) fn mounted_at(&self, path: &str) -> Option<&Place> {
        self.partitions.iter().find(|(_, at, _)| at == path).map(|(place, ..)| place)
    }

    /// A path of the system as a path of this machine. Links are followed inside the system and never
    /// lead out of it.
    pub(crate) fn resolve(&self, path: &str) -> nix::Result<PathBuf> {
        let root = File::open(self.path()).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let found = openat2(&root, if path == "/" { "." } else { path }, how)?;
        let link = self.host.proc.join(format!("self/fd/{}", found.as_raw_fd()));
        let found = nix::fcntl::readlink(&link).map(PathBuf::from)?;
        // Belt and braces: whatever the kernel says, nothing outside of it is touched.
        if found.starts_with(self.path()) { Ok(found) } else { Err(Errno::EXDEV) }
    }

    /// Whether the system has this file.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.resolve(path).is_ok()
    }

    /// The first of these programs that the system has.
    pub(crate) fn program(&self, names: &[&str]) -> Result<Option<(String, Program)>, ActionError> {
        for directory in ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"] {
            for name in names {
                if self.has(&format!("{directory}/{name}")) {
                    return Ok(Some(((*name).to_owned(), Program::inside(self.path(), name)?)));
                }
            }
        }
        Ok(None)
    }

    /// Mounts a partition at a path of the system.
    fn attach(&mut self, place: Place, path: &str) -> Result<(), ActionError> {
        let at = self.directory(path)?;
        let mounted = Mount::partition_at(&self.host, &place, at, self.write)?;
        self.partitions.push((place, path.trim_end_matches('/').to_owned(), mounted));
        Ok(())
    }

    /// A directory of the system; made where it is missing.
    fn directory(&self, path: &str) -> Result<PathBuf, ActionError> {
        let at = match self.resolve(path) {
            Ok(at) => at,
            Err(Errno::ENOENT) => {
                let (parent, name) = path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", path));
                let parent = if parent.is_empty() { "/" } else { parent };
                let at = self
                    .resolve(parent)
                    .or_failed(|| format!("{path}: the installed system has no {parent}"))?
                    .join(name);
                fs::create_dir(&at).or_failed(|| format!("{path} could not be made in the installed system"))?;
                at
            }
            Err(error) => {
                return Err(ActionError::failed(format!("{path} of the installed system cannot be reached"), error));
            }
        };
        if !at.is_dir() {
            return because(format!("{path} of the installed system is not a directory"));
        }
        // Mounting there would hide the system itself.
        if at == self.path() && path != "/" {
            return because(format!("{path} of the installed system is a link to its root"));
        }
        Ok(at)
    }

    fn bind_system(&mut self) -> Result<(), ActionError> {
        let efivars = self.host.efivars.clone();
        let run = PathBuf::from("/run");
        let sources = [
            (self.host.dev.clone(), "/dev"),
            (self.host.dev.join("pts"), "/dev/pts"),
            (self.host.proc.clone(), "/proc"),
            (self.host.sys.clone(), "/sys"),
            (efivars, "/sys/firmware/efi/efivars"),
            (run, "/run"),
        ];
        for (from, path) in sources {
            if from.is_dir() {
                let at = self.directory(path)?;
                self.bind(&from, at)?;
            }
        }
        Ok(())
    }

    /// Names its partitions by UUID under `/dev/disk`, where no device manager has done so. Without
    /// that name `grub-mkconfig` writes `root=/dev/sda3`, which may be another disk when the installed
    /// system's kernel counts them.
    pub(crate) fn name_partitions(&self) -> Result<(), ActionError> {
        let directory = self.host.dev.join("disk/by-uuid");
        fs::create_dir_all(&directory).or_failed(|| format!("{} could not be made", directory.display()))?;
        for (place, ..) in &self.partitions {
            let Some(uuid) = place.holds.as_ref().and_then(|holds| holds.uuid.as_deref()) else { continue };
            let link = directory.join(uuid);
            if fs::symlink_metadata(&link).is_err() {
                std::os::unix::fs::symlink(Path::new("../..").join(place.name()), &link)
                    .or_failed(|| format!("{} could not be made", link.display()))?;
            }
        }
        Ok(())
    }

    /// Shows a file or directory of this machine inside the system.
    fn bind(&mut self, from: &Path, at: PathBuf) -> Result<(), ActionError> {
        let nothing = None::<&str>;
        mount(Some(from), &at, nothing, MsFlags::MS_BIND, nothing)
            .or_failed(|| format!("{} could not be shown at {}", from.display(), at.display()))?;
        // Before anything is mounted under it, or that would show on this machine as well.
        self.binds.push(at.clone());
        mount(nothing, &at, nothing, MsFlags::MS_PRIVATE, nothing)
            .or_failed(|| format!("{} could not be kept apart", at.display()))
    }

    /// Gives the system this machine's name servers until it is closed.
    pub(crate) fn lend_name_servers(&mut self) -> Result<(), ActionError> {
        const FILE: &str = "/etc/resolv.conf";
        let ours = Path::new(FILE);
        if !ours.is_file() {
            return because(
                "this machine has no name servers to lend (/etc/resolv.conf is missing): leave `network` out, or let \
                 DHCP give some",
            );
        }
        let at = match self.resolve(FILE) {
            Ok(at) => at,
            // Not there, or a link to what only the running system makes, in /run for one: a file for
            // the time of the run.
            Err(Errno::ENOENT) => {
                let etc = self.directory("/etc")?.join("resolv.conf");
                let at = match fs::read_link(&etc) {
                    Ok(link) => {
                        let path = if link.is_absolute() { link } else { Path::new("/etc").join(link) };
                        let parent = path.parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned();
                        self.directories(&parent)?.join(path.file_name().unwrap_or_default())
                    }
                    Err(_) => etc,
                };
                // New, so that no further link is followed.
                File::create_new(&at).or_failed(|| format!("{FILE} could not be made in the installed system"))?;
                self.made.push(at.clone());
                at
            }
            Err(error) => {
                return Err(ActionError::failed(format!("{FILE} of the installed system cannot be reached"), error));
            }
        };
        self.bind(ours, at)
    }

    /// A directory of the system with all that it lies in; `..` is taken by its spelling.
    fn directories(&self, path: &str) -> Result<PathBuf, ActionError> {
        let mut names: Vec<&str> = Vec::new();
        for name in path.split('/') {
            match name {
                "" | "." => {}
                ".." => drop(names.pop()),
                name => names.push(name),
            }
        }
        let mut at = self.path().to_owned();
        for end in 1..=names.len() {
            at = self.directory(&format!("/{}", names[..end].join("/")))?;
        }
        Ok(at)
    }

    /// Unmounts everything, last first.
    pub(crate) fn close(mut self) -> Result<(), ActionError> {
        self.detach()
    }

    fn detach(&mut self) -> Result<(), ActionError> {
        self.kill_inside();
        let mut result = Ok(());
        let made = std::mem::take(&mut self.made);
        for at in std::mem::take(&mut self.binds).into_iter().rev() {
            self.unbind(&at);
            // At once: it may lie in a directory that is shown here and is gone a moment later.
            if made.contains(&at) {
                let _ = fs::remove_file(at);
            }
        }
        for (place, path, mount) in std::mem::take(&mut self.partitions).into_iter().rev() {
            if let Err(error) = mount.unmount() {
                self.cx.log(format!("{} ({path}): {error}", place.name()));
                result = result.and(Err(error));
            }
        }
        self.guarded = Guarded::default();
        result
    }

    fn unbind(&self, at: &Path) {
        let begin = Instant::now();
        loop {
            match umount2(at, MntFlags::UMOUNT_NOFOLLOW) {
                Err(Errno::EBUSY) if begin.elapsed() < PATIENCE => {
                    // Fine here: this runs on a thread that may block.
                    std::thread::sleep(Duration::from_millis(20));
                }
                Ok(()) => return,
                Err(error) => {
                    // The kernel finishes it when the last user lets go.
                    self.cx.log(format!("{} is still in use ({error}) and was detached", at.display()));
                    let _ = umount2(at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
                    return;
                }
            }
        }
    }

    /// Kills what still runs inside the system: services that a package's script has started would hold
    /// its file systems.
    fn kill_inside(&self) {
        let root = self.path();
        if root == Path::new("/") {
            return;
        }
        for entry in fs::read_dir(&self.host.proc).into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            if fs::read_link(entry.path().join("root")).is_ok_and(|its| its.starts_with(root)) {
                self.cx.log(format!("process {pid} was left running in the installed system and is killed"));
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // What went wrong is in the log; a failure on the way here is the one to report.
        let _ = self.detach();
    }
}

impl Files for Root {
    fn read(&self, path: &str) -> Option<String> {
        let path = self.resolve(path).ok()?;
        let meta = fs::metadata(&path).ok()?;
        if !meta.is_file() || meta.len() > LONGEST_FILE {
            return None;
        }
        fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let entries = self.resolve(directory).ok().and_then(|path| fs::read_dir(path).ok());
        entries.into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

/// Finds the partitions of further mounts.
pub(crate) fn places(
    host: &Host,
    mounts: &[ExtraMount],
    cx: &ActionContext,
) -> Result<Vec<(Place, String)>, ActionError> {
    let mut found = Vec::with_capacity(mounts.len());
    for mount in mounts {
        found.push((host.find(&mount.target, cx.permit())?, mount.path.clone()));
    }
    Ok(found)
}
