//! The frame codec: rows to a Python worker's frame, a worker's frame to columns. Times are per thousand rows.

use std::hint::black_box;

use bpp_flow::data::{Table, Value};
use bpp_flow::executor::marshal::Writer;
use bpp_flow::executor::wire::{FromWorker, decode, kind, task_frame};
use bpp_flow::executor::{Job, PoolKey, Shape, TaskInput, Work};
use bpp_flow::spec::model::Call;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const ROWS: usize = 1000;

fn job() -> Job {
    Job {
        stage: "measure".into(),
        work: Work::Python {
            module: "m".into(),
            function: "f".into(),
            call: Call::Row,
            returns: None,
            args: Vec::new(),
        },
        shape: Shape::One,
        pool: PoolKey::default(),
        workers: 1,
        timeout: None,
        files: Vec::new(),
    }
}

fn rows() -> Table {
    Table::from_rows((0..ROWS).map(|i| {
        vec![
            ("id".to_string(), Value::Int(i as i64)),
            ("x".to_string(), Value::Float(i as f64 * 0.5)),
            ("name".to_string(), Value::Text(format!("cell-{i}"))),
        ]
    }))
}

/// A part as a worker sends it, without its frame's head.
fn part() -> Vec<u8> {
    let mut payload = Vec::new();
    payload.extend_from_slice(&7u64.to_le_bytes());
    [0, ROWS as u32, 1].iter().for_each(|n| payload.extend_from_slice(&n.to_le_bytes()));
    let mut writer = Writer::new(payload);
    writer.tuple(2);
    writer.list(0);
    writer.list(0);
    let mut payload = writer.into_bytes();
    for i in 0..ROWS as i32 {
        payload.extend_from_slice(b"{u\x01\x00\x00\x00yi");
        payload.extend_from_slice(&i.to_le_bytes());
        payload.push(b'0');
    }
    payload
}

fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire");
    group.throughput(Throughput::Elements(ROWS as u64));
    let job = job();
    let input = TaskInput::Rows { table: rows(), args: Table::empty(ROWS), env: Table::empty(ROWS) };
    group.bench_function("encode a task of 3 columns", |b| b.iter(|| task_frame(7, 1, 0, &job, black_box(&input))));
    let part = part();
    group.bench_function("decode a part of 1 column", |b| {
        b.iter(|| match decode(kind::PART, black_box(&part), &job) {
            Ok(FromWorker::Part { outcomes, .. }) => outcomes.added.rows(),
            other => panic!("no part: {other:?}"),
        })
    });
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
