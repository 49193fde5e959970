//! Whom a connection may be made to.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use sha2::{Digest, Sha256};
use url::Url;

use crate::power::{PowerError, Result};

/// What an address' `tls` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Names and dates, by certificate authorities.
    Roots,
    /// The SHA-256 of the one certificate.
    Pinned([u8; 32]),
    /// Everybody.
    Insecure,
    /// No TLS.
    Off,
}

impl Trust {
    /// What the value of `tls` says. `address` is for the error alone.
    pub(crate) fn parse(value: &str, address: &Url) -> Result<Self> {
        let wrong = |reason: String| PowerError::InvalidAddress { address: address.to_string(), reason };
        match value.split_once(':') {
            Some(("sha256", digits)) => {
                // As openssl prints them.
                let digits = digits.replace(':', "");
                let mut pin = [0; 32];
                hex::decode_to_slice(&digits, &mut pin).map_err(|_| {
                    wrong(format!("`tls=sha256:` is followed by the 64 hex digits of a fingerprint, not by `{digits}`"))
                })?;
                Ok(Self::Pinned(pin))
            }
            None if value == "insecure" => Ok(Self::Insecure),
            None if value == "off" => Ok(Self::Off),
            _ => Err(wrong(format!("`tls={value}` is not known; there are sha256:FINGERPRINT, insecure and off"))),
        }
    }

    /// `https`, or `http`.
    pub(crate) fn scheme(self) -> &'static str {
        if self == Self::Off { "http" } else { "https" }
    }

    /// The port that goes without saying.
    pub(crate) fn default_port(self) -> u16 {
        if self == Self::Off { 80 } else { 443 }
    }

    pub(super) fn client_config(self, roots: &Roots) -> Result<ClientConfig, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let by_roots = match roots.0.is_empty() {
            true => None,
            false => {
                let builder = WebPkiServerVerifier::builder_with_provider(roots.0.clone(), provider.clone());
                Some(builder.build().map_err(|error| Error::General(error.to_string()))?)
            }
        };
        let verifier = Arc::new(Verifier { trust: self, by_roots, provider: provider.clone() });
        Ok(ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth())
    }
}

/// Certificate authorities that vouch for controllers; none at first.
#[derive(Debug, Clone)]
pub(crate) struct Roots(Arc<RootCertStore>);

impl Default for Roots {
    fn default() -> Self {
        Self(Arc::new(RootCertStore::empty()))
    }
}

impl Roots {
    /// Those in a PEM file's text, and those that were there.
    pub(crate) fn with_pem(self, pem: &str) -> Result<Self> {
        let wrong = |reason: String| PowerError::InvalidRoots { reason };
        let mut roots = Arc::unwrap_or_clone(self.0);
        let mut count = 0;
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            count += 1;
            let certificate = certificate.map_err(|error| wrong(format!("certificate {count}: {error}")))?;
            roots.add(certificate).map_err(|error| wrong(format!("certificate {count}: {error}")))?;
        }
        match count {
            0 => Err(wrong("there is no certificate in the PEM text".to_owned())),
            _ => Ok(Self(Arc::new(roots))),
        }
    }
}

/// A certificate that is not trusted.
#[derive(Debug, Clone)]
pub(super) struct Distrust {
    fingerprint: String,
    reason: String,
    is_pinned: bool,
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fingerprint, reason, is_pinned } = self;
        let how = if *is_pinned { "put" } else { "add" };
        write!(
            f,
            "{reason}; its certificate's SHA-256 is {fingerprint}. To trust it, {how} ?tls=sha256:{fingerprint} to the \
             address, once you know that it is the controller's"
        )
    }
}

impl std::error::Error for Distrust {}

/// The distrust that is behind an error, if that is why. An [`std::io::Error`] hides what it was made of from `source`.
pub(super) fn find<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Distrust> {
    if let Some(Error::InvalidCertificate(CertificateError::Other(other))) = error.downcast_ref::<Error>() {
        return other.0.downcast_ref::<Distrust>();
    }
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inside) => find(inside),
        None => error.source().and_then(find),
    }
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    by_roots: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let fingerprint = Sha256::digest(end_entity);
        let reason = match (self.trust, &self.by_roots) {
            (Trust::Insecure, _) => return Ok(ServerCertVerified::assertion()),
            (Trust::Pinned(pin), _) if fingerprint.as_slice() == pin => return Ok(ServerCertVerified::assertion()),
            (Trust::Pinned(_), _) => "it shows another certificate than the address names".to_owned(),
            // Nothing is asked of one that has no TLS.
            (Trust::Roots | Trust::Off, None) => "no certificate authority is known that could vouch for it".to_owned(),
            (Trust::Roots | Trust::Off, Some(roots)) => {
                match roots.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
                    Ok(verified) => return Ok(verified),
                    Err(error) => format!("its certificate does not stand up: {error}"),
                }
            }
        };
        let is_pinned = matches!(self.trust, Trust::Pinned(_));
        let distrust = Distrust { fingerprint: hex::encode(fingerprint), reason, is_pinned };
        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(distrust)))))
    }

    // Whoever shows a certificate proves here that it has the key to it, however it came to be trusted.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
