//! The jobs that start workers, as the hub knows them: how many there should be, and what became of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::Surroundings;
use super::launcher::crew::{Crew, CrewNews};
use super::launcher::script::Script;
use super::launcher::slurm::Slurm;
use super::launcher::ssh::Ssh;
use super::launcher::{JobEnd, JobNews, JobState, Launcher};
use super::listener::Invitation;
use crate::executor::seat::Wake;
use crate::executor::wire;
use crate::spec::model::{Access, Remote};

/// After a refusal, or a job that failed, the next is asked for after this time, or twice it, and so on.
const PAUSE: Duration = Duration::from_secs(5);

/// So many in a row may be lost, or refused, while no item ends.
const PATIENCE: usize = 50;

/// Jobs that start workers.
pub(super) struct Jobs {
    crew: Crew,
    news: Receiver<CrewNews>,
    /// What one is called: a job, a host.
    noun: &'static str,
    /// At most so many at once, each with so many workers.
    most: usize,
    workers: usize,
    /// Those that have not ended.
    live: BTreeMap<String, JobState>,
    /// Those of which workers have come.
    joined: BTreeSet<String>,
    /// Asked for, without an answer yet.
    asked: bool,
    launched: bool,
    /// Whether a worker ever came.
    worked: bool,
    /// How many were lost or failed since an item ended last.
    fruitless: usize,
    /// How many ended in a row before a worker of theirs came.
    barren: u32,
    not_before: Instant,
    /// The last that went wrong.
    words: String,
}

impl Jobs {
    /// Asks for none yet.
    pub(super) fn new(
        remote: &Remote,
        around: &Surroundings,
        invitation: &Invitation,
        wake: &Arc<Wake>,
    ) -> Result<Jobs, String> {
        let (launcher, most, workers) = launcher(remote, around, invitation);
        let failed = |e: std::io::Error| format!("cannot start a thread: {e}");
        let (crew, news) = Crew::start(launcher, wake.clone()).map_err(failed)?;
        Ok(Jobs {
            crew,
            news,
            noun: if matches!(remote.access, Access::Ssh(_)) { "host" } else { "job" },
            most,
            workers,
            live: BTreeMap::new(),
            joined: BTreeSet::new(),
            asked: false,
            launched: false,
            worked: false,
            fruitless: 0,
            barren: 0,
            not_before: Instant::now(),
            words: String::new(),
        })
    }

    /// There is work for so many workers.
    pub(super) fn want(&mut self, workers: usize) {
        let wanted = workers.div_ceil(self.workers).min(self.most);
        let more = wanted.saturating_sub(self.live.len());
        if more > 0 && !self.asked && Instant::now() >= self.not_before {
            self.asked = true;
            self.crew.want(more);
        }
    }

    /// A worker of that job has come.
    pub(super) fn join(&mut self, job: &str) {
        self.joined.insert(job.to_string());
        self.worked = true;
        self.barren = 0;
    }

    /// An item ended.
    pub(super) fn bore_fruit(&mut self) {
        if self.fruitless > 0 {
            self.fruitless = 0;
            self.words.clear();
        }
    }

    /// A worker is gone: something may have happened to its job.
    pub(super) fn look(&self) {
        self.crew.look();
    }

    /// Takes in what is new.
    ///
    /// # Errors
    /// Why no workers can be had.
    pub(super) fn hear(&mut self) -> Result<(), String> {
        while let Ok(news) = self.news.try_recv() {
            match news {
                CrewNews::Launched(jobs) => {
                    (self.asked, self.launched) = (false, true);
                    let waiting = || JobState::Pending { reason: String::new() };
                    self.live.extend(jobs.into_iter().map(|job| (job, waiting())));
                }
                CrewNews::Refused(words) if !self.launched => return Err(words),
                CrewNews::Refused(words) => {
                    self.asked = false;
                    self.miss(words)?;
                }
                CrewNews::Changed(news) => news.into_iter().try_for_each(|news| self.change(news))?,
                CrewNews::Unknown(words) => self.words = words,
            }
        }
        Ok(())
    }

    fn change(&mut self, JobNews { job, state }: JobNews) -> Result<(), String> {
        let JobState::Ended(end) = state else {
            self.live.insert(job, state);
            return Ok(());
        };
        self.live.remove(&job);
        self.barren += u32::from(!self.joined.contains(&job));
        match end {
            JobEnd::Finished if self.joined.remove(&job) => Ok(()),
            JobEnd::Finished => self.lose(&job, "ended before a worker of it came"),
            JobEnd::Failed(words) => self.lose(&job, &format!("failed: {words}")),
            JobEnd::Infrastructure(words) => self.lose(&job, &words),
            JobEnd::Cancelled => self.lose(&job, "was cancelled"),
        }
    }

    fn lose(&mut self, job: &str, how: &str) -> Result<(), String> {
        self.miss(format!("{} {job}: {how}", self.noun))
    }

    fn miss(&mut self, words: String) -> Result<(), String> {
        self.words = words;
        self.fruitless += 1;
        self.not_before = Instant::now() + PAUSE * 2u32.pow(self.barren.min(5));
        // Where no worker ever came, the first jobs tell enough.
        let hopeless = if self.worked { self.fruitless > PATIENCE } else { self.live.is_empty() };
        match hopeless {
            true => Err(format!("its jobs end, or are refused, before any item ends: {}", self.words)),
            false => Ok(()),
        }
    }

    /// How many run, and how many wait for what.
    pub(super) fn counts(&self) -> (usize, Vec<(String, usize)>) {
        let (mut running, mut pending) = (0, BTreeMap::<String, usize>::new());
        for state in self.live.values() {
            match state {
                // What Slurm says before it has looked.
                JobState::Pending { reason } if reason == "None" => *pending.entry(String::new()).or_default() += 1,
                JobState::Pending { reason } => *pending.entry(reason.clone()).or_default() += 1,
                JobState::Running { .. } => running += 1,
                JobState::Ended(_) => {}
            }
        }
        (running, pending.into_iter().collect())
    }

    /// The last that went wrong.
    pub(super) fn words(&self) -> Option<String> {
        Some(self.words.clone()).filter(|words| !words.is_empty())
    }

    /// Why there are no workers, as far as that is known.
    pub(super) fn why(&self) -> String {
        let (running, pending) = self.counts();
        let mut why: Vec<String> = pending
            .into_iter()
            .map(|(reason, n)| {
                let wait = if n == 1 { "1 job waits".to_string() } else { format!("{n} jobs wait") };
                if reason.is_empty() { wait } else { format!("{wait} ({reason})") }
            })
            .collect();
        if running > 0 {
            let run = if running == 1 { "1 job runs".to_string() } else { format!("{running} jobs run") };
            why.push(format!("{run}, but no worker of theirs connects to this machine (see `address`)"));
        }
        why.extend(self.words());
        why.join("; ")
    }

    /// Ends all of them.
    pub(super) fn end(mut self) {
        self.crew.end();
    }
}

/// Tries whether jobs could be started, in the engine's own words; `None`: it has none.
///
/// # Errors
/// Why they could not, in its words.
pub(super) fn check(remote: &Remote, around: &Surroundings) -> Option<Result<String, String>> {
    if matches!(remote.access, Access::Bridge { .. }) {
        return None;
    }
    let none = String::new;
    let nobody = Invitation { addresses: Vec::new(), port: 0, certificate: none(), token: none(), place: none() };
    Some(launcher(remote, around, &nobody).0.check())
}

fn launcher(remote: &Remote, around: &Surroundings, invitation: &Invitation) -> (Box<dyn Launcher>, usize, usize) {
    let (setup, workers) = match &remote.access {
        Access::Slurm(slurm) => (&slurm.setup, slurm.workers_per_job),
        Access::Ssh(ssh) => (&ssh.setup, ssh.workers_per_host),
        Access::Bridge { .. } => unreachable!("a bridge's engine starts its workers itself"),
    };
    let modules = wire::node_frame();
    let script = Script { setup, interpreter: remote.interpreter.as_deref(), modules: &modules, invitation, workers };
    match &remote.access {
        Access::Ssh(ssh) => (Box::new(Ssh::new(ssh, &script)), ssh.hosts.len(), workers),
        Access::Slurm(slurm) => {
            let logs = around.state_dir.join("jobs").join(&remote.name);
            (Box::new(Slurm::new(slurm.clone(), &around.workflow, &script, &logs)), slurm.jobs, workers)
        }
        Access::Bridge { .. } => unreachable!("as above"),
    }
}
