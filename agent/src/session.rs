//! What the server asks of this machine, one order after the other.

use std::sync::Arc;
use std::time::Duration;

use dragonfly_core::wire::{Orders, Welcome};

use crate::client::{CallError, Link, chain};
use crate::journal::Journal;
use crate::run::{Outcome, Runner};

/// How the agent leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leave {
    /// By what a hand-over action has prepared.
    HandOver(String),
    /// Through firmware.
    Restart {
        /// Why, for the console.
        reason: String,
    },
}

/// Asks for work and does it until the machine is to be left. `on_failure` is called when a workflow
/// failed and a person may want to look.
pub async fn serve(link: &Link, runner: &Runner, journal: &Journal, on_failure: &(dyn Fn() + Sync)) -> Leave {
    let mut said = String::new();
    loop {
        let orders = match link.work().await {
            Ok(orders) => orders,
            Err(CallError::NotWanted) => {
                return Leave::Restart { reason: CallError::NotWanted.to_string() };
            }
            Err(error) => {
                journal.say(format!("work: {}", chain(&error)));
                tokio::time::sleep(Duration::from_secs(15)).await;
                continue;
            }
        };
        match orders {
            Orders::Wait { reason } => {
                if reason != said {
                    journal.say(format!("waiting: {reason}"));
                    said = reason;
                }
                // The server answers at once when it is about to stop; do not spin.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Orders::Execute(work) => {
                said.clear();
                match runner.execute(&work).await {
                    Outcome::Leave(Some(action)) => return Leave::HandOver(action),
                    Outcome::Leave(None) => {
                        return Leave::Restart { reason: "every step is done; the disk boots next".to_owned() };
                    }
                    Outcome::Failed(_) | Outcome::Refused(_) => {
                        journal.say(
                            "The machine stays up: correct the cause and retry the workflow; no reboot is needed.",
                        );
                        on_failure();
                    }
                    Outcome::Stopped(reason) => journal.say(format!("the workflow is called off: {reason}")),
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            // Nothing on the disk may change, and its own boot loader knows best how it wants to be
            // booted: firmware starts it, because the server's answer is now "boot from disk".
            // Starting its kernel from here would save the firmware's seconds and take over
            // command lines, crash kernels and hypervisors that we do not understand.
            Orders::BootLocal { reason } => return Leave::Restart { reason: format!("boots its own disk: {reason}") },
            Orders::Reboot { reason } => return Leave::Restart { reason },
            _ => {
                journal.say("the server gave an order that this agent does not know; boot a newer agent");
                tokio::time::sleep(Duration::from_secs(15)).await;
            }
        }
    }
}

/// Ships the log for as long as the agent runs.
pub async fn ship(link: Arc<Link>, journal: Journal) {
    // Each session has a log of its own on the server, which begins at zero.
    let mut session = 0;
    let mut base = 0;
    loop {
        match journal.pending(256 * 1024) {
            None => journal.more().await,
            Some((offset, text)) => {
                let number = link.session_number();
                if number != session {
                    (session, base) = (number, offset);
                }
                let until = offset + text.len() as u64;
                match link.log(offset.saturating_sub(base), text).await {
                    Ok(()) => {
                        journal.shipped(until);
                        // A line comes seldom alone.
                        tokio::time::sleep(Duration::from_millis(500)).await;
                    }
                    // The questions for work tell of a server that is away, and of an ended session.
                    Err(_) => tokio::time::sleep(Duration::from_secs(3)).await,
                }
            }
        }
    }
}

/// What the console shows once the server has said who this is.
pub fn greeting(welcome: &Welcome, address: Option<&str>) -> Vec<String> {
    let mut lines = vec![String::new()];
    lines.extend(crate::font::banner(&welcome.display_name, 78));
    lines.push(String::new());
    lines.push(format!("{}   {}", welcome.display_name, address.unwrap_or("no address")));
    lines
}
