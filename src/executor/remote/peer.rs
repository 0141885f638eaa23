//! One that the hub talks to: a keeper, a bridge, or a leash.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::frames::{self, Capacity, Hello};
use crate::executor::channel::Channel;
use crate::executor::chunk::Chunk;

/// How long one may take to say who it is.
const HELLO_LIMIT: Duration = Duration::from_secs(15);
/// A sign of life is given after so much silence.
const BEAT: Duration = Duration::from_secs(10);
/// One that was silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(60);

/// Why a peer is gone that says nothing more.
pub(super) const CLOSED: &str = "closed its connection";

/// What a peer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It has not said so yet.
    Guest,
    Keeper,
    Bridge,
    /// A keeper that an engine's worker started: it hears of the end.
    Leash,
}

/// A chunk that a peer has.
pub(super) struct Sent {
    pub chunk: Chunk,
    pub at: Instant,
    /// Whether its worker is known to have taken it up.
    pub started: bool,
}

/// One that the hub talks to.
pub(super) struct Peer {
    pub channel: Channel,
    /// Whether it came from elsewhere, and has to prove, soon, that it was invited.
    pub asks_token: bool,
    pub role: Role,
    pub hello: Option<Hello>,
    pub capacity: Capacity,
    pools: HashSet<u32>,
    jobs: HashSet<u32>,
    pub last_pool: Option<u32>,
    /// Whether it ever got anything.
    pub worked: bool,
    /// In the order in which it got them.
    pub hand: Vec<Sent>,
    since: Instant,
    heard: Instant,
    said: Instant,
    /// When it had last something to do.
    pub active: Instant,
    /// It gets nothing more.
    pub leaving: bool,
    /// Whether it was told to take no new item.
    pub stopped: bool,
    /// Why it is to be dropped.
    pub gone: Option<String>,
}

impl Peer {
    pub(super) fn new(channel: Channel, asks_token: bool) -> Peer {
        let now = Instant::now();
        Peer {
            channel,
            asks_token,
            role: Role::Guest,
            hello: None,
            capacity: Capacity::default(),
            pools: HashSet::new(),
            jobs: HashSet::new(),
            last_pool: None,
            worked: false,
            hand: Vec::new(),
            since: now,
            heard: now,
            said: now,
            active: now,
            leaving: false,
            stopped: false,
            gone: None,
        }
    }

    /// Whether it takes tasks, if it has room.
    pub(super) fn takes_tasks(&self) -> bool {
        matches!(self.role, Role::Keeper | Role::Bridge) && !self.leaving && self.gone.is_none()
    }

    /// How many tasks run at once.
    pub(super) fn slots(&self) -> usize {
        match self.role {
            Role::Keeper => 1,
            Role::Bridge => self.capacity.slots,
            Role::Guest | Role::Leash => 0,
        }
    }

    /// Queues a frame.
    pub(super) fn push(&mut self, frame: Vec<u8>) {
        self.said = Instant::now();
        self.channel.push(frame);
    }

    /// Whether this is news to it: a pool, a job.
    pub(super) fn lacks_pool(&mut self, pool: u32) -> bool {
        self.pools.insert(pool)
    }

    pub(super) fn lacks_job(&mut self, job: u32) -> bool {
        self.jobs.insert(job)
    }

    /// It was heard of.
    pub(super) fn is_alive(&mut self) {
        self.heard = Instant::now();
    }

    /// Takes the chunk sent under that number away.
    pub(super) fn take(&mut self, seq: u64) -> Option<Sent> {
        let at = self.hand.iter().position(|sent| sent.chunk.hand.seq == seq)?;
        self.active = Instant::now();
        Some(self.hand.remove(at))
    }

    /// The chunk sent under that number.
    pub(super) fn sent(&mut self, seq: u64) -> Option<&mut Sent> {
        self.hand.iter_mut().find(|sent| sent.chunk.hand.seq == seq)
    }

    /// Gives signs of life, and misses them.
    pub(super) fn watch(&mut self) {
        if self.channel.ended() {
            self.gone.get_or_insert_with(|| CLOSED.into());
        }
        if self.said.elapsed() >= BEAT {
            self.push(frames::beat());
        }
        if self.role == Role::Guest && self.since.elapsed() >= HELLO_LIMIT && self.asks_token {
            self.gone = Some("did not say who it is".into());
        }
        if self.role != Role::Guest && self.heard.elapsed() >= SILENCE {
            self.gone = Some(format!("was silent for {} s", SILENCE.as_secs()));
        }
    }

    /// Seconds until its engine ends it.
    pub(super) fn time_left(&self) -> Option<f64> {
        let until = self.hello.as_ref()?.until?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Some(until - now.as_secs_f64())
    }
}
