//! Objects that come from another store with what was known of them. Whatever they were allowed there is void here,
//! as in a store that was put back from a backup.

use serde_json::Value;

use super::resources::{Applied, Change};
use super::restore::{Past, hold, hold_run};
use super::write::{Expect, Write};
use super::{Engine, EngineError, Result};
use crate::action::Problem;
use crate::resource::{Hardware, HardwareSpec, Kind, Metadata, Record, Workflow, WorkflowSpec};
use crate::store::{Key, StoreError};

/// What came of one object.
#[derive(Debug, Clone)]
pub struct Imported {
    /// As it now is, and whether it is new.
    pub applied: Applied,
    /// A machine or workflow that was at work: it does nothing until a person has looked.
    pub held: bool,
}

impl Engine {
    /// Takes an object that another store wrote out, and its status with it. One that is here already stays as it
    /// is: the same one is no error, so that an import that broke off is given again as a whole.
    ///
    /// # Errors
    /// `Manifest` and `Invalid` for what cannot be read; `Store(AlreadyExists)` for another object of its name.
    pub async fn import_object(&self, mut object: Value, write: Write<'_>) -> Result<Imported> {
        let given = object.get_mut("status").map(Value::take).unwrap_or_default();
        let mut record = self.checked_again(object)?;
        let Metadata { name, labels, annotations, finalizers, .. } = record.metadata;
        record.metadata = Metadata { name, labels, annotations, finalizers, ..Metadata::default() };
        record.status = given;
        let (status, held) = self.voided(&record)?;
        record.status = Value::Null;

        let key = Key::new(record.kind, record.metadata.name.clone());
        let is_bare = match self.inner.store.get(&key).await? {
            None => {
                let made = self.write_one(record, Expect::Absent, write).await?;
                if write.dry_run {
                    return Ok(Imported { applied: made, held });
                }
                true
            }
            Some(old) if !self.same(&old, &record) => return Err(StoreError::AlreadyExists { key }.into()),
            // What an import that broke off before the status has left.
            Some(old) => old.status.as_object().is_none_or(serde_json::Map::is_empty),
        };
        let change = if is_bare { Change::Created } else { Change::Unchanged };
        if is_bare && !write.dry_run {
            match status {
                Status::Machine(machine) => {
                    self.change_status::<HardwareSpec, _>(&key.name, |m| {
                        m.status = machine.status.clone();
                        Ok(())
                    })
                    .await?;
                }
                Status::Run(run) => {
                    self.change_status::<WorkflowSpec, _>(&key.name, |w| {
                        w.status = run.status.clone();
                        Ok(())
                    })
                    .await?;
                }
                Status::None => {}
            }
        }
        let record = self.get(key.kind, &key.name).await?;
        Ok(Imported { applied: Applied { record, change }, held: held && is_bare })
    }

    /// What may be kept of a status that another store wrote, and whether anything was at work.
    fn voided(&self, record: &Record) -> Result<(Status, bool)> {
        let unreadable = |error: crate::resource::DecodeError| {
            EngineError::Invalid(vec![Problem { path: error.path.clone(), problem: error.source.to_string() }])
        };
        let now = self.now();
        match record.kind {
            Kind::HARDWARE => {
                let mut machine: Hardware = record.decode().map_err(unreadable)?;
                // Its agent's session is with the other server.
                machine.status.session = None;
                let held = hold(&mut machine.status, Past::Export, now)?;
                Ok((Status::Machine(Box::new(machine)), held))
            }
            Kind::WORKFLOW => {
                let mut run: Workflow = record.decode().map_err(unreadable)?;
                let held = hold_run(&mut run.status, Past::Export)?;
                Ok((Status::Run(Box::new(run)), held))
            }
            // Nothing of another server's is worth keeping: ours says what it sees itself.
            _ => Ok((Status::None, false)),
        }
    }
}

enum Status {
    Machine(Box<Hardware>),
    Run(Box<Workflow>),
    None,
}
