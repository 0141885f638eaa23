//! One engine in a run: what waits for its workers, who they are, and what they have in hand.
//!
//! Peers only do what they are told; here it is decided which chunk goes where, and what becomes of a chunk whose worker
//! died (as on this machine: the item in hand is to blame, or the chunk is halved) or was lost (nobody is to blame: it
//! goes to another, in halves, so that an item that takes its worker along each time ends up alone).

mod judge;
mod watch;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::body::{body_of, form_of};
use super::bridge::Bridge;
use super::frames::{self, Capacity, Form, FromPeer, Hello, TaskHead};
use super::jobs::Jobs;
use super::listener::Listener;
use super::peer::{CLOSED, Peer, Role, Sent};
use super::upload::Uploads;
use super::{EngineNews, Order, Surroundings, absolute};
use crate::executor::chunk::{Chunk, Content};
use crate::executor::outcome::outcomes;
use crate::executor::queue::{Phase, Rows};
use crate::executor::seat::{Hand, Wake};
use crate::executor::tally::Tally;
use crate::executor::wire::{self, FromWorker};
use crate::executor::{Job, Mark, PoolKey, Report, Task, TaskInput};
use crate::spec::model::{Access, Remote};

/// How often time is looked at.
const TICK: Duration = Duration::from_millis(200);
/// A keeper gets a second chunk ahead of time where chunks are shorter than this.
const SHORT: Duration = Duration::from_secs(1);
/// Before its engine ends it, a worker takes nothing that may take longer than is left but for this many seconds.
const MARGIN: f64 = 5.0;

/// A chunk that waits.
struct Waiting {
    chunk: Chunk,
    body: Body,
}

/// What is sent of a chunk.
enum Body {
    /// All of it, encoded elsewhere meanwhile.
    Coming(Form, Receiver<Vec<u8>>),
    /// The next part.
    Part,
}

/// A job, and what was learned of it.
struct Known {
    job: Arc<Job>,
    pool: u32,
    /// Chunks in hand.
    in_hand: usize,
    /// How long a chunk took last.
    chunk: Option<Duration>,
    /// The longest that an item took, in seconds.
    longest: f64,
}

/// The hub of an engine.
pub(super) struct Hub {
    remote: Arc<Remote>,
    around: Surroundings,
    reports: Sender<Report>,
    orders: Receiver<Order>,
    wake: Arc<Wake>,
    phase: Phase,
    queue: VecDeque<Waiting>,
    pools: Vec<PoolKey>,
    jobs: Vec<Known>,
    last_seq: u64,
    peers: Vec<Peer>,
    uploads: Uploads,
    listener: Option<Listener>,
    bridge: Option<Bridge>,
    workers: Option<Jobs>,
    /// How often a worker died before any item, by pool.
    strikes: HashMap<u32, (u32, String)>,
    /// How often a worker was lost with nothing but that item in hand.
    losses: HashMap<Mark, u32>,
    /// Whether anything ever came back.
    worked: bool,
    /// How many items were lost for good.
    lost: u32,
    /// Since when there is work, and nobody to do it.
    starved: Option<Instant>,
    news: EngineNews,
    told: Option<EngineNews>,
    watched: Instant,
}

impl Hub {
    pub(super) fn new(
        remote: Arc<Remote>,
        around: Surroundings,
        reports: Sender<Report>,
        orders: Receiver<Order>,
        wake: Arc<Wake>,
    ) -> Hub {
        let news = EngineNews {
            name: remote.name.clone(),
            kind: remote.kind.name().to_string(),
            slots: remote.workers_at_most().unwrap_or(1),
            ..EngineNews::default()
        };
        Hub {
            remote,
            around,
            reports,
            orders,
            wake,
            phase: Phase::Open,
            queue: VecDeque::new(),
            pools: Vec::new(),
            jobs: Vec::new(),
            last_seq: 0,
            peers: Vec::new(),
            uploads: Uploads::default(),
            listener: None,
            bridge: None,
            workers: None,
            strikes: HashMap::new(),
            losses: HashMap::new(),
            worked: false,
            lost: 0,
            starved: None,
            news,
            told: None,
            watched: Instant::now(),
        }
    }

    /// The life of the hub.
    pub(super) fn run(mut self) {
        if let Err(message) = self.open() {
            self.give_up(&message);
        }
        while self.phase != Phase::Stopping {
            self.take_orders();
            self.give();
            let speaking = self.wait();
            self.listen(&speaking);
            self.hear_of_jobs();
            self.bury();
            self.watch();
            self.tell();
        }
        self.close();
    }

    /// Opens the ways to workers.
    fn open(&mut self) -> Result<(), String> {
        self.uploads = Uploads::read(&self.around.dir, &absolute(&self.around.dir, &self.remote.upload))?;
        let listener = Listener::open(self.remote.address.as_deref());
        let listener = listener.map_err(|e| format!("cannot listen for workers: {e}"))?;
        match &self.remote.access {
            Access::Bridge { .. } => self.start_bridge(&listener)?,
            Access::Slurm(_) | Access::Ssh(_) => {
                self.workers = Some(Jobs::new(&self.remote, &self.around, listener.invitation(), &self.wake)?);
            }
        }
        self.listener = Some(listener);
        Ok(())
    }

    fn start_bridge(&mut self, listener: &Listener) -> Result<(), String> {
        let (bridge, peer) = Bridge::start(&self.remote, &self.around)?;
        self.bridge = Some(bridge);
        self.peers.extend(peer.map(|peer| with_runtime(peer, listener)));
        Ok(())
    }

    fn take_orders(&mut self) {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Submit(task) => self.submit(*task),
                Order::Drain => self.drain(),
                Order::Stop => self.phase = Phase::Stopping,
            }
        }
    }

    fn submit(&mut self, task: Task) {
        let Task { id, job, input, marks, expected } = task;
        let items = input.len();
        let tally = Tally::new(items);
        let job_id = self.job(&job);
        let known = &mut self.jobs[job_id as usize];
        known.longest = known.longest.max(expected.unwrap_or_default().as_secs_f64());
        let hand = Hand { task: id, seq: self.next_seq(), job_id, job, tally, marks };
        if self.phase != Phase::Open || items == 0 {
            return self.end(&hand);
        }
        let (content, body) = self.encode(&hand, input);
        self.queue.push_back(Waiting { chunk: Chunk::new(hand, content), body });
    }

    fn next_seq(&mut self) -> u64 {
        self.last_seq += 1;
        self.last_seq
    }

    /// The job's number.
    fn job(&mut self, job: &Arc<Job>) -> u32 {
        let known = self.jobs.iter().position(|known| Arc::ptr_eq(&known.job, job) || known.job == *job);
        let number = known.unwrap_or_else(|| {
            let pool = self.pool(&job.pool);
            self.jobs.push(Known { job: job.clone(), pool, in_hand: 0, chunk: None, longest: 0.0 });
            self.jobs.len() - 1
        });
        number as u32
    }

    fn pool(&mut self, key: &PoolKey) -> u32 {
        let known = self.pools.iter().position(|known| known == key);
        let number = known.unwrap_or_else(|| {
            self.uploads.share(key);
            self.pools.push(key.clone());
            self.pools.len() - 1
        });
        number as u32
    }

    /// Has the body of a whole task made; and what it can be made of again.
    fn encode(&self, hand: &Hand, input: TaskInput) -> (Option<Content>, Body) {
        let content = match &input {
            TaskInput::Rows { table, args, env } => {
                Some(Content::Rows(Rows { table: table.clone(), args: args.clone(), env: env.clone() }))
            }
            TaskInput::Commands(items) => Some(Content::Commands(items.clone())),
            TaskInput::Group { .. } => None,
        };
        let (sender, coming) = crossbeam_channel::bounded(1);
        let (seq, job_id, job, wake) = (hand.seq, hand.job_id, hand.job.clone(), self.wake.clone());
        let form = form_of(&input);
        let make = move || {
            // Nobody waits for it any more when it cannot be sent.
            let _ = sender.send(body_of(seq, job_id, &job, input));
            wake.wake();
        };
        match content.is_some() {
            true => rayon::spawn(make),
            // Its rows come from a thread that may have to wait for others.
            false => drop(std::thread::spawn(make)),
        }
        (content, Body::Coming(form, coming))
    }

    /// Hands out what waits to whoever has room.
    fn give(&mut self) {
        if self.peers.iter().all(|peer| peer.hand.len() >= 2 * peer.slots()) {
            return;
        }
        let mut at = 0;
        while self.phase == Phase::Open && at < self.queue.len() {
            let known = &self.jobs[self.queue[at].chunk.hand.job_id as usize];
            // Who may use all workers may also have chunks wait there.
            let may = known.job.workers >= self.news.slots || known.in_hand < known.job.workers;
            let place = (may && self.queue[at].is_ready()).then(|| self.place(known)).flatten();
            match place.and_then(|peer| Some((peer, self.queue.remove(at)?))) {
                Some((peer, waiting)) => self.send(peer, waiting),
                None => at += 1,
            }
        }
    }

    /// The peer with the most room for a chunk of this job.
    fn place(&self, known: &Known) -> Option<usize> {
        let ahead = known.chunk.is_some_and(|chunk| chunk < SHORT);
        let room = |peer: &Peer| {
            let depth = match peer.role {
                Role::Bridge => 2 * peer.slots(),
                _ if ahead => 2,
                _ => 1,
            };
            // One that has done nothing yet has all the time that a worker can have.
            let in_time = !peer.worked || peer.time_left().is_none_or(|left| left > known.longest + MARGIN);
            peer.takes_tasks() && in_time && peer.hand.len() < depth
        };
        let places = (0..self.peers.len()).filter(|&at| room(&self.peers[at]));
        places.min_by_key(|&at| (self.peers[at].hand.len(), self.peers[at].last_pool != Some(known.pool)))
    }

    fn send(&mut self, at: usize, waiting: Waiting) {
        let Waiting { mut chunk, body } = waiting;
        let (form, body) = match body {
            Body::Coming(form, coming) => (form, coming.recv().unwrap_or_default()),
            Body::Part => {
                chunk.hand.seq = self.next_seq();
                let Some(part) = chunk.next_part() else { return self.finish(&chunk) };
                (form_of(&part), body_of(chunk.hand.seq, chunk.hand.job_id, &chunk.hand.job, part))
            }
        };
        let hand = &chunk.hand;
        let known = &mut self.jobs[hand.job_id as usize];
        known.in_hand += 1;
        let peer = &mut self.peers[at];
        if peer.lacks_pool(known.pool) {
            let key = &self.pools[known.pool as usize];
            peer.push(frames::pool(known.pool, key, &self.uploads.modules));
        }
        if peer.lacks_job(hand.job_id) {
            peer.push(frames::job(hand.job_id, known.pool, &hand.job));
        }
        let timeout = hand.job.timeout.map_or(0, |limit| u32::try_from(limit.as_millis()).unwrap_or(u32::MAX).max(1));
        let items = chunk.left().len() as u32;
        let head = TaskHead { seq: hand.seq, job: hand.job_id, pool: known.pool, items, timeout, form };
        frames::task(&head, &body).into_iter().for_each(|frame| peer.push(frame));
        peer.channel.flush();
        (peer.last_pool, peer.worked) = (Some(known.pool), true);
        let _ = self.reports.send(Report::Started { task: hand.task });
        peer.hand.push(Sent { chunk, at: Instant::now(), started: false });
    }

    /// Waits until somebody has something to say: which peers.
    fn wait(&mut self) -> Vec<usize> {
        let reading = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut fds = vec![reading(self.wake.fd())];
        fds.extend(self.listener.iter().map(|l| reading(l.fd())));
        fds.extend(self.bridge.iter_mut().flat_map(Bridge::fds).map(reading));
        for peer in &self.peers {
            let mut events = PollFlags::IN;
            events.set(PollFlags::OUT, peer.channel.is_sending());
            fds.push(PollFd::from_borrowed_fd(peer.channel.socket(), events));
        }
        // An interrupted wait is one that ended early.
        let _ = poll(&mut fds, Timespec::try_from(TICK).ok().as_ref());
        let peers = &fds[fds.len() - self.peers.len()..];
        let speaking = peers.iter().enumerate().filter(|(_, fd)| !fd.revents().is_empty()).map(|(at, _)| at).collect();
        if !fds[0].revents().is_empty() {
            self.wake.clear();
        }
        speaking
    }

    /// Takes in what peers have to say.
    fn listen(&mut self, speaking: &[usize]) {
        let mut came = Vec::new();
        if let Some(listener) = &mut self.listener {
            came.extend(std::iter::from_fn(|| listener.accept()).map(|channel| Peer::new(channel, true)));
        }
        self.bridge.iter_mut().for_each(Bridge::listen);
        if let (Some(bridge), Some(listener)) = (&self.bridge, &self.listener) {
            let peers = std::iter::from_fn(|| bridge.accept(&self.remote, &self.around));
            came.extend(peers.map(|peer| with_runtime(peer, listener)));
        }
        self.peers.extend(came);
        for &at in speaking {
            while self.peers[at].channel.fill() {
                while let Some((kind, payload)) = self.peers[at].channel.next_frame() {
                    self.hear(at, kind, &payload);
                }
            }
            let peer = &mut self.peers[at];
            peer.channel.flush();
            if peer.channel.ended() {
                peer.gone.get_or_insert_with(|| CLOSED.into());
            }
        }
    }

    fn hear(&mut self, at: usize, kind: u8, payload: &[u8]) {
        let peer = &mut self.peers[at];
        peer.is_alive();
        let Ok(message) = FromPeer::read(kind, payload) else {
            peer.gone.get_or_insert_with(|| "sent what is no message".into());
            return;
        };
        match message {
            FromPeer::Hello(hello) => self.welcome(at, hello),
            _ if peer.role == Role::Guest => {
                if let FromPeer::Trouble(text) = message {
                    peer.gone.get_or_insert(text);
                }
            }
            FromPeer::Capacity(capacity) => self.peers[at].capacity = capacity,
            FromPeer::Started(seq) => {
                if let Some(sent) = peer.sent(seq) {
                    (sent.started, sent.at) = (true, Instant::now());
                }
            }
            FromPeer::Part { seq, kind, payload } => self.part(at, seq, kind, &payload),
            FromPeer::End { seq, end } => {
                if let Some(sent) = peer.take(seq) {
                    self.ended(sent, end);
                }
            }
            FromPeer::Need(digest) => match self.uploads.content(&digest) {
                Ok(content) => peer.push(frames::upload(&digest, &content)),
                Err(message) => self.break_all(at, &message),
            },
            FromPeer::Info(text) => self.news.note = Some(text),
            FromPeer::Trouble(text) => {
                peer.gone.get_or_insert(text);
            }
            FromPeer::Beat => {}
        }
    }

    /// Somebody says who it is.
    fn welcome(&mut self, at: usize, hello: Hello) {
        let peer = &mut self.peers[at];
        let known = !peer.asks_token || self.listener.as_ref().is_some_and(|l| l.is_token(&hello.token));
        let role = match hello.role.as_str() {
            "keeper" => Role::Keeper,
            "bridge" => Role::Bridge,
            "leash" => Role::Leash,
            _ => Role::Guest,
        };
        if !known || role == Role::Guest || hello.protocol != frames::PROTOCOL {
            peer.gone = Some("is a stranger".into());
            return;
        }
        peer.channel.welcome();
        peer.role = role;
        peer.active = Instant::now();
        match role {
            Role::Keeper => peer.push(frames::runtime(None)),
            Role::Bridge => peer.capacity = Capacity { slots: hello.slots, ..Capacity::default() },
            Role::Leash if self.phase != Phase::Open => peer.push(frames::stop()),
            Role::Leash | Role::Guest => {}
        }
        if let (Role::Keeper, Some(jobs), Some(job)) = (role, &mut self.workers, &hello.job) {
            jobs.join(job);
        }
        peer.hello = Some(hello);
    }

    fn part(&mut self, at: usize, seq: u64, kind: u8, payload: &[u8]) {
        let peer = &mut self.peers[at];
        let Some(sent) = peer.sent(seq) else { return };
        let job = sent.chunk.hand.job.clone();
        let got = match kind {
            wire::kind::PART => match wire::decode(kind, payload, &job) {
                Ok(FromWorker::Part { outcomes, .. }) => Some(outcomes),
                _ => None,
            },
            b'C' => frames::command_results(payload).ok().map(|results| outcomes(&job, results)),
            _ => None,
        };
        let Some(got) = got else {
            peer.gone.get_or_insert_with(|| "sent what is no result".into());
            return;
        };
        let known = &mut self.jobs[sent.chunk.hand.job_id as usize];
        let longest = got.usage.iter().map(|used| used.seconds()).fold(0.0, f64::max);
        known.longest = known.longest.max(longest);
        self.strikes.remove(&known.pool);
        self.worked = true;
        self.workers.iter_mut().for_each(Jobs::bore_fruit);
        let task = sent.chunk.hand.task;
        let outcomes = sent.chunk.accept(got);
        let _ = self.reports.send(Report::Part { task, outcomes });
    }

    /// Takes leave of peers that are gone: what they had in hand goes to others.
    fn bury(&mut self) {
        let mut at = 0;
        while at < self.peers.len() {
            if self.peers[at].gone.is_none() {
                at += 1;
                continue;
            }
            let peer = self.peers.swap_remove(at);
            let how = match peer.time_left() {
                Some(left) if left <= MARGIN => "reached the end of its job's time".to_string(),
                _ => peer.gone.clone().unwrap_or_default(),
            };
            // Those behind the first had not begun.
            let loses = peer.role == Role::Keeper;
            self.workers.iter().filter(|_| loses).for_each(Jobs::look);
            for (number, sent) in peer.hand.into_iter().enumerate().rev() {
                self.jobs[sent.chunk.hand.job_id as usize].in_hand -= 1;
                match loses && number == 0 && sent.started {
                    true => self.lose(sent.chunk, &format!("it {how}")),
                    false => self.again(sent.chunk),
                }
            }
            let was_bridge = peer.role == Role::Bridge || (peer.role == Role::Guest && !peer.asks_token);
            if was_bridge {
                self.replace_bridge(&how, peer.role == Role::Bridge);
            }
        }
        let talks = self.peers.iter().any(|peer| peer.role == Role::Bridge || !peer.asks_token);
        if !talks && self.bridge.as_ref().is_some_and(Bridge::has_ended) {
            self.replace_bridge(CLOSED, false);
        }
    }

    /// The bridge is gone: another one takes its place, if it had ever worked.
    fn replace_bridge(&mut self, how: &str, worked: bool) {
        let Some(mut bridge) = self.bridge.take_if(|_| self.phase == Phase::Open) else { return };
        bridge.wait_for_words();
        let how = bridge.last_words(how);
        let starts = bridge.starts;
        bridge.end(None);
        let Some(listener) = self.listener.take().filter(|_| worked && starts < Bridge::MOST_STARTS) else {
            return self.give_up(&how);
        };
        let started = self.start_bridge(&listener);
        self.listener = Some(listener);
        self.bridge.iter_mut().for_each(|bridge| bridge.starts = starts + 1);
        self.news.note = Some(how);
        if let Err(message) = started {
            self.give_up(&message);
        }
    }

    /// News of jobs that are to start workers.
    fn hear_of_jobs(&mut self) {
        let Some(jobs) = self.workers.as_mut().filter(|_| self.phase == Phase::Open) else { return };
        let heard = jobs.hear();
        (self.news.running, self.news.pending) = jobs.counts();
        match heard {
            Ok(()) => self.news.note = jobs.words(),
            Err(message) => self.give_up(&message),
        }
    }

    /// Tells what the engine has, when that has changed.
    fn tell(&mut self) {
        let keepers = self.peers.iter().filter(|peer| peer.role == Role::Keeper && !peer.leaving).count();
        match self.peers.iter().find(|peer| peer.role == Role::Bridge) {
            Some(bridge) => {
                let Capacity { slots, workers, dashboard, note } = bridge.capacity.clone();
                (self.news.slots, self.news.workers, self.news.dashboard) = (slots.max(1), workers, dashboard);
                self.news.note = note.or(self.news.note.take());
            }
            None => self.news.workers = keepers,
        }
        if self.told.as_ref() != Some(&self.news) {
            self.told = Some(self.news.clone());
            let _ = self.reports.send(Report::Engine(self.news.clone()));
        }
    }

    /// Nothing can run here, or not any more.
    fn give_up(&mut self, message: &str) {
        let _ = self.reports.send(Report::Unavailable { engine: self.remote.name.clone(), message: message.into() });
        self.drain();
    }

    /// Takes up nothing new; what is in hand finishes.
    fn drain(&mut self) {
        if self.phase != Phase::Open {
            return;
        }
        self.phase = Phase::Draining;
        for waiting in std::mem::take(&mut self.queue) {
            self.finish(&waiting.chunk);
        }
        for peer in self.peers.iter_mut().filter(|peer| peer.role != Role::Guest) {
            peer.stopped = true;
            peer.push(frames::stop());
        }
    }

    /// Ends everything; returns when it is gone.
    fn close(mut self) {
        for waiting in &self.queue {
            self.end(&waiting.chunk.hand);
        }
        for sent in self.peers.iter().flat_map(|peer| &peer.hand) {
            self.end(&sent.chunk.hand);
        }
        // The end of its connection ends a keeper, with whatever it started; a bridge has to clear up.
        self.listener = None;
        let bridge = self.peers.iter().position(|peer| peer.role == Role::Bridge || !peer.asks_token);
        let bridge = bridge.map(|at| self.peers.swap_remove(at));
        self.peers.clear();
        if let Some(jobs) = self.workers.take() {
            jobs.end();
        }
        if let Some(process) = self.bridge.take() {
            process.end(bridge);
        }
    }
}

impl Waiting {
    /// Whether it could be sent at once.
    fn is_ready(&self) -> bool {
        match &self.body {
            Body::Coming(_, coming) => !coming.is_empty(),
            Body::Part => true,
        }
    }
}

/// A bridge, told what it is to have nodes run.
fn with_runtime(mut peer: Peer, listener: &Listener) -> Peer {
    peer.push(frames::runtime(Some(listener.invitation())));
    peer
}
