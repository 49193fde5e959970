//! What controllers know and give to boot from, through the whole program: a Redfish service in this process, and one
//! that speaks IPMI and has none of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "common/program.rs"]
mod program;

use dragonfly_core::testing::power::redfish::{Peer, Personality};
use dragonfly_core::testing::power::{ipmi, redfish};
use program::Server;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
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

/// What the server answers a person, in a browser or not.
async fn ask(
    server: &Server,
    path: &str,
    request: impl Fn(&reqwest::Client, String) -> reqwest::RequestBuilder,
) -> (u16, String) {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let redirect = reqwest::redirect::Policy::none();
    let client = reqwest::Client::builder().no_proxy().redirect(redirect).build().unwrap();
    let token = std::fs::read_to_string(server.dir.path().join("data/admin.token")).unwrap();
    let request = request(&client, format!("http://{}{path}", server.address));
    let answer = request.bearer_auth(token.trim()).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn page(server: &Server, path: &str) -> String {
    let (status, page) = ask(server, path, |http, url| http.get(url)).await;
    assert_eq!(status, 200, "{path}: {page}");
    assert!(!page.contains(" style=") && !page.contains(" onclick="), "{path}: the policy forbids inline code");
    page
}

async fn post(server: &Server, path: &str, form: &str) -> (u16, String) {
    let request = |http: &reqwest::Client, url| {
        http.post(url).header("content-type", "application/x-www-form-urlencoded").body(form.to_owned())
    };
    ask(server, path, request).await
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
    let request = |http: &reqwest::Client, url| http.put(url).json(&serde_json::json!({ "image": secret }));
    let (status, said) = ask(&server, "/dragonfly/v1/machines/m1/bmc/media", request).await;
    assert_eq!(status, 422);
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

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_ask_a_controller_when_somebody_wants_to_see_it() {
    let peer = peer().await;
    let server = Server::start();
    machine(&server, "m1", "52:54:00:12:34:56", &format!("redfish://{}?tls=off", peer.address()));
    let requests = || peer.seen().requests.len();
    let before = requests();
    let whole = page(&server, "/machines/m1").await;
    assert!(whole.contains("href=\"/machines/m1/controller/inventory\" data-ask"), "{whole}");
    assert_eq!(requests(), before, "a page that is looked at asks nobody");
    for (what, words) in [
        ("inventory", ["SN0001", "DIMM 1", "D0001", "52:54:00:12:34:56"]),
        ("firmware", ["BIOS", "1.2.3", "BMC", "yes"]),
        ("media", ["Its virtual drive is empty", "media-insert", "https", "name=\"image\""]),
    ] {
        for path in [format!("/machines/m1/controller/{what}"), format!("/fragments/machines/m1/controller/{what}")] {
            let said = page(&server, &path).await;
            for word in words {
                assert!(said.contains(word), "{path}: {word}: {said}");
            }
        }
    }
    let (status, _) = post(&server, "/machines/m1/media-insert", "image=http%3A%2F%2F10.0.0.1%2Fa.iso").await;
    assert_eq!((status, peer.machine().media.as_deref()), (303, Some("http://10.0.0.1/a.iso")));
    let said = page(&server, "/machines/m1/controller/media").await;
    assert!(said.contains("http://10.0.0.1/a.iso") && said.contains("media-eject"), "{said}");
    let (status, said) = post(&server, "/machines/m1/media-insert", "image=http%3A%2F%2Fu:hunter2@h%2Fa.iso").await;
    assert!(status == 422 && said.contains("user and password do not belong") && !said.contains("hunter2"), "{said}");
    assert_eq!(post(&server, "/machines/m1/media-eject", "").await.0, 303);
    assert_eq!(peer.machine().media, None);
    // What goes wrong stands where the answer would.
    peer.change(|is, _: &mut [redfish::Machine]| is.password = "another".to_owned());
    let said = page(&server, "/fragments/machines/m1/controller/firmware").await;
    assert!(said.contains("the controller refused the user or the password"), "{said}");
    assert_eq!(ask(&server, "/machines/m1/controller/secrets", |http, url| http.get(url)).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_are_switched_from_the_list_and_asked_first() {
    let (first, second) = (peer().await, peer().await);
    let server = Server::start();
    machine(&server, "m1", "52:54:00:00:00:01", &format!("redfish://{}?tls=off", first.address()));
    machine(&server, "m2", "52:54:00:00:00:02", &format!("redfish://{}?tls=off", second.address()));
    let other = "{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {name: m3}, spec: {macs: ['52:54:00:00:00:03']}}";
    assert!(server.run(&["apply", "-f", "-"], other).status.success());
    let list = page(&server, "/").await;
    assert!(list.contains("name=\"machine\" value=\"m1\"") && list.contains("name=\"machine\" value=\"m2\""), "{list}");
    assert!(!list.contains("name=\"machine\" value=\"m3\""), "nobody could switch it");

    assert_eq!(post(&server, "/power", "operation=on&machine=m1&machine=m2").await.0, 303);
    assert!(first.machine().is_on && second.machine().is_on);
    let (status, sure) = post(&server, "/power", "operation=off&machine=m1&machine=m2").await;
    assert!(
        status == 200 && sure.contains("Switch off: 2 machines") && sure.contains("whatever they do ends"),
        "{sure}"
    );
    assert!(first.machine().is_on && second.machine().is_on, "it was only asked");
    let (status, said) = post(&server, "/power", "operation=off&machine=m1&machine=m3&confirmed=yes").await;
    assert_eq!(status, 409);
    assert!(said.contains("1 of 2 machines not switched"), "{said}");
    assert!(said.contains("m3: no power controller of m3 is known"), "{said}");
    assert!(!first.machine().is_on && second.machine().is_on);
    let (status, said) = post(&server, "/power", "operation=off").await;
    assert!(status == 400 && said.contains("choose machines first"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_authority_of_our_own_vouches_for_controllers() {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &Issuer::from_params(&ca, &ca_key)).unwrap();
    let is = Personality { password: MARK.to_owned(), ..Personality::default() };
    let der = certificate.der().to_vec();
    let peer = Peer::start_tls("127.0.0.1:0".parse().unwrap(), is, der, key.serialize_der()).await.unwrap();
    let address = format!("redfish://{}", peer.address());

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bmc-ca.pem");
    std::fs::write(&file, ca_certificate.pem()).unwrap();
    let server = Server::with(&["--bmc-ca", file.to_str().unwrap()]);
    machine(&server, "m1", "52:54:00:00:00:01", &address);
    assert_eq!(server.ok(&["power", "on", "m1"]), "m1 is on\n");
    // Without it nobody vouches for it, and the error says by which fingerprint it could be trusted.
    let other = Server::start();
    let hardware = "{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {name: m1}, spec: {macs: ['52:54:00:00:00:01']}}";
    assert!(other.run(&["apply", "-f", "-"], hardware).status.success());
    let password = server.dir.path().join("pw");
    let set = |address: &str| -> Vec<String> {
        let words = ["bmc", "set", "m1", address, "--username", "admin", "--password-file", password.to_str().unwrap()];
        words.map(ToOwned::to_owned).to_vec()
    };
    let words = set(&address);
    let (_, said) = other.fails(&words.iter().map(|word| &**word).collect::<Vec<_>>());
    let (_, pin) = said.split_once("sha256:").unwrap_or_else(|| panic!("{said}"));
    let pin: String = pin.chars().take_while(char::is_ascii_hexdigit).collect();
    // A fingerprint counts as it did.
    let words = set(&format!("{address}?tls=sha256:{pin}"));
    other.ok(&words.iter().map(|word| &**word).collect::<Vec<_>>());

    // A file that is none is told at the start, with its name.
    for (text, why) in [
        ("", "there is no certificate in the PEM text"),
        ("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", "certificate 1"),
    ] {
        std::fs::write(&file, text).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dragonfly"));
        command.env_clear().args(["--host", "127.0.0.1", "--port", "0", "--bmc-ca"]).arg(&file).arg("--data");
        let out = command.arg(dir.path().join("data")).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && said.contains("bmc-ca.pem") && said.contains(why), "{said}");
    }
}
