//! Another client before our cluster.

use super::*;

/// The Python of an environment with `proxmoxer`, made below `target` when it is not there. Where tests must run
/// (`CI` is set), it has to be.
fn python() -> Option<PathBuf> {
    const PACKAGES: [&str; 6] = [
        "proxmoxer==2.3.0",
        "requests==2.34.2",
        "certifi==2026.10.18",
        "charset-normalizer==3.5.2",
        "idna==3.20",
        "urllib3==2.8.0",
    ];
    let at = Path::new(env!("CARGO_TARGET_TMPDIR")).join("proxmoxer-2.3.0");
    let (python, made) = (at.join("bin/python3"), at.join("made"));
    if made.exists() {
        return Some(python);
    }
    let run = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        let out = command.args(arguments).stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
        if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
    };
    let begin = ["-m", "venv", "--clear", at.to_str().unwrap()];
    let install = [&["-m", "pip", "install", "--quiet", "--disable-pip-version-check"][..], &PACKAGES].concat();
    match run(Path::new("python3"), &begin).and_then(|()| run(&python, &install)) {
        Ok(()) => {
            std::fs::write(made, "").unwrap();
            Some(python)
        }
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "these tests need proxmoxer: {error}");
            eprintln!("skipped: there is no proxmoxer: {error}");
            None
        }
    }
}

/// It logs in either way, and prints a line for each thing that it did.
const SCRIPT: &str = r#"
import sys
from proxmoxer import AuthenticationError, ProxmoxAPI, ResourceException
from proxmoxer.tools import Tasks
host, port = sys.argv[1].split(":")
common = dict(port=int(port), verify_ssl=False)
by_ticket = ProxmoxAPI(host, user="root@pam", password="secret", **common)
by_token = ProxmoxAPI(host, user="root@pam", token_name="dragonfly", token_value="secret", **common)
for api, vmid in [(by_ticket, 101), (by_token, 102)]:
    print(api.version.get()["release"], sorted(node["node"] for node in api.nodes.get()))
    listed = {vm["vmid"]: vm["node"] for vm in api.cluster.resources.get(type="vm")}
    node = api.nodes(listed[vmid])
    print([vm["vmid"] for vm in node.qemu.get()], node.qemu(vmid).status.current.get()["status"])
    task = Tasks.blocking_status(api, node.qemu(vmid).status.start.post(), polling_interval=0.05)
    print(task["status"], task["exitstatus"], task["type"], task["id"])
    print(node.qemu(vmid).status.current.get()["status"])
    config = node.qemu(vmid).config.get()
    print(config["net0"])
    node.qemu(vmid).config.put(boot="order=net0;scsi0", digest=config["digest"])
    print([entry["pending"] for entry in node.qemu(vmid).pending.get() if "pending" in entry])
    task = Tasks.blocking_status(api, node.qemu(vmid).status.start.post(), polling_interval=0.05)
    print(task["exitstatus"])
    task = Tasks.blocking_status(api, node.qemu(vmid).status.shutdown.post(timeout=5), polling_interval=0.05)
    print(task["exitstatus"], node.qemu(vmid).status.current.get()["status"])
    for wrong in [
        lambda: node.qemu(vmid).config.put(boot="order=net9"),
        lambda: node.qemu(vmid).config.put(description="x", digest="0" * 40),
        lambda: node.qemu(vmid).config.put(colour="red"),
        lambda: node.qemu(vmid).status.reset.post(),
        lambda: node.qemu(4711).config.get(),
    ]:
        try:
            print("went well", wrong())
        except ResourceException as error:
            print(error.status_code, error.content, error.errors)
try:
    ProxmoxAPI(host, user="root@pam", password="wrong", **common)
except AuthenticationError:
    print("refused")
"#;

#[tokio::test(flavor = "multi_thread")]
async fn another_client_takes_our_cluster_for_a_real_one() {
    let Some(python) = tokio::task::spawn_blocking(python).await.unwrap() else { return };
    let Some((peer, ..)) = with_tls(World::new().with_vms(101, 3)).await else { return };
    let at = peer.address().to_string();
    let out = tokio::task::spawn_blocking(move || {
        Command::new(python).args(["-c", SCRIPT, &at]).stdin(Stdio::null()).output().unwrap()
    });
    let out = out.await.unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{said}{wrong}");
    let wanted = [101, 102].map(|vmid: u32| {
        let node = vmid - 100;
        format!(
            "8.4 ['pve1', 'pve2', 'pve3']\n[{vmid}] stopped\nstopped OK qmstart {vmid}\nrunning\n\
             virtio=BC:24:11:00:00:{vmid:02X},bridge=vmbr0,firewall=1\n['order=net0;scsi0']\nVM {vmid} already running\n\
             OK stopped\n\
             500 invalid bootorder: device 'net9' does not exist' None\n\
             500 checksum mismatch (file change by other user?) None\n\
             400 Parameter verification failed. {{'colour': 'property is not defined in schema and the schema does not \
             allow additional properties'}}\n\
             500 VM {vmid} not running None\n\
             500 Configuration file 'nodes/pve{node}/qemu-server/4711.conf' does not exist None\n"
        )
    });
    assert_eq!(said, format!("{}refused\n", wanted.concat()), "{wrong}");
    assert_eq!(peer.seen().faults, [""; 0]);
}
