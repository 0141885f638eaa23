//! Who does what next: tasks wait in pools, workers take them; plain state, no threads.
//!
//! Three limits hold at once: the items in hand over all pools (`limit`), those of a job ([`Job::workers`]), and, in a
//! pool whose process died with several items in hand, one at a time until the culprit must have been alone.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::seat::Wake;
use super::slot::Slot;
use super::{CommandItem, Job, Mark, PoolKey, TaskId};
use crate::data::Table;

/// Whether tasks are taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// No new item.
    Draining,
    /// The end of all workers.
    Stopping,
}

/// A task that waits.
pub(super) struct Queued {
    pub id: TaskId,
    /// Its number in the order of submission; frames carry it.
    pub seq: u64,
    /// The job's number; frames carry it.
    pub job_id: u32,
    pub job: Arc<Job>,
    pub items: usize,
    pub marks: Vec<Mark>,
    pub payload: Payload,
}

/// What a worker is to be sent.
pub(super) enum Payload {
    /// A frame, encoded elsewhere meanwhile; and what it holds, where it may have to be sent in parts.
    Frame { frame: Receiver<Vec<u8>>, rows: Option<Rows> },
    /// The group of a reduce, and the command if it is one.
    Group { rows: Box<dyn Iterator<Item = Table> + Send>, args: Table, command: Option<CommandItem> },
}

/// The rows of a task for a Python function, as in [`super::TaskInput::Rows`].
pub(super) struct Rows {
    pub table: Table,
    pub args: Table,
    pub env: Table,
}

/// A worker of a pool.
pub(super) struct Member {
    pub id: u64,
    pub wake: Arc<Wake>,
    /// Whether it waits for a task.
    pub idle: bool,
    /// The slot of its process.
    pub slot: Option<Arc<Slot>>,
}

/// Tasks and workers of one kind of process.
pub(super) struct Pool {
    pub key: PoolKey,
    pub queue: VecDeque<Queued>,
    pub members: Vec<Member>,
    /// Tasks in hand.
    running: usize,
    /// Items that are still to be run one task at a time.
    solo: usize,
}

/// All pools.
pub(super) struct Queues {
    pub pools: Vec<Pool>,
    pub phase: Phase,
    /// The jobs by their numbers, and their tasks in hand.
    jobs: Vec<(Arc<Job>, usize)>,
    limit: usize,
    running: usize,
    next_seq: u64,
    next_member: u64,
}

impl Queues {
    pub(super) fn new(limit: usize) -> Queues {
        Queues {
            pools: Vec::new(),
            phase: Phase::Open,
            jobs: Vec::new(),
            limit: limit.max(1),
            running: 0,
            next_seq: 1,
            next_member: 1,
        }
    }

    /// The pool for that key, made if there is none.
    pub(super) fn pool(&mut self, key: &PoolKey) -> usize {
        self.pools.iter().position(|p| p.key == *key).unwrap_or_else(|| {
            let (queue, members) = (VecDeque::new(), Vec::new());
            self.pools.push(Pool { key: key.clone(), queue, members, running: 0, solo: 0 });
            self.pools.len() - 1
        })
    }

    /// The job's number.
    pub(super) fn job_id(&mut self, job: &Arc<Job>) -> u32 {
        let known = self.jobs.iter().position(|(j, _)| Arc::ptr_eq(j, job) || j == job);
        known.unwrap_or_else(|| {
            self.jobs.push((job.clone(), 0));
            self.jobs.len() - 1
        }) as u32
    }

    /// The next number of a task.
    pub(super) fn next_seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq - 1
    }

    /// A new worker of the pool.
    pub(super) fn join(&mut self, pool: usize, wake: Arc<Wake>) -> u64 {
        let id = self.next_member;
        self.next_member += 1;
        self.pools[pool].members.push(Member { id, wake, idle: false, slot: None });
        id
    }

    /// That worker is gone.
    pub(super) fn leave(&mut self, pool: usize, member: u64) {
        self.pools[pool].members.retain(|m| m.id != member);
    }

    /// That worker, unless it left.
    pub(super) fn member(&mut self, pool: usize, member: u64) -> Option<&mut Member> {
        self.pools[pool].members.iter_mut().find(|m| m.id == member)
    }

    /// How many more workers the pool should have.
    pub(super) fn vacancies(&self, pool: usize) -> usize {
        let p = &self.pools[pool];
        if p.queue.is_empty() || self.phase != Phase::Open {
            return 0;
        }
        let most = p.queue.iter().map(|q| q.job.workers).max().unwrap_or(1).clamp(1, self.limit);
        let wanted = if p.key.threads { 1 } else { most.min(p.running + p.queue.len()) };
        wanted.saturating_sub(p.members.len())
    }

    /// The most items that a process of the pool may have in hand.
    pub(super) fn lanes(&self, pool: usize) -> usize {
        if self.pools[pool].key.threads { self.limit } else { 1 }
    }

    /// A task of at most `room` items for a worker of the pool.
    pub(super) fn take(&mut self, pool: usize, room: usize) -> Option<Queued> {
        let at = self.eligible(pool).filter(|&at| self.pools[pool].queue[at].items <= room)?;
        if self.running + 1 == self.limit && self.is_older_elsewhere(pool, self.pools[pool].queue[at].seq) {
            return None;
        }
        let task = self.pools[pool].queue.remove(at)?;
        self.running += 1;
        self.pools[pool].running += 1;
        self.jobs[task.job_id as usize].1 += 1;
        Some(task)
    }

    /// Whether there is a task for a worker of the pool, however large.
    pub(super) fn has_task(&self, pool: usize) -> bool {
        self.eligible(pool).is_some()
    }

    /// Where the first task stands that could be started.
    fn eligible(&self, pool: usize) -> Option<usize> {
        let p = &self.pools[pool];
        if self.phase != Phase::Open || self.running >= self.limit || (p.solo > 0 && p.running > 0) {
            return None;
        }
        p.queue.iter().position(|q| self.jobs[q.job_id as usize].1 < q.job.workers.max(1))
    }

    /// Whether another pool has an older task and a worker that waits for it: the last place is that task's.
    fn is_older_elsewhere(&self, pool: usize, seq: u64) -> bool {
        let others = (0..self.pools.len()).filter(|&i| i != pool && self.pools[i].members.iter().any(|m| m.idle));
        others.filter_map(|i| self.eligible(i).map(|at| self.pools[i].queue[at].seq)).any(|other| other < seq)
    }

    /// A task taken is over, so many of its items ended.
    pub(super) fn finish(&mut self, pool: usize, job_id: u32, ended: usize) {
        self.running -= 1;
        self.pools[pool].running -= 1;
        self.pools[pool].solo = self.pools[pool].solo.saturating_sub(ended);
        self.jobs[job_id as usize].1 -= 1;
    }

    /// The next so many items of the pool run one task at a time.
    pub(super) fn go_solo(&mut self, pool: usize, items: usize) {
        self.pools[pool].solo = items;
    }

    /// The waiting workers for which there is something to do.
    pub(super) fn sleepers(&self) -> impl Iterator<Item = &Arc<Wake>> {
        let active = (0..self.pools.len()).filter(|&i| self.eligible(i).is_some());
        active.flat_map(|i| self.pools[i].members.iter().filter(|m| m.idle).map(|m| &m.wake))
    }

    /// Whether any other pool has work.
    pub(super) fn is_needed_elsewhere(&self, pool: usize) -> bool {
        self.pools.iter().enumerate().any(|(i, p)| i != pool && (p.running > 0 || !p.queue.is_empty()))
    }

    /// Takes all waiting tasks away.
    pub(super) fn clear(&mut self) -> Vec<Queued> {
        self.pools.iter_mut().flat_map(|p| std::mem::take(&mut p.queue)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Shape, Work};
    use super::*;
    use crate::spec::model::Stdout;

    fn job(stage: &str, workers: usize, threads: bool) -> Arc<Job> {
        Arc::new(Job {
            stage: stage.into(),
            work: Work::Command { stdout: Stdout::Ignore, ok_codes: vec![0] },
            shape: Shape::One,
            pool: PoolKey {
                threads,
                python: None,
                env: vec![("S".into(), stage.into())],
                cwd: "/".into(),
                ..PoolKey::default()
            },
            workers,
            timeout: None,
            files: Vec::new(),
        })
    }

    const ALL: usize = usize::MAX;

    fn push(queues: &mut Queues, job: &Arc<Job>) -> usize {
        let (pool, job_id, seq) = (queues.pool(&job.pool), queues.job_id(job), queues.next_seq());
        let payload = Payload::Frame { frame: crossbeam_channel::bounded(1).1, rows: None };
        let task = Queued { id: seq, seq, job_id, job: job.clone(), items: 3, marks: Vec::new(), payload };
        queues.pools[pool].queue.push_back(task);
        pool
    }

    fn sit(queues: &mut Queues, pool: usize) -> u64 {
        let member = queues.join(pool, Arc::new(Wake::new().unwrap()));
        queues.member(pool, member).unwrap().idle = true;
        member
    }

    #[test]
    fn a_job_never_has_more_in_hand_than_its_workers() {
        let mut queues = Queues::new(8);
        let job = job("a", 2, false);
        let pool = (0..4).map(|_| push(&mut queues, &job)).last().unwrap();
        assert_eq!(queues.vacancies(pool), 2);
        let taken: Vec<u64> = std::iter::from_fn(|| queues.take(pool, ALL)).map(|t| t.seq).collect();
        assert_eq!(taken, [1, 2]);
        queues.finish(pool, 0, 3);
        assert_eq!(queues.take(pool, ALL).unwrap().seq, 3);
    }

    #[test]
    fn no_more_workers_than_work() {
        let mut queues = Queues::new(8);
        let pool = push(&mut queues, &job("a", 4, false));
        assert_eq!(queues.vacancies(pool), 1);
        sit(&mut queues, pool);
        assert_eq!(queues.vacancies(pool), 0);
        push(&mut queues, &job("a", 4, false));
        assert_eq!(queues.vacancies(pool), 1);
        let threads = job("t", 4, true);
        let pool = push(&mut queues, &threads);
        push(&mut queues, &threads);
        assert_eq!((queues.vacancies(pool), queues.lanes(pool)), (1, 8));
    }

    #[test]
    fn the_last_place_is_for_the_oldest_task_that_a_worker_waits_for() {
        let mut queues = Queues::new(1);
        let (a, b) = (job("a", 1, false), job("b", 1, false));
        let pool_a = push(&mut queues, &a);
        let pool_b = push(&mut queues, &b);
        let member = sit(&mut queues, pool_a);
        assert!(queues.take(pool_b, ALL).is_none());
        queues.member(pool_a, member).unwrap().idle = false;
        assert_eq!(queues.take(pool_b, ALL).unwrap().seq, 2, "nobody waits for the older one");
        assert!(queues.take(pool_a, ALL).is_none(), "the limit holds over all pools");
    }

    #[test]
    fn after_a_death_with_several_in_hand_tasks_run_alone() {
        let mut queues = Queues::new(4);
        let job = job("t", 4, true);
        let pool = (0..4).map(|_| push(&mut queues, &job)).last().unwrap();
        queues.go_solo(pool, 4);
        assert!(queues.take(pool, ALL).is_some() && queues.take(pool, ALL).is_none());
        queues.finish(pool, 0, 3);
        assert!(queues.take(pool, ALL).is_some() && queues.take(pool, ALL).is_none());
        queues.finish(pool, 0, 3);
        assert!(queues.take(pool, ALL).is_some() && queues.take(pool, ALL).is_some());
    }

    #[test]
    fn a_task_waits_for_a_worker_that_has_room_for_it() {
        let mut queues = Queues::new(4);
        let pool = push(&mut queues, &job("a", 4, false));
        assert!(queues.take(pool, 2).is_none() && queues.has_task(pool));
        assert!(queues.take(pool, 3).is_some() && !queues.has_task(pool));
    }

    #[test]
    fn nothing_is_taken_while_draining() {
        let mut queues = Queues::new(4);
        let pool = push(&mut queues, &job("a", 1, false));
        queues.phase = Phase::Draining;
        assert!(queues.take(pool, ALL).is_none());
        assert_eq!(queues.clear().len(), 1);
    }
}
