//! Disks that a run may not write, kept from being written while programs run in the installed system: those see all of
//! the machine's devices, and a wrong name in a template, or an older system's label, is another disk.

use std::fs::File;

use dragonfly_core::action::ActionContext;
use dragonfly_core::inventory::Disk;

use super::host::Host;
use super::sys;

/// Disks that the kernel lets nobody write, whatever node they are opened by, as long as this value lives.
#[derive(Debug, Default)]
pub(crate) struct Guarded(Vec<File>);

impl Guarded {
    /// Every disk of the machine but these, and but those that the run may write.
    pub(crate) fn all_but(host: &Host, disks: &[String], cx: &ActionContext) -> Self {
        let mut files = Vec::new();
        let mut why = Vec::new();
        for disk in host.disks().iter().filter(|disk| !disks.contains(&disk.name)) {
            if let Some((file, refusal)) = guard(host, disk, cx) {
                files.push(file);
                why.push(refusal);
            }
        }
        if !why.is_empty() {
            cx.log(format!("kept from being written by programs of the installed system: {}", why.join("; ")));
        }
        Self(files)
    }
}

/// Has the kernel let nobody write to a disk, if this run may not; with the reason.
fn guard(host: &Host, disk: &Disk, cx: &ActionContext) -> Option<(File, String)> {
    // What something uses that was there before the run stays as it is: that would fail in the middle of its writes.
    if !host.usage(&disk.name).is_free() || host.hold(&disk.name).is_err() {
        return None;
    }
    // A disk that cannot be opened or read is one that nobody else can write either, or is guarded unread.
    let mut open = host.open_disk(disk, false).ok()?;
    let refusal = match host.may_write(disk, &mut open, cx.permit()) {
        Ok(()) => return None,
        Err(error) => error.to_string(),
    };
    match sys::is_read_only(&open.file) {
        Ok(false) => {}
        // It was so before, and stays so afterwards.
        _ => return None,
    }
    match sys::set_read_only(&open.file, true) {
        Ok(()) => Some((open.file, refusal)),
        Err(error) => {
            cx.log(format!("{} could not be kept from being written: {error}", disk.name));
            None
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        for file in &self.0 {
            // If it fails, the step that wants to write will say so.
            let _ = sys::set_read_only(file, false);
        }
    }
}
