//! What happened, in the order the lab learned it: from the server, the serial lines, the installed systems.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use dragonfly_core::event::Event;

use super::echo::Echo;
use super::http;
use super::namespace::Door;
use super::serial::Mark;

/// One thing that the lab learned.
#[derive(Debug, Clone)]
pub(crate) enum Fact {
    /// The server said so.
    Event(Event),
    /// The machine of this index wrote it to its serial line.
    Serial(usize, Mark),
    /// An installed system said so.
    Echo(Echo),
}

/// A fact and when the lab learned it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) at: Instant,
    pub(crate) fact: Fact,
}

/// Everything that was learned so far. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timeline(Arc<Mutex<Vec<Entry>>>);

impl Timeline {
    pub(crate) fn add(&self, fact: Fact) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Entry { at: Instant::now(), fact });
    }

    /// Everything from number `from` on.
    pub(crate) fn since(&self, from: usize) -> Vec<Entry> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(from..).unwrap_or_default().to_vec()
    }

    pub(crate) fn all(&self) -> Vec<Entry> {
        self.since(0)
    }
}

/// Follows the server's events until dropped, across its restarts.
#[derive(Debug)]
pub(crate) struct Follower {
    stop: Arc<AtomicBool>,
}

impl Follower {
    pub(crate) fn start(door: Door, server: SocketAddr, token_file: PathBuf, timeline: Timeline) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut last = Some(0);
            while !told.load(Ordering::SeqCst) {
                // The server may be away for a while: that is what the lab is for.
                let _ = follow(&door, server, &token_file, &timeline, &mut last, &told);
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        Self { stop }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn follow(
    door: &Door,
    server: SocketAddr,
    token_file: &PathBuf,
    timeline: &Timeline,
    last: &mut Option<u64>,
    stop: &AtomicBool,
) -> Result<()> {
    let token = std::fs::read_to_string(token_file)?;
    let stream = door.connect(server)?;
    // The server keeps the connection alive; silence means that it is gone.
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let after = last.unwrap_or(0).to_string();
    let more = [("Accept", "text/event-stream"), ("Last-Event-ID", after.as_str())];
    let answer = http::get(stream, "/dragonfly/v1/events", token.trim(), &more)?;
    anyhow::ensure!(answer.status == 200, "the server answers {}", answer.status);
    let mut lines = BufReader::new(answer.body).lines();
    let mut data = String::new();
    while !stop.load(Ordering::SeqCst) {
        let line = lines.next().context("the stream ended")??;
        if let Some(more) = line.strip_prefix("data:") {
            data.push_str(more.trim_start());
        } else if line.is_empty() && !data.is_empty() {
            if let Ok(event) = serde_json::from_str::<Event>(&data) {
                // Numbers begin anew when the server does.
                *last = Some(event.id);
                timeline.add(Fact::Event(event));
            }
            data.clear();
        }
    }
    Ok(())
}
