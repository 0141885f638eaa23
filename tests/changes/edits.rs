//! Workflows made up at random, and the ways in which they change.

use std::collections::BTreeSet;

use crate::flow::{Cell, Code, Flow, Kind, Op, Row, Source, Stage};
use crate::random::Random;

/// A change of a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// A row more, one less, one changed, all in another order.
    AddRow,
    RemoveRow,
    ChangeRow,
    Reorder,
    /// A column that no stage names: there, with other cells, gone.
    SpareColumn,
    DropColumn,
    /// A stage's number; the workflow's parameter; a number written as the parameter of the same value.
    By,
    Param,
    Spelling,
    /// Constants in a function, in one that it calls, in another module, in one that nothing calls.
    Scale,
    Shift,
    Shared,
    Unreached,
    /// Comments, docstrings, blank lines.
    Talk,
    Version,
    /// Another column is read.
    Column,
    /// Workers, chunks, batches, backends, limits; the same in a profile; a profile's parameter.
    Settings,
    Profile,
    ProfileParam,
    /// A file that an item made is gone, or cut.
    Unmake,
    Cut,
    /// What nothing needs any more is dropped.
    Collect,
    /// A stage at the end: one more, one less.
    AddStage,
    RemoveStage,
    /// The workflow as it was before.
    Undo,
    /// Nothing at all.
    Nothing,
}

impl Edit {
    const ALL: [Edit; 26] = [
        Edit::AddRow,
        Edit::RemoveRow,
        Edit::ChangeRow,
        Edit::Reorder,
        Edit::SpareColumn,
        Edit::DropColumn,
        Edit::By,
        Edit::Param,
        Edit::Spelling,
        Edit::Scale,
        Edit::Shift,
        Edit::Shared,
        Edit::Unreached,
        Edit::Talk,
        Edit::Version,
        Edit::Column,
        Edit::Settings,
        Edit::Profile,
        Edit::ProfileParam,
        Edit::Unmake,
        Edit::Cut,
        Edit::Collect,
        Edit::AddStage,
        Edit::RemoveStage,
        Edit::Undo,
        Edit::Nothing,
    ];

    /// Any of them.
    pub fn any(random: &mut Random) -> Edit {
        random.pick(&Edit::ALL)
    }

    /// Whether nothing may be due after it.
    pub fn is_idle(self) -> bool {
        matches!(
            self,
            Edit::Unreached
                | Edit::Talk
                | Edit::Settings
                | Edit::Profile
                | Edit::Collect
                | Edit::RemoveStage
                | Edit::Nothing
        )
    }

    /// Changes the workflow; `false`: that cannot be done to this one. Files that were made, and what was before, are
    /// others' business.
    pub fn apply(self, flow: &mut Flow, random: &mut Random) -> bool {
        match self {
            Edit::AddRow | Edit::RemoveRow | Edit::ChangeRow | Edit::Reorder => self.change_rows(flow, random),
            Edit::SpareColumn | Edit::DropColumn => self.change_columns(flow, random),
            Edit::Param => {
                flow.param = random.below(8) as i64 + 1;
                true
            }
            Edit::Shared => {
                flow.shared = random.below(4) as i64;
                true
            }
            Edit::Talk => {
                flow.talk = random.below(20);
                true
            }
            Edit::Settings => {
                flow.settings = settings(random);
                true
            }
            Edit::Profile => {
                let param = flow.profile.as_ref().and_then(|(_, param)| *param);
                flow.profile = (param.is_some() || !random.one_in(3)).then(|| (settings(random), param));
                true
            }
            Edit::ProfileParam => {
                let settings = flow.settings.clone();
                flow.profile = Some((settings, (!random.one_in(3)).then(|| random.below(8) as i64 + 1)));
                true
            }
            Edit::AddStage => {
                let number = flow.stages.iter().map(|stage| stage.number).max().unwrap_or(0) + 1;
                flow.stages.len() < 6 && add_stage(flow, number, random)
            }
            Edit::RemoveStage => flow.stages.len() > 1 && flow.stages.pop().is_some(),
            Edit::Nothing => true,
            Edit::Undo | Edit::Unmake | Edit::Cut | Edit::Collect => false,
            _ => self.change_stage(flow, random),
        }
    }

    fn change_rows(self, flow: &mut Flow, random: &mut Random) -> bool {
        let at = random.below(flow.sources.len() as u64) as usize;
        let source = &mut flow.sources[at];
        let place = random.below(source.rows.len() as u64) as usize;
        match (self, source.kind) {
            (Edit::AddRow, Kind::Range) => source.rows.push(number_row(source.rows.len())),
            (Edit::AddRow, _) => {
                let row = new_row(source, random);
                source.rows.insert(if source.kind == Kind::Glob { 0 } else { place }, row);
            }
            (Edit::RemoveRow, kind) if source.rows.len() > 1 => {
                source.rows.remove(if kind == Kind::Range { source.rows.len() - 1 } else { place });
            }
            (Edit::ChangeRow, Kind::Glob) => {
                let path = source.rows[place]["path"].clone();
                if let Cell::File(path, _) = path {
                    source.rows[place].insert("path".into(), Cell::File(path, content(random)));
                }
            }
            (Edit::ChangeRow, Kind::Csv | Kind::Jsonl | Kind::Values | Kind::Zip | Kind::Python | Kind::Command) => {
                let column = random.pick(&["x", "x", "g"]);
                let cell = if column == "x" { random.below(12) } else { random.below(3) };
                source.rows[place].insert(column.into(), Cell::Int(cell as i64));
            }
            (Edit::Reorder, Kind::Csv | Kind::Jsonl | Kind::Values | Kind::Zip | Kind::Python | Kind::Command) => {
                for at in (1..source.rows.len()).rev() {
                    source.rows.swap(at, random.below(at as u64 + 1) as usize);
                }
            }
            _ => return false,
        }
        if source.kind == Kind::Glob {
            source.rows.sort();
        }
        true
    }

    fn change_columns(self, flow: &mut Flow, random: &mut Random) -> bool {
        let at = random.below(flow.sources.len() as u64) as usize;
        let source = &mut flow.sources[at];
        if matches!(source.kind, Kind::Range | Kind::Glob) {
            return false;
        }
        for (number, row) in source.rows.iter_mut().enumerate() {
            let spare = Cell::Text(format!("spare {}", random.below(20) + number as u64));
            match self {
                Edit::SpareColumn => row.insert("spare".into(), spare),
                _ => row.remove("spare"),
            };
        }
        true
    }

    fn change_stage(self, flow: &mut Flow, random: &mut Random) -> bool {
        let at = random.below(flow.stages.len() as u64) as usize;
        let columns = columns_of(flow, &flow.stages[at].inputs.clone());
        let param = flow.param();
        let stage = &mut flow.stages[at];
        let in_code = matches!(self, Edit::Scale | Edit::Shift | Edit::Unreached);
        if stage.op == Op::Read && self != Edit::Version || in_code && !stage.op.is_python() {
            return false;
        }
        let number = random.below(5) as i64 + 1;
        match self {
            Edit::By => stage.by = Some(number),
            Edit::Spelling => stage.by = if stage.by == Some(param) { None } else { Some(param) },
            Edit::Scale => stage.code.scale = number,
            Edit::Shift => stage.code.shift = number,
            Edit::Unreached => stage.code.unreached = number,
            Edit::Version => stage.version = (number > 2).then_some(number),
            Edit::Column => stage.of = random.pick(&columns),
            _ => unreachable!("not a stage's"),
        }
        true
    }
}

/// Settings that never count.
pub fn settings(random: &mut Random) -> String {
    let backend = random.pick(&["serial", "serial", "serial", "processes", "threads"]);
    let (workers, chunk) = (random.below(2) + 1, random.pick(&["auto", "1", "3"]));
    let (batch, limits) = (random.pick(&["auto", "auto", "2"]), random.pick(&["", ", timeout: 1m", ", retries: 1"]));
    format!("backend: {backend}, workers: {workers}, chunk_size: {chunk}, batch_size: {batch}{limits}")
}

/// The workflow of that seed. Few are of Python: starting an interpreter takes longer than all the rest.
pub fn flow(seed: u64) -> Flow {
    let mut random = Random(seed);
    let mut flow = Flow {
        param: random.below(5) as i64 + 1,
        sources: (0..if random.one_in(3) { 2 } else { 1 }).map(|number| source(number, &mut random)).collect(),
        stages: Vec::new(),
        shared: 0,
        talk: 0,
        settings: settings(&mut random),
        profile: None,
    };
    for number in 1..=random.below(4) as usize + 1 {
        add_stage(&mut flow, number, &mut random);
    }
    flow
}

fn source(number: u64, random: &mut Random) -> Source {
    let (tables, programs) = ([Kind::Csv, Kind::Csv, Kind::Jsonl, Kind::Values], [Kind::Python, Kind::Command]);
    let kind = match random.below(10) {
        0..=4 => random.pick(&tables),
        5 => random.pick(&programs),
        6 => Kind::Range,
        7 => Kind::Zip,
        _ => Kind::Glob,
    };
    let keyed = kind == Kind::Glob || (kind != Kind::Range && random.one_in(2));
    let mut source = Source { name: format!("r{number}"), kind, keyed, rows: Vec::new() };
    for at in 0..random.below(6) as usize + 1 {
        let row = if kind == Kind::Range { number_row(at) } else { new_row(&source, random) };
        source.rows.push(row);
    }
    if kind == Kind::Glob {
        source.rows.sort();
    }
    source
}

fn number_row(at: usize) -> Row {
    [("value".to_string(), Cell::Int(at as i64))].into()
}

/// A row as the others are; with a key of its own, or perhaps equal to another one.
fn new_row(source: &Source, random: &mut Random) -> Row {
    let id = loop {
        let id = random.below(40) as i64;
        if source.rows.iter().all(|row| row.get("id") != Some(&Cell::Int(id)) && row.get("who") != Some(&who(id))) {
            break id;
        }
    };
    if source.kind == Kind::Glob {
        let path = format!("{}/f{id}.json", source.name);
        return [("who".to_string(), who(id)), ("path".to_string(), Cell::File(path, content(random)))].into();
    }
    let mut row: Row =
        [("x".to_string(), Cell::Int(random.below(12) as i64)), ("g".to_string(), Cell::Int(random.below(3) as i64))]
            .into();
    if source.keyed {
        row.insert("id".into(), Cell::Int(id));
    }
    if source.rows.first().is_some_and(|row| row.contains_key("spare")) {
        row.insert("spare".into(), Cell::Text(format!("spare {}", random.below(3))));
    }
    row
}

fn who(id: i64) -> Cell {
    Cell::Text(format!("f{id}"))
}

fn content(random: &mut Random) -> String {
    format!("{{\"x\": {}, \"g\": {}}}", random.below(12), random.below(3))
}

/// The columns of numbers that a stage with these inputs can read.
fn columns_of(flow: &Flow, inputs: &[String]) -> Vec<String> {
    let mut columns: Option<BTreeSet<String>> = None;
    for input in inputs {
        let own: BTreeSet<String> = match flow.stages.iter().find(|stage| stage.name() == *input) {
            Some(stage) => given_columns(flow, stage),
            None => {
                let source = flow.sources.iter().find(|source| source.name == *input).expect("a source");
                let names = source.rows[0].iter().filter(|(_, cell)| matches!(cell, Cell::Int(_)));
                names.map(|(name, _)| name.clone()).collect()
            }
        };
        columns = Some(columns.map_or(own.clone(), |columns| &columns & &own));
    }
    columns.unwrap_or_default().into_iter().filter(|name| name != "id").collect()
}

fn given_columns(flow: &Flow, stage: &Stage) -> BTreeSet<String> {
    let mut columns: BTreeSet<String> = columns_of(flow, &stage.inputs).into_iter().collect();
    match stage.op {
        Op::Read => return ["x".to_string(), "g".to_string()].into(),
        Op::Total { grouped, .. } => {
            columns.retain(|name| grouped && name == "g");
            columns.extend([stage.column(), format!("n{}", stage.number)]);
        }
        Op::Where | Op::Keep | Op::Make => {}
        _ => {
            columns.insert(stage.column());
        }
    }
    columns
}

/// Whether every row has an `id` of its own.
fn has_ids(flow: &Flow, input: &str) -> bool {
    match flow.stages.iter().find(|stage| stage.name() == input) {
        Some(stage) => {
            let may_repeat = matches!(stage.op, Op::Total { .. } | Op::Spread) || stage.inputs.len() > 1;
            !may_repeat && has_ids(flow, &stage.inputs[0])
        }
        None => flow.sources.iter().any(|source| source.name == input && source.keyed && source.kind != Kind::Glob),
    }
}

/// A stage behind what there is.
fn add_stage(flow: &mut Flow, number: usize, random: &mut Random) -> bool {
    let names = flow.sources.iter().map(|source| source.name.clone());
    let names: Vec<String> = names.chain(flow.stages.iter().map(Stage::name)).collect();
    // Mostly the last one, so that there are chains.
    let input = if random.one_in(3) { random.pick(&names) } else { names[names.len() - 1].clone() };
    let mut stage = Stage {
        number,
        inputs: vec![input.clone()],
        op: Op::Read,
        of: "path".into(),
        narrow: random.one_in(2),
        by: (!random.one_in(3)).then(|| random.below(5) as i64 + 1),
        code: Code { scale: random.below(3) as i64 + 1, shift: random.below(3) as i64, unreached: 1 },
        version: random.one_in(6).then_some(1),
    };
    let columns = columns_of(flow, &stage.inputs);
    if !columns.is_empty() {
        let other = random.pick(&names);
        if random.one_in(5) && other != input && columns_of(flow, std::slice::from_ref(&other)) == columns {
            stage.inputs.push(other);
        }
        stage.op = op(flow, &stage.inputs, &columns, random);
        stage.of = random.pick(&columns);
    }
    flow.stages.push(stage);
    true
}

fn op(flow: &Flow, inputs: &[String], columns: &[String], random: &mut Random) -> Op {
    let with_python = flow.stages.iter().any(|stage| stage.op.is_python()) || random.one_in(8);
    let mut ops = vec![Op::Assign, Op::Assign, Op::Assign, Op::Where, Op::Where, Op::Fragile];
    if random.one_in(4) {
        ops.push(Op::Echo);
    }
    if with_python {
        let grouped = columns.iter().any(|name| name == "g") && random.one_in(2);
        let total = Op::Total { grouped, ordered: !random.one_in(3) };
        ops.extend([Op::Row, Op::Keywords, Op::Value, Op::Spread, Op::Keep, total, total, total]);
    }
    let named = inputs.len() == 1 && has_ids(flow, &inputs[0]);
    if named && random.one_in(4) {
        ops.extend([Op::Make, Op::Make]);
    }
    random.pick(&ops)
}
