//! The versions of a stage, by the numbers under which people know them.

use super::EngineError;
use crate::data::Hash;
use crate::store::{StageVersion, Store};

/// The numbers of a stage's versions: from 1, in the order in which they were first met.
#[derive(Debug, Clone, Default)]
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

/// The versions of a stage that have results, the one that ran last first.
///
/// # Errors
/// When the store cannot be read.
pub fn with_results(store: &Store, stage: &str) -> Result<Vec<StageVersion>, EngineError> {
    let mut known = store.stage_versions(stage)?;
    known.retain(|version| version.last_sequence.is_some());
    known.sort_unstable_by_key(|version| std::cmp::Reverse(version.last_sequence));
    Ok(known)
}

/// Adds to how many results of which earlier versions were accepted.
pub fn add_accepted(sum: &mut Vec<(Hash, u64)>, version: Hash, n: u64) {
    match sum.iter_mut().find(|(known, _)| *known == version) {
        Some((_, sum)) => *sum += n,
        None => sum.push((version, n)),
    }
}

/// How many of the `done` results of a stage at `version` are of which version, by number; none where all are of one
/// that ran.
///
/// # Errors
/// When the store cannot be read.
pub fn made_by(
    store: &Store,
    stage: &str,
    version: Hash,
    done: u64,
    accepted: &[(Hash, u64)],
) -> Result<Vec<(u32, u64)>, EngineError> {
    if accepted.is_empty() {
        return Ok(Vec::new());
    }
    let numbers = Numbers::of(store, stage)?;
    let others: u64 = accepted.iter().map(|(_, n)| n).sum();
    let own = (version, done.saturating_sub(others));
    let all = accepted.iter().chain((own.1 > 0).then_some(&own));
    let mut made: Vec<(u32, u64)> = all.filter_map(|&(version, n)| Some((numbers.get(version)?, n))).collect();
    made.sort_unstable();
    Ok(made)
}
