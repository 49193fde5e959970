//! Programs of the build host.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a program and gives its standard output. `package` is what to install when it is missing.
pub(super) fn run<S: AsRef<OsStr>>(program: &str, args: &[S], dir: Option<&Path>, package: &str) -> Result<Vec<u8>> {
    let mut command = Command::new(program);
    // Administrators' programs are not in everybody's path.
    let path = std::env::var("PATH").unwrap_or_default();
    command.args(args).env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LC_ALL", "C").stdin(Stdio::null());
    if let Some(dir) = dir {
        command.current_dir(dir);
    }
    let output = match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("`{program}` is missing on this host: apt-get install {package}")
        }
        other => other.with_context(|| format!("cannot run {program}"))?,
    };
    if !output.status.success() {
        let words: Vec<_> = args.iter().map(|a| a.as_ref().to_string_lossy()).collect();
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{program} {}` failed ({}): {}", words.join(" "), output.status, said.trim());
    }
    Ok(output.stdout)
}
