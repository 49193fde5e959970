//! Dragonfly with one driver more: everything that `dragonfly` does, for machines behind `qmp://` too.

use std::process::ExitCode;

use dragonfly_server::serve::{self, Kit};

fn main() -> ExitCode {
    let drivers = serve::drivers().with(power_driver::Qmp);
    dragonfly_server::cli::main_with(Kit { drivers, ..Kit::default() })
}
