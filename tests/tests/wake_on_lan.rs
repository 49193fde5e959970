//! Wake-on-LAN over a real cable between two network namespaces.
#![cfg(target_os = "linux")]
// Helpers outside `#[test]` functions unwrap and say what they did.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs::File;
use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use dragonfly_core::power::wol::WakeOnLan;
use dragonfly_core::power::{Credential, PowerDriver as _};
use nix::sched::{CloneFlags, setns};

/// Two namespaces joined by a cable, `a` and `b`; gone with the value.
struct Cable {
    names: [String; 2],
}

fn ip(words: &str) {
    let out = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(out.status.success(), "ip {words}: {}", String::from_utf8_lossy(&out.stderr));
}

impl Cable {
    fn new() -> Self {
        let names = ["a", "b"].map(|end| format!("df-wol-{}-{end}", std::process::id()));
        let cable = Self { names };
        let [a, b] = &cable.names;
        ip(&format!("netns add {a}"));
        ip(&format!("netns add {b}"));
        ip(&format!("link add eth1 netns {a} type veth peer name eth1 netns {b}"));
        for (name, address) in [(a, "10.99.7.1/24"), (b, "10.99.7.2/24")] {
            ip(&format!("-n {name} address add {address} dev eth1"));
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {name} link set eth1 up"));
        }
        cable
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "delete", name]).output();
        }
    }
}

/// Runs something on a thread of its own inside a namespace.
fn inside<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
    let file = File::open(format!("/run/netns/{name}")).unwrap();
    std::thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    })
}

#[test]
fn a_magic_packet_arrives_in_another_namespace_byte_for_byte() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root");
        eprintln!("skipped: needs root");
        return;
    }
    let cable = Cable::new();
    let listening = inside(&cable.names[1], || {
        let socket = UdpSocket::bind("0.0.0.0:9").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    });
    let socket = listening.join().unwrap();
    let mac = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
    // Broadcast, broadcast out of one interface, and to a host that relays.
    for query in ["?to=10.99.7.255", "?interface=eth1", "?to=10.99.7.2"] {
        let address = format!("wol://52-54-00-12-34-56{query}").parse().unwrap();
        let credential = Credential { username: String::new(), password: "0a:0b:0c:0d:0e:0f".to_owned().into() };
        let sending = inside(&cable.names[0], move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                WakeOnLan.open(&address, Some(&credential)).await.unwrap().on().await.unwrap();
            });
        });
        sending.join().unwrap();
        let mut packet = [0; 200];
        for _ in 0..3 {
            let (length, from) = socket.recv_from(&mut packet).unwrap();
            let wanted = [&[0xff; 6], &mac.repeat(16)[..], &[10, 11, 12, 13, 14, 15]].concat();
            assert_eq!((&packet[..length], from.ip().to_string().as_str()), (&wanted[..], "10.99.7.1"), "{query}");
        }
    }
}
