//! Dragonfly with one store more: everything that `dragonfly` does, and `--backend sqlite`.

use std::process::ExitCode;

use anyhow::Context as _;
use async_trait::async_trait;
use dragonfly_server::backend::{Backend, Backends, Opened};
use dragonfly_server::config::Config;
use dragonfly_server::serve::Kit;
use sqlite_store::SqliteStore;

/// One file in the data directory: `dragonfly.sqlite`.
#[derive(Debug, Clone, Copy)]
struct Sqlite;

#[async_trait]
impl Backend for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    async fn open(&self, config: &Config) -> anyhow::Result<Opened> {
        let path = config.data.join("dragonfly.sqlite");
        let store = tokio::task::spawn_blocking(move || SqliteStore::open(path)).await?;
        Ok(Opened::new(store.context("the store cannot be opened")?))
    }
}

fn main() -> ExitCode {
    dragonfly_server::cli::main_with(Kit { backends: Backends::default().with(Sqlite), ..Kit::default() })
}
