//! The command line: every word of it, and what each does.

mod apply;
mod args;
mod backup;
mod client;
mod cluster;
mod clusters;
mod import;
mod kubeconfig;
mod manifests;
mod objects;
mod output;
mod power;
mod rows;
mod timeline;
mod transfer;
mod usage;
mod verbs;
mod watch;
pub(crate) mod words;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};

pub use args::Cli;
use args::{Command, ImportCommand, MageCommand};
use client::{Client, Target};
use output::Out;

use crate::mage_build::{self, BuildOptions};
use crate::serve::Kit;

/// The exit code of who writes to a closed pipe, as a shell tells it of `cat`: 128 and SIGPIPE.
const UNREAD: u8 = 141;

/// Runs the command line and gives the process' exit code: 0 done, 1 failed, 2 not understood.
pub fn main() -> ExitCode {
    main_with(Kit::default())
}

/// As [`main`], for a server that knows these kinds of controllers and stores: its own and whoever's.
pub fn main_with(kit: Kit) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to stdout with 0, mistakes to stderr with 2.
            let error = usage::plain(error, std::env::args_os().skip(1));
            if error.use_stderr() {
                let _ = error.print();
                return ExitCode::from(2);
            }
            return ended(output::printed(&error).map(|()| ExitCode::SUCCESS).map_err(Into::into));
        }
    };
    ended(run(cli, kit))
}

fn ended(done: anyhow::Result<ExitCode>) -> ExitCode {
    match done {
        Ok(code) => code,
        // Quietly, and not as if all had been done: `apply` may have had more to do.
        Err(error) if output::unread(&error) => ExitCode::from(UNREAD),
        Err(error) => {
            output::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli, kit: Kit) -> anyhow::Result<ExitCode> {
    // The name of a MAC, completions and Mage's files need no server.
    match &cli.command {
        Some(Command::Name { mac }) => {
            Out::stdout().line(&dragonfly_core::name::memorable(*mac))?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "dragonfly", &mut script);
            Out::stdout().raw(&String::from_utf8_lossy(&script))?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Command::Crds) => {
            cluster::crds(&Out::stdout())?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Command::Boot) => {
            anyhow::bail!(
                "boot services alone are not part of this version. A remote site is served in one of these ways:\n  \
                 by {}: have the site's router relay DHCP to it, and apply a Network with the site's subnet there\n  \
                 by a whole server there, with a store of its own: dragonfly --data DIR\n  \
                 by a server there on the same store: dragonfly --backend kubernetes --mode swarm --region SITE",
                cli.reach.server
            );
        }
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(dispatch(cli, kit));
    // A blocking read that hangs must not keep a finished command alive.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    done
}

async fn dispatch(cli: Cli, kit: Kit) -> anyhow::Result<ExitCode> {
    let Some(command) = cli.command else {
        crate::serve::serve(cli.settle()?, kit).await?;
        return Ok(ExitCode::SUCCESS);
    };
    let out = Out::stdout();
    if let Command::Mage { command } = command {
        mage(command, &out).await?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Command::Restore { file } = command {
        backup::restore(&out, &file, &cli.data.unwrap_or_else(data_dir)).await?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Command::Kubeconfig { out: file } = command {
        let target = Target { server: cli.reach.server, pin: cli.reach.pin, data: cli.data.unwrap_or_else(data_dir) };
        kubeconfig::kubeconfig(target, &out, file.as_deref()).await?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Command::Install(args) = command {
        cluster::install(&out, args).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let target = Target { server: cli.reach.server, pin: cli.reach.pin, data: cli.data.unwrap_or_else(data_dir) };
    let client = Client::new(target)?;
    match command {
        Command::Get { what, names, selector, output } => {
            objects::get(&client, &out, &what, &names, selector.as_deref(), output).await?;
        }
        Command::Describe { what, name } => objects::describe(&client, &out, &what, &name).await?,
        Command::Apply { files, output } => apply::apply(&client, &out, &files, output).await?,
        Command::Delete { what: Some(what), unclaimed: true, .. } => {
            objects::delete_unclaimed(&client, &out, &what).await?
        }
        Command::Delete { what, names, files, .. } => {
            objects::delete(&client, &out, what.as_deref(), &names, &files).await?
        }
        Command::Watch { machine, until, timeout } => {
            return watch::watch(&client, &out, machine.as_deref(), until, timeout).await;
        }
        Command::Timeline { machine, follow, output } => {
            timeline::timeline(&client, &out, &machine, follow, output).await?;
        }
        Command::Why { machine, output } => verbs::why(&client, &out, &machine, output).await?,
        Command::Log { machine } => verbs::log(&client, &out, &machine).await?,
        Command::Backup { file } => backup::backup(&client, &out, &file).await?,
        Command::Login => verbs::login(&client, &out).await?,
        Command::Assign { machines, template, install } => {
            verbs::assign(&client, &out, &machines, &template, &install).await?;
        }
        Command::Reimage { machines, template, install } => {
            verbs::reimage(&client, &out, &machines, template.as_deref(), &install).await?;
        }
        Command::Retry { machines } => verbs::retry(&client, &out, &machines).await?,
        Command::Abort { machines } => verbs::each(&client, &out, &machines, "abort", "is called off").await?,
        Command::Release { machines, question } => {
            verbs::release(&client, &out, &machines, question.as_deref()).await?;
        }
        Command::Deny { machine, question } => {
            verbs::answer(&client, &out, &machine, &question, ["deny", "is not who asked"]).await?;
        }
        Command::Protect { machines, off } => verbs::protect(&client, &out, &machines, !off).await?,
        Command::Export { kind, out: file } => {
            transfer::export(&client, &out, kind.as_deref(), file.as_deref()).await?;
        }
        Command::Import { what: None, file, dry_run } => {
            let file = file.context("name the file that `dragonfly export` has written")?;
            transfer::import(&client, &out, &file, dry_run).await?;
        }
        Command::Import { what: Some(ImportCommand::Machines { file, power_on, wait, dry_run }), .. } => {
            import::machines(&client, &out, &file, import::Wish { power_on, wait, dry_run }).await?;
        }
        Command::Import { what: Some(ImportCommand::Tinkerbell(args) | ImportCommand::Metal3(args)), .. } => {
            import::foreign(&client, &out, &args).await?;
        }
        Command::Power { command } => power::power(&client, &out, command).await?,
        Command::Bmc { command } => power::bmc(&client, &out, command).await?,
        Command::Hold { machines, reason } => verbs::hold(&client, &out, &machines, reason.as_deref()).await?,
        // Answered above.
        Command::Name { .. }
        | Command::Boot
        | Command::Completions { .. }
        | Command::Kubeconfig { .. }
        | Command::Crds
        | Command::Install(_)
        | Command::Mage { .. }
        | Command::Restore { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn mage(command: MageCommand, out: &Out) -> anyhow::Result<()> {
    let MageCommand::Build { out: dir, mage, modules_from, kernel_package, cache, firmware } = command;
    let mut options = BuildOptions { mage, modules_from, cache, firmware, ..BuildOptions::new(dir) };
    if let Some(package) = kernel_package {
        options.kernel_package = package;
    }
    let built = mage_build::build(options, &mut |line| output::note(line)).await?;
    for (name, file) in &built.files {
        out.line(&format!("{name}  {}  sha256:{}", crate::view::bytes(file.size), file.sha256))?;
    }
    if !built.missing_drivers.is_empty() {
        output::note(&format!("this kernel lacks drivers that racks have: {}", built.missing_drivers.join(", ")));
    }
    Ok(())
}

fn data_dir() -> PathBuf {
    crate::config::DATA_DIR.into()
}
