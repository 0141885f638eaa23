//! A thread of its own that asks a launcher, whose answers may take seconds.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::{JobNews, JobState, Launcher};
use crate::executor::seat::Wake;

/// How soon after a change it looks again, and how seldom when nothing changes: batch systems ask not to be asked often.
const SOON: Duration = Duration::from_secs(1);
const SELDOM: Duration = Duration::from_secs(15);

/// What a crew tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::executor) enum CrewNews {
    /// Jobs were started.
    Launched(Vec<String>),
    /// Jobs were not started, in the engine's words.
    Refused(String),
    /// How jobs are that are not as they were. One that ended is told of once.
    Changed(Vec<JobNews>),
    /// It cannot be told how jobs are, in the engine's words.
    Unknown(String),
}

enum Order {
    Want(usize),
    Look,
    End,
}

/// Those who work for a run, elsewhere. When dropped it ends them.
pub(in crate::executor) struct Crew {
    orders: Sender<Order>,
    thread: Option<JoinHandle<()>>,
}

impl Crew {
    /// Starts none yet. `wake` is woken whenever there is news.
    pub(in crate::executor) fn start(
        launcher: Box<dyn Launcher>,
        wake: Arc<Wake>,
    ) -> io::Result<(Crew, Receiver<CrewNews>)> {
        // Neither is bounded: orders are few, and news are of jobs, which are few too.
        let ((orders, taken), (news, heard)) = (unbounded(), unbounded());
        let watch = Watch { launcher, news, wake, known: HashMap::new(), next: Instant::now(), pause: SOON };
        let thread = std::thread::Builder::new().name("crew".into()).spawn(move || watch.run(&taken))?;
        Ok((Crew { orders, thread: Some(thread) }, heard))
    }

    /// That many more jobs are wanted. Either they are launched, all at once, or refused.
    pub(in crate::executor) fn want(&self, jobs: usize) {
        self.order(Order::Want(jobs));
    }

    /// Something happened to a job: it is worth looking.
    pub(in crate::executor) fn look(&self) {
        self.order(Order::Look);
    }

    fn order(&self, order: Order) {
        // Its thread ends only at our order, or with a panic, after which there is no news.
        let _ = self.orders.send(order);
    }

    /// Ends all jobs; returns when that was asked of the engine.
    pub(in crate::executor) fn end(&mut self) {
        self.order(Order::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the thread has.
struct Watch {
    launcher: Box<dyn Launcher>,
    news: Sender<CrewNews>,
    wake: Arc<Wake>,
    /// Jobs that have not ended, as they were when last looked at.
    known: HashMap<String, Option<JobState>>,
    /// When it looks again, and how long after that.
    next: Instant,
    pause: Duration,
}

impl Watch {
    fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let order = match self.known.is_empty() {
                true => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => orders.recv_deadline(self.next),
            };
            match order {
                Ok(Order::Want(jobs)) => self.launch(jobs),
                Ok(Order::Look) => self.look_soon(),
                Err(RecvTimeoutError::Timeout) => self.look(),
                Ok(Order::End) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.launcher.cancel();
    }

    /// The next looks are further apart.
    fn rest(&mut self) {
        self.pause = (self.pause * 3 / 2).min(SELDOM);
    }

    fn look_soon(&mut self) {
        self.pause = SOON;
        self.next = self.next.min(Instant::now() + SOON);
    }

    fn tell(&self, news: CrewNews) {
        // Whoever does not listen any more will end this crew.
        let _ = self.news.send(news);
        self.wake.wake();
    }

    fn launch(&mut self, jobs: usize) {
        match self.launcher.launch(jobs) {
            Ok(jobs) => {
                self.known.extend(jobs.iter().map(|job| (job.clone(), None)));
                self.look_soon();
                self.tell(CrewNews::Launched(jobs));
            }
            Err(words) => self.tell(CrewNews::Refused(words)),
        }
    }

    fn look(&mut self) {
        let looked = self.launcher.look();
        self.next = Instant::now() + self.pause;
        let mut news = match looked {
            Ok(news) => news,
            Err(words) => {
                self.rest();
                return self.tell(CrewNews::Unknown(words));
            }
        };
        news.retain(|JobNews { job, state }| self.known.get(job).and_then(Option::as_ref) != Some(state));
        for JobNews { job, state } in &news {
            match state {
                JobState::Ended(_) => self.known.remove(job),
                state => self.known.insert(job.clone(), Some(state.clone())),
            };
        }
        match news.is_empty() {
            true => self.rest(),
            false => self.tell(CrewNews::Changed(news)),
        }
    }
}
