//! What controllers know and give to boot from, through the whole program: a Redfish service in this process, and one
//! that speaks IPMI and has none of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "common/program.rs"]
mod program;

use dragonfly_core::testing::power::redfish::{Peer, Personality};
use dragonfly_core::testing::power::{ipmi, redfish};
use program::Server;
use serde_json::Value;

const MARK: &str = "Marked-pw-77310";

async fn peer() -> Peer {
    let is = Personality { password: MARK.to_owned(), ..Personality::default() };
    Peer::start("127.0.0.1:0".parse().unwrap(), is).await.unwrap()
}

fn machine(server: &Server, name: &str, mac: &str, address: &str) {
    let hardware = format!(
        "{{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {{name: {name}}}, spec: {{macs: ['{mac}']}}}}"
    );
    assert!(server.run(&["apply", "-f", "-"], &hardware).status.success());
    let password = server.dir.path().join("pw");
    std::fs::write(&password, MARK).unwrap();
    let file = password.to_str().unwrap();
    server.ok(&["bmc", "set", name, address, "--username", "admin", "--password-file", file]);
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn media_http_boot_inventory_and_firmware() {
    let peer = peer().await;
    let server = Server::start();
    machine(&server, "m1", "52:54:00:12:34:56", &format!("redfish://{}?tls=off", peer.address()));

    // Its virtual drive.
    assert_eq!(server.ok(&["bmc", "media", "m1"]), "MACHINE  IMAGE\nm1       none, its drive is empty\n");
    let image = "http://10.0.0.1/rescue.iso?key=k1";
    let said = server.ok(&["bmc", "media", "m1", "insert", image]);
    assert_eq!(said, format!("MACHINE  IMAGE\nm1       {image}\n"));
    assert_eq!(peer.machine().media.as_deref(), Some(image));
    let said = json(&server.ok(&["bmc", "media", "m1", "-o", "json"]));
    assert_eq!(said["items"][0]["image"], image);
    assert!(server.ok(&["bmc", "media", "m1", "-o", "yaml"]).contains(image));
    server.ok(&["bmc", "media", "m1", "eject"]);
    assert_eq!(peer.machine().media, None);
    server.ok(&["bmc", "media", "m1", "eject"]);

    // An address over HTTP, which is no device, and reads back as what it is.
    let program = "http://10.0.0.1/boot.efi";
    let said = server.ok(&["power", "boot-device", "m1", "--set", "http", "--uri", program]);
    assert!(said.contains(program) && said.contains("next boot"), "{said}");
    let set = peer.machine().boot;
    assert_eq!((&*set.target, set.uri.as_deref(), &*set.enabled), ("UefiHttp", Some(program), "Once"));
    assert_eq!(server.ok(&["power", "boot-device", "m1"]), said);
    assert!(server.ok(&["power", "boot-device", "m1", "--set", "none"]).contains("as its firmware likes"));
    assert!(server.ok(&["power", "boot-device", "m1", "--set", "cdrom"]).contains("cdrom"));
    let (_, said) = server.fails(&["power", "boot-device", "m1", "--set", "http"]);
    assert!(said.contains("needs --uri"), "{said}");

    let said = server.ok(&["bmc", "inventory", "m1"]);
    for word in ["SN0001", "Acme C1, 1 socket, 8 cores, 16 threads", "16 GiB", "DIMM 1", "D0001", "52:54:00:12:34:56"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(!said.contains("differs"), "no agent has seen anything: {said}");
    let said = json(&server.ok(&["bmc", "inventory", "m1", "-o", "json"]));
    assert_eq!(said["inventory"]["system"]["serial"], "SN0001");
    let said = server.ok(&["bmc", "firmware", "m1"]);
    assert!(said.contains("BIOS  1.2.3    yes") && said.contains("BMC   1.2.3    no"), "{said}");

    // What changed something is told, with what it was done; what opens something is not.
    let told = server.ok(&["timeline", "m1"]);
    for words in [
        "admin: media insert http://10.0.0.1/rescue.iso?...",
        "admin: media eject",
        "admin: http-boot http://10.0.0.1/boot.efi",
        "admin: boot-device none",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(!told.contains("inventory") && !told.contains("key=k1"), "{told}");
    assert_eq!(peer.seen().opened, peer.seen().closed, "every session is given back");
    assert!(!server.said.lock().unwrap().contains(MARK));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_refused_before_anything_is_sent() {
    let peer = peer().await;
    let is = ipmi::Personality { password: MARK.to_owned(), ..ipmi::Personality::default() };
    let other = ipmi::Peer::start("127.0.0.1:0".parse().unwrap(), is).await.unwrap();
    let server = Server::start();
    machine(&server, "m1", "52:54:00:00:00:01", &format!("redfish://{}?tls=off", peer.address()));
    machine(&server, "m2", "52:54:00:00:00:02", &format!("ipmi://{}", other.address()));

    let before = peer.seen().requests.len();
    let secret = "http://root:hunter2@10.0.0.1/a.iso";
    for words in [
        &["bmc", "media", "m1", "insert", secret][..],
        &["power", "boot-device", "m1", "--set", "http", "--uri", secret],
        &["bmc", "media", "m1", "insert", "file:///etc/shadow"],
        &["power", "boot-device", "m1", "--set", "http", "--uri", "nfs://10.0.0.1/a.efi"],
    ] {
        let (_, said) = server.fails(words);
        assert!(said.contains("do not belong into an address") || said.contains("is none of http"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    // Not only by our own command line.
    let token = std::fs::read_to_string(server.dir.path().join("data/admin.token")).unwrap();
    let url = format!("http://{}/dragonfly/v1/machines/m1/bmc/media", server.address);
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = serde_json::json!({ "image": secret });
    let answer = client.put(url).bearer_auth(token.trim()).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 422);
    let said = answer.text().await.unwrap();
    assert!(said.contains("user and password do not belong") && !said.contains("hunter2"), "{said}");
    assert_eq!(peer.seen().requests.len(), before, "nothing was sent");

    for (words, what) in [
        (&["bmc", "media", "m2", "insert", "http://10.0.0.1/a.iso"][..], "media"),
        (&["bmc", "media", "m2"], "media"),
        (&["power", "boot-device", "m2", "--set", "http", "--uri", "http://10.0.0.1/a.efi"], "http-boot"),
        (&["bmc", "inventory", "m2"], "inventory"),
        (&["bmc", "firmware", "m2"], "firmware"),
    ] {
        let (_, said) = server.fails(words);
        let want = format!("this controller cannot do `{what}`; it can: on, off, soft, cycle");
        assert!(said.contains(&want), "{said}");
    }
    let told = server.ok(&["timeline", "m2"]);
    assert!(told.contains("admin: media insert http://10.0.0.1/a.iso: this controller cannot do `media`"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_that_stays_empty_is_told() {
    let peer = peer().await;
    let server = Server::start();
    machine(&server, "m1", "52:54:00:00:00:01", &format!("redfish://{}?tls=off", peer.address()));
    peer.change(|is, _: &mut [redfish::Machine]| is.lies = true);
    let (_, said) = server.fails(&["bmc", "media", "m1", "insert", "http://10.0.0.1/a.iso"]);
    assert!(said.contains("it said yes, and says that its drive is empty"), "{said}");
    let (_, said) = server.fails(&["power", "boot-device", "m1", "--set", "http", "--uri", "http://10.0.0.1/a.efi"]);
    assert!(said.contains("it said yes, and says that nothing is set"), "{said}");
}
