//! Starting keepers. The only place of bpp-flow proper that starts a process.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::channel::Channel;
use super::keeper::protocol::{Role, Setup, ToKeeper};
use super::keeper::{ARGUMENT, MAX_FDS};

/// A keeper that runs. When dropped it is told to end, with all that it looks after, and waited for.
pub(super) struct Keeper {
    child: Child,
    control: Option<Channel>,
}

impl Keeper {
    /// Starts `program` (bpp-flow itself) as a keeper and hands it its setup and some descriptors.
    #[expect(clippy::disallowed_methods, reason = "keepers start here, and nowhere else")]
    pub(super) fn start(program: &Path, setup: Setup, fds: &[BorrowedFd]) -> io::Result<Keeper> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(program);
        command.arg0("bpp-flow").arg(ARGUMENT).stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        if !matches!(setup.role, Role::Process { terminal: true, .. }) {
            // Keys pressed in the terminal are bpp-flow's business.
            command.process_group(0);
        }
        let child = command.spawn()?;
        drop(command);
        let mut keeper = Keeper { child, control: Some(Channel::new(ours)) };
        send_fds(keeper.control().socket(), fds)?;
        keeper.control().write(&ToKeeper::Setup(setup).frame())?;
        Ok(keeper)
    }

    /// The control socket.
    pub(super) fn control(&mut self) -> &mut Channel {
        self.control.as_mut().expect("open until the end")
    }

    /// Ends the keeper and everything it looks after; returns when all is gone.
    pub(super) fn end(&mut self) -> io::Result<ExitStatus> {
        self.control = None;
        self.child.wait()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // An error means that there is no such child any more.
        let _ = self.end();
    }
}

/// Sends one byte, and the descriptors with it.
fn send_fds(socket: BorrowedFd, fds: &[BorrowedFd]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)), "at most {MAX_FDS} descriptors");
    rustix::net::sendmsg(socket.as_fd(), &[IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}
