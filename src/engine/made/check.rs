//! Whether the files that results tell of are still there, as they were made.

use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{Workshop, makes_files};
use crate::data::source::{Digests, FileStamp, Known, digest_unless};
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
    let mut files = Vec::with_capacity(done.len() * columns.len());
    for (at, row) in first_rows.iter().enumerate() {
        for column in &columns {
            if let Some(Value::File { path, digest, size }) = row.map(|row| column.value(row)) {
                files.push(Held { at, place: dir.join(&path), path, digest, size });
            }
        }
    }
    let verify = stage.settings.verify_files;
    let looked_at = files.par_chunks(TOGETHER).flat_map_iter(|files| look_at(files, verify, digests));
    let looked_at: Vec<Option<Flaw>> = looked_at.collect();
    let mut found: Vec<Option<Flaw>> = vec![None; done.len()];
    for (file, flaw) in files.iter().zip(looked_at) {
        let item = done[file.at].0 as usize;
        let own = || workshop.is_none_or(|w| w.claim(&file.path, stage, items.origins[item], &items.key(item)).is_ok());
        let flaw = if own() { flaw } else { Some(Flaw::Taken) };
        found[file.at] = found[file.at].or(flaw);
    }
    done.iter().zip(found).filter_map(|((item, _), flaw)| Some((*item, flaw?))).collect()
}

/// A file that a result tells of.
struct Held {
    /// Which of the items that are done.
    at: usize,
    path: String,
    place: PathBuf,
    digest: [u8; 32],
    size: Option<u64>,
}

/// Files that are looked at together.
const TOGETHER: usize = 256;

fn look_at(files: &[Held], verify: bool, digests: Option<&Digests>) -> Vec<Option<Flaw>> {
    let places: Vec<&Path> = files.iter().map(|file| file.place.as_path()).collect();
    let known = digests.map_or_else(|| vec![None; files.len()], |digests| digests.recall(&places));
    files.iter().zip(known).map(|(file, known)| flaw(file, known, verify, digests)).collect()
}

/// What is wrong with one file. Its size is looked at; its content where that is known without reading it, where it is
/// wanted, and where another file has taken its place since.
fn flaw(file: &Held, known: Option<Known>, verify: bool, digests: Option<&Digests>) -> Option<Flaw> {
    let stamp = match fs::metadata(&file.place) {
        Ok(meta) if meta.is_file() => FileStamp::of(&meta),
        _ => return Some(Flaw::Missing),
    };
    if file.size.is_some_and(|size| size != stamp.size) {
        return Some(Flaw::Changed);
    }
    let holds = match known {
        Some(known) if !verify && known.stamp == stamp => known.digest == file.digest,
        Some(known) if !verify && known.stamp.inode == stamp.inode => true,
        None if !verify => true,
        _ => digest_unless(&file.place, known, digests).is_ok_and(|(_, found)| found == file.digest),
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
