//! A Python worker: the thread that keeps its process busy, reads what it says, and looks after limits of time. How the
//! process dies, and whose fault that was, is [`death`]'s business.

mod death;

use std::path::Path;
use std::time::{Duration, Instant};

use super::command::{IDLE, STRIKES};
use super::ending::over;
use super::keeper::protocol::FromKeeper;
use super::lane::Lane;
use super::local::staff;
use super::process::Process;
use super::queue::Phase;
use super::seat::{Seat, Taken};
use super::slot::InHand;
use super::wire::{self, FromWorker, WireError};
use super::{Report, Shape};
use crate::data::Failure;
use death::{End, Exit};

/// How often the slot is looked at where items have a limit.
const TICK: Duration = Duration::from_millis(20);
/// An item that takes longer may have finished ones waiting behind it: the worker is asked for them.
const STUCK: Duration = Duration::from_millis(250);
/// How often a process that is starting or ending is looked at.
const SLOW_TICK: Duration = Duration::from_millis(250);
/// A process that has not said hello by then is broken.
const HELLO_LIMIT: Duration = Duration::from_secs(60);
/// A process that stopped talking but runs on is ended after this time.
const SILENCE_LIMIT: Duration = Duration::from_secs(1);

/// The life of a worker thread with so many lanes.
pub(super) fn work(seat: Seat, lanes: usize) {
    let lanes = (0..lanes).map(|_| None).collect();
    let mut worker = Worker {
        seat,
        process: None,
        lanes,
        strikes: 0,
        last_words: String::new(),
        active: Instant::now(),
        retired: false,
    };
    while worker.step() {}
}

struct Worker {
    seat: Seat,
    process: Option<Process>,
    lanes: Vec<Option<Lane>>,
    /// How often in a row the process died without any item having ended.
    strikes: u32,
    /// What was known of the last such death.
    last_words: String,
    /// When there was last something to do.
    active: Instant,
    /// Whether an item that took too long still runs in a lane: others finish, and that is all.
    retired: bool,
}

impl Worker {
    /// One round; false: the worker's life is over.
    fn step(&mut self) -> bool {
        if self.seat.phase() == Phase::Stopping || (self.retired && self.is_idle()) {
            self.stop();
            return false;
        }
        if self.process.is_none() && !self.start() {
            return false;
        }
        self.begin_tasks();
        self.feed();
        self.wait();
        self.listen();
        self.hurry();
        self.watch();
        self.stays()
    }

    fn is_idle(&self) -> bool {
        self.lanes.iter().all(Option::is_none)
    }

    /// Starts a process; false: this worker gives up.
    fn start(&mut self) -> bool {
        let idle = self.is_idle();
        if self.retired || (idle && self.strikes > 0 && self.seat.leave_if_idle(false)) {
            self.seat.leave();
            return false;
        }
        let key = self.seat.key();
        let started = match &key.python.clone() {
            Some(python) if self.strikes < STRIKES => {
                let process = Process::start(&self.seat.shared.settings, key, python, self.lanes.len());
                process.map_err(|e| format!("cannot start a Python worker: {e}"))
            }
            _ => Err(self.last_words.clone()),
        };
        match started {
            Ok(process) => {
                self.seat.show_slot(&process.slot);
                self.process = Some(process);
                self.active = Instant::now();
                true
            }
            Err(message) => {
                self.give_up(&message);
                false
            }
        }
    }

    /// Nothing of this pool can run.
    fn give_up(&mut self, message: &str) {
        self.seat.leave();
        for lane in self.lanes.iter_mut().filter_map(Option::take) {
            self.seat.broken(&lane.chunk.hand, message.to_string());
        }
        self.seat.all_broken(message);
    }

    /// Gives the lanes something to do: what waits since the last process died, then tasks.
    fn begin_tasks(&mut self) {
        if self.retired || self.process.as_ref().is_none_or(|p| !p.ready || p.ending) {
            return;
        }
        for number in 0..self.lanes.len() {
            if self.lanes[number].as_ref().is_some_and(|lane| lane.chunk.waits_for_process()) {
                self.begin_part(number);
            }
        }
        for number in 0..self.lanes.len() {
            // A group's rows are sent with nothing else in between.
            if self.lanes.iter().flatten().any(|lane| lane.rows.is_some()) {
                return;
            }
            if self.lanes[number].is_none() && !self.begin_task(number) {
                return;
            }
        }
    }

    /// Sends the next part of the lane's task, if there is one.
    fn begin_part(&mut self, number: usize) -> bool {
        let frame = self.lanes[number].as_mut().and_then(|lane| lane.next_part(number));
        frame.map(|frame| self.send(number, frame)).is_some()
    }

    /// Takes up a task in a free lane, if there is one.
    fn begin_task(&mut self, number: usize) -> bool {
        let room = self.process.as_ref().map_or(0, Process::room);
        let task = match self.seat.take(room) {
            Taken::Task(task) => *task,
            Taken::Nothing => return false,
            Taken::TooLarge => {
                self.renew();
                return false;
            }
        };
        self.process.iter_mut().for_each(|p| p.taken += task.items);
        self.seat.shared.report(Report::Started { task: task.id });
        let (lane, frame) = Lane::begin(number, task);
        self.lanes[number] = Some(lane);
        self.send(number, frame);
        true
    }

    /// Sends a lane's task, or a part of it, and takes note of what is in hand from now on.
    fn send(&mut self, number: usize, frame: Vec<u8>) {
        let (Some(process), Some(lane)) = (&mut self.process, &self.lanes[number]) else { return };
        let hand = &lane.chunk.hand;
        if process.jobs.insert(hand.job_id) {
            process.data.push(wire::job_frame(hand.job_id, &hand.job));
        }
        process.slot.enter(number, hand.seq, &lane.chunk.marks());
        process.data.push(frame);
    }

    /// The process has had its share of items: the next one is for another, once nothing is in hand.
    fn renew(&mut self) {
        if self.is_idle()
            && let Some(mut process) = self.process.take()
        {
            process.say_farewell();
        }
    }

    /// Sends what is to be sent; a group's rows as the worker takes them.
    fn feed(&mut self) {
        let Some(process) = &mut self.process else { return };
        process.data.flush();
        for lane in self.lanes.iter_mut().flatten() {
            while let Some(rows) = lane.rows.as_mut().filter(|_| !process.data.is_sending()) {
                match rows.next() {
                    Some(table) => process.data.push(wire::rows_frame(&table)),
                    None => {
                        process.data.push(wire::end_of_rows_frame());
                        lane.rows = None;
                    }
                }
                process.data.flush();
            }
        }
    }

    fn wait(&mut self) {
        let limited = self.lanes.iter().flatten().any(|lane| lane.chunk.hand.job.timeout.is_some());
        let idle = self.is_idle();
        let Some(process) = &mut self.process else { return };
        let limit = match () {
            () if limited => Some(TICK),
            () if !process.ready || process.silent.is_some() => Some(SLOW_TICK),
            () if idle => Some(IDLE.saturating_sub(self.active.elapsed())),
            () => Some(STUCK),
        };
        process.wait(self.seat.wake.fd(), limit);
        self.seat.wake.clear();
    }

    /// Takes in what the worker and its keeper have to say.
    fn listen(&mut self) {
        if let Err(e) = self.read_frames(true) {
            return self.mourn(End::Damaged(format!("sent {e} (descriptor 3 is not an item's to write to)")));
        }
        let Some(process) = &mut self.process else { return };
        process.control().fill();
        while let Some((kind, payload)) = self.process.as_mut().and_then(|p| p.control().next_frame()) {
            match FromKeeper::read(kind, &payload) {
                Ok(FromKeeper::Started { pid }) => self.process.iter_mut().for_each(|p| p.pid = Some(pid)),
                Ok(FromKeeper::Exited { status, peak_kib, over_memory }) => {
                    return self.mourn(End::Exited(Exit { status, peak_kib, over_memory }));
                }
                Ok(FromKeeper::Failed { message }) => return self.mourn(End::Hopeless(message)),
                _ => break,
            }
        }
        if self.process.as_mut().is_some_and(|p| p.control().ended()) {
            self.mourn(End::Lost);
        }
    }

    /// Reads frames, once or until there is nothing more.
    fn read_frames(&mut self, once: bool) -> Result<(), WireError> {
        loop {
            let Some(process) = &mut self.process else { return Ok(()) };
            let got = !process.data.ended() && process.data.fill();
            while let Some((kind, payload)) = self.process.as_mut().and_then(|p| p.data.next_frame()) {
                self.hear(kind, &payload)?;
            }
            // One that is being ended is silent for no reason of its own.
            if let Some(process) = self.process.as_mut().filter(|p| p.data.ended() && !p.ending) {
                process.silent.get_or_insert_with(Instant::now);
            }
            if once || !got {
                return Ok(());
            }
        }
    }

    fn hear(&mut self, kind: u8, payload: &[u8]) -> Result<(), WireError> {
        let Some(seq) = FromWorker::seq(kind, payload) else {
            wire::decode_shape(kind, payload, Shape::One)?;
            self.process.iter_mut().for_each(|p| p.ready = true);
            return Ok(());
        };
        let Some(number) = self.lanes.iter().position(|l| l.as_ref().is_some_and(|l| l.chunk.hand.seq == seq)) else {
            return Ok(());
        };
        let Some(lane) = &mut self.lanes[number] else { return Ok(()) };
        match wire::decode(kind, payload, &lane.chunk.hand.job)? {
            FromWorker::Part { outcomes, .. } => {
                self.strikes = 0;
                let outcomes = lane.chunk.accept(outcomes);
                self.process.iter().for_each(|p| p.slot.hear_of(number, lane.chunk.reported()));
                self.seat.shared.report(Report::Part { task: lane.chunk.hand.task, outcomes });
            }
            FromWorker::Done { .. } => {
                self.strikes = 0;
                self.end_part(number);
            }
            FromWorker::Broken { message, .. } => {
                if let Some(lane) = self.lanes[number].take() {
                    self.seat.broken(&lane.chunk.hand, message);
                }
            }
            FromWorker::Hello { executable, .. } => {
                if let Some(python) = &self.seat.key().python {
                    self.seat.shared.settings.learn_executable(&python.interpreter, Path::new(&executable));
                }
            }
        }
        Ok(())
    }

    /// The lane has run what it was sent: the next part, or the end of its task.
    fn end_part(&mut self, number: usize) {
        let goes_on = self.seat.phase() == Phase::Open && self.process.as_ref().is_some_and(|p| !p.ending);
        if goes_on && self.begin_part(number) {
            return;
        }
        self.process.iter().for_each(|p| p.slot.leave(number));
        if let Some(lane) = self.lanes[number].take() {
            self.seat.end(&lane.chunk.hand);
        }
    }

    /// Asks for the results that wait behind an item that takes long.
    fn hurry(&mut self) {
        let Some(process) = self.process.as_ref().filter(|p| !p.ending) else { return };
        let waiting = |(number, lane): (usize, &mut Option<Lane>)| {
            lane.as_mut().is_some_and(|lane| {
                lane.at_it_for(number, &process.slot) >= STUCK && lane.has_finished_more(number, &process.slot)
            })
        };
        if self.lanes.iter_mut().enumerate().any(waiting) {
            process.ask_for_results();
        }
    }

    /// Looks after limits of time.
    fn watch(&mut self) {
        let Some(process) = &mut self.process else { return };
        if process.silent.is_some_and(|since| since.elapsed() >= SILENCE_LIMIT) {
            process.mute = true;
            process.terminate();
        }
        if !process.ready && process.started.elapsed() >= HELLO_LIMIT {
            let message = format!("the Python worker did not start within {HELLO_LIMIT:?}");
            return self.mourn(End::Hopeless(message));
        }
        if process.ending {
            return;
        }
        for number in 0..self.lanes.len() {
            let (Some(process), Some(lane)) = (&self.process, &mut self.lanes[number]) else { continue };
            let Some(limit) = lane.chunk.hand.job.timeout else { continue };
            if lane.at_it_for(number, &process.slot) < limit {
                continue;
            }
            match lane.in_hand(number, &process.slot) {
                InHand::Nothing => {}
                in_hand => self.expire(number, in_hand, limit),
            }
        }
    }

    /// What the lane has in hand took longer than its limit.
    fn expire(&mut self, number: usize, in_hand: InHand, limit: Duration) {
        let alone = self.lanes.iter().flatten().count() == 1;
        let (Some(process), Some(lane)) = (&mut self.process, &mut self.lanes[number]) else { return };
        if let InHand::Item(item) = in_hand {
            let output = if alone { process.tail() } else { String::new() };
            let failure = Failure { output, ..over(limit) };
            let usage = lane.chunk.usage(process.slot.peak());
            if let Some(outcomes) = lane.chunk.hand.tally.fail(item, failure, usage) {
                self.seat.shared.report(Report::Part { task: lane.chunk.hand.task, outcomes });
            }
        }
        if alone && !self.retired {
            match in_hand {
                InHand::Several => lane.chunk.divide(),
                _ => lane.chunk.keep_rest(),
            }
            return process.terminate();
        }
        process.slot.stop();
        self.retire();
        if let Some(lane) = self.lanes[number].take() {
            if in_hand == InHand::Several {
                self.seat.shared.queues().go_solo(self.seat.pool(), lane.chunk.hand.tally.left());
            }
            self.seat.end(&lane.chunk.hand);
        }
    }

    /// Others take this worker's place; it only finishes what it has in hand.
    fn retire(&mut self) {
        if !std::mem::replace(&mut self.retired, true) {
            self.seat.leave();
            staff(&self.seat.shared, self.seat.pool());
        }
    }

    /// Whether the worker goes on; an idle one leaves after a while if others need the room.
    fn stays(&mut self) -> bool {
        if !self.is_idle() || self.process.as_ref().is_none_or(|p| !p.ready) {
            self.active = Instant::now();
            return true;
        }
        if self.active.elapsed() < IDLE {
            return true;
        }
        self.active = Instant::now();
        if !self.seat.leave_if_idle(true) {
            return true;
        }
        self.process.take().iter_mut().for_each(Process::say_farewell);
        false
    }

    /// Ends everything.
    fn stop(&mut self) {
        self.seat.leave();
        if let Some(mut process) = self.process.take() {
            if self.is_idle() && process.ready && !self.retired {
                process.say_farewell();
            } else {
                process.end();
            }
        }
        for lane in self.lanes.iter_mut().filter_map(Option::take) {
            self.seat.end(&lane.chunk.hand);
        }
    }
}
