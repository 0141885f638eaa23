//! Secrets reach no log and no store, no shell runs unless asked, outputs stay in the workflow's folder, the state is
//! its owner's alone, and workers unpickle nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::env::*;

/// Words of the secrets below: whichever way a program prints one, its word stays a word.
const WORDS: [&str; 5] = ["tangerine", "mandarin", "quince", "medlar", "persimmon"];
const SECRET: &str = "man\"darin' \\mandarin$(x) €7";
const TOKEN: &str = "medlar4711";

const FLOW: &str = r#"
name: hush
params: { where: here }
sources: { s: { csv: s.csv, key: id }, b: { csv: b.csv, schema: { x: int } } }
defaults:
  env: { PLAIN: "tangerine-dream-7", API_TOKEN: "{{ env.MY_SECRET }}" }
stages:
  raises:
    map: s
    python: "f:raises"
    args: { token: "{{ env.MY_SECRET }}", more: ["{{ env.MY_TOKEN }}-{{ item.id }}"], where: "{{ params.where }}" }
  threads: { map: s, python: "f:raises", backend: threads, args: { token: "{{ env.MY_TOKEN }}", more: [], where: "" } }
  chunk: { map: s, python: "f:chunk", call: chunk, chunk_format: rows }
  hangs: { map: s, python: "f:hangs", timeout: 300ms }
  crashes: { map: s, python: "f:crashes" }
  wrong: { map: s, python: "f:wrong" }
  talks: { map: s, python: "f:talks" }
  shell: { map: s, shell: "set -x; echo \"$PLAIN\" >&2; echo {{ env.MY_SECRET }} >&2; printf %q \"$API_TOKEN\" >&2; exit 3" }
  argv: { map: s, command: [bash, -c, "echo \"$0\" \"$PLAIN\" >&2; kill -9 $$", "{{ env.MY_SECRET }}"] }
  slow: { map: s, command: [bash, -c, "echo \"$API_TOKEN\" >&2; sleep 60"], timeout: 300ms }
  json: { map: s, shell: "echo \"$PLAIN\"", stdout: json }
  path: { map: s, command: ["./{{ env.MY_TOKEN }}{{ item.id }}"] }
  own: { map: s, shell: "echo \"$OWN\" >&2; exit 5", env: { OWN: "quince {{ item.id }} jam" } }
  own_python: { map: s, python: "f:own", env: { OWN: "quince {{ item.id }} jam" } }
  assign: { map: s, assign: { x: "env.MY_SECRET + 1" } }
  bad: { map: b, assign: { y: "item.x" } }
  good: { map: s, assign: { x: "item.x + 1" } }
outputs:
  good: "out/{{ env.MY_TOKEN }}.csv"
"#;

const MODULE: &str = r#"
import json, os, sys, time

PLAIN, TOKEN = os.environ.get("PLAIN", ""), os.environ.get("API_TOKEN", "")


def say():
    print(PLAIN, TOKEN, repr(TOKEN), ascii(TOKEN), TOKEN.encode(), json.dumps(TOKEN), json.dumps({"t": TOKEN}))
    import urllib.parse
    print(urllib.parse.quote(TOKEN), urllib.parse.quote_plus(TOKEN), "https://u:%s@host" % PLAIN, file=sys.stderr)
    os.system("printf '%s %q ' \"$PLAIN\" \"$API_TOKEN\" >&2")


def raises(row, *, token, more, where):
    say()
    secret = token
    try:
        {}[token]
    except KeyError as error:
        raise ValueError("%s %r %s %s" % (secret, [token], more, where)) from error


def chunk(rows):
    say()
    raise RuntimeError(json.dumps([PLAIN, TOKEN]))


def hangs(row):
    say()
    sys.stdout.flush()
    time.sleep(60)


def crashes(row):
    say()
    sys.stdout.flush()
    os.kill(os.getpid(), 11)


def wrong(row):
    say()
    return {TOKEN: object()}


def talks(row):
    for _ in range(20000):
        sys.stdout.write(PLAIN + TOKEN)
    raise LookupError((PLAIN + "." + TOKEN) * 9000)


def own(row):
    print(os.environ["OWN"])
    raise ValueError(repr(os.environ["OWN"]))
"#;

fn hushed(flow: &str, module: &str) -> TestEnv {
    let mut env = TestEnv::with(flow, module);
    env.write("s.csv", "id,x\n1,10\n2,20\n");
    env.write("b.csv", format!("x\n{TOKEN}\n{TOKEN}b\n"));
    env.set_var("MY_SECRET", SECRET);
    env.set_var("MY_TOKEN", TOKEN);
    env
}

/// Fails if one of the words is in it.
#[track_caller]
fn assert_hushed(what: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).to_lowercase();
    for word in WORDS {
        if let Some(at) = text.find(word) {
            let from = (0..=at.saturating_sub(200)).rev().find(|&n| text.is_char_boundary(n)).unwrap_or(0);
            panic!("{what} tells {word}: …{}…", text[from..].chars().take(400).collect::<String>());
        }
    }
}

/// Runs a command of which no word of a secret may be seen.
#[track_caller]
fn quietly(env: &TestEnv, args: &[&str]) -> Output {
    let output = env.run(args);
    assert_hushed(&args.join(" "), output.all().as_bytes());
    output
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files_below(&path)),
            path => found.push(path),
        }
    }
    found
}

/// All that the state holds: its files as they are, and what a reader decodes of them.
#[track_caller]
fn assert_state_is_hushed(env: &TestEnv, name: &str, stages: &[&str]) {
    let dir = env.path(".bpp-flow").join(name);
    let files = files_below(&env.path(".bpp-flow"));
    assert!(files.iter().any(|path| path.ends_with("store.redb")), "{files:?}");
    for path in files {
        assert_hushed(&path.display().to_string(), &fs::read(&path).expect("readable"));
    }
    let store = bpp_flow::store::Store::read(&dir).expect("opens").expect("is there");
    for (key, json) in store.notes("").expect("reads") {
        assert_hushed("a note", format!("{key} {json}").as_bytes());
    }
    for stage in stages {
        for version in store.stage_versions(stage).expect("reads") {
            assert_hushed(stage, version.components.as_bytes());
        }
    }
}

#[test]
fn secrets_of_failures_are_told_nowhere() {
    let env = hushed(FLOW, MODULE);
    let param = format!("where={SECRET}");
    let run = quietly(&env, &["run", "-v", "--json", "--events", "events.jsonl", "--param", &param]).exits(100);
    assert_hushed("the events", &fs::read(env.path("events.jsonl")).expect("events"));
    assert!(env.read("events.jsonl").contains("item_failed"));
    let stages: Vec<String> =
        run.json()["stages"].as_array().expect("stages").iter().map(|s| text(&s["name"])).collect();
    for stage in stages.iter().filter(|s| *s != "good") {
        assert_eq!(number(&stage_of(&run.json(), stage)["failed"]), 2, "{stage}");
        let rows = quietly(&env, &["results", stage, "--failed", "--format", "jsonl"]).exits(0).json_lines();
        assert_eq!(rows.len(), 2, "{stage}");
    }
    for args in [
        &["plan"][..],
        &["plan", "--json"],
        &["errors"],
        &["errors", "--json"],
        &["errors", "--item", "1", "--json"],
        &["status"],
        &["status", "--json"],
        &["runs"],
        &["runs", "--json"],
        &["store", "stats"],
        &["store", "verify"],
        &["check"],
        &["retry", "--failed", "--stage", "raises"],
    ] {
        quietly(&env, args);
    }
    quietly(&env, &["runs", "show", &text(&run.json()["run"])]).exits(0).says(&["--param", "***"]);
    let one = quietly(&env, &["errors", "--item", "2"]).exits(0);
    assert!(one.stdout.matches("***").count() > 100, "{}", one.stdout);
    let names: Vec<&str> = stages.iter().map(String::as_str).collect();
    assert_state_is_hushed(&env, "hush", &names);
}

#[test]
fn a_changed_secret_is_a_change_without_its_value() {
    let flow = "sources: { s: { csv: s.csv, key: id } }\nstages:\n  \
        work: { map: s, python: \"f:work\", args: { token: \"{{ env.MY_TOKEN }}\", n: 1 } }\n  \
        call: { map: s, command: [echo, \"{{ env.MY_TOKEN }}\", \"{{ params.p }}\"], stdout: ignore }\nparams: { p: plain }\n";
    let mut env = hushed(flow, "def work(row, *, token, n):\n    return {'n': len(token)}\n");
    quietly(&env, &["run", "--param", &format!("p={TOKEN}")]).exits(0);
    assert_state_is_hushed(&env, "pipeline", &["work", "call"]);
    env.set_var("MY_TOKEN", "persimmon12");
    let plan = quietly(&env, &["plan", "--json"]).exits(0).json();
    for (stage, changes) in
        [("work", vec!["token changed"]), ("call", vec!["env.MY_TOKEN changed", "params.p changed"])]
    {
        let stage = stage_of(&plan, stage);
        assert_eq!(reason(&stage, "args_changed"), 2, "{stage}");
        let told = stage["changes"].to_string();
        assert!(changes.iter().all(|change| told.contains(change)), "{stage}");
        assert!(!told.contains("***") && !told.contains('→'), "{stage}");
    }
    env.set_var("MY_TOKEN", TOKEN);
    let plan = quietly(&env, &["plan", "--json", "--param", &format!("p={TOKEN}")]).exits(0).json();
    assert_eq!(number(&stage_of(&plan, "work")["due"]) + number(&stage_of(&plan, "call")["due"]), 0, "{plan}");
}

#[test]
fn what_becomes_a_secret_later_changes_no_version() {
    let flow =
        "sources: { s: { csv: s.csv } }\nstages:\n  work: { map: s, python: \"f:work\", args: { mode: medlar } }\n";
    let mut env = TestEnv::with(flow, "def work(row, *, mode):\n    return {'n': 1}\n");
    env.write("s.csv", "id\n1\n");
    env.run(&["run"]).exits(0);
    env.set_var("NEW_KEY", "medlar");
    assert_eq!(number(&env.plan_of("work")["due"]), 0);
    env.write("pipeline.yaml", flow.replace("mode: medlar", "mode: medlar, n: 2"));
    env.write("f.py", "def work(row, *, mode, n):\n    return {'n': 1}\n");
    let stage = env.plan_of("work");
    assert!(!stage["changes"].to_string().contains("mode"), "{stage}");
}

#[test]
fn secrets_of_what_breaks_a_run_are_told_nowhere() {
    let flow = |stage: &str, source: &str| {
        format!(
            "sources: {{ s: {{ csv: \"{source}\" }} }}\ndefaults:\n  env: {{ PLAIN: tangerine-dream-7, \
             API_TOKEN: \"{{{{ env.MY_SECRET }}}}\" }}\nstages:\n  one: {{ map: s, {stage} }}\n"
        )
    };
    let breaks = "import os\nprint(os.environ['PLAIN'])\nraise RuntimeError(os.environ['API_TOKEN'])\n";
    let init = "import os\ndef work(row):\n    pass\ndef init(**args):\n    raise RuntimeError('%r %s' % (args, os.environ))\n";
    let dies = "import os\nprint(os.environ['PLAIN'], os.environ['API_TOKEN'], flush=True)\nos._exit(7)\n";
    for (stage, source, module, code) in [
        ("python: \"f:work\"", "s.csv", breaks, 1),
        ("python: \"f:work\"", "s.csv", dies, 1),
        ("python: \"f:work\", init: { python: \"f:init\", args: { t: \"{{ env.MY_TOKEN }}\" } }", "s.csv", init, 1),
        ("command: [\"{{ env.MY_TOKEN }}\"]", "s.csv", "", 1),
        ("command: [./tangerine-dream-7]", "s.csv", "", 1),
        ("command: [echo], cwd: \"{{ env.MY_TOKEN }}\"", "s.csv", "", 1),
        ("command: [echo], deps: \"{{ env.MY_TOKEN }}.txt\"", "s.csv", "", 1),
        ("python: \"f:work\", interpreter: \"{{ env.MY_TOKEN }}\"", "s.csv", init, 1),
        ("command: [echo]", "{{ env.MY_TOKEN }}.csv", "", 1),
        ("command: [echo], workers: \"{{ env.MY_TOKEN }}\"", "s.csv", "", 2),
        ("command: [echo], timeout: \"{{ env.MY_SECRET }}\"", "s.csv", "", 2),
        ("command: [echo], env: { A: \"{{ env.MY_SECRET + 1 }}\" }", "s.csv", "", 1),
        ("python: \"{{ env.MY_TOKEN }}\"", "s.csv", "", 2),
    ] {
        let env = hushed(&flow(stage, source), module);
        let run = quietly(&env, &["run", "--json", "--events", "events.jsonl"]);
        assert!([Some(code), Some(100)].contains(&run.code), "{stage}: {}", run.all());
        assert_hushed(stage, &fs::read(env.path("events.jsonl")).unwrap_or_default());
        for args in
            [&["plan"][..], &["plan", "--json"], &["runs", "--json"], &["status"], &["check"], &["check", "--json"]]
        {
            quietly(&env, args);
        }
        for path in files_below(&env.path(".bpp-flow")) {
            assert_hushed(stage, &fs::read(&path).expect("readable"));
        }
    }
}

#[test]
fn rows_are_the_users_data() {
    let flow = "sources: { s: { values: [1] } }\nstages:\n  one: { map: s, shell: \"echo $PLAIN\", env: { PLAIN: tangerine } }\n";
    let env = TestEnv::with(flow, "");
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("one", "stdout"), ["tangerine"]);
}

#[test]
fn the_state_is_its_owners_alone() {
    let env = hushed(FLOW, MODULE);
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    let is_closed = || {
        for folder in [".bpp-flow", ".bpp-flow/hush"] {
            assert_eq!(mode(&env.path(folder)), 0o700, "{folder}");
        }
        let files = files_below(&env.path(".bpp-flow"));
        assert!(files.len() >= 2, "{files:?}");
        files.iter().for_each(|file| assert_eq!(mode(file), 0o600, "{}", file.display()));
    };
    env.bash("umask 000; $BPP run --stage good -q").exits(0);
    is_closed();
    env.bash("chmod -R a+rwX .bpp-flow/hush; umask 000; $BPP run --stage good -q").exits(0);
    is_closed();
    env.bash("mkdir -m 755 given; umask 000; $BPP run --stage good -q --state given").exits(0);
    assert_eq!(mode(&env.path("given")), 0o755, "a folder of somebody's own keeps its mode");
    files_below(&env.path("given")).iter().for_each(|file| assert_eq!(mode(file), 0o600, "{}", file.display()));
}

#[test]
fn no_shell_looks_at_a_command() {
    let hostile = [
        "$(touch PWNED)",
        "`touch PWNED`",
        "; touch PWNED",
        "| touch PWNED",
        "> PWNED",
        "*",
        "~",
        "$HOME",
        "a\nb",
        "-e",
        "'\"",
    ];
    let rows: String = hostile.iter().map(|v| format!("{}\n", serde_json::json!({ "v": v }))).collect();
    let flow = "sources: { s: { jsonl: s.jsonl } }\nstages:\n  one: { map: s, command: [printf, \"%s\\n\", \"{{ item.v }}\", \
        \"$(touch PWNED)\", \"; touch PWNED\", \"*\"] }\n";
    let env = TestEnv::with(flow, "");
    env.write("s.jsonl", rows);
    env.run(&["run"]).exits(0);
    let got = env.column("one", "stdout");
    for (value, got) in hostile.iter().zip(&got) {
        assert_eq!(text(got), format!("{value}\n$(touch PWNED)\n; touch PWNED\n*"));
    }
    assert_eq!(got.len(), hostile.len());
    assert!(!env.path("PWNED").exists());
}

/// Captured output and spilled rows have no name while a run goes.
#[test]
fn nothing_but_the_store_has_a_name_in_the_state() {
    let flow = "sources: { s: { values: [{ g: 1 }, { g: 2 }] } }\nstages:\n  one: { map: s, python: \"f:look\" }\n  \
        all: { reduce: one, python: \"f:looks\", group_by: [g] }\n";
    let module = "import os\ndef look(row):\n    print('captured', flush=True)\n    return {'seen': sorted(os.listdir('.bpp-flow/pipeline'))}\n\
        def looks(rows):\n    return look(next(iter(rows)))\n";
    let env = TestEnv::with(flow, module);
    env.run(&["run"]).exits(0);
    for seen in env.column("one", "seen").iter().chain(&env.column("all", "seen")) {
        assert_eq!(*seen, serde_json::json!(["in-hand", "lock", "store.redb"]));
    }
}

/// Frames are `marshal` data over a private socket; nothing that would make objects, or run code, of bytes is imported,
/// but where a workflow shares a pickle.
#[test]
fn workers_unpickle_nothing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/bpp_flow");
    let modules = files_below(&folder).into_iter().filter(|path| path.extension().is_some_and(|e| e == "py"));
    let mut seen = 0;
    // An engine's client pickles what it likes; what it is given holds no object of anybody's.
    let clients = ["bridge.py", "engines.py", "remote.py"];
    for path in modules.filter(|path| !clients.iter().any(|name| path.ends_with(name))) {
        seen += 1;
        let source = fs::read_to_string(&path).expect("readable");
        for word in ["pickle", "shelve", "multiprocessing", "eval(", "exec("] {
            let asked_for = |line: &str| word == "pickle" && path.ends_with("shared.py") && !line.starts_with("import");
            let found: Vec<&str> = source.lines().filter(|line| line.contains(word) && !asked_for(line)).collect();
            assert!(found.is_empty(), "{}: {word}: {found:?}", path.display());
        }
    }
    assert!(seen >= 14, "{seen} modules");
    let flow = "sources: { s: { values: [1] } }\nstages:\n  one: { map: s, python: \"f:one\" }\n";
    let env = TestEnv::with(
        flow,
        "import sys\ndef one(row):\n    return {'seen': [m for m in sys.modules if 'pickle' in m or 'multiprocessing' in m]}\n",
    );
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("one", "seen"), [serde_json::json!([])]);
}

#[test]
fn outputs_leave_the_folder_only_if_they_may() {
    let flow = |output: &str| {
        format!(
            "params: {{ to: out }}\nsources: {{ s: {{ values: [1] }} }}\nstages:\n  one: {{ map: s, assign: {{ x: \"1\" }} }}\noutputs:\n  one: {output}\n"
        )
    };
    let template = r#""{{ params.to }}/one.csv""#;
    let allowed = r#"{ path: "{{ params.to }}/one.csv", allow_outside: true }"#;
    let env = TestEnv::with(&flow(template), "");
    let elsewhere = env.path("../elsewhere").display().to_string();
    env.bash(
        "mkdir ../elsewhere inside; ln -s ../elsewhere link; ln -s inside alias; touch ../elsewhere/it; ln -s ../../elsewhere/it inside/one.csv; ln -s ../elsewhere/none one.csv",
    );
    for to in
        ["../elsewhere", &elsewhere, "link", "link/deep", "alias/../../elsewhere", "inside/../link/x/..", "inside"]
    {
        let param = format!("to={to}");
        for command in ["check", "run", "plan"] {
            let said = env.run(&[command, "--param", &param]).exits(2);
            said.says(&["pipeline.yaml:6:8", "elsewhere", "allow_outside: true"]);
        }
        let json = env.run(&["check", "--json", "--param", &param]).exits(2).json();
        assert_eq!((number(&json[0]["line"]), number(&json[0]["column"])), (6, 8), "{json}");
    }
    assert!(!env.path(".bpp-flow").exists() && files_below(&env.path("../elsewhere")).len() == 1);
    for to in ["out", ".", "alias/deep", "alias/../inside/deeper", "link/../work/down"] {
        env.run(&["run", "--param", &format!("to={to}")]).exits(0);
        assert!(env.path(to).join("one.csv").exists(), "{to}");
    }
    env.write("pipeline.yaml", flow(allowed));
    env.run(&["run", "--param", "to=link"]).exits(0);
    assert_eq!(env.read("../elsewhere/one.csv"), "value,x\n1,1\n");
    for plain in ["../elsewhere/two.csv", "link/three.csv"] {
        env.write("pipeline.yaml", flow(plain));
        env.run(&["run"]).exits(0);
    }
    assert_eq!(files_below(&env.path("../elsewhere")).len(), 4);
}

/// A link that is made while the run goes is seen when the file is written.
#[test]
fn a_link_made_by_an_item_does_not_lead_an_output_out() {
    let flow = "params: { to: out }\nsources: { s: { values: [1] } }\nstages:\n  one: { map: s, shell: \"mkdir ../elsewhere; ln -s ../elsewhere out\" }\n\
        outputs: { one: \"{{ params.to }}/one.csv\" }\n";
    let env = TestEnv::with(flow, "");
    env.run(&["run"]).exits(1).says(&["elsewhere/one.csv", "allow_outside"]);
    assert!(files_below(&env.path("../elsewhere")).is_empty());
}

/// The row keeps its cell, the talk about it does not tell.
#[test]
fn a_plan_does_not_tell_a_cell_that_is_a_secret() {
    let env =
        hushed("sources: { s: { csv: s.csv, key: id } }\nstages:\n  one: { map: s, assign: { y: \"item.x\" } }\n", "");
    env.write("s.csv", format!("id,x\n1,{TOKEN}\n2,b\n"));
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("one", "y"), [TOKEN, "b"]);
    env.write("s.csv", "id,x\n1,a\n2,b\n");
    quietly(&env, &["plan"]).exits(0).says(&["x: *** → a"]);
    quietly(&env, &["plan", "--json"]).exits(0).says(&["x: *** → a"]);
}
