//! A worker of commands: a keeper that runs them, and the thread here that hands it tasks and reads what became of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::channel::Channel;
use super::keeper::protocol::{FromKeeper, Role, Setup, ToKeeper, task_frame};
use super::launch::Keeper;
use super::local::keeps_stdout;
use super::outcome::outcomes;
use super::queue::{Payload, Phase, Queued};
use super::seat::{Hand, Seat, Taken};
use super::slot::Slot;
use super::{Report, ending};
use crate::data::Table;

/// An idle worker whose place others could use leaves after this time.
pub(super) const IDLE: Duration = Duration::from_secs(5);
/// Workers that end so often in a row without having ended any item make the job broken.
pub(super) const STRIKES: u32 = 3;

/// The life of a worker thread.
pub(super) fn work(seat: Seat) {
    let mut worker = Worker { seat, process: None, hand: None, rows: None, strikes: 0, active: Instant::now() };
    while worker.step() {}
}

/// A keeper and its slot.
struct Process {
    keeper: Keeper,
    slot: Arc<Slot>,
}

struct Worker {
    seat: Seat,
    process: Option<Process>,
    hand: Option<Hand>,
    /// The rows that a group's command still has to get.
    rows: Option<Box<dyn Iterator<Item = Table> + Send>>,
    strikes: u32,
    /// When there was last something to do.
    active: Instant,
}

impl Worker {
    /// One round; false: the worker's life is over.
    fn step(&mut self) -> bool {
        if self.seat.phase() == Phase::Stopping {
            self.stop();
            return false;
        }
        if self.process.is_none() && !self.start() {
            return false;
        }
        if self.hand.is_none()
            && let Taken::Task(task) = self.seat.take(usize::MAX)
        {
            self.begin(*task);
        }
        self.feed();
        let idle = self.hand.is_none();
        self.wait(idle);
        self.listen();
        if !idle {
            self.active = Instant::now();
        } else if self.active.elapsed() >= IDLE {
            self.active = Instant::now();
            return !self.seat.leave_if_idle(true);
        }
        true
    }

    /// Starts a keeper; false: this worker gives up.
    fn start(&mut self) -> bool {
        if self.strikes > 0 && self.seat.leave_if_idle(false) {
            return false;
        }
        let started = if self.strikes >= STRIKES {
            Err("its processes were killed again and again before any command could end".to_string())
        } else {
            self.launch().map_err(|e| format!("cannot start a process: {e}"))
        };
        match started {
            Ok(process) => {
                self.seat.show_slot(&process.slot);
                self.process = Some(process);
                true
            }
            Err(message) => {
                self.seat.leave();
                self.seat.all_broken(&message);
                false
            }
        }
    }

    fn launch(&self) -> std::io::Result<Process> {
        let key = self.seat.key();
        let slot = Arc::new(Slot::create(&self.seat.shared.settings.state_dir, 1)?);
        let env = key.env.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let setup = Setup { role: Role::Commands, env, cwd: key.cwd, memory: key.memory };
        let keeper = Keeper::start(&self.seat.shared.settings.program, setup, &[slot.file()])?;
        Ok(Process { keeper, slot })
    }

    fn control(&mut self) -> Option<&mut Channel> {
        self.process.as_mut().map(|p| p.keeper.control())
    }

    fn begin(&mut self, mut task: Queued) {
        let hand = Hand::new(&mut task);
        if let Some(process) = &self.process {
            process.slot.enter(0, hand.seq, &hand.marks);
        }
        self.seat.shared.report(Report::Started { task: task.id });
        let frame = match task.payload {
            Payload::Frame { frame, .. } => frame.recv().unwrap_or_default(),
            Payload::Group { rows, command, .. } => {
                self.rows = Some(rows);
                let job = &task.job;
                task_frame(task.seq, job.timeout, keeps_stdout(job), true, command.as_slice())
            }
        };
        self.hand = Some(hand);
        if let Some(control) = self.control() {
            control.push(frame);
        }
    }

    /// Sends what is to be sent; a group's rows as the keeper takes them.
    fn feed(&mut self) {
        let Some(process) = &mut self.process else { return };
        let control = process.keeper.control();
        control.flush();
        while let Some(rows) = &mut self.rows {
            if control.is_sending() {
                return;
            }
            match rows.next() {
                Some(table) => {
                    json_lines(&table).into_iter().for_each(|part| control.push(ToKeeper::Stdin(part).frame()))
                }
                None => {
                    control.push(ToKeeper::EndOfStdin.frame());
                    self.rows = None;
                }
            }
            control.flush();
        }
    }

    fn wait(&mut self, idle: bool) {
        let Some(process) = &mut self.process else { return };
        let control = process.keeper.control();
        let mut events = PollFlags::IN;
        events.set(PollFlags::OUT, control.is_sending());
        let wake = self.seat.wake.clone();
        let wake_fd = wake.fd();
        let socket = control.socket();
        let mut fds = [PollFd::new(&socket, events), PollFd::new(&wake_fd, PollFlags::IN)];
        let limit = idle.then(|| IDLE.saturating_sub(self.active.elapsed()));
        let limit = limit.and_then(|d| Timespec::try_from(d).ok());
        // An interrupted wait is one that ended early.
        let _ = poll(&mut fds, limit.as_ref());
        if !fds[1].revents().is_empty() {
            wake.clear();
        }
    }

    /// Takes in what the keeper has to say.
    fn listen(&mut self) {
        let mut refused = None;
        loop {
            let Some(control) = self.control() else { return };
            let got = control.fill();
            while let Some((kind, payload)) = self.control().and_then(Channel::next_frame) {
                match FromKeeper::read(kind, &payload) {
                    Ok(FromKeeper::Failed { message }) => refused = Some(message),
                    Ok(message) => self.hear(message),
                    Err(_) => return self.mourn(None),
                }
            }
            if !got {
                break;
            }
        }
        if self.control().is_some_and(|c| c.ended()) {
            self.mourn(refused);
        }
    }

    fn hear(&mut self, message: FromKeeper) {
        let Some(hand) = &mut self.hand else { return };
        match message {
            FromKeeper::Results { seq, results } if seq == hand.seq => {
                self.strikes = 0;
                let outcomes = hand.tally.accept(outcomes(&hand.job, results));
                let heard = hand.tally.len() - hand.tally.left();
                self.process.iter().for_each(|p| p.slot.hear_of(0, heard));
                self.seat.shared.report(Report::Part { task: hand.task, outcomes });
            }
            FromKeeper::Done { seq, .. } if seq == hand.seq => {
                self.process.iter().for_each(|p| p.slot.leave(0));
                self.seat.end(hand);
                self.hand = None;
                if self.rows.take().is_some()
                    && let Some(control) = self.control()
                {
                    // The keeper drops what comes outside of a task.
                    control.push(ToKeeper::EndOfStdin.frame());
                }
            }
            _ => {}
        }
    }

    /// The keeper is gone, through no fault of an item's.
    fn mourn(&mut self, broken: Option<String>) {
        self.strikes += 1;
        self.rows = None;
        if let Some(mut process) = self.process.take()
            && !process.keeper.end().is_ok_and(|status| status.success())
        {
            ending::kill_group(process.slot.group());
        }
        if let Some(hand) = self.hand.take() {
            match &broken {
                Some(message) => self.seat.broken(&hand, message.clone()),
                None => self.seat.end(&hand),
            }
        }
        if let Some(message) = broken {
            self.seat.all_broken(&message);
        }
    }

    /// Ends everything at once.
    fn stop(&mut self) {
        self.process = None;
        self.seat.leave();
        if let Some(hand) = self.hand.take() {
            self.seat.end(&hand);
        }
    }
}

/// Rows as JSON lines, in parts of bounded size.
pub(super) fn json_lines(table: &Table) -> Vec<Vec<u8>> {
    const PART_BYTES: usize = 64 << 10;
    let mut parts = Vec::new();
    let mut part = Vec::new();
    for row in 0..table.rows() {
        let cells = table.row(row).into_iter().map(|(name, value)| (name, value.to_json()));
        let line = serde_json::Value::Object(cells.collect());
        part.extend_from_slice(line.to_string().as_bytes());
        part.push(b'\n');
        if part.len() >= PART_BYTES {
            parts.push(std::mem::take(&mut part));
        }
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}
