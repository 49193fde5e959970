//! The command line of the agent itself; needed only outside the RAM disk.

use std::ffi::OsString;
use std::path::PathBuf;

/// How the agent is started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The identity comes on standard input: started by `/init`.
    pub identity_on_stdin: bool,
    /// A file with the identity; it is read and unlinked.
    pub identity: Option<PathBuf>,
    /// It runs in the RAM disk and owns the machine: loads drivers, sets the clock, leaves by
    /// reboot. Without it the agent only talks and runs steps.
    pub owns_machine: bool,
    /// Where sysfs is; `/sys` unless told.
    pub sysfs: Option<PathBuf>,
    /// Print the inventory as JSON and end.
    pub inventory: bool,
}

const USAGE: &str = "\
mage: the agent of Dragonfly

In the RAM disk it is /init and takes no arguments. Elsewhere:
  mage --identity FILE   speak for the machine that FILE (JSON, unlinked after reading) names
  mage --inventory       print what it sees of this machine, as JSON
  --sysfs DIR            read DIR instead of /sys
  --version              print its version";

/// Reads the arguments, the program's name first; an error is what to print.
pub fn parse(args: Vec<OsString>) -> Result<Options, String> {
    let mut options = Options::default();
    let mut args = args.into_iter().skip(1);
    while let Some(arg) = args.next() {
        let mut value =
            |name: &str| args.next().map(PathBuf::from).ok_or(format!("mage: {name} needs a value\n\n{USAGE}"));
        match arg.to_str() {
            Some("--agent") => (options.identity_on_stdin, options.owns_machine) = (true, true),
            Some("--identity") => options.identity = Some(value("--identity")?),
            Some("--sysfs") => options.sysfs = Some(value("--sysfs")?),
            Some("--inventory") => options.inventory = true,
            Some("--version") => return Err(format!("mage {}", crate::VERSION)),
            _ => return Err(format!("mage: unknown argument `{}`\n\n{USAGE}", arg.to_string_lossy())),
        }
    }
    if options.identity.is_none() && !options.identity_on_stdin && !options.inventory {
        return Err(USAGE.to_owned());
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(args: &[&str]) -> Result<Options, String> {
        parse(std::iter::once("mage").chain(args.iter().copied()).map(OsString::from).collect())
    }

    #[test]
    fn an_unknown_argument_is_named() {
        assert!(of(&["--indentity"]).unwrap_err().contains("--indentity"));
        assert!(of(&["--identity"]).unwrap_err().contains("needs a value"));
        assert_eq!(of(&["--identity", "x"]).unwrap().identity, Some("x".into()));
        assert!(of(&[]).is_err());
    }
}
