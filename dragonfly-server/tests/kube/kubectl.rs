//! A session with `kubectl`: the machine's own, and Debian's, which is years older and checks manifests itself.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::site::{NETWORK, SECRET, Site, TEMPLATE, found, kept, machine, missing};

/// Far longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(90);

struct Kubectl<'a> {
    program: &'a Path,
    config: PathBuf,
    home: PathBuf,
}

impl Kubectl<'_> {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command.args(words).env("KUBECONFIG", &self.config).env("HOME", &self.home).stdin(Stdio::null());
        // Whoever runs the tests may have another cluster in mind.
        command.env_remove("KUBERNETES_SERVICE_HOST");
        command
    }

    fn run(&self, words: &[&str]) -> (bool, String) {
        let output = self.command(words).output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        (output.status.success(), said)
    }

    /// What it says when all is well.
    #[track_caller]
    fn says(&self, words: &[&str], parts: &[&str]) -> String {
        let (done, said) = self.run(words);
        assert!(done, "{words:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{words:?} does not say `{part}`: {said}");
        }
        said
    }

    #[track_caller]
    fn refuses(&self, words: &[&str], parts: &[&str]) {
        let (done, said) = self.run(words);
        assert!(!done, "{words:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{words:?} does not say `{part}`: {said}");
        }
    }
}

/// `kubectl get -w`, line by line.
struct Watch {
    child: Child,
    lines: Receiver<String>,
}

impl Watch {
    fn start(kubectl: &Kubectl<'_>, words: &[&str]) -> Self {
        let mut child = kubectl.command(words).stdout(Stdio::piped()).spawn().unwrap();
        let (to, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| to.send(line)));
        Self { child, lines }
    }

    /// Waits for a line with all of these words.
    #[track_caller]
    fn sees(&self, words: &[&str]) {
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            if words.iter().all(|word| line.contains(word)) {
                return;
            }
            seen.push(line);
        }
        panic!("{words:?} is not in {seen:?}");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Debian's own, from its package, which is not installed: its files belong to another package on some machines.
fn debians() -> Option<PathBuf> {
    let package = "kubernetes-client";
    let installed = Command::new("dpkg-query").args(["-W", "-f", "${Status}", package]).output().ok()?;
    if String::from_utf8_lossy(&installed.stdout).contains("ok installed") {
        return Some("/usr/bin/kubectl".into());
    }
    let at = kept().join(package);
    let program = at.join("usr/bin/kubectl");
    if !program.is_file() {
        std::fs::create_dir_all(&at).ok()?;
        // Beside its place until it is whole: other tests may be looking.
        let draft = tempfile::TempDir::new_in(kept()).ok()?;
        let run = |command: &mut Command| command.stdin(Stdio::null()).status().is_ok_and(|done| done.success());
        if !run(Command::new("apt-get").args(["download", "--quiet", package]).current_dir(draft.path())) {
            return None;
        }
        let mut files = std::fs::read_dir(draft.path()).ok()?.flatten().map(|entry| entry.path());
        let deb = files.find(|file| file.extension().is_some_and(|end| end == "deb"))?;
        if !run(Command::new("dpkg").arg("-x").arg(deb).arg(draft.path().join("x"))) {
            return None;
        }
        std::fs::create_dir_all(program.parent()?).ok()?;
        std::fs::rename(draft.path().join("x/usr/bin/kubectl"), &program).ok()?;
    }
    program.is_file().then_some(program)
}

#[test]
fn the_machines_own_kubectl() {
    match found("kubectl") {
        Some(program) => session(&program),
        // Debian's is there for certain, by the other test.
        None => eprintln!("skipped: there is no kubectl of the machine's own"),
    }
}

#[test]
fn debians_kubectl() {
    match debians() {
        Some(program) => session(&program),
        None => missing("Debian's package kubernetes-client"),
    }
}

fn session(program: &Path) {
    let site = Site::start();
    let kubectl = Kubectl { program, config: site.kubeconfig(), home: site.dir.path().join("home") };
    kubectl.says(&["version"], &["dragonfly"]);
    kubectl.says(&["api-resources"], &["hardware", "hw", "templates", "tpl"]);
    kubectl.says(&["explain", "hw.spec.bmc"], &["Its management controller", "secretRef"]);

    // A watch that begins before there is anything, and sees each change.
    let words = ["get", "hw", "-w", "--output-watch-events", "--show-labels"];
    kubectl.says(&["apply", "-f", &site.write("first.yaml", &machine("db-0", 1, "a1"))], &["db-0 created"]);
    let watch = Watch::start(&kubectl, &words);
    watch.sees(&["ADDED", "db-0", "rack=a1"]);

    // All kinds at once, then again, then changed.
    let all = [TEMPLATE, SECRET, NETWORK, &machine("db-1", 2, "a1"), &machine("db-2", 3, "a2")].join("---\n");
    let all = site.write("all.yaml", &all);
    kubectl.says(&["apply", "-f", &all], &["small created", "bmc created", "lab created", "db-1 created"]);
    watch.sees(&["ADDED", "db-1", "52:54:00:ab:cd:02", "rack=a1"]);
    kubectl.says(&["apply", "-f", &all], &["small unchanged", "lab unchanged", "db-1 unchanged"]);
    let changed = site.write("changed.yaml", &TEMPLATE.replace("One disk", "Two disks"));
    kubectl.says(&["apply", "--dry-run=server", "-f", &changed], &["small configured (server dry run)"]);
    kubectl.says(&["get", "tpl", "small"], &["DESCRIPTION", "One disk"]);
    kubectl.says(&["apply", "-f", &changed], &["small configured"]);
    kubectl.says(&["get", "templates.dragonfly.computer"], &["Two disks"]);
    // What a manifest no longer says is gone, without a word about what others have added.
    kubectl.says(&["annotate", "tpl", "small", "note=kept"], &["annotated"]);
    let bare = site.write("bare.yaml", &TEMPLATE.replace(", labels: { age: old }", ""));
    kubectl.says(&["apply", "-f", &bare], &["small configured"]);
    let shown = kubectl.says(&["get", "tpl", "small", "-o", "jsonpath={.metadata}"], &["\"note\":\"kept\""]);
    assert!(!shown.contains("\"labels\""), "{shown}");
    kubectl.says(&["apply", "--server-side", "-f", &changed], &["small serverside-applied"]);

    // Wrong things by name, before or at the server's door.
    let wrong = site.write("wrong.yaml", &NETWORK.replace("dhcp:", "dhcpp:"));
    kubectl.refuses(&["apply", "-f", &wrong], &["dhcpp"]);
    kubectl.refuses(&["apply", "--validate=false", "-f", &wrong], &["spec.dhcpp", "did you mean `dhcp`?"]);

    // A secret's values are nowhere, also not in what kubectl noted.
    let shown = kubectl.says(&["get", "secrets.dragonfly.computer", "bmc", "-o", "yaml"], &["password", "username"]);
    assert!(!shown.contains("hunter2"), "{shown}");
    kubectl.says(&["label", "secrets.dragonfly.computer", "bmc", "a=b"], &["labeled"]);
    kubectl.says(&["get", "sec", "bmc", "-o", "jsonpath={.spec.keys}"], &["password", "username"]);

    // One object, in every way.
    kubectl.says(&["label", "hw", "db-1", "rack=b7", "--overwrite"], &["labeled"]);
    watch.sees(&["MODIFIED", "db-1", "rack=b7"]);
    kubectl.says(&["patch", "hw", "db-1", "--type", "merge", "-p", r#"{"spec":{"hold":"a fan"}}"#], &["patched"]);
    watch.sees(&["MODIFIED", "db-1"]);
    kubectl.says(&["get", "hw", "db-1", "-o", "jsonpath={.spec.hold}"], &["a fan"]);
    let operations = r#"[{"op":"test","path":"/spec/hold","value":"a fan"},{"op":"remove","path":"/spec/hold"}]"#;
    kubectl.says(&["patch", "hw", "db-1", "--type", "json", "-p", operations], &["patched"]);
    kubectl.refuses(&["patch", "hw", "db-1", "--type", "json", "-p", operations], &["hold"]);
    kubectl.refuses(&["patch", "hw", "db-1", "-p", "{}"], &["merge-patch+json"]);
    kubectl.refuses(
        &["patch", "hw", "db-1", "--type", "merge", "-p", r#"{"spec":{"hodl":"x"}}"#],
        &["did you mean `hold`?"],
    );
    let (done, said) = {
        let mut edit = kubectl.command(&["edit", "tpl", "small"]);
        let output = edit.env("KUBE_EDITOR", "sed -i s/Two.disks/Three/").output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert!(done && said.contains("edited"), "{said}");
    kubectl.says(&["get", "tpl", "small", "-o", "jsonpath={.spec.description}"], &["Three"]);
    kubectl.says(&["describe", "hw", "db-1"], &["Kind:", "Hardware", "52:54:00:ab:cd:02", "ObjectApplied"]);
    kubectl.says(&["wait", "net/lab", "--for=condition=Served=False", "--timeout=90s"], &["condition met"]);
    kubectl.refuses(&["create", "-f", &changed], &["AlreadyExists"]);
    kubectl.says(&["replace", "-f", &changed], &["replaced"]);

    // Selectors in the whole language, and what a table shows.
    let names = |selector: &str| {
        let said = kubectl.says(&["get", "hw", "-o", "name", "-l", selector], &[]);
        said.lines().filter_map(|line| line.rsplit_once('/')).map(|(_, name)| name.to_owned()).collect::<Vec<_>>()
    };
    for (selector, want) in [
        ("rack=a1", vec!["db-0"]),
        ("rack!=a1", vec!["db-1", "db-2"]),
        ("rack in (a1, b7)", vec!["db-0", "db-1"]),
        ("rack notin (a1,b7)", vec!["db-2"]),
        ("rack,!age", vec!["db-0", "db-1", "db-2"]),
        ("!rack", vec![]),
    ] {
        assert_eq!(names(selector), want, "{selector}");
    }
    kubectl.refuses(&["get", "hw", "-l", "a=b=c"], &["labelSelector"]);
    kubectl.says(&["get", "hw", "--field-selector", "metadata.name=db-2", "-o", "name"], &["db-2"]);
    let table = kubectl.says(&["get", "hw"], &["NAME", "PHASE", "MAC", "AGE", "db-0", "db-2"]);
    assert!(!table.contains("SERIAL"), "{table}");
    kubectl.says(&["get", "hw", "-o", "wide"], &["SERIAL", "BMC"]);
    kubectl.says(&["get", "hw,tpl,net", "--chunk-size=1"], &["db-0", "db-1", "db-2", "small", "lab"]);
    kubectl.says(&["get", "dragonfly"], &["db-0", "small", "lab", "bmc"]);
    kubectl.says(&["get", "events"], &["ObjectApplied", "hardware/db-1"]);
    kubectl.refuses(&["get", "hw", "nobody"], &["NotFound"]);

    // Away with them.
    kubectl.says(&["delete", "hw", "db-1", "--dry-run=server"], &["deleted (server dry run)"]);
    kubectl.says(&["delete", "hw", "db-1"], &["deleted"]);
    watch.sees(&["DELETED", "db-1"]);
    kubectl.says(&["delete", "hw", "-l", "rack in (a1,a2)"], &["db-0", "db-2"]);
    watch.sees(&["DELETED", "db-2"]);
    kubectl.says(&["delete", "-f", &all, "--ignore-not-found"], &["small", "lab", "bmc"]);
    assert!(kubectl.says(&["get", "dragonfly"], &[]).contains("No resources found"));
}
