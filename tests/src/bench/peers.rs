//! The others: started as their own documentation says, with what they promise written down.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::world::{INTERFACE, POOL, SERVER, World};
use crate::lab::process::Process;

/// nginx with one file.
#[derive(Debug)]
pub(crate) struct Nginx {
    _process: Process,
    pub(crate) version: String,
    pub(crate) command: String,
}

impl Nginx {
    pub(crate) fn address() -> SocketAddr {
        (SERVER, 8080).into()
    }

    /// Starts it with `content` at `/script`; needs the Debian package nginx-light.
    pub(crate) fn start(world: &World, directory: &Path, content: &[u8]) -> Result<Self> {
        let root = directory.join("nginx");
        std::fs::create_dir_all(root.join("files"))?;
        std::fs::write(root.join("files/script"), content)?;
        let place = root.display();
        let config = format!(
            "worker_processes auto;\npid {place}/pid;\nerror_log {place}/error.log;\nuser root;\ndaemon off;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; open_file_cache max=10;\n\
             client_body_temp_path {place}/t1; proxy_temp_path {place}/t2; fastcgi_temp_path {place}/t3;\n\
             uwsgi_temp_path {place}/t4; scgi_temp_path {place}/t5;\n\
             server {{ listen {}; root {place}/files; }} }}\n",
            Self::address()
        );
        let file = root.join("nginx.conf");
        std::fs::write(&file, config)?;
        let words = ["-c".to_owned(), file.display().to_string(), "-e".to_owned(), format!("{place}/error.log")];
        let mut command = world.servers().command("nginx");
        command.args(&words);
        let version = said("nginx", "-v")?;
        let mut process = Process::start("nginx", command, &root.join("log"))?;
        let begin = Instant::now();
        while world.servers().connect(Self::address()).is_err() {
            process.must_run()?;
            if begin.elapsed() > Duration::from_secs(20) {
                bail!("nginx does not listen");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let command = "nginx, worker_processes auto, open_file_cache, no access log".to_owned();
        Ok(Self { _process: process, version, command })
    }
}

/// dnsmasq as a DHCP server.
#[derive(Debug)]
pub(crate) struct Dnsmasq {
    process: Process,
    pub(crate) version: String,
    pub(crate) command: String,
}

impl Dnsmasq {
    /// Starts it on the servers' interface; needs the Debian package dnsmasq-base.
    pub(crate) fn start(world: &World, directory: &Path) -> Result<Self> {
        let leases = directory.join("dnsmasq.leases");
        let words = [
            "-k".to_owned(),
            "--conf-file=/dev/null".to_owned(),
            "--port=0".to_owned(),
            "--user=root".to_owned(),
            format!("--interface={INTERFACE}"),
            "--bind-interfaces".to_owned(),
            format!("--dhcp-range={},{},255.255.0.0,1h", POOL.0, POOL.1),
            "--dhcp-lease-max=100000".to_owned(),
            "--no-ping".to_owned(),
            "--dhcp-boot=snponly.efi".to_owned(),
            format!("--dhcp-leasefile={}", leases.display()),
            "--quiet-dhcp".to_owned(),
        ];
        let version = said("dnsmasq", "--version")?;
        let mut command = world.servers().command("dnsmasq");
        command.args(&words);
        let process = Process::start("dnsmasq", command, &directory.join("dnsmasq.log"))?;
        // It says nothing to wait for; an unanswered first message is sent again.
        std::thread::sleep(Duration::from_millis(500));
        Ok(Self { process, version, command: format!("dnsmasq {}", words.join(" ")) })
    }

    pub(crate) fn stop(mut self) {
        self.process.stop(Duration::from_secs(5));
    }
}

/// The first line of what a program says of itself.
fn said(program: &str, word: &str) -> Result<String> {
    let out = Command::new(program).arg(word).output().with_context(|| format!("{program} is not installed"))?;
    let text = [out.stdout, out.stderr].concat();
    Ok(String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned())
}
