//! `partition`.

use dragonfly_core::action::{Action, ActionContext, ActionError, Resume, Unit};
use dragonfly_core::wire::FailureKind;
use uuid::Uuid;

use super::disk::OpenDisk;
use super::fail::{OrFailed, blocking};
use super::host::{Done, Host};
use crate::plan::{self, Check, Given, PartitionParams, Placed, Stage, TableKind, layout};
use crate::probe::WINDOW;
use crate::table::gpt::{Gpt, Piece};
use crate::table::mbr::Mbr;
use crate::table::{Partition, Table};

/// Writes a partition table.
#[derive(Debug, Clone)]
pub(crate) struct PartitionAction(pub(crate) Host);

impl Action for PartitionAction {
    const NAME: &'static str = plan::PARTITION;
    const RESUME: Resume = Resume::Verify;
    type Params = PartitionParams;

    fn check(&self, params: &PartitionParams) -> Vec<(String, String)> {
        let mut check = Check::new(Stage::Rendered);
        params.check(&mut check);
        check.into_problems()
    }

    async fn run(&self, params: PartitionParams, cx: &ActionContext) -> Result<(), ActionError> {
        let (host, cx) = (self.0.clone(), cx.clone());
        blocking(move || write(&host, &params, &cx)).await
    }

    async fn verify(&self, params: PartitionParams, cx: &ActionContext) -> Result<bool, ActionError> {
        let (host, cx) = (self.0.clone(), cx.clone());
        blocking(move || holds(&host, &params, &cx)).await
    }
}

/// The table that a disk of this size is to have.
fn wanted(
    params: &PartitionParams,
    size: u64,
    sector: u32,
    fresh: &mut dyn FnMut() -> Uuid,
) -> Result<Table, ActionError> {
    let bytes = u64::from(sector);
    let place = |first: u64, end: u64| {
        layout(&params.partitions, first, end).map_err(|problems| {
            let (path, problem) =
                problems.into_iter().next().unwrap_or_else(|| ("partitions".into(), "do not fit".into()));
            // Everything but the disk's size has been judged with the plan.
            ActionError::because(format!("`{}`: {path}: {problem}", plan::PARTITION)).of_kind(FailureKind::TooLarge)
        })
    };
    let partitions = |placed: Vec<Placed>, fresh: &mut dyn FnMut() -> Uuid| -> Vec<Partition> {
        let mbr = params.table == TableKind::Mbr;
        placed
            .iter()
            .zip(&params.partitions)
            .zip(1..)
            .map(|((placed, spec), number)| Partition {
                number,
                first_lba: placed.start / bytes,
                sectors: placed.length / bytes,
                name: if mbr { String::new() } else { spec.label.clone().unwrap_or_default() },
                type_guid: if mbr { Uuid::nil() } else { spec.partition_type().guid },
                uuid: match spec.uuid.as_ref().and_then(Given::known) {
                    _ if mbr => Uuid::nil(),
                    Some(uuid) => *uuid,
                    None => fresh(),
                },
                attributes: spec.attributes.iter().fold(0, |bits, attribute| bits | attribute.bit()),
                mbr_type: if mbr { spec.partition_type().mbr.unwrap_or(0x83) } else { 0 },
                active: mbr && spec.active,
            })
            .collect()
    };
    let fit = || format!("a disk of {size} bytes");
    Ok(match params.table {
        TableKind::Gpt => {
            let mut gpt = Gpt::new(fresh(), size, sector).or_failed(fit)?;
            gpt.partitions = partitions(place(gpt.first_usable * bytes, (gpt.last_usable + 1) * bytes)?, fresh);
            Table::Gpt(gpt)
        }
        TableKind::Mbr => {
            let end = size.min((1u64 << 32).saturating_mul(bytes) - bytes);
            // Never 0: that reads as "no signature".
            let signature = (fresh().as_u128() as u32) | 1;
            Table::Mbr(Mbr { signature, partitions: partitions(place(bytes, end)?, fresh) })
        }
    })
}

/// What has to be written for a table.
fn pieces(table: &Table, size: u64, sector: u32) -> Result<Vec<Piece>, ActionError> {
    match table {
        Table::Gpt(gpt) => gpt.encode(size, sector),
        Table::Mbr(mbr) => mbr.encode().map(|bytes| vec![Piece { offset: 440, bytes }]),
    }
    .or_failed(|| "no table was written")
}

fn write(host: &Host, params: &PartitionParams, cx: &ActionContext) -> Result<(), ActionError> {
    cx.check_cancelled()?;
    let chosen = host.choose(&params.disk)?;
    let mut disk = host.claim(&chosen, cx.permit())?;
    let table = wanted(params, disk.size, disk.sector, &mut Uuid::new_v4)?;
    let pieces = pieces(&table, disk.size, disk.sector)?;
    cx.log(format!("{}: writing a {} table with {} partitions", disk.name, table.name(), table.partitions().len()));
    // Last chance: from here on the old table is gone.
    cx.check_cancelled()?;
    disk.note(cx.permit(), Done::Partitioned);
    host.announce(&disk, &[])?;
    erase(&disk, 0, disk.size)?;
    disk.mark(cx.permit(), plan::PARTITION, false, "")?;
    disk.sync()?;
    let total = table.partitions().len() as u64;
    for (done, partition) in table.partitions().iter().enumerate() {
        cx.check_cancelled()?;
        // What lay there before must not be taken for its content.
        let bytes = u64::from(disk.sector);
        erase(&disk, partition.first_lba * bytes, partition.sectors * bytes)?;
        cx.progress(done as u64 + 1, Some(total), Unit::Items);
    }
    for piece in &pieces {
        disk.write_at(&piece.bytes, piece.offset)?;
        // Copy by copy, so that a power cut leaves at least one.
        disk.sync()?;
    }
    disk.mark(cx.permit(), plan::PARTITION, true, "")?;
    disk.sync()?;
    publish(host, &mut disk)?;
    Ok(())
}

/// Zeros the first and last MiB of a range.
fn erase(disk: &OpenDisk, start: u64, length: u64) -> Result<(), ActionError> {
    let part = length.min(WINDOW);
    disk.zero(start, part)?;
    disk.zero(start + length - part, part)
}

/// Makes the kernel see the partitions that are on the disk now, and waits for their nodes.
pub(crate) fn publish(host: &Host, disk: &mut OpenDisk) -> Result<(), ActionError> {
    let Some(table) = disk.table()? else { return Ok(()) };
    host.announce(disk, table.partitions())?;
    for partition in table.partitions().iter().filter(|p| !matches!(p.mbr_type, 0x05 | 0x0F | 0x85)) {
        host.partition_node(&disk.name, partition.number)?;
    }
    Ok(())
}

fn holds(host: &Host, params: &PartitionParams, cx: &ActionContext) -> Result<bool, ActionError> {
    let chosen = host.choose(&params.disk)?;
    let mut disk = host.open_disk(&chosen, false)?;
    if !host.is_ours(&mut disk, cx.permit()) {
        return Ok(false);
    }
    let wanted = wanted(params, disk.size, disk.sector, &mut Uuid::nil)?;
    let Ok(Some(there)) = disk.table() else { return Ok(false) };
    let same = there.name() == wanted.name()
        && there.partitions().len() == wanted.partitions().len()
        && there.partitions().iter().zip(wanted.partitions()).all(|(is, want)| {
            // Where no GUID was asked for, any is right.
            let uuid = if want.uuid.is_nil() { want.uuid } else { is.uuid };
            Partition { uuid, ..is.clone() } == *want
        });
    if same {
        disk.note(cx.permit(), Done::Partitioned);
        publish(host, &mut disk)?;
    }
    Ok(same)
}
