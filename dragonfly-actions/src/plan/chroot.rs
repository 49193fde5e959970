//! `chroot-exec`: a program inside what was installed.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Check, Target};

/// Parameters of `chroot-exec`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChrootExecParams {
    /// The partition with the installed system's root.
    pub target: Target,
    /// The program and its arguments, one each. No shell stands between.
    pub argv: Vec<String>,
    /// Its environment beside `PATH`, `HOME` and `LANG`.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Stops it after so long; ten minutes unless told.
    #[serde(default)]
    pub timeout_seconds: Option<u64>,
    /// Further partitions to mount inside the root.
    #[serde(default)]
    pub mounts: Vec<ExtraMount>,
    /// Gives it this machine's name servers while it runs.
    #[serde(default)]
    pub network: bool,
}

// By hand: arguments and environment may hold secrets.
impl std::fmt::Debug for ChrootExecParams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChrootExecParams")
            .field("target", &self.target)
            .field("program", &self.argv.first())
            .field("mounts", &self.mounts)
            .finish_non_exhaustive()
    }
}

/// A partition mounted inside another's file system.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtraMount {
    /// This partition.
    pub target: Target,
    /// Here, from the installed root: `/boot/efi`.
    pub path: String,
}

impl ExtraMount {
    pub(crate) fn check(&self, path: &str, check: &mut Check) {
        self.target.check(&format!("{path}.target"), check);
        check.inside(&format!("{path}.path"), &self.path);
        if self.path == "/" {
            check.say(format!("{path}.path"), "is the root itself; write where it is to be mounted, /boot/efi for one");
        }
    }
}

impl ChrootExecParams {
    pub(crate) fn check(&self, check: &mut Check) {
        self.target.check("target", check);
        match self.argv.first() {
            None => check.say("argv", "is empty; write the program and its arguments, one each"),
            Some(program) => {
                check.plain("argv[0]", program);
            }
        }
        if self.argv.len() > 256 {
            check.say("argv", "has more than 256 arguments");
        }
        for (index, argument) in self.argv.iter().enumerate() {
            if argument.contains('\0') {
                check.say(format!("argv[{index}]"), "holds a null byte");
            }
        }
        for (key, value) in &self.env {
            if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
                check.say(format!("env.{key}"), "is not an environment variable");
            }
        }
        if self.timeout_seconds == Some(0) {
            check.say("timeoutSeconds", "is 0: it would be stopped at once");
        }
        for (index, mount) in self.mounts.iter().enumerate() {
            mount.check(&format!("mounts[{index}]"), check);
        }
    }
}
