//! The death of a Python worker: whose fault it was, and what becomes of the tasks in hand.
//!
//! A death is what the keeper reports, never the end of the frames alone: a forked child may hold those open. Whatever
//! was written before counts; then the slot names the item in hand.

use super::super::Report;
use super::super::command::STRIKES;
use super::super::ending::{in_words, over_memory};
use super::super::process::Process;
use super::super::queue::Phase;
use super::super::slot::InHand;
use super::Worker;
use crate::data::{Failure, FailureKind};

/// How a process came to its end.
pub(super) enum End {
    /// By itself, or for its memory.
    Exited(Exit),
    /// It says what no worker says.
    Damaged(String),
    /// Its keeper is gone, and so is it.
    Lost,
    /// It could never have run.
    Hopeless(String),
}

/// The end of a process, as its keeper tells it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exit {
    /// As `wait` gives it.
    pub status: i32,
    pub peak_kib: u32,
    pub over_memory: bool,
}

impl Worker {
    /// The process is gone or past help: ends it, and says whose fault that was.
    pub(super) fn mourn(&mut self, end: End) {
        if matches!(end, End::Exited(_)) {
            // What was written before the end counts; what is damaged was cut by the death.
            let _ = self.read_frames(false);
        }
        self.seat.be_busy();
        let Some(mut process) = self.process.take() else { return };
        process.end();
        match end {
            End::Hopeless(message) => {
                self.strikes = STRIKES;
                self.last_words = message;
            }
            _ if process.ending && !process.mute => {}
            End::Exited(_) if process.mute => {
                let how = "stopped answering (descriptor 3 is not an item's to close or to write to)";
                self.lose(how, &process.tail());
            }
            End::Exited(exit) => self.blame(exit, &process),
            End::Damaged(how) => self.lose(&how, &process.tail()),
            End::Lost => self.lose("was killed", &process.tail()),
        }
        (0..self.lanes.len()).for_each(|number| self.lay_down(number));
        if self.strikes >= STRIKES {
            self.seat.all_broken(&self.last_words);
        }
    }

    /// Lays a death to the item in hand, if there is exactly one.
    fn blame(&mut self, exit: Exit, process: &Process) {
        let limit = process.memory.filter(|_| exit.over_memory);
        let held = self.lanes.iter().enumerate().filter_map(|(number, lane)| {
            let in_hand = lane.as_ref()?.in_hand(number, &process.slot);
            (in_hand != InHand::Nothing).then_some((number, in_hand))
        });
        let held: Vec<(usize, InHand)> = held.collect();
        match held[..] {
            [] if limit.is_none() && self.has_begun_more(process) => {
                self.lose(&format!("{} after the item", in_words(exit.status)), &process.tail());
            }
            [] => {
                let how =
                    limit.map_or_else(|| in_words(exit.status), |limit| over_memory(limit, exit.peak_kib).message);
                self.strike(&how, &process.tail());
            }
            [(number, in_hand)] => {
                let Some(lane) = &mut self.lanes[number] else { return };
                self.strikes = 0;
                let InHand::Item(item) = in_hand else { return lane.chunk.divide() };
                let failure = match limit {
                    Some(limit) => over_memory(limit, exit.peak_kib),
                    None => crash(exit.status),
                };
                let failure = Failure { output: process.tail(), ..failure };
                let usage = lane.chunk.usage(exit.peak_kib);
                if let Some(outcomes) = lane.chunk.hand.tally.fail(item, failure, usage) {
                    self.seat.shared.report(Report::Part { task: lane.chunk.hand.task, outcomes });
                }
                lane.chunk.keep_rest();
            }
            _ => self.suspect_all(),
        }
    }

    /// A death with several lanes in hand: what is left of all of them is run again, one task at a time.
    fn suspect_all(&self) {
        let items = self.lanes.iter().flatten().map(|lane| lane.chunk.hand.tally.left()).sum();
        self.seat.shared.queues().go_solo(self.seat.pool(), items);
    }

    /// Whether items were begun that nothing was heard of.
    fn has_begun_more(&self, process: &Process) -> bool {
        let mut lanes = self.lanes.iter().enumerate().filter_map(|(number, lane)| Some((number, lane.as_ref()?)));
        lanes.any(|(number, lane)| process.slot.begun(number, lane.chunk.hand.seq) > lane.chunk.reported())
    }

    /// A death for which no item can be named: all that were in hand are tried again, of one lane at a time, in halves,
    /// until one is alone.
    fn lose(&mut self, how: &str, tail: &str) {
        match self.lanes.iter().flatten().count() {
            0 => return self.strike(how, tail),
            1 => {}
            _ => return self.suspect_all(),
        }
        for lane in self.lanes.iter_mut().flatten() {
            let Some(item) = lane.chunk.lose() else { continue };
            let failure = Failure::new(FailureKind::Crash, format!("its worker {how}"));
            let failure = Failure { output: tail.to_string(), ..failure };
            if let Some(outcomes) = lane.chunk.hand.tally.fail(item, failure, lane.chunk.usage(0)) {
                self.seat.shared.report(Report::Part { task: lane.chunk.hand.task, outcomes });
            }
            self.strikes += 1;
            self.last_words = format!("the Python worker {how}, with one item after the other");
        }
    }

    /// A death that is no item's fault.
    fn strike(&mut self, how: &str, tail: &str) {
        self.strikes += 1;
        let tail = if tail.trim().is_empty() { String::new() } else { format!("\n{}", tail.trim_end()) };
        self.last_words = format!("the Python worker {how}, {} times before any item could run{tail}", self.strikes);
    }

    /// What becomes of the lane's task after a death.
    fn lay_down(&mut self, number: usize) {
        let goes_on = self.strikes < STRIKES && self.seat.phase() == Phase::Open && !self.retired;
        let Some(lane) = &mut self.lanes[number] else { return };
        if goes_on && lane.chunk.waits_for_process() {
            return;
        }
        let Some(lane) = self.lanes[number].take() else { return };
        if self.strikes >= STRIKES {
            self.seat.broken(&lane.chunk.hand, self.last_words.clone());
        } else {
            self.seat.end(&lane.chunk.hand);
        }
    }
}

fn crash(status: i32) -> Failure {
    let how = in_words(status);
    let how = if libc::WIFEXITED(status) { format!("{how} while the item was running") } else { how };
    Failure::new(FailureKind::Crash, how)
}
