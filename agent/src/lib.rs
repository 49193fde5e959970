//! Mage, the agent: boots into RAM, says what machine it runs on, runs the steps it is given and
//! leaves.
//!
//! Read in this order: [`init`] (process 1: mounts, identity, a child that it looks after),
//! [`agent`] (drivers, network, inventory, hello), [`session`] (what the server asks for),
//! [`run`] (the steps of a workflow). The rest are the things these use.

use std::ffi::OsString;
use std::process::ExitCode;

pub mod account;
pub mod agent;
pub mod backoff;
pub mod client;
pub mod cmdline;
pub mod console;
pub mod cpio;
pub mod discover;
pub mod font;
pub mod images;
pub mod init;
pub mod inventory;
pub mod journal;
pub mod modules;
pub mod net;
pub mod options;
pub mod pin;
pub mod rescue;
pub mod run;
pub mod session;

/// Version of this agent, as it is told to the server.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What this process is, by its id, its name and its arguments.
pub fn start(args: Vec<OsString>) -> ExitCode {
    let named = args.first().and_then(|a| std::path::Path::new(a).file_name()).and_then(|n| n.to_str());
    if named == Some(net::dhcp::EVENT_NAME) {
        return net::dhcp::on_event(args.get(1).and_then(|a| a.to_str()).unwrap_or_default());
    }
    if named == Some(modules::MODPROBE) {
        return modules::modprobe(args.get(1..).unwrap_or_default());
    }
    if std::process::id() == 1 {
        return init::run();
    }
    match options::parse(args) {
        Ok(options) => agent::main(options),
        Err(usage) => {
            console::Console::stderr().line(&usage);
            ExitCode::from(2)
        }
    }
}
