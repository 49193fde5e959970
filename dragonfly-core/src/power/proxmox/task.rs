//! Tasks: what takes longer than an answer may. `UPID:pve1:000A1B2C:00D5E6F7:66A1B2C3:qmstart:101:root@pam:`

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::answer::Failed;
use super::client::Client;
use crate::power::PowerError;

/// The first pause before a task is looked at, and the longest one.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);

/// How long a task is followed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) longest: Duration,
    /// Whether one that runs on after that is an error.
    pub(super) must_end: bool,
}

/// A task's name, and the node that it runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Upid {
    text: String,
    node: String,
}

impl Upid {
    pub(super) fn read(data: &Value) -> Result<Self, PowerError> {
        let malformed = || PowerError::Malformed { reason: "the answer names no task".to_owned() };
        let text = data.as_str().ok_or_else(malformed)?;
        let parts: Vec<&str> = text.split(':').collect();
        match parts[..] {
            ["UPID", node, _, _, _, kind, _, _, _] if is_node(node) && !kind.is_empty() => {
                Ok(Self { text: text.to_owned(), node: node.to_owned() })
            }
            _ => Err(malformed()),
        }
    }

    /// Whether it ended well; `None` while it runs.
    async fn end(&self, client: &Client) -> Result<Option<()>, Failed> {
        let status = client.get(&["nodes", &self.node, "tasks", &self.text, "status"], &[]).await?;
        let word = |name: &str| status.get(name).and_then(Value::as_str);
        match (word("status"), word("exitstatus")) {
            (Some("running"), _) => Ok(None),
            // With warnings is done too.
            (Some("stopped"), Some(end)) if end == "OK" || end.starts_with("WARNINGS") => Ok(Some(())),
            (Some("stopped"), Some(end)) => Err(Failed::by_words(end)),
            (Some("stopped"), None) => Err(Failed::Said("its task ended, and does not say how".to_owned())),
            _ => {
                let reason = "a task that neither runs nor is stopped".to_owned();
                Err(PowerError::Malformed { reason }.into())
            }
        }
    }

    /// Waits for its end. What it says when it fails is the error.
    pub(super) async fn follow(&self, client: &Client, patience: Patience) -> Result<(), Failed> {
        let last = Instant::now() + patience.longest;
        let mut pause = FIRST;
        loop {
            sleep(pause).await;
            if self.end(client).await?.is_some() {
                return Ok(());
            }
            if Instant::now() >= last {
                return match patience.must_end {
                    true => Err(PowerError::TimedOut { after: patience.longest }.into()),
                    false => Ok(()),
                };
            }
            pause = (pause * 3 / 2).min(LONGEST);
        }
    }
}

/// Whether this can be a node's name: it becomes part of a path.
pub(super) fn is_node(name: &str) -> bool {
    !name.is_empty() && name.len() < 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tasks() {
        let upid = Upid::read(&"UPID:pve-1:000A1B2C:00D5E6F7:66A1B2C3:qmstart:101:root@pam!dragonfly:".into());
        assert_eq!(upid.unwrap().node, "pve-1");
        for text in ["", "UPID:", "UPID:../x:0:0:0:qmstart:101:root@pam:", "UPID:pve1:0:0:0::101:root@pam:", "OK"] {
            assert!(Upid::read(&text.into()).is_err(), "{text}");
        }
        assert!(Upid::read(&Value::Null).is_err());
    }
}
