//! Which objects have a label: a list by label reads them and no others.
//!
//! The index is written in the same commit as the objects. It notes up to which version it is complete: a file that
//! another version of this program wrote to, or a restored backup, gets it anew when it is opened, and until then
//! lists read every object.

use std::collections::BTreeMap;

use redb::{ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError, WriteTransaction};

use super::super::{Result, Selector, StoreError, rules};
use super::file::{File, META, Objects, VERSION, careful, table_name};
use crate::resource::Kind;

type Labels = BTreeMap<String, String>;

/// Kind, key, value, name.
type Row = (&'static str, &'static str, &'static str, &'static str);

/// Every label of every object.
const LABELS: TableDefinition<'static, Row, ()> = TableDefinition::new("labels");
/// The version up to which they are here.
const LABELLED: &str = "labelled";

/// The index within a group of writes.
pub(super) struct Index<'a>(Table<'a, Row, ()>);

impl<'a> Index<'a> {
    /// The index, if it is complete at this version: else it is left as it is, to be made anew.
    pub(super) fn open(
        tx: &'a WriteTransaction,
        meta: &impl ReadableTable<&'static str, u64>,
        version: u64,
    ) -> Result<Option<Self>, redb::Error> {
        let complete = meta.get(LABELLED)?.is_some_and(|row| row.value() == version);
        complete.then(|| Ok(Self(tx.open_table(LABELS)?))).transpose()
    }

    /// An object had those labels and has these.
    pub(super) fn changed(
        &mut self,
        kind: Kind,
        name: &str,
        before: &Labels,
        now: &Labels,
    ) -> Result<(), redb::StorageError> {
        for (key, value) in before.iter().filter(|(key, value)| now.get(*key) != Some(value)) {
            self.0.remove((kind.plural, key.as_str(), value.as_str(), name))?;
        }
        for (key, value) in now.iter().filter(|(key, value)| before.get(*key) != Some(value)) {
            self.0.insert((kind.plural, key.as_str(), value.as_str(), name), ())?;
        }
        Ok(())
    }
}

/// It is complete up to this version.
pub(super) fn complete(meta: &mut Table<'_, &'static str, u64>, version: u64) -> Result<(), redb::StorageError> {
    meta.insert(LABELLED, version).map(drop)
}

/// Makes the index of a file that has none, or an old one.
pub(super) fn ensure(file: &File) -> Result<()> {
    let database = file.database()?;
    let made = || -> Result<(), redb::Error> {
        let tx = database.begin_read()?;
        let (version, labelled) = versions(&tx)?;
        if labelled == Some(version) {
            return Ok(());
        }
        let write = database.begin_write()?;
        write.delete_table(LABELS)?;
        {
            let mut index = Index(write.open_table(LABELS)?);
            for kind in Kind::ALL {
                let objects = match tx.open_table(Objects::new(&table_name(kind))) {
                    Ok(objects) => objects,
                    Err(TableError::TableDoesNotExist(_)) => continue,
                    Err(error) => return Err(error.into()),
                };
                for row in objects.iter()? {
                    let (name, json) = row?;
                    // What cannot be read has no labels that anybody could mean.
                    if let Some(labels) = rules::labels(json.value()) {
                        index.changed(kind, name.value(), &Labels::new(), &labels)?;
                    }
                }
            }
            complete(&mut write.open_table(META)?, version)?;
        }
        Ok(write.commit()?)
    };
    careful(made).map_err(|error| file.failed(error))
}

/// The version of a file, and that of its index.
fn versions(tx: &ReadTransaction) -> Result<(u64, Option<u64>), redb::Error> {
    let meta = tx.open_table(META)?;
    let version = meta.get(VERSION)?.map_or(0, |row| row.value());
    Ok((version, meta.get(LABELLED)?.map(|row| row.value())))
}

/// Looks at the names of the objects with these labels, in order, those after `from`, until `look` has had enough:
/// `None` when there is no complete index or no label is asked for.
pub(super) fn look_up(
    tx: &ReadTransaction,
    kind: Kind,
    selector: &Selector,
    from: Option<&str>,
    mut look: impl FnMut(&str) -> Result<Result<bool, StoreError>, redb::Error>,
) -> Result<Option<Result<(), StoreError>>, redb::Error> {
    let mut wanted = selector.labels.iter();
    let Some((key, value)) = wanted.next() else { return Ok(None) };
    let (version, labelled) = versions(tx)?;
    if labelled != Some(version) {
        return Ok(None);
    }
    let index = tx.open_table(LABELS)?;
    for row in index.range((kind.plural, key.as_str(), value.as_str(), from.unwrap_or_default())..)? {
        let (row, ()) = row.map(|(row, _)| (row, ()))?;
        let (its_kind, its_key, its_value, name) = row.value();
        if (its_kind, its_key, its_value) != (kind.plural, key.as_str(), value.as_str()) {
            break;
        }
        let mut others = wanted.clone();
        let fits = from != Some(name)
            && others.try_fold(true, |fits, (key, value)| {
                Ok::<_, redb::Error>(fits && index.get((kind.plural, key.as_str(), value.as_str(), name))?.is_some())
            })?;
        if !fits {
            continue;
        }
        match look(name)? {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => return Ok(Some(Err(error))),
        }
    }
    Ok(Some(Ok(())))
}
