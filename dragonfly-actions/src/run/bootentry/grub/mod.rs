//! `grub.cfg`: as much of GRUB's shell as decides what is booted. Conditions are judged, variables
//! filled, `grubenv` loaded; loops and functions are passed over, and so is every command that loads
//! nothing.

mod run;
mod tree;
mod words;

use std::collections::BTreeMap;

use super::{BootEntryError, Item, Menu};

/// Entries that come from beside the script (`blscfg`), for the variables set at that point.
pub(super) type Beside<'a> = dyn Fn(&BTreeMap<String, String>) -> Vec<Item> + 'a;

/// The menu of a script at `path` in `directory`; `environment` is the content of `grubenv`.
pub(super) fn read(
    path: &str,
    directory: &str,
    text: &str,
    environment: Option<&str>,
    bls: &Beside<'_>,
) -> Result<Menu, BootEntryError> {
    let syntax = |(line, problem)| BootEntryError::Syntax { path: path.to_owned(), line, problem };
    let statements = words::split(text).and_then(|tokens| tree::parse(&tokens)).map_err(syntax)?;
    Ok(run::run(&statements, directory, environment, bls))
}
