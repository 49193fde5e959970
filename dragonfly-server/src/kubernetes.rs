//! A Kubernetes cluster as the place where several servers keep their state, also one that runs Tinkerbell.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use dragonfly_core::clock::SystemClock;
use dragonfly_core::engine::Runner;
use dragonfly_core::store::KubernetesStore;
use dragonfly_core::store::kubernetes::tinkerbell::TinkerbellChecker;
use dragonfly_core::store::kubernetes::{ConnectOptions, SharedFiles};

use crate::auth::{Auth, KEY_FILE, TOKEN_FILE};
use crate::backend::{Backend, Opened};
use crate::config::Config;
use crate::{config, files, serve, tls};

/// The Secret with what all servers share.
const KEYS: &str = "dragonfly-keys";

/// What to do about a key in it that is none.
const MEND: &str = "put the right one back, from the data directory of a server that has it";

/// What servers on one cluster must have in common, so that each can answer every agent and browser: where it stands in
/// the data directory, and its name in the Secret.
const SHARED: [(&str, &str); 5] = [
    (TOKEN_FILE, "admin.token"),
    (KEY_FILE, "http.key"),
    (serve::SEALING_KEY, "sealing.key"),
    ("tls/key.pem", "tls.key"),
    ("tls/cert.pem", "tls.crt"),
];

/// Custom resources of a Kubernetes cluster.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kubernetes;

#[async_trait]
impl Backend for Kubernetes {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn open(&self, config: &Config) -> anyhow::Result<Opened> {
        let options = ConnectOptions { namespace: config.namespace.clone(), ..ConnectOptions::default() };
        let store = KubernetesStore::connect(options).await?;
        tracing::info!(server = store.server(), namespace = store.namespace(), "state is kept in a Kubernetes cluster");
        store.wait().await?;
        share(&store, config).await?;
        let leases = Arc::new(store.leases());
        Ok(Opened::new(store).with_leases(leases))
    }
}

/// A Kubernetes cluster that runs Tinkerbell: its machines, templates and workflows, carried out by its controllers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tinkerbell;

#[async_trait]
impl Backend for Tinkerbell {
    fn name(&self) -> &'static str {
        config::TINKERBELL
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn open(&self, config: &Config) -> anyhow::Result<Opened> {
        let namespace = config.namespace.clone();
        let store =
            KubernetesStore::connect(ConnectOptions { namespace, tinkerbell: true, ..ConnectOptions::default() })
                .await?;
        tracing::info!(
            server = store.server(),
            namespace = store.namespace(),
            "Hardware, Templates and Workflows are Tinkerbell's; it boots machines and carries workflows out, and no boot \
             services of this server answer"
        );
        store.check().await?;
        share(&store, config).await?;
        let leases = Arc::new(store.leases());
        Ok(Opened::new(store).with_leases(leases).with_runner(Runner::Tinkerbell, Arc::new(TinkerbellChecker)))
    }
}

/// Makes the shared files in the data directory be those of the cluster.
async fn share(store: &KubernetesStore, config: &Config) -> anyhow::Result<()> {
    let data = &config.data;
    // What is not here yet is made here: whether it counts is known when the cluster has answered.
    let mine: Vec<bool> = SHARED.iter().map(|(file, _)| !data.join(file).exists()).collect();
    Auth::open(data, std::sync::Arc::new(SystemClock))?;
    serve::sealing_key(&data.join(serve::SEALING_KEY))?;
    let hostname = serve::hostname();
    tls::server(&data.join("tls"), &tls::certificate_names(hostname.as_deref(), config.host, &config.names))?;
    let mut ours = SharedFiles::new();
    for (file, name) in SHARED {
        let path = data.join(file);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        ours.insert(name.to_owned(), bytes.into());
    }
    let theirs = store.share(KEYS, &ours).await.context("the keys that all servers share cannot be had")?;
    for ((file, name), made_now) in SHARED.iter().zip(mine) {
        let (Some(ours), Some(theirs)) = (ours.get(*name), theirs.get(*name)) else { continue };
        if matches!(*file, KEY_FILE | serve::SEALING_KEY) {
            // Before it takes the place of one that is good.
            files::check_key(theirs)
                .map_err(|what| anyhow::anyhow!("`{name}` of the Secret {KEYS} cannot be used: {what}; {MEND}"))?;
        }
        if ours != theirs {
            let path = data.join(file);
            replace(&path, theirs, !made_now).with_context(|| format!("cannot replace {}", path.display()))?;
        }
    }
    Ok(())
}

/// Puts other content into a file; what was in it, if it is to be kept, goes to a file beside it.
fn replace(path: &Path, bytes: &[u8], keep: bool) -> io::Result<()> {
    if keep {
        let kept = beside(path);
        fs::hard_link(path, &kept)?;
        tracing::warn!(
            "{} is not what the servers of this cluster share: it is now {}",
            path.display(),
            kept.display()
        );
    }
    files::replace(path, |mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    })
}

/// A name beside this one that nobody has.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let taken = |path: &PathBuf| path.exists();
    let mut names = (1u32..).map(|n| path.with_file_name(format!("{name}.before-{n}")));
    names.find(|path| !taken(path)).unwrap_or_else(|| path.with_file_name(format!("{name}.before")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_that_was_there_is_kept_and_one_that_was_just_made_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sealing.key");
        fs::write(&path, "mine").unwrap();
        replace(&path, b"theirs", true).unwrap();
        replace(&path, b"others", true).unwrap();
        replace(&path, b"last", false).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("sealing.key"), "last");
        assert_eq!((read("sealing.key.before-1").as_str(), read("sealing.key.before-2").as_str()), ("mine", "theirs"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "no draft is left behind");
    }
}
