//! Dragonfly with one driver more: everything that `dragonfly` does, for machines behind `qmp://` too.

use std::process::ExitCode;

fn main() -> ExitCode {
    dragonfly_server::cli::main_with(dragonfly_server::serve::drivers().with(power_driver::Qmp))
}
