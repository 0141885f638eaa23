//! Who the rows of a source are: keys, origins, and the digest of each batch.
//!
//! A keyed row's origin is a hash of its key; a keyless row's is a hash of all its cells and of how many equal rows
//! came before it, so that rows keep their results when others are added or taken away. A key that stands twice
//! makes the later row a bad row. What is remembered is at most about 20 bytes a row; two keys are taken for equal
//! when 64 bits of their hashes are (among ten million rows: once in 300,000 sources).

use std::ops::Range;

use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::{Array, StringArray};
use hashbrown::{HashMap, HashTable};
use rayon::prelude::*;

use super::failure::{Failure, FailureKind};
use super::item::{Hash, Items, Uses, mix, row_hashes};
use super::source::{ReadBatch, SourceError};
use super::table::{Column, Table};
use super::value::{Value, encode, tag};
use crate::store::model::RosterBatch;

/// Rows hashed by one thread at a time.
const PIECE: usize = 1024;

/// Turns the batches of one source, in order, into items.
pub struct Identifier {
    source_name: String,
    key: Vec<String>,
    seen: Seen,
}

impl Identifier {
    /// For a source whose items are named by the columns `key`; none: by their row numbers.
    pub fn new(source_name: impl Into<String>, key: &[String]) -> Identifier {
        Identifier { source_name: source_name.into(), key: key.to_vec(), seen: Seen::default() }
    }

    /// Makes room for that many rows: as many as there were when the source was last read.
    #[must_use]
    pub fn expecting(mut self, rows: u64) -> Identifier {
        let keyed = !self.key.is_empty();
        self.seen.shards.par_iter_mut().for_each(|shard| shard.reserve(rows as usize / SHARDS, keyed));
        self
    }

    /// The items of the next batch.
    ///
    /// # Errors
    /// When the batch has no key column at all.
    pub fn identify(&mut self, batch: ReadBatch) -> Result<RosterBatch, SourceError> {
        let hashes = hash_rows(&batch.table);
        let roster = if self.key.is_empty() { self.by_content(batch, &hashes) } else { self.by_key(batch)? };
        Ok(RosterBatch { digest: digest(&roster, &hashes), ..roster })
    }

    fn by_content(&mut self, batch: ReadBatch, hashes: &[Hash]) -> RosterBatch {
        let mut origins: Vec<u64> = hashes.iter().map(|hash| hash.short()).collect();
        for (i, times) in self.seen.each(&origins, |shard, _, hash| shard.count(hash)) {
            origins[i] = mix(origins[i], times);
        }
        let bad = batch.bad.into_iter().map(|(row, failure)| (row, row.to_string(), failure)).collect();
        let items = Items { rows: batch.rows, origins, keys: None };
        RosterBatch { items, table: batch.table, bad, digest: Hash::default() }
    }

    fn by_key(&mut self, batch: ReadBatch) -> Result<RosterBatch, SourceError> {
        let columns = self.key_columns(&batch.table)?;
        let keys = Keys::of(&columns, batch.rows.len());
        let mut bad: Vec<_> =
            batch.bad.into_iter().map(|(row, failure)| (row, format!("row:{row}"), failure)).collect();
        let unreadable = bad.len();
        let is_missing = |i: usize| keys.missing.binary_search_by_key(&i, |(at, _)| *at).is_ok();
        let rows = &batch.rows;
        let first_row = |shard: &mut Shard, i: usize, hash| match is_missing(i) {
            true => None,
            false => shard.first_row(hash, rows[i]),
        };
        let mut twice = self.seen.each(&keys.origins, first_row).into_iter().peekable();
        let mut missing = keys.missing.iter().peekable();
        let mut kept = Vec::with_capacity(batch.rows.len());
        for (i, &row) in batch.rows.iter().enumerate() {
            if let Some((_, at)) = missing.next_if(|(missing, _)| *missing == i) {
                let message = format!("row {row} has no key: column {:?} is empty", self.key[*at]);
                bad.push((row, format!("row:{row}"), Failure::new(FailureKind::Input, message)));
            } else if let Some((_, first)) = twice.next_if(|(again, _)| *again == i) {
                let text = keys.texts.value(i);
                let message = format!("key {text:?} stands twice: rows {first} and {row}");
                bad.push((row, text.to_string(), Failure::new(FailureKind::Input, message)));
            } else {
                kept.push(i as u32);
            }
        }
        if bad.len() > unreadable {
            bad.sort_by_key(|(row, ..)| *row);
        }
        let all = Items { rows: batch.rows, origins: keys.origins, keys: Some(keys.texts) };
        let items = if kept.len() == all.len() { all } else { all.take(&kept) };
        Ok(RosterBatch { items, table: batch.table.take(&kept), bad, digest: Hash::default() })
    }

    /// The key's columns. A batch without good rows needs none.
    fn key_columns<'a>(&self, table: &'a Table) -> Result<Vec<&'a Column>, SourceError> {
        if table.rows() == 0 {
            return Ok(Vec::new());
        }
        let column = |name: &String| {
            table
                .column(name)
                .ok_or_else(|| SourceError::no_column(&self.source_name, name, table.names().iter().map(|n| &**n)))
        };
        self.key.iter().map(column).collect()
    }
}

/// The keys of a batch's rows.
struct Keys {
    origins: Vec<u64>,
    texts: StringArray,
    /// Rows without one, ascending, and which of the key's columns is empty.
    missing: Vec<(usize, usize)>,
}

impl Keys {
    fn of(columns: &[&Column], rows: usize) -> Keys {
        let pieces: Vec<usize> = (0..rows).step_by(PIECE).collect();
        let pieces: Vec<Keys> =
            pieces.into_par_iter().map(|at| Keys::of_piece(columns, at..rows.min(at + PIECE))).collect();
        let texts: Vec<&dyn Array> = pieces.iter().map(|p| &p.texts as &dyn Array).collect();
        let texts = match texts.is_empty() {
            true => StringArray::from(Vec::<&str>::new()),
            false => arrow_select::concat::concat(&texts).expect("arrays of one type").as_string().clone(),
        };
        Keys {
            texts,
            missing: pieces.iter().flat_map(|p| p.missing.iter().copied()).collect(),
            origins: pieces.into_iter().flat_map(|p| p.origins).collect(),
        }
    }

    fn of_piece(columns: &[&Column], rows: Range<usize>) -> Keys {
        let mut origins = Vec::with_capacity(rows.len());
        let mut texts = StringBuilder::new();
        let mut missing = Vec::new();
        let mut bytes = Vec::new();
        for row in rows {
            let cells: Vec<Value> = columns.iter().map(|c| c.value(row).plain()).collect();
            if let Some(at) = cells.iter().position(is_missing) {
                missing.push((row, at));
            }
            bytes.clear();
            cells.iter().for_each(|cell| encode(cell, &mut bytes));
            origins.push(Hash::of(&bytes).short());
            texts.append_value(key_text(&cells));
        }
        Keys { origins, texts: texts.finish(), missing }
    }
}

fn is_missing(cell: &Value) -> bool {
    match cell {
        Value::Absent | Value::Null => true,
        Value::Text(text) => text.is_empty(),
        _ => false,
    }
}

/// The key as printed: one column's cell, or several as a JSON array.
fn key_text(cells: &[Value]) -> String {
    match cells {
        [Value::Text(text)] => text.clone(),
        [only] => only.to_string(),
        several => serde_json::Value::Array(several.iter().map(Value::to_json).collect()).to_string(),
    }
}

fn hash_rows(table: &Table) -> Vec<Hash> {
    let pieces: Vec<usize> = (0..table.rows()).step_by(PIECE).collect();
    pieces
        .into_par_iter()
        .flat_map_iter(|at| row_hashes(&table.slice(at, PIECE.min(table.rows() - at)), &Uses::All))
        .collect()
}

/// The hash of all that a batch tells: column names, rows, cells (those set aside too), who the rows are, bad rows.
fn digest(batch: &RosterBatch, hashes: &[Hash]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    batch.table.names().iter().for_each(|name| part(name.as_bytes()));
    let rows: Vec<u8> = batch.items.rows.iter().flat_map(|row| row.to_le_bytes()).collect();
    part(&rows);
    let hashes: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
    part(&hashes);
    let origins: Vec<u8> = batch.items.origins.iter().flat_map(|origin| origin.to_le_bytes()).collect();
    part(&origins);
    for column in batch.table.columns().iter().filter(|c| has_aside(c)) {
        let mut cells = Vec::new();
        (0..column.len()).for_each(|row| column.encode_cell(row, &mut cells));
        part(&cells);
    }
    for (row, key, failure) in &batch.bad {
        part(&row.to_le_bytes());
        part(key.as_bytes());
        part(failure.message.as_bytes());
    }
    Hash::from(&hasher.finalize())
}

fn has_aside(column: &Column) -> bool {
    matches!(column, Column::Cells(_)) && (0..column.len()).any(|row| column.tag(row) == tag::ASIDE)
}

/// Parts of what was seen, which are looked through side by side.
const SHARDS: usize = 8;

/// The hashes seen so far.
#[derive(Default)]
struct Seen {
    shards: [Shard; SHARDS],
}

impl Seen {
    /// Asks of each hash what its shard knows of it, in order; gives the answers of those that were seen before.
    fn each(
        &mut self,
        hashes: &[u64],
        ask: impl Fn(&mut Shard, usize, u64) -> Option<u64> + Sync,
    ) -> Vec<(usize, u64)> {
        let answers = self.shards.par_iter_mut().enumerate().flat_map_iter(|(number, shard)| {
            // Not of the bits by which a table finds its places.
            let own = hashes.iter().enumerate().filter(move |(_, hash)| (**hash >> 40) as usize % SHARDS == number);
            let ask = &ask;
            own.filter_map(move |(i, &hash)| Some((i, ask(shard, i, hash)?)))
        });
        let mut answers: Vec<(usize, u64)> = answers.collect();
        answers.sort_unstable();
        answers
    }
}

/// A part of the hashes. One source uses either only [`Shard::count`] or only [`Shard::first_row`].
#[derive(Default)]
struct Shard {
    once: HashTable<u64>,
    /// Those seen more than once, and how often.
    repeated: HashMap<u64, u64>,
    /// For keys: the hash and the row of each, in order; `places` finds them by hash.
    keys: Vec<u64>,
    rows: Vec<u32>,
    places: HashTable<u32>,
}

impl Shard {
    fn reserve(&mut self, rows: usize, keyed: bool) {
        // Hashes do not fall evenly.
        let rows = rows + rows / 32;
        if keyed {
            self.keys.reserve(rows);
            self.rows.reserve(rows);
            self.places.reserve(rows, |_| unreachable!("nothing to move yet"));
        } else {
            self.once.reserve(rows, |h| *h);
        }
    }

    /// How often `hash` was seen before, if it was.
    fn count(&mut self, hash: u64) -> Option<u64> {
        if self.once.find(hash, |h| *h == hash).is_none() {
            self.once.insert_unique(hash, hash, |h| *h);
            return None;
        }
        let times = self.repeated.entry(hash).or_insert(0);
        *times += 1;
        Some(*times)
    }

    /// The row at which `hash` was first seen, if it was; else it is now seen at `row`.
    fn first_row(&mut self, hash: u64, row: u64) -> Option<u64> {
        let Shard { keys, rows, places, .. } = self;
        if let Some(&at) = places.find(hash, |&at| keys[at as usize] == hash) {
            return Some(u64::from(rows[at as usize]));
        }
        places.insert_unique(hash, keys.len() as u32, |&at| keys[at as usize]);
        keys.push(hash);
        rows.push(row as u32);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(first: u64, rows: &[serde_json::Value]) -> ReadBatch {
        let table = Table::from_rows(rows.iter().map(|row| match Value::from_json(row.clone()) {
            Value::Map(entries) => entries,
            other => vec![("value".into(), other)],
        }));
        ReadBatch { rows: (first..first + rows.len() as u64).collect(), table, bad: Vec::new(), bytes: 0 }
    }

    fn json(text: &str) -> Vec<serde_json::Value> {
        serde_json::from_str(text).expect("valid")
    }

    #[test]
    fn equal_rows_count_and_batches_do_not_matter() {
        let rows = json(r#"[1, 2, 1, 1.0, true, 1, 2]"#);
        let mut whole = Identifier::new("s", &[]);
        let whole = whole.identify(batch(0, &rows)).expect("good").items.origins;
        let mut parts = Identifier::new("s", &[]);
        let mut origins = parts.identify(batch(0, &rows[..3])).expect("good").items.origins;
        origins.extend(parts.identify(batch(3, &rows[3..])).expect("good").items.origins);
        assert_eq!(whole, origins);
        assert_eq!(whole.iter().collect::<std::collections::HashSet<_>>().len(), rows.len());
    }

    #[test]
    fn a_row_keeps_its_origin_when_others_go() {
        let origins = |text| Identifier::new("s", &[]).identify(batch(0, &json(text))).expect("good").items.origins;
        assert_eq!(origins("[5, 6, 7]")[2], origins("[7]")[0]);
    }

    #[test]
    fn keys_that_stand_twice_or_are_missing_are_bad() {
        let rows = json(r#"[{"id": "a", "x": 1}, {"id": null, "x": 2}, {"id": "a", "x": 3}, {"x": 4}, {"id": "b"}]"#);
        let roster = Identifier::new("s", &["id".into()]).identify(batch(10, &rows)).expect("good");
        assert_eq!(roster.items.rows, [10, 14]);
        assert_eq!((roster.items.key(0), roster.items.key(1)), ("a".to_string(), "b".to_string()));
        assert_eq!(roster.table.rows(), 2);
        let bad: Vec<_> = roster.bad.iter().map(|(r, k, f)| (*r, k.as_str(), f.message.as_str())).collect();
        assert_eq!(
            bad,
            [
                (11, "row:11", "row 11 has no key: column \"id\" is empty"),
                (12, "a", "key \"a\" stands twice: rows 10 and 12"),
                (13, "row:13", "row 13 has no key: column \"id\" is empty"),
            ]
        );
    }

    #[test]
    fn several_columns_make_an_array() {
        let rows = json(r#"[{"a": 1, "b": "x"}, {"a": 1, "b": "y"}]"#);
        let roster = Identifier::new("s", &["a".into(), "b".into()]).identify(batch(0, &rows)).expect("good");
        assert_eq!(roster.items.key(1), r#"[1,"y"]"#);
        assert!(roster.bad.is_empty());
    }

    #[test]
    fn a_files_content_is_no_part_of_its_key() {
        let file = |digest| {
            Table::from_rows([vec![("path".to_string(), Value::File { path: "a".into(), digest, size: None })]])
        };
        let origin = |digest| {
            let batch = ReadBatch { rows: vec![0], table: file(digest), bad: Vec::new(), bytes: 0 };
            let roster = Identifier::new("s", &["path".into()]).identify(batch).expect("good");
            (roster.items.origins[0], roster.digest)
        };
        assert_eq!(origin([1; 32]).0, origin([2; 32]).0);
        assert_ne!(origin([1; 32]).1, origin([2; 32]).1);
    }

    #[test]
    fn a_key_that_is_no_column_is_an_error() {
        let rows = json(r#"[{"cell_id": 1}]"#);
        let error = Identifier::new("cells", &["cell_di".into()]).identify(batch(0, &rows)).expect_err("refused");
        assert_eq!(error.to_string(), "source cells: there is no column \"cell_di\"; did you mean \"cell_id\"?");
    }

    #[test]
    fn the_digest_sees_everything() {
        let digest = |first, text, key: &[String]| {
            Identifier::new("s", key).identify(batch(first, &json(text))).expect("good").digest
        };
        let base = digest(0, r#"[{"a": 1}, {"a": 2}]"#, &[]);
        assert_eq!(base, digest(0, r#"[{"a": 1}, {"a": 2}]"#, &[]));
        assert_ne!(base, digest(1, r#"[{"a": 1}, {"a": 2}]"#, &[]));
        assert_ne!(base, digest(0, r#"[{"a": 2}, {"a": 1}]"#, &[]));
        assert_ne!(base, digest(0, r#"[{"a": 1}, {"a": 2.0}]"#, &[]));
    }
}
