//! A task in hand of a worker, sent whole or in parts: where its process dies, or its worker is lost, and nobody knows
//! under which of several items, what is left is sent in halves until the culprit stands alone.

use std::borrow::Cow;
use std::path::Path;
use std::time::Instant;

use super::queue::Rows;
use super::seat::Hand;
use super::slot::InHand;
use super::{CommandItem, Mark, Outcomes, TaskInput};
use crate::data::{Table, Usage, Value};

/// An item that is alone when its process is lost, and alone again, is not sent once more.
const MOST_LOSSES: u32 = 2;

/// A task in hand.
pub(super) struct Chunk {
    pub hand: Hand,
    /// When it was last heard of.
    heard: Instant,
    parts: Option<Parts>,
    /// How often the process was lost while a single item was left.
    losses: u32,
}

/// What can be sent in parts.
pub(super) enum Content {
    Rows(Rows),
    Commands(Vec<CommandItem>),
}

struct Parts {
    content: Content,
    /// The items that are being run; `None`: all.
    current: Option<Vec<u32>>,
    /// Those that are to be run next, the last first.
    pending: Vec<Vec<u32>>,
    /// Whether the process that ran the last part is gone.
    waiting: bool,
}

impl Chunk {
    /// A task that is being sent whole; without `content` it cannot be sent again.
    pub(super) fn new(hand: Hand, content: Option<Content>) -> Chunk {
        let parts = content.map(|content| Parts { content, current: None, pending: Vec::new(), waiting: false });
        Chunk { hand, heard: Instant::now(), parts, losses: 0 }
    }

    fn current(&self) -> Option<&Vec<u32>> {
        self.parts.as_ref().and_then(|parts| parts.current.as_ref())
    }

    /// What the worker has in hand, by the numbers that it was sent, as of the task; nothing if that was reported.
    pub(super) fn placed(&self, in_hand: InHand) -> InHand {
        match in_hand {
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

    /// What the item in hand has used so far.
    /// All that took long before it was reported at once.
    pub(super) fn usage(&self, peak_kib: u32) -> Usage {
        let micros = u32::try_from(self.heard.elapsed().as_micros()).unwrap_or(u32::MAX);
        Usage { micros, peak_kib }
    }

    /// The marks of the items that were sent last.
    pub(super) fn marks(&self) -> Cow<'_, [Mark]> {
        let marks = &self.hand.marks;
        match self.current() {
            Some(current) => current.iter().filter_map(|&i| marks.get(i as usize).copied()).collect(),
            None => Cow::Borrowed(marks),
        }
    }

    /// How many of the items that were sent last were reported.
    pub(super) fn reported(&self) -> usize {
        match self.current() {
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
        self.current().map_or(i, |items| items.get(i as usize).copied().unwrap_or(u32::MAX))
    }

    /// Outcomes as of the task's items.
    fn translate(&self, mut outcomes: Outcomes) -> Outcomes {
        if self.current().is_some() {
            outcomes.done.iter_mut().for_each(|i| *i = self.item(*i));
            outcomes.failed.iter_mut().for_each(|(i, _)| *i = self.item(*i));
        }
        outcomes
    }

    /// Items of the present part that were not reported.
    pub(super) fn left(&self) -> Vec<u32> {
        match self.current() {
            Some(current) => current.iter().copied().filter(|&i| !self.hand.tally.has(i)).collect(),
            None => self.hand.tally.unfinished(),
        }
    }

    /// The process dies under several items: they are to be run in halves.
    pub(super) fn divide(&mut self) {
        let left = self.left();
        let (first, second) = left.split_at(left.len() / 2);
        self.send_later([second, first].map(<[u32]>::to_vec));
    }

    /// The process dies under one item, which was reported: the others of its part are still to be run, if there are
    /// parts.
    pub(super) fn keep_rest(&mut self) {
        if self.current().is_some() {
            self.keep_all();
        }
    }

    /// All that is left of the present part is to be run again, together.
    pub(super) fn keep_all(&mut self) {
        let left = self.left();
        self.send_later([left]);
    }

    fn send_later<const N: usize>(&mut self, later: [Vec<u32>; N]) {
        if let Some(parts) = &mut self.parts {
            parts.pending.extend(later.into_iter().filter(|part| !part.is_empty()));
            parts.current = None;
            parts.waiting = !parts.pending.is_empty();
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
        if self.losses == MOST_LOSSES || self.parts.is_none() {
            return Some(only);
        }
        self.divide();
        None
    }

    /// Whether parts are to be run.
    pub(super) fn has_parts(&self) -> bool {
        self.parts.as_ref().is_some_and(|parts| !parts.pending.is_empty())
    }

    /// Whether parts are to be run, by the next process.
    pub(super) fn waits_for_process(&self) -> bool {
        self.parts.as_ref().is_some_and(|parts| parts.waiting)
    }

    /// The next part, if there is one.
    pub(super) fn next_part(&mut self) -> Option<TaskInput> {
        let parts = self.parts.as_mut()?;
        let items = parts.pending.pop()?;
        let part = match &parts.content {
            Content::Rows(Rows { table, args, env }) => {
                let args = args.take(&items);
                empty_folders(&self.hand.job.files, &args);
                TaskInput::Rows { table: table.take(&items), args, env: env.take(&items) }
            }
            Content::Commands(all) => TaskInput::Commands(items.iter().map(|&i| all[i as usize].clone()).collect()),
        };
        parts.current = Some(items);
        parts.waiting = false;
        Some(part)
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
