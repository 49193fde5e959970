//! Management controllers of the lab's machines: OpenIPMI's simulator behind QEMU's KCS interface.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Result;

use super::namespace::Namespace;
use super::process::Process;

/// Where the simulator waits for QEMU, inside the lab's namespace.
const PORT: u16 = 9012;
/// Where nobody answers.
const DEAD: u16 = 9013;
/// A controller with one sensor, as small as `ipmi_sim` takes it.
const COMMANDS: &str = "mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
sensor_add 0x20 0 1 1 1
sensor_set_value 0x20 0 1 0x60 0
mc_enable 0x20
";

/// A user that every controller comes with.
pub(crate) const FACTORY_USER: &str = "ADMIN";

/// A controller that answers, and where it is on the network.
#[derive(Debug)]
pub(crate) struct Bmc {
    _simulator: Process,
    /// Takes connections and never reads from them.
    _dead: TcpListener,
    pub(crate) address: &'static str,
    pub(crate) mac: &'static str,
    /// Of the user that it comes with.
    pub(crate) factory_password: String,
}

impl Bmc {
    /// Starts one; a machine is given it by [`arguments`](Self::arguments).
    pub(crate) fn start(namespace: &Namespace, directory: &Path) -> Result<Self> {
        let (address, mac) = ("192.168.77.240", "52:54:00:77:b0:01");
        namespace.add_address(address)?;
        let mut password = [0; 8];
        getrandom::fill(&mut password)?;
        let factory_password = hex::encode(password);
        let directory = directory.join("bmc");
        std::fs::create_dir_all(directory.join("state"))?;
        let at = |name: &str| directory.join(name);
        std::fs::write(at("commands"), COMMANDS)?;
        std::fs::write(at("lan.conf"), config(&at("lan"), address, &factory_password))?;
        std::fs::write(at("lan"), lan_program(address, mac))?;
        std::fs::set_permissions(at("lan"), std::fs::Permissions::from_mode(0o755))?;
        let mut command = namespace.door().command("ipmi_sim");
        command.arg("-n").arg("-c").arg(at("lan.conf")).arg("-f").arg(at("commands")).arg("-s").arg(at("state"));
        let simulator = Process::start("ipmi_sim", command, &at("log"))?;
        let dead = namespace.door().listen(&format!("127.0.0.1:{DEAD}"))?;
        Ok(Self { _simulator: simulator, _dead: dead, address, mac, factory_password })
    }

    /// What gives a QEMU machine this controller.
    pub(crate) fn arguments() -> Vec<String> {
        behind_kcs(PORT)
    }

    /// What gives a QEMU machine one that takes every command and never answers.
    pub(crate) fn arguments_of_a_dead_one() -> Vec<String> {
        behind_kcs(DEAD)
    }
}

fn behind_kcs(port: u16) -> Vec<String> {
    // The simulator may not listen yet; the machine's firmware takes longer.
    let channel = format!("socket,id=bmc,host=127.0.0.1,port={port},reconnect=1");
    ["-chardev", &channel, "-device", "ipmi-bmc-extern,id=bmc0,chardev=bmc", "-device", "isa-ipmi-kcs,bmc=bmc0"]
        .map(str::to_owned)
        .into()
}

/// `ipmi_lan(5)`: one LAN on channel 1, QEMU on channel 15, and who may log in: nobody without a name.
fn config(lan_program: &Path, address: &str, password: &str) -> String {
    format!(
        "name \"lab\"
set_working_mc 0x20
  startlan 1
    addr {address} 623
    lan_config_program \"{}\"
    priv_limit admin
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcdef
  endlan
  serial 15 127.0.0.1 {PORT} codec VM
  user 2 true \"{FACTORY_USER}\" \"{password}\" admin 10 none md2 md5 straight
",
        lan_program.display()
    )
}

/// What the simulator asks for its LAN parameters: `PROGRAM get NAME...`, answered by `NAME:VALUE` lines.
fn lan_program(address: &str, mac: &str) -> String {
    format!(
        "#!/bin/sh
[ \"$1\" = get ] || exit 0
shift
for name; do
  case $name in
    ip_addr) echo $name:{address} ;;
    ip_addr_src) echo $name:static ;;
    mac_addr) echo $name:{mac} ;;
    subnet_mask) echo $name:255.255.255.0 ;;
    *_ip_addr) echo $name:0.0.0.0 ;;
    *_mac_addr) echo $name:00:00:00:00:00:00 ;;
  esac
done
"
    )
}
