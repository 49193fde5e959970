//! `cexec`: a command in the installed system.

use serde_json::{Map, Value, json};

use super::{Made, Outcome, Step};

pub(super) fn cexec(step: &mut Step<'_>) -> Vec<Made> {
    step.no_command();
    let target = step.partition("BLOCK_DEVICE");
    let line = step.need("CMD_LINE");
    if step.take("CHROOT").is_none() {
        step.refuse(
            "CHROOT",
            "is not set: the command would run beside the installed system, with programs of the action's own image; \
             set it where the system has the program",
        );
    }
    let interpreter = step.take("DEFAULT_INTERPRETER");
    let network = step.is_true("UPDATE_RESOLV_CONF");
    for (name, said) in
        [("FS_TYPE", "the file system is known by what is on the partition"), ("JSON_OUTPUT", "the log is text")]
    {
        if step.environment.contains_key(name) {
            step.say(name, Outcome::NotNeeded, said);
            step.environment.remove(name);
        }
    }
    // What is left is in the environment of the command, there as here.
    let rest = std::mem::take(&mut step.environment);
    let env: Map<String, Value> = rest.into_iter().map(|(key, (text, _))| (key, json!(text))).collect();
    let (Some(target), Some(line)) = (target, line) else { return Vec::new() };
    let commands: Vec<Vec<String>> = match interpreter {
        Some(interpreter) => vec![words(&interpreter).into_iter().chain([line]).collect()],
        None => line.split(';').map(words).filter(|words| !words.is_empty()).collect(),
    };
    if commands.is_empty() {
        step.refuse("CMD_LINE", "holds no command");
    }
    let made = |argv: Vec<String>| {
        let mut with = Map::from_iter([("target".to_owned(), target.clone()), ("argv".to_owned(), json!(argv))]);
        if !env.is_empty() {
            with.insert("env".to_owned(), Value::Object(env.clone()));
        }
        if network {
            with.insert("network".to_owned(), json!(true));
        }
        if let Some(seconds) = step.timeout {
            with.insert("timeoutSeconds".to_owned(), json!(seconds));
        }
        Made { action: "chroot-exec", with: Value::Object(with) }
    };
    commands.into_iter().map(made).collect()
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}
