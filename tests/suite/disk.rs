//! A full disk: a clear error, exit 1, and committed results are kept.

use crate::env::*;

const PIPELINE: &str = r#"
sources: { n: { range: {start: 0, stop: 4000} } }
stages:
  work: { map: n, python: "f:work", chunk_size: 20 }
"#;

const MODULE: &str = r#"
import os
import kit

def work(row):
    kit.log("work", row["value"])
    return {"y": os.urandom(10_000).hex()}
"#;

#[test]
fn a_full_file_system() {
    let env = TestEnv::with(PIPELINE, MODULE);
    let probe = env.bash("unshare -m mount -t tmpfs -o size=1m none /mnt");
    if probe.code != Some(0) {
        eprintln!("skipped: mounting needs privileges");
        return;
    }
    // All within one private mount namespace: the small disk is gone with it.
    let script = r#"
        mkdir -p small
        mount -t tmpfs -o size=24m none small || exit 99
        "$BPP" run --state small/state 2> first.err
        echo "first $?"
        "$BPP" results work --state small/state --format jsonl --columns value > rows.jsonl 2> rows.err
        echo "results $?"
        wc -l < rows.jsonl
        mount -o remount,size=400m small || exit 98
        "$BPP" run --state small/state 2> second.err
        echo "second $?"
        "$BPP" results work --state small/state --format jsonl --columns value 2> again.err | wc -l
        "$BPP" store verify --state small/state > verify.out 2>&1
        echo "verify $?"
    "#;
    env.write("script.sh", script);
    let out = env.bash("unshare -m bash script.sh");
    let told = format!("{}\n{}\n{}", out.all(), env.read("first.err"), env.read("second.err"));
    let lines: Vec<&str> = out.stdout.lines().map(str::trim).collect();
    assert_eq!(out.code, Some(0), "{told}");
    assert_eq!(lines[0], "first 1", "{told}");
    let words = env.read("first.err").to_lowercase();
    assert!(words.contains("no space") || words.contains("disk is full") || words.contains("disk full"), "{told}");
    assert!(!words.contains("panicked"), "{told}");
    assert_eq!(lines[1], "results 0", "{told} {}", env.read("rows.err"));
    let kept: usize = lines[2].parse().expect("a count");
    assert!(kept > 0, "{told}");
    assert_eq!(lines[3], "second 0", "{told}");
    assert_eq!(lines[4], "4000", "{told}");
    assert_eq!(lines[5], "verify 0", "{told}");
    let (begun, once) = (env.logged("work").len(), distinct(&env.logged("work")).len());
    assert_eq!(once, 4000);
    assert!(begun <= 8000 - kept, "committed results are not run again: {begun} with {kept} kept");
}

#[test]
fn a_limit_of_file_sizes() {
    // As a full disk, but for those who may not mount one: writes beyond the limit fail with EFBIG.
    let env = TestEnv::with(PIPELINE, MODULE);
    let script = r#"
import resource, signal, subprocess, os
def limit():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_000_000, 16_000_000))
print(subprocess.run([os.environ["BPP"], "run"], preexec_fn=limit, restore_signals=False).returncode)
"#;
    env.write("limit.py", script);
    let out = env.bash("python3 limit.py");
    assert_eq!(out.stdout.trim(), "1", "{}", out.all());
    assert!(!out.stderr.contains("panicked"), "{}", out.stderr);
    let kept = env.rows("work").len();
    assert!(kept < 4000);
    env.run(&["run"]).exits(0);
    assert_eq!(env.rows("work").len(), 4000);
    env.run(&["store", "verify"]).exits(0);
}

#[test]
fn an_output_on_a_full_disk() {
    let env = TestEnv::with(
        "sources: { n: { range: {start: 0, stop: 10} } }\nstages:\n  work: { map: n, assign: { y: \"1\" } }\n",
        "",
    );
    env.run(&["run"]).exits(0);
    let out = env.bash("\"$BPP\" results work --format csv > /dev/full");
    assert_eq!(out.code, Some(1), "{}", out.all());
    assert!(!out.stderr.contains("panicked"), "{}", out.stderr);
}
