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

/// The longest line that is logged; the rest of it is left out.
const LONGEST_LINE: u64 = 4096;
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

/// Every line to the log, long ones cut, control characters replaced.
fn listen(reader: impl Read, log: &ActionContext, lines: &mpsc::Sender<String>) {
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text: String = String::from_utf8_lossy(&line)
            .trim_end()
            .chars()
            .map(|c| if c.is_control() && c != '\t' { '\u{FFFD}' } else { c })
            .collect();
        if text.is_empty() {
            continue;
        }
        log.log(&text);
        if lines.send(text).is_err() {
            return;
        }
    }
}
