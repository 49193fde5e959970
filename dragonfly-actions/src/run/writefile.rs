//! `writefile`.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use dragonfly_core::action::{Action, ActionContext, ActionError, Resume};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, renameat};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};

use super::fail::{OrFailed, because, blocking};
use super::host::{Done, Host};
use super::mount::Mount;
use crate::plan::{self, Check, Given, Stage, WriteFileParams};

/// Writes one file into what was installed.
#[derive(Debug, Clone)]
pub(crate) struct WriteFileAction(pub(crate) Host);

impl Action for WriteFileAction {
    const NAME: &'static str = plan::WRITEFILE;
    const RESUME: Resume = Resume::Verify;
    type Params = WriteFileParams;

    fn check(&self, params: &WriteFileParams) -> Vec<(String, String)> {
        let mut check = Check::new(Stage::Rendered);
        params.check(&mut check);
        check.into_problems()
    }

    async fn run(&self, params: WriteFileParams, cx: &ActionContext) -> Result<(), ActionError> {
        let (host, cx) = (self.0.clone(), cx.clone());
        blocking(move || {
            cx.check_cancelled()?;
            let place = host.find(&params.target, cx.permit())?;
            let disk = host.claim(&place.disk, cx.permit())?;
            disk.note(cx.permit(), Done::Written);
            drop(disk);
            let mount = Mount::partition(&host, &place, true)?;
            let written = write(mount.path(), &Wanted::of(&params)?, place.holds.as_ref().map(|s| s.kind));
            // The first of two errors is the cause.
            written.and(mount.unmount())?;
            cx.log(format!("{}: {} written", place.name(), params.path));
            Ok(())
        })
        .await
    }

    async fn verify(&self, params: WriteFileParams, cx: &ActionContext) -> Result<bool, ActionError> {
        let (host, cx) = (self.0.clone(), cx.clone());
        blocking(move || {
            let Ok(place) = host.find(&params.target, cx.permit()) else { return Ok(false) };
            let mount = Mount::partition(&host, &place, false)?;
            let same = holds(mount.path(), &Wanted::of(&params)?, place.holds.as_ref().map(|s| s.kind));
            mount.unmount()?;
            Ok(same)
        })
        .await
    }
}

/// A file as it is to be.
struct Wanted {
    path: String,
    bytes: Vec<u8>,
    mode: u32,
    uid: u32,
    gid: u32,
    dir_mode: u32,
}

impl Wanted {
    fn of(params: &WriteFileParams) -> Result<Self, ActionError> {
        let mode = |given: &Option<Given<plan::Mode>>, or| given.as_ref().and_then(Given::known).map_or(or, |m| m.0);
        let id = |given: &Option<Given<u32>>| given.as_ref().and_then(Given::known).copied().unwrap_or(0);
        let Some(bytes) = params.bytes() else {
            return because(format!("{}: its content is neither text nor base64", params.path));
        };
        Ok(Self {
            path: params.path.clone(),
            bytes,
            mode: mode(&params.mode, 0o644),
            uid: id(&params.uid),
            gid: id(&params.gid),
            dir_mode: mode(&params.dir_mode, 0o755),
        })
    }
}

/// Whether a file system keeps owners and permissions.
fn keeps_owners(kind: Option<&str>) -> bool {
    kind != Some("vfat")
}

/// Opens below a root, whose symbolic links never lead out of it: `/etc` of an installed system may
/// well be a link to `/usr/etc`, and that is the system's own `/usr`.
fn open_inside(root: impl AsFd, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
    let path = if path.is_empty() { "." } else { path };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, path, how)
}

/// Directory and file name of a path that was checked.
fn split(path: &str) -> (&str, &str) {
    path.trim_start_matches('/').rsplit_once('/').unwrap_or(("", path.trim_start_matches('/')))
}

/// Writes the file beside its place and moves it there, so that it is there whole or not at all. A
/// symbolic link in its place is replaced, not followed.
fn write(root: &Path, wanted: &Wanted, kind: Option<&str>) -> Result<(), ActionError> {
    let path = &wanted.path;
    let root = File::open(root).or_failed(|| "the file system's root could not be opened")?;
    let (directory, name) = split(path);
    let parent = directories(&root, directory, wanted, kind)?;
    let temporary = format!(".dragonfly-{}", uuid::Uuid::new_v4().simple());
    let how = OpenHow::new()
        .flags(OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
        .mode(Mode::S_IRUSR | Mode::S_IWUSR)
        .resolve(ResolveFlag::RESOLVE_BENEATH);
    let file = openat2(&parent, temporary.as_str(), how).or_failed(|| format!("no file could be made for {path}"))?;
    let placed = fill(File::from(file), wanted, kind).and_then(|()| {
        renameat(&parent, temporary.as_str(), &parent, name).map_err(|error| match error {
            Errno::EISDIR => ActionError::because(format!("{path} is a directory")),
            error => ActionError::failed(format!("{path} could not be put in its place"), error),
        })
    });
    if placed.is_err() {
        let _ = unlinkat(&parent, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
    }
    placed?;
    File::from(parent).sync_all().or_failed(|| format!("{path} may not survive a power cut"))
}

fn fill(mut file: File, wanted: &Wanted, kind: Option<&str>) -> Result<(), ActionError> {
    let path = &wanted.path;
    file.write_all(&wanted.bytes).or_failed(|| format!("{path} could not be written"))?;
    if keeps_owners(kind) {
        // Owner first: changing it takes set-user-id bits away.
        fchown(&file, Some(Uid::from_raw(wanted.uid)), Some(Gid::from_raw(wanted.gid)))
            .or_failed(|| format!("{path} could not be given to {}:{}", wanted.uid, wanted.gid))?;
        fchmod(&file, Mode::from_bits_truncate(wanted.mode))
            .or_failed(|| format!("{path} could not be given its mode"))?;
    }
    file.sync_all().or_failed(|| format!("{path} did not reach the disk"))
}

/// The directory at a path, with those on the way that were missing.
fn directories(root: &File, path: &str, wanted: &Wanted, kind: Option<&str>) -> Result<OwnedFd, ActionError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let open = |path: &str| open_inside(root, path, flags);
    let mut here = open("").or_failed(|| "the file system's root could not be opened")?;
    let mut so_far = String::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        so_far = format!("{so_far}/{part}");
        here = match open(&so_far) {
            Ok(next) => next,
            Err(Errno::ENOENT) => {
                mkdirat(&here, part, Mode::from_bits_truncate(wanted.dir_mode)).map_err(|error| match error {
                    // Something is there that could not be opened: a link to nowhere.
                    Errno::EEXIST => ActionError::because(format!("{so_far} is a symbolic link that leads nowhere")),
                    error => ActionError::failed(format!("{so_far} could not be made"), error),
                })?;
                let made = open(&so_far).or_failed(|| format!("{so_far} could not be opened"))?;
                if keeps_owners(kind) {
                    // The mask of this process is not the author's wish.
                    fchmod(&made, Mode::from_bits_truncate(wanted.dir_mode))
                        .or_failed(|| format!("{so_far} could not be given its mode"))?;
                }
                made
            }
            Err(Errno::ENOTDIR) => return because(format!("{so_far} is not a directory")),
            Err(error) => return Err(ActionError::failed(format!("{so_far} could not be opened"), error)),
        };
    }
    Ok(here)
}

/// Whether the file is there as it is to be.
fn holds(root: &Path, wanted: &Wanted, kind: Option<&str>) -> bool {
    let read = || -> Option<bool> {
        let root = File::open(root).ok()?;
        let (directory, name) = split(&wanted.path);
        let parent = open_inside(&root, directory, OFlag::O_RDONLY | OFlag::O_DIRECTORY).ok()?;
        // NONBLOCK: opening a pipe that somebody put there would wait for ever.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = File::from(open_inside(&parent, name, flags).ok()?);
        let meta = file.metadata().ok()?;
        let mut bytes = Vec::new();
        file.take(wanted.bytes.len() as u64 + 1).read_to_end(&mut bytes).ok()?;
        let owned =
            meta.uid() == wanted.uid && meta.gid() == wanted.gid && meta.permissions().mode() & 0o7777 == wanted.mode;
        Some(meta.is_file() && bytes == wanted.bytes && (owned || !keeps_owners(kind)))
    };
    read().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn wanted(path: &str, text: &str) -> Wanted {
        let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        Wanted { path: path.into(), bytes: text.into(), mode: 0o640, uid, gid, dir_mode: 0o750 }
    }

    #[test]
    fn makes_directories_and_replaces_whole_files() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("etc/a/b");
        for text in ["first", "second"] {
            let wanted = wanted("/etc/a/b", text);
            write(root.path(), &wanted, Some("ext4")).unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
            assert!(holds(root.path(), &wanted, Some("ext4")));
        }
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(file.parent().unwrap().metadata().unwrap().permissions().mode() & 0o7777, 0o750);
        assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
        assert!(!holds(root.path(), &wanted("/etc/a/b", "third"), Some("ext4")));
        assert!(!holds(root.path(), &wanted("/etc/none", ""), Some("ext4")));
    }

    /// An image with `/etc/shadow -> ../../../etc/shadow`, or `/etc -> /`, must not make the agent
    /// write into its own RAM disk.
    #[test]
    fn links_never_lead_out_of_the_installed_system() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("real")).unwrap();
        symlink("/real", root.path().join("absolute")).unwrap();
        symlink(format!("../../../../../..{}", outside.path().display()), root.path().join("climb")).unwrap();
        symlink(outside.path(), root.path().join("straight")).unwrap();
        symlink(outside.path().join("victim"), root.path().join("real/link")).unwrap();

        write(root.path(), &wanted("/absolute/file", "x"), Some("ext4")).unwrap();
        assert!(root.path().join("real/file").exists(), "a link is followed inside");
        write(root.path(), &wanted("/real/link", "x"), Some("ext4")).unwrap();
        assert!(root.path().join("real/link").symlink_metadata().unwrap().is_file(), "a link in its place is replaced");
        for path in ["/climb/file", "/straight/file"] {
            let said = write(root.path(), &wanted(path, "x"), Some("ext4")).unwrap_err().to_string();
            assert!(said.contains("leads nowhere"), "{said}");
        }
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        let said = write(root.path(), &wanted("/real/file/below", "x"), Some("ext4")).unwrap_err().to_string();
        assert!(said.contains("/real/file is not a directory"), "{said}");
        let said = write(root.path(), &wanted("/real", "x"), Some("ext4")).unwrap_err().to_string();
        assert!(said.contains("is a directory"), "{said}");
    }
}
