//! The texts that `-f` names: files, directories, standard input.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::output;

/// How many of a directory's other files are named.
const NAMED: usize = 5;

/// The texts of files, of `-`, and of the manifests in directories, with their names. What lies in a directory and is not
/// taken is told on standard error.
pub(super) fn read(files: &[PathBuf]) -> anyhow::Result<Vec<(String, String)>> {
    let mut texts = Vec::new();
    for file in files {
        if file == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
            texts.push(("standard input".to_owned(), text));
        } else if file.is_dir() {
            let inside = std::fs::read_dir(file)
                .and_then(|dir| dir.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>())
                .with_context(|| format!("{} cannot be read", file.display()))?;
            let (taken, skipped) = sorted(inside);
            if !skipped.is_empty() {
                output::note(&told(file, &skipped));
            }
            if taken.is_empty() {
                bail!("{} holds no *.yaml, *.yml or *.json", file.display());
            }
            for path in taken {
                texts.push(read_one(&path)?);
            }
        } else {
            texts.push(read_one(file)?);
        }
    }
    Ok(texts)
}

/// What of a directory is read, and the names of the rest; both in order.
fn sorted(mut inside: Vec<PathBuf>) -> (Vec<PathBuf>, Vec<String>) {
    inside.sort();
    let is_manifest =
        |path: &PathBuf| path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json") && !path.is_dir();
    let (taken, rest): (Vec<_>, Vec<_>) = inside.into_iter().partition(is_manifest);
    let name = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() { format!("{name}/") } else { name }
    };
    (taken, rest.into_iter().map(name).collect())
}

fn told(directory: &Path, skipped: &[String]) -> String {
    let named = skipped.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = match skipped.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}: skipped, being no *.yaml, *.yml or *.json: {named}{more}", directory.display())
}

fn read_one(path: &Path) -> anyhow::Result<(String, String)> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    Ok((path.display().to_string(), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_gives_its_manifests_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.json", "c.txt"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        std::fs::create_dir(dir.path().join("old.yaml")).unwrap();
        let texts: Vec<String> = read(&[dir.path().into()]).unwrap().into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["a.json", "b.yaml"]);
        assert!(read(&[dir.path().join("none.yaml")]).unwrap_err().to_string().contains("none.yaml"));
    }

    #[test]
    fn what_is_skipped_is_named_briefly() {
        let (taken, skipped) = sorted(["d/b.yaml", "d/c.txt", "d/README", "d/a.yml"].map(PathBuf::from).into());
        assert_eq!(taken, ["d/a.yml", "d/b.yaml"].map(PathBuf::from));
        assert_eq!(skipped, ["README", "c.txt"]);
        let said = told(Path::new("d"), &skipped);
        assert_eq!(said, "d: skipped, being no *.yaml, *.yml or *.json: README, c.txt");
        let many: Vec<String> = (0..7).map(|n| n.to_string()).collect();
        assert!(told(Path::new("d"), &many).ends_with(": 0, 1, 2, 3, 4 and 2 more"));
    }
}
