//! The server under test: built for release, started on a directory of data.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::args::Bench;
use super::client::{Answer, Connection, get, send};
use super::world::{SERVER, World};
use crate::lab::console::say;
use crate::lab::namespace::Door;
use crate::lab::process::{Process, output, tail};

pub(crate) const PORT: u16 = 3000;

/// Where it is asked from the client's end.
pub(crate) fn address() -> SocketAddr {
    (SERVER, PORT).into()
}

/// Where it is asked from its own end.
pub(crate) fn inside() -> SocketAddr {
    ([127, 0, 0, 1], PORT).into()
}

/// The workspace's `target`.
pub(crate) fn target() -> Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the tests are not in a workspace")?;
    Ok(std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from))
}

/// The program, built now unless one is named.
pub(crate) fn program(args: &Bench) -> Result<PathBuf> {
    if let Some(program) = &args.dragonfly {
        return program.canonicalize().with_context(|| program.display().to_string());
    }
    say("building the server, which takes two cores some minutes the first time");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = ["build", "--quiet", "--release", "--locked", "-p", "dragonfly-server", "--bin", "dragonfly"];
    output(Command::new(cargo).args(build).current_dir(env!("CARGO_MANIFEST_DIR")))?;
    Ok(target()?.join("release/dragonfly"))
}

/// A server that runs.
#[derive(Debug)]
pub(crate) struct Server {
    process: Process,
    door: Door,
    log: PathBuf,
    token: String,
    /// From its start to its first word that it is ready.
    pub(crate) start: Duration,
    /// Its command line.
    pub(crate) command: String,
}

impl Server {
    /// Starts it on `directory` and waits until it is ready.
    pub(crate) fn start(world: &World, program: &Path, directory: &Path) -> Result<Self> {
        let (data, boot, log) = (directory.join("data"), directory.join("boot"), directory.join("server.log"));
        std::fs::create_dir_all(&boot)?;
        // What the machines are assigned must be there; nobody fetches it.
        std::fs::create_dir_all(data.join("images"))?;
        std::fs::write(data.join("images/bench.raw"), [])?;
        let door = world.servers().clone();
        let mut command = door.command(program);
        command.args(["--port", &PORT.to_string(), "--data"]).arg(&data).arg("--boot-files").arg(&boot);
        command.env_clear();
        let words: Vec<_> = command.get_args().skip(3).map(|word| word.to_string_lossy().into_owned()).collect();
        let begin = Instant::now();
        let mut process = Process::start("the server", command, &log)?;
        let mut connection = None;
        loop {
            if is_ready(&door, &mut connection) {
                break;
            }
            process.must_run()?;
            if begin.elapsed() > Duration::from_secs(300) {
                bail!("the server is not ready after 300 s\n{}", tail(&log, 20));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let start = begin.elapsed();
        let token = std::fs::read_to_string(data.join("admin.token")).context("the server made no token")?;
        let token = token.trim().to_owned();
        Ok(Self { process, door, log, token, start, command: words.join(" ") })
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// The end of what it said.
    pub(crate) fn said(&self) -> String {
        tail(&self.log, 20)
    }

    /// Memory in bytes: `VmRSS` now, `VmHWM` at most so far.
    pub(crate) fn memory(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
        line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    /// A connection as an operator at the server's own end has.
    pub(crate) fn connect(&self) -> Result<Connection> {
        Connection::inside(&self.door, inside())
    }

    /// Asks as an operator.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer> {
        self.connect()?.ask(&get(path, &self.token)).await
    }

    /// Applies a manifest.
    pub(crate) async fn apply(&self, text: &str) -> Result<()> {
        let request = send("POST", "/dragonfly/v1/apply", &self.token, "application/yaml", text);
        let answer = self.connect()?.ask(&request).await?;
        if answer.status != 200 {
            bail!("apply is answered {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        Ok(())
    }

    /// Packets that came to one of its UDP ports and found no room.
    pub(crate) fn dropped(&self, port: u16) -> Result<u64> {
        super::drops::dropped(&self.process.id().to_string(), port)
    }

    pub(crate) fn stop(mut self) {
        self.process.stop(Duration::from_secs(60));
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.process.kill();
    }
}

fn is_ready(door: &Door, connection: &mut Option<std::net::TcpStream>) -> bool {
    use std::io::{Read as _, Write as _};
    if connection.is_none() {
        *connection = door.connect(inside()).ok();
    }
    let Some(stream) = connection else { return false };
    let mut answer = [0; 12];
    let asked = stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .and_then(|()| stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:3000\r\n\r\n"))
        .and_then(|()| stream.read_exact(&mut answer));
    // What is left of the answer is not read: the next question gets a connection of its own.
    *connection = None;
    asked.is_ok() && answer.ends_with(b" 200")
}
