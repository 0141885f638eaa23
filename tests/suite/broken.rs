//! What fails before any item could start stops the run with exit 1 and marks no item.

use crate::env::*;

const GOOD: &str = "def work(row):\n    return {'y': 1}\n";

fn flow(stage: &str) -> String {
    format!(
        "sources: {{ n: {{ range: {{start: 0, stop: 20}} }} }}\nstages:\n  before: {{ map: n, assign: {{ k: \"item.value\" }} }}\n  \
         work: {{ map: before, {stage} }}\n"
    )
}

/// The run stops with these words, no item is marked, and a mended workflow runs to its end.
#[track_caller]
fn stops(stage: &str, module: &str, words: &[&str]) {
    let env = TestEnv::with(&flow(stage), module);
    let run = env.run(&["run", "--json"]);
    assert_eq!(run.code, Some(1), "{}", run.all());
    for word in words {
        assert!(run.stderr.contains(word), "{word} in {}", run.stderr);
    }
    if env.path(".bpp-flow").exists() {
        assert!(env.errors().is_empty(), "marks no item: {:?}", env.errors());
    }
    let status = env.status_of("work");
    counts(&status, &[("failed", 0), ("done", 0)]);
    env.write("pipeline.yaml", flow("python: \"f:work\""));
    env.write("f.py", GOOD);
    env.run(&["run"]).exits(0);
    assert_eq!(env.rows("work").len(), 20);
}

#[test]
fn a_missing_function() {
    stops("python: \"f:wrok\"", GOOD, &["wrok", "f"]);
}

#[test]
fn a_missing_module() {
    stops("python: \"no_such_module:work\"", GOOD, &["no_such_module"]);
}

#[test]
fn a_module_that_raises() {
    stops("python: \"f:work\"", "raise RuntimeError('not in the mood')\n", &["not in the mood", "f.py"]);
}

#[test]
fn a_module_that_does_not_parse() {
    stops("python: \"f:work\"", "def work(row:\n", &["SyntaxError", "f.py"]);
}

#[test]
fn a_module_that_imports_what_is_not_there() {
    stops("python: \"f:work\"", "import no_such_thing\n\ndef work(row):\n    pass\n", &["no_such_thing"]);
}

#[test]
fn a_module_that_exits() {
    stops("python: \"f:work\"", "import sys\nsys.exit(5)\n", &["f"]);
}

#[test]
fn a_module_that_dies() {
    stops("python: \"f:work\"", "import os\nos.abort()\n", &["work"]);
}

#[test]
fn a_module_under_threads() {
    stops("python: \"f:work\", backend: threads", "raise RuntimeError('not in the mood')\n", &["not in the mood"]);
}

#[test]
fn what_is_not_a_function() {
    stops("python: \"f:work\"", "work = 5\n", &["work"]);
}

#[test]
fn an_init_that_raises() {
    stops(
        "python: \"f:work\", init: { python: \"f:setup\" }",
        "def setup():\n    raise RuntimeError('no table')\n\ndef work(row):\n    pass\n",
        &["no table", "setup"],
    );
}

#[test]
fn an_init_that_is_missing() {
    stops("python: \"f:work\", init: { python: \"f:stup\" }", GOOD, &["stup"]);
}

#[test]
fn an_init_that_dies() {
    stops(
        "python: \"f:work\", init: { python: \"f:setup\" }",
        "import os\n\ndef setup():\n    os._exit(7)\n\ndef work(row):\n    pass\n",
        &["work"],
    );
}

#[test]
fn a_missing_program() {
    stops("command: [no-such-program-anywhere, x]", "", &["no-such-program-anywhere"]);
}

#[test]
fn a_program_that_may_not_be_run() {
    let env = TestEnv::with(&flow("command: [./tool, x]"), "");
    env.write("tool", "#!/bin/sh\necho hi\n");
    let run = env.run(&["run"]);
    assert_eq!(run.code, Some(1), "{}", run.all());
    assert!(run.stderr.contains("tool"), "{}", run.stderr);
    assert!(env.errors().is_empty());
    env.bash("chmod +x tool").exits(0);
    env.run(&["run"]).exits(0);
    assert_eq!(env.rows("work").len(), 20);
}

#[test]
fn a_missing_interpreter() {
    stops("python: \"f:work\", interpreter: /no/such/python", GOOD, &["/no/such/python"]);
}

#[test]
fn a_missing_folder() {
    let env = TestEnv::with(&flow("python: \"f:work\", cwd: no-such-folder"), GOOD);
    let run = env.run(&["run"]);
    assert_eq!(run.code, Some(1), "{}", run.all());
    assert!(run.stderr.contains("no-such-folder"), "{}", run.stderr);
    assert!(env.errors().is_empty());
}

#[test]
fn what_was_done_before_is_kept() {
    let env = TestEnv::with(
        &flow("python: \"f:work\"").replace("assign: { k: \"item.value\" }", "python: \"g:before\""),
        "import nothing_of_the_sort\n",
    );
    env.write("g.py", "import kit\n\ndef before(row):\n    kit.log('before', row['value'])\n    return {'k': 1}\n");
    env.run(&["run", "--stage", "before"]).exits(0);
    env.run(&["run"]).exits(1);
    env.write("f.py", GOOD);
    env.run(&["run"]).exits(0);
    assert_eq!(env.logged("before").len(), 20);
}
