//! `dragonfly`: the server and its command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    dragonfly_server::cli::main()
}
