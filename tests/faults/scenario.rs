//! Random workflows with an oracle: what becomes of every item follows from its number alone.
//!
//! Every row has an integer `n`, most have a group `g`; all cells are integers. A stage gives each item of a few per
//! cent a [`Fate`]. The outcomes are worked out here, naively, while the workflow is made up.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use crate::random::Random;

/// A row: columns by name.
pub type Row = BTreeMap<String, i64>;

/// What befalls an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fate {
    pub name: &'static str,
    /// The kind of its failure; `None`: it succeeds.
    kind: Option<&'static str>,
    /// Lines of a shell script that do it.
    script: &'static str,
}

const fn fate(name: &'static str, kind: Option<&'static str>, script: &'static str) -> Fate {
    Fate { name, kind, script }
}

const SLEEP: Fate = fate("sleep", Some("timeout"), "exec sleep 600");
const IN_PYTHON: [Fate; 12] = [
    fate("raise", Some("exception"), ""),
    fate("raise", Some("exception"), ""),
    fate("leave", Some("exception"), ""),
    fate("shout", Some("exception"), ""),
    fate("bad", Some("output"), ""),
    fate("exit", Some("crash"), ""),
    fate("abort", Some("crash"), ""),
    fate("segfault", Some("crash"), ""),
    fate("overflow", Some("crash"), ""),
    fate("loud", None, ""),
    fate("child", None, ""),
    fate("daemon", None, ""),
];
const IN_COMMANDS: [Fate; 7] = [
    fate("raise", Some("exit"), "echo sorry >&2; exit 3"),
    fate("bad", Some("output"), "echo '{'; exit 0"),
    fate("abort", Some("crash"), "kill -ABRT $$"),
    fate("segfault", Some("crash"), "kill -SEGV $$"),
    fate("loud", None, "head -c 300000 /dev/zero >&2"),
    fate("child", None, "sleep 600 &"),
    fate("daemon", None, "setsid sleep 600 & disown"),
];

/// What a stage does with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Map,
    FlatMap,
    Filter,
    Reduce { grouped: bool },
}

/// How it does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Python(&'static str),
    Chunk(&'static str),
    Command,
    Shell,
    /// An expression; items whose number this divides fail.
    Expression(i64),
}

/// What becomes of an item.
#[derive(Debug, Clone)]
pub enum Outcome {
    Rows(Vec<Row>),
    Failed(&'static str),
}

/// An item: its row (or its group's columns), and what becomes of it.
#[derive(Debug, Clone)]
pub struct Item {
    pub input: Row,
    pub outcome: Outcome,
}

/// A stage, and all that the oracle knows of it.
#[derive(Debug)]
pub struct Stage {
    pub name: String,
    pub verb: Verb,
    /// Whether it or what it reads from waits for all items of a stage: it may see fewer rows for a while.
    pub waits: bool,
    /// Whether its items are those of a source with a key, known by `id`.
    pub keyed: bool,
    pub items: Vec<Item>,
    number: i64,
    action: Action,
    fates: BTreeMap<i64, Fate>,
    nap: f64,
    yaml: String,
}

impl Stage {
    /// The rows that flow on.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.items.iter().flat_map(|item| match &item.outcome {
            Outcome::Rows(rows) => rows.as_slice(),
            Outcome::Failed(_) => &[],
        })
    }
}

/// A workflow, made up.
pub struct Scenario {
    pub stages: Vec<Stage>,
    /// Whether keepers may be killed: then no item leaves a process behind that only its keeper knows of.
    pub kills_keepers: bool,
    source: String,
    table: String,
    defaults: String,
}

/// What stages can read: the name of it, its rows, whether it waits, whether it is keyed.
struct Readable {
    name: String,
    rows: Vec<Row>,
    waits: bool,
    keyed: bool,
}

impl Scenario {
    /// The workflow of that seed.
    pub fn new(seed: u64, pandas: bool) -> Scenario {
        let mut random = Random(seed);
        let kills_keepers = random.one_in(2);
        let mut scenario = Scenario {
            stages: Vec::new(),
            kills_keepers,
            source: String::new(),
            table: String::new(),
            defaults: defaults(&mut random),
        };
        let mut readable = vec![scenario.make_source(&mut random)];
        for number in 1..=random.pick(&[1, 2, 2, 3, 3, 4, 5]) {
            let from = readable.len().saturating_sub(if random.one_in(4) { 3 } else { 1 });
            let input = &readable[from];
            let stage = make_stage(number, input, &mut random, kills_keepers, pandas);
            let keyed = stage.keyed && matches!(stage.verb, Verb::Map | Verb::Filter);
            let rows = stage.rows().cloned().collect();
            readable.push(Readable { name: stage.name.clone(), rows, waits: stage.waits, keyed });
            scenario.stages.push(stage);
        }
        scenario
    }

    fn make_source(&mut self, random: &mut Random) -> Readable {
        let rows = random.pick(&[1, 8, 60, 60, 300, 300, 1000, 3000]);
        let kind = random.below(4);
        let keyed = kind < 2 && random.one_in(2);
        let numbers: Vec<i64> = match kind {
            // Where there is no key, some rows are equal.
            0 | 1 if !keyed => (0..rows).map(|_| random.below(rows as u64 * 3 / 4 + 1) as i64).collect(),
            _ => (0..rows).collect(),
        };
        let row = |(id, &n): (usize, &i64)| -> Row {
            let mut row: Row = [("n".to_string(), n), ("g".to_string(), n % 4)].into();
            if keyed {
                row.insert("id".into(), id as i64);
            }
            if kind >= 2 {
                row.insert("value".into(), n);
            }
            row
        };
        let table: Vec<Row> = numbers.iter().enumerate().map(row).collect();
        let key = if keyed { ", key: id" } else { "" };
        self.source = match kind {
            0 => format!("rows: {{ csv: rows.csv{key} }}"),
            1 => format!("rows: {{ values: {}{key} }}", json!(table)),
            _ => format!("numbers: {{ range: {{ start: 0, stop: {rows} }} }}"),
        };
        self.table = csv(&table);
        Readable { name: "rows".into(), rows: table, waits: false, keyed }
    }

    /// The file.
    pub fn yaml(&self) -> String {
        let mut yaml = format!("sources:\n  {}\ndefaults: {{ {} }}\nstages:\n", self.source, self.defaults);
        if self.source.starts_with("numbers") {
            yaml.push_str("  rows: { map: numbers, assign: { n: \"item.value\", g: \"item.value % 4\" } }\n");
        }
        self.stages.iter().for_each(|stage| yaml.push_str(&stage.yaml));
        let last = self.stages.last().expect("a stage");
        writeln!(yaml, "outputs:\n  {}: out.jsonl", last.name).expect("text");
        yaml
    }

    /// All further files: name and text.
    pub fn files(&self) -> Vec<(String, String)> {
        let mut told = serde_json::Map::new();
        let mut files = vec![("rows.csv".into(), self.table.clone())];
        for stage in &self.stages {
            let fates: BTreeMap<String, &str> = stage.fates.iter().map(|(n, f)| (n.to_string(), f.name)).collect();
            told.insert(stage.name.clone(), json!({ "fates": fates, "nap": stage.nap }));
            if matches!(stage.action, Action::Command | Action::Shell) {
                files.push((format!("{}.sh", stage.name), script(stage)));
            }
        }
        files.push(("soak.json".into(), Json::Object(told).to_string()));
        files.push(("soak.py".into(), include_str!("py/soak.py").into()));
        files
    }
}

fn defaults(random: &mut Random) -> String {
    let chunk = random.pick(&["auto", "auto", "1", "3", "50", "1000"]);
    let batch = random.pick(&["auto", "auto", "auto", "7", "100"]);
    let backend = random.pick(&["processes", "processes", "threads", "serial"]);
    let (workers, retries) = (random.below(4) + 1, random.pick(&[0, 0, 1, 2]));
    format!(
        "chunk_size: {chunk}, batch_size: {batch}, backend: {backend}, workers: {workers}, timeout: 3s, retries: {retries}"
    )
}

fn csv(rows: &[Row]) -> String {
    let columns: Vec<&str> = rows[0].keys().map(String::as_str).collect();
    let mut text = columns.join(",") + "\n";
    for row in rows {
        let cells: Vec<String> = row.values().map(i64::to_string).collect();
        writeln!(text, "{}", cells.join(",")).expect("text");
    }
    text
}

fn make_stage(number: i64, input: &Readable, random: &mut Random, kills_keepers: bool, pandas: bool) -> Stage {
    let grouped = input.rows.iter().all(|row| row.contains_key("g"));
    let verb = match random.below(10) {
        0..=4 => Verb::Map,
        5 => Verb::FlatMap,
        6 | 7 => Verb::Filter,
        _ => Verb::Reduce { grouped: grouped && random.one_in(2) },
    };
    let action = action(verb, input.rows.len(), random, pandas);
    let mut stage = Stage {
        name: format!("s{number}"),
        verb,
        waits: input.waits || matches!(verb, Verb::Reduce { .. }),
        keyed: input.keyed && !matches!(verb, Verb::Reduce { .. }),
        items: Vec::new(),
        number,
        action,
        fates: BTreeMap::new(),
        nap: if input.rows.len() <= 300 { random.pick(&[0.0, 0.002, 0.01]) } else { 0.0 },
        yaml: String::new(),
    };
    stage.fates = fates(&stage, &input.rows, random, kills_keepers);
    stage.items = match verb {
        Verb::Reduce { grouped } => groups(&stage, &input.rows, grouped),
        _ => input.rows.iter().map(|row| outcome(&stage, row)).collect(),
    };
    stage.yaml = stage_yaml(&stage, &input.name);
    stage
}

fn action(verb: Verb, rows: usize, random: &mut Random, pandas: bool) -> Action {
    let commands = rows <= 300 && random.one_in(3);
    let expression = random.one_in(5);
    match verb {
        Verb::Map if commands => random.pick(&[Action::Command, Action::Shell]),
        Verb::FlatMap if commands => Action::Shell,
        Verb::Map if expression => Action::Expression(random.pick(&[17, 29, 53])),
        Verb::Filter if expression => Action::Expression(1 << 40),
        Verb::Map if pandas && random.one_in(6) => Action::Chunk("map_frame"),
        Verb::Map if random.one_in(4) => Action::Chunk("map_chunk"),
        Verb::Map => Action::Python(random.pick(&["map_row", "map_row", "map_kwargs", "map_value"])),
        Verb::FlatMap => Action::Python("spread"),
        Verb::Filter => Action::Python("keep"),
        Verb::Reduce { .. } => Action::Python("total"),
    }
}

/// The fates of a few items, by what they are known by: the number, or the group.
fn fates(stage: &Stage, rows: &[Row], random: &mut Random, kills_keepers: bool) -> BTreeMap<i64, Fate> {
    let mut fates = BTreeMap::new();
    let (list, sleeps): (&[Fate], bool) = match stage.action {
        Action::Expression(_) => return fates,
        Action::Command | Action::Shell => (&IN_COMMANDS, true),
        // A chunk that dies or sleeps is run again and again, in halves.
        Action::Chunk(_) => (&IN_PYTHON, false),
        Action::Python(_) => (&IN_PYTHON, true),
    };
    let most = if matches!(stage.action, Action::Chunk(_)) { 3 } else { 12 };
    for _ in 0..random.below((rows.len() as u64 / 20 + 2).min(most)) {
        let Some(row) = (!rows.is_empty()).then(|| &rows[random.below(rows.len() as u64) as usize]) else { break };
        let fate = random.pick(list);
        let is_left_to_keeper =
            fate.name == "daemon" || fate.name == "child" && matches!(stage.action, Action::Command | Action::Shell);
        if !(kills_keepers && is_left_to_keeper) {
            fates.insert(known_by(stage, row), fate);
        }
    }
    if sleeps && !rows.is_empty() && random.one_in(6) {
        fates.insert(known_by(stage, &rows[0]), SLEEP);
    }
    fates
}

fn known_by(stage: &Stage, row: &Row) -> i64 {
    match stage.verb {
        Verb::Reduce { grouped: true } => row["g"],
        Verb::Reduce { grouped: false } => -1,
        _ => row["n"],
    }
}

fn outcome(stage: &Stage, row: &Row) -> Item {
    let (n, i) = (row["n"], stage.number);
    let with = |more: &[(String, i64)]| row.clone().into_iter().chain(more.iter().cloned()).collect::<Row>();
    let failure = match stage.action {
        Action::Expression(by) => (n % by == 0 && stage.verb == Verb::Map).then_some("exception"),
        _ => stage.fates.get(&n).and_then(|fate| fate.kind),
    };
    let y = format!("y{i}");
    let outcome = match (failure, stage.verb) {
        (Some(kind), _) => Outcome::Failed(kind),
        (None, Verb::Map) => Outcome::Rows(vec![with(&[(y, n * 7 + i)])]),
        (None, Verb::FlatMap) => {
            let child = |j| with(&[("n".into(), n * 4 + j), (y.clone(), j)]);
            Outcome::Rows((0..(n + i) % 3).map(child).collect())
        }
        (None, _) => Outcome::Rows(if (n + i) % 3 != 0 { vec![row.clone()] } else { Vec::new() }),
    };
    Item { input: row.clone(), outcome }
}

fn groups(stage: &Stage, rows: &[Row], grouped: bool) -> Vec<Item> {
    let mut groups: BTreeMap<i64, Vec<&Row>> = BTreeMap::new();
    if !grouped {
        // Of nothing, too, there is one sum.
        groups.insert(-1, Vec::new());
    }
    rows.iter().for_each(|row| groups.entry(known_by(stage, row)).or_default().push(row));
    let item = |(group, rows): (i64, Vec<&Row>)| {
        let input: Row = if grouped { [("g".to_string(), group)].into() } else { Row::new() };
        let mut row = input.clone();
        row.insert("n".into(), rows.iter().map(|row| row["n"]).sum());
        row.insert(format!("c{}", stage.number), rows.len() as i64);
        let failure = stage.fates.get(&group).and_then(|fate| fate.kind);
        Item { input, outcome: failure.map_or(Outcome::Rows(vec![row]), Outcome::Failed) }
    };
    groups.into_iter().map(item).collect()
}

fn stage_yaml(stage: &Stage, input: &str) -> String {
    let (name, i) = (&stage.name, stage.number);
    let verb = match stage.verb {
        Verb::Map => "map",
        Verb::FlatMap => "flat_map",
        Verb::Filter => "filter",
        Verb::Reduce { .. } => "reduce",
    };
    let args = match stage.verb {
        Verb::Reduce { grouped } => format!("{{ stage: {name}, i: {i}, grouped: {grouped} }}"),
        _ => format!("{{ stage: {name}, i: {i} }}"),
    };
    let stdout = match stage.verb {
        Verb::Map => "stdout: json",
        _ => "stdout: jsonl",
    };
    let action = match (stage.action, stage.verb) {
        (Action::Python("map_kwargs"), _) => format!("python: \"soak:map_kwargs\", call: kwargs, args: {args}"),
        (Action::Python("map_value"), _) => format!("python: \"soak:map_value\", call: value, use: [n], args: {args}"),
        (Action::Python(function), _) => format!("python: \"soak:{function}\", args: {args}"),
        (Action::Chunk(function), _) => {
            let format = if function == "map_frame" { "pandas" } else { "rows" };
            format!("python: \"soak:{function}\", call: chunk, chunk_format: {format}, args: {args}")
        }
        (Action::Command, _) => format!("command: [bash, {name}.sh, \"{{{{ item.n }}}}\"], {stdout}"),
        (Action::Shell, _) => format!("shell: \". ./{name}.sh {{{{ item.n }}}}\", {stdout}"),
        (Action::Expression(_), Verb::Filter) => format!("where: \"(item.n + {i}) % 3 != 0\""),
        (Action::Expression(by), _) => {
            format!("assign: {{ y{i}: \"item.n * 7 + {i} + 0 * (7 // (item.n % {by}))\" }}")
        }
    };
    let group = if stage.verb == (Verb::Reduce { grouped: true }) { ", group_by: [g]" } else { "" };
    format!("  {name}: {{ {verb}: {input}, {action}{group} }}\n")
}

/// A script that does with its first argument what a stage does with a row.
fn script(stage: &Stage) -> String {
    let (name, i) = (&stage.name, stage.number);
    let cases: String = stage.fates.iter().map(|(n, fate)| format!("  {n}) {};;\n", fate.script)).collect();
    let work = match stage.verb {
        Verb::Map => format!("echo \"{{\\\"y{i}\\\": $((n * 7 + {i}))}}\""),
        _ => format!(
            "for ((j = 0; j < (n + {i}) % 3; j++)); do echo \"{{\\\"n\\\": $((n * 4 + j)), \\\"y{i}\\\": $j}}\"; done"
        ),
    };
    format!(
        "n=$1\necho \"B {name} $n $$ 0\" >> \"$BPP_TEST_LOG/hand\"\ntrap 'echo \"E {name} $n $$ 0\" >> \"$BPP_TEST_LOG/hand\"' EXIT\ncase $n in\n{cases}  *) ;;\nesac\n{work}\n"
    )
}
