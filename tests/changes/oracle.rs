//! What every stage's items are and what they give, worked out naively; and what is due of them after earlier runs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use crate::flow::{Cell, Flow, Kind, Op, Row, Source, Stage};

/// A row on its way.
#[derive(Debug, Clone)]
struct Passing {
    /// As events and plans name it.
    key: String,
    /// Who it is.
    origin: String,
    row: Row,
}

/// One call of a stage's action.
#[derive(Debug, Clone)]
pub struct Item {
    pub key: String,
    origin: String,
    /// All that its action sees.
    input: String,
    pub failed: bool,
    /// The file that it makes.
    pub makes: Option<(String, String)>,
}

/// What becomes of a stage.
#[derive(Debug)]
pub struct Foretold {
    pub name: String,
    /// All that its results depend on besides its items.
    version: String,
    keyed: bool,
    pub items: Vec<Item>,
    rows: Vec<Passing>,
}

impl Foretold {
    /// What tells the items with these keys apart from others: without a key those with equal inputs are
    /// interchangeable, and where keys are not unique, so are all. Those that are `loose` are left out.
    pub fn identities<'a>(
        &'a self,
        keys: impl IntoIterator<Item = &'a String>,
        loose: &BTreeSet<&str>,
    ) -> Vec<&'a str> {
        let unique: BTreeSet<&String> = self.items.iter().map(|item| &item.key).collect();
        let identity = |key: &'a String| match self.items.iter().find(|item| item.key == *key) {
            Some(item) if !self.keyed && unique.len() == self.items.len() => item.input.as_str(),
            Some(_) if !self.keyed => "",
            _ => key.as_str(),
        };
        let is_firm = |identity: &&str| !loose.contains(identity) && (loose.is_empty() || !identity.is_empty());
        let mut identities: Vec<&str> = keys.into_iter().map(identity).filter(is_firm).collect();
        identities.sort_unstable();
        identities
    }

    /// The rows as results show them; without cells that are no business of the oracle.
    pub fn shown(&self) -> Vec<BTreeMap<String, Json>> {
        let cells = |passing: &Passing| passing.row.iter().map(|(name, cell)| (name.clone(), cell.shown())).collect();
        self.rows.iter().map(cells).collect()
    }
}

/// All stages of a workflow, in their order, of the first so many rows of each source.
pub fn foretell(flow: &Flow, limit: usize) -> Vec<Foretold> {
    let mut readable: BTreeMap<&str, (bool, Vec<Passing>)> =
        flow.sources.iter().map(|source| (source.name.as_str(), (source.keyed, rows_of(source, limit)))).collect();
    let mut stages = Vec::new();
    let names: Vec<String> = flow.stages.iter().map(Stage::name).collect();
    for (stage, name) in flow.stages.iter().zip(&names) {
        let several = stage.inputs.len() > 1;
        let mut passing = Vec::new();
        for (number, input) in stage.inputs.iter().enumerate() {
            for row in &readable[input.as_str()].1 {
                let origin = if several { format!("{}@{number}", row.origin) } else { row.origin.clone() };
                passing.push(Passing { origin, ..row.clone() });
            }
        }
        let reduces = matches!(stage.op, Op::Total { .. });
        let keyed = !reduces && stage.inputs.iter().all(|input| readable[input.as_str()].0);
        let (items, rows) = if reduces { totals(flow, stage, &passing) } else { each(flow, stage, &passing) };
        readable.insert(name, (keyed, rows.clone()));
        stages.push(Foretold { name: name.clone(), version: version(flow, stage), keyed, items, rows });
    }
    stages
}

fn rows_of<'a>(source: &'a Source, limit: usize) -> Vec<Passing> {
    let mut seen: BTreeMap<&Row, usize> = BTreeMap::new();
    let passing = |(number, row): (usize, &'a Row)| {
        let nth = seen.entry(row).or_default();
        *nth += 1;
        let key = match (source.kind, row.get("id")) {
            (Kind::Glob, _) => plain(&row["path"]),
            (_, Some(id)) if source.keyed => plain(id),
            _ => number.to_string(),
        };
        let origin = if source.keyed { key.clone() } else { format!("{row:?} {nth}") };
        Passing { key, origin, row: row.clone() }
    };
    source.rows.iter().enumerate().map(passing).take(limit).collect()
}

fn plain(cell: &Cell) -> String {
    cell.shown().as_str().map_or_else(|| cell.shown().to_string(), str::to_string)
}

fn int(row: &Row, column: &str) -> i64 {
    match row.get(column) {
        Some(Cell::Int(n)) => *n,
        other => panic!("{column} is {other:?}"),
    }
}

/// The cells of a row that the action sees.
fn seen(stage: &Stage, row: &Row) -> String {
    let all = matches!(stage.op, Op::Row | Op::Spread | Op::Keep | Op::Total { .. }) && !stage.narrow;
    let group = stage.op == Op::Total { grouped: true, ordered: true }
        || stage.op == Op::Total { grouped: true, ordered: false };
    let named = stage.op == Op::Make;
    let counts = |name: &str| all || name == stage.of || (group && name == "g") || (named && name == "id");
    let cells: Vec<_> = row.iter().filter(|(name, _)| counts(name)).collect();
    format!("{cells:?}")
}

fn version(flow: &Flow, stage: &Stage) -> String {
    let by = stage.by.unwrap_or(flow.param());
    // What the function reaches, and nothing else.
    let code = match stage.op.is_python() {
        true => format!("{} {} {}", stage.code.scale, stage.code.shift, flow.shared),
        false => String::new(),
    };
    // Arguments count by value, expressions and templates as they are written too.
    let written = !stage.op.is_python() && stage.by.is_none();
    let number = match stage.op {
        Op::Read | Op::Make => String::new(),
        _ => format!("{by} {written}"),
    };
    format!("{:?} {} {number} {code} {:?}", stage.op, stage.of, stage.version)
}

fn each(flow: &Flow, stage: &Stage, passing: &[Passing]) -> (Vec<Item>, Vec<Passing>) {
    let (mut items, mut given) = (Vec::new(), Vec::new());
    for Passing { key, origin, row } in passing {
        let rows = rows_given(flow, stage, row);
        let makes = rows.iter().flatten().find_map(|row| match row.get(&stage.column()) {
            Some(Cell::File(path, content)) => Some((path.clone(), content.clone())),
            _ => None,
        });
        let (key, origin) = (key.clone(), origin.clone());
        items.push(Item {
            key: key.clone(),
            origin: origin.clone(),
            input: seen(stage, row),
            failed: rows.is_none(),
            makes,
        });
        for (number, row) in rows.into_iter().flatten().enumerate() {
            given.push(match stage.op {
                Op::Spread => Passing { key: format!("{key}/{number}"), origin: format!("{origin}/{number}"), row },
                _ => Passing { key: key.clone(), origin: origin.clone(), row },
            });
        }
    }
    (items, given)
}

/// What the stage makes of a row; `None`: its item fails.
fn rows_given(flow: &Flow, stage: &Stage, row: &Row) -> Option<Vec<Row>> {
    let by = stage.by.unwrap_or(flow.param());
    let with = |cell: Cell| -> Row {
        let mut row = row.clone();
        row.insert(stage.column(), cell);
        row
    };
    if stage.op == Op::Read {
        return Some(vec![read(row)]);
    }
    let v = int(row, &stage.of);
    let moved = v + flow.shared + stage.code.shift;
    let kept = |keeps: bool| if keeps { vec![row.clone()] } else { Vec::new() };
    Some(match stage.op {
        Op::Assign => vec![with(Cell::Int(v + by))],
        Op::Fragile => vec![with(Cell::Int(by / Some(v % 3).filter(|n| *n != 0)?))],
        Op::Where => kept((v + by) % 3 != 0),
        Op::Echo => vec![with(Cell::Int(format!("1{v}{by}").parse().expect("a number")))],
        Op::Make => {
            let lines: String = (0..=v % 50).map(|n| format!("{n}\n")).collect();
            vec![with(Cell::File(format!("made/{}-{}.txt", stage.name(), int(row, "id")), lines))]
        }
        Op::Row | Op::Keywords | Op::Value => vec![with(Cell::Int(moved * stage.code.scale + by))],
        Op::Spread => (0..moved % 3).map(|j| with(Cell::Int(v * stage.code.scale + j + by))).collect(),
        Op::Keep => kept((moved * stage.code.scale + by) % 3 != 0),
        Op::Read | Op::Total { .. } => unreachable!("told elsewhere"),
    })
}

/// The row of a file: `x` and `g` are what it holds.
fn read(row: &Row) -> Row {
    let Cell::File(_, content) = &row["path"] else { panic!("no file in {row:?}") };
    let held: Json = serde_json::from_str(content).expect("JSON");
    let cell = |name: &str| (name.to_string(), Cell::Int(held[name].as_i64().expect("a number")));
    [("who".to_string(), row["who"].clone()), cell("x"), cell("g")].into()
}

fn totals(flow: &Flow, stage: &Stage, passing: &[Passing]) -> (Vec<Item>, Vec<Passing>) {
    let Op::Total { grouped, ordered } = stage.op else { unreachable!("a reduce") };
    let by = stage.by.unwrap_or(flow.param());
    // In the order in which they first appear.
    let mut groups: Vec<(Row, Vec<&Row>)> = if grouped { Vec::new() } else { vec![(Row::new(), Vec::new())] };
    for Passing { row, .. } in passing {
        let group: Row =
            row.iter().filter(|(name, _)| grouped && *name == "g").map(|(n, c)| (n.clone(), c.clone())).collect();
        match groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, rows)) => rows.push(row),
            None => groups.push((group, vec![row])),
        }
    }
    let (mut items, mut given) = (Vec::new(), Vec::new());
    for (mut row, rows) in groups {
        let (key, origin) = (row.get("g").map_or("0".to_string(), plain), format!("{row:?}"));
        let mut inputs: Vec<String> = rows.iter().map(|row| seen(stage, row)).collect();
        if !ordered {
            inputs.sort();
        }
        items.push(Item {
            key: key.clone(),
            origin: origin.clone(),
            input: inputs.join("\n"),
            failed: false,
            makes: None,
        });
        let moved = |row: &&Row| int(row, &stage.of) + flow.shared + stage.code.shift;
        let sum: i64 = rows.iter().map(moved).sum();
        row.insert(stage.column(), Cell::Int(sum * stage.code.scale + by));
        row.insert(format!("n{}", stage.number), Cell::Int(rows.len() as i64));
        given.push(Passing { key, origin, row });
    }
    (items, given)
}

/// What runs have settled so far.
#[derive(Debug, Default)]
pub struct Memory {
    /// By stage and version: inputs, and the origins for which there is an outcome.
    known: BTreeMap<(String, String), BTreeMap<String, BTreeSet<String>>>,
    /// The files that items made: how large they are, and by whom they were made.
    pub made: BTreeMap<String, (usize, Maker)>,
}

/// Stage, version, input and origin of an item.
type Maker = [String; 4];

impl Memory {
    /// The items of a stage that are due. Without a key, an outcome counts for any one item with its input.
    pub fn due<'a>(&self, stage: &'a Foretold) -> Vec<&'a Item> {
        let nothing = BTreeMap::new();
        let known = self.known.get(&(stage.name.clone(), stage.version.clone())).unwrap_or(&nothing);
        let is_known = |item: &&Item| {
            known.get(&item.input).is_some_and(|origins| origins.contains(&item.origin)) && self.has_made(stage, item)
        };
        let (own, others): (Vec<&Item>, Vec<&Item>) = stage.items.iter().partition(is_known);
        if stage.keyed {
            return others;
        }
        let mut free: BTreeMap<&str, usize> =
            known.iter().map(|(input, origins)| (input.as_str(), origins.len())).collect();
        own.iter().for_each(|item| *free.get_mut(item.input.as_str()).expect("known") -= 1);
        let mut takes = |item: &&Item| match free.get_mut(item.input.as_str()) {
            Some(count) if *count > 0 => {
                *count -= 1;
                true
            }
            _ => false,
        };
        others.into_iter().filter(|item| !takes(item)).collect()
    }

    /// Inputs of items without a key that may be given outcomes of others: whether before or after these others took
    /// them is a matter of which batch is looked up first.
    pub fn loose<'a>(&self, stage: &'a Foretold) -> BTreeSet<&'a str> {
        let known = self.known.get(&(stage.name.clone(), stage.version.clone()));
        let (Some(known), false) = (known, stage.keyed) else { return BTreeSet::new() };
        let is_loose = |item: &&Item| known.get(&item.input).is_some_and(|origins| !origins.contains(&item.origin));
        stage.items.iter().filter(is_loose).map(|item| item.input.as_str()).collect()
    }

    /// Whether the item's file is there, in its full size, and nobody else has written over it.
    fn has_made(&self, stage: &Foretold, item: &Item) -> bool {
        item.makes.as_ref().is_none_or(|(path, content)| {
            self.made.get(path).is_some_and(|made| *made == (content.len(), maker(stage, item)))
        })
    }

    /// Items of that stage, by their keys, have outcomes now.
    pub fn learn(&mut self, stage: &Foretold, keys: &[String]) {
        let mut due: Vec<Item> = self.due(stage).into_iter().cloned().collect();
        let known = self.known.entry((stage.name.clone(), stage.version.clone())).or_default();
        for key in keys {
            let at = due.iter().position(|item| item.key == *key);
            // Of equals it may have been another one.
            let other = || stage.items.iter().find(|item| item.key == *key).expect("an item of the stage").clone();
            let item = at.map_or_else(other, |at| due.remove(at));
            known.entry(item.input.clone()).or_default().insert(item.origin.clone());
            if let Some((path, content)) = &item.makes {
                self.made.insert(path.clone(), (content.len(), maker(stage, &item)));
            }
        }
        // What an item was given of others is its own from now on.
        for item in &stage.items {
            known.entry(item.input.clone()).or_default().insert(item.origin.clone());
        }
    }

    /// Only what the items of these stages have now is kept.
    pub fn collect(&mut self, stages: &[Foretold]) {
        let mut all = std::mem::take(&mut self.known);
        for stage in stages {
            let place = (stage.name.clone(), stage.version.clone());
            let mut known = all.remove(&place).unwrap_or_default();
            let kept = self.known.entry(place).or_default();
            let mut others = Vec::new();
            for Item { input, origin, .. } in &stage.items {
                match known.get_mut(input).and_then(|origins| origins.take(origin)) {
                    Some(own) => _ = kept.entry(input.clone()).or_default().insert(own),
                    None => others.push(input),
                }
            }
            for input in others {
                if let Some(other) = known.get_mut(input).and_then(BTreeSet::pop_first) {
                    kept.entry(input.clone()).or_default().insert(other);
                }
            }
        }
    }
}

fn maker(stage: &Foretold, item: &Item) -> Maker {
    [&stage.name, &stage.version, &item.input, &item.origin].map(String::clone)
}
