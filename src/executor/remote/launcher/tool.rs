//! The programs of engines: started, given what they read, and heard, without a pipe that could fill up.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::executor::ending::end_of;

/// What is told at most of what went wrong.
pub(super) const TAIL_BYTES: u64 = 4 << 10;

/// A program that was started, in a process group of its own: keys pressed in the terminal are not for it. When
/// dropped it is killed, with its group.
pub(super) struct Tool {
    name: String,
    child: Child,
    ended: OwnedFd,
    out: File,
    err: File,
    status: Option<ExitStatus>,
}

/// What a program said.
#[derive(Debug)]
pub(super) struct Said {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Said {
    /// What it wrote to standard output if it succeeded, else its own words.
    pub(super) fn success(self, name: &str) -> Result<String, String> {
        match self.err.trim() {
            _ if self.status.success() => Ok(self.out),
            "" => Err(format!("{name} ended with {}", self.status)),
            words => Err(words.to_string()),
        }
    }
}

impl Tool {
    /// Starts a program that reads `input`. Its standard output goes to `out`, if that is given.
    #[expect(
        clippy::disallowed_methods,
        reason = "clients of engines start here; they are small and end by themselves"
    )]
    pub(super) fn start(argv: &[String], input: &[u8], out: Option<OwnedFd>) -> Result<Tool, String> {
        let (name, args) = argv.split_first().ok_or("an empty command")?;
        let start = || -> io::Result<Tool> {
            let (stdin, told, err) = (memory(input)?, memory(&[])?, memory(&[])?);
            let out = match out {
                Some(out) => Stdio::from(out),
                None => Stdio::from(told.try_clone()?),
            };
            let mut command = Command::new(name);
            command.args(args).stdin(stdin).stdout(out).stderr(err.try_clone()?).process_group(0);
            let child = command.spawn()?;
            let pid = Pid::from_child(&child);
            let ended = pidfd_open(pid, PidfdFlags::empty())?;
            Ok(Tool { name: name.clone(), child, ended, out: told, err, status: None })
        };
        start().map_err(|e| format!("{name} cannot be started: {e}"))
    }

    /// Runs a program to its end, for so long at most.
    pub(super) fn run(argv: &[String], input: &[u8], limit: Duration) -> Result<Said, String> {
        Tool::start(argv, input, None)?.finish(limit)
    }

    /// Its end, waited for so long at most.
    pub(super) fn finish(mut self, limit: Duration) -> Result<Said, String> {
        self.wait(limit).ok_or_else(|| format!("{} said nothing for {limit:?}", self.name))
    }

    /// What it said, if it ends within that time.
    pub(super) fn wait(&mut self, limit: Duration) -> Option<Said> {
        let mut fds = [PollFd::from_borrowed_fd(self.ended.as_fd(), PollFlags::IN)];
        let limit = Timespec::try_from(limit).ok();
        // An interrupted wait is asked for again by whoever still wants to know.
        while poll(&mut fds, limit.as_ref()) == Err(rustix::io::Errno::INTR) {}
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        let status = self.status?;
        Some(Said { status, out: end_of(&self.out, u64::MAX), err: end_of(&self.err, TAIL_BYTES) })
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        if self.status.is_none() {
            // It may have ended meanwhile, but nobody has taken its number: it is waited for only now.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// A file in memory that holds this, to be read from its beginning.
fn memory(content: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("bpp-flow", MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}
