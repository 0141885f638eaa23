//! The groups of a reduce: who they are, the hash of each one's rows, and the rows themselves.
//!
//! One pass over the rows above finds groups and digests, in memory per group only. Where groups are due, a second
//! pass writes their rows, and only theirs, into a few spill files, so that a group can be read alone; without
//! `group_by` the rows are streamed as they are replayed.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use hashbrown::HashMap;

use super::EngineError;
use super::replay::{Replay, single_item};
use crate::data::codec::{read_table, write_table};
use crate::data::{Batch, Column, Hash, Items, Table, TableBuilder, Value, row_hashes};
use crate::plan::PlannedStage;
use crate::spec::model::Verb;

/// The groups of a stage, in the order in which they first appear.
pub struct Groups {
    /// Who they are; the table holds the `group_by` columns.
    pub batch: Batch,
    /// The digest of each one's rows.
    pub inputs: Vec<Hash>,
    /// Rows missing behind a failure.
    pub blocked: u64,
    /// Rows missing behind something that is to be run.
    pub possible: u64,
}

/// The one item of a stage that runs once.
pub fn once() -> Groups {
    Groups {
        batch: Batch { items: single_item(), table: Table::empty(1) },
        inputs: vec![Hash::of(b"once")],
        blocked: 0,
        possible: 0,
    }
}

/// Finds the groups of a reduce by replaying the rows above it.
pub fn of_stage(replay: &Replay, stage: &PlannedStage) -> Result<Groups, EngineError> {
    let mut grouping = Grouping::new(replay.plan.stages[stage.index].clone());
    let (mut blocked, mut possible) = (0, 0);
    let _ = replay.inputs_of(stage, &mut |flow| {
        blocked += flow.blocked;
        possible += flow.possible;
        grouping.add(&flow.batch.table);
        Ok(ControlFlow::Continue(()))
    })?;
    let (batch, inputs) = grouping.finish();
    Ok(Groups { batch, inputs, blocked, possible })
}

/// Collects groups and their digests from rows in item order.
pub struct Grouping {
    stage: Arc<PlannedStage>,
    ordered: bool,
    numbers: HashMap<Vec<u8>, u32>,
    digests: Vec<Hash>,
    members: TableBuilder,
}

impl Grouping {
    /// No groups yet; without `group_by` one, of no rows.
    pub fn new(stage: Arc<PlannedStage>) -> Grouping {
        let ordered = !matches!(stage.verb, Verb::Reduce { ordered: false, .. });
        let mut grouping =
            Grouping { stage, ordered, numbers: HashMap::new(), digests: Vec::new(), members: TableBuilder::default() };
        if grouping.stage.group_by().is_empty() {
            grouping.numbers.insert(Vec::new(), 0);
            grouping.digests.push(Hash::of(b"reduce"));
        }
        grouping
    }

    /// Adds rows.
    pub fn add(&mut self, table: &Table) {
        let hashes = row_hashes(table, &self.stage.uses);
        let stage = self.stage.clone();
        let columns = group_columns(&stage, table);
        let mut cells = Vec::new();
        for (row, hash) in hashes.iter().enumerate() {
            cells.clear();
            columns.iter().for_each(|column| encode_group(*column, row, &mut cells));
            let number = match self.numbers.get(&cells) {
                Some(&number) => number,
                None => self.new_group(&cells, &columns, row),
            };
            let digest = &mut self.digests[number as usize];
            *digest = if self.ordered { chain(*digest, *hash) } else { sum(*digest, *hash) };
        }
    }

    fn new_group(&mut self, cells: &[u8], columns: &[Option<&Column>], row: usize) -> u32 {
        let number = self.digests.len() as u32;
        self.numbers.insert(cells.to_vec(), number);
        self.digests.push(Hash::of(b"group"));
        let values: Vec<Value> = columns.iter().map(|c| c.map_or(Value::Null, |c| c.value(row).plain())).collect();
        self.members.push_row(self.stage.group_by().iter().map(String::as_str).zip(&values));
        number
    }

    /// The groups and their digests.
    pub fn finish(self) -> (Batch, Vec<Hash>) {
        let groups = self.digests.len();
        if self.stage.group_by().is_empty() {
            return (Batch { items: single_item(), table: Table::empty(1) }, self.digests);
        }
        let table = if groups == 0 { Table::empty(0) } else { self.members.finish() };
        let mut origins = vec![0; groups];
        for (cells, number) in &self.numbers {
            origins[*number as usize] = Hash::of(cells).short();
        }
        let keys = (0..groups).map(|row| Some(group_key(&table, row))).collect();
        (Batch { items: Items { rows: (0..groups as u64).collect(), origins, keys: Some(keys) }, table }, self.digests)
    }
}

/// The names of the groups that some rows belong to.
pub fn groups_of_rows(stage: &PlannedStage, rows: &Table) -> Vec<String> {
    let mut grouping = Grouping::new(Arc::new(stage.clone()));
    grouping.add(rows);
    let (groups, _) = grouping.finish();
    (0..groups.len()).map(|i| groups.items.key(i)).collect()
}

fn group_columns<'t>(stage: &PlannedStage, table: &'t Table) -> Vec<Option<&'t Column>> {
    stage.group_by().iter().map(|name| table.column(name)).collect()
}

/// A missing group cell counts as null.
fn encode_group(column: Option<&Column>, row: usize, cells: &mut Vec<u8>) {
    match column.map(|c| c.value(row)) {
        None | Some(Value::Absent) => crate::data::value::encode(&Value::Null, cells),
        Some(value) => crate::data::value::encode(&value.plain(), cells),
    }
}

fn group_key(table: &Table, row: usize) -> String {
    let values: Vec<Value> = table.columns().iter().map(|c| c.value(row)).collect();
    match &values[..] {
        [Value::Text(text)] => text.clone(),
        [one] => one.to_json().to_string(),
        several => serde_json::Value::Array(several.iter().map(Value::to_json).collect()).to_string(),
    }
}

fn chain(digest: Hash, row: Hash) -> Hash {
    let mut both = [0; 32];
    both[..16].copy_from_slice(&digest.0);
    both[16..].copy_from_slice(&row.0);
    Hash::of(&both)
}

/// Wrapping addition: the same whatever the order of the rows.
fn sum(digest: Hash, row: Hash) -> Hash {
    Hash(u128::from_le_bytes(digest.0).wrapping_add(u128::from_le_bytes(row.0)).to_le_bytes())
}

const SPILL_FILES: usize = 32;
const SPILL_BLOCK: usize = 512 << 10;
const LOADED_PARTITION: u64 = 64 << 20;
const ROWS_A_FRAME: usize = 8192;
/// Names the group of a spilled row.
const GROUP: &str = "\u{0}group";

/// The rows of some groups, in spill files.
pub struct GroupRows {
    partitions: Vec<Partition>,
    partition_of: HashMap<u32, usize>,
    loaded: Mutex<Vec<(usize, Arc<Loaded>)>>,
}

struct Partition {
    file: File,
    end: u64,
    blocks: Vec<(u64, usize)>,
    buffered: Vec<Table>,
    buffered_bytes: usize,
}

struct Loaded {
    table: Table,
    ranges: HashMap<u32, (usize, usize)>,
}

impl GroupRows {
    /// Writes the rows of the groups numbered `due` (ascending) to files without a name in `dir`.
    ///
    /// # Errors
    /// When the store cannot be read or the files cannot be written.
    pub fn spill(
        replay: &Replay,
        stage: &PlannedStage,
        groups: &Batch,
        due: &[u32],
        dir: &Path,
    ) -> Result<Arc<GroupRows>, EngineError> {
        let files = SPILL_FILES.min(due.len());
        let partition_of: HashMap<u32, usize> =
            due.iter().enumerate().map(|(at, &group)| (group, at * files / due.len())).collect();
        let number_of = group_numbers(groups);
        let mut partitions = (0..files).map(|_| Partition::create(dir)).collect::<Result<Vec<_>, _>>()?;
        let _ = replay.inputs_of(stage, &mut |flow| {
            let table = flow.batch.table;
            let mut rows = vec![(Vec::new(), Vec::new()); files];
            let columns = group_columns(stage, &table);
            let mut cells = Vec::new();
            for row in 0..table.rows() {
                cells.clear();
                columns.iter().for_each(|column| encode_group(*column, row, &mut cells));
                let group = number_of.get(&cells).copied();
                if let Some((group, &partition)) = group.and_then(|g| Some((g, partition_of.get(&g)?))) {
                    rows[partition].0.push(row as u32);
                    rows[partition].1.push(Value::Int(i64::from(group)));
                }
            }
            for (partition, (rows, groups)) in partitions.iter_mut().zip(rows) {
                if !rows.is_empty() {
                    let group =
                        Table::new(Arc::from([Arc::from(GROUP)]), vec![Column::from_values(groups)], rows.len());
                    partition.push(table.take(&rows).join(&group))?;
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        partitions.iter_mut().try_for_each(Partition::flush)?;
        Ok(Arc::new(GroupRows { partitions, partition_of, loaded: Mutex::new(Vec::new()) }))
    }

    /// The rows of one group, in item order, a few thousand at a time. A spill file that cannot be read is told to
    /// `failed`.
    pub fn rows(
        self: &Arc<Self>,
        group: u32,
        failed: impl Fn(EngineError) + Send + 'static,
    ) -> Box<dyn Iterator<Item = Table> + Send> {
        let number = self.partition_of[&group];
        if self.partitions[number].end <= LOADED_PARTITION {
            let loaded = match self.load(number) {
                Ok(loaded) => loaded,
                Err(error) => {
                    failed(error);
                    return Box::new(std::iter::empty());
                }
            };
            let (start, len) = loaded.ranges.get(&group).copied().unwrap_or((0, 0));
            let slices = (0..len)
                .step_by(ROWS_A_FRAME)
                .map(move |at| loaded.table.slice(start + at, ROWS_A_FRAME.min(len - at)).select(|name| name != GROUP));
            return Box::new(slices);
        }
        let checked = move |table: Result<Table, EngineError>| match table {
            Ok(table) => Some(table),
            Err(error) => {
                failed(error);
                None
            }
        };
        let rows = self.clone();
        let blocks = (0..self.partitions[number].blocks.len())
            .map_while(move |block| checked(rows.partitions[number].read(block)))
            .map(move |table| only_group(&table, group))
            .filter(|table| table.rows() > 0);
        Box::new(blocks)
    }

    fn load(&self, number: usize) -> Result<Arc<Loaded>, EngineError> {
        let mut cache = self.loaded.lock().unwrap_or_else(|e| e.into_inner());
        if let Some((_, loaded)) = cache.iter().find(|(n, _)| *n == number) {
            return Ok(loaded.clone());
        }
        let partition = &self.partitions[number];
        let blocks = (0..partition.blocks.len()).map(|b| partition.read(b)).collect::<Result<Vec<_>, _>>()?;
        let loaded = Arc::new(Loaded::sorted(&Table::concat(&blocks)));
        if cache.len() >= 2 {
            cache.remove(0);
        }
        cache.push((number, loaded.clone()));
        Ok(loaded)
    }
}

fn group_numbers(groups: &Batch) -> HashMap<Vec<u8>, u32> {
    (0..groups.len())
        .map(|row| {
            let mut cells = Vec::new();
            groups.table.columns().iter().for_each(|column| encode_group(Some(column), row, &mut cells));
            (cells, row as u32)
        })
        .collect()
}

fn group_of(table: &Table, row: usize) -> u32 {
    match table.column(GROUP).map(|c| c.value(row)) {
        Some(Value::Int(group)) => group as u32,
        _ => u32::MAX,
    }
}

fn only_group(table: &Table, group: u32) -> Table {
    let rows: Vec<u32> = (0..table.rows()).filter(|&r| group_of(table, r) == group).map(|r| r as u32).collect();
    table.take(&rows).select(|name| name != GROUP)
}

impl Loaded {
    fn sorted(table: &Table) -> Loaded {
        let groups: Vec<u32> = (0..table.rows()).map(|row| group_of(table, row)).collect();
        let mut order: Vec<u32> = (0..table.rows() as u32).collect();
        order.sort_by_key(|&row| groups[row as usize]);
        let mut ranges: HashMap<u32, (usize, usize)> = HashMap::new();
        for (at, &row) in order.iter().enumerate() {
            ranges.entry(groups[row as usize]).or_insert((at, 0)).1 += 1;
        }
        Loaded { table: table.take(&order), ranges }
    }
}

impl Partition {
    fn create(dir: &Path) -> Result<Partition, EngineError> {
        let file = tempfile::tempfile_in(dir).map_err(EngineError::Spill)?;
        Ok(Partition { file, end: 0, blocks: Vec::new(), buffered: Vec::new(), buffered_bytes: 0 })
    }

    fn push(&mut self, table: Table) -> Result<(), EngineError> {
        self.buffered_bytes += table.bytes();
        self.buffered.push(table);
        if self.buffered_bytes >= SPILL_BLOCK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), EngineError> {
        if self.buffered.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        write_table(&Table::concat(&std::mem::take(&mut self.buffered)), &mut bytes);
        let packed = lz4_flex::compress_prepend_size(&bytes);
        self.file.write_all_at(&packed, self.end).map_err(EngineError::Spill)?;
        self.blocks.push((self.end, packed.len()));
        self.end += packed.len() as u64;
        self.buffered_bytes = 0;
        Ok(())
    }

    fn read(&self, block: usize) -> Result<Table, EngineError> {
        let (offset, len) = self.blocks[block];
        let mut packed = vec![0; len];
        self.file.read_exact_at(&mut packed, offset).map_err(EngineError::Spill)?;
        let damaged = || EngineError::Spill(std::io::Error::from(std::io::ErrorKind::InvalidData));
        let bytes = lz4_flex::decompress_size_prepended(&packed).map_err(|_| damaged())?;
        read_table(&mut &bytes[..]).map_err(|_| damaged())
    }
}
