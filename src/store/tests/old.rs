//! A store that an earlier bpp-flow wrote still opens. A new format gets a new file here; none is ever rewritten.

use std::path::{Path, PathBuf};

use super::{VERSION, input_of, open, put, roster_batch, roster_end, roster_writes, segment_of, y_of};
use crate::data::{Failure, FailureKind, Items, Table};
use crate::store::db::FORMAT;
use crate::store::{Store, Write};

fn committed(format: u64) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/store/format-{format}.redb"))
}

/// What was written into it.
fn writes() -> Vec<Write> {
    let mut failed = segment_of(4..6);
    failed.done = 0;
    failed.added = Table::empty(0);
    failed.failures = (0..2).map(|n| (n.to_string(), Failure::new(FailureKind::Timeout, "over 30s"))).collect();
    let mut writes = roster_writes(&[roster_batch(0..10, 0)]);
    writes.push(roster_end(1));
    writes.push(Write::Version { stage: "s".into(), version: VERSION, components: "{\"action\":\"f\"}".into() });
    writes.extend([put(&segment_of(0..4), false), put(&failed, false)]);
    writes.push(Write::Note { key: "run/1".into(), json: "{}".into() });
    writes
}

/// Made each file once.
#[test]
#[ignore = "writes the file"]
fn write_it() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).commit(&writes()).unwrap();
    // Opened and closed again, it is smaller.
    drop(open(dir.path()));
    std::fs::copy(dir.path().join("store.redb"), committed(FORMAT)).unwrap();
}

#[test]
fn a_store_of_format_1_opens() {
    opens(1);
}

#[test]
fn a_store_of_format_2_opens() {
    opens(2);
}

#[test]
fn a_store_of_format_3_opens() {
    opens(3);
}

fn opens(format: u64) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(committed(format), dir.path().join("store.redb")).unwrap();
    // As a reader finds it, then as a run does.
    check(&Store::read(dir.path()).unwrap().unwrap());
    assert!(!dir.path().join("lock").exists(), "it was closed well, there is nothing to repair");
    let store = open(dir.path());
    check(&store);
    store.commit(&[put(&segment_of(6..8), false)]).unwrap();
    assert_eq!(store.view("s", VERSION).unwrap().items(), 8);
}

fn check(store: &Store) {
    let roster = store.roster("in").unwrap().unwrap();
    assert!(roster.info().complete);
    let batch = roster.batch(0).unwrap().unwrap();
    assert_eq!(batch.table.row(9), roster_batch(0..10, 0).table.row(9));
    assert_eq!(batch.bad, roster_batch(0..10, 0).bad);
    let view = store.view("s", VERSION).unwrap();
    let items = Items { rows: (0..6).collect(), origins: (0..6).collect(), keys: None };
    let inputs: Vec<_> = (0..6).map(input_of).collect();
    let hits = view.lookup(&items, &inputs, true).unwrap();
    let hits: Vec<_> = hits.into_iter().map(Option::unwrap).collect();
    assert_eq!(y_of(&hits[3]), 6.0);
    assert_eq!(hits[5].failure().unwrap().kind, FailureKind::Timeout);
    assert_eq!(hits[3].usage().micros, 5);
    assert_eq!(store.stage_versions("s").unwrap()[0].components, "{\"action\":\"f\"}");
    assert_eq!(store.note("run/1").unwrap().as_deref(), Some("{}"));
}
