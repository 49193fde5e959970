//! The driver keeps the promises of drivers, on a real QEMU.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dragonfly_core::power::{
    Dispatcher, Limits, Operation, Outcome, PowerDriver as _, PowerDrivers, PowerState, Target,
};
use dragonfly_core::testing::power::check;
use power_driver::Qmp;
use url::Url;

const QEMU: &str = "qemu-system-x86_64";

struct Machine {
    child: Child,
    address: Url,
    _directory: tempfile::TempDir,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A machine without anything to boot, switched off. `None` where there is no QEMU and there need not be one.
fn machine() -> Option<Machine> {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("monitor");
    let monitor = format!("unix:{},server=on,wait=off", socket.display());
    let child = Command::new(QEMU)
        .args(["-S", "-no-shutdown", "-display", "none", "-nodefaults", "-m", "64", "-accel", "tcg", "-qmp", &monitor])
        .stdin(Stdio::null())
        .spawn();
    assert!(child.is_ok() || std::env::var_os("CI").is_none(), "this test needs {QEMU}");
    let child = child.ok()?;
    for _ in 0..200 {
        if socket.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let address = Url::parse(&format!("qmp://{}", socket.display())).expect("an address");
    Some(Machine { child, address, _directory: directory })
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_promises_of_a_driver() {
    let Some(machine) = machine() else { return };
    let control = Qmp.open(&machine.address, None).await.expect("it opens");
    let report = check(&*control, Duration::from_secs(10)).await.unwrap_or_else(|broken| panic!("{broken}"));
    assert_eq!(
        report.absent,
        ["boot-device", "identify", "sensors", "events", "http-boot", "media", "inventory", "firmware"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dispatcher_takes_it_like_its_own() {
    let Some(machine) = machine() else { return };
    let dispatcher = Dispatcher::new(PowerDrivers::new().with(Qmp), Limits::default());
    let target = Target { address: machine.address.clone(), credential: None };
    let status = async || dispatcher.carry_out(&target, Operation::Status).await.expect("it says");
    assert_eq!(status().await, Outcome::State(PowerState::Off));
    dispatcher.carry_out(&target, Operation::NetworkBoot(None)).await.expect("it boots");
    assert_eq!(status().await, Outcome::State(PowerState::On));
    dispatcher.carry_out(&target, Operation::Off).await.expect("it is switched off");
    assert_eq!(status().await, Outcome::State(PowerState::Off));
    let error = dispatcher.carry_out(&target, Operation::Sensors).await.expect_err("it has none");
    assert!(error.to_string().ends_with("it can: on, off, soft, cycle, reset, status"), "{error}");
}

#[test]
fn addresses() {
    assert!(Qmp.check(&"qmp:///run/vm1.sock".parse().expect("a URL")).is_ok());
    for wrong in ["qmp://host/vm1.sock", "qmp:///", "qmp:///a?b=c"] {
        let error = Qmp.check(&wrong.parse().expect("a URL")).expect_err(wrong);
        assert!(error.to_string().contains("as qmp:///run/vm1.sock"), "{error}");
    }
}
