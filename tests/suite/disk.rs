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
    assert!(words.contains("make room") && words.contains("store.redb"), "{told}");
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

/// What a reader and a run do on a disk that was remounted read-only: after a good end, and after a `kill -9`.
/// `$MOUNT` mounts a small disk on `disk`.
const READ_ONLY: &str = r#"
    mkdir -p disk
    eval "$MOUNT" || exit 99
    freeze() { for i in $(seq 200); do mount -o remount,ro disk && return; sleep 0.05; done; exit 98; }
    "$BPP" run one.yaml --state disk/one 2> run.err; echo "run $?"
    "$BPP" run two.yaml --state disk/two 2> killed.err & pid=$!
    for i in $(seq 600); do test "$(grep -c . "$BPP_TEST_LOG/begun")" -ge 31 && break; sleep 0.05; done
    kill -9 $pid; wait $pid 2> /dev/null
    freeze
    for flow in one two; do
        "$BPP" status $flow.yaml --state disk/$flow > $flow.status 2>&1; echo "status $?"
        # Two readers at once.
        "$BPP" results work $flow.yaml --state disk/$flow --format jsonl > $flow.a 2> $flow.err & reader=$!
        "$BPP" results work $flow.yaml --state disk/$flow --format jsonl > $flow.b 2>> $flow.err; echo "results $?"
        wait $reader; echo "results $?"
        cmp $flow.a $flow.b; wc -l < $flow.a
        "$BPP" store verify $flow.yaml --state disk/$flow > $flow.verify 2>&1; echo "verify $?"
        "$BPP" run $flow.yaml --state disk/$flow 2> $flow.run; echo "run $?"
        "$BPP" store verify --repair $flow.yaml --state disk/$flow 2> $flow.repair; echo "repair $?"
    done
    mount -o remount,rw disk || exit 97
    touch "$BPP_TEST_LOG/go"
    "$BPP" run two.yaml --state disk/two 2> again.err; echo "again $?"
    "$BPP" results work two.yaml --state disk/two --format jsonl | wc -l
    ls disk/one disk/two
    umount disk
"#;

fn read_only(mount: &str) {
    let pipeline = |name: &str, rows: usize| {
        format!(
            "name: {name}\nsources: {{ n: {{ range: {{start: 0, stop: {rows}}} }} }}\nstages:\n  work: {{ map: n, python: \"f:work\", workers: 1, chunk_size: 1 }}\n"
        )
    };
    let module = "import kit\n\ndef work(row):\n    kit.log('begun', row['value'])\n    if row['value'] >= 20:\n        kit.pass_gate('go')\n    return {'y': 1}\n";
    let env = TestEnv::with("", module);
    env.write("one.yaml", pipeline("one", 10));
    env.write("two.yaml", pipeline("two", 40));
    env.write("script.sh", format!("MOUNT='{mount}'\n{READ_ONLY}"));
    let out = env.bash("unshare -m bash script.sh");
    if out.code == Some(99) || out.stderr.contains("unshare") {
        eprintln!("skipped: mounting needs privileges");
        return;
    }
    let said = |name: &str| std::fs::read_to_string(env.path(name)).unwrap_or_default();
    let files =
        ["run.err", "killed.err", "one.err", "two.err", "one.run", "two.run", "two.status", "two.verify", "again.err"];
    let told = files.iter().fold(out.all(), |told, name| format!("{told}\n--- {name}\n{}", said(name)));
    assert_eq!(out.code, Some(0), "{told}");
    let frozen = |rows: &str| {
        let lines = ["status 0", "results 0", "results 0", rows, "verify 0", "run 1", "repair 1"];
        lines.map(str::to_string).to_vec()
    };
    let lines: Vec<String> = out.stdout.lines().map(|line| line.trim().to_string()).collect();
    assert_eq!(lines[0], "run 0", "{told}");
    assert_eq!(lines[1..8], frozen("10"), "{told}");
    assert_eq!(lines[8..15], frozen("20"), "{told}");
    assert_eq!(lines[15..17], ["again 0", "40"], "{told}");
    let left: std::collections::BTreeSet<&str> = lines[17..].iter().map(String::as_str).collect();
    assert_eq!(left, ["", "disk/one:", "disk/two:", "lock", "store.redb"].into(), "{told}");
    for name in ["one.run", "two.run", "two.repair"] {
        assert!(said(name).contains("Read-only") && said(name).contains("--state DIR"), "{name}: {}", said(name));
    }
    assert!(!told.contains("panicked"), "{told}");
}

#[test]
fn a_read_only_disk_in_memory() {
    read_only("mount -t tmpfs -o size=64m none disk");
}

#[test]
fn a_read_only_ext4() {
    read_only("truncate -s 64M image && mkfs.ext4 -q image && mount -o loop image disk");
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
