//! Other people's programs: argv, never a shell; output to the step's log; stopped when asked.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use dragonfly_core::action::{ActionContext, ActionError};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::fail::{OrFailed, because};
use super::host::Host;
use super::sys;

/// The longest line that is logged, in bytes; the rest of it is left out.
const LONGEST_LINE: u64 = 4096;
/// What ends a line of which the rest is left out.
const LEFT_OUT: &str = " ... (the rest of this line is left out)";
/// How many of its last lines an error repeats.
const LAST_LINES: usize = 5;

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// The last lines of its output.
    pub(crate) last: Vec<String>,
}

impl Ended {
    /// Its exit code; 128 and the signal's number when it was killed, as a shell counts.
    pub(crate) fn code(&self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// An error with its last words.
    pub(crate) fn failure(&self, program: &str) -> ActionError {
        let said = if self.last.is_empty() { "it said nothing".to_owned() } else { self.last.join(" | ") };
        ActionError::because(format!("{program} failed with exit code {}: {said}", self.code()))
    }
}

/// A program that is to run.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    command: Command,
    limit: Duration,
}

impl Program {
    /// One of this machine's programs; the error names the one that is missing.
    pub(crate) fn new(host: &Host, name: &str, what_for: &str) -> Result<Self, ActionError> {
        let Some(path) = host.program(name) else {
            return because(format!(
                "{what_for} needs the program `{name}`, which is not on this machine; build the agent's RAM disk with it"
            ));
        };
        let mut command = Command::new(path);
        command.env_clear().env("PATH", search_path(&host.path)).env("LANG", "C.UTF-8").env("HOME", "/root");
        command.process_group(0);
        Ok(Self { name: name.to_owned(), command, limit: Duration::from_secs(3600) })
    }

    /// A program inside another root, looked up there along the usual path.
    pub(crate) fn inside(root: &Path, name: &str) -> Result<Self, ActionError> {
        let mut command = Command::new(name);
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LANG", "C.UTF-8")
            .env("HOME", "/root")
            .env("DEBIAN_FRONTEND", "noninteractive");
        sys::enter(&mut command, root).or_failed(|| format!("{} cannot be a root", root.display()))?;
        Ok(Self { name: name.to_owned(), command, limit: Duration::from_secs(3600) })
    }

    pub(crate) fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.command.arg(arg.into());
        self
    }

    pub(crate) fn args<I: IntoIterator<Item: Into<OsString>>>(mut self, args: I) -> Self {
        self.command.args(args.into_iter().map(Into::into));
        self
    }

    pub(crate) fn env(mut self, key: &str, value: &str) -> Self {
        self.command.env(key, value);
        self
    }

    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it, and fails unless it ends with 0. Blocks.
    pub(crate) fn succeed(self, cx: &ActionContext) -> Result<(), ActionError> {
        let name = self.name.clone();
        let ended = self.run(cx)?;
        if ended.status.success() { Ok(()) } else { Err(ended.failure(&name)) }
    }

    /// Runs it. When the step is called off, or time is up, it and its children are killed. Blocks.
    pub(crate) fn run(mut self, cx: &ActionContext) -> Result<Ended, ActionError> {
        let name = self.name;
        let (reader, writer) = std::io::pipe().or_failed(|| "no pipe could be made")?;
        let second = writer.try_clone().or_failed(|| "no pipe could be made")?;
        self.command.stdin(Stdio::null()).stdout(writer).stderr(second);
        let child = self.command.spawn().or_failed(|| format!("`{name}` could not be started"))?;
        // It holds our ends of the pipe: with them open its end would never be seen.
        drop(self.command);
        let mut group = Group(Some(child));
        let (lines, heard) = mpsc::channel();
        let log = cx.clone();
        std::thread::Builder::new()
            .name("program-output".into())
            .spawn(move || listen(reader, &log, &lines))
            .or_failed(|| "no thread could be started")?;
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = group.try_wait().or_failed(|| format!("`{name}` cannot be waited for"))? {
                break status;
            }
            cx.check_cancelled()?;
            if begin.elapsed() > self.limit {
                return because(format!("`{name}` did not end within {} s and was stopped", self.limit.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        // What it left running must not outlive it: it would keep file systems busy.
        drop(group);
        let mut last = VecDeque::new();
        // The listener ends when nobody holds the pipe any more; something that left its group might.
        let patience = Instant::now() + Duration::from_secs(2);
        while let Ok(line) = heard.recv_timeout(patience.saturating_duration_since(Instant::now())) {
            if last.len() == LAST_LINES {
                last.pop_front();
            }
            last.push_back(line);
        }
        Ok(Ended { status, last: last.into() })
    }
}

fn search_path(path: &[PathBuf]) -> OsString {
    std::env::join_paths(path).unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".into())
}

/// A child and its process group; killed when dropped.
struct Group(Option<Child>);

impl Group {
    fn try_wait(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.0.as_mut().map_or(Ok(None), Child::try_wait)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            if let Ok(id) = i32::try_from(child.id()) {
                // Gone already: nothing to kill.
                let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
            }
            let _ = child.wait();
        }
    }
}

/// Every line to the log: secrets are taken out, long ones cut, control characters replaced.
fn listen(reader: impl Read, log: &ActionContext, lines: &mpsc::Sender<String>) {
    let mut reader = BufReader::new(reader);
    while let Some((line, is_whole)) = next_line(&mut reader) {
        // Before anything else is done to it: whoever gets it then would not know a secret that was cut or changed.
        let text = String::from_utf8_lossy(&line);
        let hidden = if is_whole { log.mask().hide(&text) } else { log.mask().hide_cut(&text) };
        let mut text: String =
            hidden.trim_end().chars().map(|c| if c.is_control() && c != '\t' { '\u{FFFD}' } else { c }).collect();
        if text.is_empty() {
            continue;
        }
        if !is_whole {
            text.push_str(LEFT_OUT);
        }
        log.log(&text);
        if lines.send(text).is_err() {
            return;
        }
    }
}

/// The next line, and whether it is all of it; of a longer one the rest is read past.
fn next_line(reader: &mut impl BufRead) -> Option<(Vec<u8>, bool)> {
    let mut line = Vec::new();
    if reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line).ok()? == 0 {
        return None;
    }
    let is_whole = (line.len() as u64) < LONGEST_LINE
        || line.ends_with(b"\n")
        || reader.fill_buf().is_ok_and(|rest| matches!(rest, [] | [b'\n', ..]));
    // The line feed alone, if nothing else is left; nothing, if it was read. What went wrong shows at the next line.
    if !line.ends_with(b"\n") {
        let _ = reader.skip_until(b'\n');
    }
    if !is_whole {
        // Half a character is none: what stands before it may be half a secret.
        let half = line.utf8_chunks().last().map_or(0, |chunk| chunk.invalid().len());
        line.truncate(line.len() - half);
    }
    Some((line, is_whole))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dragonfly_core::action::{Canceller, Permit};
    use dragonfly_core::secret::Mask;
    use dragonfly_core::testing::{RecordingSink, StaticImages};

    use super::*;

    const SECRET: &str = "s\u{e9}cret-0123456789-abcdef";

    /// What is logged of this output, and what an error repeats of it.
    fn heard(output: &[u8]) -> Vec<String> {
        let sink = RecordingSink::new();
        let images = Arc::new(StaticImages::default());
        let cx = ActionContext::new(&Canceller::default(), Arc::new(sink.clone()), images, Permit::default())
            .with_mask(Mask::new(&[SECRET.to_owned().into()]));
        let (lines, heard) = mpsc::channel();
        listen(output, &cx, &lines);
        drop(lines);
        let said: Vec<String> = heard.iter().collect();
        assert_eq!(said, sink.lines());
        said
    }

    #[test]
    fn of_a_long_line_the_rest_is_left_out_and_that_is_told_once() {
        let longest = LONGEST_LINE as usize;
        for over in [1, 2, longest, 3 * longest + 5] {
            let long = "x".repeat(longest + over);
            let cut = format!("{}{LEFT_OUT}", "x".repeat(longest));
            assert_eq!(heard(format!("{long}\nnext\n").as_bytes()), [cut.as_str(), "next"], "{over}");
            assert_eq!(heard(long.as_bytes()), [cut], "{over}");
        }
        for whole in [longest - 1, longest] {
            let line = "x".repeat(whole);
            assert_eq!(heard(format!("{line}\nnext\n").as_bytes()), [line.as_str(), "next"]);
            assert_eq!(heard(line.as_bytes()), [line]);
        }
        // A character that is cut in two.
        let wide = format!("{}\u{e9}", "x".repeat(longest - 1));
        assert_eq!(heard(wide.as_bytes()), [format!("{}{LEFT_OUT}", "x".repeat(longest - 1))]);
    }

    #[test]
    fn a_secret_across_the_end_of_a_long_line_leaves_no_part() {
        for part in 1..SECRET.len() {
            let before = "x".repeat(LONGEST_LINE as usize - part);
            let said = heard(format!("{before}{SECRET} and {SECRET}\n{SECRET}\n").as_bytes());
            assert_eq!(said, [format!("{before}[secret]{LEFT_OUT}"), "[secret]".to_owned()], "{part}");
        }
    }
}
