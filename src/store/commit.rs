//! Writing: each commit is one durable transaction.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;
use redb::{ReadableTable, Table, WriteTransaction};

use super::codec::{EncodedSegment, encode_roster};
use super::db::{
    BATCH_DIGESTS, BATCHES, DIGESTS, DIRECTORY, DirectoryRow, FACTS, FORMAT, FORMAT_FACT, GARBAGE, LISTS, NEXT_ID_FACT,
    NOTES, ROSTERS, SEGMENTS, SEQUENCES, VERSIONS,
};
use super::error::StoreError;
use super::model::{RosterBatch, RosterInfo};
use super::roster::{Rosters, list_digest};
use crate::data::Hash;
use crate::data::source::Known;

/// Something to be written.
#[derive(Debug, Clone)]
pub enum Write {
    /// Begins a new pending roster; an older pending one of the source is dropped. Where no roster was ever finished,
    /// the older one is what readers see: it stays, and is replaced batch by batch. Without this, batches go on with
    /// the pending roster that is there.
    RosterBegin { source: String },
    /// The `n`th batch of the pending roster. A batch whose digest is known is shared, not written again.
    RosterBatch { source: String, n: u64, batch: Arc<RosterBatch> },
    /// The pending roster becomes the current one. Batches past `info.batches` are dropped.
    RosterEnd { source: String, info: RosterInfo },
    /// What makes a version of a stage, as JSON; said again, the last word counts.
    Version { stage: String, version: Hash, components: String },
    /// Outcomes. `again`: some of these items may have an outcome of this version already (they were retried, or run
    /// afresh); the later one counts.
    Segment { stage: String, version: Hash, segment: EncodedSegment, again: bool },
    /// What was learnt of files' contents.
    Digests(Vec<(PathBuf, Known)>),
    /// A small JSON document, replaced as a whole.
    Note { key: String, json: String },
    /// Its end.
    RemoveNote { key: String },
}

/// Kinds of garbage.
pub(super) mod garbage {
    /// A segment's blob.
    pub const SEGMENT: u8 = 0;
    /// A list of a roster.
    pub const LIST: u8 = 1;
}

/// The tables of a write transaction.
pub(super) struct Tables<'t> {
    pub facts: Table<'t, &'static str, u64>,
    pub notes: Table<'t, &'static str, &'static str>,
    pub versions: Table<'t, (&'static str, [u8; 16]), (u32, &'static str)>,
    pub sequences: Table<'t, &'static str, u64>,
    pub directory: Table<'t, (u32, u64), DirectoryRow>,
    pub segments: Table<'t, u64, &'static [u8]>,
    pub rosters: Table<'t, &'static str, &'static str>,
    pub lists: Table<'t, (u64, u64), ([u8; 16], u64)>,
    pub batches: Table<'t, [u8; 16], &'static [u8]>,
    pub batch_digests: Table<'t, [u8; 16], ()>,
    pub digests: Table<'t, [u8; 16], super::digests::Row>,
    pub garbage: Table<'t, (u8, u64), ()>,
    /// Whether digests are kept for the first time.
    pub new_epoch: bool,
}

impl<'t> Tables<'t> {
    pub fn open(transaction: &'t WriteTransaction) -> Result<Tables<'t>, StoreError> {
        let mut tables = Tables {
            facts: transaction.open_table(FACTS)?,
            notes: transaction.open_table(NOTES)?,
            versions: transaction.open_table(VERSIONS)?,
            sequences: transaction.open_table(SEQUENCES)?,
            directory: transaction.open_table(DIRECTORY)?,
            segments: transaction.open_table(SEGMENTS)?,
            rosters: transaction.open_table(ROSTERS)?,
            lists: transaction.open_table(LISTS)?,
            batches: transaction.open_table(BATCHES)?,
            batch_digests: transaction.open_table(BATCH_DIGESTS)?,
            digests: transaction.open_table(DIGESTS)?,
            garbage: transaction.open_table(GARBAGE)?,
            new_epoch: true,
        };
        if tables.facts.get(FORMAT_FACT)?.is_none_or(|v| v.value() < FORMAT) {
            tables.facts.insert(FORMAT_FACT, FORMAT)?;
        }
        Ok(tables)
    }

    /// A number never given before: of a set, a list, a blob.
    pub fn next_id(&mut self) -> Result<u64, StoreError> {
        let id = self.facts.get(NEXT_ID_FACT)?.map_or(1, |v| v.value());
        self.facts.insert(NEXT_ID_FACT, id + 1)?;
        Ok(id)
    }

    pub fn apply(&mut self, write: &Write, encoded: &HashMap<Hash, Vec<u8>>) -> Result<(), StoreError> {
        match write {
            Write::RosterBegin { source } => self.roster_begin(source),
            Write::RosterBatch { source, n, batch } => self.roster_batch(source, *n, batch, encoded),
            Write::RosterEnd { source, info } => self.roster_end(source, info),
            Write::Version { stage, version, components } => self.version(stage, *version, components),
            Write::Segment { stage, version, segment, again } => self.segment(stage, *version, segment, *again),
            Write::Digests(learnt) => {
                let new_epoch = std::mem::take(&mut self.new_epoch);
                self.keep_digests(learnt, new_epoch)
            }
            Write::Note { key, json } => {
                self.notes.insert(key.as_str(), json.as_str())?;
                Ok(())
            }
            Write::RemoveNote { key } => {
                self.notes.remove(key.as_str())?;
                Ok(())
            }
        }
    }

    fn version(&mut self, stage: &str, version: Hash, components: &str) -> Result<(), StoreError> {
        let known = self.versions.get((stage, version.0))?.map(|v| (v.value().0, v.value().1 == components));
        let set = match known {
            Some((_, true)) => return Ok(()),
            Some((set, false)) => set,
            None => self.next_id()? as u32,
        };
        self.versions.insert((stage, version.0), (set, components))?;
        Ok(())
    }

    /// The id of the segments of a stage at a version.
    fn set(&mut self, stage: &str, version: Hash) -> Result<u32, StoreError> {
        if let Some(known) = self.versions.get((stage, version.0))? {
            return Ok(known.value().0);
        }
        let set = self.next_id()? as u32;
        self.versions.insert((stage, version.0), (set, ""))?;
        Ok(set)
    }

    fn segment(&mut self, stage: &str, version: Hash, segment: &EncodedSegment, again: bool) -> Result<(), StoreError> {
        if segment.summary.items == 0 {
            return Ok(());
        }
        let set = self.set(stage, version)?;
        let sequence = self.sequences.get(stage)?.map_or(0, |v| v.value()) + 1;
        self.sequences.insert(stage, sequence)?;
        self.place(set, sequence, segment, again)
    }

    /// Writes a segment and its row of the directory.
    pub fn place(&mut self, set: u32, sequence: u64, segment: &EncodedSegment, again: bool) -> Result<(), StoreError> {
        let blob = self.next_id()?;
        self.segments.insert(blob, segment.bytes.as_slice())?;
        let s = &segment.summary;
        let row = (s.first, s.last, s.items, s.failed, again, blob, segment.bytes.len() as u32);
        self.directory.insert((set, sequence), row)?;
        Ok(())
    }

    fn rosters(&self, source: &str) -> Result<Rosters, StoreError> {
        match self.rosters.get(source)? {
            Some(json) => Rosters::from_json(json.value()),
            None => Ok(Rosters::default()),
        }
    }

    pub fn put_rosters(&mut self, source: &str, rosters: &Rosters) -> Result<(), StoreError> {
        self.rosters.insert(source, rosters.to_json().as_str())?;
        Ok(())
    }

    fn roster_begin(&mut self, source: &str) -> Result<(), StoreError> {
        let mut rosters = self.rosters(source)?;
        if let Some(old) = rosters.pending {
            if rosters.current.is_none() {
                return Ok(());
            }
            self.garbage.insert((garbage::LIST, old), ())?;
        }
        rosters.pending = Some(self.next_id()?);
        self.put_rosters(source, &rosters)
    }

    fn roster_batch(
        &mut self,
        source: &str,
        n: u64,
        batch: &RosterBatch,
        encoded: &HashMap<Hash, Vec<u8>>,
    ) -> Result<(), StoreError> {
        if self.rosters(source)?.pending.is_none() {
            self.roster_begin(source)?;
        }
        let list = self.rosters(source)?.pending.expect("begun above");
        let digest = batch.digest.0;
        if self.batch_digests.insert(digest, ())?.is_none() {
            match encoded.get(&batch.digest) {
                Some(bytes) => self.batches.insert(digest, bytes.as_slice())?,
                None => self.batches.insert(digest, encode_roster(batch).as_slice())?,
            };
        }
        self.lists.insert((list, n), (digest, (batch.items.len() + batch.bad.len()) as u64))?;
        Ok(())
    }

    fn roster_end(&mut self, source: &str, info: &RosterInfo) -> Result<(), StoreError> {
        let mut rosters = self.rosters(source)?;
        let list = match rosters.pending.take() {
            Some(list) => list,
            None => self.next_id()?,
        };
        self.lists.retain_in((list, info.batches)..=(list, u64::MAX), |_, _| false)?;
        let same = match rosters.current {
            Some(current) => self.list(current)? == self.list(list)?,
            None => false,
        };
        match (rosters.current, same) {
            (Some(_), true) => {
                self.garbage.insert((garbage::LIST, list), ())?;
            }
            (old, _) => {
                if let Some(old) = old {
                    self.garbage.insert((garbage::LIST, old), ())?;
                }
                rosters.current = Some(list);
            }
        }
        rosters.set_info(info);
        self.put_rosters(source, &rosters)
    }

    fn list(&self, list: u64) -> Result<Hash, StoreError> {
        list_digest(self.lists.range((list, 0)..=(list, u64::MAX))?)
    }

    /// Removes what nobody can be looking at any more: all that was garbage when the run began.
    pub fn sweep(&mut self) -> Result<(), StoreError> {
        let garbage: Vec<(u8, u64)> =
            self.garbage.iter()?.map(|entry| entry.map(|(key, _)| key.value())).collect::<Result<_, _>>()?;
        for &(kind, id) in &garbage {
            match kind {
                garbage::SEGMENT => {
                    self.segments.remove(id)?;
                }
                _ => self.lists.retain_in((id, 0)..=(id, u64::MAX), |_, _| false)?,
            }
            self.garbage.remove((kind, id))?;
        }
        if garbage.iter().any(|&(kind, _)| kind == garbage::LIST) { self.sweep_batches() } else { Ok(()) }
    }

    fn sweep_batches(&mut self) -> Result<(), StoreError> {
        let mut used = std::collections::HashSet::new();
        for entry in self.lists.iter()? {
            used.insert(entry?.1.value().0);
        }
        let mut unused = Vec::new();
        for entry in self.batch_digests.iter()? {
            let digest = entry?.0.value();
            if !used.contains(&digest) {
                unused.push(digest);
            }
        }
        for digest in unused {
            self.batches.remove(digest)?;
            self.batch_digests.remove(digest)?;
        }
        Ok(())
    }
}

/// The roster batches of `writes` whose digests `known` does not know, encoded.
pub(super) fn encode_batches(writes: &[Write], known: impl Fn(Hash) -> bool) -> HashMap<Hash, Vec<u8>> {
    let mut new: HashMap<Hash, &RosterBatch> = HashMap::new();
    for write in writes {
        if let Write::RosterBatch { batch, .. } = write
            && !known(batch.digest)
        {
            new.insert(batch.digest, batch);
        }
    }
    new.into_par_iter().map(|(digest, batch)| (digest, encode_roster(batch))).collect()
}
