//! Looking the store over: what is in it, and whether all of it can be read.

use std::path::Path;

use redb::{ReadTransaction, ReadableTable};

use super::db::{BATCHES, DIRECTORY, DirectoryRow, Handle, VERSIONS, table};
use super::guard::guard;
use super::lock::RunLock;
use super::pages::Pages;
use super::survey::Survey;
use super::{FILE, OpenOptions, Store, StoreError};

/// What a store holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Inspection {
    /// Each version of each stage.
    pub stages: Vec<StageHolding>,
    /// Batches of source rows, and their bytes.
    pub roster_batches: u64,
    pub roster_bytes: u64,
    /// What cannot be read, in words; only filled by [`Store::verify`] and [`Store::repair`].
    pub damaged: Vec<String>,
}

/// The outcomes of a stage at one version.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct StageHolding {
    pub stage: String,
    /// In hex.
    pub version: String,
    pub segments: u64,
    pub items: u64,
    pub failed: u64,
    pub bytes: u64,
}

impl StageHolding {
    pub(super) fn add(&mut self, &(_, _, items, failed, _, _, bytes): &DirectoryRow) {
        self.segments += 1;
        self.items += u64::from(items);
        self.failed += u64::from(failed);
        self.bytes += u64::from(bytes);
    }
}

impl Store {
    /// Counts what is there.
    ///
    /// # Errors
    /// When the file itself cannot be read.
    pub fn stats(&self) -> Result<Inspection, StoreError> {
        self.reading(stats)
    }

    /// Reads everything in the file of the state in `dir`, changes nothing, and says what can be read and what is
    /// damaged; `None` where there is nothing. Runs are kept away meanwhile; beside one that is alive, its last
    /// commit is read.
    ///
    /// # Errors
    /// When the file cannot be read at all, or was written by a later bpp-flow.
    pub fn verify(dir: &Path, options: &OpenOptions) -> Result<Option<Inspection>, StoreError> {
        let path = dir.join(FILE);
        if !dir.exists() {
            return Ok(None);
        }
        let _alone = match RunLock::take(dir, options.command) {
            Err(StoreError::Locked(_)) => return verify_beside(dir, &path),
            Err(StoreError::Io { .. }) => RunLock::share(dir)?,
            taken => Some(taken?),
        };
        Ok(Survey::of(&path)?.map(|(survey, _)| survey.inspection()))
    }
}

/// Verifies the last commit of a run that is alive: its pages stay as they are while a transaction is open.
fn verify_beside(dir: &Path, path: &Path) -> Result<Option<Inspection>, StoreError> {
    let Some(handle) = Handle::read(dir, path).map_err(|error| error.of(path))? else { return Ok(None) };
    guard(|| {
        let _still = handle.begin_read()?;
        Ok(Some(Survey::take(Some(&Pages::open(path)?))?.inspection()))
    })
}

fn stats(transaction: &ReadTransaction) -> Result<Inspection, StoreError> {
    let mut inspection = Inspection::default();
    let directory = table(transaction, DIRECTORY)?;
    if let (Some(versions), Some(directory)) = (table(transaction, VERSIONS)?, directory) {
        for entry in versions.iter()? {
            let (key, value) = entry?;
            let ((stage, version), set) = (key.value(), value.value().0);
            let (stage, version) = (stage.to_string(), crate::data::Hash(version).to_string());
            let mut holding = StageHolding { stage, version, ..StageHolding::default() };
            for row in directory.range((set, 0)..=(set, u64::MAX))? {
                holding.add(&row?.1.value());
            }
            inspection.stages.push(holding);
        }
    }
    if let Some(batches) = table(transaction, BATCHES)? {
        for entry in batches.iter()? {
            inspection.roster_batches += 1;
            inspection.roster_bytes += entry?.1.value().len() as u64;
        }
    }
    Ok(inspection)
}
