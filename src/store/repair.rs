//! Keeping what is whole of a damaged file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use redb::ReadableTable;

use super::commit::Tables;
use super::db::{Handle, NEXT_ID_FACT};
use super::error::StoreError;
use super::inspect::Inspection;
use super::lock::RunLock;
use super::pages::Pages;
use super::survey::{Place, Survey};
use super::{FILE, OpenOptions, Store};

/// What a repair did.
#[derive(Debug, serde::Serialize)]
pub struct Repaired {
    /// What is kept; its `damaged` says what is lost.
    pub kept: Inspection,
    /// The damaged file, under its new name; `None`: nothing was damaged, nothing was done.
    pub set_aside: Option<PathBuf>,
}

impl Store {
    /// Writes all that is whole of the state in `dir` into a new file that takes the damaged one's place; `None`
    /// where there is nothing. The damaged file is kept under another name.
    pub fn repair(dir: &Path, options: &OpenOptions) -> Result<Option<Repaired>, StoreError> {
        let path = dir.join(FILE);
        if !dir.exists() {
            return Ok(None);
        }
        let _lock = RunLock::take(dir, options.command)?;
        let Some((survey, pages)) = Survey::of(&path)? else { return Ok(None) };
        let kept = survey.inspection();
        if kept.damaged.is_empty() {
            return Ok(Some(Repaired { kept, set_aside: None }));
        }
        let repaired = unfinished(dir);
        write(&repaired, &survey, pages.as_ref())?;
        let aside = free_name(dir);
        // The damaged file has two names for a moment, where that can be, so that there is a store at every moment.
        fs::hard_link(&path, &aside).or_else(|_| fs::rename(&path, &aside)).map_err(StoreError::io("rename", &path))?;
        fs::rename(&repaired, &path).map_err(StoreError::io("rename", &repaired))?;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(StoreError::io("sync", dir))?;
        Ok(Some(Repaired { kept, set_aside: Some(aside) }))
    }
}

/// What a repair has written so far. One that was killed leaves it; the next to write removes it.
pub(super) fn unfinished(dir: &Path) -> PathBuf {
    dir.join("store.redb.unfinished")
}

fn free_name(dir: &Path) -> PathBuf {
    let names = (1..).map(|n| dir.join(format!("{FILE}.damaged-{n}")));
    names.into_iter().find(|name| !name.exists()).expect("numbers do not end")
}

fn write(path: &Path, survey: &Survey, pages: Option<&Pages>) -> Result<(), StoreError> {
    let _ = fs::remove_file(path);
    let written = Handle::write(path).and_then(|handle| {
        Store::new(handle, path.to_path_buf(), None).transact(|tables| match pages {
            Some(pages) => tables.restore(survey, pages),
            None => Ok(()),
        })
    });
    let synced =
        written.and_then(|()| File::open(path).and_then(|file| file.sync_all()).map_err(StoreError::io("sync", path)));
    if synced.is_err() {
        let _ = fs::remove_file(path);
    }
    synced
}

impl Tables<'_> {
    /// Writes what a survey found into empty tables.
    fn restore(&mut self, survey: &Survey, pages: &Pages) -> Result<(), StoreError> {
        let blob = |place: &Place| {
            pages.read(place.at, place.bytes).ok_or_else(|| StoreError::damaged("a blob", "the damaged file"))
        };
        for (key, json) in &survey.notes {
            self.notes.insert(key.as_str(), json.as_str())?;
        }
        for ((stage, version), (set, components)) in &survey.versions {
            self.versions.insert((stage.as_str(), *version), (*set, components.as_str()))?;
        }
        for (key, row) in &survey.directory {
            self.directory.insert(*key, *row)?;
            self.segments.insert(row.5, blob(&survey.segments[&row.5])?.as_slice())?;
        }
        for (key, (digest, rows)) in &survey.lists {
            self.lists.insert(*key, (*digest, *rows))?;
            if self.batch_digests.insert(digest, ())?.is_none() {
                self.batches.insert(digest, blob(&survey.batches[digest])?.as_slice())?;
            }
        }
        for (source, rosters) in &survey.rosters {
            self.put_rosters(source, rosters)?;
        }
        self.restore_counters(survey)
    }

    /// Numbers that were given are not given again. What was settled before depends on the numbers of stages, and
    /// holds no more.
    fn restore_counters(&mut self, survey: &Survey) -> Result<(), StoreError> {
        for ((stage, _), (set, _)) in &survey.versions {
            let written = survey.directory.range((*set, 0)..=(*set, u64::MAX)).next_back().map_or(0, |((_, n), _)| *n);
            let known = self.sequences.get(stage.as_str())?.map_or(0, |n| n.value());
            let last = written.max(survey.sequences.get(stage).copied().unwrap_or(0)) + 1;
            self.sequences.insert(stage.as_str(), last.max(known))?;
        }
        let sets = survey.versions.values().map(|(set, _)| u64::from(*set));
        let blobs = survey.directory.values().map(|row| row.5);
        let lists = survey.lists.keys().map(|(list, _)| *list);
        let last = sets.chain(blobs).chain(lists).max().unwrap_or(0);
        let next = survey.facts.get(NEXT_ID_FACT).copied().unwrap_or(0).max(last + 1);
        self.facts.insert(NEXT_ID_FACT, next)?;
        Ok(())
    }
}
