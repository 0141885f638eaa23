//! What fuzzing begins with: `cargo test --lib write_seeds -- --ignored` writes it to `fuzz/corpus/`.

use std::fs;
use std::path::Path;

use super::*;
use crate::data::{Column, Failure, FailureKind, Hash, Items, TimeKind, Usage};
use crate::store::{RosterBatch, Segment};

#[test]
#[ignore = "writes files"]
fn write_seeds() {
    write("workflow", workflows());
    write("frames", frames());
    write("segments", blobs());
    write("rows", files());
}

fn write(target: &str, seeds: Vec<Vec<u8>>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    fs::create_dir_all(&folder).unwrap();
    for seed in seeds {
        fs::write(folder.join(Hash::of(&seed).to_string()), seed).unwrap();
    }
}

/// Every workflow file of the repository, right or wrong.
fn workflows() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut folders = ["tests/broken", "examples", "workflows", "src/cli/starter"]
        .map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
        .to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "yaml") {
                found.push(fs::read(path).unwrap());
            }
        }
    }
    let language = include_str!("../../docs/language.md");
    found.extend(language.split("```yaml\n").skip(1).map(|part| part.split("```").next().unwrap().into()));
    found
}

fn cells() -> Vec<Value> {
    let text = |text: &str| Value::Text(text.into());
    vec![
        Value::Null,
        Value::Absent,
        Value::Bool(true),
        Value::Int(-70_000),
        Value::Int(i64::MIN),
        Value::BigInt("-123456789012345678901234567890".into()),
        Value::Float(f64::NAN),
        Value::Float(-0.5),
        text("ü 𝄞"),
        text(&"long ".repeat(60)),
        Value::Bytes(vec![0, 255]),
        Value::Time(TimeKind::DateTime, "2024-02-29T12:30:00+02:00".into()),
        Value::Time(TimeKind::Duration, "-0.000001".into()),
        Value::List(vec![Value::Int(1), Value::Map(vec![("a".into(), text("")), ("b".into(), Value::Null)])]),
        Value::File { path: "data/a.csv".into(), digest: [7; 32], size: None },
        Value::File { path: "out/a.png".into(), digest: [8; 32], size: Some(9) },
        Value::Aside(Box::new(Value::Int(1))),
    ]
}

fn frames() -> Vec<Vec<u8>> {
    let with = |what: u8, bytes: &[u8]| [&[what], bytes].concat();
    let mut seeds: Vec<Vec<u8>> = cells().iter().map(|v| with(0, &marshalled(v))).collect();
    seeds.extend(cells().iter().map(|v| with(3, &v.encoded())));
    for (shape, result) in [(0u8, one as fn(&mut Writer)), (1, many), (2, keep)] {
        seeds.push(with(1, &[&[shape, b'P'], &part(result)[..]].concat()));
    }
    let names = ["protocol", "pid", "version", "executable"].map(String::from);
    let values = [Value::Int(1), Value::Int(77), Value::Text("3.12".into()), Value::Text("python".into())];
    seeds.push(with(1, &[&[0, b'H'], &marshalled(&Value::Map(names.into_iter().zip(values).collect()))[..]].concat()));
    seeds.push(with(1, b"\0D\x09\0\0\0\0\0\0\0\x05\0\0\0"));
    seeds.push(with(1, &[b"\0X\x09\0\0\0\0\0\0\0", &marshalled(&Value::Text("no".into()))[..]].concat()));
    seeds.push(with(2, b"\x03\x02\0\0\0Pab\0\0\0\0D\x05\0\0\0Xab"));
    let keeper: [&[u8]; 12] = [
        b"S\0\x01\x02\0\0\0\x02\0\0\0sh\x02\0\0\0-c\x01\0\0\0\x01\0\0\0A\x01\0\0\0b\x04\0\0\0/tmp",
        b"S\x01\0\0\0\0\x04\0\0\0/tmp",
        b"C\x09\0\0\0\0\0\0\0\x01\x40\x42\x0f\0\0\0\0\0\x01\0\x01\0\0\0\x01\0\0\0\x02\0\0\0ls\x01\0\0\0\x01\0\0\0A\x01\0\0\0b\x01\x01\0\0\0/\x01\x02\0\0\0in",
        b"C\x09\0\0\0\0\0\0\0\0\x01\0\x01\0\0\0\x01\0\0\0\x02\0\0\0ls\0\0\0\0\0\0",
        b"R\x02\0\0\0ab",
        b"Z",
        b"T",
        b"s\x07\0\0\0",
        b"f\x02\0\0\0no",
        b"e\x09\0\0\0",
        b"r\x09\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x05\0\0\0\0\0\x01\0\0\x01\0\0\0a\0\0\0\0\x01\0\0\0\x05\0\0\0\x02\0\0\0\0\x01\0\0\0e",
        b"d\x09\0\0\0\0\0\0\0\x01\0\0\0",
    ];
    seeds.extend(keeper.iter().map(|frame| with(4, frame)));
    seeds
}

/// The payload of a part: four items, of which the second is slow and the last failed.
fn part(result: fn(&mut Writer)) -> Vec<u8> {
    let head: [u32; 6] = [9, 0, 0, 4, 8, 16 << 10];
    let mut w = Writer::new(head.into_iter().flat_map(u32::to_le_bytes).collect());
    w.tuple(2);
    w.list(1);
    w.tuple(2);
    w.int(1);
    w.int(900_000);
    w.list(1);
    w.tuple(6);
    w.int(3);
    ["exception", "ValueError: no", "Traceback", "output", "m.py:3 in f"].into_iter().for_each(|text| w.text(text));
    (0..3).for_each(|_| result(&mut w));
    w.into_bytes()
}

fn one(w: &mut Writer) {
    w.map(cells().iter().filter(|v| !matches!(v, Value::Absent)).map(|v| (v.type_name(), v)));
}

fn many(w: &mut Writer) {
    w.list(2);
    one(w);
    one(w);
}

fn keep(w: &mut Writer) {
    w.bool(true);
}

/// Segments and roster batches, as they lie in the store and laid open.
fn blobs() -> Vec<Vec<u8>> {
    let columns = vec![
        Column::from_values((0..16).map(Value::Int)),
        Column::from_values((0..16).map(|i| Value::Float(f64::from(i) / 3.0))),
        Column::from_values((0..16).map(|i| if i == 3 { Value::Null } else { Value::Text("ü".repeat(i)) })),
        Column::from_values((0..16).map(|i| Value::Bool(i % 3 == 0))),
        Column::from_values(cells()),
    ];
    let added = Table::new(["i", "f", "t", "b", "c"].map(Arc::from).to_vec().into(), columns, 16);
    let failure = Failure { traceback: "Traceback".into(), ..Failure::new(FailureKind::Exception, "ValueError: no") };
    let plain = Segment {
        rows: (100..118).collect(),
        origins: (0..18).map(|i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect(),
        inputs: (0..18).map(|i| Hash::of(&[i])).collect(),
        usage: (0..18).map(|i| Usage { micros: i * 1000, peak_kib: i / 9 }).collect(),
        attempts: vec![1; 18],
        done: 16,
        counts: None,
        added,
        failures: vec![("117".into(), failure.clone()), ("key".into(), failure.clone())],
        made: None,
    };
    let mut uneven = plain.take(&[5, 3, 17, 9]);
    uneven.attempts = vec![1, 3, 2, 1];
    uneven.counts = Some(vec![2, 0, 1]);
    uneven.made = Some(Hash::of(b"an earlier version"));
    let mut blobs: Vec<Vec<u8>> =
        [&plain, &uneven, &plain.take(&[0]), &plain.take(&[])].map(|s| s.encode().bytes).into();
    let keys = ["a", "", "ü"].into_iter().map(Some).collect();
    let bad = vec![(6, "k".to_string(), Failure::new(FailureKind::Input, "line 7: 2 fields"))];
    let items = Items { rows: vec![4, 7, 5], origins: vec![1, u64::MAX, 3], keys: Some(keys) };
    let table = plain.added.slice(3, 3);
    let keyed = RosterBatch { items, table, bad, digest: Hash::default() };
    let items = Items { rows: (0..16).collect(), origins: (0..16).collect(), keys: None };
    let keyless = RosterBatch { items, table: plain.added, bad: Vec::new(), digest: Hash::default() };
    blobs.extend([&keyed, &keyless].map(codec::encode_roster));
    blobs.iter().map(|blob| [&[1], &blob[..]].concat()).chain(blobs.iter().map(|blob| laid_open(blob))).collect()
}

/// The parts of a blob as [`codec::sealed`] takes them.
fn laid_open(blob: &[u8]) -> Vec<u8> {
    let plain = |packed: &[u8]| lz4_flex::block::decompress_size_prepended(packed).unwrap();
    let mut parts = vec![0];
    if blob[0] == b'S' {
        let end = 18 + u32::from_le_bytes(blob[6..10].try_into().unwrap()) as usize;
        parts.extend_from_slice(&blob[..6]);
        parts.extend_from_slice(&((end - 18) as u16).to_le_bytes());
        parts.extend_from_slice(&blob[18..end]);
        parts.extend(plain(&blob[end + 8..]));
    } else {
        parts.extend_from_slice(&blob[..2]);
        parts.extend(plain(&blob[26..]));
    }
    assert_eq!(codec::sealed(&parts[1..]), blob);
    parts
}

/// Tables as text, with options before them.
fn files() -> Vec<Vec<u8>> {
    let cells = include_bytes!("../../examples/quickstart/data/cells.csv");
    let starter = include_bytes!("../cli/starter/data/plants.csv");
    let csv: [&[u8]; 8] = [
        &cells[..600],
        starter,
        b"a,b\n1,\"x\ny\"\n\n2\n3,z,4\n\"5\n\",w\n",
        b"\xef\xbb\xbfa,b\r\n1,true\r\n,false\r\n007,\r\n",
        b"a\n1\n-0\n+3\n9007199254740993\n1e5\nnan\n-Infinity\n123456789012345678901234567890\n",
        b"a,b\n2026-01-31,2026-01-31T12:00:00.5+02:00\n2026-02-30,x\n",
        b"a,b\n1,\xff\xfe\n\"\"\"q\"\"\",\"\n",
        b"a;b\n1;2\n",
    ];
    let json: [&[u8]; 4] = [
        b"{\"a\": 1, \"b\": [1, {\"x\": null}]}\n\n  \n[1]\n{\"a\": \"\\ud83d\\ude00\\n\"}\r\n{\"a\": 1.0}",
        b"\xef\xbb\xbf{\"b\": NaN, \"a\": -Infinity}\n{\"a\": \"\\ud800\"}\n{\"a\": \"\xff\"}\n",
        b"{\"a\": 123456789012345678901234567890, \"a\": -0, \"c\": 1e-7, \"d\": false}\n{\"a\": \"2026-01-31\"}\n",
        b"{\"a\": \"2026-01-31T12:00:00Z\", \"b\": \"\"}\n{\"a\": \"7\"}\n{\"a\": \"true\"}\n{}\n",
    ];
    let mut seeds = Vec::new();
    for (n, content) in csv.iter().enumerate() {
        for header in 0..3 {
            let delimiter = if n == 7 { b';' } else { b',' };
            seeds.push([&[4 * n as u8, header, 7 - n as u8, delimiter], *content].concat());
        }
    }
    let tabbed: Vec<u8> = starter.iter().map(|&b| if b == b',' { b'\t' } else { b }).collect();
    seeds.push([&[1, 0, 7, b'\t'], &tabbed[..]].concat());
    for (n, content) in (0..).zip(json) {
        seeds.extend((0..8).map(|kind| [&[2 + 4 * n, 0, kind, 0], content].concat()));
        seeds.push([&[3 + 4 * n, 0, 0, 0], content].concat());
    }
    seeds
}
