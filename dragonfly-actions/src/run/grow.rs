//! `grow`.

use dragonfly_core::action::{Action, ActionContext, ActionError, Resume};

use super::disk::OpenDisk;
use super::fail::{OrFailed, because, blocking};
use super::host::{Done, Host};
use super::mount::Mount;
use super::node::partition_name;
use super::partition::publish;
use super::place::Place;
use super::program::Program;
use crate::plan::{self, Check, GrowParams, Stage};
use crate::probe;
use crate::table::gpt::Piece;
use crate::table::{Partition, Table, le, read_at};

/// Grows a partition and its file system to the disk's end.
#[derive(Debug, Clone)]
pub(crate) struct GrowAction(pub(crate) Host);

impl Action for GrowAction {
    const NAME: &'static str = plan::GROW;
    const RESUME: Resume = Resume::Verify;
    type Params = GrowParams;

    fn check(&self, params: &GrowParams) -> Vec<(String, String)> {
        let mut check = Check::new(Stage::Rendered);
        params.check(&mut check);
        check.into_problems()
    }

    async fn run(&self, params: GrowParams, cx: &ActionContext) -> Result<(), ActionError> {
        let (host, cx) = (self.0.clone(), cx.clone());
        blocking(move || grow(&host, &params, &cx)).await
    }

    async fn verify(&self, params: GrowParams, cx: &ActionContext) -> Result<bool, ActionError> {
        let (host, cx) = (self.0.clone(), cx.clone());
        blocking(move || holds(&host, &params, &cx)).await
    }
}

/// A table with one partition grown, and which.
struct Grown {
    table: Table,
    number: u32,
}

/// Grows one partition of a table, the last unless told, for a disk of this size. Pure.
fn grown(table: &Table, wanted: Option<u32>, size: u64, sector: u32) -> Result<Grown, String> {
    let Some(last) = table.partitions().iter().max_by_key(|p| p.first_lba) else {
        return Err("there is no partition to grow".to_owned());
    };
    let number = wanted.unwrap_or(last.number);
    if number != last.number {
        return Err(format!(
            "partition {number} cannot grow: partition {} lies behind it; only the last can",
            last.number
        ));
    }
    let mut table = table.clone();
    let aligned = (1 << 20) / u64::from(sector);
    let (end, list) = match &mut table {
        Table::Gpt(gpt) => {
            gpt.fit(size, sector).map_err(|error| error.to_string())?;
            gpt.from_backup = false;
            (gpt.last_usable + 1, &mut gpt.partitions)
        }
        Table::Mbr(mbr) => {
            if matches!(last.mbr_type, 0x05 | 0x0F | 0x85) {
                return Err(format!("partition {number} is an extended one, which cannot be grown"));
            }
            ((size / u64::from(sector)).min(u64::from(u32::MAX)), &mut mbr.partitions)
        }
    };
    // On a boundary, but never smaller than it is.
    let end = (end / aligned * aligned).max(last.first_lba + last.sectors);
    if let Some(partition) = list.iter_mut().find(|p| p.number == number) {
        partition.sectors = end - partition.first_lba;
    }
    Ok(Grown { number, table })
}

fn grow(host: &Host, params: &GrowParams, cx: &ActionContext) -> Result<(), ActionError> {
    cx.check_cancelled()?;
    let (chosen, number) = chosen(host, params, cx)?;
    let mut disk = host.claim(&chosen, cx.permit())?;
    let Some(before) = disk.table()? else {
        return because(format!("{} has no partition table, so nothing on it can grow", disk.name));
    };
    let grown = grown(&before, number, disk.size, disk.sector)
        .map_err(|problem| ActionError::because(format!("{}: {problem}", disk.name)))?;
    disk.note(cx.permit(), Done::Written);
    if grown.table != before {
        cx.log(format!("{}: growing it to the disk's end", partition_name(&disk.name, grown.number)));
        let pieces = match &grown.table {
            Table::Gpt(gpt) => gpt.encode(disk.size, disk.sector),
            Table::Mbr(mbr) => mbr.encode().map(|bytes| vec![Piece { offset: 440, bytes }]),
        }
        .or_failed(|| format!("{}: its table cannot be grown", disk.name))?;
        for piece in &pieces {
            disk.write_at(&piece.bytes, piece.offset)?;
            disk.sync()?;
        }
    }
    publish(host, &mut disk)?;
    let place = place(&chosen, &grown, &mut disk)?;
    drop(disk);
    if params.partition_only {
        return Ok(());
    }
    cx.check_cancelled()?;
    file_system(host, &place, cx)
}

fn chosen(
    host: &Host,
    params: &GrowParams,
    cx: &ActionContext,
) -> Result<(dragonfly_core::inventory::Disk, Option<u32>), ActionError> {
    match &params.target {
        Some(target) => host.find(target, cx.permit()).map(|place| (place.disk, Some(place.partition.number))),
        None => Ok((host.choose_or_ours(params.disk.as_ref(), cx.permit())?, None)),
    }
}

fn place(chosen: &dragonfly_core::inventory::Disk, grown: &Grown, disk: &mut OpenDisk) -> Result<Place, ActionError> {
    let found = grown.table.partitions().iter().find(|p| p.number == grown.number);
    let Some(partition) = found.cloned() else {
        return because(format!("{}: partition {} went missing", disk.name, grown.number));
    };
    let Partition { first_lba, sectors, .. } = partition;
    let (start, length) = (first_lba * u64::from(disk.sector), sectors * u64::from(disk.sector));
    let holds =
        probe::file_system(&mut disk.file, start, length).or_failed(|| format!("{} could not be read", disk.name))?;
    Ok(Place { disk: chosen.clone(), partition, start, length, holds })
}

/// Grows what is in a partition to its size. Blocks.
fn file_system(host: &Host, place: &Place, cx: &ActionContext) -> Result<(), ActionError> {
    let name = place.name();
    let kind = place.holds.as_ref().map_or("", |s| s.kind);
    match kind {
        "ext2" | "ext3" | "ext4" => {
            let node = host.open_place(place)?;
            let check = Program::new(host, "e2fsck", "growing an ext4 file system")?;
            let resize = Program::new(host, "resize2fs", "growing an ext4 file system")?;
            // resize2fs insists on a full check. 0 is clean, 1 is mended (e2fsck(8)).
            let ended = check.args(["-f", "-p"]).arg(&node).run(cx)?;
            if !matches!(ended.code(), 0 | 1) {
                return Err(ended.failure("e2fsck"));
            }
            resize.arg(&node).succeed(cx)
        }
        "xfs" => {
            let program = Program::new(host, "xfs_growfs", "growing an xfs file system")?;
            let mount = Mount::partition(host, place, true)?;
            let done = program.arg(mount.path()).succeed(cx);
            done.and(mount.unmount())
        }
        "btrfs" => {
            let program = Program::new(host, "btrfs", "growing a btrfs file system")?;
            let mount = Mount::partition(host, place, true)?;
            let done = program.args(["filesystem", "resize", "max"]).arg(mount.path()).succeed(cx);
            done.and(mount.unmount())
        }
        "" => {
            because(format!("{name} was grown, but holds no file system; write `partitionOnly: true` if that is meant"))
        }
        other => because(format!(
            "{name} was grown, but the {other} in it cannot be grown here; write `partitionOnly: true` and grow it from \
             the installed system"
        )),
    }
}

fn holds(host: &Host, params: &GrowParams, cx: &ActionContext) -> Result<bool, ActionError> {
    let Ok((chosen, number)) = chosen(host, params, cx) else { return Ok(false) };
    let mut disk = host.open_disk(&chosen, false)?;
    if !host.is_ours(&mut disk, cx.permit()) {
        return Ok(false);
    }
    let Some(before) = disk.table()? else { return Ok(false) };
    let Ok(grown) = grown(&before, number, disk.size, disk.sector) else { return Ok(false) };
    if grown.table != before {
        return Ok(false);
    }
    if params.partition_only {
        return Ok(true);
    }
    let place = place(&chosen, &grown, &mut disk)?;
    if !place.holds.as_ref().is_some_and(|s| matches!(s.kind, "ext2" | "ext3" | "ext4")) {
        // Growing again does no harm, and only its own tools can tell.
        return Ok(false);
    }
    let head =
        read_at(&mut disk.file, place.start + 1024, 1024).or_failed(|| format!("{} could not be read", disk.name))?;
    Ok(ext_bytes(&head).is_some_and(|bytes| place.length - bytes.min(place.length) < 1 << 20))
}

/// Size of an ext file system by its superblock.
fn ext_bytes(block: &[u8]) -> Option<u64> {
    let shift = u32::try_from(le::<4>(block, 24)).ok().filter(|s| *s <= 6)?;
    let high = if le::<4>(block, 0x60) & 0x80 != 0 { le::<4>(block, 0x150) } else { 0 };
    (le::<4>(block, 4) | high << 32).checked_mul(1024 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::gpt::Gpt;
    use uuid::Uuid;

    fn table(old: u64, places: &[(u32, u64, u64)]) -> Table {
        let mut gpt = Gpt::new(Uuid::from_u128(1), old, 512).unwrap();
        for (number, first_lba, sectors) in places {
            gpt.partitions.push(Partition {
                number: *number,
                first_lba: *first_lba,
                sectors: *sectors,
                name: String::new(),
                type_guid: Uuid::from_u128(2),
                uuid: Uuid::from_u128(3),
                attributes: 0,
                mbr_type: 0,
                active: false,
            });
        }
        Table::Gpt(gpt)
    }

    #[test]
    fn only_the_last_grows_and_never_shrinks() {
        // As cloud images lay them out: number 1 lies last.
        let cloud = table(64 << 20, &[(1, 65536, 32768), (14, 2048, 8192), (15, 10240, 53248)]);
        let done = grown(&cloud, None, 128 << 20, 512).unwrap();
        assert_eq!(done.number, 1);
        let root = done.table.partitions().iter().find(|p| p.number == 1).unwrap();
        assert_eq!((root.first_lba + root.sectors) * 512, 127 << 20);
        assert!(grown(&cloud, Some(15), 128 << 20, 512).err().unwrap().contains("partition 1 lies behind it"));
        assert!(grown(&table(64 << 20, &[]), None, 128 << 20, 512).is_err());
        let again = grown(&done.table, None, 128 << 20, 512).unwrap();
        assert_eq!(again.table, done.table);
        let odd = table(64 << 20, &[(1, 2048, (64 << 11) - 2048 - 33)]);
        assert_eq!(grown(&odd, None, 64 << 20, 512).unwrap().table, odd, "it ends off a boundary and stays");
    }
}
