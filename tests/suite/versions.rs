//! What is recomputed and what is not: cut-off, unused columns, earlier versions, rows that come, go and move.

use serde_json::json;

use crate::env::*;

const CHAIN: &str = r#"
sources:
  numbers: { csv: numbers.csv KEY }
stages:
  first: { map: numbers, python: "f:first" }
  second: { map: first, python: "g:second" }
"#;

const FIRST: &str =
    "import kit\n\ndef first(row):\n    kit.log('first', row['id'])\n    return {'half': row['x'] // 20}\n";
const SECOND: &str =
    "import kit\n\ndef second(row):\n    kit.log('second', row['id'])\n    return {'z': row['half'] * 3}\n";

fn chain(key: &str, rows: &str) -> TestEnv {
    let env = TestEnv::with(&CHAIN.replace("KEY", key), FIRST);
    env.write("g.py", SECOND);
    env.write("numbers.csv", format!("id,x\n{rows}"));
    env
}

fn ran(env: &TestEnv) -> (u64, u64) {
    let summary = env.run_json(&[], 0);
    let of = |stage| number(&stage_of(&summary, stage)["ran"]);
    (of("first"), of("second"))
}

#[test]
fn equal_rows_cut_off_what_follows() {
    let env = chain("", "1,20\n2,40\n3,60\n");
    assert_eq!(ran(&env), (3, 3));
    env.write("f.py", FIRST.replace("// 20", "// 10 // 2"));
    assert_eq!(ran(&env), (3, 0), "the first stage gave equal rows");
    env.write("f.py", FIRST.replace("// 20", "// 20 + (row['id'] == 2)"));
    assert_eq!(ran(&env), (3, 1), "one row differs");
    assert_eq!(ints(&env.column("second", "z")), [3, 9, 9]);
}

#[test]
fn going_back_finds_the_earlier_results() {
    let env = chain("", "1,20\n2,40\n3,60\n");
    assert_eq!(ran(&env), (3, 3));
    env.write("f.py", FIRST.replace("// 20", "// 5"));
    assert_eq!(ran(&env), (3, 3));
    env.write("f.py", FIRST);
    assert_eq!(ran(&env), (0, 0));
    assert_eq!(ints(&env.column("second", "z")), [3, 6, 9]);
    assert_eq!(env.logged("first").len(), 6);
}

#[test]
fn going_back_finds_earlier_inputs_too() {
    for key in ["", ", key: id"] {
        let env = chain(key, "1,20\n2,40\n3,60\n");
        assert_eq!(ran(&env), (3, 3));
        env.write("numbers.csv", "id,x\n1,20\n2,80\n3,60\n");
        assert_eq!(ran(&env), (1, 1), "{key}");
        assert_eq!(ints(&env.column("second", "z")), [3, 12, 9]);
        env.write("numbers.csv", "id,x\n1,20\n2,40\n3,60\n");
        assert_eq!(ran(&env), (0, 0), "{key}");
        assert_eq!(ints(&env.column("second", "z")), [3, 6, 9]);
    }
}

#[test]
fn going_back_to_earlier_arguments() {
    let env = TestEnv::with(
        r#"
params: { by: 2 }
sources: { numbers: { range: {start: 0, stop: 4} } }
stages:
  times: { map: numbers, python: "f:times", args: { by: "{{ params.by }}" } }
"#,
        "def times(row, *, by):\n    return {'y': row['value'] * by}\n",
    );
    let ran = |param: &str| number(&stage_of(&env.run_json(&["--param", param], 0), "times")["ran"]);
    assert_eq!(ran("by=2"), 4);
    assert_eq!(ran("by=3"), 4);
    assert_eq!(
        ints(
            &env.run(&["results", "times", "--param", "by=3", "--format", "jsonl"])
                .exits(0)
                .json_lines()
                .iter()
                .map(|r| r["y"].clone())
                .collect::<Vec<_>>()
        ),
        [0, 3, 6, 9]
    );
    assert_eq!(ran("by=2"), 0);
    assert_eq!(ran("by=3"), 0);
    assert_eq!(ran("by=2.0"), 4, "a float is not an integer");
    env.run(&["run", "--param", "bye=2"]).exits(2).says(&["bye", "by"]);
}

#[test]
fn rows_that_come_go_and_move() {
    for key in ["", ", key: id"] {
        let env = chain(key, "1,20\n2,40\n3,60\n");
        assert_eq!(ran(&env), (3, 3));
        env.write("numbers.csv", "id,x\n1,20\n9,180\n2,40\n3,60\n");
        assert_eq!(ran(&env), (1, 1), "inserted, {key}");
        assert_eq!(ints(&env.column("second", "id")), [1, 9, 2, 3]);
        env.write("numbers.csv", "id,x\n9,180\n2,40\n3,60\n");
        assert_eq!(ran(&env), (0, 0), "removed, {key}");
        assert_eq!(ints(&env.column("second", "id")), [9, 2, 3]);
        env.write("numbers.csv", "id,x\n3,60\n2,40\n9,180\n");
        assert_eq!(ran(&env), (0, 0), "moved, {key}");
        assert_eq!(ints(&env.column("second", "z")), [9, 6, 27]);
        env.write("numbers.csv", "id,x\n3,60\n1,20\n2,40\n9,180\n7,140\n");
        assert_eq!(ran(&env), (1, 1), "one returned, one new, {key}");
        assert_eq!(ints(&env.column("second", "id")), [3, 1, 2, 9, 7]);
    }
}

#[test]
fn equal_rows_are_counted() {
    let env = chain("", "1,20\n1,20\n2,40\n");
    assert_eq!(ran(&env), (3, 3), "equal rows without a key are items of their own");
    env.write("numbers.csv", "id,x\n1,20\n2,40\n1,20\n1,20\n");
    assert_eq!(ran(&env), (1, 1), "one more of them");
    assert_eq!(ints(&env.column("second", "id")), [1, 2, 1, 1]);
    env.write("numbers.csv", "id,x\n2,40\n1,20\n");
    assert_eq!(ran(&env), (0, 0));
    assert_eq!(env.rows("second").len(), 2);
}

#[test]
fn unused_columns_may_change() {
    let env = TestEnv::with(
        r#"
sources:
  people: { csv: people.csv, key: id }
stages:
  greet: { map: people, python: "f:greet", use: [name] }
  next: { map: greet, assign: { shout: "item.greeting ~ '!'" } }
"#,
        "import kit\n\ndef greet(row):\n    kit.log('saw', sorted(row))\n    return {'greeting': 'hi ' + row['name']}\n",
    );
    env.write("people.csv", "id,name,age\n1,Ann,30\n2,Bob,40\n");
    env.run(&["run"]).exits(0);
    assert_eq!(distinct(&env.logged("saw")).into_iter().collect::<Vec<_>>(), ["['name']"]);
    env.write("people.csv", "id,name,age,extra\n1,Ann,31,u\n2,Bob,41,v\n");
    let summary = env.run_json(&[], 0);
    counts(&stage_of(&summary, "greet"), &[("ran", 0), ("cached", 2)]);
    assert_eq!(
        env.rows("next")[0],
        json!({"id": 1, "name": "Ann", "age": 31, "extra": "u", "greeting": "hi Ann", "shout": "hi Ann!"}),
        "new values are shown"
    );
    env.write("people.csv", "id,name,age\n1,Ann,30\n2,Rob,40\n");
    counts(&stage_of(&env.run_json(&[], 0), "greet"), &[("ran", 1), ("cached", 1)]);
}

#[test]
fn results_of_rows_without_a_key_outlast_an_unused_column() {
    let first = "sources: { s: { csv: s.csv } }\nstages:\n  first: { map: s, assign: { y: \"item.x + 1\" } }\n";
    let env = TestEnv::with(first, "");
    env.write("s.csv", "x\n1\n2\n");
    env.run(&["run"]).exits(0);
    env.write("s.csv", "x,extra\n1,u\n2,v\n");
    env.run(&["run"]).exits(0);
    // The rows stand where they stood now, but their results were made for others.
    env.write("pipeline.yaml", format!("{first}  second: {{ map: first, assign: {{ z: \"item.y + 1\" }} }}\n"));
    counts(&env.plan_of("first"), &[("done", 2), ("due", 0)]);
    let summary = env.run_json(&[], 0);
    counts(&stage_of(&summary, "first"), &[("ran", 0), ("cached", 2)]);
    counts(&stage_of(&summary, "second"), &[("ran", 2)]);
}

#[test]
fn a_result_that_another_item_was_given_is_its_own_from_then_on() {
    let flow = |version: u32| {
        format!(
            "sources: {{ s: {{ csv: s.csv }} }}\nstages:\n  a: {{ map: s, assign: {{ y: \"1\" }}, version: \"{version}\" }}\n  b: {{ map: a, assign: {{ z: \"item.y + 1\" }} }}\n"
        )
    };
    let env = TestEnv::with(&flow(1), "");
    env.write("s.csv", "x\n1\n");
    env.run(&["run"]).exits(0);
    env.write("pipeline.yaml", flow(2));
    env.write("s.csv", "x\n3\n");
    env.run(&["run", "--stage", "a"]).exits(0);
    // In b, 3 comes first and is given the result of 1, which then comes and has it too.
    env.write("s.csv", "x\n3\n1\n");
    counts(&stage_of(&env.run_json(&[], 0), "b"), &[("ran", 0), ("cached", 2)]);
    assert_eq!(ints(&env.column("b", "x")), [3, 1], "both have a result, in whatever order they are looked up");
}

#[test]
fn expressions_use_what_they_name() {
    let env = TestEnv::with(
        r#"
sources:
  people: { csv: people.csv, key: id }
stages:
  called: { map: people, command: ["echo", "{{ item.name }}"] }
"#,
        "",
    );
    env.write("people.csv", "id,name,age\n1,Ann,30\n2,Bob,40\n");
    env.run(&["run"]).exits(0);
    env.write("people.csv", "id,name,age\n1,Ann,31\n2,Rob,40\n");
    counts(&stage_of(&env.run_json(&[], 0), "called"), &[("ran", 1), ("cached", 1)]);
    assert_eq!(env.column("called", "stdout"), [json!("Ann"), json!("Rob")]);
    assert_eq!(ints(&env.column("called", "age")), [31, 40]);
}

#[test]
fn how_it_runs_never_counts() {
    let flow = |settings: &str| {
        format!(
            "sources: {{ n: {{ range: {{start: 0, stop: 12}} }} }}\nstages:\n  work: {{ map: n, python: \"f:work\", \
             {settings} }}\n"
        )
    };
    let env = TestEnv::with(&flow("workers: 2"), "def work(row):\n    return {'y': 1}\n");
    env.run(&["run"]).exits(0);
    for settings in [
        "workers: 4, chunk_size: 3",
        "backend: threads, batch_size: 5",
        "backend: serial, retries: 3, timeout: 50s",
        "env: {A: b}, on_error: stop, max_failures: 5%",
    ] {
        env.write("pipeline.yaml", flow(settings));
        counts(&stage_of(&env.run_json(&[], 0), "work"), &[("ran", 0), ("cached", 12)]);
    }
}

#[test]
fn what_a_result_depends_on_counts() {
    let flow = |settings: &str| {
        format!(
            "sources: {{ n: {{ range: {{start: 0, stop: 3}} }} }}\nstages:\n  work: {{ map: n, python: \"f:work\", \
             {settings} }}\n"
        )
    };
    let env = TestEnv::with(
        &flow(r#"version: "1", deps: ["table*.txt"]"#),
        "def work(row, **more):\n    return {'y': 1}\n\ndef setup(**more):\n    pass\n",
    );
    env.write("table1.txt", "one");
    let ran = || number(&stage_of(&env.run_json(&[], 0), "work")["ran"]);
    assert_eq!(ran(), 3);
    assert_eq!(ran(), 0);
    env.write("table1.txt", "two");
    assert_eq!(ran(), 3, "a file under deps");
    env.write("table2.txt", "more");
    assert_eq!(ran(), 3, "another file under deps");
    for settings in [
        r#"version: "2", deps: ["table*.txt"]"#,
        r#"version: "2""#,
        r#"version: "2", init: {python: "f:setup"}"#,
        r#"version: "2", init: {python: "f:setup", args: {a: 1}}"#,
        r#"version: "2", args: {a: [1, {b: 2}]}"#,
        r#"version: "2", args: {a: [1, {b: 3}]}"#,
    ] {
        env.write("pipeline.yaml", flow(settings));
        assert_eq!(ran(), 3, "{settings}");
        assert_eq!(ran(), 0, "{settings}");
    }
}

#[test]
fn a_changed_command_runs_again() {
    let flow = |word: &str| {
        format!(
            "sources: {{ n: {{ values: [a, b] }} }}\nstages:\n  say: {{ map: n, command: [echo, {word}, \"{{{{ item.value }}}}\"] }}\n"
        )
    };
    let env = TestEnv::with(&flow("hi"), "");
    env.run(&["run"]).exits(0);
    env.write("pipeline.yaml", flow("ho"));
    let plan = env.plan_of("say");
    counts(&plan, &[("due", 2), ("done", 0)]);
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("say", "stdout"), [json!("ho a"), json!("ho b")]);
}

#[test]
fn fresh_takes_no_earlier_result() {
    let env = chain("", "1,20\n2,40\n");
    assert_eq!(ran(&env), (2, 2));
    let summary = env.run_json(&["--fresh"], 0);
    counts(&stage_of(&summary, "first"), &[("ran", 2), ("cached", 0)]);
    counts(&stage_of(&summary, "second"), &[("ran", 2), ("cached", 0)]);
    assert_eq!(env.logged("first").len(), 4);
    assert_eq!(ran(&env), (0, 0));
}

#[test]
fn a_reduce_runs_again_only_where_a_group_changed() {
    let env = TestEnv::with(
        r#"
sources:
  numbers: { csv: numbers.csv, key: id }
stages:
  total: { reduce: numbers, python: "f:total", group_by: [g] }
"#,
        r#"
import kit

def total(rows):
    rows = list(rows)
    kit.log("groups", rows[0]["g"])
    return {"ids": [row["id"] for row in rows]}
"#,
    );
    env.write("numbers.csv", "id,g,x\n1,a,1\n2,b,2\n3,a,3\n");
    env.run(&["run"]).exits(0);
    env.clear_log("groups");
    env.write("numbers.csv", "id,g,x\n1,a,1\n2,b,5\n3,a,3\n");
    counts(&stage_of(&env.run_json(&[], 0), "total"), &[("ran", 1), ("cached", 1)]);
    assert_eq!(env.logged("groups"), ["b"]);
    env.clear_log("groups");
    env.write("numbers.csv", "id,g,x\n3,a,3\n1,a,1\n2,b,5\n");
    env.run(&["run"]).exits(0);
    assert_eq!(env.logged("groups"), ["a"], "the order within a group counts");
    let a = env.rows("total").into_iter().find(|row| row["g"] == "a").expect("group a");
    assert_eq!(a["ids"], json!([3, 1]));
    env.clear_log("groups");
    env.write("numbers.csv", "id,g,x\n3,a,3\n1,a,1\n");
    env.run(&["run"]).exits(0);
    assert!(env.logged("groups").is_empty());
    assert_eq!(env.rows("total").len(), 1, "a group that is gone has no row");
}

#[test]
fn a_new_stage_runs_alone() {
    let env = chain("", "1,20\n2,40\n");
    assert_eq!(ran(&env), (2, 2));
    env.write("pipeline.yaml", CHAIN.replace("KEY", "") + "  third: { map: second, assign: { w: \"item.z + 1\" } }\n");
    assert_eq!(ran(&env), (0, 0));
    assert_eq!(ints(&env.column("third", "w")), [4, 7]);
}

#[test]
fn a_store_of_a_later_version_is_refused_and_left_alone() {
    let env = TestEnv::with(
        "sources: { n: { range: {start: 0, stop: 5} } }\nstages:\n  work: { map: n, assign: { y: \"1\" } }\n",
        "",
    );
    env.run(&["run"]).exits(0);
    let store = env.path(".bpp-flow/pipeline/store.redb");
    let database = redb::Database::open(&store).expect("a store");
    let transaction = database.begin_write().expect("a transaction");
    let facts = redb::TableDefinition::<&str, u64>::new("facts");
    transaction.open_table(facts).expect("facts").insert("format", 1000).expect("insert");
    transaction.commit().expect("commit");
    drop(database);
    let bytes = std::fs::read(&store).expect("a store");
    let commands: [&[&str]; 11] = [
        &["run"],
        &["plan"],
        &["status"],
        &["results", "work"],
        &["errors"],
        &["runs"],
        &["retry", "--failed"],
        &["runs", "rm", "1"],
        &["store", "stats"],
        &["store", "verify"],
        &["store", "verify", "--repair"],
    ];
    for command in commands {
        let out = env.run(command);
        assert!(matches!(out.code, Some(1)), "{command:?}: {}", out.all());
        out.says(&["the store has format 1000", "newer bpp-flow"]);
        assert!(std::fs::read(&store).expect("a store") == bytes, "{command:?} changed it");
    }
}

#[test]
fn a_key_may_come_with_other_code() {
    let flow = |source: &str, text: &str| {
        format!(
            "sources: {{ s: {{ csv: s.csv{source} }} }}\nstages: {{ m: {{ map: s, assign: {{ y: \"{text}\" }} }} }}\n"
        )
    };
    let env = TestEnv::with(&flow("", "item.id"), "");
    env.write("s.csv", "id,n\n1,a\n2,b\n");
    env.run(&["run"]).exits(0);
    for (key, text) in [
        (", key: id", "item.id + 1"),
        (", key: n", "item.id + 2"),
        (", key: [id, n]", "item.id + 3"),
        ("", "item.id + 4"),
    ] {
        env.write("pipeline.yaml", flow(key, text));
        counts(&stage_of(&env.run_json(&[], 0), "m"), &[("ran", 2)]);
        assert_eq!(env.rows("m").len(), 2, "{key}");
        env.run(&["plan", "--check"]).exits(0);
    }
}

#[test]
fn files_of_single_items_are_looked_at_though_nothing_else_has_changed() {
    let env = TestEnv::with(
        "sources: { s: { values: [1, 2] } }\nstages: { m: { map: s, assign: { y: \"item.value\" }, deps: [\"q/{{ item.value }}.t\"] } }\n",
        "",
    );
    ["1", "2"].iter().for_each(|name| env.write(&format!("q/{name}.t"), name));
    env.run(&["run"]).exits(0);
    env.run(&["plan", "--check"]).exits(0);
    env.write("q/1.t", "other");
    counts(&env.plan_of("m"), &[("done", 1), ("due", 1)]);
    counts(&stage_of(&env.run_json(&[], 0), "m"), &[("ran", 1), ("cached", 1)]);
}
