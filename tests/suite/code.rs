//! What code results depend on: local modules, scripts and packages; and what a plan says of a change.

use crate::env::*;

const FLOW: &str = r#"
sources: { n: { range: {start: 0, stop: 4} } }
stages:
  work: { map: n, python: "f:measure", init: {python: "f:prepare"} }
"#;

const MODULE: &str = r#""""Features."""
from lib.grid import Grid
from lib import util as u

LIMIT = 10

def prepare():
    pass

def unrelated(row):
    return LIMIT

def measure(row):
    """Measures."""
    return {"y": u.scale(row["value"]) + Grid().size}
"#;

const UTIL: &str =
    "SCALE = 3\nUNUSED = 4\n\n\ndef scale(x):\n    return x * SCALE\n\n\ndef other(x):\n    return x + UNUSED\n";
const GRID: &str = "class Grid:\n    size = 1\n";

fn project() -> TestEnv {
    let env = TestEnv::with(FLOW, MODULE);
    env.write("lib/__init__.py", "");
    env.write("lib/util.py", UTIL);
    env.write("lib/grid.py", GRID);
    env.run(&["run"]).exits(0);
    env
}

fn due(env: &TestEnv) -> u64 {
    number(&env.plan_of("work")["due"])
}

#[test]
fn what_does_not_change_what_code_does_is_not_due() {
    let env = project();
    for (file, text) in [
        ("lib/util.py", UTIL.replace("SCALE = 3", "# A comment.\nSCALE = 3  # three")),
        (
            "lib/util.py",
            UTIL.replace("return x * SCALE", "\"\"\"Scales.\"\"\"\n\n    return (\n        x * SCALE\n    )"),
        ),
        ("lib/util.py", UTIL.replace("x + UNUSED", "x - UNUSED")),
        ("lib/util.py", UTIL.replace("UNUSED = 4", "UNUSED = 5")),
        ("f.py", MODULE.replace('"', "'")),
        ("f.py", MODULE.replace("return LIMIT", "return -LIMIT")),
        ("f.py", MODULE.replace("Measures.", "Measures well.")),
        ("lib/unused.py", "print(1)\n".to_string()),
    ] {
        env.write(file, &text);
        assert_eq!(due(&env), 0, "{text}");
        counts(&stage_of(&env.run_json(&[], 0), "work"), &[("ran", 0), ("cached", 4)]);
    }
}

#[test]
fn what_changed_is_named_with_its_file() {
    let env = project();
    for (file, text, words) in [
        ("lib/util.py", UTIL.replace("SCALE = 3", "SCALE = 4"), "constant SCALE in lib/util.py changed"),
        ("lib/util.py", UTIL.replace("x * SCALE", "x * SCALE + 0"), "function scale in lib/util.py changed"),
        ("lib/grid.py", GRID.replace("= 1", "= 2"), "class Grid in lib/grid.py changed"),
        ("f.py", MODULE.replace("\"y\": u", "\"y\": 1 + u"), "function measure in f.py changed"),
        ("f.py", MODULE.replace("    pass\n", "    return 1\n"), "function prepare in f.py changed"),
        ("lib/__init__.py", "import math\nx = print\nx()\n".to_string(), "the top level of lib/__init__.py changed"),
        (
            "f.py",
            MODULE.replace("def prepare():\n", "def prepare():\n    import lib.new\n"),
            "lib/new.py is imported now",
        ),
    ] {
        env.write("lib/new.py", "");
        let before = std::fs::read_to_string(env.path(file)).expect("is there");
        env.write(file, &text);
        let plan = env.plan_of("work");
        counts(&plan, &[("done", 0), ("due", 4)]);
        assert_eq!(reason(&plan, "code_changed"), 4, "{plan}");
        env.run(&["plan"]).exits(0).says(&[words]);
        env.write(file, before);
        assert_eq!(due(&env), 0, "{text}");
    }
}

#[test]
fn going_back_finds_the_earlier_results() {
    let env = project();
    let ran = || number(&stage_of(&env.run_json(&[], 0), "work")["ran"]);
    env.write("lib/util.py", UTIL.replace("SCALE = 3", "SCALE = 5"));
    assert_eq!(ran(), 4);
    assert_eq!(ints(&env.column("work", "y")), [1, 6, 11, 16]);
    env.write("lib/util.py", UTIL);
    assert_eq!(ran(), 0);
    assert_eq!(ints(&env.column("work", "y")), [1, 4, 7, 10]);
}

#[test]
fn modules_on_pythonpath_are_local() {
    let mut env = TestEnv::with(&FLOW.replace(", init: {python: \"f:prepare\"}", ", env: {PYTHONPATH: src}"), "");
    env.write("f.py", "import kept\nimport more\n\ndef measure(row):\n    return {'y': kept.X + more.X}\n");
    env.write("src/kept.py", "X = 1\n");
    env.write("site-packages/more.py", "X = 1\n");
    env.write("pipeline.yaml", env.read("pipeline.yaml").replace("PYTHONPATH: src", "PYTHONPATH: 'src:site-packages'"));
    env.run(&["run"]).exits(0);
    env.write("site-packages/more.py", "X = 2\n");
    assert_eq!(due(&env), 0, "what is installed does not count");
    env.write("src/kept.py", "X = 2\n");
    assert_eq!(due(&env), 4);
    env.run(&["plan"]).exits(0).says(&["constant X in src/kept.py changed"]);
    env.write("src/kept.py", "X = 1\n");
    env.write("pipeline.yaml", FLOW.replace(", init: {python: \"f:prepare\"}", ""));
    let path = format!("{}:{}", env.path("src").display(), env.path("site-packages").display());
    env.set_var("PYTHONPATH", &path);
    assert_eq!(due(&env), 0, "however it is set");
}

#[test]
fn scripts_that_a_command_names_count() {
    let env = TestEnv::with(
        r#"
params: { tool: tools/c.sh }
sources: { n: { values: [a, b] } }
stages:
  argv: { map: n, command: [bash, "{{ params.tool }}", "{{ item.value }}"] }
  shell: { map: n, shell: "cat < tools/d.txt > /dev/null; bash tools/e.sh {{ item.value }} > /dev/null; echo x 2> log.txt" }
  python: { map: n, command: [python3, tools/p.py, "{{ item.value }}"] }
  module: { map: n, cwd: tools, command: [python3, -m, p] }
  output: { map: n, command: [echo, "{{ item.value }}", out.csv] }
outputs:
  output: out.csv
"#,
        "",
    );
    env.write("tools/c.sh", "echo c $1\n");
    env.write("tools/d.txt", "d\n");
    env.write("tools/e.sh", "echo e $1\n");
    env.write("tools/p.py", "import q\n\nif __name__ == '__main__':\n    print(q.x())\n");
    env.write("tools/q.py", "def x():\n    return 1\n\ndef unused():\n    return 1\n");
    env.run(&["run"]).exits(0);
    let all = ["argv", "shell", "python", "module", "output"];
    let due = || -> Vec<&str> { all.into_iter().filter(|stage| number(&env.plan_of(stage)["due"]) > 0).collect() };
    assert_eq!(due(), [""; 0]);
    for (file, text, stages, words) in [
        ("tools/c.sh", "echo C $1\n", vec!["argv"], "script tools/c.sh changed"),
        ("tools/d.txt", "D\n", vec!["shell"], "script tools/d.txt changed"),
        ("tools/e.sh", "echo E $1\n", vec!["shell"], "script tools/e.sh changed"),
        ("tools/q.py", "def x():\n    return 2\n", vec!["python", "module"], "function x in tools/q.py changed"),
        ("tools/q.py", "def x():\n    return 1  # one\n", vec![], ""),
        (
            "tools/p.py",
            "import q\n\nif __name__ == '__main__':\n    print(-q.x())\n",
            vec!["python", "module"],
            "tools/p.py changed",
        ),
        ("log.txt", "more\n", vec![], ""),
        ("out.csv", "more\n", vec![], ""),
    ] {
        let before = env.read(file);
        env.write(file, text);
        assert_eq!(due(), stages, "{file}: {text}");
        env.run(&["plan"]).exits(0).says(&[words]);
        env.write(file, before);
    }
}

#[test]
fn versions_of_listed_packages_count() {
    let mut env = TestEnv::with(
        "sources: { n: { range: {start: 0, stop: 3} } }\ndefaults: { packages: [Fast_Grid, slowlib] }\nstages:\n  work: { map: n, python: \"f:work\" }\n  shown: { map: n, command: [echo, x] }\n",
        "def work(row):\n    return {'y': 1}\n",
    );
    env.write("lib/fast_grid-1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: fast-grid\nVersion: 1.2\n");
    env.write("lib/slow-3.dist-info/METADATA", "Metadata-Version: 2.1\nName: slow\nVersion: 3\n");
    env.write("lib/slow-3.dist-info/RECORD", "slowlib/__init__.py,,\n");
    let path = env.path("lib").display().to_string();
    env.set_var("PYTHONPATH", &path);
    env.run(&["run"]).exits(0);
    assert_eq!(due(&env), 0);
    env.write("lib/fast_grid-1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: fast-grid\nVersion: 2.0\n");
    let plan = env.plan_of("work");
    assert_eq!(reason(&plan, "packages_changed"), 3, "{plan}");
    env.run(&["plan"]).exits(0).says(&["Fast_Grid: 1.2 → 2.0"]);
    env.write("pipeline.yaml", env.read("pipeline.yaml").replace("Fast_Grid", "fastgrid"));
    env.run(&["plan"]).exits(1).says(&["stage work", "`fastgrid` is not installed", "did you mean `fast-grid`"]);
}

#[test]
fn modules_whose_names_are_begun_in_the_code_count() {
    for call in [
        "importlib.import_module('plugins.%s' % name)",
        "importlib.import_module('plugins.{}'.format(name))",
        "importlib.import_module('.' + name, 'plugins')",
        "importlib.import_module('.'.join(['plugins', name]))",
        "importlib.import_module(f'plugins.{name}')",
        "importlib.import_module('plugins.p' + name[1:])",
    ] {
        let code = format!(
            "import importlib\n\ndef work(row):\n    name = 'p' + str(row['value'])\n    return {{'y': {call}.Y}}\n"
        );
        let env =
            TestEnv::with("sources: { s: { values: [1] } }\nstages: { work: { map: s, python: \"f:work\" } }\n", &code);
        env.write("plugins/__init__.py", "");
        env.write("plugins/p1.py", "Y = 1\n");
        env.run(&["run"]).exits(0);
        env.write("plugins/p1.py", "Y = 2\n");
        assert_eq!(due(&env), 1, "{call}");
    }
}
