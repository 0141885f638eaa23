//! A command that prints rows as JSON lines.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};

use super::Crew;
use super::process::Process;
use crate::data::json::parse_object;
use crate::data::source::{Draft, ReadBatch};

/// Bytes asked of a pipe at once.
const READ_BYTES: usize = 64 << 10;
/// No line is longer.
const MAX_LINE: usize = 256 << 20;
/// What is kept of the end of standard error, and how many lines of it are told.
const TAIL_BYTES: usize = 16 << 10;
const TAIL_LINES: usize = 20;

/// The rows that a command prints.
pub(super) struct Lines {
    /// Closed before the process is asked to end.
    stdout: Option<File>,
    stderr: Option<File>,
    process: Process,
    program: String,
    /// Standard output that was read; the next line begins at `at`, and up to `searched` there is no end of it.
    bytes: Vec<u8>,
    at: usize,
    searched: usize,
    /// The end of standard error.
    tail: Vec<u8>,
    line: u64,
    draft: Draft,
    failed: Option<String>,
}

impl Lines {
    pub(super) fn start(crew: &Arc<Crew>, argv: &[String], draft: Draft) -> Result<Lines, String> {
        let io = |e: std::io::Error| format!("cannot start a process: {e}");
        let null = File::open("/dev/null").map_err(io)?;
        let (stdout, theirs) = pipe().map_err(io)?;
        let (stderr, theirs_err) = pipe().map_err(io)?;
        let fds = [null.as_fd(), theirs.as_fd(), theirs_err.as_fd()];
        let process = Process::start(crew, argv.iter().map(Into::into).collect(), Vec::new(), &fds)?;
        Ok(Lines {
            stdout: Some(stdout),
            stderr: Some(stderr),
            process,
            program: argv.first().cloned().unwrap_or_default(),
            bytes: Vec::new(),
            at: 0,
            searched: 0,
            tail: Vec::new(),
            line: 0,
            draft,
            failed: None,
        })
    }

    fn next_batch(&mut self) -> Result<Option<ReadBatch>, String> {
        loop {
            self.take_lines();
            let patience = self.draft.patience();
            if self.draft.is_full() || patience.is_some_and(|left| left.is_zero()) {
                return Ok(self.draft.take());
            }
            let over = self.stdout.is_none();
            if over && patience.is_some() {
                return Ok(self.draft.take());
            }
            if over && let Some(ended) = self.process.ended() {
                return match ended.problem(&self.program) {
                    None => Ok(None),
                    Some(problem) => Err(self.last_words(problem)),
                };
            }
            let fds = [readable(&self.stdout), readable(&self.stderr)];
            let [out, err] = self.process.wait(fds, patience)?;
            if out {
                self.read_out()?;
            }
            if err {
                self.read_err();
            }
        }
    }

    /// Moves whole lines into the draft, as far as it takes them; the last one needs no end.
    fn take_lines(&mut self) {
        while !self.draft.is_full() {
            let rest = &self.bytes[self.searched..];
            let end = match rest.iter().position(|&b| b == b'\n') {
                Some(end) => self.searched + end + 1,
                None if self.stdout.is_none() && self.at < self.bytes.len() => self.bytes.len(),
                None => {
                    self.searched = self.bytes.len();
                    return;
                }
            };
            let line = &self.bytes[self.at..end];
            self.line += 1;
            (self.at, self.searched) = (end, end);
            if line.trim_ascii().is_empty() {
                continue;
            }
            let (program, number) = (&self.program, self.line);
            self.draft.push(line.len(), |table| {
                let parsed = std::str::from_utf8(line).map_err(|_| "not valid UTF-8".to_string());
                let row = parsed.and_then(|text| parse_object(text.trim_end()).map_err(|e| e.to_string()));
                let row = row.map_err(|what| format!("{program}: line {number}: {what}"))?;
                row.iter().enumerate().for_each(|(at, (name, value))| table.cell(at, name).push(value));
                Ok(())
            });
        }
    }

    fn read_out(&mut self) -> Result<(), String> {
        if self.at > READ_BYTES || self.at == self.bytes.len() {
            self.bytes.drain(..self.at);
            self.searched -= self.at;
            self.at = 0;
        }
        if self.bytes.len() > MAX_LINE {
            return Err(format!("{}: line {}: longer than {} MiB", self.program, self.line + 1, MAX_LINE >> 20));
        }
        if !read(&mut self.stdout, &mut self.bytes) {
            self.stdout = None;
        }
        Ok(())
    }

    fn read_err(&mut self) {
        if !read(&mut self.stderr, &mut self.tail) {
            self.stderr = None;
        }
        let over = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..over);
    }

    /// Why there are no more rows, with the last lines of standard error.
    fn last_words(&mut self, problem: String) -> String {
        while self.stderr.is_some() {
            // Whoever could write into it is gone, so it ends.
            let before = self.tail.len();
            self.read_err();
            if self.tail.len() == before {
                break;
            }
        }
        let text = String::from_utf8_lossy(&self.tail);
        let lines: Vec<&str> = text.trim_end().lines().collect();
        match lines.len() {
            0 => problem,
            n => format!(
                "{problem}; the end of its standard error:\n{}",
                lines[n.saturating_sub(TAIL_LINES)..].join("\n")
            ),
        }
    }
}

impl Iterator for Lines {
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

/// A pipe whose reading end never blocks.
fn pipe() -> std::io::Result<(File, OwnedFd)> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::fs::fcntl_setfl(&ours, OFlags::NONBLOCK)?;
    Ok((File::from(ours), theirs))
}

fn readable(file: &Option<File>) -> Option<PollFd<'_>> {
    file.as_ref().map(|file| PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN))
}

/// Reads what there is; false: that was all there will ever be.
fn read(file: &mut Option<File>, into: &mut Vec<u8>) -> bool {
    let Some(file) = file else { return false };
    let before = into.len();
    into.resize(before + READ_BYTES, 0);
    let read = file.read(&mut into[before..]);
    into.truncate(before + *read.as_ref().unwrap_or(&0));
    match read {
        Ok(n) => n > 0,
        Err(e) => matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted),
    }
}
