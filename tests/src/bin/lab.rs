//! `cargo lab`: blank virtual machines from power-on to Ready, through the real server.

use std::process::ExitCode;

fn main() -> ExitCode {
    dragonfly_tests::lab::main()
}
