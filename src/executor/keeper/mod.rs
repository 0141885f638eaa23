//! The keeper: a tiny process between bpp-flow and what it starts, so that nothing is ever left running.
//!
//! It is the bpp-flow binary executed again with a hidden first argument, before anything large is in memory: starting
//! processes from it is cheap, and since it has one thread, the parent-death signal can be trusted. As a subreaper it
//! inherits whatever its children leave behind. When its control socket ends (bpp-flow is gone, `kill -9` included) it
//! kills all of that and exits.

mod capture;
mod commands;
mod memory;
mod process;
pub(crate) mod protocol;
mod running;
mod spawn;
mod sweep;

use std::ffi::{OsStr, OsString};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::channel::Channel;
use protocol::{Role, Setup, ToKeeper};

/// The hidden first argument.
pub const ARGUMENT: &str = "__keeper";
/// Descriptors that may come with the setup.
pub(super) const MAX_FDS: usize = 8;

/// Becomes a keeper, and never returns, if this process was started as one. To be called first of all in `main`.
#[expect(clippy::disallowed_methods, reason = "a keeper must not run bpp-flow's main")]
pub fn main_if_keeper() {
    if std::env::args_os().nth(1).as_deref() == Some(OsStr::new(ARGUMENT)) {
        std::process::exit(if keep().is_some() { 0 } else { 1 });
    }
}

/// A keeper's life; `None`: bpp-flow went away before it had said what is to be done.
fn keep() -> Option<()> {
    isolate();
    // SAFETY: bpp-flow passes the control socket as standard input; nothing else here uses it.
    let socket = unsafe { OwnedFd::from_raw_fd(0) };
    let fds = receive_fds(&socket)?;
    let mut control = Channel::new(UnixStream::from(socket));
    let ToKeeper::Setup(Setup { role, env, cwd, memory }) = wait_message(&mut control)? else { return None };
    let folder = std::env::set_current_dir(&cwd);
    let env = merged_env(env);
    match role {
        Role::Process { argv, terminal, farewell } => {
            process::keep(control, &argv, env, (&cwd, folder), &fds, (terminal, farewell), memory);
        }
        Role::Commands => commands::keep(control, env, (&cwd, folder), fds.into_iter().next()?, memory),
    }
    Some(())
}

/// Blocks all signals (children start with none blocked) and takes in orphans.
fn isolate() {
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    // SAFETY: plain calls on a valid, filled signal set. SIGPIPE goes back to its default, which the children
    // inherit; here it is blocked, so that writing to a closed pipe is an error and not the end.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::prctl(libc::PR_SET_NAME, c"bpp-keeper".as_ptr());
    }
}

/// The descriptors that come with the first byte, moved out of the way of those that children get.
fn receive_fds(socket: &OwnedFd) -> Option<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8; 1];
    let message =
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
            .ok()?;
    if message.bytes == 0 {
        return None;
    }
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    fds.iter().map(out_of_the_way).collect()
}

fn out_of_the_way(fd: &OwnedFd) -> Option<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), spawn::LOW_FDS).ok()
}

/// This process's environment with `env` on top.
fn merged_env(env: Vec<(OsString, OsString)>) -> Vec<(OsString, OsString)> {
    let mut merged: Vec<_> = std::env::vars_os().collect();
    overlay(&mut merged, env);
    merged
}

/// `env` with an item's own variables on top.
fn merged_env_of(env: &[(OsString, OsString)], own: &[(String, String)]) -> Vec<(OsString, OsString)> {
    let mut merged = env.to_vec();
    overlay(&mut merged, own.iter().map(|(name, value)| (name.into(), value.into())));
    merged
}

/// Sets variables; the others stay.
fn overlay(env: &mut Vec<(OsString, OsString)>, more: impl IntoIterator<Item = (OsString, OsString)>) {
    for (name, value) in more {
        match env.iter_mut().find(|(n, _)| *n == name) {
            Some(entry) => entry.1 = value,
            None => env.push((name, value)),
        }
    }
}

/// `NAME=value` strings; what cannot be passed on (zero bytes) is left out.
fn env_block(env: &[(OsString, OsString)]) -> spawn::CArray {
    let passable = |text: &OsStr| !text.as_encoded_bytes().contains(&0);
    let strings = env.iter().filter(|(n, v)| passable(n) && passable(v)).map(|(name, value)| {
        let mut entry = name.clone();
        entry.push("=");
        entry.push(value);
        entry
    });
    spawn::CArray::new(strings).expect("no zero bytes")
}

/// The value of a variable.
fn lookup<'a>(env: &'a [(OsString, OsString)], name: &str) -> Option<&'a OsStr> {
    env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_os_str())
}

/// The next message, however long it takes; `None`: bpp-flow is gone.
fn wait_message(control: &mut Channel) -> Option<ToKeeper> {
    loop {
        if let Some((kind, payload)) = control.next_frame() {
            return ToKeeper::read(kind, &payload).ok();
        }
        if control.ended() {
            return None;
        }
        let mut fds = [poll_fd(&control.socket(), libc::POLLIN)];
        poll(&mut fds, None);
        control.fill();
    }
}

/// An entry for [`poll`].
fn poll_fd(fd: &impl AsFd, events: i16) -> libc::pollfd {
    libc::pollfd { fd: fd.as_fd().as_raw_fd(), events, revents: 0 }
}

/// An entry that [`poll`] passes over.
const NOTHING: libc::pollfd = libc::pollfd { fd: -1 as RawFd, events: 0, revents: 0 };

/// Waits until something is ready, at most `limit` (rounded up to milliseconds).
fn poll(fds: &mut [libc::pollfd], limit: Option<std::time::Duration>) {
    let ms = limit.map_or(-1, |d| i32::try_from(d.as_micros().div_ceil(1000)).unwrap_or(i32::MAX));
    // SAFETY: the slice is valid for reads and writes of its length.
    unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, ms) };
}
