//! Damaged files: told, named, and left as they are; or every lease is there.
//!
//! But for one: where a server was killed, a last commit with a damaged page cannot be told from one that was cut short,
//! and what was written last may be gone. To write each twice would cost every lease a second sync of the disk.

use std::path::Path;

use dragonfly_boot::dhcp::{ClientKey, Lease, LeaseState, LeaseStore as _};
use dragonfly_core::Mac;
use dragonfly_core::clock::Timestamp;
use dragonfly_core::testing::Dice;

use super::{RedbLeases, told};

type Damage = Box<dyn Fn(&mut Vec<u8>)>;

fn lease(last: u8) -> Lease {
    Lease {
        address: [10, 0, 0, last].into(),
        expires: Timestamp::from_unix_seconds(1_800_000_000 + i64::from(last)),
        state: LeaseState::Bound { client: ClientKey::of_mac(Mac::new([2, 0, 0, 0, 0, last])) },
    }
}

/// A file that was closed in order, one whose server was killed, and the leases that are in both.
async fn filled(path: &Path) -> ([Vec<u8>; 2], Vec<Lease>) {
    let store = RedbLeases::open(path).unwrap();
    let leases: Vec<Lease> = (1..=60).map(lease).collect();
    // One after the other: each is a commit of its own, and the last may be all that is lost.
    for lease in &leases {
        store.put(lease).await.unwrap();
    }
    let killed = std::fs::read(path).unwrap();
    drop(store);
    ([std::fs::read(path).unwrap(), killed], leases)
}

/// Whether the file was refused, and as it should be; else all leases are there, but for the last if that `may_be_gone`.
/// Or what is wrong.
async fn is_refused(path: &Path, bytes: &[u8], leases: &[Lease], may_be_gone: bool) -> Result<bool, String> {
    std::fs::write(path, bytes).unwrap();
    let said = match RedbLeases::open(path) {
        Ok(store) => match store.load().await {
            Ok(found) if found == leases => return Ok(false),
            Ok(found) if may_be_gone && leases.split_last().is_some_and(|(_, others)| found == others) => {
                return Ok(false);
            }
            Ok(found) => {
                let lost: Vec<_> = leases.iter().filter(|lease| !found.contains(lease)).map(|l| l.address).collect();
                return Err(format!("{} leases are read, and those of {lost:?} are not there", found.len()));
            }
            Err(error) => told(&error),
        },
        Err(error) => told(&error),
    };
    if !said.contains(&format!("the lease file {} is damaged or is no lease file: ", path.display())) {
        return Err(said);
    }
    // It may be the only copy that there is.
    if std::fs::read(path).unwrap() == bytes { Ok(true) } else { Err("it was written to".to_owned()) }
}

#[tokio::test]
async fn a_damaged_file_has_every_lease_or_is_named_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let (whole, leases) = filled(&directory.path().join("whole.redb")).await;
    let path = directory.path().join("leases.redb");
    let (mut dice, mut wrong) = (Dice::new(1), Vec::new());
    for (n, state) in ["closed", "killed"].into_iter().enumerate() {
        let (whole, mut refused) = (&whole[n], 0);
        let used: Vec<usize> =
            (0..whole.len()).step_by(4096).filter(|at| whole[*at..*at + 4096] != [0; 4096]).collect();
        let mut damaged: Vec<(String, Damage)> = vec![("nothing".to_owned(), Box::new(|_| {}))];
        // Which of its commits holds is a bit in its head.
        for bit in (0..16 * 8).chain((16..320).map(|byte| byte * 8 + dice.below(8) as usize)) {
            let flip = move |bytes: &mut Vec<u8>| bytes[bit / 8] ^= 1 << (bit % 8);
            damaged.push((format!("bit {bit} of its head"), Box::new(flip)));
        }
        for at in used {
            let zero = move |bytes: &mut Vec<u8>| bytes[at..at + 4096].fill(0);
            damaged.push((format!("the page at {at}"), Box::new(zero)));
            let zero = move |bytes: &mut Vec<u8>| bytes[at..at + 512].fill(0);
            damaged.push((format!("the sector at {at}"), Box::new(zero)));
            for _ in 0..4 {
                let (byte, bit) = (at + dice.below(4096) as usize, dice.below(8));
                let flip = move |bytes: &mut Vec<u8>| bytes[byte] ^= 1 << bit;
                damaged.push((format!("bit {bit} of byte {byte}"), Box::new(flip)));
            }
            damaged.push((format!("what follows {at}"), Box::new(move |bytes| bytes.truncate(at))));
            damaged.push((format!("what follows {at} and a little"), Box::new(move |bytes| bytes.truncate(at + 100))));
        }
        damaged.push(("a page too many".to_owned(), Box::new(|bytes| bytes.extend([0; 4096]))));
        damaged.push(("all of it".to_owned(), Box::new(|bytes| bytes.fill(0))));
        for (what, damage) in &damaged {
            let mut bytes = whole.clone();
            damage(&mut bytes);
            match is_refused(&path, &bytes, &leases, state == "killed" && what != "nothing").await {
                Ok(is_refused) => refused += usize::from(is_refused),
                Err(why) => wrong.push(format!("{state}, {what}: {why}")),
            }
        }
        assert!(refused > 100 && refused < damaged.len(), "{state}: {refused} of {} refused", damaged.len());
    }
    assert!(wrong.is_empty(), "{} times:\n{}", wrong.len(), wrong.join("\n"));
}
