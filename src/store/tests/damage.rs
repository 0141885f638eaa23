//! A store whose file was damaged, in thousands of ways: right data or a clear error, never a panic, never a hang; and
//! a repair keeps what is whole.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{VERSION, items_of, open, put, roster_batch, roster_end, roster_writes, segment_of, settle, y_of};
use crate::data::{Failure, FailureKind, Hash};
use crate::store::{FILE, OpenOptions, Store, StoreError, Write};

/// Outcomes of stage `s` (small segments), of stage `t` (large ones), rows of source `in`.
const SMALL: u64 = 900;
const LARGE: u64 = 3000;
const ROWS: u64 = 200;
const NOTES: usize = 30;

fn large(rows: std::ops::Range<u64>) -> Write {
    Write::Segment { stage: "t".into(), version: VERSION, segment: segment_of(rows).encode(), again: false }
}

fn note(n: usize) -> Write {
    Write::Note { key: format!("run/{n:04}"), json: format!("{{\"n\":{n},\"text\":\"{}\"}}", "x".repeat(100)) }
}

/// The last of the small segments: five failures.
fn failed(rows: std::ops::Range<u64>) -> Write {
    let mut segment = segment_of(rows.clone());
    segment.done = 0;
    segment.added = crate::data::Table::empty(0);
    let story = |n: u64| (n.to_string(), Failure::new(FailureKind::Exception, format!("ValueError: {n}")));
    segment.failures = rows.map(story).collect();
    put(&segment, false)
}

/// Two runs wrote it, the first of which tidied.
fn build(dir: &Path) {
    let store = open(dir);
    let batches: Vec<_> = (0..ROWS / 10).map(|n| roster_batch(n * 10..(n + 1) * 10, 0)).collect();
    let mut writes = roster_writes(&batches);
    writes.push(roster_end(batches.len() as u64));
    store.commit(&writes).unwrap();
    store.commit(&(0..NOTES).map(note).collect::<Vec<_>>()).unwrap();
    for n in 0..LARGE / 1000 {
        store.commit(&[large(n * 1000..(n + 1) * 1000)]).unwrap();
    }
    for n in 0..20 {
        store.commit(&[put(&segment_of(n * 5..(n + 1) * 5), false)]).unwrap();
    }
    store.tidy().unwrap();
    drop(store);
    let store = open(dir);
    for n in 10..SMALL / 10 - 1 {
        store.commit(&[put(&segment_of(n * 10..(n + 1) * 10), n % 7 == 0)]).unwrap();
    }
    store.commit(&[put(&segment_of(SMALL - 10..SMALL - 5), false), failed(SMALL - 5..SMALL)]).unwrap();
}

/// How much was found; what was found was right.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
struct Seen {
    small: u64,
    large: u64,
    rows: u64,
    notes: usize,
}

const ALL: Seen = Seen { small: SMALL, large: LARGE, rows: ROWS, notes: NOTES };

fn look(store: &Store) -> Result<Seen, StoreError> {
    let mut seen = Seen::default();
    for (stage, n, count) in [("s", SMALL, &mut seen.small), ("t", LARGE, &mut seen.large)] {
        let (items, inputs) = items_of(0..n);
        let view = store.view(stage, VERSION)?;
        for (row, hit) in view.lookup(&items, &inputs, true)?.into_iter().enumerate() {
            let Some(hit) = hit else { continue };
            *count += 1;
            match hit.failure() {
                Some(failure) => assert_eq!((stage, &failure.message), ("s", &format!("ValueError: {row}"))),
                None => assert_eq!(y_of(&hit), row as f64 * 2.0, "wrong data of {stage}"),
            }
        }
        view.inputs_of(&items.origins[..10])?;
    }
    if let Some(roster) = store.roster("in")? {
        for n in 0..roster.info().batches {
            let batch = roster.batch(n)?.expect("within the roster");
            let first = batch.items.rows[0];
            let expected = roster_batch(first..first + 10, 0);
            assert_eq!((batch.items.rows.len(), batch.digest), (10, expected.digest));
            assert!((0..10).all(|row| batch.table.row(row) == expected.table.row(row)), "wrong rows");
            seen.rows += 10;
        }
    }
    for (n, (key, json)) in store.notes("run/")?.into_iter().enumerate() {
        let Write::Note { key: k, json: j } = note(key[4..].parse().unwrap_or(n)) else { unreachable!() };
        assert_eq!((key, json), (k, j));
        seen.notes += 1;
    }
    store.stage_versions("s")?;
    store.last_sequence("t")?;
    store.stats()?;
    Ok(seen)
}

/// Small numbers from a seed.
pub(super) struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ z >> 31) % n as u64) as usize
    }

    /// A place in the file: its head, the head of a page in use, or anywhere.
    fn place(&mut self, bytes: &[u8]) -> usize {
        match self.roll(4) {
            0 => self.roll(320),
            1 => self.roll(bytes.len()),
            _ => {
                let used: Vec<usize> =
                    (0..bytes.len()).step_by(4096).filter(|&at| matches!(bytes[at], 1 | 2)).collect();
                let within = [64, 4096][self.roll(2)];
                used[self.roll(used.len())] + self.roll(within)
            }
        }
    }
}

/// Damages a file in one of many ways, and says how.
fn damage(bytes: &mut Vec<u8>, dice: &mut Dice) -> &'static str {
    let at = dice.place(bytes).min(bytes.len() - 1);
    let block = at / 4096 * 4096;
    let end = |length: usize| (block + length).min(bytes.len());
    match dice.roll(9) {
        0 => {
            bytes[at] ^= 1 << dice.roll(8);
            "a bit"
        }
        1 => {
            for _ in 0..1 + dice.roll(20) {
                let at = dice.place(bytes).min(bytes.len() - 1);
                bytes[at] ^= 1 << dice.roll(8);
            }
            "some bits"
        }
        2 => {
            let length = [dice.roll(bytes.len()), block, dice.roll(5000), 1][dice.roll(4)];
            bytes.truncate(length);
            "a cut"
        }
        3 => {
            let end = end(4096 * (1 + dice.roll(4)));
            bytes[block..end].fill([0, 0xFF][dice.roll(2)]);
            "blank blocks"
        }
        4 => {
            let other = dice.roll(bytes.len() / 4096) * 4096;
            for i in 0..4096.min(bytes.len() - block.max(other)) {
                bytes.swap(block + i, other + i);
            }
            "swapped blocks"
        }
        5 => {
            let end = (at + 1 + dice.roll(6000)).min(bytes.len());
            bytes[at..end].iter_mut().for_each(|byte| *byte = dice.roll(256) as u8);
            "noise"
        }
        6 => {
            let from = dice.roll(bytes.len() / 4096) * 4096;
            let end = end(2048).min(bytes.len());
            bytes.copy_within(from..from + (end - block).min(4096), block);
            "half a block of another"
        }
        7 => {
            let more = 1 + dice.roll(10_000);
            bytes.extend((0..more).map(|_| dice.roll(256) as u8));
            "a tail"
        }
        _ => {
            let value = [0, 1, 2, 0x7F, 0xFF][dice.roll(5)];
            let end = (at + 1 + dice.roll(8)).min(bytes.len());
            bytes[at..end].fill(value);
            "a number"
        }
    }
}

/// What came of one damaged file.
#[derive(Debug, Default, Clone, Copy)]
struct Outcomes {
    files: u32,
    unharmed: u32,
    refused: u32,
    repaired: u32,
}

fn try_one(whole: &[u8], seed: u64) -> Outcomes {
    let mut dice = Dice(seed);
    let mut bytes = whole.to_vec();
    let how = damage(&mut bytes, &mut dice);
    let what = format!("seed {seed}: {how}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    std::fs::write(&path, &bytes).unwrap();
    settle(dir.path());
    let verified = Store::verify(dir.path(), &OpenOptions::default()).unwrap();
    assert!(std::fs::read(&path).unwrap() == bytes, "{what}: verifying changed the file");
    let Some(verified) = verified else {
        assert!(bytes.iter().take(9).all(|&b| b == 0), "{what}: taken for blank");
        return Outcomes { files: 1, refused: 1, ..Outcomes::default() };
    };
    let sound = verified.damaged.is_empty();
    let read = Store::read(dir.path()).and_then(|store| look(&store.expect("not blank")));
    settle(dir.path());
    let ran = Store::open(dir.path(), &OpenOptions::default()).and_then(|store| {
        store.commit(&[put(&segment_of(SMALL..SMALL + 3), false)])?;
        store.tidy()?;
        look(&store)
    });
    for seen in [&read, &ran] {
        match seen {
            Ok(seen) => assert_eq!(seen, &ALL, "{what}: silently less"),
            Err(StoreError::Damaged { .. } | StoreError::File { .. } | StoreError::Replaced(_)) => {
                assert!(!sound, "{what}: {seen:?}, but verified");
            }
            Err(error) => panic!("{what}: {error:?}"),
        }
    }
    std::fs::write(&path, &bytes).unwrap();
    settle(dir.path());
    let repaired = Store::repair(dir.path(), &OpenOptions::default()).unwrap().expect("not blank");
    assert_eq!(repaired.kept, verified, "{what}: what is told is what is done");
    assert_eq!(repaired.set_aside.is_none(), sound, "{what}");
    if let Some(aside) = &repaired.set_aside {
        assert!(std::fs::read(aside).unwrap() == bytes, "{what}: the damaged file is kept");
    }
    let store = open(dir.path());
    let seen = look(&store).unwrap_or_else(|e| panic!("{what}: {e:?} after the repair"));
    let kept: u64 = repaired.kept.stages.iter().map(|stage| stage.items).sum();
    assert!(seen.small + seen.large <= kept, "{what}: {seen:?} of {kept}");
    // The next run does what is lost again.
    store.commit(&[put(&segment_of(0..SMALL - 5), true), failed(SMALL - 5..SMALL), large(0..LARGE)]).unwrap();
    assert_eq!(look(&store).unwrap(), Seen { small: SMALL, large: LARGE, ..seen }, "{what}");
    drop(store);
    settle(dir.path());
    let again = Store::verify(dir.path(), &OpenOptions::default()).unwrap().unwrap();
    assert!(again.damaged.is_empty(), "{what}: {again:?}");
    let refused = u32::from(read.is_err() || ran.is_err());
    Outcomes { files: 1, unharmed: u32::from(sound), refused, repaired: u32::from(!sound) }
}

/// `BPP_TEST_DAMAGES` files (default 100) from `BPP_TEST_SEED` on.
#[test]
fn damaged_files_give_right_data_or_a_clear_error() {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (first, files) = (number("BPP_TEST_SEED", 0), number("BPP_TEST_DAMAGES", 100));
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    let whole: Arc<[u8]> = std::fs::read(dir.path().join(FILE)).unwrap().into();
    assert_eq!(look(&Store::read(dir.path()).unwrap().unwrap()).unwrap(), ALL);
    let (told, results) = std::sync::mpsc::channel();
    let threads = 4;
    for thread in 0..threads {
        let (whole, told) = (whole.clone(), told.clone());
        std::thread::spawn(move || {
            for seed in (first + thread..first + files).step_by(threads as usize) {
                let tried = std::panic::catch_unwind(|| try_one(&whole, seed));
                let _ = told.send(tried.map_err(|_| seed));
            }
        });
    }
    drop(told);
    let mut sum = Outcomes::default();
    let mut bad = Vec::new();
    while sum.files + (bad.len() as u32) < files as u32 {
        // No file takes a second; one that never ends fails the test.
        match results.recv_timeout(Duration::from_secs(90)).expect("a hang") {
            Ok(one) => {
                sum.files += one.files;
                sum.unharmed += one.unharmed;
                sum.refused += one.refused;
                sum.repaired += one.repaired;
            }
            Err(seed) => bad.push(seed),
        }
    }
    println!("{sum:?}");
    assert!(bad.is_empty(), "seeds {bad:?}");
    assert!(sum.repaired > sum.files / 3 && sum.unharmed > 0, "{sum:?}");
}

#[test]
fn what_is_lost_is_told_in_words_and_the_rest_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    let path = dir.path().join(FILE);
    let mut bytes = std::fs::read(&path).unwrap();
    // One byte in a large segment, one in a batch of source rows.
    let segment = segment_of(1000..2000).encode().bytes;
    let batch = crate::store::codec::encode_roster(&roster_batch(30..40, 0));
    for blob in [segment, batch] {
        let at = bytes.windows(blob.len()).position(|window| window == blob).expect("it is stored as it is");
        bytes[at + blob.len() / 2] ^= 1;
    }
    std::fs::write(&path, &bytes).unwrap();
    let version = &Hash(VERSION.0).to_string()[..8];
    let words = [
        format!(
            "stage t (version {version}): 1000 of 3000 outcomes are lost, among them those of source rows 1000 to 1999"
        ),
        "source in: 11 of 220 rows are lost, among them rows 33 to 43".to_string(),
    ];
    settle(dir.path());
    let verified = Store::verify(dir.path(), &OpenOptions::default()).unwrap().unwrap();
    assert_eq!(verified.damaged, words);
    let error = look(&Store::read(dir.path()).unwrap().unwrap()).unwrap_err();
    assert!(error.to_string().contains("store.redb is damaged: "), "{error}");
    settle(dir.path());
    let repaired = Store::repair(dir.path(), &OpenOptions::default()).unwrap().unwrap();
    assert_eq!(repaired.set_aside, Some(dir.path().join("store.redb.damaged-1")));
    let store = open(dir.path());
    assert_eq!(look(&store).unwrap(), Seen { large: LARGE - 1000, rows: ROWS - 10, ..ALL });
    assert!(!store.roster("in").unwrap().unwrap().info().complete, "it is read again");
    drop(store);
    settle(dir.path());
    let nothing = Store::repair(dir.path(), &OpenOptions::default()).unwrap().unwrap();
    assert_eq!(nothing.set_aside, None);
}

#[test]
fn things_that_are_no_file_of_ours() {
    let options = OpenOptions::default();
    for bytes in [&b"r"[..], b"redb", b"not a store at all", &[7; 5000], b"redb\x1a\n\xa9\r\n"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        std::fs::write(&path, bytes).unwrap();
        for error in [Store::read(dir.path()).unwrap_err(), Store::open(dir.path(), &options).unwrap_err()] {
            assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
            assert!(error.to_string().starts_with(path.to_str().unwrap()), "{error}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "left as it was");
        settle(dir.path());
        let repaired = Store::repair(dir.path(), &options).unwrap().unwrap();
        assert!(repaired.kept.stages.is_empty());
        assert_eq!(std::fs::read(repaired.set_aside.unwrap()).unwrap(), bytes);
        open(dir.path()).commit(&[note(1)]).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(FILE)).unwrap();
    for error in [Store::read(dir.path()).unwrap_err(), Store::open(dir.path(), &options).unwrap_err()] {
        assert!(matches!(&error, StoreError::Io { path, .. } if path.ends_with(FILE)), "{error:?}");
    }
}

/// A store without one of its blocks is refused, and what a repair keeps of it.
fn without(block: impl Fn(&[u8]) -> usize) -> Seen {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    let path = dir.path().join(FILE);
    let mut bytes = std::fs::read(&path).unwrap();
    let block = block(&bytes);
    bytes[block..block + 4096].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(Store::open(dir.path(), &OpenOptions::default()), Err(StoreError::Damaged { .. })));
    assert!(std::fs::read(&path).unwrap() == bytes, "not taken for a new file");
    settle(dir.path());
    Store::repair(dir.path(), &OpenOptions::default()).unwrap().unwrap();
    look(&open(dir.path())).unwrap()
}

/// The first block is where all begins; without it the tables are looked for.
#[test]
fn a_lost_head_loses_nothing_else() {
    assert_eq!(without(|_| 0), ALL);
}

/// The same without the page that all tables hang on: an earlier one leads to most of them.
#[test]
fn a_lost_root_loses_little() {
    let root = |bytes: &[u8]| {
        let slot = 64 + 128 * usize::from(bytes[9] & 1);
        let page = u64::from_le_bytes(bytes[slot + 8..slot + 16].try_into().unwrap());
        assert_eq!(page >> 20, 0, "one page, in the first region");
        4096 + page as usize * 4096
    };
    let kept = without(root);
    assert!(kept.small >= SMALL / 2 && kept.large == LARGE && kept.rows == ROWS, "{kept:?}");
}
