//! A program under its keeper, from here.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::ending;
use super::super::keeper::protocol::{FromKeeper, Role, Setup, ToKeeper};
use super::super::launch::Keeper;
use super::{Crew, Place, STOPPED};

/// How long a program that is asked to end may take, its keeper's insisting included.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// How a program ended.
#[derive(Debug, Clone)]
pub(super) enum Ended {
    /// The status as `wait` gives it.
    Exited(i32),
    /// It could not be started.
    Failed(String),
    /// Its keeper is gone, and so is it.
    Lost,
}

impl Ended {
    /// What is wrong with that, of a program of this name.
    pub(super) fn problem(&self, name: &str) -> Option<String> {
        match self {
            Ended::Exited(0) => None,
            Ended::Exited(status) => {
                let was = if libc::WIFSIGNALED(*status) { "was " } else { "" };
                Some(format!("{name} {was}{}", ending::in_words(*status)))
            }
            Ended::Failed(message) => Some(message.clone()),
            Ended::Lost => Some(format!("{name} went away, and its keeper with it")),
        }
    }
}

/// A program. When dropped it is asked to end, and soon ended, with all that it started.
pub(super) struct Process {
    keeper: Keeper,
    place: Place,
    pid: Option<i32>,
    ended: Option<Ended>,
}

impl Process {
    /// Starts a program with these descriptors as 0, 1, 2, …
    pub(super) fn start(
        crew: &Arc<Crew>,
        argv: Vec<OsString>,
        env: Vec<(OsString, OsString)>,
        fds: &[BorrowedFd],
    ) -> Result<Process, String> {
        let place = Place::take(crew)?;
        let role = Role::Process { argv, terminal: false, farewell: Duration::ZERO };
        let setup = Setup { role, env, cwd: crew.dir.clone(), memory: None };
        let keeper = Keeper::start(Path::new("/proc/self/exe"), setup, fds);
        let keeper = keeper.map_err(|e| format!("cannot start a process: {e}"))?;
        Ok(Process { keeper, place, pid: None, ended: None })
    }

    /// How it ended, if it has.
    pub(super) fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// Waits until one of `fds` is ready, or the program has ended, for at most `limit`; which of them are. An error
    /// says that nobody wants it any more.
    pub(super) fn wait<const N: usize>(
        &mut self,
        fds: [Option<PollFd<'_>>; N],
        limit: Option<Duration>,
    ) -> Result<[bool; N], String> {
        if self.place.crew.is_stopping() {
            return Err(STOPPED.to_string());
        }
        let wake = self.place.wake.clone();
        let wake_fd = wake.fd();
        let over = self.ended.is_some();
        let control = self.keeper.control().socket();
        let mut all = vec![PollFd::new(&wake_fd, PollFlags::IN)];
        if !over {
            all.push(PollFd::new(&control, PollFlags::IN));
        }
        let own = all.len();
        let wanted: Vec<usize> = (0..N).filter(|&i| fds[i].is_some()).collect();
        all.extend(fds.into_iter().flatten());
        let limit = limit.and_then(|d| Timespec::try_from(d).ok());
        // An interrupted wait is one that ended early.
        let _ = poll(&mut all, limit.as_ref());
        let mut ready = [false; N];
        for (at, &which) in wanted.iter().enumerate() {
            ready[which] = !all[own + at].revents().is_empty();
        }
        let news = !over && !all[1].revents().is_empty();
        drop(all);
        if news {
            self.hear();
        }
        if self.place.crew.is_stopping() { Err(STOPPED.to_string()) } else { Ok(ready) }
    }

    /// Takes in what the keeper has to say.
    fn hear(&mut self) {
        self.keeper.control().fill();
        while let Some((kind, payload)) = self.keeper.control().next_frame() {
            match FromKeeper::read(kind, &payload) {
                Ok(FromKeeper::Started { pid }) => self.pid = Some(pid),
                Ok(FromKeeper::Exited { status, .. }) => self.ended = Some(Ended::Exited(status)),
                Ok(FromKeeper::Failed { message }) => self.ended = Some(Ended::Failed(message)),
                _ => {}
            }
        }
        if self.keeper.control().ended() && self.ended.is_none() {
            self.ended = Some(Ended::Lost);
        }
    }

    /// Sends it SIGURG, which is ignored where nobody knows it.
    pub(super) fn urge(&self) {
        if let Some(pid) = self.pid.and_then(rustix::process::Pid::from_raw).filter(|_| self.ended.is_none()) {
            // It may be gone already.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::URG);
        }
    }

    /// Waits for its end, however it comes to it; `false`: it did not in this time.
    pub(super) fn wait_for_end(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.ended.is_none() && Instant::now() < deadline {
            let control = self.keeper.control().socket();
            let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now()));
            // An interrupted wait is one that ended early.
            let _ = poll(&mut [PollFd::new(&control, PollFlags::IN)], left.ok().as_ref());
            self.hear();
        }
        self.ended.is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.keeper.control().push(ToKeeper::Terminate.frame());
            self.keeper.control().flush();
            self.wait_for_end(LAST_WAIT);
        }
        let kept = self.keeper.end().is_ok_and(|status| status.success());
        if let Some(pid) = self.pid.filter(|_| !kept) {
            ending::kill_group(pid);
        }
    }
}
