//! The command line as people and scripts meet it, through the real program: words that name nothing, addresses and
//! tokens that are none, output that nobody can take.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "common/program.rs"]
mod program;

use std::process::{Command, Output, Stdio};

use program::Server;
use serde_json::{Value, json};

/// The program without a server; with these variables, and nothing else of this environment.
fn run(words: &[&str], variables: &[(&str, &str)], out: Stdio) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dragonfly"));
    command.env_clear().envs(variables.iter().copied()).args(words);
    command.stdin(Stdio::null()).stdout(out).stderr(Stdio::piped());
    command.spawn().unwrap().wait_with_output().unwrap()
}

/// What it says on standard error, ending so.
fn said(words: &[&str], variables: &[(&str, &str)], code: i32) -> String {
    let done = run(words, variables, Stdio::piped());
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!((done.status.code(), done.stdout.len()), (Some(code), 0), "{words:?}: {said}");
    said
}

const NETWORKS: &str = "
apiVersion: dragonfly.computer/v1
kind: Network
metadata: { name: one }
spec: { interface: nowhere0, dhcp: proxy, subnet: 10.9.0.0/24 }
---
apiVersion: dragonfly.computer/v1
kind: Hardware
metadata: { name: db-1 }
spec: { macs: ['52:54:00:ab:cd:07'] }
";

#[test]
fn a_word_that_names_nothing_is_a_mistake_and_nothing_is_done_to_all() {
    let server = Server::start();
    assert!(server.run(&["apply", "-f", "-"], NETWORKS).status.success());
    let table: &[(&[&str], &str)] = &[
        (&["get", "machines", ""], "is empty"),
        (&["get", "networks", " "], "is empty"),
        (&["get", "machines", "-l", ""], "names no label"),
        (&["describe", "machine", ""], "is empty"),
        (&["delete", "machine", ""], "is empty"),
        (&["delete", "network", ".."], "no name"),
        (&["delete", "machines", "db-1", ""], "is empty"),
        (&["assign", "", "--template", "x"], "is empty"),
        (&["assign", "db-1", "--template", ""], "is empty"),
        (&["release", ""], "is empty"),
        (&["deny", ""], "is empty"),
        (&["release", "db-1", "--question", ""], "a question is 16 hexadecimal digits"),
        (&["deny", "db-1", "--question", "yes"], "a question is 16 hexadecimal digits"),
        (&["power", "off", ""], "is empty"),
        (&["power", "off", "-l", "", "--yes"], "names no label"),
        (&["bmc", "remove", ""], "is empty"),
        (&["watch", ""], "is empty"),
        (&["why", ""], "is empty"),
        (&["log", ""], "is empty"),
        (&["why", "aa:bb"], "neither a MAC (six pairs of hex digits, as 52:54:00:ab:cd:01) nor a name"),
        (&["timeline", "52:54:00:ab:cd:0g"], "neither a MAC"),
        (&["bmc", "set", "db-1", "10.0.0.6"], "write redfish://10.0.0.6 (or ipmi://"),
    ];
    for (words, wanted) in table {
        let done = server.run(words, "");
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!((done.status.code(), done.stdout.len()), (Some(2), 0), "{words:?}: {said}");
        assert!(said.contains(wanted), "{words:?}: {said}");
    }
    assert!(server.ok(&["get", "machines", "-o", "name"]).contains("db-1"));
    assert!(server.ok(&["get", "networks", "-o", "name"]).contains("one"));
}

#[test]
fn an_address_that_is_none_is_told_how_to_write_it() {
    let flag = said(&["--server", "localhost:3000", "get", "machines"], &[], 2);
    assert!(flag.contains("its scheme is missing: write http://localhost:3000"), "{flag}");
    let variable = said(&["get", "machines"], &[("DRAGONFLY_SERVER", "10.0.0.1:3000")], 2);
    assert!(variable.contains("--server") && variable.contains("write https://10.0.0.1:3000"), "{variable}");
    for setting in ["--server-url", "--also"] {
        let agents = said(&[setting, "rack.example:3000"], &[], 2);
        assert!(agents.contains(setting) && agents.contains("write https://rack.example:3000"), "{agents}");
    }

    let dir = tempfile::tempdir().unwrap();
    // Set aside for documents (RFC 5737): no machine has it.
    let host = said(&["--data", dir.path().to_str().unwrap(), "--host", "192.0.2.1", "--port", "0"], &[], 1);
    let wanted = "cannot listen on 192.0.2.1:0; 192.0.2.1 is not an address of this machine: give one of its own";
    assert!(host.contains(wanted), "{host}");
}

#[test]
fn a_token_is_taken_without_its_newline_and_one_of_two_lines_is_refused_unseen() {
    let server = Server::start();
    let file = server.dir.path().join("data/admin.token");
    let token = std::fs::read_to_string(&file).unwrap();
    assert!(token.ends_with('\n'));
    let address = format!("http://{}", server.address);
    let url = ("DRAGONFLY_SERVER", address.as_str());
    let done = run(&["get", "networks"], &[url, ("DRAGONFLY_TOKEN", &token)], Stdio::piped());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));

    let two = format!("{}\nhunter2\n", token.trim());
    let other = server.dir.path().join("two.token");
    std::fs::write(&other, &two).unwrap();
    let by_file = ("DRAGONFLY_TOKEN_FILE", other.to_str().unwrap());
    for (variable, place) in [(("DRAGONFLY_TOKEN", two.as_str()), "DRAGONFLY_TOKEN"), (by_file, "two.token")] {
        let said = said(&["get", "networks"], &[url, variable], 1);
        assert!(said.contains(&format!("{place} has 2 lines")), "{said}");
        assert!(!said.contains("hunter2") && !said.contains(token.trim()), "{said}");
    }
}

#[test]
fn help_that_cannot_be_written_is_a_failure_and_help_that_nobody_reads_is_not_told() {
    for words in [&["--help"][..], &["--version"], &["get", "--help"], &["help", "apply"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let done = run(words, &[], full.into());
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(1), "{words:?}: {said}");
        assert!(said.contains("standard output cannot be written: No space left on device"), "{said}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let done = run(words, &[], writer.into());
        assert_eq!((done.status.code(), done.stderr.len()), (Some(141), 0), "{words:?}");
    }
}

fn network(name: &str) -> String {
    let metadata = format!("metadata: {{name: {name}}}");
    format!(
        "{{apiVersion: dragonfly.computer/v1, kind: Network, {metadata}, spec: {{interface: nowhere0, dhcp: proxy, subnet: 10.9.0.0/24}}}}"
    )
}

#[test]
fn several_files_are_one_answer_that_says_where_it_ended() {
    let server = Server::start();
    let dir = server.dir.path();
    let place = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    for (name, text) in [("a.yaml", network("a")), ("b.yaml", network("b")), ("c.yaml", network("c"))] {
        std::fs::write(dir.join(name), text).unwrap();
    }
    let (a, b, c) = (place("a.yaml"), place("b.yaml"), place("c.yaml"));
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let said = server.ok(&["apply", "-f", &a, "-f", &b, "-o", "json"]);
    assert_eq!(names(&serde_json::from_str(&said).unwrap()), ["a", "b"]);
    // One object stands alone, as it always did.
    let one: Value = serde_json::from_str(&server.ok(&["apply", "-f", &a, "-o", "json"])).unwrap();
    assert_eq!(one["kind"], "Network");

    std::fs::write(&b, network("b").replace("proxy", "prxy")).unwrap();
    let words = ["apply", "-f", &a, "-f", &b, "-f", &c];
    let (out, said) = server.fails(&words);
    assert_eq!(out, "network/a unchanged\n");
    assert!(said.contains("b.yaml: ") && said.contains("\nNothing of "), "{said}");
    assert!(said.contains(&format!("\nNot tried: {c}.\nRun the same again")), "{said}");
    let (out, _) = server.fails(&[&words[..], &["-o", "json"]].concat());
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((names(&told), &told["notTried"]), (vec!["a".to_owned()], &json!([c])));
    assert!(told["failed"][0]["file"] == b.as_str() && told["failed"][0]["problem"].is_string(), "{told}");
}

#[test]
fn what_a_directory_holds_besides_and_what_is_too_large_is_told() {
    let server = Server::start();
    let site = server.dir.path().join("site");
    std::fs::create_dir_all(site.join("old")).unwrap();
    std::fs::write(site.join("a.yaml"), network("a")).unwrap();
    std::fs::write(site.join("b.yaml.bak"), network("b")).unwrap();
    let done = server.run(&["apply", "-f", site.to_str().unwrap()], "");
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "network/a created\n");
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(said.contains("site: skipped, being no *.yaml, *.yml or *.json: b.yaml.bak, old/\n"), "{said}");

    let large =
        |bytes: usize| network("a").replace("name: a", &format!("name: a, annotations: {{x: {}}}", "x".repeat(bytes)));
    let table = [
        (600_000, "; an object may have 524288"),
        (1_500_000, "a server takes 1048576 at a time: put its objects into several files. One object may have 524288"),
    ];
    for (bytes, wanted) in table {
        let done = server.run(&["apply", "-f", "-"], &large(bytes));
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(done.status.code() == Some(1) && said.contains(wanted), "{said}");
    }
}

#[test]
fn boot_says_how_a_remote_site_is_served() {
    let said = said(&["boot", "--server", "https://10.0.0.1:3000"], &[], 1);
    for way in [
        "by https://10.0.0.1:3000/: have the site's router relay DHCP",
        "dragonfly --data DIR",
        "--mode swarm --region",
    ] {
        assert!(said.contains(way), "{said}");
    }
}
