//! Globs: named wildcards and awkward names.

use std::os::unix::ffi::OsStrExt;

use serde_json::json;

use crate::env::*;

#[test]
fn a_wildcard_that_stands_twice_is_the_same_text() {
    let env = TestEnv::with(
        "sources: { s: { glob: \"data/{day}/{site}_{day}.{kind}.txt\" } }\nstages: { n: { map: s, assign: { y: \"item.day\" } } }\n",
        "",
    );
    for name in
        ["mon/north_mon.raw.txt", "mon/north_tue.raw.txt", "tue/s_o_u_tue.a.b.txt", "tue/tue.raw.txt", "tue/_tue.x.txt"]
    {
        env.write(&format!("data/{name}"), "x");
    }
    env.run(&["run"]).exits(0);
    let found: Vec<_> = env.rows("n").iter().map(|r| json!([r["day"], r["site"], r["kind"]])).collect();
    assert_eq!(found, [json!(["mon", "north", "raw"]), json!(["tue", "s_o_u", "a.b"])]);
}

#[test]
fn the_state_never_matches_wherever_it_lies() {
    let env = TestEnv::with(
        "state: kept/here\nsources: { s: { glob: \"**/*\" } }\nstages: { n: { map: s, assign: { y: \"item.name\" } } }\n",
        "",
    );
    env.run(&["run"]).exits(0);
    let names = env.column("n", "path");
    assert!(names.contains(&json!("f.py")) && !names.iter().any(|n| text(n).starts_with("kept")), "{names:?}");
    env.run(&["run"]).exits(0).says(&["nothing to do"]);
    env.run(&["run", "--state", "other"]).exits(0);
    let other = env.run(&["results", "n", "--state", "other", "--format", "jsonl"]).exits(0);
    assert!(!other.stdout.contains("\"other"), "{}", other.stdout);
}

#[test]
fn a_name_that_is_no_text_fails_its_own_row() {
    let env = TestEnv::with(
        "sources: { s: { glob: \"*.dat\" } }\nstages: { n: { map: s, assign: { y: \"item.stem\" } } }\n",
        "",
    );
    env.write("a b\nc.dat", "1");
    env.write("é.dat", "2");
    env.run(&["run"]).exits(0);
    std::fs::write(env.dir().join(std::ffi::OsStr::from_bytes(b"\xff.dat")), "3").expect("a file");
    std::fs::write(env.dir().join(std::ffi::OsStr::from_bytes(b"\xff.txt")), "4").expect("a file");
    env.run(&["run"]).exits(100);
    assert_eq!(env.column("n", "y"), ["a b\nc", "é"]);
    let failed = env.failed_rows("n");
    assert_eq!(failed.len(), 1);
    assert!(text(&failed[0]["error"]).contains("not valid UTF-8"), "{failed:?}");
}
