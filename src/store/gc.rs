//! Dropping what nobody needs any more.

use std::collections::{BTreeMap, HashSet};

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable};

use super::commit::{Tables, garbage};
use super::db::{DIRECTORY, DirectoryRow, SEGMENTS, VERSIONS, table};
use super::error::StoreError;
use super::guard::guard;
use super::roster::Rosters;
use super::view::View;
use super::{EncodedSegment, Store};
use crate::data::Hash;
use crate::store::codec::decode_segment;

/// What is to stay.
#[derive(Debug, Default)]
pub struct Keep<'v> {
    /// Of stages at versions: everything, or the outcomes that a view was asked for.
    pub outcomes: BTreeMap<(String, Hash), Kept<'v>>,
    /// Sources.
    pub sources: HashSet<String>,
    /// Stages.
    pub stages: HashSet<String>,
}

/// What stays of a stage at a version.
#[derive(Debug)]
pub enum Kept<'v> {
    /// All its outcomes.
    All,
    /// Those that this view gave out.
    Given(&'v View),
}

/// What was dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Collected {
    /// Outcomes of versions that are not kept.
    pub of_versions: u64,
    /// Outcomes of items that are no more, or that later ones took the place of.
    pub of_items: u64,
    /// Sources that are no more.
    pub sources: u64,
    /// Of the file.
    pub bytes_before: u64,
    pub bytes_after: u64,
}

/// A segment of which something goes.
struct Shrunk {
    set: u32,
    sequence: u64,
    row: DirectoryRow,
    /// What stays of it, if anything does.
    rest: Option<EncodedSegment>,
}

impl Store {
    /// Drops all that is not to stay, or, if `try_only`, only tells what that is. Nobody else uses the store
    /// meanwhile; a reader in another process may lose what it looks at.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn collect(&self, keep: &Keep, try_only: bool) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        let shrunk = self.reading(|transaction| shrunk(transaction, keep, &mut collected))?;
        collected.sources = self.drop_all(keep, &shrunk, try_only)?;
        Ok(collected)
    }

    fn drop_all(&self, keep: &Keep, shrunk: &[Shrunk], try_only: bool) -> Result<u64, StoreError> {
        if try_only {
            return self.reading(|transaction| {
                let Some(rosters) = table(transaction, super::db::ROSTERS)? else { return Ok(0) };
                let mut gone = 0;
                for entry in rosters.iter()? {
                    gone += u64::from(!keep.sources.contains(entry?.0.value()));
                }
                Ok(gone)
            });
        }
        self.transact(|tables| {
            for segment in shrunk {
                tables.shrink(segment)?;
            }
            let gone = tables.drop_sources(keep)?;
            tables.drop_stages(keep)?;
            tables.sweep()?;
            Ok(gone)
        })
    }

    /// Gives back the room that was dropped. False: somebody is looking at the store.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn compact(&mut self) -> Result<bool, StoreError> {
        let Some(inner) = std::sync::Arc::get_mut(&mut self.inner) else { return Ok(false) };
        guard(|| inner.handle.compact()).map_err(|error| error.of(&inner.path))
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        std::fs::metadata(&self.inner.path).map_or(0, |meta| meta.len())
    }
}

/// The segments of which something goes, counted.
fn shrunk(transaction: &ReadTransaction, keep: &Keep, collected: &mut Collected) -> Result<Vec<Shrunk>, StoreError> {
    let mut shrunk = Vec::new();
    let tables = (table(transaction, VERSIONS)?, table(transaction, DIRECTORY)?, table(transaction, SEGMENTS)?);
    let (Some(versions), Some(directory), Some(blobs)) = tables else { return Ok(shrunk) };
    for entry in versions.iter()? {
        let (key, value) = entry?;
        let ((stage, version), set) = (key.value(), value.value().0);
        let kept = keep.outcomes.get(&(stage.to_string(), Hash(version)));
        for (place, entry) in directory.range((set, 0)..=(set, u64::MAX))?.enumerate() {
            let (key, row) = entry?;
            let ((_, sequence), row) = (key.value(), row.value());
            let items = u64::from(row.2);
            let live = match kept {
                Some(Kept::All) => continue,
                Some(Kept::Given(view)) => view.given_of(place as u32),
                None => Vec::new(),
            };
            if live.len() as u64 == items {
                continue;
            }
            let gone = if kept.is_some() { &mut collected.of_items } else { &mut collected.of_versions };
            *gone += items - live.len() as u64;
            let rest = if live.is_empty() { None } else { Some(rest(&blobs, row.5, &live)?) };
            shrunk.push(Shrunk { set, sequence, row, rest });
        }
    }
    Ok(shrunk)
}

/// What stays of a segment.
fn rest(blobs: &ReadOnlyTable<u64, &'static [u8]>, blob: u64, live: &[u32]) -> Result<EncodedSegment, StoreError> {
    let blob = blobs.get(blob)?.ok_or_else(|| StoreError::damaged("a missing segment", "the directory"))?;
    Ok(decode_segment(blob.value())?.take(live).encode())
}

impl Tables<'_> {
    fn shrink(&mut self, segment: &Shrunk) -> Result<(), StoreError> {
        let (_, _, _, _, again, blob, _) = segment.row;
        self.segments.remove(blob)?;
        self.directory.remove((segment.set, segment.sequence))?;
        match &segment.rest {
            Some(rest) => self.place(segment.set, segment.sequence, rest, again),
            None => Ok(()),
        }
    }

    fn drop_sources(&mut self, keep: &Keep) -> Result<u64, StoreError> {
        let mut gone = Vec::new();
        for entry in self.rosters.iter()? {
            let (name, json) = entry?;
            if !keep.sources.contains(name.value()) {
                gone.push((name.value().to_string(), Rosters::from_json(json.value())?));
            }
        }
        for (name, rosters) in &gone {
            for list in rosters.lists() {
                self.garbage.insert((garbage::LIST, list), ())?;
            }
            self.rosters.remove(name.as_str())?;
        }
        Ok(gone.len() as u64)
    }

    /// Versions of stages that are no more. Those of the others keep their numbers.
    fn drop_stages(&mut self, keep: &Keep) -> Result<(), StoreError> {
        self.versions.retain(|(stage, _), _| keep.stages.contains(stage))?;
        self.sequences.retain(|stage, _| keep.stages.contains(stage))?;
        Ok(())
    }
}
