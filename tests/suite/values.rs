//! Values come through unharmed, or fail their item by name; whatever their neighbours are.

use serde_json::{Value as Json, json};

use crate::env::*;

/// Makes awkward values in Python and says what came back in the next stage.
const MODULE: &str = r#"
import datetime
import math

def tz(hours):
    return datetime.timezone(datetime.timedelta(hours=hours))

MADE = [
    0, 1, -1, True, False, None, 1.0, -0.0, 0.1, 1e308, 5e-324, float("nan"), float("inf"), float("-inf"),
    2**31, 2**63 - 1, -2**63, 2**63, -2**63 - 1, 2**64, 10**50, -10**50, 2**53 + 1,
    "", " ", "x", "ä☃𝄞", "a\nb\tc", "a\x00b", "\ufeff", "1", "nan", "None", "true", "x" * 5000,
    b"", b"\x00\xff\xfe", "text".encode(),
    [], [1, 2.0, None, "x"], [[[]]], {}, {"a": {"b": [1, {"c": None}]}}, {"": 1}, [float("nan"), 2**70],
    datetime.datetime(2024, 2, 29, 23, 59, 59, 999999), datetime.datetime(2024, 1, 1, tzinfo=tz(5.5)),
    datetime.datetime(1, 1, 1), datetime.date(1969, 12, 31), datetime.time(1, 2, 3, 4),
    datetime.timedelta(days=-1, microseconds=1),
    (1, 2), (), {1: 2} and [1],
]

def make(row):
    return {"v": MADE[row["value"]]}

def flat(value):
    if isinstance(value, tuple):
        value = list(value)
    return repr(value)

def compare(row):
    made = MADE[row["value"]]
    return {"same": flat(made) == flat(row["v"]) if "v" in row else made is None, "type": type(row.get("v")).__name__,
            "repr": flat(row.get("v"))}

def compare_chunk(rows):
    return [compare(row) for row in rows]

def count():
    return len(MADE)
"#;

fn awkward(settings: &str, compare: &str) -> TestEnv {
    TestEnv::with(
        &format!(
            "sources: {{ n: {{ range: {{start: 0, stop: 54}} }} }}\ndefaults: {{ {settings} }}\nstages:\n  \
             make: {{ map: n, python: \"f:make\" }}\n  back: {{ map: make, {compare} }}\n"
        ),
        MODULE,
    )
}

#[test]
fn values_come_through_unharmed() {
    let mut seen: Vec<Vec<Json>> = Vec::new();
    for settings in
        ["chunk_size: 1", "chunk_size: 100", "chunk_size: 7, batch_size: 9", "backend: threads", "backend: serial"]
    {
        for compare in ["python: \"f:compare\"", "python: \"f:compare_chunk\", call: chunk, chunk_format: rows"] {
            let env = awkward(settings, compare);
            env.run(&["run"]).exits(0);
            let rows = env.rows("back");
            assert_eq!(rows.len(), 54);
            for row in &rows {
                assert_eq!(row["same"], true, "{settings}, {compare}: {row}");
            }
            seen.push(rows);
        }
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "the same whatever the chunks are");
}

#[test]
fn values_come_through_a_reduce() {
    let env = TestEnv::with(
        r#"
sources: { n: { range: {start: 0, stop: 54} } }
stages:
  make: { map: n, python: "f:make" }
  all: { reduce: make, python: "f:all_same" }
"#,
        &format!(
            "{MODULE}\ndef all_same(rows):\n    return {{'bad': [r['value'] for r in rows if not compare(r)['same']]}}\n"
        ),
    );
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("all", "bad"), [json!([])]);
}

#[test]
fn exports_change_nothing_silently() {
    let env = TestEnv::with(
        r#"
sources: { s: { jsonl: a.jsonl } }
stages:
  work: { map: s, assign: { y: "item.v" } }
"#,
        "",
    );
    let lines = [
        "{\"v\":1}",
        "{\"v\":2.5}",
        "{\"v\":9007199254740993}",
        "{\"v\":123456789012345678901234567890}",
        "{\"v\":\"text\"}",
        "{\"v\":[1,\"x\",null]}",
        "{\"v\":{\"a\":1}}",
        "{\"v\":true}",
        "{\"v\":null}",
        "{\"v\":0.1}",
        "{\"v\":\"\\u0000\\ud83d\\ude00\"}",
    ];
    env.write("a.jsonl", lines.join("\n"));
    env.run(&["run"]).exits(0);
    for (line, row) in lines.iter().zip(env.rows("work")) {
        let expected: Json = serde_json::from_str(line).expect("json");
        assert_eq!(row["v"].to_string(), expected["v"].to_string());
        assert_eq!(row["y"].to_string(), expected["v"].to_string(), "through an expression");
    }
    let clash = env.run(&["results", "work", "--format", "parquet", "-o", "x.parquet"]);
    if clash.code == Some(0) {
        panic!("integers, text and lists in one Parquet column: {}", clash.all());
    }
    assert!(clash.all().contains('v'), "{}", clash.all());
    assert!(!env.path("x.parquet").exists());
}

#[test]
fn integers_and_floats_unite_only_without_loss() {
    let env =
        TestEnv::with("sources: { s: { jsonl: a.jsonl } }\nstages:\n  work: { map: s, assign: { y: \"1\" } }\n", "");
    env.write("a.jsonl", "{\"v\": 1}\n{\"v\": 2.5}\n");
    env.run(&["run"]).exits(0);
    env.run(&["results", "work", "-o", "x.parquet"]).exits(0);
    env.write("a.jsonl", "{\"v\": 9007199254740993}\n{\"v\": 2.5}\n");
    env.run(&["run"]).exits(0);
    let clash = env.run(&["results", "work", "-o", "y.parquet"]);
    assert_eq!(clash.code, Some(1), "{}", clash.all());
    assert!(clash.all().contains("9007199254740993") || clash.all().contains('v'), "{}", clash.all());
}

#[test]
fn a_large_string_both_ways() {
    let env = TestEnv::with(
        r#"
sources: { s: { jsonl: a.jsonl } }
stages:
  work: { map: s, python: "f:work" }
  back: { map: work, python: "f:back", keep: [n, tail] }
"#,
        r#"
def work(row):
    return {"twice": row["v"] + row["v"]}

def back(row):
    return {"n": len(row["twice"]), "tail": row["twice"][-3:]}
"#,
    );
    let long = "0123456789".repeat(1_000_000);
    env.write("a.jsonl", format!("{{\"v\": \"small\"}}\n{{\"v\": \"{long}\"}}\n{{\"v\": \"end\"}}\n"));
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("back", "n")), [10, 20_000_000, 6]);
    assert_eq!(text(&env.column("work", "twice")[1]).len(), 20_000_000);
    env.run(&["run"]).exits(0);
    assert_eq!(number(&env.plan_of("work")["done"]), 3);
}

#[test]
fn columns_with_awkward_names() {
    let env = TestEnv::with(
        r#"
sources: { s: { jsonl: a.jsonl } }
stages:
  work: { map: s, python: "f:work" }
  more: { map: work, assign: { t: "item.exception ~ item['a b']" } }
outputs: { more: out.csv }
"#,
        "def work(row):\n    return {'traceback': 1, 'value': row['exception'], 'self': 2, 'ä': 3}\n",
    );
    let row = json!({"exception": "e", "error": "r", "status": "s", "key": "k", "index": 1, "a b": 2, "": "empty",
                     "x,\"y": 4, "item": "i", "_": 5, "origin": 6, "class": 7});
    env.write("a.jsonl", format!("{row}\n"));
    env.run(&["run"]).exits(0);
    let got = env.rows("more");
    for (name, value) in row.as_object().expect("object") {
        assert_eq!(got[0][name], *value, "{name}");
    }
    assert_eq!(got[0]["t"], "e2");
    assert_eq!(got[0]["self"], 2);
    assert!(env.read("out.csv").starts_with("exception,error,status,key,index,a b,"));
}

#[test]
fn wide_and_deep_rows() {
    let env = TestEnv::with(
        "sources: { s: { jsonl: a.jsonl } }\nstages:\n  work: { map: s, python: \"f:work\" }\n",
        r#"
def depth(v):
    return 1 + depth(v[0]) if v else 1

def work(row):
    return {"n": len(row), "d": depth(row["deep"])}
"#,
    );
    let wide: serde_json::Map<String, Json> = (0..500).map(|i| (format!("c{i}"), json!(i))).collect();
    let mut row = wide;
    row.insert("deep".to_string(), (0..60).fold(json!([]), |inner, _| json!([inner])));
    env.write("a.jsonl", format!("{}\n", Json::Object(row)));
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("work", "n"), [json!(501)]);
    assert_eq!(env.column("work", "d"), [json!(61)]);
}

#[test]
fn bad_unicode_from_python_fails_its_item() {
    let env = TestEnv::with(
        "sources: { n: { range: {start: 0, stop: 3} } }\nstages:\n  work: { map: n, python: \"f:work\" }\n",
        "def work(row):\n    return {'v': '\\ud800' if row['value'] == 1 else 'good'}\n",
    );
    env.run(&["run"]).exits(100);
    assert_eq!(env.failures_by_kind(), [("output".to_string(), 1)].into());
    assert_eq!(ints(&env.column("work", "value")), [0, 2]);
}
