//! What becomes of a chunk that has ended, one way or another.

use super::{Body, Hub, Waiting};
use crate::data::{Failure, FailureKind};
use crate::executor::chunk::Chunk;
use crate::executor::command::STRIKES;
use crate::executor::ending::{in_words, over, over_memory};
use crate::executor::queue::Phase;
use crate::executor::remote::frames::{How, TaskEnd};
use crate::executor::remote::peer::Sent;
use crate::executor::seat::Hand;
use crate::executor::slot::InHand;
use crate::executor::{Outcomes, Report};

/// An item that was alone in hand of so many workers that were lost is not sent once more.
const MOST_LOSSES: u32 = 3;

/// So many items may be lost one after the other where no other has ever ended.
const MOST_LOST: u32 = 2;

impl Hub {
    /// A chunk, or a part of one, has ended.
    pub(super) fn ended(&mut self, sent: Sent, end: TaskEnd) {
        let Sent { mut chunk, at, .. } = sent;
        let known = &mut self.jobs[chunk.hand.job_id as usize];
        known.in_hand -= 1;
        match end.how {
            How::Done => {
                known.chunk = Some(at.elapsed());
                chunk.keep_all();
                self.go_on(chunk);
            }
            How::Refused => self.again(chunk),
            How::Lost => self.lose(chunk, &end.text),
            How::Broken => self.broken(&chunk.hand, end.text),
            How::Died => self.blame(chunk, &end),
            How::Expired => self.expire(chunk, &end),
            How::Silent => {
                let how = "stopped answering (descriptor 3 is not an item's to close or to write to)";
                self.suspect(chunk, how, &end);
            }
        }
    }

    /// The next part of a chunk, or its end.
    fn go_on(&mut self, chunk: Chunk) {
        match chunk.has_parts() && self.phase == Phase::Open {
            true => self.queue.push_front(Waiting { chunk, body: Body::Part }),
            false => self.finish(&chunk),
        }
    }

    /// What is left goes to another.
    pub(super) fn again(&mut self, mut chunk: Chunk) {
        chunk.keep_all();
        self.go_on(chunk);
    }

    /// The worker died: whose fault was that?
    fn blame(&mut self, mut chunk: Chunk, end: &TaskEnd) {
        let memory = chunk.hand.job.pool.memory.filter(|_| end.over_memory);
        match chunk.placed(end.in_hand) {
            InHand::Item(item) => {
                let failure = match memory {
                    Some(limit) => over_memory(limit, end.peak_kib),
                    None => crash(end.status),
                };
                self.fail(&mut chunk, item, Failure { output: end.text.clone(), ..failure }, end.peak_kib);
                self.again(chunk);
            }
            InHand::Several => {
                chunk.divide();
                self.go_on(chunk);
            }
            InHand::Nothing if end.begun as usize > chunk.reported() => {
                self.suspect(chunk, &format!("{} after the item", in_words(end.status)), end);
            }
            InHand::Nothing => {
                let how = memory.map_or_else(|| in_words(end.status), |limit| over_memory(limit, end.peak_kib).message);
                self.strike(chunk, &how, &end.text);
            }
        }
    }

    /// The item in hand took longer than its limit.
    fn expire(&mut self, mut chunk: Chunk, end: &TaskEnd) {
        let limit = chunk.hand.job.timeout.unwrap_or_default();
        match chunk.placed(end.in_hand) {
            InHand::Item(item) => {
                self.fail(&mut chunk, item, Failure { output: end.text.clone(), ..over(limit) }, end.peak_kib);
                self.again(chunk);
            }
            InHand::Several => {
                chunk.divide();
                self.go_on(chunk);
            }
            InHand::Nothing => self.again(chunk),
        }
    }

    fn fail(&self, chunk: &mut Chunk, item: u32, failure: Failure, peak_kib: u32) {
        let usage = chunk.usage(peak_kib);
        if let Some(outcomes) = chunk.hand.tally.fail(item, failure, usage) {
            self.report_part(chunk, outcomes);
        }
    }

    fn report_part(&self, chunk: &Chunk, outcomes: Outcomes) {
        let _ = self.reports.send(Report::Part { task: chunk.hand.task, outcomes });
    }

    /// The worker, not its keeper, came to an end that some item brought about: as on this machine, what is left goes
    /// on in halves.
    fn suspect(&mut self, mut chunk: Chunk, how: &str, end: &TaskEnd) {
        if let Some(item) = chunk.lose() {
            let failure = Failure::new(FailureKind::Crash, format!("its worker {how}"));
            self.fail(&mut chunk, item, Failure { output: end.text.clone(), ..failure }, end.peak_kib);
            return self.again(chunk);
        }
        self.go_on(chunk);
    }

    /// A chunk's worker is lost, and what it had in hand with it.
    pub(super) fn lose(&mut self, mut chunk: Chunk, how: &str) {
        let left = chunk.left();
        if let [only] = left[..] {
            let losses = chunk.hand.marks.get(only as usize).map(|mark| self.losses.entry(*mark).or_default());
            let losses = losses.map_or(1, |n| {
                *n += 1;
                *n
            });
            if losses >= MOST_LOSSES && !self.worked && self.lost >= MOST_LOST {
                self.give_up(&format!("its workers are lost before any item ends: {how}"));
            } else if losses >= MOST_LOSSES {
                self.lost += 1;
                let message = format!("its worker was lost {losses} times while it had nothing else in hand: {how}");
                self.fail(&mut chunk, only, Failure::new(FailureKind::Lost, message), 0);
            }
            return self.again(chunk);
        }
        chunk.divide();
        self.go_on(chunk);
    }

    /// A death that is no item's fault.
    fn strike(&mut self, chunk: Chunk, how: &str, tail: &str) {
        let pool = self.jobs[chunk.hand.job_id as usize].pool;
        let (strikes, words) = self.strikes.entry(pool).or_default();
        *strikes += 1;
        let tail = if tail.trim().is_empty() { String::new() } else { format!("\n{}", tail.trim_end()) };
        *words = format!("the worker {how}, {strikes} times before any item could run{tail}");
        match *strikes >= STRIKES {
            true => {
                let words = words.clone();
                self.broken(&chunk.hand, words);
            }
            false => self.again(chunk),
        }
    }

    pub(super) fn finish(&self, chunk: &Chunk) {
        self.end(&chunk.hand);
    }

    /// The task is over; what was not reported is unfinished.
    pub(super) fn end(&self, hand: &Hand) {
        let _ = self.reports.send(Report::End { task: hand.task, unfinished: hand.tally.unfinished() });
    }

    fn broken(&self, hand: &Hand, message: String) {
        let _ = self.reports.send(Report::Broken { task: hand.task, stage: hand.job.stage.clone(), message });
    }

    /// What a peer has in hand cannot run.
    pub(super) fn break_all(&mut self, at: usize, message: &str) {
        for sent in std::mem::take(&mut self.peers[at].hand) {
            self.jobs[sent.chunk.hand.job_id as usize].in_hand -= 1;
            self.broken(&sent.chunk.hand, message.to_string());
        }
    }
}

fn crash(status: i32) -> Failure {
    let how = in_words(status);
    let how = if libc::WIFEXITED(status) { format!("{how} while the item was running") } else { how };
    Failure::new(FailureKind::Crash, how)
}
