//! A workflow as a value: easy to change, easy to foretell, and written as the files of a real one.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value as Json, json};

/// A row: columns by name.
pub type Row = BTreeMap<String, Cell>;

/// What stands in a cell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cell {
    Int(i64),
    Text(String),
    /// A path, and what the file holds.
    File(String, String),
}

impl Cell {
    /// As results show it.
    pub fn shown(&self) -> Json {
        match self {
            Cell::Int(n) => json!(n),
            Cell::Text(text) | Cell::File(text, _) => json!(text),
        }
    }
}

/// How a source is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Csv,
    Jsonl,
    Values,
    /// Its rows are the numbers from 0 on: only how many there are can change.
    Range,
    /// A file a row, which holds `x` and `g`; known by its name.
    Glob,
    Zip,
    Python,
    Command,
}

/// Where rows come from.
#[derive(Debug, Clone)]
pub struct Source {
    pub name: String,
    pub kind: Kind,
    pub keyed: bool,
    pub rows: Vec<Row>,
}

/// What a stage does with a number `v` of its row (or of its group's rows).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// An expression.
    Assign,
    /// An expression that cannot be evaluated where 3 divides `v`.
    Fragile,
    /// A condition.
    Where,
    /// A command.
    Echo,
    /// A command that reads the file of its row. Only after a glob.
    Read,
    /// A script that makes a file, named after its item.
    Make,
    /// Python, called with the row, with keywords, with a value.
    Row,
    Keywords,
    Value,
    /// Python: some rows for each.
    Spread,
    /// Python: a condition.
    Keep,
    /// Python: a sum over all rows or over each group's.
    Total {
        grouped: bool,
        ordered: bool,
    },
}

impl Op {
    pub fn is_python(self) -> bool {
        matches!(self, Op::Row | Op::Keywords | Op::Value | Op::Spread | Op::Keep | Op::Total { .. })
    }

    fn verb(self) -> &'static str {
        match self {
            Op::Where | Op::Keep => "filter",
            Op::Spread => "flat_map",
            Op::Total { .. } => "reduce",
            _ => "map",
        }
    }
}

/// The constants in a stage's module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    /// In the function itself.
    pub scale: i64,
    /// In a function that it calls.
    pub shift: i64,
    /// In a function that nothing calls.
    pub unreached: i64,
}

#[derive(Debug, Clone)]
pub struct Stage {
    /// Its column and its module are named after it.
    pub number: usize,
    /// Sources or stages.
    pub inputs: Vec<String>,
    pub op: Op,
    /// The column that it reads.
    pub of: String,
    /// Whether it says so (`use:`); else Python functions see the whole row.
    pub narrow: bool,
    /// A number that its result depends on; `None`: the workflow's parameter.
    pub by: Option<i64>,
    pub code: Code,
    pub version: Option<i64>,
}

impl Stage {
    pub fn name(&self) -> String {
        format!("s{}", self.number)
    }

    /// The column that it adds.
    pub fn column(&self) -> String {
        format!("c{}", self.number)
    }
}

#[derive(Debug, Clone)]
pub struct Flow {
    pub param: i64,
    pub sources: Vec<Source>,
    pub stages: Vec<Stage>,
    /// The constant in a module that all functions use.
    pub shared: i64,
    /// Another number: other comments, docstrings and blank lines.
    pub talk: u64,
    /// Settings that never count.
    pub settings: String,
    /// What is laid over it: other such settings, perhaps another parameter.
    pub profile: Option<(String, Option<i64>)>,
}

impl Flow {
    /// The parameter that holds.
    pub fn param(&self) -> i64 {
        self.profile.as_ref().and_then(|(_, param)| *param).unwrap_or(self.param)
    }

    /// What every command is told besides.
    pub fn arguments(&self) -> Vec<&'static str> {
        if self.profile.is_some() { vec!["--profile", "other"] } else { Vec::new() }
    }

    /// The workflow file.
    pub fn yaml(&self) -> String {
        let mut yaml = format!("params: {{ p: {}, out: out }}\n", self.param);
        if let Some((settings, param)) = &self.profile {
            let param = param.map_or(String::new(), |param| format!("params: {{ p: {param} }}, "));
            writeln!(yaml, "profiles: {{ other: {{ {param}defaults: {{ {settings} }} }} }}").expect("text");
        }
        yaml.push_str("sources:\n");
        self.sources.iter().for_each(|source| yaml.push_str(&source.yaml()));
        writeln!(yaml, "defaults: {{ {} }}\nstages:", self.settings).expect("text");
        self.stages.iter().for_each(|stage| yaml.push_str(&stage.yaml()));
        yaml.push_str("outputs:\n");
        for stage in &self.stages {
            writeln!(yaml, "  {0}: \"{{{{ params.out }}}}/{0}.jsonl\"", stage.name()).expect("text");
        }
        yaml
    }

    /// All files: name and text.
    pub fn files(&self) -> BTreeMap<String, String> {
        let mut files: BTreeMap<String, String> = [("pipeline.yaml".to_string(), self.yaml())].into();
        self.sources.iter().for_each(|source| files.extend(source.files()));
        for stage in self.stages.iter().filter(|stage| stage.op.is_python()) {
            files.insert(format!("m{}.py", stage.number), self.module(stage));
            files.insert("shared.py".into(), self.shared_module());
        }
        files
    }

    fn module(&self, stage: &Stage) -> String {
        let Code { scale, shift, unreached } = stage.code;
        let (doc, note, gap) = (self.docstring(), self.comment(), "\n".repeat(self.talk as usize % 3));
        let (of, c) = (&stage.of, stage.column());
        let (signature, value) = match stage.op {
            Op::Keywords => (format!("{of}, *, by"), of.clone()),
            Op::Value => ("value, *, by".to_string(), "value".to_string()),
            Op::Total { .. } => ("rows, *, by".to_string(), String::new()),
            _ => ("row, *, by".to_string(), format!("row[\"{of}\"]")),
        };
        let body = match stage.op {
            Op::Spread => format!(
                "    for j in range(moved({value}) % 3):\n        yield {{\"{c}\": {value} * {scale} + j + by}}\n"
            ),
            Op::Keep => format!("    return (moved({value}) * {scale} + by) % 3 != 0\n"),
            Op::Total { .. } => format!(
                "    values = [row[\"{of}\"] for row in rows]\n    return {{\"{c}\": sum(map(moved, values)) * {scale} + by, \"n{}\": len(values)}}\n",
                stage.number
            ),
            _ => format!("    return {{\"{c}\": moved({value}) * {scale} + by}}\n"),
        };
        format!(
            "{doc}import shared\n{note}{gap}\ndef moved(x):\n{note}    return shared.lifted(x) + {shift}\n{gap}\ndef unreached(x):\n    return x * {unreached}\n\n\ndef work({signature}):\n    {doc}{body}"
        )
    }

    fn shared_module(&self) -> String {
        let (doc, note) = (self.docstring(), self.comment());
        format!("{doc}\n{note}def lifted(x):\n    {doc}    return x + {}\n", self.shared)
    }

    fn docstring(&self) -> String {
        format!("\"\"\"Told in {} words.\"\"\"\n", self.talk)
    }

    fn comment(&self) -> String {
        if self.talk.is_multiple_of(2) { String::new() } else { format!("    # {} words more\n", self.talk) }
    }
}

impl Source {
    fn yaml(&self) -> String {
        let name = &self.name;
        let key = if self.keyed { ", key: id" } else { "" };
        let rows: Vec<Json> = self.rows.iter().map(shown).collect();
        match self.kind {
            Kind::Csv => format!("  {name}: {{ csv: {name}.csv{key} }}\n"),
            Kind::Jsonl => format!("  {name}: {{ jsonl: {name}.jsonl{key} }}\n"),
            Kind::Values => format!("  {name}: {{ values: {}{key} }}\n", json!(rows)),
            Kind::Range => format!("  {name}: {{ range: {{ stop: {} }} }}\n", self.rows.len()),
            Kind::Glob => format!("  {name}: {{ glob: \"{name}/{{who}}.json\" }}\n"),
            Kind::Zip => format!("  {name}: {{ zip: {}{key} }}\n", json!(self.columns())),
            Kind::Python => format!("  {name}: {{ python: \"rows_{name}:rows\"{key} }}\n"),
            Kind::Command => format!("  {name}: {{ command: [cat, {name}.jsonl]{key} }}\n"),
        }
    }

    fn files(&self) -> Vec<(String, String)> {
        let name = &self.name;
        let lines = || self.rows.iter().map(|row| format!("{}\n", shown(row))).collect::<String>();
        match self.kind {
            Kind::Csv => vec![(format!("{name}.csv"), self.csv())],
            Kind::Jsonl | Kind::Command => vec![(format!("{name}.jsonl"), lines())],
            Kind::Python => {
                let rows: Vec<Json> = self.rows.iter().map(shown).collect();
                vec![(format!("rows_{name}.py"), format!("def rows():\n    yield from {}\n", json!(rows)))]
            }
            Kind::Glob => self
                .rows
                .iter()
                .filter_map(|row| match &row["path"] {
                    Cell::File(path, content) => Some((path.clone(), content.clone())),
                    _ => None,
                })
                .collect(),
            Kind::Values | Kind::Range | Kind::Zip => Vec::new(),
        }
    }

    fn columns(&self) -> BTreeMap<&String, Vec<Json>> {
        let names = self.rows.first().map(|row| row.keys().collect::<Vec<_>>()).unwrap_or_default();
        names.into_iter().map(|name| (name, self.rows.iter().map(|row| row[name].shown()).collect())).collect()
    }

    fn csv(&self) -> String {
        let names: Vec<&str> = self.rows[0].keys().map(String::as_str).collect();
        let mut text = names.join(",") + "\n";
        for row in &self.rows {
            let cells: Vec<String> = row.values().map(|cell| plain(&cell.shown())).collect();
            writeln!(text, "{}", cells.join(",")).expect("text");
        }
        text
    }
}

impl Stage {
    fn yaml(&self) -> String {
        let (name, of, column) = (self.name(), &self.of, self.column());
        let input = if let [only] = &self.inputs[..] { only.clone() } else { format!("[{}]", self.inputs.join(", ")) };
        let by = self.by.map_or("params.p".to_string(), |by| by.to_string());
        let action = match self.op {
            Op::Assign => format!("assign: {{ {column}: \"item.{of} + {by}\" }}"),
            Op::Fragile => format!("assign: {{ {column}: \"{by} // (item.{of} % 3)\" }}"),
            Op::Where => format!("where: \"(item.{of} + {by}) % 3 != 0\""),
            Op::Echo => {
                format!("command: [echo, '{{\"{column}\": 1{{{{ item.{of} }}}}{{{{ {by} }}}}}}'], stdout: json")
            }
            Op::Read => "command: [cat, \"{{ item.path }}\"], stdout: json, keep: [who, x, g]".to_string(),
            Op::Make => format!(
                "shell: \"seq 0 {{{{ item.{of} % 50 }}}} > {{{{ files.{column} }}}}\", files: {{ {column}: \"made/{name}-{{{{ item.id }}}}.txt\" }}, stdout: ignore"
            ),
            _ => self.python(),
        };
        let version = self.version.map_or(String::new(), |version| format!(", version: \"{version}\""));
        format!("  {name}: {{ {}: {input}, {action}{version} }}\n", self.op.verb())
    }

    fn python(&self) -> String {
        let (of, number) = (&self.of, self.number);
        let by = self.by.map_or("\"{{ params.p }}\"".to_string(), |by| by.to_string());
        let call = match self.op {
            Op::Keywords => ", call: kwargs".to_string(),
            Op::Value => format!(", call: value, use: [{of}]"),
            _ if self.narrow => format!(", use: [{of}]"),
            _ => String::new(),
        };
        let group = match self.op {
            Op::Total { grouped, ordered } => {
                let order = if ordered { "" } else { ", ordered: false" };
                format!("{}{order}", if grouped { ", group_by: [g]" } else { "" })
            }
            _ => String::new(),
        };
        format!("python: \"m{number}:work\", args: {{ by: {by} }}{call}{group}")
    }
}

fn shown(row: &Row) -> Json {
    Json::Object(row.iter().map(|(name, cell)| (name.clone(), cell.shown())).collect())
}

fn plain(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}
