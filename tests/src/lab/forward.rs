//! The server's web pages on the host's loopback: each connection is carried into the namespace.

use std::io::Write as _;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context as _, Result};

use super::namespace::Door;

/// Serves until the process ends.
pub(crate) fn start(port: u16, door: Door, server: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("cannot listen on 127.0.0.1:{port}; choose another port with --port"))?;
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(inside) = door.connect(server) else { continue };
            if let (Ok(client_too), Ok(inside_too)) = (client.try_clone(), inside.try_clone()) {
                std::thread::spawn(move || carry(client, inside));
                std::thread::spawn(move || carry(inside_too, client_too));
            }
        }
    });
    Ok(())
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.flush();
    let _ = to.shutdown(Shutdown::Write);
}
