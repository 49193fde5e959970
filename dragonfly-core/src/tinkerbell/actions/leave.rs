//! How a machine is left: `kexec`, `reboot`, `poweroff`, and what waits before them.

use serde_json::{Map, Value, json};

use super::{KEXEC, Made, Outcome, REBOOT, Settings, Step};

const KEXEC_SETTINGS: Settings = &[
    ("FS_TYPE", Outcome::NotNeeded, "the file system is known by what is on the partition"),
    ("GRUBCFG_PATH", Outcome::Changed, "the boot loader's configuration is found where systems have it"),
];

pub(super) fn kexec(step: &mut Step<'_>) -> Vec<Made> {
    step.no_command();
    let target = step.partition("BLOCK_DEVICE");
    let (kernel, initrd, line) = (step.take("KERNEL_PATH"), step.take("INITRD_PATH"), step.take("CMD_LINE"));
    let mut with = Map::new();
    match (kernel, initrd) {
        (Some(kernel), initrd) => {
            if line.is_none() {
                step.refuse("CMD_LINE", "is not set; a kernel given by path needs one, `root=LABEL=root ro` for one");
            }
            with.insert("kernel".to_owned(), json!(rooted(&kernel)));
            if let Some(initrd) = initrd {
                with.insert("initrd".to_owned(), json!(rooted(&initrd)));
            }
        }
        (None, Some(_)) => {
            step.say("INITRD_PATH", Outcome::Lost, "stands without KERNEL_PATH: the boot loader's entry names both");
        }
        (None, None) => {}
    }
    if let Some(line) = line {
        with.insert("cmdline".to_owned(), json!(line));
    }
    step.tell_rest(KEXEC_SETTINGS);
    let Some(target) = target else { return Vec::new() };
    with.insert("target".to_owned(), target);
    vec![Made { action: KEXEC, with: Value::Object(with) }]
}

/// Paths there may leave out the first slash.
fn rooted(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

pub(super) fn leave(step: &mut Step<'_>, action: &'static str) -> Vec<Made> {
    if !std::mem::take(&mut step.command).is_empty() {
        step.say("command", Outcome::NotNeeded, "the agent leaves when the server knows that everything is done");
    }
    step.tell_rest(&[]);
    vec![Made { action, with: json!({}) }]
}

/// An image that waits, and then runs another one, so that the end of the action is still told. Here the end is told
/// before the agent leaves.
pub(super) fn waitdaemon(mut step: Step<'_>) -> Vec<Made> {
    if step.environment.contains_key("WAIT_SECONDS") {
        step.say("WAIT_SECONDS", Outcome::NotNeeded, "the agent leaves when the server knows that everything is done");
        step.environment.remove("WAIT_SECONDS");
    }
    let Some(image) = step.need("IMAGE") else { return Vec::new() };
    let inner = Step { image, ..step };
    if inner.kind() == "waitdaemon" {
        let mut inner = inner;
        inner.refuse("IMAGE", "waits for itself");
        return Vec::new();
    }
    super::convert(inner)
}

/// Whether a command resets the machine by the kernel's SysRq key.
pub(super) fn resets(command: &[String]) -> bool {
    command.iter().any(|word| word.contains("echo b") && word.contains("/proc/sysrq-trigger"))
}

pub(super) fn reset(step: &mut Step<'_>) -> Vec<Made> {
    step.command.clear();
    step.say("command", Outcome::Changed, "resets the machine by SysRq; here it is rebooted, its disks written out");
    const SETTINGS: Settings = &[
        ("BLOCK_DEVICE", Outcome::NotNeeded, "a reboot needs none"),
        ("FS_TYPE", Outcome::NotNeeded, "a reboot needs none"),
    ];
    step.tell_rest(SETTINGS);
    vec![Made { action: REBOOT, with: json!({}) }]
}
