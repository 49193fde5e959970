//! The usage line of a mistake.

use std::ffi::OsString;

use clap::CommandFactory as _;
use clap::error::{ContextKind, ContextValue};

use super::Cli;

/// The same error with the usage line that `--help` shows. clap's own repeats every option that has a value, given
/// or by default, as if it were required.
pub(super) fn plain(mut error: clap::Error, arguments: impl IntoIterator<Item = OsString>) -> clap::Error {
    if error.get(ContextKind::Usage).is_none() {
        return error;
    }
    let mut command = Cli::command();
    command.build();
    for word in arguments {
        // A value that is a command's name could lead astray: the worst is another command's usage line.
        if let Some(next) = word.to_str().and_then(|word| command.find_subcommand(word)).cloned() {
            command = next;
        }
    }
    let usage = command.render_usage();
    error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
    error
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn a_mistake_shows_only_what_must_be_given() {
        let said = |line: &str| {
            let words = line.split(' ');
            let error = Cli::try_parse_from(std::iter::once("dragonfly").chain(words.clone())).unwrap_err();
            plain(error, words.map(OsString::from)).to_string()
        };
        let table = [
            (
                "--data /d --server http://127.0.0.1:1 assign m",
                "Usage: dragonfly assign [OPTIONS] --template <NAME> <MACHINES>...",
            ),
            ("assign m --data /d", "Usage: dragonfly assign [OPTIONS] --template <NAME> <MACHINES>..."),
            ("get --data /d", "Usage: dragonfly get [OPTIONS] <WHAT> [NAMES]..."),
            ("mage build --data /d", "Usage: dragonfly mage build [OPTIONS] --out <DIR>"),
            ("--nonsense", "Usage: dragonfly [OPTIONS] [COMMAND]"),
        ];
        for (line, usage) in table {
            let said = said(line);
            assert!(said.lines().any(|l| l == usage), "{line}: {said}");
        }
        // The command is still suggested.
        assert!(said("asign m").contains("assign"), "{}", said("asign m"));
    }
}
