//! `--scenario bmc-account`: the agent makes an account on the machine's own controller over KCS, and whoever knows its
//! password logs in with it over the network.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dragonfly_core::resource::{Kind, SecretSpec};
use dragonfly_core::secret::{SealingKey, SecretString};
use dragonfly_core::store::redb::RedbStore;
use dragonfly_core::store::{Key, Store as _};
use serde_json::{Value, json};

use super::traces::{find, forms};
use crate::lab::args::{self, ImageChoice, TemplateChoice};
use crate::lab::artifacts::Program;
use crate::lab::bmc::{Bmc, FACTORY_USER};
use crate::lab::console::say;
use crate::lab::image;
use crate::lab::interrupt::Interrupt;
use crate::lab::machine::Machine;
use crate::lab::process::output;
use crate::lab::run::Watch;
use crate::lab::world::{GENERIC_KERNEL, Wish, World};

const USERNAME: &str = "dragonfly";

pub(in crate::lab) fn account(args: &args::Run, interrupt: &Interrupt) -> Result<()> {
    let image = image::find_or_build(ImageChoice::Small, TemplateChoice::Disk, interrupt)?;
    let wish = Wish {
        machines: 1,
        dhcp: args.dhcp,
        kernel: GENERIC_KERNEL,
        image: &image,
        keep: args.keep.as_deref(),
        program: Program::Plain,
        capture: false,
        options: &["--bmc-accounts"],
        ..Wish::new(&image)
    };
    let mut world = World::build(&wish, interrupt)?;
    let bmc = Bmc::start(&world.namespace, &world.directory)?;
    let mut machines = world.machines(wish.machines, args.firmware, args.dhcp)?;
    for machine in &mut machines {
        machine.hardware.more.extend(Bmc::arguments());
        machine.start(&world.namespace, world.accel, &world.timeline)?;
    }
    let began = Instant::now();
    let mut watch = Watch::new(&machines, false);
    let end = began + Duration::from_secs(args.timeout);
    let mut known = Value::Null;
    interrupt.wait_until(end, || {
        if watch.step(&world, &mut machines).is_err() {
            return true;
        }
        let Some(machine) = machines.first().filter(|m| watch.state(&m.name).registered) else { return false };
        known = world.server.machine(&machine.name).unwrap_or_default();
        known["spec"]["bmc"].is_object()
    });
    interrupt.check()?;
    let machine = machines.first_mut().context("a machine")?;
    judge(&world, machine, &known, &bmc)?;
    say(format_args!("the account was there {:.1} s after the machine's start", began.elapsed().as_secs_f64()));
    say(world.server.cli(&["bmc", "test", &machine.name])?.trim());
    let shown = world.server.get(&format!("/dragonfly/v1/machines/{}/timeline", machine.name.to_lowercase()))?;
    machine.stop();
    world.server.kill();
    let password = password(world.server.data(), &machine.name)?;
    log_in(&world, &bmc, &password)?;
    let forms = forms(password.reveal());
    for (what, bytes) in [
        ("the server's log", std::fs::read(world.directory.join("server.log"))?),
        ("the machine's console", std::fs::read(&machine.hardware.serial_log)?),
        ("its timeline", shown.into_bytes()),
        ("the machine as it is shown", known.to_string().into_bytes()),
    ] {
        ensure!(!bytes.is_empty(), "{what} is empty: nothing was searched");
        ensure!(find(&bytes, &forms).next().is_none(), "the password is in {what}");
    }
    say("its password is in no log, on no console, in no timeline");
    Ok(())
}

/// What the server says of the machine.
fn judge(world: &World, machine: &Machine, known: &Value, bmc: &Bmc) -> Result<()> {
    let told = || {
        let events = world.server.get(&format!("/dragonfly/v1/machines/{}/timeline", machine.name.to_lowercase()));
        events.unwrap_or_else(|error| format!("{error:#}"))
    };
    let want = json!({
        "address": format!("ipmi://{}", bmc.address),
        "secretRef": { "name": format!("bmc-{}", machine.name.to_lowercase()) },
    });
    ensure!(known["spec"]["bmc"] == want, "spec.bmc is {}, not {want}; {}", known["spec"]["bmc"], told());
    let users = known["status"]["inventory"]["bmc"]["users"].as_array().cloned().unwrap_or_default();
    // As it was when the machine said hello.
    let names: Vec<_> = users.iter().map(|user| (&user["slot"], &user["name"])).collect();
    ensure!(names == [(&json!(2), &json!(FACTORY_USER))], "its users are {users:?}");
    let events = told();
    ensure!(events.contains("its agent made the account `dragonfly` in slot 3"), "no event tells it: {events}");
    Ok(())
}

/// What the server has kept before it gave it away.
fn password(data: &Path, machine: &str) -> Result<SecretString> {
    let name = format!("bmc-{}", machine.to_lowercase());
    let key = SealingKey::from_bytes(&std::fs::read(data.join("sealing.key"))?)?;
    let store = RedbStore::open(data.join("dragonfly.redb"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let record = runtime.block_on(store.get(&Key::new(Kind::SECRET, &name)))?.context("no Secret was kept")?;
    let sealed = record.decode::<SecretSpec>()?.spec.sealed;
    let open = |field: &str| {
        let sealed = sealed.get(field).with_context(|| format!("the Secret has no {field}"))?;
        Ok::<_, anyhow::Error>(key.open(&format!("Secret/{name}/{field}"), sealed)?)
    };
    ensure!(open("username")?.reveal() == USERNAME, "the Secret is another user's");
    open("password")
}

/// With a client that is not ours: RMCP+, cipher suite 3.
fn log_in(world: &World, bmc: &Bmc, password: &SecretString) -> Result<()> {
    let directory = world.directory.join("logins");
    std::fs::create_dir_all(&directory)?;
    let ipmitool = |user: &str, password: &str, words: &[&str]| {
        let file = directory.join(user);
        write_secret(&file, password)?;
        let mut command: Command = world.namespace.door().command("ipmitool");
        command.args(["-I", "lanplus", "-C", "3", "-L", "ADMINISTRATOR", "-H", bmc.address, "-U", user, "-f"]);
        let said = output(command.arg(&file).args(words));
        std::fs::remove_file(&file)?;
        said
    };
    let said = ipmitool(USERNAME, password.reveal(), &["mc", "info"])?;
    ensure!(said.contains("IPMI Version"), "ipmitool said {said}");
    let users = ipmitool(USERNAME, password.reveal(), &["user", "list", "1"])?;
    let ours = users.lines().find(|line| line.contains(USERNAME)).context("ipmitool sees no such user")?;
    ensure!(ours.ends_with("ADMINISTRATOR"), "{ours}");
    say(format_args!("ipmitool -I lanplus -C 3 -U {USERNAME} logs in to {}: {ours}", bmc.address));
    ensure!(ipmitool(USERNAME, "Another0Password", &["mc", "info"]).is_err(), "any password opens it");
    ipmitool(FACTORY_USER, &bmc.factory_password, &["mc", "info"]).context("the user that was there is shut out")?;
    Ok(())
}

fn write_secret(path: &Path, secret: &str) -> Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    Ok(file.write_all(secret.as_bytes())?)
}
