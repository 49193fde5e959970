//! The store over Kubernetes, on a cluster that is there or on one that is started for the time.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use dragonfly_core::resource::{Kind, schema};
use dragonfly_core::store::kubernetes::ConnectOptions;
use dragonfly_core::store::{KubernetesStore, Selector, Store};
use serde_json::Value;

use super::apiserver::ApiServer;
use super::args::Bench;

pub(crate) const WHO: &str = "kubernetes";
/// Writers at once that fill it: an API server lets 200 changes in at a time unless told.
pub(crate) const WRITERS: usize = 64;
/// How long one answer or a definition may take on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where the API server is.
#[derive(Debug)]
pub(crate) struct Cluster {
    kubeconfig: PathBuf,
    version: String,
    own: Option<ApiServer>,
}

/// Objects of one size, under a definition of their own.
#[derive(Debug)]
pub(crate) struct Objects {
    store: KubernetesStore,
    definition: Value,
}

impl Cluster {
    /// The one that is asked for, if one is.
    pub(crate) async fn of(args: &Bench) -> Result<Option<Self>> {
        if let Some(kubeconfig) = args.kubernetes.clone() {
            let version = "as it is there".to_owned();
            return Ok(Some(Self { kubeconfig, version, own: None }));
        }
        let Some(program) = args.kube_apiserver.clone() else { return Ok(None) };
        let version = Command::new(&program).arg("--version").output();
        let version = version.with_context(|| program.display().to_string())?;
        let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
        let own = tokio::task::spawn_blocking(move || ApiServer::start(&program)).await??;
        Ok(Some(Self { kubeconfig: own.kubeconfig(), version, own: Some(own) }))
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    pub(crate) fn what(&self) -> String {
        match &self.own {
            Some(own) => own.what(),
            None => format!("the API server of {}, as it is", self.kubeconfig.display()),
        }
    }

    pub(crate) fn durability(&self) -> &'static str {
        match &self.own {
            Some(_) => "one etcd, as it is by itself: its log is synced before a write is answered",
            None => "what that cluster's etcd promises",
        }
    }

    /// A place for this many machines, empty.
    pub(crate) async fn objects(&self, machines: usize) -> Result<Objects> {
        let group = format!("bench-{machines}-{}.dragonfly.computer", std::process::id());
        let definition = schema::crd(Kind::HARDWARE, &group);
        let kubeconfig = Some(self.kubeconfig.clone());
        let options = ConnectOptions { kubeconfig, group, timeout: PATIENCE, ..ConnectOptions::default() };
        let store = KubernetesStore::connect(options).await?;
        store.apply(&definition).await?;
        store.established(&definition, PATIENCE).await?;
        // It is established a moment before it is served.
        let served = async {
            while store.list(Kind::HARDWARE, &Selector::all(), 1, None).await.is_err() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(PATIENCE, served).await.context("a definition is established and not served")?;
        Ok(Objects { store, definition })
    }
}

impl Objects {
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
    }

    /// Leaves nothing of them in the cluster.
    pub(crate) async fn remove(&self) -> Result<()> {
        Ok(self.store.remove(&self.definition).await?)
    }
}
