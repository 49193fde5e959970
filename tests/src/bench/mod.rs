//! `cargo bench-peers`: how fast the real server is with a fleet, beside others in the same run.
//!
//! What goes over a network happens in two network namespaces joined by a cable, one for the servers and
//! one for what asks them. Ours and its peers take turns, five times at least; the report keeps every figure
//! beside the medians. Nothing is asserted about speed: a run fails only when an answer is wrong.

mod apiserver;
mod args;
mod client;
mod dhcp;
mod drops;
mod fill;
mod fleet;
mod http;
mod kubernetes;
mod machines;
mod pages;
mod peers;
mod power;
mod report;
mod server;
mod stores;
mod tftp;
mod watch;
mod world;

use std::process::ExitCode;

use clap::Parser as _;

use crate::lab::console::{complain, say};

/// Runs a measurement and gives the process' exit code: 0 done, 1 failed, 2 not understood.
pub fn main() -> ExitCode {
    let args = args::Bench::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("bench-peers: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &args::Bench) -> anyhow::Result<()> {
    if matches!(args.what, args::What::Power | args::What::Store) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let report = runtime.block_on(async {
            if args.what == args::What::Power { power::run(args).await } else { stores::run(args).await }
        })?;
        report.lines().into_iter().for_each(|line| say(format_args!("{line}")));
        return Ok(());
    }
    let (world, program) = (world::World::create()?, server::program(args)?);
    // Threads are made from here on: they are in the client's namespace as this one is.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let report = runtime.block_on(async {
        match args.what {
            args::What::Http => http::run(args, &world, &program).await,
            args::What::Fleet => fleet::run(args, &world, &program).await,
            args::What::Power => power::run(args).await,
            args::What::Store => stores::run(args).await,
        }
    })?;
    for line in report.lines() {
        say(format_args!("{line}"));
    }
    Ok(())
}
