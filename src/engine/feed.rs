//! Threads that bring rows: from a source as it is read, or from the store.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;

use super::EngineError;
use super::budget::Budget;
use super::dispatcher::Message;
use super::replay::Replay;
use super::writer::{Entry, Receipt};
use crate::data::identify::Identifier;
use crate::data::source::{self, SourceError};
use crate::data::{Batch, Secrets};
use crate::plan::PlannedStage;
use crate::spec::model::Source;
use crate::store::model::{RosterBatch, RosterInfo};
use crate::store::{Roster, Store, Write};

/// Where a source's reading goes.
pub struct SourceFeed {
    pub number: usize,
    pub source: Source,
    pub around: source::Surroundings,
    pub store: Store,
    pub budget: Budget,
    pub inbox: Sender<Message>,
    pub writer: Sender<Entry>,
    /// `--limit`: only the first rows. Such a reading leaves a complete roster, and a longer part of one, as it is.
    pub limit: Option<u64>,
    /// What must not be kept of rows that cannot be read.
    pub secrets: Arc<Secrets>,
    /// Whether it is to be left where it is.
    pub stopped: Arc<AtomicBool>,
}

impl SourceFeed {
    /// Reads the source to its end (or limit) and tells the dispatcher.
    pub fn run(self) {
        if let Err(error) = self.read() {
            let _ = self.inbox.send(match error {
                EngineError::Source(error) => Message::SourceFailed(error),
                error => Message::Broken(error),
            });
        }
    }

    fn read(&self) -> Result<(), EngineError> {
        let content = source::content_in(&self.source, &self.around)?;
        let roster = self.store.roster(&self.source.name)?;
        if let (Some(roster), Some(content), None) = (&roster, content, self.limit)
            && roster.info().complete
            && roster.info().content == Some(content)
        {
            return self.read_roster(roster);
        }
        // What a whole reading, or a longer part, has kept is not replaced by a part.
        let shown = roster.as_ref().map_or(0, |r| if r.info().complete { u64::MAX } else { r.info().rows });
        let keeps = self.limit.is_none_or(|limit| limit > shown);
        let mut reading = Reading::default();
        if keeps {
            self.write(Write::RosterBegin { source: self.source.name.clone() });
        }
        let expected = roster.as_ref().map_or(0, |r| r.info().rows);
        let around = as_before(&self.around, roster.as_ref())?;
        for batch in identified(&self.source, &around, stdin_of(&self.source), expected)? {
            let mut batch = batch?;
            batch.bad.iter_mut().for_each(|(_, _, failure)| self.secrets.hide_in_failure(failure));
            let (batch, full) = self.limited(batch, reading.rows);
            let batch = Arc::new(batch);
            let n = reading.batches;
            reading.add(&batch);
            if keeps {
                self.write(Write::RosterBatch { source: self.source.name.clone(), n, batch: batch.clone() });
            }
            if !self.send(batch) {
                return Ok(());
            }
            if full {
                break;
            }
        }
        if self.limit.is_some() {
            self.end();
        } else {
            let write = Write::RosterEnd { source: self.source.name.clone(), info: reading.info(content) };
            let receipt = Some(Receipt::Source(self.number));
            let _ = self.writer.send(Entry { write, receipt, permit: None, made: Vec::new() });
        }
        Ok(())
    }

    fn read_roster(&self, roster: &Roster) -> Result<(), EngineError> {
        for n in 0..roster.info().batches {
            if let Some(batch) = roster.batch(n)?
                && !self.send(Arc::new(batch))
            {
                return Ok(());
            }
        }
        self.end();
        Ok(())
    }

    fn end(&self) {
        let _ = self.inbox.send(Message::SourceEnd { source: self.number });
    }

    /// The batch cut to what the limit leaves; whether that is all.
    fn limited(&self, batch: RosterBatch, before: u64) -> (RosterBatch, bool) {
        let Some(limit) = self.limit else { return (batch, false) };
        let left = limit.saturating_sub(before);
        let last_row = before + left;
        let kept = batch.items.rows.iter().take_while(|&&row| row < last_row).count();
        let full = before + (batch.items.len() + batch.bad.len()) as u64 >= limit;
        let cut = RosterBatch {
            items: batch.items.slice(0, kept),
            table: batch.table.slice(0, kept),
            bad: batch.bad.into_iter().filter(|(row, _, _)| *row < last_row).collect(),
            digest: crate::data::Hash::of_parts([batch.digest.0.as_slice(), &left.to_le_bytes()]),
        };
        (cut, full)
    }

    /// Hands a batch on; false: nobody wants more.
    fn send(&self, batch: Arc<RosterBatch>) -> bool {
        if self.stopped.load(Ordering::Relaxed) {
            return false;
        }
        let bytes = batch.items.bytes() + batch.table.bytes();
        let Some(permit) = self.budget.acquire(bytes) else { return false };
        self.inbox.send(Message::SourceBatch { source: self.number, batch, permit }).is_ok()
    }

    fn write(&self, write: Write) {
        let _ = self.writer.send(Entry { write, receipt: None, permit: None, made: Vec::new() });
    }
}

#[derive(Default)]
struct Reading {
    rows: u64,
    batches: u64,
    digests: blake3::Hasher,
}

impl Reading {
    fn add(&mut self, batch: &RosterBatch) {
        self.rows += (batch.items.len() + batch.bad.len()) as u64;
        self.batches += 1;
        self.digests.update(&batch.digest.0);
    }

    fn info(&self, content: Option<crate::data::Hash>) -> RosterInfo {
        RosterInfo {
            complete: true,
            batches: self.batches,
            rows: self.rows,
            digest: crate::data::Hash::from(&self.digests.finalize()),
            content,
        }
    }
}

/// Batches that may wait between two threads.
const AHEAD: usize = 4;

/// The batches of a source with who their rows are, about `expected` of them. One thread reads, another identifies,
/// both a little ahead.
pub fn identified(
    source: &Source,
    around: &source::Surroundings,
    stdin: Option<Box<dyn std::io::Read + Send>>,
    expected: u64,
) -> Result<impl Iterator<Item = Result<RosterBatch, SourceError>> + use<>, SourceError> {
    let reader = source::open_in(source, around, None, stdin)?;
    let mut identifier = Identifier::new(&source.name, &source.key).expecting(expected);
    let read = ahead(reader);
    Ok(ahead(read.map(move |batch| identifier.identify(batch?))))
}

/// What an iterator gives, from a thread of its own. If that panics, so does who waits for it.
fn ahead<T: Send + 'static>(mut items: impl Iterator<Item = T> + Send + 'static) -> impl Iterator<Item = T> + Send {
    let (sender, receiver) = crossbeam_channel::bounded(AHEAD);
    let mut thread =
        Some(std::thread::spawn(move || while items.next().is_some_and(|item| sender.send(item).is_ok()) {}));
    std::iter::from_fn(move || {
        let next = receiver.recv().ok();
        if next.is_none()
            && let Some(Err(panic)) = thread.take().map(std::thread::JoinHandle::join)
        {
            std::panic::resume_unwind(panic);
        }
        next
    })
}

/// What a source is read in, so that its batches end where those of its roster do.
///
/// # Errors
/// When the store cannot be read.
pub fn as_before(around: &source::Surroundings, roster: Option<&Roster>) -> Result<source::Surroundings, EngineError> {
    let cuts = roster.map(Roster::cuts).transpose()?.unwrap_or_default();
    Ok(source::Surroundings { cuts: cuts.into(), ..around.clone() })
}

/// Whether reading the source uses it up: its last roster stands for it until it is read again.
pub fn cannot_be_read_twice(source: &Source) -> bool {
    matches!(source.reader, crate::spec::model::Reader::Lines { path: None })
}

/// Standard input, for a source that reads it.
pub fn stdin_of(source: &Source) -> Option<Box<dyn std::io::Read + Send>> {
    if cannot_be_read_twice(source) { Some(Box::new(std::io::stdin())) } else { None }
}

/// Replays the rows that `stage` maps over into the dispatcher.
pub fn replay(replay: &Replay, stage: &PlannedStage, budget: &Budget, inbox: &Sender<Message>) {
    let number = stage.index;
    let step = replay.inputs_of(stage, &mut |flow| {
        let Some(permit) = budget.acquire(flow.batch.bytes()) else { return Ok(ControlFlow::Break(())) };
        let batch: Batch = flow.batch;
        let gone = inbox.send(Message::Rows { stage: number, batch, permit }).is_err();
        Ok(if gone { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    });
    let _ = inbox.send(match step {
        Ok(_) => Message::RowsEnd { stage: number },
        Err(error) => Message::Broken(error),
    });
}

/// Finds the groups of a reduce and, where rows of groups must be read alone, nothing more: that is for those due.
pub fn groups(replay: &Replay, stage: &PlannedStage, inbox: &Sender<Message>) {
    let message = match replay.groups(stage) {
        Ok(groups) => Message::Groups { stage: stage.index, groups },
        Err(error) => Message::Broken(error),
    };
    let _ = inbox.send(message);
}

/// Writes the rows of due groups where they can be read group by group.
pub fn spill(replay: &Replay, stage: &PlannedStage, groups: &Batch, due: &[u32], dir: &Path, inbox: &Sender<Message>) {
    let message = match super::groups::GroupRows::spill(replay, stage, groups, due, dir) {
        Ok(rows) => Message::Spilled { stage: stage.index, rows },
        Err(error) => Message::Broken(error),
    };
    let _ = inbox.send(message);
}
