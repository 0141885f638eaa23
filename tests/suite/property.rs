//! The property that guards the core: random tables of awkward values through random small workflows give the same
//! rows and failures whatever the chunk and batch sizes, the workers and the backend, and whatever kills and resumes
//! came in between; and what they give is what a naive oracle gives.
//!
//! `BPP_TEST_CASES` says how many workflows, `BPP_TEST_SEED` which is the first. A failing case tells its seed.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::env::*;
use crate::random::Random;

/// A cell as JSON text.
fn cell(random: &mut Random, depth: u32) -> String {
    const SCALARS: [&str; 30] = [
        "null",
        "true",
        "false",
        "0",
        "-1",
        "1",
        "1.0",
        "-0.0",
        "0.1",
        "1e300",
        "5e-324",
        "2147483648",
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775808",
        "18446744073709551616",
        "123456789012345678901234567890",
        "9007199254740993",
        "\"\"",
        "\"a\"",
        "\"1\"",
        "\"nan\"",
        "\"ä☃𝄞\"",
        "\"line\\nbreak\"",
        "\"\\u0000\"",
        "\"tab\\t\\\"quoted\\\"\"",
        "\" \"",
        "\"true\"",
        "\"\\ufeff\"",
        "1e16",
    ];
    match random.below(if depth > 2 { 8 } else { 10 }) {
        8 => {
            let items: Vec<String> = (0..random.below(4)).map(|_| cell(random, depth + 1)).collect();
            format!("[{}]", items.join(","))
        }
        9 => {
            let items: Vec<String> = (0..random.below(3))
                .map(|i| format!("\"{}\":{}", ["x", "y z", "ü"][i as usize], cell(random, depth + 1)))
                .collect();
            format!("{{{}}}", items.join(","))
        }
        _ => random.pick(&SCALARS).to_string(),
    }
}

/// Rows: `k` a small integer, `g` a small group, `v` and `w` anything or absent.
fn table(random: &mut Random, keyed: bool) -> String {
    let rows = random.below(60) + random.below(3);
    let mut text = String::new();
    for row in 0..rows {
        let k = random.below(20);
        let g = random.pick(&["\"a\"", "\"b\"", "1", "null", "\"long group name\""]).to_string();
        write!(text, "{{\"k\":{k},\"g\":{g}").expect("text");
        if keyed {
            write!(text, ",\"id\":\"r{row}\"").expect("text");
        }
        if random.below(5) > 0 {
            write!(text, ",\"v\":{}", cell(random, 0)).expect("text");
        }
        if random.below(2) > 0 {
            write!(text, ",\"w\":{}", cell(random, 1)).expect("text");
        }
        text.push_str("}\n");
    }
    text
}

/// A stage for the oracle, and as YAML.
struct Stage {
    plan: Json,
    yaml: String,
}

fn stage(name: &str, inputs: &[String], random: &mut Random, reduced: bool) -> Stage {
    let list = format!("[{}]", inputs.join(", "));
    let input = if inputs.len() == 1 { &inputs[0] } else { &list };
    let python = |verb: &str, op: &str, args: Json, group_by: Json| {
        let mut yaml = format!("  {name}: {{ {verb}: {input}, python: \"ops:{op}\", args: {args}");
        if group_by.as_array().is_some_and(|g| !g.is_empty()) {
            write!(yaml, ", group_by: {group_by}").expect("text");
        }
        Stage {
            plan: json!({"name": name, "verb": verb, "inputs": inputs, "op": op, "args": args, "group_by": group_by}),
            yaml: yaml + " }\n",
        }
    };
    let none = json!([]);
    match random.below(if reduced { 9 } else { 12 }) {
        0 => python("map", "tell", json!({}), none),
        1 => python("map", "make", json!({"step": random.below(5) + 1}), none),
        2 => python("map", "number", json!({"by": random.below(3)}), none),
        3 => python("map", "nothing", json!({}), none),
        4 => {
            let every = random.below(4) + 2;
            python("map", "fail", json!({"every": every, "at": random.below(every)}), none)
        }
        5 => {
            let assign = json!({"r": "item.k % 3", "s": "item.k * 2 + 1"});
            Stage {
                plan: json!({"name": name, "verb": "assign", "inputs": inputs, "op": "", "args": assign, "group_by": []}),
                yaml: format!("  {name}: {{ map: {input}, assign: {assign} }}\n"),
            }
        }
        6 => {
            let condition = random.pick(&["item.k % 2 == 0", "item.k > 4 or item.k == 1"]);
            Stage {
                plan: json!({"name": name, "verb": "where", "inputs": inputs, "op": condition, "args": {}, "group_by": []}),
                yaml: format!("  {name}: {{ filter: {input}, where: \"{condition}\" }}\n"),
            }
        }
        7 => python("filter", "keep", json!({"than": random.below(3) + 2}), none),
        8 => python("flat_map", "spread", json!({"most": random.below(4) + 1}), none),
        9 => python("flat_map", "single", json!({}), none),
        10 => python("reduce", "gather", json!({}), json!(["g"])),
        _ => {
            let group = if random.below(2) == 0 { json!([]) } else { json!(["g"]) };
            python("reduce", "total", json!({"shift": random.below(4)}), group)
        }
    }
}

struct Case {
    rows: String,
    keyed: bool,
    stages: Vec<Stage>,
}

fn case(seed: u64) -> Case {
    let mut random = Random(seed);
    let keyed = random.below(2) == 0;
    let rows = table(&mut random, keyed);
    let mut stages: Vec<Stage> = Vec::new();
    // What may be read: the name, and whether a reduce came before (its rows have no `g` for sure, and no order).
    let mut names = vec![("rows".to_string(), false)];
    for n in 0..random.below(5) + 1 {
        let from = names.len().saturating_sub(3);
        let (first, reduced) = names[from + random.below((names.len() - from) as u64) as usize].clone();
        let mut inputs = vec![first.clone()];
        if random.below(6) == 0 {
            let (other, also) = random.pick(&names);
            if other != first && also == reduced {
                inputs.push(other);
            }
        }
        let name = format!("s{n}");
        let made = stage(&name, &inputs, &mut random, reduced);
        let reduces = made.plan["verb"] == "reduce";
        stages.push(made);
        names.push((name, reduced || reduces));
    }
    Case { rows, keyed, stages }
}

/// Settings, and how often the run is killed on its way.
const CONFIGURATIONS: [(&str, u32); 8] = [
    ("chunk_size: auto", 0),
    ("chunk_size: 1, workers: 3", 0),
    ("batch_size: 1, workers: 2", 0),
    ("chunk_size: 7, batch_size: 10, workers: 4", 3),
    ("backend: serial, batch_size: 13", 1),
    ("backend: threads, workers: 3, chunk_size: 2", 2),
    ("backend: threads, workers: 2, batch_size: 5", 0),
    ("chunk_size: 1000, workers: 1", 2),
];

/// The name of each stage, and rows as canonical text.
type Rows = Vec<(String, Vec<String>)>;

/// What somebody outside sees of a finished workflow.
#[derive(Debug, PartialEq)]
struct Seen {
    rows: Rows,
    failed: Rows,
    errors: Vec<String>,
}

fn see(env: &TestEnv, case: &Case) -> Seen {
    let mut seen = Seen { rows: Vec::new(), failed: Vec::new(), errors: Vec::new() };
    for stage in &case.stages {
        let name = text(&stage.plan["name"]);
        let rows = env.rows(&name).iter().map(|row| canonical(row, true)).collect();
        let failed = env.failed_rows(&name).iter().map(|row| canonical(&without_story(row), true)).collect();
        seen.rows.push((name.clone(), rows));
        seen.failed.push((name, failed));
    }
    seen.errors = env.errors().iter().map(|group| canonical(group, false)).collect();
    seen.errors.sort();
    seen
}

fn without_story(row: &Json) -> Json {
    let mut row = row.clone();
    for name in ["status", "error", "traceback", "kind", "key", "attempts", "attempt", "output"] {
        row.as_object_mut().expect("a row").remove(name);
    }
    row
}

/// JSON as text in which equal values are equal: exact integers, shortest floats, sorted names; a null column is no
/// column.
fn canonical(value: &Json, top: bool) -> String {
    match value {
        Json::Number(n) => {
            let digits = n.to_string();
            if digits.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
                digits
            } else {
                format!("{:?}", digits.parse::<f64>().expect("a float"))
            }
        }
        Json::Array(items) => format!("[{}]", items.iter().map(|v| canonical(v, false)).collect::<Vec<_>>().join(",")),
        Json::Object(entries) => {
            let mut parts: Vec<String> = entries
                .iter()
                .filter(|(_, v)| !(top && v.is_null()))
                .map(|(k, v)| format!("{k:?}:{}", canonical(v, false)))
                .collect();
            parts.sort();
            format!("{{{}}}", parts.join(","))
        }
        other => other.to_string(),
    }
}

fn prepare(case: &Case, settings: &str) -> TestEnv {
    let key = if case.keyed { ", key: id" } else { "" };
    let stages: String = case.stages.iter().map(|stage| stage.yaml.as_str()).collect();
    let env = TestEnv::with(
        &format!("sources: {{ rows: {{ jsonl: rows.jsonl{key} }} }}\ndefaults: {{ {settings} }}\nstages:\n{stages}"),
        "",
    );
    env.write("rows.jsonl", &case.rows);
    env.write("ops.py", include_str!("py/ops.py"));
    env
}

/// Runs to the end, killed on the way, and says what there is then.
fn outcome(case: &Case, settings: &str, kills: u32, random: &mut Random) -> Seen {
    let mut env = prepare(case, settings);
    if kills > 0 {
        env.set_var("BPP_TEST_PAUSE", "0.004");
    }
    for kill in 0..kills {
        let run = env.spawn(&["run"]);
        std::thread::sleep(Duration::from_millis(40 + random.below(250)));
        if kill % 2 == 1 {
            run.signal(libc::SIGINT);
            let code = run.wait().code;
            assert!(matches!(code, Some(130 | 0 | 100)), "{code:?}");
        } else {
            run.kill9();
        }
        env.assert_nothing_runs();
    }
    let last = env.run(&["run", "--json"]);
    let failures = !env.errors().is_empty();
    assert_eq!(last.code, Some(if failures { 100 } else { 0 }), "{}", last.all());
    let seen = see(&env, case);
    let again = env.run(&["run", "--json"]);
    for stage in again.json()["stages"].as_array().expect("stages") {
        assert_eq!(stage["ran"], 0, "a second run has nothing to do: {stage}");
    }
    seen
}

/// The oracle's rows and failures, in the form of [`Seen`].
fn foretold(case: &Case) -> (Rows, Rows) {
    let env = prepare(case, "");
    env.write("oracle.py", include_str!("py/oracle.py"));
    let plan: Vec<&Json> = case.stages.iter().map(|stage| &stage.plan).collect();
    env.write("plan.json", json!({"rows": "rows.jsonl", "stages": plan}).to_string());
    let answer = env.bash("python3 oracle.py plan.json").exits(0).json();
    let part = |which: &str| {
        let of = |stage: &Stage| {
            let name = text(&stage.plan["name"]);
            let rows = answer[&name][which].as_array().expect("rows").iter().map(|row| canonical(row, true)).collect();
            (name, rows)
        };
        case.stages.iter().map(of).collect()
    };
    (part("rows"), part("failed"))
}

/// Stages whose rows are groups, or follow from groups: their order is not the oracle's business.
fn unordered(case: &Case) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for stage in &case.stages {
        let inputs = stage.plan["inputs"].as_array().expect("inputs");
        if stage.plan["verb"] == "reduce" || inputs.iter().any(|input| names.iter().any(|name| input == name)) {
            names.push(text(&stage.plan["name"]));
        }
    }
    names
}

fn in_any_order(mut stages: Rows, names: &[String]) -> Rows {
    stages.iter_mut().filter(|(name, _)| names.contains(name)).for_each(|(_, rows)| rows.sort());
    stages
}

fn holds(seed: u64, configurations: &[(&str, u32)]) {
    let case = case(seed);
    let yaml: String = case.stages.iter().map(|stage| stage.yaml.as_str()).collect();
    let story = || format!("seed {seed}\n{yaml}{}", case.rows);
    let (rows, failed) = foretold(&case);
    let mut random = Random(seed ^ 0xABCD);
    let mut first: Option<Seen> = None;
    let names = unordered(&case);
    for (settings, kills) in configurations {
        let seen = outcome(&case, settings, *kills, &mut random);
        match &first {
            None => {
                for (expected, got) in
                    in_any_order(rows.clone(), &names).iter().zip(in_any_order(seen.rows.clone(), &names))
                {
                    assert_eq!(*expected, got, "rows are not the oracle's: {}", story());
                }
                // Failed rows are told in item order.
                for (expected, got) in
                    in_any_order(failed.clone(), &names).iter().zip(in_any_order(seen.failed.clone(), &names))
                {
                    assert_eq!(*expected, got, "failures are not the oracle's: {}", story());
                }
                first = Some(seen);
            }
            Some(first) => assert_eq!(*first, seen, "{settings}, {kills} kills: {}", story()),
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Each case under three configurations, which take turns; all in a few threads' time.
fn cases(part: u64) {
    let (count, start) = (setting("BPP_TEST_CASES", 6), setting("BPP_TEST_SEED", 1));
    for seed in (start..start + count).filter(|seed| seed % 3 == part) {
        let n = CONFIGURATIONS.len();
        let at = seed as usize;
        holds(seed, &[CONFIGURATIONS[at % n], CONFIGURATIONS[(at + 3) % n], CONFIGURATIONS[(at + 5) % n]]);
    }
}

#[test]
fn random_workflows_equal_the_oracle_a() {
    cases(0);
}

#[test]
fn random_workflows_equal_the_oracle_b() {
    cases(1);
}

#[test]
fn random_workflows_equal_the_oracle_c() {
    cases(2);
}
