//! The process that holds an engine's client (`bridge.py`).
//!
//! It is looked after by a keeper of this machine and talks over a socket that it inherits; under a launcher, which hands
//! no descriptors on, it connects to a socket in a private folder.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

use super::Surroundings;
use super::frames;
use super::peer::{CLOSED, Peer, Role as PeerRole};
use crate::executor::channel::Channel;
use crate::executor::ending::{end_of, in_words};
use crate::executor::keeper::protocol::{FromKeeper, Role, Setup, ToKeeper};
use crate::executor::launch::Keeper;
use crate::executor::wire;
use crate::spec::model::{Access, Remote, RemoteKind};

/// How long it may take to end what it started.
const FAREWELL: Duration = Duration::from_secs(15);
/// How long its end may be in coming when its socket has ended.
const WORDS: Duration = Duration::from_millis(500);
/// The files of the private folder.
const SOCKET: &str = "socket";
const PROGRAM: &str = "bridge.py";
/// What connects to the socket.
const LAUNCHED: &str = include_str!("../../../python/launched.py");
/// How much of its last output is told.
const TAIL_BYTES: u64 = 4 << 10;

/// The process, and the place where it connects.
pub(super) struct Bridge {
    keeper: Keeper,
    capture: File,
    door: Option<Door>,
    /// How it ended.
    ended: Option<String>,
    /// How often one was started.
    pub starts: u32,
}

/// A private folder, which nobody else can enter, with a socket and the program that connects.
struct Door {
    folder: tempfile::TempDir,
    listener: UnixListener,
}

impl Bridge {
    /// So often, at most.
    pub(super) const MOST_STARTS: u32 = 3;

    /// Starts it. Gives the one who will say hello, where it need not connect.
    pub(super) fn start(remote: &Remote, around: &Surroundings) -> Result<(Bridge, Option<Peer>), String> {
        let failed = |e: io::Error| format!("cannot start the process that talks to it: {e}");
        let (bridge, socket) = Bridge::try_start(remote, around).map_err(failed)?;
        let peer = bridge.door.is_none().then(|| bridge.greet(remote, around, Channel::new(socket)));
        Ok((bridge, peer))
    }

    fn try_start(remote: &Remote, around: &Surroundings) -> io::Result<(Bridge, UnixStream)> {
        let capture = tempfile::tempfile_in(&around.state_dir)?;
        rustix::fs::fcntl_setfl(&capture, OFlags::APPEND)?;
        let door = launcher(remote).is_some().then(Door::open).transpose()?;
        let setup = Setup {
            role: Role::Process { argv: argv(remote, door.as_ref()), terminal: false, farewell: FAREWELL },
            // A launcher has to outlive what it starts.
            env: match &door {
                Some(door) => door.env(&interpreter(remote)).to_vec(),
                None => vec![mark()?],
            },
            cwd: around.dir.clone(),
            memory: None,
        };
        let null = File::open("/dev/null")?;
        let (ours, theirs) = UnixStream::pair()?;
        let fds = [null.as_fd(), capture.as_fd(), capture.as_fd(), theirs.as_fd()];
        let fds = if door.is_some() { &fds[..3] } else { &fds };
        let keeper = Keeper::start(&around.program, setup, fds)?;
        Ok((Bridge { keeper, capture, door, ended: None, starts: 1 }, ours))
    }

    /// What it hears first.
    fn greet(&self, remote: &Remote, around: &Surroundings, channel: Channel) -> Peer {
        let Access::Bridge { options, .. } = &remote.access else { unreachable!("a bridge's engine") };
        let mut peer = Peer::new(channel, false);
        peer.push(wire::bridge_frame());
        peer.push(frames::options(remote.kind.name(), &remote.name, &around.dir, options));
        peer
    }

    /// To be polled: where it has to connect, and where its end is told.
    pub(super) fn fds(&mut self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let control = self.ended.is_none().then(|| self.keeper.control().socket());
        self.door.iter().map(|door| door.listener.as_fd()).chain(control)
    }

    /// Takes in what its keeper has to say.
    pub(super) fn listen(&mut self) {
        let control = self.keeper.control();
        control.fill();
        while let Some((kind, payload)) = control.next_frame() {
            match FromKeeper::read(kind, &payload) {
                Ok(FromKeeper::Failed { message }) => self.ended = Some(message),
                Ok(FromKeeper::Exited { status, .. }) => self.ended = Some(in_words(status)),
                _ => {}
            }
        }
        if control.ended() {
            self.ended.get_or_insert_with(|| "it is gone".into());
        }
    }

    /// Whether the process has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Whoever has connected.
    pub(super) fn accept(&self, remote: &Remote, around: &Surroundings) -> Option<Peer> {
        let (socket, _) = self.door.as_ref()?.listener.accept().ok()?;
        Some(self.greet(remote, around, Channel::new(socket)))
    }

    /// Its socket may end just before its end is told.
    pub(super) fn wait_for_words(&mut self) {
        self.wait_for_end(WORDS);
    }

    /// How it ended, with the end of what it wrote.
    pub(super) fn last_words(&self, how: &str) -> String {
        let text = end_of(&self.capture, TAIL_BYTES);
        let text = if text.trim().is_empty() { String::new() } else { format!("\n{}", text.trim()) };
        match (how, &self.ended) {
            (CLOSED, None) => format!("the process that talks to it closed its connection{text}"),
            (CLOSED, Some(ended)) => format!("the process that talks to it: {ended}{text}"),
            _ => how.to_string(),
        }
    }

    /// Ends it: who talks ends its engine first, and is waited for.
    pub(super) fn end(mut self, peer: Option<Peer>) {
        match peer.filter(|peer| peer.role == PeerRole::Bridge) {
            Some(mut peer) => {
                peer.push(frames::quit());
                peer.channel.flush();
                self.wait_for_end(FAREWELL);
            }
            None => {
                self.keeper.control().push(ToKeeper::Terminate.frame());
                self.keeper.control().flush();
            }
        }
        // An error means that there is no such child any more.
        let _ = self.keeper.end();
    }

    fn wait_for_end(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        loop {
            self.listen();
            let left = deadline.saturating_duration_since(Instant::now());
            if self.has_ended() || left.is_zero() {
                return;
            }
            let socket = self.keeper.control().socket();
            // An interrupted wait is one that ended early.
            let _ = poll(&mut [PollFd::new(&socket, PollFlags::IN)], Timespec::try_from(left).ok().as_ref());
        }
    }
}

impl Door {
    fn open() -> io::Result<Door> {
        let folder =
            tempfile::Builder::new().prefix("bpp-flow-").permissions(Permissions::from_mode(0o700)).tempdir()?;
        let listener = UnixListener::bind(folder.path().join(SOCKET))?;
        listener.set_nonblocking(true)?;
        std::fs::write(folder.path().join(PROGRAM), LAUNCHED)?;
        Ok(Door { folder, listener })
    }

    /// Where to connect; and where launchers are that were installed beside the Python.
    fn env(&self, python: &str) -> [(OsString, OsString); 2] {
        let socket = self.folder.path().join(SOCKET).into_os_string();
        let own = Path::new(python).parent().filter(|_| python.contains('/')).map(Path::to_path_buf);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path))).unwrap_or(path);
        [("BPP_FLOW_BRIDGE".into(), socket), ("PATH".into(), path)]
    }
}

/// By this in its environment is known what it started, wherever that went.
fn mark() -> io::Result<(OsString, OsString)> {
    let mut random = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let value = format!("{}-{:016x}", std::process::id(), u64::from_ne_bytes(random));
    Ok(("BPP_FLOW_BRIDGE_MARK".into(), value.into()))
}

/// The command that it runs under, if it does.
fn launcher(remote: &Remote) -> Option<Vec<String>> {
    let Access::Bridge { launch, .. } = &remote.access else { return None };
    Some(launch.clone()).filter(|launch| !launch.is_empty())
}

fn argv(remote: &Remote, door: Option<&Door>) -> Vec<OsString> {
    let python = interpreter(remote);
    let Some(door) = door else { return vec![python.into(), "-c".into(), wire::BOOTSTRAP.into()] };
    let mut argv: Vec<OsString> = launcher(remote).unwrap_or_default().into_iter().map(OsString::from).collect();
    argv.push(python.into());
    if remote.kind == RemoteKind::Mpi {
        argv.extend(["-m".into(), "mpi4py.futures".into()]);
    }
    argv.push(door.folder.path().join(PROGRAM).into());
    argv.extend((remote.kind == RemoteKind::Dask).then(|| "dask".into()));
    argv
}

/// The Python that has the engine's client: the backend's, else that of the virtual environment, else `python3`.
fn interpreter(remote: &Remote) -> String {
    let venv = std::env::var("VIRTUAL_ENV").ok().filter(|venv| !venv.is_empty());
    remote.interpreter.clone().or(venv.map(|venv| format!("{venv}/bin/python"))).unwrap_or_else(|| "python3".into())
}
