//! Our actions as images of github.com/tinkerbell/actions.

use serde_json::{Map, Value, json};

use super::Unwritable;

/// Where the images are.
const REGISTRY: &str = "quay.io/tinkerbell/actions";
/// The file system that is mounted unless `with.fsType` says another: actions here find that out, those there are told.
const FS_TYPE: &str = "ext4";
/// Those of ours that have one.
const KNOWN: &str = "image2disk, writefile, chroot-exec, bootloader and kexec";

/// One of ours, from which field after field is taken.
struct Taken<'a> {
    path: &'a str,
    with: Map<String, Value>,
    problems: Vec<Unwritable>,
}

/// One of ours as one of theirs: `image`, `environment` and what else it needs.
pub(super) fn convert(
    path: &str,
    kind: &str,
    with: &Map<String, Value>,
) -> Result<Map<String, Value>, Vec<Unwritable>> {
    let mut taken = Taken { path, with: with.clone(), problems: Vec::new() };
    let (image, environment, host_pid) = match kind {
        "image2disk" => ("image2disk", taken.image(), false),
        "writefile" => ("writefile", taken.file(), false),
        "chroot-exec" => ("cexec", taken.command(), false),
        "bootloader" => ("grub2disk", taken.grub(), false),
        "kexec" => ("kexec", taken.kexec(), true),
        _ => {
            let problem = format!(
                "`{kind}` has no image in Tinkerbell; those of {KNOWN} are known, and any image can be written: its reference \
                 as `action`, or `with.image`, and its `with.environment`"
            );
            return Err(vec![Unwritable::new(format!("{path}.action"), problem)]);
        }
    };
    for field in taken.with.keys() {
        let problem = format!("Tinkerbell's {image} has no such setting");
        taken.problems.push(Unwritable::new(format!("{path}.with.{field}"), problem));
    }
    if !taken.problems.is_empty() {
        return Err(taken.problems);
    }
    let variables: Map<String, Value> = environment.into_iter().map(|(name, text)| (name, json!(text))).collect();
    let mut made = Map::new();
    made.insert("image".to_owned(), json!(format!("{REGISTRY}/{image}:latest")));
    if host_pid {
        made.insert("pid".to_owned(), json!("host"));
    }
    made.insert("environment".to_owned(), variables.into());
    Ok(made)
}

type Variables = Vec<(String, String)>;

impl Taken<'_> {
    fn refuse(&mut self, field: &str, problem: impl Into<String>) {
        self.problems.push(Unwritable::new(format!("{}.with.{field}", self.path), problem));
    }

    /// A text, in their language.
    fn text(&mut self, field: &str) -> Option<String> {
        let value = self.with.remove(field)?;
        let text = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(is) => is.to_string(),
            Value::Null => return None,
            _ => {
                self.refuse(field, "is not a text");
                return None;
            }
        };
        match translated(&text) {
            Ok(text) => Some(text),
            Err(problem) => {
                self.refuse(field, problem);
                None
            }
        }
    }

    fn need(&mut self, field: &str) -> String {
        if !self.with.contains_key(field) {
            self.refuse(field, "is not set");
        }
        self.text(field).unwrap_or_default()
    }

    fn fs_type(&mut self) -> (String, String) {
        ("FS_TYPE".to_owned(), self.text("fsType").unwrap_or_else(|| FS_TYPE.to_owned()))
    }

    /// `/dev/sda` of `{ name: sda }`.
    fn disk(&mut self, field: &str, value: &Value) -> Option<String> {
        let name =
            value.get("name").and_then(Value::as_str).filter(|_| value.as_object().is_some_and(|of| of.len() == 1));
        match name.map(translated) {
            Some(Ok(name)) => Some(format!("/dev/{name}")),
            Some(Err(problem)) => {
                self.refuse(field, problem);
                None
            }
            None => {
                self.refuse(field, "Tinkerbell's actions know disks by the kernel's name: write `{ name: sda }`");
                None
            }
        }
    }

    /// `/dev/sda1` of `{ disk: { name: sda }, partition: 1 }`.
    fn partition(&mut self, field: &str) -> String {
        let Some(value) = self.with.remove(field) else {
            self.refuse(field, "is not set");
            return String::new();
        };
        let number = value.get("partition").and_then(Value::as_u64);
        let is_plain = value.as_object().is_some_and(|fields| fields.len() == 2);
        let (Some(number), Some(disk), true) = (number, value.get("disk"), is_plain) else {
            let problem = "Tinkerbell's actions know partitions by disk and number: write \
                           `{ disk: { name: sda }, partition: 1 }`";
            self.refuse(field, problem);
            return String::new();
        };
        let disk = self.disk(&format!("{field}.disk"), disk).unwrap_or_default();
        if disk.contains("{{") {
            self.refuse(field, "whether a `p` stands between disk and number cannot be known before it is filled");
        }
        let separator = if disk.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
        format!("{disk}{separator}{number}")
    }

    fn image(&mut self) -> Variables {
        let url = self.need("url");
        if url.starts_with('/') {
            let problem = "is an image of this server, which Tinkerbell's agents may not fetch: write a whole URL";
            self.refuse("url", problem);
        }
        let onto = match (self.with.remove("disk"), self.with.contains_key("target")) {
            (Some(disk), _) => self.disk("disk", &disk).unwrap_or_default(),
            (None, true) => self.partition("target"),
            (None, false) => {
                self.refuse("disk", "is not set: Tinkerbell's image2disk wants to be told the disk, `{ name: sda }`");
                String::new()
            }
        };
        let packed = self.text("compression").as_deref() != Some("none");
        let mut variables = vec![("IMG_URL".to_owned(), url), ("DEST_DISK".to_owned(), onto)];
        variables.push(("COMPRESSED".to_owned(), packed.to_string()));
        self.with.remove("insecureNoDigest");
        if let Some(digest) = self.text("digest") {
            variables.push(("CHECKSUM".to_owned(), digest));
        }
        variables
    }

    fn file(&mut self) -> Variables {
        let mut variables = vec![("DEST_DISK".to_owned(), self.partition("target")), self.fs_type()];
        variables.push(("DEST_PATH".to_owned(), self.need("path")));
        variables.push(("CONTENTS".to_owned(), self.text("content").unwrap_or_default()));
        for (name, field, usual) in
            [("UID", "uid", "0"), ("GID", "gid", "0"), ("MODE", "mode", "0644"), ("DIRMODE", "dirMode", "0755")]
        {
            variables.push((name.to_owned(), self.text(field).unwrap_or_else(|| usual.to_owned())));
        }
        variables
    }

    fn command(&mut self) -> Variables {
        let mut variables = vec![("BLOCK_DEVICE".to_owned(), self.partition("target")), self.fs_type()];
        let argv = self.with.remove("argv").unwrap_or_default();
        let mut words = Vec::new();
        for word in argv.as_array().into_iter().flatten() {
            match word.as_str().map(translated) {
                Some(Ok(word)) => words.push(shell_word(&word)),
                Some(Err(problem)) => self.refuse("argv", problem),
                None => self.refuse("argv", "is no list of texts"),
            }
        }
        if words.is_empty() {
            self.refuse("argv", "holds no command");
        }
        variables.push(("CHROOT".to_owned(), "y".to_owned()));
        variables.push(("DEFAULT_INTERPRETER".to_owned(), "/bin/sh -c".to_owned()));
        variables.push(("CMD_LINE".to_owned(), words.join(" ")));
        if self.text("network").as_deref() == Some("true") {
            variables.push(("UPDATE_RESOLV_CONF".to_owned(), "true".to_owned()));
        }
        for (name, value) in self.with.remove("env").as_ref().and_then(Value::as_object).into_iter().flatten() {
            match value.as_str().map(translated) {
                Some(Ok(text)) if !variables.iter().any(|(known, _)| known == name) => {
                    variables.push((name.clone(), text))
                }
                Some(Ok(_)) => self.refuse(&format!("env.{name}"), "means something to Tinkerbell's cexec"),
                Some(Err(problem)) => self.refuse(&format!("env.{name}"), problem),
                None => self.refuse(&format!("env.{name}"), "is not a text"),
            }
        }
        variables
    }

    fn grub(&mut self) -> Variables {
        let (kind, firmware) = (self.text("kind"), self.text("firmware"));
        if kind.as_deref().is_some_and(|kind| kind != "grub") || firmware.as_deref() != Some("bios") {
            self.refuse("firmware", "Tinkerbell's grub2disk installs GRUB for `firmware: bios`");
        }
        let root = self.with.get("root").and_then(|root| root.get("disk")).cloned();
        let disk = root.and_then(|disk| self.disk("root.disk", &disk)).unwrap_or_default();
        let root = self.partition("root");
        vec![("GRUB_INSTALL_PATH".to_owned(), root), ("GRUB_DISK".to_owned(), disk), self.fs_type()]
    }

    fn kexec(&mut self) -> Variables {
        let mut variables = vec![("BLOCK_DEVICE".to_owned(), self.partition("target")), self.fs_type()];
        for (name, field) in [("KERNEL_PATH", "kernel"), ("INITRD_PATH", "initrd"), ("CMD_LINE", "cmdline")] {
            variables.extend(self.text(field).map(|text| (name.to_owned(), text)));
        }
        variables
    }
}

/// A word as a shell takes it for one. What stands in `{{ }}` is filled in before the shell sees it.
fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// A text in our template language as one in theirs.
fn translated(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        if from.starts_with("{%") || from.starts_with("{#") {
            return Err("`{% %}` and `{# #}` cannot be written in Tinkerbell's template language".to_owned());
        }
        let Some(inside) = from.strip_prefix("{{") else {
            out.push('{');
            rest = from.get(1..).unwrap_or_default();
            continue;
        };
        let (inside, after) = inside.split_once("}}").ok_or("`{{` is not closed")?;
        out.push_str(&expression(inside.trim())?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn expression(inside: &str) -> Result<String, String> {
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
    if let Some(name) = inside.strip_prefix("values.").filter(|name| is_name(name)) {
        return Ok(format!("{{{{.{name}}}}}"));
    }
    let literal = ['\'', '"'].into_iter().find_map(|quote| inside.strip_prefix(quote)?.strip_suffix(quote));
    match literal.filter(|text| !text.contains(['\\', '`', '\'', '"'])) {
        Some(text) => Ok(format!("{{{{`{text}`}}}}")),
        None => Err(format!(
            "`{{{{ {inside} }}}}` cannot be filled in by Tinkerbell; only values can: `{{{{ values.NAME }}}}`"
        )),
    }
}
