//! The server's key and certificate, and trust by fingerprint on the client's side.
//!
//! Machines and the command line trust the SHA-256 of the server's public key
//! (SubjectPublicKeyInfo, RFC 5280 section 4.1), never a name or a date: the clock of a machine in
//! a rack is often wrong, and the certificate is our own.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use sha2::{Digest, Sha256};

use crate::files;

/// Why there is no key or certificate to serve with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("cannot read or create {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should, or the two do not belong together.
    #[error("{path} cannot be used; mend it, or delete cert.pem and key.pem to have new ones made")]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: dragonfly_core::Source,
    },
}

/// What the server speaks TLS with.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// For the listener.
    pub config: Arc<ServerConfig>,
    /// SHA-256 of the public key, 64 hex digits.
    pub pin: String,
}

/// Reads key and certificate from `dir`, or makes them at the first start. `names` go into a new
/// certificate, for browsers.
pub fn server(dir: &Path, names: &[String]) -> Result<ServerTls, TlsError> {
    let (key_path, cert_path) = (dir.join("key.pem"), dir.join("cert.pem"));
    let file = |path: &Path| {
        let path = path.to_owned();
        |source| TlsError::File { path, source }
    };
    let key_pem = files::read_or_create(&key_path, || {
        rcgen::KeyPair::generate().map(|key| key.serialize_pem().into_bytes()).map_err(io::Error::other)
    })
    .map_err(file(&key_path))?;
    let content = |path: &Path| {
        let path = path.to_owned();
        |source: dragonfly_core::Source| TlsError::Content { path, source }
    };
    // Before a certificate is made of it: it is this file that is to be mended.
    let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|e| content(&key_path)(e.into()))?;
    let cert_pem = files::read_or_create(&cert_path, || self_signed(&key_pem, names)).map_err(file(&cert_path))?;
    let chain = CertificateDer::pem_slice_iter(&cert_pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| content(&cert_path)(e.into()))?;
    let leaf = chain.first().ok_or_else(|| content(&cert_path)("it holds no certificate".into()))?;
    let pin = spki_sha256(leaf).map_err(|e| content(&cert_path)(e.into()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| content(&cert_path)(e.into()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| content(&cert_path)(e.into()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(ServerTls { config: Arc::new(config), pin })
}

fn self_signed(key_pem: &[u8], names: &[String]) -> io::Result<Vec<u8>> {
    let text = std::str::from_utf8(key_pem).map_err(io::Error::other)?;
    let key = rcgen::KeyPair::from_pem(text).map_err(io::Error::other)?;
    let mut params = rcgen::CertificateParams::new(names).map_err(io::Error::other)?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "Dragonfly");
    params.extended_key_usages.push(rcgen::ExtendedKeyUsagePurpose::ServerAuth);
    let cert = params.self_signed(&key).map_err(io::Error::other)?;
    Ok(cert.pem().into_bytes())
}

/// The names and addresses a new certificate is for.
pub fn certificate_names(hostname: Option<&str>, host: IpAddr, more: &[String]) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    names.extend(hostname.map(str::to_owned));
    if !host.is_unspecified() {
        names.push(host.to_string());
    }
    names.extend(more.iter().cloned());
    names.sort();
    names.dedup();
    names
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// SHA-256 of a certificate's public key, 64 hex digits.
pub fn spki_sha256(certificate: &CertificateDer<'_>) -> Result<String, rustls::Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    Ok(hex::encode(Sha256::digest(parsed.subject_public_key_info().as_ref())))
}

/// The pin of the server whose data directory this is, if it has a certificate that can be read.
pub fn pin_in(data: &Path) -> Option<String> {
    let pem = std::fs::read(data.join("tls/cert.pem")).ok()?;
    spki_sha256(&CertificateDer::from_pem_slice(&pem).ok()?).ok()
}

/// Whether a certificate is for this name or address.
pub fn is_for(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    let (Ok(parsed), Ok(name)) = (ParsedCertificate::try_from(certificate), ServerName::try_from(bare)) else {
        return false;
    };
    rustls::client::verify_server_name(&parsed, &name).is_ok()
}

/// A pin as typed by a person: 64 hex digits, with or without colons, in any case.
pub fn parse_pin(text: &str) -> Result<String, String> {
    let digits: String = text.chars().filter(|c| !matches!(c, ':' | ' ')).collect::<String>().to_ascii_lowercase();
    let digits = digits.strip_prefix("sha256").unwrap_or(&digits);
    if digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(digits.to_owned())
    } else {
        Err("a pin is the SHA-256 of the server's public key: 64 hex digits, as the server prints at its start"
            .to_owned())
    }
}

/// Trusts the one public key with this fingerprint; without one, trusts nobody and remembers whom
/// it saw.
#[derive(Debug)]
pub struct Pinned {
    pin: Option<String>,
    seen: Mutex<Option<String>>,
    chain: Mutex<Vec<CertificateDer<'static>>>,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    /// Trusts `pin` only.
    pub fn new(pin: Option<String>) -> Arc<Self> {
        Arc::new(Self { pin, seen: Mutex::default(), chain: Mutex::default(), provider: provider() })
    }

    /// The fingerprint that the server last showed.
    pub fn seen(&self) -> Option<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The certificates that the trusted server last showed, its own first.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For an HTTP client.
    pub fn client_config(self: &Arc<Self>) -> Result<ClientConfig, rustls::Error> {
        Ok(ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(self) as _)
            .with_no_client_auth())
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let seen = spki_sha256(certificate)?;
        let same = self.pin.as_deref() == Some(seen.as_str());
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        if same {
            let chain = std::iter::once(certificate).chain(others).map(|one| one.clone().into_owned()).collect();
            *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = chain;
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pin_outlives_restarts_and_new_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let names = certificate_names(Some("rack"), "10.0.0.1".parse().unwrap(), &[]);
        let first = server(dir.path(), &names).unwrap();
        assert_eq!(server(dir.path(), &names).unwrap().pin, first.pin);
        std::fs::remove_file(dir.path().join("cert.pem")).unwrap();
        assert_eq!(server(dir.path(), &names).unwrap().pin, first.pin, "the pin is the key's, not the certificate's");
        assert_eq!(parse_pin(&first.pin.to_uppercase()).unwrap(), first.pin);
    }

    #[test]
    fn a_certificate_says_whom_it_is_for() {
        let dir = tempfile::tempdir().unwrap();
        let names = certificate_names(Some("rack"), "10.0.0.1".parse().unwrap(), &[]);
        let made = server(&dir.path().join("tls"), &names).unwrap();
        let pem = std::fs::read(dir.path().join("tls/cert.pem")).unwrap();
        let certificate = CertificateDer::from_pem_slice(&pem).unwrap();
        for (name, want) in [
            ("rack", true),
            ("10.0.0.1", true),
            ("[::1]", true),
            ("localhost", true),
            ("10.0.0.2", false),
            ("x y", false),
        ] {
            assert_eq!(is_for(&certificate, name), want, "{name}");
        }
        assert_eq!(pin_in(dir.path()), Some(made.pin));
        assert_eq!(pin_in(&dir.path().join("elsewhere")), None);
    }

    #[test]
    fn a_broken_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("key.pem"), "nonsense").unwrap();
        let error = server(dir.path(), &["localhost".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("pem"), "{error}");
        for (file, content) in [("key.pem", ""), ("key.pem", "nonsense"), ("cert.pem", ""), ("cert.pem", "nonsense")] {
            for beside in [true, false] {
                let dir = tempfile::tempdir().unwrap();
                if beside {
                    server(dir.path(), &["localhost".to_owned()]).unwrap();
                }
                std::fs::write(dir.path().join(file), content).unwrap();
                let said = server(dir.path(), &["localhost".to_owned()]).unwrap_err().to_string();
                let path = dir.path().join(file);
                assert!(said.starts_with(&format!("{} cannot be used", path.display())), "{said}");
                assert_eq!(std::fs::read_to_string(path).unwrap(), content);
            }
        }
    }

    #[test]
    fn a_pin_has_64_digits() {
        assert!(parse_pin("ab:cd").is_err());
        assert!(parse_pin(&"g".repeat(64)).is_err());
        assert!(parse_pin(&"AB:".repeat(32)).is_ok());
    }
}
