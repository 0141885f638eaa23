//! The versions of a stage, by the numbers under which people know them.

use super::EngineError;
use crate::data::Hash;
use crate::store::Store;

#[derive(Debug, Clone, Default)]
/// The numbers of a stage's versions: from 1, in the order in which they were first met.
pub struct Numbers(Vec<(Hash, u32)>);

impl Numbers {
    /// Those of `stage`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn of(store: &Store, stage: &str) -> Result<Numbers, EngineError> {
        let known = store.stage_versions(stage)?;
        Ok(Numbers(known.into_iter().map(|v| (v.version, v.number)).collect()))
    }

    /// The number of a version, if it is known.
    pub fn get(&self, version: Hash) -> Option<u32> {
        self.0.iter().find(|(known, _)| *known == version).map(|(_, number)| *number)
    }
}
