//! Looking the store over: what is in it, and whether all of it can be read.

use redb::ReadableTable;

use super::codec::{decode_roster, decode_segment};
use super::db::{BATCHES, DIRECTORY, SEGMENTS, VERSIONS, table};
use super::{Store, StoreError};

/// What a store holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Inspection {
    /// Each version of each stage.
    pub stages: Vec<StageHolding>,
    /// Batches of source rows, and their bytes.
    pub roster_batches: u64,
    pub roster_bytes: u64,
    /// What cannot be read, in words; only filled by [`Store::verify`].
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

impl Store {
    /// Counts what is there.
    ///
    /// # Errors
    /// When the file itself cannot be read.
    pub fn stats(&self) -> Result<Inspection, StoreError> {
        self.inspect(false)
    }

    /// Reads everything that results and rosters are made of, and says what cannot be read.
    ///
    /// # Errors
    /// When the file itself cannot be read.
    pub fn verify(&self) -> Result<Inspection, StoreError> {
        self.inspect(true)
    }

    fn inspect(&self, read: bool) -> Result<Inspection, StoreError> {
        let transaction = self.begin_read()?;
        let mut inspection = Inspection::default();
        let (directory, segments) = (table(&transaction, DIRECTORY)?, table(&transaction, SEGMENTS)?);
        if let (Some(versions), Some(directory), Some(segments)) = (table(&transaction, VERSIONS)?, directory, segments)
        {
            for entry in versions.iter()? {
                let (key, value) = entry?;
                let ((stage, version), set) = (key.value(), value.value().0);
                let mut holding = StageHolding {
                    stage: stage.to_string(),
                    version: crate::data::Hash(version).to_string(),
                    ..StageHolding::default()
                };
                for row in directory.range((set, 0)..=(set, u64::MAX))? {
                    let (_, _, items, failed, _, blob, bytes) = row?.1.value();
                    holding.segments += 1;
                    holding.items += u64::from(items);
                    holding.failed += u64::from(failed);
                    holding.bytes += u64::from(bytes);
                    let sound = !read
                        || segments.get(blob)?.is_some_and(|blob| {
                            decode_segment(blob.value()).is_ok_and(|segment| segment.len() == items as usize)
                        });
                    if !sound {
                        inspection.damaged.push(format!("{items} outcomes of stage {stage} (segment {blob})"));
                    }
                }
                inspection.stages.push(holding);
            }
        }
        if let Some(batches) = table(&transaction, BATCHES)? {
            for entry in batches.iter()? {
                let (digest, blob) = entry?;
                inspection.roster_batches += 1;
                inspection.roster_bytes += blob.value().len() as u64;
                if read && decode_roster(blob.value()).is_err() {
                    let digest = crate::data::Hash(digest.value());
                    inspection.damaged.push(format!("a batch of source rows ({digest})"));
                }
            }
        }
        Ok(inspection)
    }
}
