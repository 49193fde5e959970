//! The real server and the real command line, in the lab's namespace.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::artifacts::Artifacts;
use super::http;
use super::interrupt::Interrupt;
use super::namespace::Door;
use super::process::{Process, output};

const PORT: u16 = 3000;

/// Where the server answers inside the namespace.
pub(crate) fn address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, PORT).into()
}

/// How a server is started, beside what every one is given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Launch {
    /// More options.
    pub(crate) options: Vec<String>,
    /// More variables.
    pub(crate) environment: Vec<(String, String)>,
}

impl Launch {
    pub(crate) fn new(options: &[&str]) -> Self {
        Self { options: options.iter().map(|option| (*option).to_owned()).collect(), environment: Vec::new() }
    }

    #[must_use]
    pub(crate) fn and(mut self, options: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.options.extend(options.into_iter().map(Into::into));
        self
    }

    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Makes a cluster ready to keep a server's state.
pub(crate) fn install(door: &Door, artifacts: &Artifacts, launch: &Launch) -> Result<String> {
    let mut command = door.command(&artifacts.dragonfly);
    command.args(["install", "--kubernetes"]).envs(launch.environment.iter().map(|(name, value)| (name, value)));
    output(&mut command)
}

/// A server that runs, and its command line.
#[derive(Debug)]
pub(crate) struct Server {
    program: PathBuf,
    boot_files: PathBuf,
    images: PathBuf,
    data: PathBuf,
    log: PathBuf,
    door: Door,
    launch: Launch,
    process: Option<Process>,
    most_memory: u64,
}

impl Server {
    /// Starts one with an empty store in `directory`, and waits until it is ready.
    pub(crate) fn start(
        door: &Door,
        artifacts: &Artifacts,
        directory: &Path,
        launch: &Launch,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let mut server = Self {
            program: artifacts.dragonfly.clone(),
            boot_files: artifacts.boot_files.clone(),
            images: directory.join("images"),
            data: directory.join("data"),
            log: directory.join("server.log"),
            door: door.clone(),
            launch: launch.clone(),
            process: None,
            most_memory: 0,
        };
        std::fs::create_dir_all(&server.images)?;
        std::fs::create_dir_all(&server.data)?;
        server.run(interrupt)?;
        Ok(server)
    }

    /// Starts it (again) on its data.
    pub(crate) fn run(&mut self, interrupt: &Interrupt) -> Result<()> {
        let mut command = self.door.command(&self.program);
        command
            .args(["--host", "0.0.0.0", "--port", &PORT.to_string(), "--data"])
            .arg(&self.data)
            .arg("--boot-files")
            .arg(&self.boot_files)
            .arg("--images")
            .arg(&self.images)
            .args(&self.launch.options)
            .envs(self.launch.environment.iter().map(|(name, value)| (name, value)))
            .env_remove("DRAGONFLY_TOKEN");
        self.process = Some(Process::start("the server", command, &self.log)?);
        let end = Instant::now() + Duration::from_secs(30);
        let mut why = String::new();
        let ready = interrupt.wait_until(end, || match self.is_ready() {
            Ok(()) => true,
            Err(error) => {
                why = format!("{error:#}");
                self.process.as_mut().is_none_or(|p| p.must_run().is_err())
            }
        });
        self.must_run()?;
        interrupt.check()?;
        if !ready {
            bail!("the server is not ready after 30 s: {why}\n{}", super::process::tail(&self.log, 20));
        }
        Ok(())
    }

    fn is_ready(&self) -> Result<()> {
        self.readiness().map(drop)
    }

    fn readiness(&self) -> Result<serde_json::Value> {
        let stream = self.door.connect(address())?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let answer = http::get(stream, "/readyz", "", &[])?;
        let status = answer.status;
        let text = answer.body.text(4096)?;
        if status != 200 {
            bail!("/readyz answers {status}: {text}");
        }
        Ok(serde_json::from_str(&text)?)
    }

    /// Waits until it is the one of several that answers DHCP: firmware does not ask for ever.
    pub(crate) fn wait_until_it_answers_dhcp(&self, interrupt: &Interrupt) -> Result<()> {
        let leads = || {
            self.readiness()
                .is_ok_and(|says| says["leads"].as_array().is_some_and(|all| all.iter().any(|one| one == "dhcp")))
        };
        ensure!(interrupt.wait_until(Instant::now() + Duration::from_secs(90), leads), "it does not lead `dhcp`");
        Ok(())
    }

    /// An error if it has ended.
    pub(crate) fn must_run(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::must_run)
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.note_memory();
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Puts a file where the server serves images from.
    pub(crate) fn publish(&self, file: &Path) -> Result<()> {
        let name = file.file_name().context("an image without a name")?;
        let to = self.images.join(name);
        if !to.exists() && std::fs::hard_link(file, &to).is_err() {
            std::fs::copy(file, &to).with_context(|| to.display().to_string())?;
        }
        Ok(())
    }

    pub(crate) fn images(&self) -> &Path {
        &self.images
    }

    /// Where its store and its keys are.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// The file with the administrator's token.
    pub(crate) fn token_file(&self) -> PathBuf {
        self.data.join("admin.token")
    }

    /// How its command line is called from the host, where the web pages are at this port.
    pub(crate) fn command_line(&self, port: u16) -> String {
        let (data, program) = (self.data.display(), self.program.display());
        format!("DRAGONFLY_DATA={data} DRAGONFLY_SERVER=http://127.0.0.1:{port} {program}")
    }

    /// What it answers the administrator at this path, whatever the status.
    pub(crate) fn get(&self, path: &str) -> Result<String> {
        let token = std::fs::read_to_string(self.token_file())?;
        let stream = self.door.connect(address())?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        http::get(stream, path, token.trim(), &[])?.body.text(64 << 20)
    }

    /// Runs the command line against it.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.door.command(&self.program);
        command
            .args(arguments)
            .env("DRAGONFLY_DATA", &self.data)
            .env("DRAGONFLY_SERVER", format!("http://127.0.0.1:{PORT}"))
            .env_remove("DRAGONFLY_TOKEN");
        output(&mut command)
    }

    /// Runs the command line against it, whatever comes of it: whether it went well, and all that it said.
    pub(crate) fn cli_tried(&self, arguments: &[&str]) -> Result<(bool, String)> {
        let mut command = self.door.command(&self.program);
        command
            .args(arguments)
            .env("DRAGONFLY_DATA", &self.data)
            .env("DRAGONFLY_SERVER", format!("http://127.0.0.1:{PORT}"))
            .env_remove("DRAGONFLY_TOKEN")
            .stdin(std::process::Stdio::null());
        let done = command.output()?;
        let said = [done.stdout, done.stderr].concat();
        Ok((done.status.success(), String::from_utf8_lossy(&said).into_owned()))
    }

    /// Applies a manifest.
    pub(crate) fn apply(&self, text: &str) -> Result<String> {
        let file = self.data.with_file_name("manifest.yaml");
        std::fs::write(&file, text)?;
        self.cli(&["apply", "-f", &file.display().to_string()])
    }

    /// A machine as the server shows it.
    pub(crate) fn machine(&self, name: &str) -> Result<serde_json::Value> {
        self.object("machine", name)
    }

    /// An object as the server shows it.
    pub(crate) fn object(&self, kind: &str, name: &str) -> Result<serde_json::Value> {
        let text = self.cli(&["get", kind, name, "-o", "json"])?;
        let value: serde_json::Value = serde_json::from_str(&text)?;
        Ok(match value.get("items").and_then(|items| items.get(0)).or_else(|| value.get(0)) {
            Some(first) => first.clone(),
            None => value,
        })
    }

    fn note_memory(&mut self) {
        let Some(process) = &self.process else { return };
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        self.most_memory = self.most_memory.max(kib.unwrap_or(0) * 1024);
    }

    /// The most memory that it has had so far, in bytes.
    pub(crate) fn most_memory(&mut self) -> u64 {
        self.note_memory();
        self.most_memory
    }
}
