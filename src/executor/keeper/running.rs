//! A command that runs: fed, listened to and, when its time is over, ended; never waited for in a way that could hang.

use std::ffi::c_int;
use std::fs::File;
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::capture::HeadTail;
use super::commands::Results;
use super::memory::Sampler;
use super::process::GRACE;
use super::protocol::{Ending, ToKeeper};
use super::spawn::Child;
use super::sweep::{kill, sweep, wait};
use super::{NOTHING, poll, poll_fd};

/// An item that writes more to standard output fails.
const MAX_STDOUT: usize = 256 << 20;
/// Standard input that is received but not yet taken.
const MAX_FEED: usize = 256 << 10;
const BUFFER_BYTES: usize = 64 << 10;
/// The most that a pipe holds (`/proc/sys/fs/pipe-max-size` by default).
const MAX_PIPE: usize = 1 << 20;
/// How often a dissolving process group is looked at.
const TICK: Duration = Duration::from_millis(10);

/// Standard input on its way.
pub(super) struct Feed {
    pipe: Option<File>,
    pending: Vec<u8>,
    taken: usize,
    /// Whether more may arrive from bpp-flow.
    open: bool,
}

impl Feed {
    pub(super) fn new(pipe: OwnedFd, pending: Vec<u8>, open: bool) -> Feed {
        let pipe = rustix::fs::fcntl_setfl(&pipe, OFlags::NONBLOCK).ok().map(|()| File::from(pipe));
        let mut feed = Feed { pipe, pending, taken: 0, open };
        feed.write();
        feed
    }

    /// Writes what the pipe takes; a reader that went away wants no more.
    fn write(&mut self) {
        while let Some(pipe) = &mut self.pipe {
            let rest = &self.pending[self.taken..];
            if rest.is_empty() {
                self.pending.clear();
                self.taken = 0;
                if !self.open {
                    self.pipe = None;
                }
                return;
            }
            match pipe.write(rest) {
                Ok(n) => self.taken += n,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => self.pipe = None,
            }
        }
        self.pending.clear();
        self.taken = 0;
    }

    fn receive(&mut self, message: ToKeeper) {
        match message {
            ToKeeper::Stdin(bytes) if self.pipe.is_some() => self.pending.extend_from_slice(&bytes),
            ToKeeper::EndOfStdin => self.open = false,
            _ => {}
        }
        self.write();
    }

    fn wants_more(&self) -> bool {
        self.open && self.pending.len() - self.taken < MAX_FEED
    }
}

/// A running command.
pub(super) struct Running {
    child: Child,
    stdout: Option<File>,
    stderr: Option<File>,
    feed: Option<Feed>,
    out: Vec<u8>,
    err: HeadTail,
    /// Why it is being ended, and when it will be killed.
    ending: Option<(Ending, Option<Instant>)>,
    memory: Sampler,
    peak_kib: u32,
}

impl Running {
    pub(super) fn new(
        child: Child,
        stdout: Option<OwnedFd>,
        stderr: OwnedFd,
        feed: Option<Feed>,
        memory: Option<u64>,
    ) -> Running {
        let (stdout, stderr) = (stdout.map(File::from), Some(File::from(stderr)));
        let memory = Sampler::new(memory, child.pid);
        let (out, err) = (Vec::new(), HeadTail::default());
        Running { child, stdout, stderr, feed, out, err, ending: None, memory, peak_kib: 0 }
    }

    pub(super) fn pid(&self) -> c_int {
        self.child.pid
    }

    /// The most memory that was seen, once it has ended.
    pub(super) fn peak_kib(&self) -> u32 {
        self.peak_kib
    }

    /// What it wrote.
    pub(super) fn output(mut self) -> (Vec<u8>, Vec<u8>) {
        (self.out, self.err.take())
    }

    /// Stays with the command until it has ended; `None`: bpp-flow is gone.
    pub(super) fn attend(&mut self, results: &mut Results, deadline: Option<Instant>) -> Option<Ending> {
        loop {
            self.take_input(results)?;
            let mut fds = self.poll_set(results);
            let next = self.ending.map_or(deadline, |(_, kill_at)| kill_at);
            let until = next.map(|t| t.saturating_duration_since(Instant::now()));
            let limits = [until, results.patience(), Some(self.memory.patience())];
            poll(&mut fds, limits.into_iter().flatten().min());
            let [control, out, err, input, ended] = fds.map(|fd| fd.revents != 0);
            if control {
                results.control.fill();
                if results.control.ended() {
                    return None;
                }
            }
            if out {
                self.read_out();
            }
            if err {
                self.read_err();
            }
            if let Some(feed) = self.feed.as_mut().filter(|_| input) {
                feed.write();
            }
            if ended {
                return Some(self.end());
            }
            results.flush_if_due()?;
            self.check(deadline);
        }
    }

    fn poll_set(&self, results: &Results) -> [libc::pollfd; 5] {
        let more = self.feed.as_ref().is_some_and(Feed::wants_more);
        let listen = libc::POLLRDHUP | if more { libc::POLLIN } else { 0 };
        let input = self.feed.as_ref().filter(|f| f.taken < f.pending.len()).and_then(|f| f.pipe.as_ref());
        [
            poll_fd(&results.control.socket(), listen),
            readable(&self.stdout),
            readable(&self.stderr),
            input.map_or(NOTHING, |f| poll_fd(f, libc::POLLOUT)),
            poll_fd(&self.child.ended, libc::POLLIN),
        ]
    }

    /// Takes the standard input that has been received, as much as there is room for; `None`: damage.
    fn take_input(&mut self, results: &mut Results) -> Option<()> {
        while let Some(feed) = self.feed.as_mut().filter(|feed| feed.wants_more()) {
            let Some((kind, payload)) = results.control.next_frame() else { break };
            feed.receive(ToKeeper::read(kind, &payload).ok()?);
        }
        Some(())
    }

    fn read_out(&mut self) {
        let Some(file) = &self.stdout else { return };
        let mut space = [MaybeUninit::uninit(); BUFFER_BYTES];
        match rustix::io::read(file, &mut space) {
            Ok((bytes, _)) if !bytes.is_empty() => self.out.extend_from_slice(bytes),
            _ => self.stdout = None,
        }
    }

    fn read_err(&mut self) {
        let Some(file) = &self.stderr else { return };
        let mut space = [MaybeUninit::uninit(); BUFFER_BYTES];
        match rustix::io::read(file, &mut space) {
            Ok((bytes, _)) if !bytes.is_empty() => self.err.push(bytes),
            _ => self.stderr = None,
        }
    }

    /// Asks the command to end if it went beyond a limit, and kills it if it was asked long enough ago.
    fn check(&mut self, deadline: Option<Instant>) {
        let group = -self.child.pid;
        let seen = self.memory.look();
        if let Some(seen) = seen {
            self.peak_kib = self.peak_kib.max(seen.kib);
        }
        match &mut self.ending {
            Some((_, kill_at @ Some(_))) if kill_at.is_some_and(|t| Instant::now() >= t) => {
                *kill_at = None;
                kill(group, libc::SIGKILL);
            }
            Some(_) => {}
            None if seen.is_some_and(|seen| seen.over) => {
                kill(group, libc::SIGKILL);
                self.ending = Some((Ending::OverMemory, None));
            }
            None if self.out.len() > MAX_STDOUT => {
                self.out = Vec::new();
                kill(group, libc::SIGKILL);
                self.ending = Some((Ending::TooMuchOutput, None));
            }
            None if deadline.is_some_and(|d| Instant::now() >= d) => {
                kill(group, libc::SIGTERM);
                self.ending = Some((Ending::TimedOut, Some(Instant::now() + GRACE)));
            }
            None => {}
        }
    }

    /// The process has ended: takes what is still in its pipes, whoever else may hold them.
    fn end(&mut self) -> Ending {
        self.drain();
        let ended = wait(self.child.pid, 0).map(|(_, ended)| ended);
        self.peak_kib = self.peak_kib.max(ended.map_or(0, |ended| ended.peak_kib));
        let ending = Ending::Exited(ended.map_or(0, |ended| ended.status));
        let Some((why, kill_at)) = self.ending else { return ending };
        let group = -self.child.pid;
        while kill_at.is_some_and(|t| Instant::now() < t) && kill(group, 0) {
            poll(&mut [], Some(TICK));
        }
        kill(group, libc::SIGKILL);
        sweep(None);
        why
    }

    /// Reads what the pipes hold, a full pipe's worth of the largest kind at most: a process left behind may write on.
    fn drain(&mut self) {
        for _ in 0..MAX_PIPE / BUFFER_BYTES {
            let mut fds = [readable(&self.stdout), readable(&self.stderr)];
            if fds.iter().all(|fd| fd.fd < 0) {
                return;
            }
            poll(&mut fds, Some(Duration::ZERO));
            match fds.map(|fd| fd.revents != 0) {
                [false, false] => return,
                [out, err] => {
                    if out {
                        self.read_out();
                    }
                    if err {
                        self.read_err();
                    }
                }
            }
        }
    }
}

/// An entry for [`poll`]: ready when the file, if it is still open, can be read.
fn readable(file: &Option<File>) -> libc::pollfd {
    file.as_ref().map_or(NOTHING, |f| poll_fd(f, libc::POLLIN))
}
