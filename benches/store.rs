//! The store's hot paths: encoding, commits, lookups, opening.
//!
//! `cargo bench --bench store`; with `-- --test` each runs once. The item count is `BPP_FLOW_BENCH_ITEMS` (1 M).

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::Float64Array;
use bpp_flow::data::{Column, Hash, Items, Table, Usage};
use bpp_flow::store::{EncodedSegment, OpenOptions, Segment, Store, View, Write};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rayon::prelude::*;

/// A little under a power of two of bytes, which is what redb gives a blob.
const SEGMENT: u64 = 8000;
const VERSION: Hash = Hash([1; 16]);

fn item_count() -> u64 {
    std::env::var("BPP_FLOW_BENCH_ITEMS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000)
}

/// Origins and inputs as they are in life: hashes.
fn segment(rows: std::ops::Range<u64>) -> Segment {
    let n = (rows.end - rows.start) as usize;
    let inputs: Vec<Hash> = rows.clone().map(|row| Hash::of(&row.to_le_bytes())).collect();
    Segment {
        rows: rows.clone().collect(),
        origins: inputs.iter().map(|hash| hash.short()).collect(),
        inputs,
        usage: vec![Usage::of_micros(3); n],
        attempts: vec![1; n],
        done: n,
        counts: None,
        added: Table::new(
            Arc::from([Arc::from("y")]),
            vec![Column::Float(Float64Array::from_iter_values(rows.map(|row| row as f64 * 2.0)))],
            n,
        ),
        failures: Vec::new(),
        made: None,
    }
}

fn segments(items: u64) -> Vec<Segment> {
    let starts: Vec<u64> = (0..items).step_by(SEGMENT as usize).collect();
    starts.into_par_iter().map(|start| segment(start..(start + SEGMENT).min(items))).collect()
}

fn write(segment: EncodedSegment) -> Write {
    Write::Segment { stage: "s".into(), version: VERSION, segment, again: false }
}

fn open(dir: &Path) -> Store {
    Store::open(dir, &OpenOptions { command: "bench", ..OpenOptions::default() }).expect("a store")
}

/// A store in which all of it is committed, eight segments a commit.
fn filled(dir: &Path, segments: &[Segment]) -> Store {
    let store = open(dir);
    for eight in segments.chunks(8) {
        let writes: Vec<Write> = eight.par_iter().map(|segment| write(segment.encode())).collect();
        store.commit(&writes).expect("a commit");
    }
    store
}

fn batches(segments: &[Segment]) -> Vec<(Items, Vec<Hash>)> {
    let items = |s: &Segment| Items { rows: s.rows.clone(), origins: s.origins.clone(), keys: None };
    segments.iter().map(|s| (items(s), s.inputs.clone())).collect()
}

fn look_up_all(view: &View, batches: &[(Items, Vec<Hash>)]) {
    for (items, inputs) in batches {
        let hits = view.lookup(items, inputs, true).expect("a lookup");
        assert!(black_box(hits).iter().all(Option::is_some));
    }
}

fn benches(c: &mut Criterion) {
    let items = item_count();
    let made = segments(items);
    let mut group = c.benchmark_group("store");
    group.sample_size(10).measurement_time(Duration::from_secs(5)).throughput(Throughput::Elements(SEGMENT));
    group.bench_function("encode a segment", |b| b.iter(|| made[0].encode()));

    group.throughput(Throughput::Elements(items));
    group.bench_function("encode and commit all", |b| {
        b.iter_batched(
            || tempfile::tempdir().expect("a folder"),
            |dir| filled(dir.path(), &made),
            criterion::BatchSize::PerIteration,
        );
    });
    let dir = tempfile::tempdir().expect("a folder");
    let store = filled(dir.path(), &made);
    let batches = batches(&made);
    group.bench_function("look all up in order", |b| {
        b.iter(|| look_up_all(&store.view("s", VERSION).expect("a view"), &batches));
    });
    let shifted: Vec<(Items, Vec<Hash>)> = batches
        .iter()
        .map(|(items, inputs)| {
            let rows = items.rows.iter().map(|row| row + 3 * SEGMENT).collect();
            (Items { rows, ..items.clone() }, inputs.clone())
        })
        .collect();
    group.bench_function("look all up, rows moved", |b| {
        b.iter(|| look_up_all(&store.view("s", VERSION).expect("a view"), &shifted));
    });
    group.finish();

    let mut group = c.benchmark_group("store");
    group.sample_size(20);
    group.bench_function("make a view", |b| b.iter(|| store.view("s", VERSION).expect("a view")));
    group.bench_function("commit a note", |b| {
        b.iter(|| store.commit(&[Write::Note { key: "k".into(), json: "1".into() }]).expect("a commit"));
    });
    drop(store);
    group.bench_function("open and close", |b| b.iter(|| drop(open(dir.path()))));
    group.bench_function("new store, two commits, close", |b| {
        b.iter_batched(
            || tempfile::tempdir().expect("a folder"),
            |dir| {
                let store = open(dir.path());
                store.commit(&[Write::Note { key: "run".into(), json: "1".into() }]).expect("a commit");
                store.commit(&[write(made[0].encode())]).expect("a commit");
                drop(store);
                dir
            },
            criterion::BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(store, benches);
criterion_main!(store);
