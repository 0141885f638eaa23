//! Tests of the room as a whole.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::data::{Column, Failure, FailureKind, Items, Origin, Table, Usage, Value};

/// Outcomes of items that are their rows.
pub(super) fn segment_of(rows: std::ops::Range<u64>) -> Segment {
    let n = (rows.end - rows.start) as usize;
    Segment {
        rows: rows.clone().collect(),
        origins: rows.clone().collect(),
        inputs: rows.clone().map(input_of).collect(),
        usage: vec![Usage { micros: 5, peak_kib: 9 }; n],
        attempts: vec![1; n],
        done: n,
        counts: None,
        added: Table::new(
            vec!["y".into()].into(),
            vec![Column::from_values(rows.map(|row| Value::Float(row as f64 * 2.0)))],
            n,
        ),
        failures: Vec::new(),
        made: None,
    }
}

pub(super) fn input_of(n: u64) -> Hash {
    Hash::of(&n.to_le_bytes())
}

fn items_of(rows: std::ops::Range<u64>) -> (Items, Vec<Hash>) {
    let items = Items { rows: rows.clone().collect(), origins: rows.clone().collect(), keys: None };
    (items, rows.map(input_of).collect())
}

const VERSION: Hash = Hash([7; 16]);

fn put(segment: &Segment, again: bool) -> Write {
    Write::Segment { stage: "s".into(), version: VERSION, segment: segment.encode(), again }
}

pub(in crate::store) fn open(dir: &Path) -> Store {
    settle(dir);
    Store::open(dir, &OpenOptions { command: "test", ..OpenOptions::default() }).unwrap()
}

/// Waits for nobody to hold the lock: a child that another test is starting has it until it is executed.
fn settle(dir: &Path) {
    while Store::owner(dir).is_some() {
        std::thread::yield_now();
    }
}

/// Which rows have an outcome, in a view of stage `s`.
fn stored(store: &Store, rows: std::ops::Range<u64>) -> Vec<bool> {
    let (items, inputs) = items_of(rows);
    let hits = store.view("s", VERSION).unwrap().lookup(&items, &inputs, true).unwrap();
    hits.iter().map(Option::is_some).collect()
}

#[test]
fn what_was_committed_is_found_by_the_next_run() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("state/name");
    assert!(Store::read(&dir).unwrap().is_none());
    let store = open(&dir);
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(store.view("s", VERSION).unwrap().is_empty());
    store.commit(&[put(&segment_of(0..10), false), put(&segment_of(10..20), false)]).unwrap();
    drop(store);

    for store in [open(&dir), Store::read(&dir).unwrap().unwrap()] {
        let view = store.view("s", VERSION).unwrap();
        assert_eq!(view.items(), 20);
        let (items, inputs) = items_of(5..25);
        let hits = view.lookup(&items, &inputs, true).unwrap();
        for (row, hit) in (5..25).zip(hits) {
            let value = hit.map(|hit| hit.segment.added.columns()[0].value(hit.at as usize));
            assert_eq!(value, (row < 20).then_some(Value::Float(row as f64 * 2.0)));
        }
        assert!(store.view("s", Hash([8; 16])).unwrap().is_empty(), "another version");
        assert!(store.view("t", VERSION).unwrap().is_empty(), "another stage");
        assert_eq!(store.last_sequence("s").unwrap(), 2);
        assert_eq!(store.last_sequence("t").unwrap(), 0);
    }
}

#[test]
fn notes_are_found_by_prefix_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let note = |key: &str, json: &str| Write::Note { key: key.into(), json: json.into() };
    store.commit(&[note("run/2", "2"), note("run/1", "1"), note("runs", "0"), note("run/3", "3")]).unwrap();
    store.commit(&[Write::RemoveNote { key: "run/2".into() }, note("run/3", "33")]).unwrap();
    assert_eq!(store.note("run/1").unwrap().as_deref(), Some("1"));
    assert_eq!(store.note("run/2").unwrap(), None);
    assert_eq!(store.notes("run/").unwrap(), [("run/1".into(), "1".into()), ("run/3".into(), "33".into())]);
    assert_eq!(store.notes("").unwrap().len(), 3);
}

#[test]
fn versions_keep_their_components() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let version =
        |version, components: &str| Write::Version { stage: "s".into(), version, components: components.into() };
    store.commit(&[version(VERSION, "{}"), put(&segment_of(0..3), false)]).unwrap();
    store.commit(&[version(VERSION, "{\"args\":1}"), version(Hash([8; 16]), "[]")]).unwrap();
    let versions = store.stage_versions("s").unwrap();
    let expected = StageVersion {
        number: 1,
        version: VERSION,
        components: "{\"args\":1}".into(),
        last_sequence: Some(1),
        items: 3,
        failed: 0,
    };
    assert_eq!(versions[0], expected);
    assert_eq!((versions[1].version, versions[1].last_sequence), (Hash([8; 16]), None));
    assert!(store.stage_versions("t").unwrap().is_empty());
}

#[test]
fn a_second_run_is_refused_and_reads_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.commit(&[put(&segment_of(0..3), false)]).unwrap();
    let refused = Store::open(dir.path(), &OpenOptions::default());
    let Err(StoreError::Locked(owner)) = refused else { panic!("not refused") };
    assert_eq!((owner.pid, owner.command.as_str()), (std::process::id(), "test"));
    assert_eq!(Store::owner(dir.path()), Some(owner));
    let reader = Store::read(dir.path()).unwrap().unwrap();
    assert_eq!(stored(&reader, 0..4), [true, true, true, false]);
    store.commit(&[put(&segment_of(3..4), false)]).unwrap();
    assert_eq!(stored(&reader, 0..4), [true; 4], "a reader follows");
    assert!(matches!(reader.commit(&[]), Err(StoreError::ReadOnly)));
    drop(store);
    settle(dir.path());
}

#[test]
fn a_file_that_was_never_synced_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("store.redb"), [0; 8192]).unwrap();
    assert!(Store::read(dir.path()).unwrap().is_none());
    let store = open(dir.path());
    store.commit(&[put(&segment_of(0..3), false)]).unwrap();
    drop(store);
    assert_eq!(stored(&open(dir.path()), 0..3), [true; 3]);
}

#[test]
fn a_newer_store_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path())
        .transact(|tables| {
            tables.facts.insert(db::FORMAT_FACT, db::FORMAT + 1)?;
            Ok(())
        })
        .unwrap();
    let path = dir.path().join(FILE);
    let bytes = std::fs::read(&path).unwrap();
    let options = OpenOptions::default();
    let errors = [
        Store::open(dir.path(), &options).unwrap_err(),
        Store::read(dir.path()).unwrap_err(),
        Store::verify(dir.path(), &options).unwrap_err(),
        Store::repair(dir.path(), &options).unwrap_err(),
    ];
    let newer = |e: &StoreError| matches!(e, StoreError::Newer { found, known } if *found == known + 1);
    assert!(errors.iter().all(newer), "{errors:?}");
    assert!(std::fs::read(&path).unwrap() == bytes);
}

#[test]
fn a_damaged_segment_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut segment = segment_of(0..3).encode();
    let middle = segment.bytes.len() / 2;
    segment.bytes[middle] ^= 1;
    let write = Write::Segment { stage: "s".into(), version: VERSION, segment, again: false };
    store.commit(&[write]).unwrap();
    let (items, inputs) = items_of(0..3);
    let view = store.view("s", VERSION).unwrap();
    assert!(matches!(view.lookup(&items, &inputs, true), Err(StoreError::Damaged { .. })));
}

#[test]
fn a_file_that_is_no_store_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    std::fs::write(&path, "not a store".repeat(1000)).unwrap();
    assert!(Store::open(dir.path(), &OpenOptions::default()).is_err());
    assert!(Store::read(dir.path()).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), "not a store".repeat(1000).as_bytes(), "left as it was");
}

#[test]
fn after_a_failed_commit_nothing_more_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.commit(&[put(&segment_of(0..3), false)]).unwrap();
    let failed: Result<(), _> = store.transact(|tables| {
        tables.facts.insert("half", 1)?;
        Err(StoreError::damaged("a test", "nothing"))
    });
    assert!(failed.is_err());
    assert!(matches!(store.commit(&[put(&segment_of(3..6), false)]), Err(StoreError::Spent)));
    assert_eq!(stored(&store, 0..4), [true, true, true, false], "reads go on");
    drop(store);
    assert_eq!(stored(&open(dir.path()), 0..4), [true, true, true, false]);
}

fn roster_batch(rows: std::ops::Range<u64>, salt: u8) -> Arc<RosterBatch> {
    let (items, _) = items_of(rows.clone());
    let table = Table::new(
        vec!["n".into()].into(),
        vec![Column::from_values(rows.clone().map(|n| Value::Int(n as i64)))],
        items.len(),
    );
    let bad = vec![(rows.end, "k".to_string(), Failure::new(FailureKind::Input, "too few fields"))];
    Arc::new(RosterBatch { items, table, bad, digest: Hash::of(&[rows.start as u8, rows.end as u8, salt]) })
}

fn roster_writes(batches: &[Arc<RosterBatch>]) -> Vec<Write> {
    let source = || "in".to_string();
    let batch = |(n, batch): (usize, &Arc<RosterBatch>)| Write::RosterBatch {
        source: source(),
        n: n as u64,
        batch: batch.clone(),
    };
    std::iter::once(Write::RosterBegin { source: source() }).chain(batches.iter().enumerate().map(batch)).collect()
}

fn roster_end(batches: u64) -> Write {
    let info =
        RosterInfo { complete: true, batches, rows: 11 * batches, digest: Hash([1; 16]), content: Some(Hash([2; 16])) };
    Write::RosterEnd { source: "in".into(), info }
}

fn blobs(store: &Store) -> usize {
    use redb::ReadableTableMetadata;
    store.reading(|transaction| Ok(table(transaction, db::BATCHES)?.map_or(0, |t| t.len().unwrap() as usize))).unwrap()
}

#[test]
fn a_roster_is_partial_then_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert!(store.roster("in").unwrap().is_none());
    let batches = [roster_batch(0..10, 0), roster_batch(10..20, 0)];
    store.commit(&roster_writes(&batches)).unwrap();
    let partial = store.roster("in").unwrap().unwrap();
    assert_eq!((partial.info().complete, partial.info().batches, partial.info().rows), (false, 2, 22));
    store.commit(&[roster_end(2)]).unwrap();
    let whole = store.roster("in").unwrap().unwrap();
    assert_eq!((whole.info().complete, whole.info().content), (true, Some(Hash([2; 16]))));
    for roster in [partial, whole] {
        let batch = roster.batch(1).unwrap().unwrap();
        assert_eq!(batch.items.rows, batches[1].items.rows);
        assert_eq!(batch.table.row(3), batches[1].table.row(3));
        assert_eq!((batch.bad.clone(), batch.digest), (batches[1].bad.clone(), batches[1].digest));
        assert_eq!(roster.digest(0).unwrap(), Some(batches[0].digest));
        assert!(roster.batch(2).unwrap().is_none());
    }
}

#[test]
fn a_roster_changes_at_once_and_shares_equal_batches() {
    let dir = tempfile::tempdir().unwrap();
    let old = [roster_batch(0..10, 0), roster_batch(10..20, 0), roster_batch(20..30, 0)];
    let store = open(dir.path());
    let mut writes = roster_writes(&old);
    writes.push(roster_end(3));
    store.commit(&writes).unwrap();
    let read_before = store.roster("in").unwrap().unwrap();

    let new = [roster_batch(0..10, 0), roster_batch(10..20, 9)];
    store.commit(&roster_writes(&new)).unwrap();
    assert_eq!(store.roster("in").unwrap().unwrap().info().batches, 3, "the old one until the end");
    assert_eq!(blobs(&store), 4);
    store.commit(&[roster_end(2)]).unwrap();
    let read_after = store.roster("in").unwrap().unwrap();
    assert_eq!(read_after.digest(1).unwrap(), Some(new[1].digest));
    assert_eq!(read_before.digest(1).unwrap(), Some(old[1].digest), "who reads the old one goes on");
    assert_eq!(read_before.batch(2).unwrap().unwrap().digest, old[2].digest);
    drop((store, read_before, read_after));

    let store = open(dir.path());
    store.commit(&[]).unwrap();
    assert_eq!(blobs(&store), 2, "the next run begins with a sweep");
    let mut writes = roster_writes(&new);
    writes.push(roster_end(2));
    store.commit(&writes).unwrap();
    assert_eq!(blobs(&store), 2, "nothing new");
    assert_eq!(store.roster("in").unwrap().unwrap().batch(1).unwrap().unwrap().digest, new[1].digest);
}

#[test]
fn a_roster_that_was_never_finished_gives_its_batches_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.commit(&roster_writes(&[roster_batch(0..10, 0), roster_batch(10..20, 0)])).unwrap();
    drop(store);
    let store = open(dir.path());
    store.commit(&roster_writes(&[roster_batch(0..10, 0)])).unwrap();
    assert_eq!(blobs(&store), 2, "kept until the next run");
    assert_eq!(store.roster("in").unwrap().unwrap().info().batches, 2, "what was seen stays");
    // Batches go on with the pending roster.
    let go_on = Write::RosterBatch { source: "in".into(), n: 1, batch: roster_batch(10..20, 0) };
    store.commit(&[go_on, roster_end(2)]).unwrap();
    drop(store);
    let store = open(dir.path());
    store.commit(&[]).unwrap();
    assert_eq!(blobs(&store), 2);
    assert!(store.roster("in").unwrap().unwrap().info().complete);
}

/// A stored outcome as the oracle knows it; `id` says which.
#[derive(Debug, Clone)]
struct Outcome {
    row: u64,
    origin: Origin,
    input: u64,
    id: u32,
    failed: bool,
}

fn segment_of_outcomes(outcomes: &[Outcome]) -> Segment {
    let (done, failed): (Vec<&Outcome>, Vec<&Outcome>) = outcomes.iter().partition(|o| !o.failed);
    let all: Vec<&Outcome> = done.iter().chain(&failed).copied().collect();
    Segment {
        rows: all.iter().map(|o| o.row).collect(),
        origins: all.iter().map(|o| o.origin).collect(),
        inputs: all.iter().map(|o| input_of(o.input)).collect(),
        usage: all.iter().map(|o| Usage::of_micros(o.id)).collect(),
        attempts: vec![1; all.len()],
        done: done.len(),
        counts: None,
        added: Table::new(
            vec!["id".into()].into(),
            vec![Column::from_values(done.iter().map(|o| Value::Int(i64::from(o.id))))],
            done.len(),
        ),
        failures: failed
            .iter()
            .map(|o| ("k".into(), Failure::new(FailureKind::Exit, format!("exit code {}", o.id))))
            .collect(),
        made: None,
    }
}

/// The value that [`segment_of`] gave an item.
fn y_of(hit: &Hit) -> f64 {
    match hit.segment.added.columns()[0].value(hit.at as usize) {
        Value::Float(value) => value,
        other => panic!("{other:?}"),
    }
}

fn id_of(hit: &Hit) -> u32 {
    let at = hit.at as usize;
    let id = match hit.failure() {
        Some(failure) => failure.message["exit code ".len()..].parse().unwrap(),
        None => match hit.segment.added.columns()[0].value(at) {
            Value::Int(id) => id as u32,
            other => panic!("{other:?}"),
        },
    };
    assert_eq!(id, hit.usage().micros, "columns in step");
    id
}

/// What a view of these outcomes must find, the plain way.
struct Oracle {
    last: HashMap<(u64, Origin), u32>,
    taken: HashSet<u32>,
}

impl Oracle {
    fn new(segments: &[Vec<Outcome>]) -> Oracle {
        let last = segments.iter().flatten().map(|o| ((o.input, o.origin), o.id)).collect();
        Oracle { last, taken: HashSet::new() }
    }

    /// The outcome of each item: exact ones, then, without keys, for those left free ones of that input (any of them).
    fn check(&mut self, items: &[Outcome], ids: &[Option<u32>], keyed: bool) -> Result<(), TestCaseError> {
        let exact: Vec<Option<u32>> = items.iter().map(|o| self.last.get(&(o.input, o.origin)).copied()).collect();
        self.taken.extend(exact.iter().flatten());
        for ((item, &exact), &id) in items.iter().zip(&exact).zip(ids) {
            if exact.is_some() || keyed {
                prop_assert_eq!(id, exact);
                continue;
            }
            let free = |id: &u32| !self.taken.contains(id);
            let candidates: Vec<u32> = self
                .last
                .iter()
                .filter(|((input, _), _)| *input == item.input)
                .map(|(_, id)| *id)
                .filter(free)
                .collect();
            match id {
                Some(id) => prop_assert!(candidates.contains(&id), "{} of {:?}", id, candidates),
                None => prop_assert!(candidates.is_empty(), "none of {:?}", candidates),
            }
            self.taken.extend(id);
        }
        Ok(())
    }
}

/// Rounds of runs: in each some items, by position, with origins and inputs from small sets; and whether a tidy
/// follows.
fn rounds() -> impl Strategy<Value = Vec<(Vec<Vec<Outcome>>, bool)>> {
    let outcome = (0..30u64, 0..25u64, 0..8u64, any::<bool>());
    let segment = prop::collection::vec(outcome, 1..12);
    let round = (prop::collection::vec(segment, 1..7), any::<bool>());
    prop::collection::vec(round, 1..4).prop_map(|rounds| {
        let mut id = 0;
        let mut outcome = |(row, origin, input, failed)| {
            id += 1;
            Outcome { row, origin, input, id, failed }
        };
        let mut segments = |round: Vec<Vec<_>>| -> Vec<Vec<Outcome>> {
            let unique = |segment: Vec<Outcome>| {
                let mut seen = HashSet::new();
                segment.into_iter().filter(|o| seen.insert((o.input, o.origin))).collect()
            };
            round.into_iter().map(|segment| unique(segment.into_iter().map(&mut outcome).collect())).collect()
        };
        rounds.into_iter().map(|(round, tidy)| (segments(round), tidy)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn lookups_find_what_the_plain_way_finds(
        rounds in rounds(),
        lookups in prop::collection::vec(prop::collection::vec((0..30u64, 0..25u64, 0..8u64), 1..20), 1..5),
        keyed: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let mut written: Vec<Vec<Outcome>> = Vec::new();
        let mut seen = HashSet::new();
        for (segments, tidy) in rounds {
            for outcomes in segments {
                let again = outcomes.iter().filter(|o| !seen.insert((o.input, o.origin))).count() > 0;
                store.commit(&[put(&segment_of_outcomes(&outcomes), again)]).unwrap();
                written.push(outcomes);
            }
            if tidy {
                store.tidy().unwrap();
            }
        }
        let view = store.view("s", VERSION).unwrap();
        let mut oracle = Oracle::new(&written);
        for lookup in lookups {
            let outcome = |&(row, origin, input): &(u64, u64, u64)| Outcome { row, origin, input, id: 0, failed: false };
            let wanted: Vec<Outcome> = lookup.iter().map(outcome).collect();
            let items = Items {
                rows: wanted.iter().map(|o| o.row).collect(),
                origins: wanted.iter().map(|o| o.origin).collect(),
                keys: None,
            };
            let inputs: Vec<Hash> = wanted.iter().map(|o| input_of(o.input)).collect();
            let hits = view.lookup(&items, &inputs, keyed).unwrap();
            let ids: Vec<Option<u32>> = hits.iter().map(|hit| hit.as_ref().map(id_of)).collect();
            oracle.check(&wanted, &ids, keyed)?;
        }
        let last: HashMap<Origin, u64> = written.iter().flatten().map(|o| (o.origin, o.input)).collect();
        let origins: Vec<Origin> = (0..30).collect();
        let expected: Vec<Option<Hash>> = origins.iter().map(|o| last.get(o).map(|&n| input_of(n))).collect();
        if written.iter().all(|s| s.iter().map(|o| o.origin).collect::<HashSet<_>>().len() == s.len()) {
            prop_assert_eq!(view.inputs_of(&origins).unwrap(), expected);
        }
    }
}

#[test]
fn rows_that_moved_are_found_wherever_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let segments: Vec<Write> = (0..40).map(|n| put(&segment_of(n * 1000..(n + 1) * 1000), false)).collect();
    store.commit(&segments).unwrap();
    let view = store.view("s", VERSION).unwrap();
    // Every 900th row, far from where it was.
    let moved = || (0..40).map(|n| n * 900 + 5);
    let items = Items { rows: (100_000..100_040).collect(), origins: moved().collect(), keys: None };
    let inputs: Vec<Hash> = moved().map(input_of).collect();
    let hits = view.lookup(&items, &inputs, true).unwrap();
    for (origin, hit) in moved().zip(&hits) {
        let hit = hit.as_ref().unwrap();
        assert_eq!(hit.segment.added.columns()[0].value(hit.at as usize), Value::Float(origin as f64 * 2.0));
        assert!(hit.segment.len() < 10, "a few items do not keep a whole segment");
    }
}

#[test]
fn tidy_merges_and_old_views_stay_good() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for n in 0..50 {
        store.commit(&[put(&segment_of(n * 10..(n + 1) * 10), false)]).unwrap();
    }
    let before = store.view("s", VERSION).unwrap();
    let last = store.last_sequence("s").unwrap();
    store.tidy().unwrap();
    let (items, inputs) = items_of(0..500);
    for view in [&before, &store.view("s", VERSION).unwrap()] {
        assert!(view.lookup(&items, &inputs, true).unwrap().iter().all(Option::is_some));
    }
    let segments = || {
        use redb::ReadableTableMetadata;
        store.reading(|transaction| Ok(table(transaction, db::SEGMENTS)?.unwrap().len()?)).unwrap()
    };
    assert_eq!((segments(), store.last_sequence("s").unwrap()), (51, last));
    assert_eq!(store.stage_versions("s").unwrap()[0].last_sequence, Some(last));
    store.tidy().unwrap();
    assert_eq!(segments(), 51, "nothing left to do");
    drop((before, store));
    let store = open(dir.path());
    store.commit(&[]).unwrap();
    assert_eq!(stored(&store, 0..501).iter().filter(|&&found| found).count(), 500);
}

#[test]
fn tidy_keeps_what_flat_map_gave() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for n in 0..6u64 {
        let mut segment = segment_of(n * 4..n * 4 + 4);
        segment.counts = Some(vec![2, 0, 1, 1]);
        store.commit(&[put(&segment, false)]).unwrap();
    }
    store.tidy().unwrap();
    let (items, inputs) = items_of(0..24);
    let hits = store.view("s", VERSION).unwrap().lookup(&items, &inputs, true).unwrap();
    let gathered = Gathered::from_hits(hits.iter().flatten());
    let given: Vec<Value> = (0..24).map(|row| gathered.added.columns()[0].value(row)).collect();
    let expected: Vec<Value> = (0..24).map(|row| Value::Float(row as f64 * 2.0)).collect();
    assert_eq!(given, expected);
}

mod damage;
mod faults;
mod old;
mod processes;

#[test]
fn a_reading_that_never_came_to_its_end_stays_until_another_does() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let begin = || Write::RosterBegin { source: "in".into() };
    let put = |n: u64, salt: u8| {
        let batch = roster_batch(n * 10..(n + 1) * 10, salt);
        Write::RosterBatch { source: "in".into(), n, batch }
    };
    store.commit(&[begin(), put(0, 0), put(1, 0), put(2, 0)]).unwrap();
    store.commit(&[begin(), put(0, 7)]).unwrap();
    let roster = store.roster("in").unwrap().unwrap();
    assert_eq!((roster.info().complete, roster.info().batches), (false, 3), "a second reading was killed early");
    assert_eq!(roster.digest(0).unwrap().unwrap(), roster_batch(0..10, 7).digest);
    assert_eq!(roster.digest(2).unwrap().unwrap(), roster_batch(20..30, 0).digest);
    store.commit(&[put(1, 7), roster_end(2)]).unwrap();
    let roster = store.roster("in").unwrap().unwrap();
    assert_eq!((roster.info().complete, roster.info().batches), (true, 2));
}
