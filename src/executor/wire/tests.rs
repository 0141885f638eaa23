//! Real workers, spoken to over a socket pair.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::*;
use crate::data::{Column, FailureKind, Table, TimeKind, Value};
use crate::executor::{Job, Outcomes, PoolKey, PythonEnv, Shape, TaskInput, Work};
use crate::spec::model::{Call, ChunkFormat};

struct Worker {
    child: Child,
    socket: UnixStream,
    buffer: FrameBuffer,
    folder: tempfile::TempDir,
    slot: File,
    jobs: u32,
    seq: u64,
}

impl Worker {
    /// A worker in whose folder there is a module `m` of this text.
    fn start(module: &str) -> Worker {
        Worker::start_with(module, &[])
    }

    fn start_with(module: &str, env: &[(&str, &str)]) -> Worker {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("m.py"), module).unwrap();
        let capture = append(&folder.path().join("capture"));
        let slot = append(&folder.path().join("slot"));
        slot.set_len(64 * 8).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = spawn(folder.path(), &capture, &slot, theirs.into(), env);
        let mut worker = Worker { child, socket: ours, buffer: FrameBuffer::default(), folder, slot, jobs: 0, seq: 0 };
        worker.send(&source_frame());
        worker
    }

    fn send(&mut self, frame: &[u8]) {
        self.socket.write_all(frame).unwrap();
    }

    fn receive(&mut self, job: &Job) -> Option<FromWorker> {
        loop {
            if let Some((kind, payload)) = self.buffer.next_frame().unwrap() {
                return Some(decode(kind, payload, job).unwrap());
            }
            if self.buffer.fill(&mut self.socket, 1 << 16).unwrap() == 0 {
                return None;
            }
        }
    }

    fn job(&self, function: &str, shape: Shape, call: Call) -> Job {
        let python = PythonEnv { interpreter: "python3".into(), path: self.folder.path().into(), init: None };
        Job {
            stage: "stage".into(),
            work: Work::Python { module: "m".into(), function: function.into(), call, returns: None, args: Vec::new() },
            shape,
            pool: PoolKey { threads: false, python: Some(python), env: Vec::new(), cwd: PathBuf::from(".") },
            workers: 1,
            timeout: None,
        }
    }

    fn run(&mut self, job: &Job, table: Table) -> Ended {
        let n = table.rows();
        self.run_input(job, TaskInput::Rows { table, args: Table::empty(n), env: Table::empty(n) })
    }

    fn run_input(&mut self, job: &Job, input: TaskInput) -> Ended {
        self.jobs += 1;
        self.seq += 1;
        self.send(&job_frame(self.jobs, job));
        self.send(&task_frame(self.seq, self.jobs, 0, job, &input));
        self.finish(job)
    }

    /// Reads up to the end of the task.
    fn finish(&mut self, job: &Job) -> Ended {
        let mut ended = Ended { parts: Vec::new(), begun: None, broken: None };
        while let Some(told) = self.receive(job) {
            match told {
                FromWorker::Hello { pid, version, .. } => {
                    assert_eq!(pid, self.child.id());
                    assert!(version.starts_with("3."));
                }
                FromWorker::Part { seq, outcomes } => {
                    assert_eq!(seq, self.seq);
                    ended.parts.push(outcomes);
                }
                FromWorker::Done { seq, begun } => {
                    assert_eq!(seq, self.seq);
                    ended.begun = Some(begun);
                    break;
                }
                FromWorker::Broken { message, .. } => {
                    ended.broken = Some(message);
                    break;
                }
            }
        }
        ended
    }

    fn slot_words(&mut self) -> Vec<u32> {
        use std::os::unix::fs::FileExt;
        let mut bytes = [0; 16];
        self.slot.read_exact_at(&mut bytes, 0).unwrap();
        bytes.as_chunks::<4>().0.iter().map(|w| u32::from_le_bytes(*w)).collect()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn append(path: &Path) -> File {
    File::options().read(true).append(true).create(true).open(path).unwrap()
}

fn spawn(folder: &Path, capture: &File, slot: &File, socket: OwnedFd, env: &[(&str, &str)]) -> Child {
    use std::os::unix::process::CommandExt;
    let slot = rustix::io::dup(slot).unwrap();
    let mut command = Command::new(std::env::var("BPP_FLOW_TEST_PYTHON").unwrap_or("python3".into()));
    command.arg("-c").arg(BOOTSTRAP).current_dir(folder).stdin(Stdio::null());
    command.stdout(capture.try_clone().unwrap()).stderr(capture.try_clone().unwrap());
    command.envs(env.iter().copied()).env("BPP_FLOW_SLOT_FD", "4");
    let (socket_fd, slot_fd) = (socket.as_raw_fd(), slot.as_raw_fd());
    // SAFETY: only dup2, which is async-signal-safe, on descriptors that live until the spawn.
    unsafe {
        command.pre_exec(move || {
            // Out of the way first: either may be 3 or 4 already.
            let (socket, slot) = (libc::fcntl(socket_fd, libc::F_DUPFD, 10), libc::fcntl(slot_fd, libc::F_DUPFD, 10));
            if libc::dup2(socket, 3) < 0 || libc::dup2(slot, 4) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            libc::close(socket);
            libc::close(slot);
            Ok(())
        });
    }
    command.spawn().unwrap()
}

/// What became of a task.
struct Ended {
    parts: Vec<Outcomes>,
    begun: Option<u32>,
    broken: Option<String>,
}

impl Ended {
    /// Items done with their rows (all rows of an item in one list), by item.
    fn rows(&self) -> Vec<(u32, Vec<Vec<(String, Value)>>)> {
        let mut rows = Vec::new();
        for part in &self.parts {
            let mut at = 0;
            for (i, &item) in part.done.iter().enumerate() {
                let n = part.counts.as_ref().map_or(1, |c| c[i]) as usize;
                let n = if part.added.names().is_empty() && part.added.rows() == 0 { 0 } else { n };
                rows.push((item, (at..at + n).map(|r| part.added.row(r)).collect()));
                at += n;
            }
        }
        rows.sort_by_key(|(item, _)| *item);
        rows
    }

    /// One column's cells of items that gave a row each.
    fn column(&self, name: &str) -> Vec<Value> {
        let cell = |row: &Vec<(String, Value)>| row.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        self.rows().iter().flat_map(|(_, rows)| rows.iter().map(cell)).map(|v| v.unwrap_or(Value::Absent)).collect()
    }

    fn failed(&self) -> Vec<(u32, FailureKind, String)> {
        let failed = self.parts.iter().flat_map(|p| p.failed.iter());
        failed.map(|(item, f)| (*item, f.kind, f.message.clone())).collect()
    }
}

fn ints(n: i64) -> Table {
    Table::from_rows((0..n).map(|i| vec![("x".to_string(), Value::Int(i))]))
}

fn one_column(values: Vec<Value>) -> Table {
    let n = values.len();
    Table::new(["x".into()].into(), vec![Column::from_values(values)], n)
}

#[test]
fn rows_go_through() {
    let mut worker = Worker::start("def f(row): return {'y': row['x'] * 2, 'z': None}");
    let job = worker.job("f", Shape::One, Call::Row);
    let ended = worker.run(&job, ints(1000));
    assert_eq!(ended.begun, Some(1000), "{:?}", ended.broken);
    assert_eq!(ended.column("y"), (0..1000).map(|i| Value::Int(i * 2)).collect::<Vec<_>>());
    assert_eq!(worker.slot_words()[0], 0, "idle");
    worker.send(&quit_frame());
    assert!(worker.child.wait().unwrap().success());
}

#[test]
fn exceptions_fail_their_item_and_no_other() {
    let mut worker = Worker::start(
        "import sys\n\ndef f(row):\n    if row['x'] == 2:\n        print('about to fail')\n        raise ValueError('no')\n    if row['x'] == 3:\n        sys.exit(3)\n    return {'y': 1}\n",
    );
    let job = worker.job("f", Shape::One, Call::Row);
    let ended = worker.run(&job, ints(6));
    assert_eq!(ended.rows().len(), 4);
    assert_eq!(
        ended.failed(),
        [(2, FailureKind::Exception, "ValueError: no".into()), (3, FailureKind::Exception, "SystemExit: 3".into())]
    );
    let failure = &ended.parts.iter().flat_map(|p| &p.failed).next().unwrap().1;
    assert_eq!(failure.place, "m.py:6 in f");
    assert_eq!(failure.output, "about to fail\n");
    assert!(failure.traceback.starts_with("Traceback (most recent call last):\n  File"), "{}", failure.traceback);
    assert!(!failure.traceback.contains("<bpp-flow>"), "{}", failure.traceback);
}
