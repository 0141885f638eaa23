//! A keeper of one long-lived process, a Python worker.

use std::ffi::{OsString, c_int};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::channel::Channel;
use super::super::ending::{NotStarted, not_started};
use super::super::process::SLOT_FD;
use super::super::slot::Slot;
use super::memory::Sampler;
use super::protocol::{FromKeeper, ToKeeper};
use super::spawn::{self, CArray, Program, Stack};
use super::sweep::{Ended, kill, reap, sweep};
use super::{env_block, lookup, poll, poll_fd};

/// How long a process may take to end when asked to.
pub(super) const GRACE: Duration = Duration::from_secs(1);
/// How often a dissolving process group is looked at.
const TICK: Duration = Duration::from_millis(10);

/// The process and how it is ending.
struct Kept {
    pid: c_int,
    /// Negative: the group; else the process alone.
    target: c_int,
    ended: Option<Ended>,
    /// When it will be killed; it has been asked to end.
    deadline: Option<Instant>,
    memory: Sampler,
    over_memory: bool,
    slot: Option<Slot>,
}

/// Starts the process and looks after it until it or bpp-flow ends.
pub(super) fn keep(
    mut control: Channel,
    argv: &[OsString],
    env: Vec<(OsString, OsString)>,
    (cwd, folder): (&Path, io::Result<()>),
    fds: &[OwnedFd],
    (terminal, farewell): (bool, Duration),
    memory: Option<u64>,
) {
    let slot = fds.get(SLOT_FD as usize).and_then(|fd| Slot::open(fd.try_clone().ok()?).ok());
    let started = match folder {
        Ok(()) => start(argv, &env, fds, !terminal),
        Err(e) => Err(NotStarted { folder: true, errno: e.raw_os_error().unwrap_or(0) }),
    };
    let pid = match started {
        Ok(pid) => pid,
        Err(why) => {
            let program = argv.first().map_or("".into(), |p| p.to_string_lossy());
            let message = not_started(why, &program, cwd);
            let _ = control.write(&FromKeeper::Failed { message }.frame());
            return;
        }
    };
    let _ = control.write(&FromKeeper::Started { pid }.frame());
    let (target, memory) = (if terminal { pid } else { -pid }, Sampler::new(memory, pid));
    let mut kept = Kept { pid, target, ended: None, deadline: None, memory, over_memory: false, slot };
    watch(&mut control, &mut kept, farewell);
    if !terminal {
        kill(kept.target, libc::SIGKILL);
    }
    let last = sweep(Some(pid));
    if let Some(Ended { status, peak_kib }) = kept.ended.or(last) {
        let (peak_kib, over_memory) = (peak_kib.max(kept.slot.as_ref().map_or(0, Slot::peak)), kept.over_memory);
        let _ = control.write(&FromKeeper::Exited { status, peak_kib, over_memory }.frame());
    }
}

fn start(
    argv: &[OsString],
    env: &[(OsString, OsString)],
    fds: &[OwnedFd],
    own_group: bool,
) -> Result<c_int, NotStarted> {
    let refused = NotStarted { folder: false, errno: libc::EINVAL };
    let candidates = spawn::candidates(argv.first().ok_or(refused)?, lookup(env, "PATH"));
    let fds: Vec<BorrowedFd> = fds.iter().map(AsFd::as_fd).collect();
    let (argv, envp) = (CArray::new(argv).ok_or(refused)?, env_block(env));
    let program = Program { candidates: &candidates, argv: &argv, envp: &envp, cwd: None, fds: &fds, own_group };
    spawn::spawn(&mut Stack::default(), &program).map(|child| child.pid)
}

/// Returns when all is to be swept away.
fn watch(control: &mut Channel, kept: &mut Kept, farewell: Duration) {
    let deaths = death_notes();
    loop {
        let mut limit = kept.memory.patience();
        if let Some(deadline) = kept.deadline {
            limit = limit.min(deadline.saturating_duration_since(Instant::now()));
            limit = if kept.ended.is_some() { limit.min(TICK) } else { limit };
        }
        let mut fds = [poll_fd(&deaths, libc::POLLIN), poll_fd(&control.socket(), libc::POLLIN)];
        let watched = if control.ended() { 1 } else { 2 };
        poll(&mut fds[..watched], Some(limit));
        if fds[1].revents != 0 {
            control.fill();
        }
        if control.ended() {
            if farewell.is_zero() {
                return;
            }
            kept.deadline.get_or_insert_with(|| Instant::now() + farewell);
        }
        while let Some((kind, payload)) = control.next_frame() {
            if ToKeeper::read(kind, &payload) == Ok(ToKeeper::Terminate) && kept.deadline.is_none() {
                kill(kept.target, libc::SIGTERM);
                kept.deadline = Some(Instant::now() + GRACE);
            }
        }
        if fds[0].revents != 0 {
            let _ = rustix::io::read(&deaths, &mut [0u8; 1024]);
        }
        kept.ended = kept.ended.or(reap(Some(kept.pid)));
        if let Some(seen) = kept.memory.look() {
            kept.slot.iter().for_each(|slot| slot.raise_peak(seen.kib));
            kept.over_memory = seen.over && kept.ended.is_none();
        }
        let left_alone = control.ended() && kept.ended.is_some();
        if kept.over_memory || left_alone || is_over(kept) {
            return;
        }
    }
}

/// Whether the process has ended and its group, if it was asked to end, has had its time.
fn is_over(kept: &Kept) -> bool {
    match (kept.ended, kept.deadline) {
        (Some(_), None) => true,
        (Some(_), Some(deadline)) => Instant::now() >= deadline || !kill(kept.target, 0),
        (None, Some(deadline)) => Instant::now() >= deadline,
        (None, None) => false,
    }
}

/// Readable when a child has ended.
fn death_notes() -> OwnedFd {
    // SAFETY: a valid signal set; the descriptor is new and ours.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        OwnedFd::from_raw_fd(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))
    }
}
