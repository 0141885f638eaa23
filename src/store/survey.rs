//! What of a store's file is whole, and in words what is not.
//!
//! A survey goes through the file without redb ([`Pages`]), so that damage in one place hides nothing in another. An
//! entry of a table counts if its page has the right checksum; a blob, if its own sums are right.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use redb::{Key, TableDefinition, TableHandle, Value};

use super::backend::is_blank;
use super::codec::{decode_roster, decode_segment};
use super::commit::garbage;
use super::db::{
    BATCH_DIGESTS, BATCHES, DIGESTS, DIRECTORY, DirectoryRow, FACTS, GARBAGE, Handle, LISTS, NOTES, ROSTERS, SEGMENTS,
    SEQUENCES, VERSIONS, check_format,
};
use super::error::StoreError;
use super::guard::guard;
use super::inspect::{Inspection, StageHolding};
use super::pages::{Found, Pages, Tree};
use super::roster::Rosters;
use crate::data::Hash;

/// Where in the file a blob is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub at: u64,
    pub bytes: u64,
}

/// What is whole.
#[derive(Default)]
pub(super) struct Survey {
    pub facts: BTreeMap<String, u64>,
    pub notes: BTreeMap<String, String>,
    pub versions: BTreeMap<(String, [u8; 16]), (u32, String)>,
    pub sequences: BTreeMap<String, u64>,
    pub directory: BTreeMap<(u32, u64), DirectoryRow>,
    pub rosters: BTreeMap<String, Rosters>,
    pub lists: BTreeMap<(u64, u64), ([u8; 16], u64)>,
    /// Blobs that rows of the directory name.
    pub segments: HashMap<u64, Place>,
    pub batches: HashMap<[u8; 16], Place>,
    /// What is damaged, in words.
    pub damaged: Vec<String>,
    garbage: HashSet<(u8, u64)>,
    tables: HashMap<String, Tree>,
    /// Outcomes whose place in the directory is not known.
    astray: u64,
}

impl Survey {
    /// Looks through the file at `path`, which nobody changes meanwhile, and gives its pages, if there are any;
    /// `None`: nothing was ever written.
    ///
    /// # Errors
    /// When the file cannot be read, or a later bpp-flow wrote it.
    pub fn of(path: &Path) -> Result<Option<(Survey, Option<Pages>)>, StoreError> {
        if is_blank(path)? {
            return Ok(None);
        }
        let pages = Pages::find(path)?;
        let mut survey = Survey::take(pages.as_ref())?;
        // What redb finds wrong besides.
        if survey.damaged.is_empty()
            && let Err(error) = Handle::in_memory(path, None)
        {
            survey.damaged.push(format!("{error}; nothing is lost by it"));
        }
        Ok(Some((survey, pages)))
    }

    /// Looks through a file whose pages nobody changes meanwhile; `None`: no table could be found in it.
    ///
    /// # Errors
    /// When a later bpp-flow wrote it.
    pub fn take(pages: Option<&Pages>) -> Result<Survey, StoreError> {
        let mut survey = Survey::default();
        let Some(pages) = pages else {
            survey.damaged.push("everything: this is no store, or its head and its tables are gone".into());
            return Ok(survey);
        };
        check_format(pages)?;
        survey.damaged.extend(pages.header.map(|what| format!("{what}; what was committed last may be lost")));
        for (name, tree) in pages.tables() {
            match tree {
                Ok(tree) => drop(survey.tables.insert(name, tree)),
                Err(()) => survey.damaged.push("the list of tables".into()),
            }
        }
        guard(|| {
            survey.small_tables(pages);
            Ok(())
        })?;
        survey.read_segments(pages);
        survey.read_batches(pages);
        survey.judge_outcomes();
        survey.judge_rosters();
        survey.judge_rest(pages);
        Ok(survey)
    }

    fn small_tables(&mut self, pages: &Pages) {
        let Survey { facts, notes, versions, sequences, directory, rosters, lists, garbage, tables, .. } = self;
        let text = str::to_string;
        let damaged = [
            read(pages, tables, FACTS, "counters", |k, v| facts.extend([(text(k), v)])),
            read(pages, tables, NOTES, "notes on runs and outputs", |k, v| notes.extend([(text(k), text(v))])),
            read(pages, tables, VERSIONS, "versions of stages", |(stage, version), (set, components)| {
                versions.extend([((text(stage), version), (set, text(components)))]);
            }),
            read(pages, tables, SEQUENCES, "counters of stages", |k, v| sequences.extend([(text(k), v)])),
            read(pages, tables, DIRECTORY, "entries in the list of results", |k, v| directory.extend([(k, v)])),
            read(pages, tables, ROSTERS, "descriptions of sources", |source, json| {
                rosters.extend(Rosters::from_json(json).map(|read| (text(source), read)));
            }),
            read(pages, tables, LISTS, "entries in the lists of source rows", |k, v| lists.extend([(k, v)])),
            read(pages, tables, GARBAGE, "entries of what may be removed", |k, ()| garbage.extend([k])),
            read(pages, tables, DIGESTS, "what is known of files", |_, _| ()),
            read(pages, tables, BATCH_DIGESTS, "digests of source rows", |_, ()| ()),
        ];
        self.damaged.extend(damaged.into_iter().flatten());
    }

    /// Keeps where the segments are that are what the directory says of them.
    fn read_segments(&mut self, pages: &Pages) {
        let rows: HashMap<u64, DirectoryRow> = self.directory.values().map(|row| (row.5, *row)).collect();
        let Some(tree) = self.tables.get(SEGMENTS.name()) else { return };
        pages.walk(tree, &mut |found| {
            let Found::Entry { key, value, at, .. } = found else { return };
            let Ok(blob) = key.try_into().map(u64::from_le_bytes) else { return };
            let Ok(segment) = decode_segment(value) else { return };
            let Some(&(first, last, items, failed, _, _, bytes)) = rows.get(&blob) else {
                let removed = self.garbage.contains(&(garbage::SEGMENT, blob));
                self.astray += if removed { 0 } else { segment.len() as u64 };
                return;
            };
            let (low, high) = (segment.rows.iter().min(), segment.rows.iter().max());
            let as_listed = (value.len(), segment.len(), segment.len() - segment.done)
                == (bytes as usize, items as usize, failed as usize)
                && (low, high) == (Some(&first), Some(&last));
            if as_listed {
                self.segments.insert(blob, Place { at, bytes: u64::from(bytes) });
            }
        });
    }

    fn read_batches(&mut self, pages: &Pages) {
        let Some(tree) = self.tables.get(BATCHES.name()) else { return };
        pages.walk(tree, &mut |found| {
            let Found::Entry { key, value, at, .. } = found else { return };
            if let (Ok(digest), Ok(batch)) = (key.try_into(), decode_roster(value))
                && batch.digest.0 == digest
            {
                self.batches.insert(digest, Place { at, bytes: value.len() as u64 });
            }
        });
    }

    /// Drops outcomes that cannot be read, and says whose they were.
    fn judge_outcomes(&mut self) {
        let names: HashMap<u32, String> = self
            .versions
            .iter()
            .map(|((stage, version), (set, _))| {
                (*set, format!("stage {stage} (version {})", &Hash(*version).to_string()[..8]))
            })
            .collect();
        let mut lost: BTreeMap<&str, Loss> = BTreeMap::new();
        let segments = &self.segments;
        self.directory.retain(|(set, _), &mut (first, last, items, _, _, blob, _)| {
            let name = names.get(set).map_or("a stage whose name is lost", String::as_str);
            let whole = segments.contains_key(&blob) && names.contains_key(set);
            lost.entry(name).or_default().add(items.into(), (!whole).then_some((first, last)));
            whole
        });
        self.damaged.extend(
            lost.into_iter()
                .filter_map(|(name, loss)| loss.told(name, "outcomes are lost, among them those of source rows")),
        );
        if self.astray > 0 {
            self.damaged.push(format!("{} outcomes whose stage cannot be told any more", self.astray));
        }
    }

    /// Drops source rows that cannot be read, and says whose they were. A source of which some are lost counts as
    /// read in part, so that the next run reads it again.
    fn judge_rosters(&mut self) {
        let mut lists = BTreeMap::new();
        for (source, rosters) in &mut self.rosters {
            let Some((list, expected)) = rosters.shown() else { continue };
            let entries: Vec<_> = self.lists.range((list, 0)..=(list, u64::MAX)).map(|(_, entry)| *entry).collect();
            let mut loss = Loss::default();
            let mut row = 0;
            let mut kept = Vec::new();
            for (digest, rows) in &entries {
                let whole = self.batches.contains_key(digest);
                loss.add(*rows, (!whole).then_some((row, (row + rows).saturating_sub(1))));
                row += rows;
                kept.extend(whole.then_some((*digest, *rows)));
            }
            if let Some(expected) = expected.filter(|&expected| expected > row) {
                loss.add(expected - row, Some((row, expected - 1)));
            }
            if loss.lost > 0 {
                rosters.interrupt();
            }
            self.damaged.extend(loss.told(&format!("source {source}"), "rows are lost, among them rows"));
            lists.extend(kept.into_iter().enumerate().map(|(n, entry)| ((list, n as u64), entry)));
        }
        self.lists = lists;
    }

    /// Damage by which nothing is lost, or nobody knows what.
    fn judge_rest(&mut self, pages: &Pages) {
        for blobs in [SEGMENTS.name(), BATCHES.name()] {
            if self.damaged.is_empty() && self.tables.get(blobs).is_some_and(|tree| !pages.whole(tree)) {
                self.damaged.push(format!("a page of the table of {blobs}; nothing is lost by it"));
            }
        }
        let mut system = pages.system_tables().into_iter();
        if system.any(|(_, tree)| !tree.is_ok_and(|tree| pages.whole(&tree))) {
            self.damaged.push("the list of free pages; nothing is lost by it".into());
        }
    }

    /// What there is that is whole; its `damaged` says what is not.
    pub fn inspection(&self) -> Inspection {
        let mut inspection = Inspection { damaged: self.damaged.clone(), ..Inspection::default() };
        for ((stage, version), (set, _)) in &self.versions {
            let (stage, version) = (stage.clone(), Hash(*version).to_string());
            let mut holding = StageHolding { stage, version, ..StageHolding::default() };
            for (_, row) in self.directory.range((*set, 0)..=(*set, u64::MAX)) {
                holding.add(row);
            }
            inspection.stages.push(holding);
        }
        inspection.roster_batches = self.batches.len() as u64;
        inspection.roster_bytes = self.batches.values().map(|place| place.bytes).sum();
        inspection
    }
}

/// How much of something is lost.
#[derive(Default)]
struct Loss {
    all: u64,
    lost: u64,
    /// The first rows lost.
    rows: Option<(u64, u64)>,
}

impl Loss {
    fn add(&mut self, n: u64, lost: Option<(u64, u64)>) {
        self.all += n;
        if lost.is_some() {
            self.lost += n;
            self.rows = self.rows.or(lost);
        }
    }

    fn told(&self, whose: &str, what: &str) -> Option<String> {
        let (first, last) = self.rows?;
        Some(format!("{whose}: {} of {} {what} {first} to {last}", self.lost, self.all))
    }
}

/// Reads the sound entries of a table; says how many are not.
fn read<K: Key + 'static, V: Value + 'static>(
    pages: &Pages,
    tables: &HashMap<String, Tree>,
    definition: TableDefinition<K, V>,
    what: &str,
    mut keep: impl for<'a> FnMut(K::SelfType<'a>, V::SelfType<'a>),
) -> Option<String> {
    let tree = tables.get(definition.name())?;
    let (mut sound, mut lost) = (0, false);
    pages.walk(tree, &mut |found| match found {
        Found::Entry { key, value, sound: true, .. } => {
            sound += 1;
            keep(K::from_bytes(key), V::from_bytes(value));
        }
        Found::Entry { .. } => {}
        Found::Lost => lost = true,
    });
    lost.then(|| format!("{} of {} {what}", tree.entries.saturating_sub(sound), tree.entries))
}
