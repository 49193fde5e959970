//! The directory behind `/images`, as the engine asks for it: links that a machine can fetch, and what is not there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use dragonfly_boot::BootFiles;
use dragonfly_boot::files::FileError;
use dragonfly_core::engine::ImageLinks;
use dragonfly_core::near::did_you_mean;
use url::Url;

use crate::auth::Auth;

/// How many names of a directory are looked at for one that was perhaps meant.
const NAMES: usize = 1000;

/// Signed links to the images of a directory.
#[derive(Debug)]
pub struct Images {
    auth: Arc<Auth>,
    files: Arc<BootFiles>,
    directory: PathBuf,
}

impl Images {
    /// The images of this directory, with links that `auth` signs.
    pub fn new(auth: Arc<Auth>, directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        Self { auth, files: Arc::new(BootFiles::new(&directory)), directory }
    }

    /// The files themselves.
    pub fn files(&self) -> Arc<BootFiles> {
        Arc::clone(&self.files)
    }
}

#[async_trait]
impl ImageLinks for Images {
    fn link(&self, server: &Url, path: &str) -> String {
        self.auth.link(server, path)
    }

    async fn missing(&self, path: &str) -> Option<String> {
        let name = path.strip_prefix("/images/")?.split(['?', '#']).next()?.to_owned();
        // What is escaped is for whoever fetches it to read.
        if name.contains('%') {
            return None;
        }
        let (files, directory) = (self.files(), self.directory.clone());
        let looked = tokio::task::spawn_blocking(move || look(&files, &directory, &name)).await;
        // A look that failed says nothing about the image.
        looked.unwrap_or_default()
    }
}

fn look(files: &BootFiles, directory: &Path, name: &str) -> Option<String> {
    let error = files.open(name).err()?;
    let place = directory.join(name);
    Some(match error {
        FileError::NotFound { .. } => {
            let question = did_you_mean(name, names(directory).iter().map(String::as_str));
            let question = question.map(|q| format!(" ({q})")).unwrap_or_default();
            format!("the image is not on the server: put it at {}, then try again{question}", place.display())
        }
        FileError::BadName { .. } => format!("`{name}` is not the name of a file below {}", directory.display()),
        error => format!("{error}: the server may not read {}; mend its owner or mode", place.display()),
    })
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().take(NAMES);
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dragonfly_core::clock::SystemClock;

    #[tokio::test]
    async fn says_what_is_not_there_and_where_it_goes() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("debian.raw.zst"), b"x").unwrap();
        std::fs::create_dir(dir.path().join("old")).unwrap();
        std::fs::write(dir.path().join("old/small.raw"), b"x").unwrap();
        let auth = Arc::new(Auth::new(b"token", b"key", Arc::new(SystemClock)));
        let images = Images::new(auth, dir.path());
        for there in ["/images/debian.raw.zst", "/images/old/small.raw", "/images/a%20b.raw", "/elsewhere"] {
            assert_eq!(images.missing(there).await, None, "{there}");
        }
        let said = images.missing("/images/debain.raw.zst").await.unwrap();
        let place = dir.path().join("debain.raw.zst").display().to_string();
        assert!(said.contains(&place) && said.contains("did you mean `debian.raw.zst`?"), "{said}");
        for bad in ["/images/../admin.token", "/images/", "/images/.hidden"] {
            let said = images.missing(bad).await.unwrap();
            assert!(said.contains("is not the name of a file"), "{bad}: {said}");
        }
    }
}
