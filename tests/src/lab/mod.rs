//! The lab: real firmware, the real server, the real agent, a real Debian, on one machine.
//!
//! Nothing between the virtual network card and the installed system is faked. A machine counts as
//! ready when the system on its disk has sent back, over the network, what `writefile` placed there
//! in this run, and the disk, read from outside, agrees.

mod args;
mod artifacts;
mod bmc;
mod capture;
mod cluster;
pub(crate) mod console;
mod controllers;
mod disk;
mod echo;
mod events;
mod fault;
mod forward;
mod host;
mod http;
mod image;
mod interactive;
mod interrupt;
mod machine;
mod manifest;
pub(crate) mod namespace;
mod peer;
pub(crate) mod process;
mod qemu;
mod report;
mod run;
mod scenario;
mod serial;
mod server;
mod stages;
mod standby;
mod world;

use std::process::ExitCode;

use clap::Parser as _;

/// Runs the lab and gives the process' exit code: 0 as wished, 1 failed, 2 not understood.
pub fn main() -> ExitCode {
    let args = args::Lab::parse();
    let interrupt = match interrupt::Interrupt::install() {
        Ok(interrupt) => interrupt,
        Err(error) => {
            console::complain(format_args!("cannot listen for Ctrl-C: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let done = match &args.command {
        None => interactive::interactive(&args.interactive, &interrupt),
        Some(args::Command::Run(run)) => run::run(run, &interrupt),
        Some(args::Command::Image(image)) => image::make(image, &interrupt),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // As shells count it: 128 and the signal.
        Err(_) if interrupt.is_set() => {
            console::complain(format_args!("lab: interrupted; nothing of it goes on"));
            ExitCode::from(130)
        }
        Err(error) => {
            console::complain(format_args!("lab: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
