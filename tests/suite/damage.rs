//! A damaged store, seen from outside: clear words, exit code 1, a way out that keeps what is whole.

use std::path::PathBuf;

use crate::env::*;

const PIPELINE: &str = r#"
sources: { n: { range: {start: 0, stop: ROWS} } }
stages:
  work: { map: n, python: "f:work", workers: 2 }
  next: { map: work, assign: { z: "item.y + 1" } }
"#;

const MODULE: &str = r#"
import kit

def work(row):
    kit.log("work", row["value"])
    if row["value"] % 1000 == 7:
        raise ValueError("seven")
    return {"y": row["value"] * 2}
"#;

fn state(env: &TestEnv) -> PathBuf {
    let mut dirs = std::fs::read_dir(env.path(".bpp-flow")).expect("a state").flatten();
    dirs.next().expect("one workflow").path()
}

fn store(env: &TestEnv) -> PathBuf {
    state(env).join("store.redb")
}

/// A workflow over so many rows that has run, and the bytes of its store.
fn ran(rows: usize) -> (TestEnv, Vec<u8>) {
    let env = TestEnv::with(&PIPELINE.replace("ROWS", &rows.to_string()), MODULE);
    env.run(&["run"]).exits(100);
    let bytes = std::fs::read(store(&env)).expect("a store");
    (env, bytes)
}

/// Places of a needle.
fn places(bytes: &[u8], needle: &[u8]) -> Vec<usize> {
    (0..bytes.len() - needle.len()).filter(|&at| &bytes[at..at + needle.len()] == needle).collect()
}

/// Flips a byte in the middle of what is stored of the largest segments.
fn damage_results(bytes: &mut [u8]) {
    let segments = places(bytes, b"S\x03");
    assert!(!segments.is_empty(), "segments begin so");
    let size = |at: usize| u32::from_le_bytes(bytes[at + 6..at + 10].try_into().expect("four bytes"));
    let largest = segments.into_iter().filter(|&at| size(at) < 200_000).max_by_key(|&at| size(at)).expect("one");
    bytes[largest + 60] ^= 1;
}

#[test]
fn a_damaged_segment_is_told_repaired_and_computed_again() {
    // Three segments of each stage.
    let (env, mut bytes) = ran(20_000);
    damage_results(&mut bytes);
    std::fs::write(store(&env), &bytes).expect("write");
    let told = env.run(&["store", "verify"]).exits(1).says(&["damaged: stage ", "outcomes are lost", "--repair"]);
    assert!(told.stdout.contains("source rows"), "{}", told.stdout);
    let json = env.run(&["store", "verify", "--json"]).exits(1).json();
    assert_eq!(json["damaged"].as_array().map(Vec::len), Some(1), "{json}");
    let results = env.run(&["results", "next", "--format", "jsonl"]).exits(1);
    results.says(&["store.redb is damaged", "store verify --repair"]);
    assert!(std::fs::read(store(&env)).expect("a store") == bytes, "nothing was changed");
    // A run that needs what is damaged says so, and computes nothing again by itself.
    let before = env.logged("work").len();
    let more = PIPELINE.replace("ROWS", "20000") + "  more: { map: work, assign: { q: \"item.y\" } }\n";
    env.write("pipeline.yaml", more);
    env.run(&["run"]).exits(1).says(&["store.redb is damaged", "store verify --repair"]);
    assert_eq!(env.logged("work").len(), before);
    let bytes = std::fs::read(store(&env)).expect("a store");

    env.run(&["store", "verify", "--repair"]).exits(0).says(&["kept: work", "store.redb.damaged-1", "bpp-flow run"]);
    assert!(std::fs::read(state(&env).join("store.redb.damaged-1")).expect("kept") == bytes);
    env.run(&["store", "verify"]).exits(0).says(&["everything can be read"]);
    env.run(&["run"]).exits(100);
    let repeated = env.logged("work").len() - before;
    assert!(repeated < 20_000, "what was whole is not computed again");
    assert_eq!(env.rows("next").len(), 19_980);
    assert_eq!(
        ints(&env.column("next", "z")),
        (0..20_000).filter(|n| n % 1000 != 7).map(|n| n * 2 + 1).collect::<Vec<_>>()
    );
    assert_eq!(env.failures_by_kind(), [("exception".to_string(), 20)].into());
    env.run(&["store", "verify", "--repair"]).exits(0).says(&["nothing was changed"]);
}

/// Every command says what is wrong with a store that cannot be opened, and panics at nothing.
fn all_refuse(env: &TestEnv, what: &str) {
    let commands: [&[&str]; 6] =
        [&["status"], &["results", "work"], &["errors"], &["run"], &["plan"], &["store", "stats"]];
    for command in commands {
        let out = env.run(command);
        assert_eq!(out.code, Some(1), "{what}: {command:?}\n{}", out.all());
        assert!(!out.stderr.contains("panicked"), "{what}: {command:?}\n{}", out.stderr);
        assert!(out.stderr.contains("store.redb"), "{what}: names the file: {}", out.stderr);
        assert!(out.stderr.contains("hint: "), "{what}: has a way out: {}", out.stderr);
    }
}

#[test]
fn files_that_are_no_store_have_a_way_out() {
    let (env, bytes) = ran(3000);
    let mut blank_head = bytes.clone();
    blank_head[..4096].fill(0);
    let mut other_head = bytes.clone();
    other_head[..300].fill(0xA5);
    let bad: [(&str, &[u8]); 6] = [
        ("one byte", b"r"),
        ("text", b"this is no store"),
        ("half", &bytes[..bytes.len() / 2 + 100]),
        ("a block", &bytes[..4096]),
        ("no head", &blank_head),
        ("another head", &other_head),
    ];
    for (what, bad) in bad {
        std::fs::write(store(&env), bad).expect("write");
        all_refuse(&env, what);
        assert!(std::fs::read(store(&env)).expect("a store") == bad, "{what}: left as it was");
        env.run(&["store", "verify"]).exits(1).says(&["damaged: ", "--repair"]);
        env.run(&["store", "verify", "--repair"]).exits(0).says(&["store.redb.damaged-"]);
        env.run(&["store", "verify"]).exits(0);
    }
    // After the last: all below the head was found again.
    env.clear_log("work");
    env.run(&["run"]).exits(100);
    assert!(env.logged("work").is_empty(), "nothing but the head was lost");
    assert_eq!(env.rows("next").len(), 2997);
}

#[test]
fn a_folder_in_its_place() {
    let (env, _) = ran(10);
    std::fs::remove_file(store(&env)).expect("remove");
    std::fs::create_dir(store(&env)).expect("a folder");
    all_refuse(&env, "a folder");
}

/// Some of the thousands of `src/store/tests/damage.rs`, through the program.
#[test]
fn random_damage_never_panics() {
    let (env, bytes) = ran(3000);
    let mut state = 1u64;
    let mut roll = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let cases = std::env::var("BPP_TEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(6);
    for case in 0..cases {
        let mut damaged = bytes.clone();
        for _ in 0..1 + roll(8) {
            let at = roll(bytes.len() / 4096) * 4096 + if roll(2) == 0 { roll(64) } else { roll(4096) };
            match roll(3) {
                0 => damaged[at] ^= 1 << roll(8),
                1 => damaged[at..(at + 3000).min(bytes.len())].fill(roll(256) as u8),
                _ => damaged[at / 4096 * 4096..][..4096].fill(0),
            }
        }
        std::fs::write(store(&env), &damaged).expect("write");
        for command in [&["status"][..], &["results", "next"], &["errors"], &["store", "verify"], &["run"]] {
            let out = env.run(command);
            assert!(matches!(out.code, Some(0 | 1 | 100)), "case {case}: {command:?}\n{}", out.all());
            assert!(!out.stderr.contains("panicked"), "case {case}: {command:?}\n{}", out.stderr);
        }
        std::fs::write(store(&env), &damaged).expect("write");
        env.run(&["store", "verify", "--repair"]).exits(0);
        env.run(&["run"]).exits(100);
        assert_eq!(env.rows("next").len(), 2997, "case {case}");
        env.run(&["store", "verify"]).exits(0);
    }
}

#[test]
fn a_repair_waits_for_no_run() {
    let env = TestEnv::with(
        "sources: { n: { range: {start: 0, stop: 20} } }\nstages:\n  work: { map: n, python: \"f:work\", workers: 1, chunk_size: 1 }\n",
        "import kit\n\ndef work(row):\n    kit.log('begun', row['value'])\n    if row['value'] >= 10:\n        kit.pass_gate('go')\n    return {'y': 1}\n",
    );
    let run = env.spawn(&["run"]);
    until("ten are done", || env.logged("begun").len() >= 11);
    env.run(&["store", "verify", "--repair"]).exits(1).says(&[&run.id().to_string(), "in use"]);
    env.run(&["store", "verify"]).exits(0).says(&["everything can be read"]);
    env.open_gate("go");
    run.wait().exits(0);
}
