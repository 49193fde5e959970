//! The agent's log: shown on the console, kept in memory, shipped to the server.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use dragonfly_core::secret::Mask;
use tokio::sync::Notify;

use crate::console::Console;

/// What is kept while no server takes it.
const KEPT: usize = 1024 * 1024;
/// The longest line; the rest of it is cut.
const LINE: usize = 2000;
/// What ends a line that was cut.
const CUT: &str = " ...";

/// The log. Cheap to clone; never blocks on the network and never fails.
#[derive(Debug, Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    console: Console,
    started: Instant,
    /// Seconds that the kernel had run when the agent started.
    boot_offset: f64,
    kept: Mutex<Kept>,
    mask: Mutex<Mask>,
    /// What is hidden whatever the workflow.
    own: Mutex<Mask>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    text: Vec<u8>,
    /// Offset of `text`'s first byte in the whole log.
    offset: u64,
}

impl Journal {
    /// A log that shows its lines on this console.
    pub fn new(console: Console) -> Self {
        let boot_offset = uptime().unwrap_or(0.0);
        let inner = Inner {
            console,
            started: Instant::now(),
            boot_offset,
            kept: Mutex::default(),
            mask: Mutex::default(),
            own: Mutex::default(),
            more: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// From here on these secrets of the agent's own are taken out of every line, beside a workflow's.
    pub fn hide_own(&self, mask: Mask) {
        *self.inner.own.lock().unwrap_or_else(PoisonError::into_inner) = mask;
    }

    /// From here on these secrets are taken out of every line, and no more those of an earlier call.
    pub fn hide(&self, mask: Mask) {
        *self.inner.mask.lock().unwrap_or_else(PoisonError::into_inner) = mask;
    }

    /// A line for the console and the log.
    pub fn say(&self, text: impl AsRef<str>) {
        let text = self.shown(text.as_ref());
        self.inner.console.line(&text);
        self.keep(&text);
    }

    /// A line for the log only.
    pub fn note(&self, text: impl AsRef<str>) {
        self.keep(&self.shown(text.as_ref()));
    }

    fn shown(&self, text: &str) -> String {
        let text = self.inner.own.lock().unwrap_or_else(PoisonError::into_inner).hide(text).into_owned();
        self.inner.mask.lock().unwrap_or_else(PoisonError::into_inner).hide(&text).into_owned()
    }

    fn keep(&self, text: &str) {
        let seconds = self.inner.boot_offset + self.inner.started.elapsed().as_secs_f64();
        let mut line = format!("{seconds:9.2} ");
        line.extend(text.chars().take(LINE).map(|c| if c.is_control() { ' ' } else { c }));
        if text.chars().nth(LINE).is_some() {
            line.push_str(CUT);
        }
        line.push('\n');
        {
            let mut kept = self.inner.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.text.extend_from_slice(line.as_bytes());
            if kept.text.len() > KEPT {
                // Whole lines go, the oldest first.
                let least = kept.text.len() - KEPT;
                let cut =
                    kept.text[least..].iter().position(|b| *b == b'\n').map_or(kept.text.len(), |n| least + n + 1);
                kept.text.drain(..cut);
                kept.offset += cut as u64;
            }
        }
        self.inner.more.notify_one();
    }

    /// The console behind it.
    pub fn console(&self) -> &Console {
        &self.inner.console
    }

    /// What is not shipped yet: where it begins in the whole log, and at most `limit` bytes of it. It ends with a line,
    /// if one fits: the server looks for secrets in each part by itself.
    pub fn pending(&self, limit: usize) -> Option<(u64, Bytes)> {
        let kept = self.inner.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let part = &kept.text[..kept.text.len().min(limit)];
        let part = part.iter().rposition(|b| *b == b'\n').map_or(part, |end| &part[..=end]);
        (!part.is_empty()).then(|| (kept.offset, Bytes::copy_from_slice(part)))
    }

    /// The server has everything before this offset.
    pub fn shipped(&self, until: u64) {
        let mut kept = self.inner.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = until.saturating_sub(kept.offset).min(kept.text.len() as u64);
        kept.text.drain(..gone as usize);
        kept.offset += gone;
    }

    /// Resolves when there may be something to ship.
    pub async fn more(&self) {
        self.inner.more.notified().await;
    }
}

/// Seconds since the kernel started.
pub fn uptime() -> Option<f64> {
    std::fs::read_to_string("/proc/uptime").ok()?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hides_secrets_of_its_own_beside_those_of_a_workflow() {
        let journal = Journal::new(Console::stderr());
        journal.hide_own(Mask::new(&["own-secret".to_owned().into()]));
        for workflows in ["first-secret", "second-secret"] {
            journal.hide(Mask::new(&[workflows.to_owned().into()]));
            journal.note(format!("own-secret and {workflows}"));
        }
        let (_, text) = journal.pending(10_000).unwrap();
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert_eq!(text.matches("[secret] and [secret]").count(), 2, "{text}");
        assert!(!text.contains("-secret"));
    }

    #[test]
    fn a_part_ends_with_a_line_and_a_long_line_says_that_it_is_cut() {
        let journal = Journal::new(Console::stderr());
        journal.note("first");
        journal.note("x".repeat(LINE));
        journal.note("x".repeat(LINE + 1));
        let (_, whole) = journal.pending(usize::MAX).unwrap();
        let lines: Vec<&[u8]> = whole.split_inclusive(|b| *b == b'\n').collect();
        assert!(lines[1].ends_with(b"x\n") && lines[2].ends_with(b"x ...\n"), "{}", String::from_utf8_lossy(&whole));
        let first = lines[0].len();
        for limit in [first, first + 1, first + 100] {
            assert_eq!(journal.pending(limit).unwrap().1, lines[0], "{limit}");
        }
        assert_eq!(journal.pending(first - 1).unwrap().1, lines[0][..first - 1], "it goes on whatever the limit");
    }

    #[test]
    fn keeps_offsets_while_the_oldest_lines_go() {
        let journal = Journal::new(Console::stderr());
        journal.note("first");
        let (offset, text) = journal.pending(10_000).unwrap();
        assert_eq!(offset, 0);
        assert!(text.ends_with(b" first\n"), "{text:?}");
        journal.shipped(text.len() as u64);
        assert!(journal.pending(10).is_none());
        let mut written = text.len() as u64;
        for n in 0..30_000 {
            journal.note(format!("line {n} \u{1b}[31m {}", "x".repeat(60)));
        }
        let (offset, text) = journal.pending(usize::MAX).unwrap();
        assert!(offset > 0 && text.len() <= KEPT);
        assert!(!text.contains(&0x1b));
        written = written.max(offset + text.len() as u64);
        journal.shipped(written);
        assert!(journal.pending(1).is_none());
        journal.shipped(0);
        journal.note("more");
        assert_eq!(journal.pending(1).unwrap().0, written);
    }
}
