//! `cargo bench-peers`: the server with a fleet, beside others in the same run.

use std::process::ExitCode;

fn main() -> ExitCode {
    dragonfly_tests::bench::main()
}
