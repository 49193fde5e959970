//! The server with its sockets, over a relay that loses, doubles and reorders.

use dragonfly_core::boot::Fate;
use dragonfly_core::clock::SystemClock;

use super::*;
use crate::BootFiles;
use crate::dhcp::MemoryLeases;
use crate::testing::{Observer, Provider};

struct Bench {
    server: Arc<TftpServer>,
    observer: Arc<Observer>,
    port: u16,
    dir: tempfile::TempDir,
}

async fn bench(limits: Limits) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let files = Arc::new(BootFiles::new(dir.path()));
    let (provider, observer) = (Arc::new(Provider::with(Some(Fate::Local))), Arc::new(Observer::default()));
    let (store, o, clock) = (Arc::new(MemoryLeases::default()), observer.clone(), Arc::new(SystemClock));
    let leases = Arc::new(Responder::load(provider, store, o, clock, files.clone(), None).await.unwrap());
    let server = Arc::new(TftpServer {
        files,
        observer: observer.clone(),
        limits,
        leases,
        tasks: TaskTracker::new(),
        cancel: CancellationToken::new(),
        open: Mutex::default(),
        begun: AtomicU64::default(),
    });
    let socket = PacketSocket::on(None, 0).unwrap();
    let (port, this) = (socket.port(), server.clone());
    tokio::spawn(async move { this.listen(&socket, |_, _| true).await });
    Bench { server, observer, port, dir }
}

/// Passes packets between one client and the server; `fate` says what happens to each.
async fn relay(server_port: u16, seed: u64) -> u16 {
    let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = front.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut state = seed | 1;
        let mut roll = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % 100
        };
        let mut server = SocketAddr::from(([127, 0, 0, 1], server_port));
        let mut client: Option<SocketAddr> = None;
        let mut held: Option<(bool, Vec<u8>)> = None;
        let (mut a, mut b) = (vec![0; 65536], vec![0; 65536]);
        loop {
            let (to_server, packet) = tokio::select! {
                got = front.recv_from(&mut a) => { let (n, from) = got.unwrap(); client = Some(from); (true, a[..n].to_vec()) }
                got = back.recv_from(&mut b) => { let (n, from) = got.unwrap(); server = from; (false, b[..n].to_vec()) }
            };
            let mut out = match roll() {
                0..5 => vec![],
                5..10 => vec![(to_server, packet.clone()), (to_server, packet)],
                10..15 if held.is_none() => {
                    held = Some((to_server, packet));
                    vec![]
                }
                _ => vec![(to_server, packet)],
            };
            if !out.is_empty() {
                out.extend(held.take());
            }
            for (to_server, packet) in out {
                let _ = match (to_server, client) {
                    (true, _) => back.send_to(&packet, server).await,
                    (false, Some(client)) => front.send_to(&packet, client).await,
                    (false, None) => Ok(0),
                };
            }
        }
    });
    port
}

/// A client that acknowledges each window, and what it has whenever something is amiss.
async fn fetch(port: u16, name: &str, window: u16) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("\0\x01{name}\0octet\0blksize\x001000\0windowsize\0{window}\0");
    let (mut got, mut next, mut since) = (Vec::new(), 1u16, 0);
    let mut buffer = vec![0; 65536];
    let mut say = request.into_bytes();
    socket.send(&say).await.unwrap();
    loop {
        let Ok(received) = tokio::time::timeout(Duration::from_millis(150), socket.recv(&mut buffer)).await else {
            socket.send(&say).await.unwrap();
            continue;
        };
        let packet = &buffer[..received.unwrap()];
        match packet {
            [0, 6, ..] if got.is_empty() => say = vec![0, 4, 0, 0],
            [0, 3, high, low, content @ ..] => {
                let last = content.len() < 1000;
                let in_order = u16::from_be_bytes([*high, *low]) == next;
                if in_order {
                    got.extend(content);
                    next = next.wrapping_add(1);
                    since += 1;
                }
                let [high, low] = next.wrapping_sub(1).to_be_bytes();
                say = vec![0, 4, high, low];
                if in_order && !last && since < window {
                    continue;
                }
                since = 0;
                if in_order && last {
                    // The last acknowledgement may be lost as well: a few, as clients do that linger.
                    for _ in 0..5 {
                        socket.send(&say).await.unwrap();
                    }
                    return got;
                }
            }
            _ => continue,
        }
        socket.send(&say).await.unwrap();
    }
}

#[tokio::test]
async fn a_bad_network_changes_no_byte_and_costs_little() {
    let bench = bench(Limits::default()).await;
    let content: Vec<u8> =
        (0..300_000u32).flat_map(|n| n.wrapping_mul(0x9e37_79b1).to_be_bytes()).take(300_000).collect();
    std::fs::write(bench.dir.path().join("f"), &content).unwrap();
    for (seed, window) in [(1, 1), (2, 4), (3, 16), (0xdead_beef, 16)] {
        let port = relay(bench.port, seed).await;
        let begin = Instant::now();
        let got = tokio::time::timeout(Duration::from_secs(60), fetch(port, "f", window)).await;
        assert!(got.expect("no end") == content, "seed {seed}, window {window}");
        println!("5 % lost, doubled and reordered each, window {window}: {:?}", begin.elapsed());
    }
}

#[tokio::test]
async fn a_size_that_is_asked_and_dropped_is_no_failure() {
    let bench = bench(Limits::default()).await;
    std::fs::write(bench.dir.path().join("f"), [7; 2000]).unwrap();
    let server = SocketAddr::from(([127, 0, 0, 1], bench.port));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut buffer = [0; 1500];
    socket.send_to(b"\0\x01f\0octet\0tsize\x000\0", server).await.unwrap();
    let (n, from) = socket.recv_from(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..n], b"\0\x06tsize\x002000\0");
    socket.send_to(b"\0\x05\0\x08aborted\0", from).await.unwrap();
    while !bench.server.open().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(bench.observer.whats(), ["tftp.aborted"]);
    // The same port asks anew, as firmware does whose ports start again at each boot.
    socket.send_to(b"\0\x01f\0octet\0", server).await.unwrap();
    let (n, _) = socket.recv_from(&mut buffer).await.unwrap();
    assert_eq!((n, &buffer[..4]), (516, &[0, 3, 0, 1][..]));
}

#[tokio::test]
async fn a_reset_machine_is_served_at_once_and_strangers_are_counted() {
    let bench = bench(Limits { transfers: 2, ..Limits::default() }).await;
    std::fs::write(bench.dir.path().join("f"), [7; 5000]).unwrap();
    let server = SocketAddr::from(([127, 0, 0, 1], bench.port));
    let mut buffer = [0; 1500];
    let machine = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for _ in 0..2 {
        machine.send_to(b"\0\x01f\0octet\0", server).await.unwrap();
        let (_, from) = machine.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..4], [0, 3, 0, 1]);
        // Under way, and then the machine is reset.
        machine.send_to(&[0, 4, 0, 1], from).await.unwrap();
        machine.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..4], [0, 3, 0, 2]);
    }
    // From the same address, and all under way: the next one waits.
    let (second, third) =
        (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    second.send_to(b"\0\x01f\0octet\0", server).await.unwrap();
    let (_, from) = second.recv_from(&mut buffer).await.unwrap();
    second.send_to(&[0, 4, 0, 1], from).await.unwrap();
    second.recv_from(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..4], [0, 3, 0, 2]);
    third.send_to(b"\0\x01f\0octet\0", server).await.unwrap();
    let (n, _) = third.recv_from(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..n], b"\0\x05\0\0too many transfers; ask again\0");
}

#[tokio::test]
async fn who_opens_and_never_answers_keeps_nobody_out() {
    let bench = bench(Limits { transfers: 8, ..Limits::default() }).await;
    std::fs::write(bench.dir.path().join("f"), [7; 5000]).unwrap();
    let server = SocketAddr::from(([127, 0, 0, 1], bench.port));
    let mut silent = Vec::new();
    for _ in 0..40 {
        let one = UdpSocket::bind("127.0.0.2:0").await.unwrap();
        one.send_to(b"\0\x01f\0octet\0", server).await.unwrap();
        silent.push(one);
        assert!(bench.server.open().len() <= 8);
    }
    let port = relay(bench.port, 1).await;
    let got = tokio::time::timeout(Duration::from_secs(60), fetch(port, "f", 4)).await;
    assert_eq!(got.expect("no end"), [7; 5000]);
}

#[tokio::test]
async fn a_few_addresses_whose_transfers_go_on_keep_nobody_out() {
    let bench = bench(Limits { transfers: 18, ..Limits::default() }).await;
    std::fs::write(bench.dir.path().join("f"), [7; 5000]).unwrap();
    let server = SocketAddr::from(([127, 0, 0, 1], bench.port));
    let (mut slow, mut buffer) = (Vec::new(), [0; 1500]);
    for n in 0..18 {
        let one = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 2 + n % 6), 0)).await.unwrap();
        one.send_to(b"\0\x01f\0octet\0", server).await.unwrap();
        let (_, from) = one.recv_from(&mut buffer).await.unwrap();
        one.send_to(&[0, 4, 0, 1], from).await.unwrap();
        one.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..4], [0, 3, 0, 2]);
        slow.push(one);
    }
    assert_eq!(bench.server.open().len(), 18);
    let machine = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    machine.send_to(b"\0\x01f\0octet\0", server).await.unwrap();
    let (n, _) = machine.recv_from(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..4], [0, 3, 0, 1], "{}", String::from_utf8_lossy(&buffer[..n]));
    assert_eq!(bench.server.open().len(), 18);
}

#[tokio::test]
async fn many_transfers_keep_little_each() {
    let bench = bench(Limits::default()).await;
    assert_eq!(bench.server.limits_beside(0).window_bytes, Limits::default().window_bytes);
    assert_eq!(bench.server.limits_beside(FEW).window_bytes, SMALL);
    let content = Content::Bytes(vec![1; 1 << 20].into());
    let mut reader = Reader::new(content, Terms { block_size: 512, window: 4 }, SMALL);
    for (is_trusted, want) in [(false, 2048), (true, SMALL as usize)] {
        (reader.is_trusted, reader.piece) = (is_trusted, Bytes::new());
        assert_eq!(reader.block(0).await.unwrap().len(), 512);
        assert_eq!(reader.piece.len(), want);
    }
}
