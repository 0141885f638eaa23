//! A Python process under its keeper: its sockets, its slot, its captured output.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

use super::channel::Channel;
use super::ending::end_of;
use super::keeper::protocol::{Role, Setup, ToKeeper};
use super::launch::Keeper;
use super::local::Settings;
use super::slot::Slot;
use super::{PoolKey, PythonEnv, ending, wire};

/// What is told of the output of a process that died.
const TAIL_BYTES: u64 = 16 << 10;
/// How long an idle process may take to end when nothing is left to do.
const FAREWELL: Duration = Duration::from_secs(1);
/// The descriptor of the slot in the worker; that of the frames is 3.
pub(super) const SLOT_FD: i32 = 4;

/// A Python worker. When dropped it is ended with all that it started.
pub(super) struct Process {
    keeper: Keeper,
    /// The frames.
    pub data: Channel,
    pub slot: Arc<Slot>,
    /// How many bytes it may hold.
    pub memory: Option<u64>,
    /// What it writes to standard output and error; empty where that is the terminal.
    capture: File,
    /// How many items it was given, and takes in all.
    pub taken: usize,
    most_items: Option<usize>,
    /// Jobs that it knows.
    pub jobs: HashSet<u32>,
    /// Its process id, once it is there.
    pub pid: Option<i32>,
    /// Whether it said hello.
    pub ready: bool,
    pub started: Instant,
    /// When it stopped talking, without having ended.
    pub silent: Option<Instant>,
    /// Whether it is being ended for that.
    pub mute: bool,
    /// Whether it is being ended from here.
    pub ending: bool,
}

impl Process {
    /// Starts a worker with so many lanes.
    pub(super) fn start(settings: &Settings, key: PoolKey, python: &PythonEnv, lanes: usize) -> io::Result<Process> {
        let slot = Arc::new(Slot::create(&settings.state_dir, lanes)?);
        let capture = tempfile::tempfile_in(&settings.state_dir)?;
        rustix::fs::fcntl_setfl(&capture, OFlags::APPEND)?;
        let null = File::open("/dev/null")?;
        let (ours, theirs) = UnixStream::pair()?;
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let standard: [BorrowedFd; 3] = match settings.terminal {
            true => [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
            false => [null.as_fd(), capture.as_fd(), capture.as_fd()],
        };
        let fds = [&standard[..], &[theirs.as_fd(), slot.file()]].concat();
        let (memory, most_items) = (key.memory, key.most_items);
        let setup = setup(settings, key, python, lanes);
        let keeper = Keeper::start(&settings.program, setup, &fds)?;
        let mut data = Channel::new(ours);
        data.push(wire::source_frame());
        data.flush();
        Ok(Process {
            keeper,
            data,
            slot,
            memory,
            capture,
            taken: 0,
            most_items,
            jobs: HashSet::new(),
            pid: None,
            ready: false,
            started: Instant::now(),
            silent: None,
            mute: false,
            ending: false,
        })
    }

    /// How many more items it takes; a new process takes any task.
    pub(super) fn room(&self) -> usize {
        let most = self.most_items.filter(|_| self.taken > 0);
        most.map_or(usize::MAX, |most| most.saturating_sub(self.taken))
    }

    pub(super) fn control(&mut self) -> &mut Channel {
        self.keeper.control()
    }

    /// Has the process ended: asked to at first, killed after a while.
    pub(super) fn terminate(&mut self) {
        if !std::mem::replace(&mut self.ending, true) {
            self.slot.stop();
            self.control().push(ToKeeper::Terminate.frame());
            self.control().flush();
        }
    }

    /// Has results sent that wait behind the item in hand. A process that does not know the signal ignores it.
    pub(super) fn ask_for_results(&self) {
        if let Some(pid) = self.pid.and_then(rustix::process::Pid::from_raw) {
            // It may be gone already.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::URG);
        }
    }

    /// Waits until a socket or `wake` is ready.
    pub(super) fn wait(&mut self, wake: BorrowedFd, limit: Option<Duration>) {
        let mut events = PollFlags::empty();
        events.set(PollFlags::IN, !self.data.ended());
        events.set(PollFlags::OUT, self.data.is_sending());
        let data = self.data.socket();
        let control = self.keeper.control().socket();
        let mut fds = vec![PollFd::new(&control, PollFlags::IN), PollFd::new(&wake, PollFlags::IN)];
        if !events.is_empty() {
            fds.push(PollFd::new(&data, events));
        }
        let limit = limit.and_then(|d| Timespec::try_from(d).ok());
        // An interrupted wait is one that ended early.
        let _ = poll(&mut fds, limit.as_ref());
    }

    /// The end of what it wrote.
    pub(super) fn tail(&self) -> String {
        let left_out = self.capture.metadata().map_or(0, |m| m.len()).saturating_sub(TAIL_BYTES);
        let text = end_of(&self.capture, TAIL_BYTES);
        if left_out > 0 { format!("… {left_out} bytes left out …\n{text}") } else { text }
    }

    /// Ends the process if it still runs, with all that it started; returns when that is gone.
    pub(super) fn end(&mut self) {
        let kept = self.keeper.end().is_ok_and(|status| status.success());
        if let Some(pid) = self.pid.take().filter(|_| !kept) {
            ending::kill_group(pid);
        }
    }

    /// Lets an idle process end by itself.
    pub(super) fn say_farewell(&mut self) {
        self.data.push(wire::quit_frame());
        self.data.flush();
        let deadline = Instant::now() + FAREWELL;
        while !self.control().ended() && Instant::now() < deadline {
            let socket = self.keeper.control().socket();
            let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now()));
            // An interrupted wait is one that ended early.
            let _ = poll(&mut [PollFd::new(&socket, PollFlags::IN)], left.ok().as_ref());
            self.control().fill();
        }
        self.end();
    }
}

fn setup(settings: &Settings, key: PoolKey, python: &PythonEnv, lanes: usize) -> Setup {
    let own = [
        ("BPP_FLOW_SLOT_FD", SLOT_FD.to_string()),
        ("BPP_FLOW_LANES", lanes.to_string()),
        ("BPP_FLOW_TERMINAL", i32::from(settings.terminal).to_string()),
    ];
    let own = own.into_iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let env = key.env.into_iter().map(|(name, value)| (name.into(), value.into()));
    let argv = vec![settings.executable(&python.interpreter).into(), "-c".into(), wire::BOOTSTRAP.into()];
    let role = Role::Process { argv, terminal: settings.terminal, farewell: Duration::ZERO };
    Setup { role, env: env.chain(own).collect(), cwd: key.cwd, memory: key.memory }
}
