//! Where the cluster is, and who we are there.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};

use super::{Inner, KubernetesStore, NAME};
use crate::resource::GROUP;
use crate::store::{Result, StoreError};

/// Which cluster, and what of it.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// The kubeconfig file. Without: what `KUBECONFIG` names, else `~/.kube/config`, else the service account of the
    /// pod that this runs in.
    pub kubeconfig: Option<PathBuf>,
    /// A context of that file other than its current one.
    pub context: Option<String>,
    /// The namespace that Secrets are in.
    pub namespace: String,
    /// The API group of the custom resources: another one for tests only.
    pub group: String,
    /// Whether Hardware, Template and Workflow are those of Tinkerbell, in [`namespace`](Self::namespace).
    #[cfg(feature = "tinkerbell")]
    pub tinkerbell: bool,
    /// How long the API server may take for an answer. Watches last longer.
    pub timeout: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            context: None,
            namespace: "dragonfly".to_owned(),
            group: GROUP.to_owned(),
            #[cfg(feature = "tinkerbell")]
            tinkerbell: false,
            timeout: Duration::from_secs(15),
        }
    }
}

pub(super) async fn connect(options: ConnectOptions) -> Result<KubernetesStore> {
    let mut config = config(&options).await?;
    // Every request has a limit of its own, and what failed is told rather than tried in silence.
    // Shorter than the limit, so that what does not even connect is told so.
    config.connect_timeout = Some(options.timeout.mul_f64(0.6));
    config.default_retry = false;
    let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    if config.accept_invalid_certs {
        tracing::warn!(server, "insecure-skip-tls-verify: whoever answers is taken for the API server");
    }
    let client = kube::Client::try_from(config)
        .map_err(|source| unavailable(format!("the credentials for {server} cannot be used: {source}")))?;
    #[cfg(feature = "tinkerbell")]
    let agents = options.tinkerbell.then(super::tinkerbell::Agents::default);
    let ConnectOptions { namespace, group, timeout, .. } = options;
    Ok(KubernetesStore(Arc::new(Inner {
        client,
        server,
        group,
        namespace,
        timeout,
        spared: Mutex::default(),
        #[cfg(feature = "tinkerbell")]
        agents,
    })))
}

async fn config(options: &ConnectOptions) -> Result<kube::Config> {
    let choice = KubeConfigOptions { context: options.context.clone(), ..KubeConfigOptions::default() };
    if let Some(path) = &options.kubeconfig {
        let place = path.display();
        let file = Kubeconfig::read_from(path)
            .map_err(|e| unavailable(format!("the kubeconfig {place} cannot be read: {e}")))?;
        let config = kube::Config::from_custom_kubeconfig(file, &choice).await;
        return config.map_err(|e| unavailable(format!("the kubeconfig {place} is of no use: {e}")));
    }
    let outside = match kube::Config::from_kubeconfig(&choice).await {
        Ok(config) => return Ok(config),
        // Whoever names a file or a context means it.
        Err(error) if options.context.is_some() || std::env::var_os("KUBECONFIG").is_some() => {
            return Err(unavailable(format!("the kubeconfig is of no use: {error}")));
        }
        Err(error) => error,
    };
    kube::Config::incluster().map_err(|inside| {
        let what = format!(
            "no cluster is known: set KUBECONFIG, or write ~/.kube/config ({outside}), or run in a pod ({inside})"
        );
        unavailable(what)
    })
}

/// The words of kube's errors hold those of their causes.
fn unavailable(what: String) -> StoreError {
    StoreError::Unavailable { store: NAME, what, source: None }
}

/// The words of the last cause, which those before it mostly repeat.
pub(super) fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let last = std::iter::successors(Some(error), |error| error.source()).last();
    last.unwrap_or(error).to_string()
}
