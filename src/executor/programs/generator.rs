//! A Python function that yields rows, in a worker of ours.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;

use super::super::channel::Channel;
use super::super::ending::end_of;
use super::super::wire::{self, FromWorker, Yielded};
use super::super::{Job, PoolKey, PythonEnv, Shape, Work};
use super::Crew;
use super::process::Process;
use crate::data::source::{Draft, ReadBatch};
use crate::spec::model::{Call, Program};

/// Rows that wait in the worker are asked for when none has come for so long.
const QUIET: Duration = Duration::from_millis(50);
/// How long an interpreter may take to end once its generator has.
const FAREWELL: Duration = Duration::from_secs(1);
/// What is told of the output of a process that died.
const TAIL_BYTES: u64 = 16 << 10;

/// The rows of a generator.
pub(super) struct Generator {
    /// Asked to end while its socket is still open, so that it can close the generator.
    process: Process,
    data: Channel,
    /// What it prints.
    capture: File,
    /// Rows that have come and were not taken yet.
    rows: Option<Yielded>,
    draft: Draft,
    over: bool,
    failed: Option<String>,
    /// When something came last, and whether the worker was asked for more since.
    heard: Instant,
    urged: bool,
}

impl Generator {
    pub(super) fn start(crew: &Arc<Crew>, python: &Path, program: &Program, draft: Draft) -> Result<Generator, String> {
        let io = |e: std::io::Error| format!("cannot start a Python worker: {e}");
        let capture = capture().map_err(io)?;
        let null = File::open("/dev/null").map_err(io)?;
        let (ours, theirs) = UnixStream::pair().map_err(io)?;
        let fds = [null.as_fd(), capture.as_fd(), capture.as_fd(), theirs.as_fd()];
        let argv: Vec<OsString> = vec![python.into(), "-c".into(), wire::BOOTSTRAP.into()];
        let process = Process::start(crew, argv, Vec::new(), &fds)?;
        let mut data = Channel::new(ours);
        data.push(wire::source_frame());
        data.push(wire::job_frame(0, &job(program, python, &crew.dir)));
        data.push(wire::yield_frame(0, 0));
        let heard = Instant::now();
        Ok(Generator { data, process, capture, rows: None, draft, over: false, failed: None, heard, urged: false })
    }

    fn next_batch(&mut self) -> Result<Option<ReadBatch>, String> {
        while !self.over {
            self.take_rows()?;
            let patience = self.draft.patience();
            if self.draft.is_full() || patience.is_some_and(|left| left.is_zero()) {
                break;
            }
            if !self.hear()? {
                self.wait(patience)?;
            }
        }
        Ok(self.draft.take())
    }

    /// Moves rows that have come into the draft, as far as it takes them.
    fn take_rows(&mut self) -> Result<(), String> {
        while let Some(rows) = self.rows.as_mut().filter(|_| !self.draft.is_full()) {
            if rows.is_empty() {
                self.rows = None;
                break;
            }
            let row = rows.take().map_err(damaged)?;
            self.draft.push(row.bytes.len(), |table| row.put(table));
        }
        Ok(())
    }

    /// Takes in the next frame, unless the rows of the last one still wait; false: it is not here yet.
    fn hear(&mut self) -> Result<bool, String> {
        if self.rows.is_some() {
            return Ok(true);
        }
        let Some((kind, payload)) = self.data.next_frame() else { return Ok(false) };
        (self.heard, self.urged) = (Instant::now(), false);
        if kind == wire::kind::YIELD {
            self.rows = Some(Yielded::new(payload).map_err(damaged)?);
            return Ok(true);
        }
        match wire::decode_shape(kind, &payload, Shape::Many).map_err(damaged)? {
            FromWorker::Done { .. } => self.bid_farewell(),
            FromWorker::Broken { message, .. } => {
                self.bid_farewell();
                return Err(message);
            }
            FromWorker::Hello { .. } | FromWorker::Part { .. } => {}
        }
        Ok(true)
    }

    /// The generator has ended: so may its process.
    fn bid_farewell(&mut self) {
        self.over = true;
        self.data.push(wire::quit_frame());
        self.data.flush();
    }

    /// Waits for more, as long as the draft can.
    fn wait(&mut self, patience: Option<Duration>) -> Result<(), String> {
        self.data.flush();
        if let Some(ended) = self.process.ended().cloned() {
            // What it wrote before counts.
            while self.data.fill() {}
            let problem = ended.problem("its Python process");
            let problem = problem.unwrap_or_else(|| "its Python process ended before its rows did".into());
            return if self.hear()? { Ok(()) } else { Err(self.last_words(problem)) };
        }
        let quiet = (!self.urged).then(|| QUIET.saturating_sub(self.heard.elapsed()));
        let limit = [quiet, patience].into_iter().flatten().min();
        let mut events = PollFlags::IN;
        events.set(PollFlags::OUT, self.data.is_sending());
        let data = (!self.data.ended()).then(|| PollFd::from_borrowed_fd(self.data.socket(), events));
        let [ready] = self.process.wait([data], limit)?;
        if ready {
            self.data.fill();
        } else if !self.urged && self.heard.elapsed() >= QUIET {
            self.urged = true;
            self.process.urge();
        }
        Ok(())
    }

    /// Why there are no more rows, with the end of what the process wrote.
    fn last_words(&self, problem: String) -> String {
        let text = end_of(&self.capture, TAIL_BYTES);
        if text.trim().is_empty() { problem } else { format!("{problem}\n\nits output:\n{}", text.trim_end()) }
    }
}

impl Iterator for Generator {
    type Item = Result<ReadBatch, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(problem) = self.failed.take() {
            return Some(Err(problem));
        }
        let batch = self.next_batch();
        match (batch, self.draft.take()) {
            // The rows that came before it count.
            (Err(problem), Some(rows)) => {
                self.failed = Some(problem);
                Some(Ok(rows))
            }
            (batch, _) => batch.transpose(),
        }
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        if self.over {
            self.process.wait_for_end(FAREWELL);
        }
    }
}

fn damaged(error: impl std::fmt::Display) -> String {
    format!("its Python process sent {error} (descriptor 3 is not a function's to write to)")
}

/// A file without a name for what the process prints.
fn capture() -> std::io::Result<File> {
    let file = tempfile::tempfile()?;
    rustix::fs::fcntl_setfl(&file, OFlags::APPEND | OFlags::RDWR)?;
    Ok(file)
}

fn job(program: &Program, python: &Path, dir: &Path) -> Job {
    let Program::Python { module, function, args, .. } = program else { unreachable!("commands are read elsewhere") };
    let python =
        PythonEnv { interpreter: python.to_path_buf(), path: dir.to_path_buf(), init: None, share: Vec::new() };
    Job {
        stage: String::new(),
        work: Work::Python {
            module: module.clone(),
            function: function.clone(),
            call: Call::Row,
            returns: None,
            args: args.clone(),
        },
        shape: Shape::Many,
        pool: PoolKey { python: Some(python), cwd: dir.to_path_buf(), ..PoolKey::default() },
        workers: 1,
        timeout: None,
        files: Vec::new(),
    }
}
