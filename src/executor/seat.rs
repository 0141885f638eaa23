//! A worker's place among the others: where its thread gets tasks and leaves word of them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{SendTimeoutError, Sender};
use rustix::event::{EventfdFlags, eventfd};

use super::local::Settings;
use super::queue::{Phase, Queued, Queues};
use super::slot::Slot;
use super::tally::Tally;
use super::{Job, Mark, PoolKey, Report, TaskId};

/// How often a thread that cannot leave its report looks whether anybody still wants it.
const PATIENCE: Duration = Duration::from_millis(50);

/// Wakes a thread out of `poll`.
pub(super) struct Wake(OwnedFd);

impl Wake {
    pub(super) fn new() -> io::Result<Wake> {
        Ok(Wake(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    pub(super) fn wake(&self) {
        // It fails only when it is set already, many times over.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    pub(super) fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What all threads of an executor share.
pub(super) struct Shared {
    pub settings: Settings,
    queues: Mutex<Queues>,
    reports: Sender<Report>,
}

impl Shared {
    pub(super) fn new(settings: Settings, limit: usize, reports: Sender<Report>) -> Shared {
        Shared { settings, queues: Mutex::new(Queues::new(limit)), reports }
    }

    /// The queues; a thread that panicked left them as they were.
    pub(super) fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a report, unless everything is being stopped and nobody takes it.
    pub(super) fn report(&self, report: Report) {
        let mut report = report;
        loop {
            match self.reports.send_timeout(report, PATIENCE) {
                Err(SendTimeoutError::Timeout(back)) if self.queues().phase != Phase::Stopping => report = back,
                _ => return,
            }
        }
    }

    /// The task comes back as it was.
    pub(super) fn give_back(&self, task: TaskId, items: usize) {
        self.report(Report::End { task, unfinished: (0..items as u32).collect() });
    }
}

/// A task in hand.
pub(super) struct Hand {
    pub task: TaskId,
    pub seq: u64,
    pub job_id: u32,
    pub job: Arc<Job>,
    pub tally: Tally,
    pub marks: Vec<Mark>,
}

/// What a worker gets when it asks for a task.
pub(super) enum Taken {
    Task(Box<Queued>),
    /// It waits.
    Nothing,
    /// The next task has more items than its process takes.
    TooLarge,
}

/// A worker's place.
pub(super) struct Seat {
    pub shared: Arc<Shared>,
    pub wake: Arc<Wake>,
    pool: usize,
    member: u64,
}

impl Seat {
    /// A new place in that pool.
    pub(super) fn new(shared: &Arc<Shared>, queues: &mut Queues, pool: usize) -> io::Result<Seat> {
        let wake = Arc::new(Wake::new()?);
        let member = queues.join(pool, wake.clone());
        Ok(Seat { shared: shared.clone(), wake, pool, member })
    }

    pub(super) fn pool(&self) -> usize {
        self.pool
    }

    pub(super) fn key(&self) -> PoolKey {
        self.shared.queues().pools[self.pool].key.clone()
    }

    pub(super) fn phase(&self) -> Phase {
        self.shared.queues().phase
    }

    /// The next task, if there is one for this worker, which takes so many more items; without one it counts as
    /// waiting.
    pub(super) fn take(&self, room: usize) -> Taken {
        let mut queues = self.shared.queues();
        let taken = match queues.take(self.pool, room) {
            Some(task) => Taken::Task(Box::new(task)),
            None if queues.has_task(self.pool) && room < usize::MAX => Taken::TooLarge,
            None => Taken::Nothing,
        };
        if let Some(member) = queues.member(self.pool, self.member) {
            member.idle = matches!(taken, Taken::Nothing);
        }
        taken
    }

    /// This worker, for now, waits for nothing.
    pub(super) fn be_busy(&self) {
        if let Some(member) = self.shared.queues().member(self.pool, self.member) {
            member.idle = false;
        }
    }

    /// Makes the process's slot known, so that it can be told to take no new item.
    pub(super) fn show_slot(&self, slot: &Arc<Slot>) {
        let mut queues = self.shared.queues();
        if queues.phase != Phase::Open {
            slot.stop();
        }
        if let Some(member) = queues.member(self.pool, self.member) {
            member.slot = Some(slot.clone());
        }
    }

    /// Gives the place up, unless there is work: whether it did. `only_if_crowded`: and unless no other pool has any.
    pub(super) fn leave_if_idle(&self, only_if_crowded: bool) -> bool {
        let mut queues = self.shared.queues();
        let busy = queues.phase == Phase::Open && !queues.pools[self.pool].queue.is_empty();
        let leave = !busy && (!only_if_crowded || queues.is_needed_elsewhere(self.pool));
        if leave {
            queues.leave(self.pool, self.member);
        }
        leave
    }

    /// Gives the place up, whatever there is to do.
    pub(super) fn leave(&self) {
        self.shared.queues().leave(self.pool, self.member);
    }

    /// The task is over: the last report on it, and its place is free.
    pub(super) fn finish(&self, hand: &Hand, report: Report) {
        let ended = hand.tally.len() - hand.tally.left();
        self.shared.report(report);
        let mut queues = self.shared.queues();
        queues.finish(self.pool, hand.job_id, ended);
        queues.sleepers().for_each(|w| w.wake());
    }

    /// The task is over; what was not reported is unfinished.
    pub(super) fn end(&self, hand: &Hand) {
        self.finish(hand, Report::End { task: hand.task, unfinished: hand.tally.unfinished() });
    }

    /// The task's job cannot run.
    pub(super) fn broken(&self, hand: &Hand, message: String) {
        self.finish(hand, Report::Broken { task: hand.task, stage: hand.job.stage.clone(), message });
    }

    /// No task of this pool can run: all that wait are told so.
    pub(super) fn all_broken(&self, message: &str) {
        let waiting = std::mem::take(&mut self.shared.queues().pools[self.pool].queue);
        for task in waiting {
            let (stage, message) = (task.job.stage.clone(), message.to_string());
            self.shared.report(Report::Broken { task: task.id, stage, message });
        }
    }
}

impl Hand {
    pub(super) fn new(task: &mut Queued) -> Hand {
        Hand {
            task: task.id,
            seq: task.seq,
            job_id: task.job_id,
            job: task.job.clone(),
            tally: Tally::new(task.items),
            marks: std::mem::take(&mut task.marks),
        }
    }
}
