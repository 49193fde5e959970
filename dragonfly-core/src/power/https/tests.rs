//! The client against servers with certificates of their own.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

/// A server that answers a path with what is behind it here: status line and headers, then body.
struct Server {
    port: u16,
    pem: String,
    fingerprint: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `shown` is the certificate that it shows, `None` for its own; the key is always its own.
async fn server(name: &str, shown: Option<CertificateDer<'static>>, is_tls: bool) -> Server {
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
    let certificate = shown.unwrap_or_else(|| own.der().clone());
    let fingerprint = hex::encode(Sha256::digest(&certificate));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signer = provider.key_provider.load_private_key(der).unwrap();
    // A resolver of its own: the usual way refuses a key that is not the certificate's.
    let shown = Arc::new(rustls::sign::CertifiedKey::new(vec![certificate], signer));
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(shown)));
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        for number in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                match is_tls {
                    true => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            serve(stream, number).await;
                        }
                    }
                    false => serve(stream, number).await,
                }
            });
        }
    });
    Server { port, pem: own.pem(), fingerprint, task }
}

/// `number` is the connection's.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, number: u32) {
    let mut stream = BufReader::new(stream);
    let mut first = String::new();
    let mut line = String::new();
    while stream.read_line(&mut line).await.is_ok_and(|n| n > 2) {
        first = if first.is_empty() { std::mem::take(&mut line) } else { first };
        line.clear();
    }
    let path = first.split(' ').nth(1).unwrap_or_default();
    let long = "x".repeat(LONGEST_ANSWER + 1);
    let (head, body) = match path {
        "/moved" => ("302 Found\r\nLocation: /there", ""),
        "/away" => ("302 Found\r\nLocation: https://198.51.100.7/", ""),
        "/circle" => ("302 Found\r\nLocation: /circle", ""),
        "/long" => ("200 OK", &*long),
        "/broken" => return,
        "/flaky" if number.is_multiple_of(2) => return,
        "/silent" => std::future::pending().await,
        _ => ("200 OK", path),
    };
    let text = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn client(server: &Server, host: &str, trust: Trust, roots: &Roots) -> Https {
    let base = format!("{}://{host}:{}/", trust.scheme(), server.port).parse().unwrap();
    Https::new(base, &trust, roots, Duration::from_millis(1500)).unwrap()
}

async fn get(client: &Https, path: &str) -> Result<String> {
    let answer = client.send(&Request::new(Method::GET, path)).await?;
    Ok(String::from_utf8(answer.body).unwrap())
}

fn pin(server: &Server) -> Trust {
    Trust::parse(&format!("sha256:{}", server.fingerprint), &"x://y".parse().unwrap()).unwrap()
}

#[tokio::test]
async fn authorities_vouch_for_a_name() {
    let server = server("localhost", None, true).await;
    let roots = Roots::default().with_pem(&server.pem).unwrap();
    assert_eq!(get(&client(&server, "localhost", Trust::Roots, &roots), "/a").await.unwrap(), "/a");
    let by_address = get(&client(&server, "127.0.0.1", Trust::Roots, &roots), "/a").await.unwrap_err();
    let unknown = get(&client(&server, "localhost", Trust::Roots, &Roots::default()), "/a").await.unwrap_err();
    for (error, why) in [(by_address, "127.0.0.1"), (unknown, "no certificate authority")] {
        let text = error.to_string();
        assert!(matches!(error, PowerError::NotTrusted { .. }), "{text}");
        assert!(text.contains(why), "{text}");
        assert!(text.contains(&format!("?tls=sha256:{}", server.fingerprint)), "{text}");
    }
}

#[tokio::test]
async fn a_pin_is_one_certificate_and_its_key() {
    let server = server("somebody.else", None, true).await;
    let none = Roots::default();
    assert_eq!(get(&client(&server, "127.0.0.1", pin(&server), &none), "/a").await.unwrap(), "/a");
    let error = get(&client(&server, "127.0.0.1", Trust::Pinned([7; 32]), &none), "/a").await.unwrap_err();
    assert!(matches!(error, PowerError::NotTrusted { .. }), "{error}");
    assert!(error.to_string().contains(&server.fingerprint), "{error}");
    assert_eq!(get(&client(&server, "127.0.0.1", Trust::Insecure, &none), "/a").await.unwrap(), "/a");
}

#[tokio::test]
async fn a_certificate_without_its_key_proves_nothing() {
    let real = server("bmc", None, true).await;
    let certificate = CertificateDer::from_pem(&real.pem);
    let impostor = server("bmc", Some(certificate), true).await;
    assert_eq!(impostor.fingerprint, real.fingerprint);
    for trust in [pin(&real), Trust::Insecure] {
        let error = get(&client(&impostor, "127.0.0.1", trust, &Roots::default()), "/a").await.unwrap_err();
        let PowerError::Unreachable { source } = error else { panic!("{trust:?}: {error}") };
        assert!(words(&*source).contains("BadSignature"), "{trust:?}: {}", words(&*source));
    }
}

trait FromPem {
    fn from_pem(pem: &str) -> Self;
}

impl FromPem for CertificateDer<'static> {
    fn from_pem(pem: &str) -> Self {
        use rustls::pki_types::pem::PemObject as _;
        Self::from_pem_slice(pem.as_bytes()).unwrap()
    }
}

#[tokio::test]
async fn what_is_asked_stays_with_whom_it_was_asked_of() {
    let server = server("x", None, false).await;
    let client = client(&server, "127.0.0.1", Trust::Off, &Roots::default());
    assert_eq!(get(&client, "/moved").await.unwrap(), "/there");
    let post = client.send(&Request::new(Method::POST, "/moved")).await.unwrap();
    assert_eq!(post.status, StatusCode::FOUND, "a post is not sent twice");
    for (path, why) in [
        ("/away", "another host"),
        ("https://198.51.100.7/x", "another host"),
        ("//198.51.100.7/x", "another host"),
        ("/circle", "circle"),
        ("/long", "longer than 8 MiB"),
        ("/broken", "it broke off"),
    ] {
        let error = get(&client, path).await.unwrap_err();
        assert!(matches!(error, PowerError::Malformed { .. }), "{path}: {error:?}");
        assert!(error.to_string().contains(why), "{path}: {error}");
    }
    let late = get(&client, "/silent").await.unwrap_err();
    assert!(matches!(late, PowerError::TimedOut { .. }), "{late}");
    let gone = self::client(&server, "127.0.0.1", Trust::Off, &Roots::default());
    drop(server);
    tokio::task::yield_now().await;
    assert!(matches!(get(&gone, "/a").await.unwrap_err(), PowerError::Unreachable { .. }));
}

#[tokio::test]
async fn what_breaks_off_is_asked_again_only_if_it_may_be() {
    let server = server("x", None, false).await;
    let client = client(&server, "127.0.0.1", Trust::Off, &Roots::default());
    // The first connection breaks off, the second does not, the third does.
    assert_eq!(get(&client, "/flaky").await.unwrap(), "/flaky");
    let error = client.send(&Request::new(Method::POST, "/flaky")).await.unwrap_err();
    assert!(matches!(&error, PowerError::Malformed { reason } if reason.contains("it broke off")), "{error}");
}

#[test]
fn what_an_address_may_say_of_trust() {
    let address = "redfish://10.0.0.6".parse().unwrap();
    let parse = |text: &str| Trust::parse(text, &address);
    assert_eq!(parse("insecure").unwrap(), Trust::Insecure);
    assert_eq!(parse("off").unwrap(), Trust::Off);
    assert_eq!(parse(&format!("sha256:{}", "AB".repeat(32))).unwrap(), Trust::Pinned([0xab; 32]));
    assert_eq!(parse(&format!("sha256:{}", ["ab"; 32].join(":"))).unwrap(), Trust::Pinned([0xab; 32]));
    for (text, why) in [("on", "`tls=on` is not known"), ("sha256:ab", "64 hex digits"), ("sha1:ab", "is not known")] {
        assert!(parse(text).unwrap_err().to_string().contains(why), "{text}");
    }
    for (pem, why) in [("", "no certificate"), ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "1")]
    {
        let error = Roots::default().with_pem(pem).unwrap_err();
        assert!(matches!(&error, PowerError::InvalidRoots { reason } if reason.contains(why)), "{error}");
    }
}
