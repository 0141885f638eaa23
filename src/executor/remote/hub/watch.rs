//! What the hub does as time goes by.

use std::time::{Duration, Instant};

use super::{Hub, Known, MARGIN, TICK, Waiting};
use crate::executor::queue::Phase;
use crate::executor::remote::frames;
use crate::executor::remote::jobs::Jobs;
use crate::executor::remote::peer::{Peer, Role};

/// A keeper without work leaves after this time.
const IDLE: Duration = Duration::from_secs(20);

impl Hub {
    /// Looks after time.
    pub(super) fn watch(&mut self) {
        if self.watched.elapsed() < TICK {
            return;
        }
        self.watched = Instant::now();
        self.peers.iter_mut().for_each(Peer::watch);
        self.end_in_time();
        self.dismiss();
        let waiting = self.queue.len();
        let work = self.work();
        if let Some(jobs) = self.workers.as_mut().filter(|_| self.phase == Phase::Open) {
            jobs.want(work);
        }
        let able = self.peers.iter().any(|peer| peer.takes_tasks() && peer.slots() > 0);
        if able || waiting == 0 || self.phase != Phase::Open {
            self.starved = None;
        } else if self.starved.get_or_insert_with(Instant::now).elapsed() >= self.remote.start_timeout {
            let limit = self.remote.start_timeout;
            let reached = self.peers.iter().any(|peer| peer.role == Role::Bridge);
            let unreached = (self.bridge.is_some() && !reached).then(|| "it has not answered yet".to_string());
            let why = self.workers.as_ref().map(Jobs::why).or(self.news.note.clone()).or(unreached);
            let why = why.filter(|why| !why.is_empty());
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            self.give_up(&format!("no worker came within {limit:?} (start_timeout){why}"));
        }
    }

    /// How many workers could have something to do now.
    fn work(&self) -> usize {
        let of_job = |(number, known): (usize, &Known)| {
            let ready = |waiting: &&Waiting| waiting.is_ready() && waiting.chunk.hand.job_id as usize == number;
            let waiting = self.queue.iter().filter(ready).count();
            (waiting + known.in_hand).min(known.job.workers)
        };
        self.jobs.iter().enumerate().map(of_job).sum()
    }

    /// Workers whose end is near finish the item in hand and go.
    fn end_in_time(&mut self) {
        for peer in self.peers.iter_mut().filter(|peer| peer.role == Role::Keeper && !peer.stopped) {
            let Some(left) = peer.time_left() else { continue };
            let longest = peer.hand.first().map_or(0.0, |s| self.jobs[s.chunk.hand.job_id as usize].longest);
            if left <= longest + MARGIN {
                (peer.stopped, peer.leaving) = (true, true);
                peer.push(frames::stop());
                peer.push(frames::quit());
            }
        }
    }

    /// Keepers that have had nothing to do for a while go, so that their jobs end: there is nothing, or nothing that
    /// they could take in the time that is left to them, and others will.
    fn dismiss(&mut self) {
        for peer in self.peers.iter_mut().filter(|peer| peer.role == Role::Keeper && peer.takes_tasks()) {
            if !peer.hand.is_empty() {
                peer.active = Instant::now();
            } else if peer.active.elapsed() >= IDLE {
                peer.leaving = true;
                peer.push(frames::quit());
            }
        }
    }
}
