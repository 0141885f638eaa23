//! Sources that are programs: `python` generators and `command` lines of JSON; and sources that fail on the way.

use serde_json::{Value as Json, json};

use crate::env::*;

/// Generators of all sorts.
const GENERATORS: &str = r#"
import os, signal, time
import kit

def count(n, fail_at=None):
    kit.log("runs", "count")
    try:
        for i in range(n):
            if i == fail_at:
                print("so far so good")
                raise ValueError("no row %d" % i)
            yield {"i": i}
    finally:
        kit.log("closed", "count")

def endless():
    try:
        i = 0
        while True:
            yield {"i": i}
            i += 1
    finally:
        kit.log("closed", "endless")

def waits(gate):
    try:
        yield {"i": 0}
        yield {"i": 1}
        kit.log("waiting", os.getpid())
        kit.pass_gate(gate)
        yield {"i": 2}
    finally:
        kit.log("closed", "waits")

def dies(n):
    for i in range(n):
        yield {"i": i}
    kit.pass_gate("die")
    print("last words", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

def shapes():
    yield 1
    yield None
    yield [{"a": 1}, 2]
    yield ("x", "y")
    yield {"a": object()}
    yield {"b": 10 ** 30}

def listed():
    return [{"a": 1}, [2, 3], "text"]

def nothing():
    print("forgot to yield")

def double(row):
    kit.log("doubled", row["i"])
    return {"y": row["i"] * 2}

def slow(row):
    kit.log("slow", row["i"])
    kit.pass_gate("go on")
    return {"y": row["i"]}

def total(rows):
    return {"total": sum(row["y"] for row in rows)}
"#;

fn generating(source: &str) -> TestEnv {
    TestEnv::with(&format!("sources:\n  s: {source}\nstages:\n  d: {{ map: s, python: \"f:double\" }}\n"), GENERATORS)
}

/// Starts the program and tells its highest resident memory, in MiB.
fn peak_mib(env: &TestEnv, args: &[&str]) -> u64 {
    let script = "import os, subprocess, sys\n\
                  child = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)\n\
                  _, status, usage = os.wait4(child.pid, 0)\n\
                  print(usage.ru_maxrss // 1024)\n\
                  sys.exit(os.WEXITSTATUS(status))";
    let mut command = env.command("python3");
    command.args(["-c", script]).arg(bpp_flow()).args(args);
    env.start(command).wait().exits(0).stdout.trim().parse().expect("a number")
}

#[test]
fn what_a_generator_may_yield() {
    let env = TestEnv::with(
        r#"
sources:
  s: { python: "f:shapes" }
  l: { python: "f:listed" }
stages:
  s1: { map: s, assign: { seen: "item" } }
  l1: { map: l, assign: { seen: "item" } }"#,
        GENERATORS,
    );
    env.run(&["run"]).exits(100);
    let big = Json::from(serde_json::Number::from_f64(1e30).expect("a number"));
    let seen = env.column("s1", "seen");
    assert_eq!(
        seen[..5],
        [
            json!({"value": 1}),
            json!({"value": null}),
            json!({"a": 1}),
            json!({"value": 2}),
            json!({"value": ["x", "y"]})
        ]
    );
    assert_eq!(seen[5]["b"].as_f64(), big.as_f64());
    let failed = env.failed_rows("s1");
    assert_eq!(failed.len(), 1);
    let error = text(&failed[0]["error"]);
    assert!(error.starts_with("input: column \"a\": a value of type object"), "{error}");
    assert_eq!(env.column("l1", "seen"), [json!({"a": 1}), json!({"value": [2, 3]}), json!({"value": "text"})]);
}

#[test]
fn it_is_run_each_time_and_its_rows_count() {
    let env = generating("{ python: \"f:count\", args: { n: \"{{ params.n }}\" } }\nparams: { n: 1000 }");
    env.write(
        "pipeline.yaml",
        "params: { n: 1000 }\nsources:\n  s: { python: \"f:count\", args: { n: \"{{ params.n }}\" } }\nstages:\n  d: { map: s, python: \"f:double\" }\noutputs: { d: out.csv }\n",
    );
    counts(&stage_of(&env.run_json(&[], 0), "d"), &[("ran", 1000)]);
    let written = std::fs::metadata(env.path("out.csv")).expect("written").modified().expect("a time");
    env.clear_log("doubled");
    let plan = env.run(&["plan"]).exits(0).says(&["f:count"]);
    assert!(
        plan.stderr.contains("source s") && plan.stderr.contains("f:count"),
        "it tells what it runs: {}",
        plan.stderr
    );
    counts(&stage_of(&env.run_json(&[], 0), "d"), &[("ran", 0), ("cached", 1000)]);
    assert_eq!(env.logged("runs").len(), 3, "two runs and a plan");
    assert_eq!(env.logged("doubled"), [""; 0]);
    let same = std::fs::metadata(env.path("out.csv")).expect("there").modified().expect("a time");
    assert_eq!(written, same, "a current file is not written again");
    counts(&stage_of(&env.run_json(&["--param", "n=1003"], 0), "d"), &[("ran", 3), ("cached", 1000)]);
    let mut added = env.logged("doubled");
    added.sort();
    assert_eq!(added, ["1000", "1001", "1002"]);
    env.clear_log("runs");
    assert_eq!(env.rows("d").len(), 1003);
    env.status_of("d");
    env.errors();
    assert_eq!(env.logged("runs"), [""; 0], "what is stored is shown from the store");
}

#[test]
fn its_code_is_no_part_of_what_results_depend_on() {
    let env = generating("{ python: \"g:rows\", key: i }");
    env.write("g.py", "def rows():\n    yield from ({'i': i} for i in range(5))\n");
    env.run(&["run"]).exits(0);
    env.write("g.py", "def rows():\n    return [{'i': i} for i in range(6)]\n");
    counts(&stage_of(&env.run_json(&[], 0), "d"), &[("ran", 1), ("cached", 5)]);
    env.write("g.py", "def rows():\n    return [{'i': i} for i in (1, 1)]\n");
    env.run(&["run"]).exits(100);
    assert!(text(&env.failed_rows("d")[0]["error"]).contains("stands twice"));
}

#[test]
fn one_that_raises_ends_the_run_and_keeps_what_it_gave() {
    let pipeline = r#"
params: { fail: null, n: 20000 }
sources:
  s: { python: "f:count", args: { n: "{{ params.n }}", fail_at: "{{ params.fail }}" } }
  other: { range: { stop: 5 } }
stages:
  d: { map: s, python: "f:double" }
  all: { reduce: d, python: "f:total" }
  o: { map: other, assign: { y: "item.value" } }
outputs: { d: out.csv, o: other.csv }"#;
    let env = TestEnv::with(pipeline, GENERATORS);
    let failed = env.run(&["run", "--param", "fail=9000"]).exits(1);
    let failed = failed.says(&["source s", "ValueError: no row 9000", "f.py", "so far so good"]);
    assert!(!failed.all().contains("python/bpp_flow"), "no frames of ours: {}", failed.all());
    assert_eq!(env.rows("d").len(), 9000, "all that was read was run and kept");
    assert!(!env.path("out.csv").exists());
    assert_eq!(env.rows("all").len(), 0, "no sum over a part");
    env.run(&["run"]).exits(0);
    assert_eq!(env.rows("d").len(), 20000);
    counts(&stage_of(&env.run_json(&[], 0), "d"), &[("ran", 0), ("cached", 20000)]);
    env.run(&["run", "--param", "fail=10"]).exits(1);
    assert_eq!(env.rows("d").len(), 20000, "a reading that failed takes nothing away");
    env.run(&["plan", "--param", "fail=10"]).exits(1).says(&["no row 10"]);
}

#[test]
fn a_file_that_is_cut_short_keeps_what_was_read_too() {
    let env = TestEnv::with(
        "sources: { s: { csv: a.csv.gz } }\nstages: { d: { map: s, assign: { y: \"item.x + 1\" } } }\n",
        "",
    );
    let script = "import gzip, random; rows = b''.join(b'%d\\n' % random.randrange(10**9) for i in range(60000)); \
                  data = gzip.compress(b'x\\n' + rows); open('a.csv.gz', 'wb').write(data[:len(data) // 2])";
    env.bash(&format!("python3 -c \"{script}\"")).exits(0);
    env.run(&["run"]).exits(1).says(&["source s", "a.csv.gz"]);
    let rows = env.rows("d").len();
    assert!((8000..60000).contains(&rows), "{rows} rows");
}

#[test]
fn one_that_cannot_start() {
    for (source, told) in [
        ("{ python: \"f:cuont\", args: { n: 3 } }", "did you mean `count`?"),
        ("{ python: \"nowhere:count\" }", "there is no module `nowhere`"),
        ("{ python: \"f:count\" }", "missing 1 required positional argument: 'n'"),
        ("{ python: \"f:nothing\" }", "it returned None"),
        ("{ command: [no-such-program, x] }", "program \"no-such-program\" not found"),
    ] {
        let env = generating(source);
        env.run(&["run"]).exits(1).says(&["source s: ", told]);
    }
}

#[test]
fn one_that_is_killed() {
    let env = generating("{ python: \"f:dies\", args: { n: 10 } }");
    let run = env.spawn(&["run"]);
    until("its rows are run as they come", || env.logged("doubled").len() == 10);
    env.open_gate("die");
    run.wait().exits(1).says(&["source s", "killed by signal 9 (SIGKILL)", "last words"]);
    assert_eq!(env.rows("d").len(), 10);
}

#[test]
fn rows_are_run_as_they_come() {
    let env = generating("{ python: \"f:waits\", args: { gate: go }, length: 3 }");
    let run = env.spawn(&["run"]);
    until("the first rows are run while the generator waits", || env.logged("doubled").len() == 2);
    until("its length is told", || env.status_of("d")["expected"] == 3);
    assert_eq!(env.status_of("d")["total_known"], false);
    env.open_gate("go");
    run.wait().exits(0);
    assert_eq!(ints(&env.column("d", "y")), [0, 2, 4]);
    assert_eq!(env.logged("closed"), ["waits"]);
}

#[test]
fn an_interrupt_ends_a_generator_that_sleeps() {
    let env = generating("{ python: \"f:waits\", args: { gate: never } }");
    let run = env.spawn(&["run"]);
    until("it waits", || env.logged("waiting").len() == 1 && env.logged("doubled").len() == 2);
    run.signal(libc::SIGINT);
    run.wait().exits(130);
    assert_eq!(env.logged("closed"), ["waits"], "it is closed kindly");
    assert_eq!(env.rows("d").len(), 2);
}

#[test]
fn nothing_is_left_when_bpp_flow_is_killed() {
    for source in [
        "{ python: \"f:waits\", args: { gate: never } }",
        "{ command: [bash, -c, \"echo '{\\\"i\\\": 1}'; sleep 1000 & wait\"] }",
    ] {
        let env = generating(source);
        let run = env.spawn(&["run"]);
        until("it runs", || !env.logged("doubled").is_empty());
        run.kill9();
        env.assert_nothing_runs();
        env.run(&["store", "verify"]).exits(0);
    }
}

#[test]
fn a_limit_ends_it_early() {
    let env = generating("{ python: \"f:endless\" }");
    env.run(&["run", "--limit", "3"]).exits(0);
    assert_eq!(ints(&env.column("d", "y")), [0, 2, 4]);
    assert_eq!(env.logged("closed"), ["endless"]);
    counts(&stage_of(&env.run_json(&["--limit", "5"], 0), "d"), &[("ran", 2), ("cached", 3)]);
    let env = generating(
        "{ command: [bash, -c, \"trap 'echo asked > asked; exit' TERM; i=0; while :; do echo \\\"{\\\\\\\"i\\\\\\\": $i}\\\"; i=$((i+1)); done\"] }",
    );
    env.run(&["run", "--limit", "3"]).exits(0);
    assert_eq!(ints(&env.column("d", "y")), [0, 2, 4]);
}

#[test]
fn a_slow_stage_holds_the_generator_back() {
    let env = TestEnv::with(
        r#"
sources: { s: { python: "f:wide" } }
stages: { d: { map: s, python: "f:slow", workers: 1 } }"#,
        &format!(
            "{GENERATORS}\ndef wide():\n    for i in range(4000):\n        kit.log('given', i)\n        yield {{'i': i, 'text': 'x' * 100_000}}\n"
        ),
    );
    let run = env.spawn(&["run"]);
    let mut given = 0;
    until("it is held back", || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        let now = env.logged("given").len();
        std::mem::replace(&mut given, now) == now && now > 0 && !env.logged("slow").is_empty()
    });
    assert!(given < 2000, "{given} rows of 100 KB were taken while none was done");
    run.kill9();
}

#[test]
fn a_million_rows_take_no_more_memory_than_a_few() {
    let pipeline = "params: { n: 1 }\nsources: { s: { python: \"f:count\", args: { n: \"{{ params.n }}\" }, length: 300000 } }\nstages: { d: { filter: s, where: \"item.i % 1000 == 0\" } }\n";
    let env = TestEnv::with(pipeline, GENERATORS);
    let few = peak_mib(&env, &["run", "--param", "n=1000"]);
    let many = peak_mib(&env, &["run", "--param", "n=300000"]);
    assert!(many < few + 80, "{many} MiB, and {few} MiB for a thousand");
    assert_eq!(env.rows("d").len(), 300);
}

#[test]
fn commands_give_json_lines() {
    let script = "printf '{\"i\": 1}\\n\\n[2]\\n{\"i\": 3, \"x\": [null]}\\nnonsense\\n{\"i\": 4}'";
    let env = generating(&format!("{{ command: [bash, -c, {}] }}", json!(script)));
    env.run(&["run"]).exits(100);
    assert_eq!(ints(&env.column("d", "i")), [1, 3, 4]);
    let failed: Vec<String> = env.failed_rows("d").iter().map(|row| text(&row["error"])).collect();
    assert_eq!(failed.len(), 2);
    assert!(failed[0].starts_with("input: bash: line 3: an object is expected"), "{failed:?}");
    assert!(failed[1].starts_with("input: bash: line 5: "), "{failed:?}");
}

#[test]
fn a_command_that_fails_ends_the_run() {
    let script = "echo '{\"i\": 1}'; echo '{\"i\": 2}'; for i in $(seq 100); do echo \"note $i\" >&2; done; exit 3";
    let env = generating(&format!("{{ command: [bash, -c, {}] }}", json!(script)));
    let failed = env.run(&["run"]).exits(1).says(&["source s: bash exited with code 3", "note 100"]);
    assert!(!failed.all().contains("note 5\n"), "only the end of it");
    assert_eq!(ints(&env.column("d", "y")), [2, 4]);
}

#[test]
fn templates_in_a_command() {
    let env = TestEnv::with(
        r#"
params: { words: [echo, "{\"i\": 7}"], shown: x }
sources:
  s: { command: "{{ params.words }}" }
  t: { command: ["{{ params.words }}"] }
  e: { command: [bash, -c, 'echo "{\"i\": $1}"', bash, "{{ env.NUMBER }}"] }
stages:
  d: { map: [t, e], python: "f:double" }"#,
        GENERATORS,
    );
    let mut env = env;
    env.run(&["check"]).exits(2).says(&["pipeline.yaml:6:"]);
    env.set_var("NUMBER", "8");
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("d", "y")), [14, 16]);
}

#[test]
fn a_sweep_over_a_generator() {
    let env = TestEnv::with(
        "sources:\n  s: { python: \"f:count\", args: { n: 2 } }\n  pairs: { zip: { a: s.i, c: s.i } }\n  grid: { product: { a: pairs.a, b: [x, y] } }\nstages:\n  g: { map: grid, assign: { y: \"item.a\" } }\n",
        GENERATORS,
    );
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("g", "y")), [0, 0, 1, 1]);
    assert_eq!(env.logged("runs").len(), 1, "it is run once, whatever columns are named");
    let plan = env.run(&["plan"]).exits(0);
    assert!(plan.stderr.contains("f:count"), "{}", plan.stderr);
}
