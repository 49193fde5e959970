//! Power through the whole program: the server, its command line and web pages, and controllers that speak IPMI.
//! The password is marked and looked for everywhere afterwards.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "common/program.rs"]
mod program;

use std::io::Read as _;
use std::path::PathBuf;

use dragonfly_core::testing::power::ipmi::{Peer, Personality};
use program::Server;
use serde_json::Value;

const MARK: &str = "Marked-pw-90214";

async fn peer() -> Peer {
    let is = Personality { password: MARK.to_owned(), ..Personality::default() };
    Peer::start("127.0.0.1:0".parse().unwrap(), is).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_switched_by_its_controller_and_the_password_stays_where_it_is() {
    let (first, second) = (peer().await, peer().await);
    let (server, address) = (Server::start(), format!("ipmi://{}", first.address()));
    let machines = "
{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {name: m1, labels: {rack: a1}}, spec: {macs: ['52:54:00:00:00:01']}}
---
{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {name: m2, labels: {rack: a1}}, spec: {macs: ['52:54:00:00:00:02']}}
---
{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {name: pc, labels: {rack: b2}}, spec: {macs: ['52:54:00:00:00:03']}}
";
    assert!(server.run(&["apply", "-f", "-"], machines).status.success());
    let (_, said) = server.fails(&["power", "on", "m1"]);
    assert_eq!(said, "dragonfly: no power controller of m1 is known; say where it is: dragonfly bmc set m1 ADDRESS\n");
    let (_, said) = server.fails(&["bmc", "set", "m1", "imi://10.0.0.6"]);
    assert!(said.contains("there is no power driver for `imi://`; there are: ipmi"), "{said}");

    let password = server.dir.path().join("pw");
    std::fs::write(&password, format!("{MARK}\n")).unwrap();
    let file = password.to_str().unwrap();
    let said = server.ok(&["bmc", "set", "m1", &address, "--username", "admin", "--password-file", file]);
    assert!(said.contains("m1: it answers; the machine is off, and it can: on, off, soft, cycle"), "{said}");
    assert_eq!(server.ok(&["power", "status", "m1"]), "MACHINE  POWER\nm1       off\n");
    assert_eq!(server.ok(&["power", "on", "m1"]), "m1 is on\n");
    assert!(first.chassis().is_on);
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let status = read(&server.ok(&["power", "status", "m1", "-o", "json"]));
    assert_eq!(status["items"][0]["power"], "On");
    let boots = server.ok(&["power", "boot-device", "m1", "--set", "pxe", "--mode", "uefi"]);
    assert!(boots.contains("pxe") && boots.contains("next boot") && boots.contains("uefi"), "{boots}");
    assert_eq!(server.ok(&["power", "boot-device", "m1"]), boots, "it reads back");
    assert!(server.ok(&["power", "boot-device", "m1", "--set", "none"]).contains("as its firmware likes"));
    assert_eq!(server.ok(&["power", "cycle", "m1"]), "m1 was cycled and is on\n");
    assert_eq!(server.ok(&["power", "reset", "m1"]), "m1 was reset\n");
    assert_eq!(server.ok(&["power", "network-boot", "m1"]), "m1 is on and boots from the network\n");
    assert_eq!(server.ok(&["power", "identify", "m1", "--seconds", "30"]), "m1: its lamp is lit for 30 s\n");
    assert_eq!(first.chassis().identify, 30);
    assert!(server.ok(&["bmc", "sensors", "m1"]).contains("degrees C"));
    assert!(server.ok(&["bmc", "events", "m1", "--limit", "3"]).lines().count() > 1);
    assert!(server.ok(&["get", "machines", "-o", "wide"]).contains("  on  "));
    let why = server.ok(&["why", "m1"]);
    assert!(why.contains("Powered: True (its controller says that it is on)"), "{why}");

    // The wrong password: twice, and then it is not asked again until somebody says that it is right.
    let wrong = server.dir.path().join("wrong");
    std::fs::write(&wrong, "not-it").unwrap();
    let (address, file) = (format!("ipmi://{}", second.address()), wrong.to_str().unwrap());
    let (_, said) = server.fails(&["bmc", "set", "m2", &address, "--username", "admin", "--password-file", file]);
    assert!(said.contains("`test` of m2 was not done: the controller refused the user or the password"), "{said}");
    server.fails(&["power", "on", "m2"]);
    let refused = second.seen().refused;
    let (_, said) = server.fails(&["power", "on", "m2"]);
    assert!(said.contains("is not asked again, so that the account is not locked"), "{said}");
    assert_eq!(second.seen().refused, refused);
    // Several: each failure is told, the others are done.
    let (out, said) = server.fails(&["power", "soft", "-l", "rack=a1", "--yes"]);
    assert!(out.starts_with("m1 was asked to shut down"), "{out}");
    assert!(said.contains("`soft` of m2") && said.contains("1 of 2 failed"), "{said}");
    let (_, said) = server.fails(&["power", "off", "-l", "rack=a1"]);
    assert!(said.contains("nobody can be asked here"), "{said}");
    let (_, said) = server.fails(&["power", "status", "-l", "rack=none"]);
    assert!(said.contains("no machine has the labels rack=none"), "{said}");
    // Wake-on-LAN can do one thing, and nobody sees it done.
    let said = server.ok(&["bmc", "set", "pc", "wol://52-54-00-00-00-03?to=127.0.0.1"]);
    assert!(said.contains("pc: Wake-on-LAN gives no answer, only its address was checked"), "{said}");
    assert!(said.ends_with("it can: on\n") && !said.contains("it answers"), "{said}");
    let (_, said) = server.fails(&["power", "off", "pc"]);
    assert!(said.contains("this controller cannot do `off`; it can: on"), "{said}");
    assert_eq!(server.ok(&["power", "on", "pc"]), "pc was told; its controller cannot tell whether it obeyed\n");

    // Everything that anybody can read.
    server.ok(&["get", "machines", "-o", "json"]);
    server.ok(&["get", "secrets", "-o", "yaml"]);
    server.ok(&["timeline", "m1", "-o", "json"]);
    server.ok(&["why", "m2", "-o", "json"]);
    let backup = server.dir.path().join("backup");
    server.ok(&["backup", backup.to_str().unwrap()]);
    server.ok(&["bmc", "remove", "m1"]);
    let all = server.said.lock().unwrap().clone();
    assert!(all.contains("bmc-m1") && all.contains("network-boot"), "the log and the answers are in it");
    for secret in [MARK, "not-it"] {
        assert!(!all.contains(secret), "{}", all.split('\n').find(|line| line.contains(secret)).unwrap_or_default());
        for path in files(server.dir.path().join("data")).into_iter().chain([backup.clone()]) {
            let mut bytes = Vec::new();
            std::fs::File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
            let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found, "{secret} stands in {}", path.display());
        }
    }
    let cmdline = std::fs::read(format!("/proc/{}/cmdline", server.child.id())).unwrap();
    assert!(!String::from_utf8_lossy(&cmdline).contains(MARK));
}

fn files(directory: PathBuf) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(path)) } else { found.push(path) }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_expected_machines_is_imported_switched_on_and_waited_for() {
    let (first, second) = (peer().await, peer().await);
    let server = Server::start();
    let secrets = format!(
        "{{apiVersion: dragonfly.computer/v1, kind: Secret, metadata: {{name: good}}, spec: {{data: {{username: admin, password: {MARK}}}}}}}
---
{{apiVersion: dragonfly.computer/v1, kind: Secret, metadata: {{name: bad}}, spec: {{data: {{username: admin, password: no}}}}}}
"
    );
    assert!(server.run(&["apply", "-f", "-"], &secrets).status.success());
    let file = server.dir.path().join("rack.csv");
    let name = file.to_str().unwrap();
    std::fs::write(&file, "mac,bmc\n52:54:00:ab:cd:01,imi://10.0.0.6\n").unwrap();
    let (_, said) = server.fails(&["import", "machines", name]);
    assert!(said.contains("rack.csv: nothing was done") && said.contains("no power driver for `imi://`"), "{said}");
    // Its line in the file, whatever stands between.
    let rows = "# rack a1\nname,mac\na,52:54:00:ab:cd:01\n\n# and\nb,52:54:00:ab:cd:02\nc d,52:54:00:ab:cd:03\n";
    std::fs::write(&file, rows).unwrap();
    let (_, said) = server.fails(&["import", "machines", name]);
    assert!(said.contains("rack.csv: nothing was done: line 7: metadata.name: "), "{said}");
    // A Secret may come later: its lack is told, and stops nothing.
    let rows = "mac,bmc,secret\n52:54:00:ab:cd:01,ipmi://127.0.0.1:1,none\n\n\
                52:54:00:ab:cd:02,ipmi://127.0.0.1:1,good\n52:54:00:ab:cd:03,ipmi://127.0.0.1:1,none\n";
    std::fs::write(&file, rows).unwrap();
    let done = server.run(&["import", "machines", name, "--dry-run"], "");
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success() && said.starts_with("warning: lines 2, 5: there is no Secret `none`"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let rows = format!(
        "mac,serial,bmc,secret,labels\n52:54:00:ab:cd:01,SN-1,ipmi://{},good,rack=a1\n,SN-2,ipmi://{},bad,rack=a1\n52:54:00:ab:cd:03,,,,\n",
        first.address(),
        second.address()
    );
    std::fs::write(&file, &rows).unwrap();
    let said = server.ok(&["import", "machines", name, "--dry-run"]);
    assert_eq!(said.matches("would be created").count(), 3, "{said}");
    assert!(server.ok(&["get", "machines"]).contains("No machines yet"));

    let (out, said) = server.fails(&["import", "machines", name, "--power-on", "--wait", "1"]);
    assert!(out.contains("3 created, 0 known already") && out.contains("1 boot from the network"), "{out}");
    assert!(said.contains("line 3, sn-sn-2: `network-boot` of sn-sn-2 was not done: the controller refused"), "{said}");
    assert!(said.contains("1 could not be booted, 3 of 3 did not appear"), "{said}");
    assert!(out.contains("sn-sn-2 (line 3: SN-2, ipmi://"), "{out}");
    assert!(out.contains("did not appear: the controller refused the user or the password"), "{out}");
    assert!(out.contains("(line 4: 52:54:00:ab:cd:03) did not appear: nothing was heard of it"), "{out}");
    assert!(first.chassis().is_on && !second.chassis().is_on);
    assert_eq!(first.chassis().boot[1], 1 << 2, "PXE");
    assert!(server.ok(&["get", "machines", "-l", "rack=a1"]).lines().count() == 3);
    // Again: they are known.
    let said = server.ok(&["import", "machines", name]);
    assert_eq!(said, "0 created, 3 known already\n");
    let machine = server.ok(&["get", "machine", "52:54:00:ab:cd:01", "-o", "yaml"]);
    assert!(machine.contains("serial: SN-1") && machine.contains("name: good"), "{machine}");
}
