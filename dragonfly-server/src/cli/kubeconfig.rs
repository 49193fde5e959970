//! `kubeconfig`: what Kubernetes' clients need to use a server.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dragonfly_core::secret::SecretString;
use rustls::pki_types::CertificateDer;
use serde_json::json;
use url::Url;

use super::client::{Client, Target};
use super::output::{self, Out};
use crate::files;
use crate::tls;
use crate::yaml::to_yaml;

/// A name that is in every certificate that a server makes for itself.
const ALWAYS: &str = "localhost";

pub(super) async fn kubeconfig(target: Target, out: &Out, file: Option<&Path>) -> anyhow::Result<()> {
    let server = secure(&target.server)?;
    let pin = target.pin.or_else(|| tls::pin_in(&target.data));
    let client = Client::new(Target { server: server.clone(), pin, data: target.data })?;
    // Shows that the address, the certificate and the token are right before any of them is written down.
    client.get(&["version"], &[]).await?;
    let text = written(&server, &client.chain(), client.token()?)?;
    let Some(file) = file else { return Ok(out.raw(&text)?) };
    let beside = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Made for its owner alone, before anything stands in it.
    let mut draft =
        tempfile::NamedTempFile::new_in(beside).with_context(|| format!("{} cannot be written", file.display()))?;
    draft.write_all(text.as_bytes()).with_context(|| format!("{} cannot be written", file.display()))?;
    draft.as_file().sync_all().with_context(|| format!("{} did not reach the disk", file.display()))?;
    draft.persist(file).with_context(|| format!("{} cannot be made", file.display()))?;
    files::sync_directory(file)?;
    output::note("the admin token stands in it: whoever reads the file may do anything");
    Ok(out.line(&format!("{}  {server}", file.display()))?)
}

/// The same place over TLS, on the same port, without a path.
fn secure(server: &Url) -> anyhow::Result<Url> {
    let host = server.host_str().with_context(|| format!("--server {server}: write https://HOST:3000"))?;
    let port = server.port().unwrap_or(if server.scheme() == "https" { 443 } else { 80 });
    Url::parse(&format!("https://{host}:{port}")).with_context(|| format!("--server {server}"))
}

fn written(server: &Url, chain: &[CertificateDer<'static>], token: &SecretString) -> anyhow::Result<String> {
    let Some(leaf) = chain.first() else { bail!("{server} showed no certificate") };
    let host = server.host_str().unwrap_or_default();
    let mut cluster = json!({ "server": server.as_str().trim_end_matches('/') });
    cluster["certificate-authority-data"] = BASE64.encode(pem(chain)).into();
    if !tls::is_for(leaf, host) {
        if !tls::is_for(leaf, ALWAYS) {
            bail!(
                "the certificate of {server} is for another name than {host}: name it with --server as it calls itself"
            );
        }
        cluster["tls-server-name"] = ALWAYS.into();
    }
    let name = "dragonfly";
    Ok(to_yaml(&json!({
        "apiVersion": "v1", "kind": "Config", "current-context": name,
        "clusters": [{ "name": name, "cluster": cluster }],
        "users": [{ "name": name, "user": { "token": token.reveal() } }],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": name } }],
    })))
}

fn pem(chain: &[CertificateDer<'static>]) -> String {
    let one = |certificate: &CertificateDer<'static>| {
        let text = BASE64.encode(certificate);
        let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned());
        let body = lines.collect::<Vec<_>>().join("\n");
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    };
    chain.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn names_what_the_certificate_is_for() {
        let dir = tempfile::tempdir().unwrap();
        tls::server(dir.path(), &["localhost".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        let pem_file = std::fs::read(dir.path().join("cert.pem")).unwrap();
        let chain = [CertificateDer::from_pem_slice(&pem_file).unwrap()];
        assert_eq!(CertificateDer::from_pem_slice(pem(&chain).as_bytes()).unwrap(), chain[0]);
        let token = SecretString::from("t0ken".to_owned());
        let text = |url: &str| written(&secure(&url.parse().unwrap()).unwrap(), &chain, &token).unwrap();
        assert!(
            text("http://10.0.0.1:3000").contains("server: \"https://10.0.0.1:3000\"\n"),
            "{}",
            text("http://10.0.0.1:3000")
        );
        assert!(!text("https://10.0.0.1:3000/").contains("tls-server-name"));
        assert!(text("https://10.0.0.2:3000").contains("tls-server-name: localhost"));
        assert!(text("https://10.0.0.2:3000").contains("t0ken"));
        std::fs::remove_file(dir.path().join("cert.pem")).unwrap();
        tls::server(dir.path(), &["rack".to_owned()]).unwrap();
        let other = [CertificateDer::from_pem_slice(&std::fs::read(dir.path().join("cert.pem")).unwrap()).unwrap()];
        assert!(written(&"https://10.0.0.2".parse().unwrap(), &other, &token).is_err());
    }
}
