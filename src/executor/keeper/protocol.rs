//! What bpp-flow and a keeper tell each other, over the control socket.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::super::CommandItem;
use super::super::codec::{DamagedFrame, FrameReader, FrameWriter, HEAD};
use crate::data::Usage;

/// The first frame: what the keeper is for. Descriptors came before it, in the order that [`Role`] tells.
#[derive(Debug, PartialEq)]
pub(in super::super) struct Setup {
    pub role: Role,
    /// On top of the keeper's own environment, which is bpp-flow's.
    pub env: Vec<(OsString, OsString)>,
    pub cwd: PathBuf,
    /// How many bytes the process with all that it starts, or a command, may hold.
    pub memory: Option<u64>,
}

/// What a keeper looks after.
#[derive(Debug, PartialEq)]
pub(in super::super) enum Role {
    /// One process, started at once, with the descriptors received as 0, 1, 2, …
    Process {
        argv: Vec<OsString>,
        /// It shares the terminal, and so bpp-flow's process group.
        terminal: bool,
        /// How long it may go on, to clear up, when bpp-flow is gone or wants its end.
        farewell: Duration,
    },
    /// Commands, one at a time, as they arrive. One descriptor: the slot.
    Commands,
}

/// Commands to be run one after the other.
#[derive(Debug, PartialEq)]
pub(in super::super) struct CommandTask {
    pub seq: u64,
    pub timeout: Option<Duration>,
    /// Whether standard output is wanted.
    pub keep_stdout: bool,
    /// Whether the only item's standard input arrives as [`ToKeeper::Stdin`].
    pub streamed: bool,
    pub items: Vec<CommandItem>,
}

/// To the keeper.
#[derive(Debug, PartialEq)]
pub(in super::super) enum ToKeeper {
    Setup(Setup),
    Task(CommandTask),
    /// More of the standard input of the streamed item.
    Stdin(Vec<u8>),
    /// All of it was sent.
    EndOfStdin,
    /// End the process: ask, and after a while insist.
    Terminate,
}

/// From the keeper.
#[derive(Debug, PartialEq)]
pub(in super::super) enum FromKeeper {
    /// The process runs.
    Started { pid: i32 },
    /// It could not be started.
    Failed { message: String },
    /// It ended, and so did everything that it started: the status as `wait` gives it, and the most memory that it
    /// held since it last told of an item.
    Exited { status: i32, peak_kib: u32, over_memory: bool },
    /// Commands ended.
    Results { seq: u64, results: Vec<CommandResult> },
    /// The task is over; so many items were begun.
    Done { seq: u64, begun: u32 },
}

/// How a command went.
#[derive(Debug, PartialEq)]
pub(in super::super) struct CommandResult {
    pub index: u32,
    pub usage: Usage,
    pub ending: Ending,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Ending {
    /// By itself; the status as `wait` gives it.
    Exited(i32),
    /// It could not be started: standard output says why, in words.
    NotStarted,
    /// Stopped: it took longer than the limit.
    TimedOut,
    /// Stopped: it wrote more than is kept.
    TooMuchOutput,
    /// Stopped: it held more memory than the limit.
    OverMemory,
}

impl ToKeeper {
    /// The message as a frame.
    pub(in super::super) fn frame(&self) -> Vec<u8> {
        match self {
            ToKeeper::Setup(setup) => setup_frame(setup),
            ToKeeper::Task(task) => task_frame(task.seq, task.timeout, task.keep_stdout, task.streamed, &task.items),
            ToKeeper::Stdin(bytes) => {
                let mut w = FrameWriter::new(b'R');
                w.bytes(bytes);
                w.finish()
            }
            ToKeeper::EndOfStdin => FrameWriter::new(b'Z').finish(),
            ToKeeper::Terminate => FrameWriter::new(b'T').finish(),
        }
    }

    /// The message of a frame.
    pub(in super::super) fn read(kind: u8, payload: &[u8]) -> Result<ToKeeper, DamagedFrame> {
        let mut r = FrameReader::new(payload);
        let message = match kind {
            b'S' => ToKeeper::Setup(read_setup(&mut r)?),
            b'C' => ToKeeper::Task(read_task(&mut r)?),
            b'R' => ToKeeper::Stdin(r.bytes()?.to_vec()),
            b'Z' => ToKeeper::EndOfStdin,
            b'T' => ToKeeper::Terminate,
            _ => return Err(DamagedFrame),
        };
        r.end().map(|()| message)
    }
}

fn setup_frame(setup: &Setup) -> Vec<u8> {
    let mut w = FrameWriter::new(b'S');
    match &setup.role {
        Role::Process { argv, terminal, farewell } => {
            w.u8(0).u8((*terminal).into()).u64(farewell.as_micros() as u64).list(argv, |w, arg| {
                w.os(arg);
            });
        }
        Role::Commands => {
            w.u8(1);
        }
    }
    w.list(&setup.env, |w, (name, value)| {
        w.os(name).os(value);
    });
    w.os(setup.cwd.as_os_str()).option(setup.memory, |w, limit| {
        w.u64(limit);
    });
    w.finish()
}

fn read_setup(r: &mut FrameReader) -> Result<Setup, DamagedFrame> {
    let role = match r.u8()? {
        0 => Role::Process {
            terminal: r.u8()? != 0,
            farewell: Duration::from_micros(r.u64()?),
            argv: r.list(FrameReader::os)?,
        },
        _ => Role::Commands,
    };
    let env = r.list(|r| Ok((r.os()?, r.os()?)))?;
    Ok(Setup { role, env, cwd: r.os()?.into(), memory: r.option(FrameReader::u64)? })
}

/// A [`ToKeeper::Task`] of borrowed items.
pub(in super::super) fn task_frame(
    seq: u64,
    timeout: Option<Duration>,
    keep_stdout: bool,
    streamed: bool,
    items: &[CommandItem],
) -> Vec<u8> {
    let mut w = FrameWriter::new(b'C');
    w.u64(seq).option(timeout, |w, limit| {
        w.u64(limit.as_micros() as u64);
    });
    w.u8(keep_stdout.into()).u8(streamed.into()).list(items, |w, item| {
        w.list(&item.argv, |w, arg| {
            w.bytes(arg.as_bytes());
        });
        w.list(&item.env, |w, (name, value)| {
            w.bytes(name.as_bytes()).bytes(value.as_bytes());
        });
        w.option(item.cwd.as_deref(), |w, cwd| {
            w.os(cwd.as_os_str());
        });
        w.option(item.stdin.as_deref(), |w, bytes| {
            w.bytes(bytes);
        });
    });
    w.finish()
}

fn read_task(r: &mut FrameReader) -> Result<CommandTask, DamagedFrame> {
    Ok(CommandTask {
        seq: r.u64()?,
        timeout: r.option(FrameReader::u64)?.map(Duration::from_micros),
        keep_stdout: r.u8()? != 0,
        streamed: r.u8()? != 0,
        items: r.list(|r| {
            Ok(CommandItem {
                argv: r.list(read_text)?,
                env: r.list(|r| Ok((read_text(r)?, read_text(r)?)))?,
                cwd: r.option(FrameReader::os)?.map(PathBuf::from),
                stdin: r.option(|r| Ok(r.bytes()?.to_vec()))?,
            })
        })?,
    })
}

fn read_text(r: &mut FrameReader) -> Result<String, DamagedFrame> {
    String::from_utf8(r.bytes()?.to_vec()).map_err(|_| DamagedFrame)
}

impl FromKeeper {
    /// The message as a frame.
    pub(in super::super) fn frame(&self) -> Vec<u8> {
        match self {
            FromKeeper::Started { pid } => {
                let mut w = FrameWriter::new(b's');
                w.i32(*pid);
                w.finish()
            }
            FromKeeper::Failed { message } => {
                let mut w = FrameWriter::new(b'f');
                w.bytes(message.as_bytes());
                w.finish()
            }
            FromKeeper::Exited { status, peak_kib, over_memory } => {
                let mut w = FrameWriter::new(b'e');
                w.i32(*status).u32(*peak_kib).u8((*over_memory).into());
                w.finish()
            }
            FromKeeper::Results { seq, results } => {
                let mut w = FrameWriter::new(b'r');
                w.u64(*seq).list(results, put_result);
                w.finish()
            }
            FromKeeper::Done { seq, begun } => {
                let mut w = FrameWriter::new(b'd');
                w.u64(*seq).u32(*begun);
                w.finish()
            }
        }
    }

    /// The message of a frame.
    pub(in super::super) fn read(kind: u8, payload: &[u8]) -> Result<FromKeeper, DamagedFrame> {
        let mut r = FrameReader::new(payload);
        let message = match kind {
            b's' => FromKeeper::Started { pid: r.i32()? },
            b'f' => FromKeeper::Failed { message: read_text(&mut r)? },
            b'e' => FromKeeper::Exited { status: r.i32()?, peak_kib: r.u32()?, over_memory: r.u8()? != 0 },
            b'r' => FromKeeper::Results { seq: r.u64()?, results: r.list(read_result)? },
            b'd' => FromKeeper::Done { seq: r.u64()?, begun: r.u32()? },
            _ => return Err(DamagedFrame),
        };
        r.end().map(|()| message)
    }
}

fn put_result(w: &mut FrameWriter, result: &CommandResult) {
    w.u32(result.index).u32(result.usage.micros).u32(result.usage.peak_kib);
    match result.ending {
        Ending::Exited(status) => {
            w.u8(0).i32(status);
        }
        Ending::NotStarted => {
            w.u8(1);
        }
        Ending::TimedOut => {
            w.u8(2);
        }
        Ending::TooMuchOutput => {
            w.u8(3);
        }
        Ending::OverMemory => {
            w.u8(4);
        }
    }
    w.bytes(&result.stdout).bytes(&result.stderr);
}

fn read_result(r: &mut FrameReader) -> Result<CommandResult, DamagedFrame> {
    let (index, usage) = (r.u32()?, Usage { micros: r.u32()?, peak_kib: r.u32()? });
    let ending = match r.u8()? {
        0 => Ending::Exited(r.i32()?),
        1 => Ending::NotStarted,
        2 => Ending::TimedOut,
        3 => Ending::TooMuchOutput,
        4 => Ending::OverMemory,
        _ => return Err(DamagedFrame),
    };
    Ok(CommandResult { index, usage, ending, stdout: r.bytes()?.to_vec(), stderr: r.bytes()?.to_vec() })
}

/// For fuzzing: what reads as a message, either way, is the same message again once written.
pub(crate) fn assert_reads_back(kind: u8, payload: &[u8]) {
    if let Ok(message) = ToKeeper::read(kind, payload) {
        let frame = message.frame();
        assert_eq!(ToKeeper::read(frame[HEAD - 1], &frame[HEAD..]), Ok(message));
    }
    if let Ok(message) = FromKeeper::read(kind, payload) {
        let frame = message.frame();
        assert_eq!(FromKeeper::read(frame[HEAD - 1], &frame[HEAD..]), Ok(message));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn item() -> impl Strategy<Value = CommandItem> {
        let text = ".{0,8}";
        let stdin = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20));
        let env = proptest::collection::vec((text, text), 0..3);
        let argv = proptest::collection::vec(text, 0..4);
        (argv, env, proptest::option::of(text), stdin).prop_map(|(argv, env, cwd, stdin)| CommandItem {
            argv,
            env,
            cwd: cwd.map(PathBuf::from),
            stdin,
        })
    }

    fn ending() -> impl Strategy<Value = Ending> {
        prop_oneof![
            any::<i32>().prop_map(Ending::Exited),
            Just(Ending::NotStarted),
            Just(Ending::TimedOut),
            Just(Ending::TooMuchOutput),
            Just(Ending::OverMemory),
        ]
    }

    fn result() -> impl Strategy<Value = CommandResult> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..20);
        let usage = (any::<u32>(), any::<u32>()).prop_map(|(micros, peak_kib)| Usage { micros, peak_kib });
        (any::<u32>(), usage, ending(), bytes(), bytes())
            .prop_map(|(index, usage, ending, stdout, stderr)| CommandResult { index, usage, ending, stdout, stderr })
    }

    proptest! {
        #[test]
        fn tasks_read_back(seq: u64, timeout: Option<u32>, flags: (bool, bool), items in proptest::collection::vec(item(), 0..4)) {
            let timeout = timeout.map(|t| Duration::from_micros(t.into()));
            let message =
                ToKeeper::Task(CommandTask { seq, timeout, keep_stdout: flags.0, streamed: flags.1, items });
            let frame = message.frame();
            prop_assert_eq!(ToKeeper::read(frame[4], &frame[HEAD..]), Ok(message));
        }

        #[test]
        fn results_read_back(seq: u64, results in proptest::collection::vec(result(), 0..4)) {
            let message = FromKeeper::Results { seq, results };
            let frame = message.frame();
            prop_assert_eq!(FromKeeper::read(frame[4], &frame[HEAD..]), Ok(message));
        }

        #[test]
        fn no_bytes_make_it_panic(kind: u8, payload in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = ToKeeper::read(kind, &payload);
            let _ = FromKeeper::read(kind, &payload);
        }
    }

    #[test]
    fn setups_read_back() {
        for role in [
            Role::Commands,
            Role::Process {
                argv: vec!["python3".into(), "-c".into()],
                terminal: true,
                farewell: Duration::from_secs(3),
            },
        ] {
            let (env, memory) = (vec![("A".into(), "b c".into())], Some(1 << 40));
            let message = ToKeeper::Setup(Setup { role, env, cwd: "/tmp".into(), memory });
            let frame = message.frame();
            assert_eq!(ToKeeper::read(frame[4], &frame[HEAD..]), Ok(message));
        }
    }
}
