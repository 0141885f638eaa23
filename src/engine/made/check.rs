//! Whether the files that results tell of are still there, as they were made.

use std::fs;
use std::path::Path;

use rayon::prelude::*;

use super::{Workshop, makes_files};
use crate::data::source::{Digests, FileStamp, file_digest};
use crate::data::{Items, Value};
use crate::engine::EngineError;
use crate::engine::replay::Replay;
use crate::plan::PlannedStage;
use crate::store::{Gathered, Hit};

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// It is not there.
    Missing,
    /// It is not what it was.
    Changed,
    /// It is another item's now.
    Taken,
}

/// Of items that are done, by position, those whose files do not stand, and why. In a run their paths become theirs.
pub fn flaws(
    stage: &PlannedStage,
    items: &Items,
    done: &[(u32, Hit)],
    dir: &Path,
    digests: Option<&Digests>,
    workshop: Option<&Workshop>,
) -> Vec<(u32, Flaw)> {
    if done.is_empty() {
        return Vec::new();
    }
    let given = Gathered::from_hits(done.iter().map(|(_, hit)| hit));
    let columns: Vec<_> = stage.settings.files.iter().filter_map(|file| given.added.column(&file.name)).collect();
    let mut next = 0;
    let mut first_rows = Vec::with_capacity(done.len());
    for at in 0..done.len() {
        let rows = given.counts.as_ref().map_or(1, |counts| counts[at]) as usize;
        first_rows.push((rows > 0).then_some(next));
        next += rows;
    }
    let files_of = |at: usize| {
        let cells = columns.iter().filter_map(|column| match column.value(first_rows[at]?) {
            Value::File { path, digest, size } => Some((path, digest, size)),
            _ => None,
        });
        cells.collect::<Vec<_>>()
    };
    let verify = stage.settings.verify_files;
    let worst = |at: usize| {
        files_of(at).into_iter().find_map(|(path, digest, size)| flaw(&dir.join(path), &digest, size, verify, digests))
    };
    let mut found: Vec<Option<Flaw>> = (0..done.len()).into_par_iter().map(worst).collect();
    if let Some(workshop) = workshop {
        for (at, (item, _)) in done.iter().enumerate() {
            let (origin, key) = (items.origins[*item as usize], items.key(*item as usize));
            let own = files_of(at).iter().all(|(path, ..)| workshop.claim(path, stage, origin, &key).is_ok());
            if !own {
                found[at].get_or_insert(Flaw::Taken);
            }
        }
    }
    done.iter().zip(found).filter_map(|((item, _), flaw)| Some((*item, flaw?))).collect()
}

/// What is wrong with one file. Its size is looked at; its content where that is known without reading it, where it is
/// wanted, and where another file has taken its place since.
fn flaw(path: &Path, digest: &[u8; 32], size: Option<u64>, verify: bool, digests: Option<&Digests>) -> Option<Flaw> {
    let stamp = match fs::metadata(path) {
        Ok(meta) if meta.is_file() => FileStamp::of(&meta),
        _ => return Some(Flaw::Missing),
    };
    if size.is_some_and(|size| size != stamp.size) {
        return Some(Flaw::Changed);
    }
    let known = digests.and_then(|digests| digests.last(path));
    let holds = match known {
        Some(known) if !verify && known.stamp == stamp => known.digest == *digest,
        Some(known) if !verify && known.stamp.inode == stamp.inode => true,
        None if !verify => true,
        _ => file_digest(path, digests).is_ok_and(|(_, found)| found == *digest),
    };
    (!holds).then_some(Flaw::Changed)
}

/// Whether the files of all results of the selected stages stand.
///
/// # Errors
/// When the store cannot be read.
pub fn all_stand(replay: &Replay, selected: &[bool]) -> Result<bool, EngineError> {
    for stage in replay.plan.stages.iter().filter(|stage| selected[stage.index] && makes_files(stage)) {
        let step = replay.resolved(stage.index, &mut |flow| {
            use std::ops::ControlFlow::{Break, Continue};
            Ok(if flow.resolved.due.is_empty() { Continue(()) } else { Break(()) })
        })?;
        if step.is_break() {
            return Ok(false);
        }
    }
    Ok(true)
}
