//! Sources: every reader, what it makes of awkward files, and what it tells of bad ones.

use std::io::Write as _;

use serde_json::{Value as Json, json};

use crate::env::*;

/// Names the type of every cell.
const TYPES: &str = r#"
def types(row):
    return {"types": {name: type(cell).__name__ for name, cell in row.items()}}
"#;

fn reading(source: &str) -> TestEnv {
    TestEnv::with(&format!("sources:\n  s: {source}\nstages:\n  types: {{ map: s, python: \"f:types\" }}\n"), TYPES)
}

#[test]
fn csv_types_are_inferred_without_loss() {
    let env = reading("{ csv: a.csv }");
    env.write(
        "a.csv",
        "int,zip,float,bool,date,text,mixed,empty\n1,007,1.5,true,2024-01-31,a,1,\n-20,123,2,false,2024-02-01,\"b,c\",x,\n",
    );
    env.run(&["run"]).exits(0);
    let types = env.column("types", "types");
    let expected = [
        ("int", "int"),
        ("zip", "str"),
        ("float", "float"),
        ("bool", "bool"),
        ("date", "str"),
        ("text", "str"),
        ("mixed", "str"),
    ];
    for row in &types {
        for (column, name) in expected {
            assert_eq!(row[column], name, "{column}");
        }
    }
    let rows = env.rows("types");
    assert_eq!(rows[0]["zip"], "007");
    assert_eq!(rows[1]["text"], "b,c");
    assert_eq!(rows[1]["int"], -20);
}

#[test]
fn csv_options() {
    let env = reading("{ csv: a.csv, delimiter: \";\", header: [a, b, c], schema: {a: text, c: float} }");
    env.write("a.csv", "1;2;3\n4;5;6\n");
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("types", "types")[0], json!({"a": "str", "b": "int", "c": "float"}));
    let env = reading("{ tsv: a.tsv }");
    env.write("a.tsv", "a\tb\n1\tx y\n");
    env.run(&["run"]).exits(0);
    assert_eq!(env.rows("types")[0]["b"], "x y");
}

#[test]
fn several_files_and_globs_of_files() {
    let env = reading("{ csv: [b.csv, a.csv] }");
    env.write("a.csv", "x\n1\n2\n");
    env.write("b.csv", "x\n3\n");
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("types", "x")), [3, 1, 2]);
    let env = reading("{ jsonl: \"part-*.jsonl\" }");
    env.write("part-2.jsonl", "{\"x\": 2}\n");
    env.write("part-1.jsonl", "{\"x\": 1}\n");
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("types", "x")), [1, 2]);
}

#[test]
fn an_empty_csv() {
    for text in ["id,x\n", "id,x"] {
        let env = TestEnv::with(
            r#"
sources: { s: { csv: a.csv } }
stages:
  map: { map: s, python: "f:types" }
  sum: { reduce: map, python: "f:total" }
outputs: { map: out.csv }
"#,
            &format!("{TYPES}\ndef total(rows):\n    return {{'n': len(list(rows))}}\n"),
        );
        env.write("a.csv", text);
        let summary = env.run_json(&[], 0);
        counts(&stage_of(&summary, "map"), &[("ran", 0), ("failed", 0)]);
        assert!(env.rows("map").is_empty());
        assert!(env.path("out.csv").exists(), "an output without rows is an output");
        counts(&env.plan_of("map"), &[("total", 0), ("due", 0)]);
        env.run(&["run"]).exits(0);
    }
}

#[test]
fn a_csv_of_no_bytes() {
    let env = reading("{ csv: a.csv }");
    env.write("a.csv", "");
    let run = env.run(&["run"]);
    assert!(matches!(run.code, Some(0 | 1)), "{}", run.all());
    if run.code == Some(1) {
        assert!(run.stderr.contains("a.csv"), "{}", run.stderr);
    }
}

#[test]
fn one_row() {
    let env = reading("{ csv: a.csv }");
    env.write("a.csv", "id,x\r\n1,2");
    env.run(&["run"]).exits(0);
    assert_eq!(env.rows("types"), [json!({"id": 1, "x": 2, "types": {"id": "int", "x": "int"}})]);
}

#[test]
fn a_row_with_missing_fields() {
    let env = reading("{ csv: a.csv }");
    env.write("a.csv", "id,x,y\n1,2,3\n4,5\n6,7,8\n");
    let run = env.run(&["run"]);
    let rows = env.rows("types");
    match run.code {
        Some(0) => {
            assert_eq!(ints(&env.column("types", "id")), [1, 4, 6]);
            assert_eq!(rows[1]["y"], Json::Null);
        }
        Some(100) => {
            assert_eq!(ints(&env.column("types", "id")), [1, 6]);
            assert_eq!(env.failures_by_kind()["input"], 1);
            run.says(&["a.csv", "3"]);
        }
        code => panic!("{code:?}: {}", run.all()),
    }
    let env = reading("{ jsonl: a.jsonl }");
    env.write("a.jsonl", "{\"id\": 1, \"x\": 2}\n{\"id\": 3}\n{\"x\": null}\n");
    env.run(&["run"]).exits(0);
    let types = env.column("types", "types");
    assert_eq!(types[1], json!({"id": "int"}), "a column that is not there is not there");
    assert_eq!(types[2], json!({"x": "NoneType"}), "null is None");
}

#[test]
fn a_bad_line_fails_alone() {
    let env = reading("{ jsonl: a.jsonl }");
    env.write("a.jsonl", "{\"id\": 1}\n{\"id\": \n{\"id\": 3}\n[4]\n");
    env.run(&["run"]).exits(100);
    assert_eq!(ints(&env.column("types", "id")), [1, 3]);
    assert_eq!(env.failures_by_kind()["input"], 2);
    env.run(&["errors", "--item", "1"]).exits(0).says(&["a.jsonl:2"]);
    env.run(&["errors", "--item", "3"]).exits(0).says(&["a.jsonl:4"]);
}

#[test]
fn a_late_cell_that_does_not_fit_fails_its_row() {
    let env = TestEnv::with(
        "sources:\n  s: { csv: a.csv }\nstages:\n  twice: { map: s, assign: { y: \"item.x * 2\" } }\n",
        "",
    );
    let mut csv = String::from("x\n");
    (0..12_000).for_each(|i| csv.push_str(&if i == 11_000 { "odd\n".to_string() } else { format!("{i}\n") }));
    env.write("a.csv", csv);
    env.run(&["run"]).exits(100);
    assert_eq!(env.rows("twice").len(), 11_999);
    let errors = env.errors();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0]["kind"], "input");
    env.run(&["errors", "--item", "11000"]).exits(0).says(&["a.csv:11002"]);
    env.write("a.csv", "x\n1\n2\n");
    env.run(&["run"]).exits(0);
}

#[test]
fn compressed_files() {
    let csv = numbers_csv(300);
    let env = reading("{ csv: a.csv.gz }");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(csv.as_bytes()).expect("gz");
    env.write("a.csv.gz", gz.finish().expect("gz"));
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("types", "id")), (0..300).collect::<Vec<_>>());
    let lines: String = (0..300).map(|i| format!("{{\"id\": {i}}}\n")).collect();
    let env = reading("{ jsonl: a.jsonl.zst }");
    env.write("a.jsonl.zst", zstd::encode_all(lines.as_bytes(), 1).expect("zstd"));
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("types", "id")), (0..300).collect::<Vec<_>>());
    env.write("a.jsonl.zst", &zstd::encode_all(lines.as_bytes(), 1).expect("zstd")[..40]);
    let cut = env.run(&["run"]);
    assert_ne!(cut.code, Some(0), "a cut file is no shorter file: {}", cut.all());
    assert!(cut.all().contains("a.jsonl.zst"), "{}", cut.all());
}

#[test]
fn parquet_and_arrow_come_back() {
    let rows = [
        json!({"i": 1, "f": 1.5, "b": true, "t": "ä☃"}),
        json!({"i": -9007199254740993_i64, "f": 1e300, "b": false, "t": ""}),
        json!({"i": null, "f": null, "b": null, "t": null}),
    ];
    let jsonl: String = rows.iter().map(|row| format!("{row}\n")).collect();
    for format in ["parquet", "arrow"] {
        let env = reading("{ jsonl: a.jsonl }");
        env.write("a.jsonl", &jsonl);
        env.run(&["run"]).exits(0);
        let out = format!("copy.{format}");
        env.run(&["results", "types", "--columns", "i,f,b,t", "-o", &out]).exits(0);
        env.write(
            "back.yaml",
            format!("sources:\n  s: {{ {format}: {out} }}\nstages:\n  types: {{ map: s, python: \"f:types\" }}\n"),
        );
        env.run(&["run", "back.yaml"]).exits(0);
        let back = env.run(&["results", "types", "-f", "back.yaml", "--format", "jsonl"]).exits(0).json_lines();
        for (row, copy) in rows.iter().zip(&back) {
            for column in ["i", "f", "b", "t"] {
                assert_eq!(row[column].to_string(), copy[column].to_string(), "{format} {column}");
            }
        }
        assert_eq!(back[0]["types"], json!({"i": "int", "f": "float", "b": "bool", "t": "str"}));
    }
}

#[test]
fn a_glob_has_a_row_per_file() {
    let env = TestEnv::with(
        r#"
sources:
  scans: { glob: "data/{patient}/{scan}.txt" }
stages:
  read: { map: scans, python: "f:read" }
"#,
        r#"
import kit

def read(row):
    kit.log("read", row["scan"])
    with open(row["path"]) as file:
        return {"content": file.read()}
"#,
    );
    for (path, content) in [("p2/c", "three"), ("p1/b", "two"), ("p1/a", "one")] {
        env.write(&format!("data/{path}.txt"), content);
    }
    env.write("data/p1/other.csv", "no");
    env.run(&["run"]).exits(0);
    let rows = env.rows("read");
    assert_eq!(env.column("read", "scan"), [json!("a"), json!("b"), json!("c")]);
    assert_eq!(env.column("read", "patient"), [json!("p1"), json!("p1"), json!("p2")]);
    assert_eq!(env.column("read", "content"), [json!("one"), json!("two"), json!("three")]);
    assert_eq!(rows[0]["name"], "a.txt");
    assert_eq!(rows[0]["stem"], "a");
    assert_eq!(rows[0]["size"], 3);
    assert!(text(&rows[0]["path"]).ends_with("data/p1/a.txt"));
    assert!(text(&rows[0]["parent"]).ends_with("p1"));
    env.run(&["run", "--item", &text(&rows[1]["path"])]).exits(0);

    env.clear_log("read");
    env.bash("touch -d '2001-01-01' data/p1/a.txt").exits(0);
    counts(&stage_of(&env.run_json(&[], 0), "read"), &[("ran", 0), ("cached", 3)]);
    env.write("data/p1/b.txt", "TWO");
    let plan = env.plan_of("read");
    counts(&plan, &[("due", 1), ("done", 2)]);
    assert_eq!(reason(&plan, "input_changed"), 1, "{plan}");
    counts(&stage_of(&env.run_json(&[], 0), "read"), &[("ran", 1), ("cached", 2)]);
    assert_eq!(env.logged("read"), ["b"]);
    assert_eq!(env.column("read", "content"), [json!("one"), json!("TWO"), json!("three")]);
    env.write("data/p1/b.txt", "two");
    counts(&stage_of(&env.run_json(&[], 0), "read"), &[("ran", 0), ("cached", 3)]);
    std::fs::remove_file(env.path("data/p1/a.txt")).expect("remove");
    env.write("data/p0/z.txt", "nought");
    counts(&stage_of(&env.run_json(&[], 0), "read"), &[("ran", 1), ("cached", 2)]);
    assert_eq!(env.column("read", "scan"), [json!("z"), json!("b"), json!("c")]);
}

#[test]
fn state_and_outputs_never_match_a_glob() {
    let env = TestEnv::with(
        r#"
sources:
  all: { glob: "**/*" }
stages:
  name: { map: all, assign: { n: "item.name" } }
outputs:
  name: made/out.csv
"#,
        "",
    );
    env.write("data.txt", "x");
    env.run(&["run"]).exits(0);
    let names = env.column("name", "name");
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("name", "name"), names);
    assert!(names.contains(&json!("data.txt")));
    assert!(names.iter().all(|name| name != "out.csv"));
}

#[test]
fn an_empty_glob_is_no_rows() {
    let env = reading("{ glob: \"none/*.txt\" }");
    let run = env.run(&["run"]);
    assert!(matches!(run.code, Some(0 | 1)), "{}", run.all());
    assert!(run.code == Some(0) || run.all().contains("none/"), "{}", run.all());
}

#[test]
fn lines_of_a_file_and_of_standard_input() {
    let env = reading("{ lines: words.txt }");
    env.write("words.txt", "one\n two \n\nlast");
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("types", "line"), [json!("one"), json!(" two "), json!(""), json!("last")]);

    let env = TestEnv::with(
        r#"
sources: { s: { lines: stdin } }
stages:
  see: { map: s, python: "f:see" }
outputs: { see: out.jsonl }
"#,
        "import kit\n\ndef see(row):\n    kit.log('saw', row['line'])\n    return {'n': len(row['line'])}\n",
    );
    env.run_with_input(&["run"], "a\nbb\nccc\n").exits(0);
    assert_eq!(ints(&env.column("see", "n")), [1, 2, 3], "results need no standard input");
    assert_eq!(env.read("out.jsonl").lines().count(), 3);
    counts(&env.plan_of("see"), &[("total", 3), ("due", 0)]);
    env.clear_log("saw");
    env.run_with_input(&["run"], "a\ndddd\nccc\n").exits(0);
    assert_eq!(env.logged("saw"), ["dddd"]);
    assert_eq!(ints(&env.column("see", "n")), [1, 4, 3]);
}

#[test]
fn values_and_ranges() {
    let env = reading("{ values: [1, two, 3.5, null, true, [1, 2]] }");
    env.run(&["run"]).exits(0);
    assert_eq!(
        env.column("types", "value"),
        [json!(1), json!("two"), json!(3.5), Json::Null, json!(true), json!([1, 2])]
    );
    let env = reading("{ values: [{a: 1, b: x}, {a: 2}] }");
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("types", "a"), [json!(1), json!(2)]);
    assert_eq!(env.column("types", "b"), [json!("x"), Json::Null]);
    let env = reading("{ range: {start: 10, stop: 0, step: -4} }");
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("types", "value")), [10, 6, 2]);
    let env = reading("{ range: {start: 0, stop: 0.5, step: 0.125} }");
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("types", "value"), [json!(0.0), json!(0.125), json!(0.25), json!(0.375)]);
}

#[test]
fn a_missing_file_stops_the_run_and_marks_nothing() {
    let env = reading("{ csv: absent.csv }");
    env.run(&["run"]).exits(1).says(&["absent.csv"]);
    assert!(env.errors().is_empty());
    env.write("absent.csv", "x\n1\n");
    env.run(&["run"]).exits(0);
    std::fs::remove_file(env.path("absent.csv")).expect("remove");
    env.run(&["run"]).exits(1).says(&["absent.csv"]);
    assert_eq!(env.rows("types").len(), 1, "results are what they were");
}

#[test]
fn duplicate_keys_are_never_silent() {
    let env = TestEnv::with(
        r#"
sources: { s: { csv: a.csv, key: id } }
stages:
  see: { map: s, python: "f:see" }
"#,
        "def see(row):\n    return {'y': row['x'] + 1}\n",
    );
    env.write("a.csv", "id,x\nfirst,1\ntwin,2\ntwin,3\nlast,4\n");
    let run = env.run(&["run"]);
    if run.code == Some(0) {
        assert_eq!(ints(&env.column("see", "y")), [2, 3, 4, 5]);
    } else {
        let told = format!("{} {}", run.all(), env.run(&["errors"]).all());
        assert!(told.contains("twin"), "{told}");
        if run.code == Some(100) {
            let good = ints(&env.column("see", "y"));
            assert!(good.contains(&2) && good.contains(&5), "{good:?}");
        }
    }
}

#[test]
fn a_missing_key_column_is_told() {
    let env = TestEnv::with(
        "sources: { s: { csv: a.csv, key: no_such } }\nstages:\n  see: { map: s, assign: { y: \"1\" } }\n",
        "",
    );
    env.write("a.csv", "id,x\n1,2\n");
    let run = env.run(&["run"]);
    assert_ne!(run.code, Some(0));
    assert!(run.all().contains("no_such"), "{}", run.all());
}
