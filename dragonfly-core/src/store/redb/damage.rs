//! Damaged files: told, named, and left as they are.

use std::error::Error;
use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::resource::Metadata;
use crate::testing::Dice;

type Damage = Box<dyn Fn(&mut Vec<u8>)>;

/// The first of three takes the most room of the file.
const SIZES: [usize; 3] = [20_000, 50, 2_000];

/// What is in a store, and what its index of labels finds.
async fn held(store: &RedbStore) -> Result<[Vec<Record>; 2]> {
    let few = Selector { labels: [("third".to_owned(), "0".to_owned())].into() };
    let all = store.list(Kind::HARDWARE, &Selector::all(), 0, None).await?.items;
    Ok([all, store.list(Kind::HARDWARE, &few, 0, None).await?.items])
}

/// A file that was closed in order, one whose process was killed, what is in both, and what was before the last write.
async fn filled(path: &Path) -> ([Vec<u8>; 2], [[Vec<Record>; 2]; 2]) {
    let store = RedbStore::open(path).unwrap();
    let mut before = held(&store).await.unwrap();
    // One after the other: each is a commit of its own, and the last may be all that is lost.
    for n in 0..40 {
        before = held(&store).await.unwrap();
        let labels = [("third".to_owned(), (n % 3).to_string())].into();
        let metadata = Metadata { name: format!("m{n}"), labels, ..Metadata::default() };
        let spec = json!({ "text": "x".repeat(SIZES[n % 3]) });
        let record = Record { kind: Kind::HARDWARE, metadata, spec, status: Value::Null };
        store.put(record, Part::Spec, When::Absent).await.unwrap();
    }
    let (killed, now) = (std::fs::read(path).unwrap(), held(&store).await.unwrap());
    store.close().await.unwrap();
    ([std::fs::read(path).unwrap(), killed], [now, before])
}

/// Whether the file was refused, and as it should be; else one of `these` is what is in it. Or what is wrong.
async fn is_refused(path: &Path, bytes: &[u8], these: &[[Vec<Record>; 2]]) -> Result<bool, String> {
    std::fs::write(path, bytes).unwrap();
    let said = match RedbStore::open(path) {
        Ok(store) => match held(&store).await {
            Ok(held) if these.contains(&held) => {
                // It goes on, in order.
                store.close().await.unwrap();
                let verified = verify(path).map_err(|error| told(&error))?;
                return if verified.problems.is_empty() { Ok(false) } else { Err(format!("{:?}", verified.problems)) };
            }
            Ok([all, few]) => return Err(format!("{} objects are read, {} by label", all.len(), few.len())),
            Err(error) => told(&error),
        },
        Err(error) => told(&error),
    };
    if !said.contains("store.redb is damaged or is no store: ") {
        return Err(said);
    }
    // It may be the only copy that there is.
    if std::fs::read(path).unwrap() == bytes { Ok(true) } else { Err("it was written to".to_owned()) }
}

pub(super) fn told(error: &StoreError) -> String {
    let (mut all, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        all.push_str(&format!(": {error}"));
        cause = error.source();
    }
    all
}

/// But for one: where a server was killed, a last commit with a damaged page cannot be told from one that was cut short.
#[tokio::test]
async fn a_damaged_file_has_every_object_or_is_named_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let (whole, held) = filled(&directory.path().join("whole.redb")).await;
    let path = directory.path().join("store.redb");
    let (mut dice, mut wrong) = (Dice::new(1), Vec::new());
    for (n, state) in ["closed", "killed"].into_iter().enumerate() {
        let (whole, mut refused) = (&whole[n], 0);
        let used: Vec<usize> = (0..whole.len())
            .step_by(4096)
            .filter(|at| whole[*at..whole.len().min(*at + 4096)].iter().any(|b| *b != 0))
            .collect();
        let mut damaged: Vec<(String, Damage)> = vec![("nothing".to_owned(), Box::new(|_| {}))];
        // Which of its commits holds is a bit in its head.
        for bit in (0..16 * 8).chain((16..320).map(|byte| byte * 8 + dice.below(8) as usize)) {
            let flip = move |bytes: &mut Vec<u8>| bytes[bit / 8] ^= 1 << (bit % 8);
            damaged.push((format!("bit {bit} of its head"), Box::new(flip)));
        }
        for at in used {
            let (byte, bit) = (at + dice.below(4096) as usize, dice.below(8));
            let flip = move |bytes: &mut Vec<u8>| bytes[byte] ^= 1 << bit;
            damaged.push((format!("bit {bit} of byte {byte}"), Box::new(flip)));
            let length = [512, 4096][dice.below(2) as usize];
            let zero = move |bytes: &mut Vec<u8>| bytes[at..at + length].fill(0);
            damaged.push((format!("{length} bytes at {at}"), Box::new(zero)));
            let end = at + dice.below(2) as usize * 100;
            damaged.push((format!("what follows {end}"), Box::new(move |bytes| bytes.truncate(end))));
        }
        damaged.push(("a page too many".to_owned(), Box::new(|bytes| bytes.extend([0; 4096]))));
        let these = if state == "killed" { &held[..] } else { &held[..1] };
        for (what, damage) in &damaged {
            let mut bytes = whole.clone();
            damage(&mut bytes);
            let these = if what == "nothing" { &held[..1] } else { these };
            match is_refused(&path, &bytes, these).await {
                Ok(is_refused) => refused += usize::from(is_refused),
                Err(why) => wrong.push(format!("{state}, {what}: {why}")),
            }
        }
        assert!(refused > 100 && refused < damaged.len(), "{state}: {refused} of {} refused", damaged.len());
    }
    assert!(wrong.is_empty(), "{} times:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn a_file_that_has_lost_all_is_not_taken_for_a_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    for bytes in [Vec::new(), vec![0; 1 << 20]] {
        std::fs::write(&path, &bytes).unwrap();
        let text = told(&RedbStore::open(&path).unwrap_err());
        assert!(text.contains("store.redb is damaged or is no store: "), "{text}");
        assert!(std::fs::read(&path).unwrap() == bytes);
    }
}

#[tokio::test]
async fn a_file_is_made_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    // What a start leaves that was killed in the midst of it.
    let draft = directory.path().join(format!("store.redb.new-{}", std::process::id()));
    std::fs::write(&draft, vec![0; 1 << 20]).unwrap();
    RedbStore::open(&path).unwrap().close().await.unwrap();
    assert!(!draft.exists(), "no draft is left behind");
    assert_eq!(verify(&path).unwrap().problems, [""; 0]);
}
