//! A lane of a Python worker: the task that it has in hand, sent whole, streamed (a group's rows) or, where the process
//! dies and nobody knows under which of several items, in halves until the culprit stands alone.

use std::borrow::Cow;
use std::path::Path;
use std::time::{Duration, Instant};

use super::queue::{Payload, Queued, Rows};
use super::seat::Hand;
use super::slot::{InHand, Slot};
use super::{Mark, Outcomes, TaskInput, wire};
use crate::data::{Table, Usage, Value};

/// An item that is alone when its process is lost, and alone again, is not sent once more.
const MOST_LOSSES: u32 = 2;
/// Where the number of the lane stands in a task's frame.
const LANE_AT: std::ops::Range<usize> = 17..21;

/// A task in hand of a Python worker.
pub(super) struct Lane {
    pub hand: Hand,
    /// Rows that the group's function still has to get.
    pub rows: Option<Box<dyn Iterator<Item = Table> + Send>>,
    /// The slot's word when it was last seen to change.
    seen: (u64, Instant),
    /// When it was last heard of.
    heard: Instant,
    division: Option<Division>,
    /// How often the process was lost while a single item was left.
    losses: u32,
}

/// A chunk that can be sent in parts.
struct Division {
    rows: Rows,
    /// The items that are being run; `None`: all.
    current: Option<Vec<u32>>,
    /// Those that are to be run next, the last first.
    pending: Vec<Vec<u32>>,
    /// Whether the process that ran the last part is gone.
    waiting: bool,
}

impl Lane {
    /// Takes up a task: the lane and the first frame.
    pub(super) fn begin(number: usize, mut task: Queued) -> (Lane, Vec<u8>) {
        let hand = Hand::new(&mut task);
        let heard = Instant::now();
        let seen = (0, heard);
        match task.payload {
            Payload::Frame { frame, rows } => {
                let mut bytes = frame.recv().unwrap_or_default();
                set_lane(&mut bytes, number);
                let division = rows.map(|rows| Division { rows, current: None, pending: Vec::new(), waiting: false });
                (Lane { hand, rows: None, seen, heard, division, losses: 0 }, bytes)
            }
            Payload::Group { rows, args, .. } => {
                let frame = wire::group_frame(hand.seq, hand.job_id, number as u32, &args);
                (Lane { hand, rows: Some(rows), seen, heard, division: None, losses: 0 }, frame)
            }
        }
    }

    /// What the worker has in hand of this task; nothing if that has been reported.
    pub(super) fn in_hand(&self, number: usize, slot: &Slot) -> InHand {
        match slot.in_hand(number, self.hand.seq) {
            InHand::Item(i) if self.hand.tally.has(self.item(i)) => InHand::Nothing,
            InHand::Item(i) => InHand::Item(self.item(i)),
            // The last one left is alone, whatever it was called with.
            InHand::Several => match self.left()[..] {
                [only] => InHand::Item(only),
                _ => InHand::Several,
            },
            InHand::Nothing => InHand::Nothing,
        }
    }

    /// How long the worker has been at the same.
    pub(super) fn at_it_for(&mut self, number: usize, slot: &Slot) -> Duration {
        let raw = slot.raw(number);
        if raw != self.seen.0 {
            self.seen = (raw, Instant::now());
        }
        self.seen.1.elapsed()
    }

    /// Whether items before the one in hand were not reported.
    pub(super) fn has_finished_more(&self, number: usize, slot: &Slot) -> bool {
        let reported = self.reported() as u32;
        matches!(slot.in_hand(number, self.hand.seq), InHand::Item(item) if item > reported)
    }

    /// What the item in hand has used so far.
    /// All that took long before it was reported at once.
    pub(super) fn usage(&self, peak_kib: u32) -> Usage {
        let micros = u32::try_from(self.heard.elapsed().as_micros()).unwrap_or(u32::MAX);
        Usage { micros, peak_kib }
    }

    /// The marks of the items that were sent last.
    pub(super) fn marks(&self) -> Cow<'_, [Mark]> {
        let marks = &self.hand.marks;
        match self.division.as_ref().and_then(|d| d.current.as_ref()) {
            Some(current) => current.iter().filter_map(|&i| marks.get(i as usize).copied()).collect(),
            None => Cow::Borrowed(marks),
        }
    }

    /// How many of the items that were sent last were reported.
    pub(super) fn reported(&self) -> usize {
        match self.division.as_ref().and_then(|d| d.current.as_ref()) {
            Some(current) => current.len() - self.left().len(),
            None => self.hand.tally.len() - self.hand.tally.left(),
        }
    }

    /// Takes note of outcomes; gives those that were not reported before.
    pub(super) fn accept(&mut self, outcomes: Outcomes) -> Outcomes {
        self.heard = Instant::now();
        let outcomes = self.translate(outcomes);
        self.hand.tally.accept(outcomes)
    }

    /// The task's item that the worker calls `i`.
    fn item(&self, i: u32) -> u32 {
        let current = self.division.as_ref().and_then(|d| d.current.as_ref());
        current.map_or(i, |items| items.get(i as usize).copied().unwrap_or(u32::MAX))
    }

    /// Outcomes as of the task's items.
    fn translate(&self, mut outcomes: Outcomes) -> Outcomes {
        if self.division.as_ref().is_some_and(|d| d.current.is_some()) {
            outcomes.done.iter_mut().for_each(|i| *i = self.item(*i));
            outcomes.failed.iter_mut().for_each(|(i, _)| *i = self.item(*i));
        }
        outcomes
    }

    /// Items of the present part that were not reported.
    fn left(&self) -> Vec<u32> {
        match self.division.as_ref().and_then(|d| d.current.as_ref()) {
            Some(current) => current.iter().copied().filter(|&i| !self.hand.tally.has(i)).collect(),
            None => self.hand.tally.unfinished(),
        }
    }

    /// The process dies under several items: they are to be run in halves.
    pub(super) fn divide(&mut self) {
        let left = self.left();
        if let Some(division) = &mut self.division {
            let (first, second) = left.split_at(left.len() / 2);
            division.pending.extend([second, first].into_iter().filter(|half| !half.is_empty()).map(<[u32]>::to_vec));
            division.current = None;
            division.waiting = !division.pending.is_empty();
        }
    }

    /// The process is gone, nobody knows why: what is left is to be run again, in halves. An item that was alone before,
    /// or cannot be sent again, is given instead: it is lost for good.
    pub(super) fn lose(&mut self) -> Option<u32> {
        let left = self.left();
        let [only] = left[..] else {
            self.divide();
            return None;
        };
        self.losses += 1;
        if self.losses == MOST_LOSSES || self.division.is_none() {
            return Some(only);
        }
        self.divide();
        None
    }

    /// The process dies under one item, which was reported: the others of its part are still to be run, if there are
    /// parts.
    pub(super) fn keep_rest(&mut self) {
        let left = self.left();
        if let Some(division) = self.division.as_mut().filter(|d| d.current.is_some()) {
            division.pending.extend((!left.is_empty()).then_some(left));
            division.current = None;
            division.waiting = !division.pending.is_empty();
        }
    }

    /// Whether parts are to be run, by the next process.
    pub(super) fn waits_for_process(&self) -> bool {
        self.division.as_ref().is_some_and(|d| d.waiting)
    }

    /// The frame of the next part, if there is one.
    pub(super) fn next_part(&mut self, number: usize) -> Option<Vec<u8>> {
        let division = self.division.as_mut()?;
        let items = division.pending.pop()?;
        let Rows { table, args, env } = &division.rows;
        let args = args.take(&items);
        empty_folders(&self.hand.job.files, &args);
        let part = TaskInput::Rows { table: table.take(&items), args, env: env.take(&items) };
        division.current = Some(items);
        division.waiting = false;
        Some(wire::task_frame(self.hand.seq, self.hand.job_id, number as u32, &self.hand.job, &part))
    }
}

/// Removes what earlier attempts at items may have left in the folders of their files.
fn empty_folders(files: &[String], args: &Table) {
    let columns: Vec<_> = files.iter().filter_map(|name| args.column(name)).collect();
    for row in 0..args.rows() {
        for column in &columns {
            let Value::Text(path) = column.value(row) else { continue };
            let entries = Path::new(&path).parent().and_then(|folder| std::fs::read_dir(folder).ok());
            for entry in entries.into_iter().flatten().flatten() {
                let path = entry.path();
                // What cannot be removed is in the way of the item, which says so.
                let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
            }
        }
    }
}

fn set_lane(frame: &mut [u8], number: usize) {
    if let Some(place) = frame.get_mut(LANE_AT) {
        place.copy_from_slice(&(number as u32).to_le_bytes());
    }
}
