//! Real workers, spoken to over a socket pair.

use std::fs::File;
use std::io::Write;
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

    fn shapeless_job() -> Job {
        let pool = PoolKey::default();
        let work = Work::Command { stdout: crate::spec::model::Stdout::Ignore, ok_codes: Vec::new() };
        Job { stage: String::new(), work, shape: Shape::One, pool, workers: 1, timeout: None, files: Vec::new() }
    }

    fn job(&self, function: &str, shape: Shape, call: Call) -> Job {
        let python =
            PythonEnv { interpreter: "python3".into(), path: self.folder.path().into(), init: None, share: Vec::new() };
        Job {
            stage: "stage".into(),
            work: Work::Python { module: "m".into(), function: function.into(), call, returns: None, args: Vec::new() },
            shape,
            pool: PoolKey { python: Some(python), cwd: PathBuf::from("."), ..PoolKey::default() },
            workers: 1,
            timeout: None,
            files: Vec::new(),
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

    fn slot_words(&self) -> Vec<u32> {
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

#[expect(clippy::disallowed_methods, reason = "the test plays the keeper")]
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

type Row = Vec<(String, Value)>;

/// What became of a task.
struct Ended {
    parts: Vec<Outcomes>,
    begun: Option<u32>,
    broken: Option<String>,
}

impl Ended {
    /// Items done with their rows (all rows of an item in one list), by item.
    fn rows(&self) -> Vec<(u32, Vec<Row>)> {
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
        let cell = |row: &Row| row.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
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

fn args(cells: &[(&str, Value)], n: usize) -> Table {
    Table::from_rows((0..n).map(|_| cells.iter().map(|(n, v)| (n.to_string(), v.clone())).collect::<Vec<_>>()))
}

fn awkward() -> Vec<Value> {
    let text = |s: &str| Value::Text(s.into());
    vec![
        Value::Null,
        Value::Bool(true),
        Value::Int(1),
        Value::Float(1.0),
        Value::Int(i64::MIN),
        Value::integer("123456789012345678901234567890"),
        Value::integer("-9223372036854775809"),
        Value::Float(-0.0),
        Value::Float(f64::NAN),
        Value::Float(f64::NEG_INFINITY),
        Value::Float(5e-324),
        text(""),
        text("s('\u{0}é𝄞"),
        text(&"long ".repeat(100)),
        Value::Bytes(vec![0, 255, b'(']),
        Value::Bytes(Vec::new()),
        Value::List(vec![Value::Int(1), Value::Float(2.0), Value::Null, Value::List(vec![text("x")])]),
        Value::Map(vec![("b".into(), Value::Int(1)), ("".into(), Value::Map(Vec::new()))]),
        Value::Time(TimeKind::DateTime, "2024-02-29T12:30:00.120000+02:00".into()),
        Value::Time(TimeKind::DateTime, "0001-01-01T00:00:00".into()),
        Value::Time(TimeKind::Date, "9999-12-31".into()),
        Value::Time(TimeKind::Time, "23:59:59.999999".into()),
        Value::Time(TimeKind::Duration, "-0.000001".into()),
        Value::Time(TimeKind::Duration, "86400".into()),
        Value::List(vec![Value::Time(TimeKind::Date, "2024-01-01".into())]),
    ]
}

#[test]
fn every_value_comes_back_unharmed() {
    let mut worker = Worker::start(
        "def f(row): return {'y': row['x'], 'l': [row['x']], 'd': {'k': (row['x'],)}}\ndef g(x): return {'y': x}\n\
         def h(rows): return [{'y': r['x']} for r in rows]\ndef many(row): return [{'y': row['x']}, {'y': 1}]\n",
    );
    let list = |v: &Value| Value::List(vec![v.clone()]);
    let job = worker.job("f", Shape::One, Call::Row);
    let ended = worker.run(&job, one_column(awkward()));
    assert_eq!(ended.failed(), []);
    assert_eq!(ended.column("y"), awkward());
    assert_eq!(ended.column("l"), awkward().iter().map(list).collect::<Vec<_>>());
    assert_eq!(
        ended.column("d"),
        awkward().iter().map(|v| Value::Map(vec![("k".into(), list(v))])).collect::<Vec<_>>()
    );
    let job = worker.job("g", Shape::One, Call::Value);
    assert_eq!(worker.run(&job, one_column(awkward())).column("y"), awkward());
    let job = worker.job("h", Shape::One, Call::Chunk(ChunkFormat::Rows));
    assert_eq!(worker.run(&job, one_column(awkward())).column("y"), awkward());
    let job = worker.job("many", Shape::Many, Call::Row);
    let firsts = worker.run(&job, one_column(awkward()));
    let firsts: Vec<Value> = firsts.rows().into_iter().map(|(_, rows)| rows[0][0].1.clone()).collect();
    assert_eq!(firsts, awkward());
}

#[test]
fn arguments_and_environment_travel() {
    let mut worker = Worker::start(
        "import os\ndef f(row, *, n, day): return {'y': [row['x'], n, day.isoformat(), os.environ['V']]}\n",
    );
    let mut job = worker.job("f", Shape::One, Call::Row);
    let Work::Python { args: constant, .. } = &mut job.work else { unreachable!() };
    constant.push(("day".into(), Value::Time(TimeKind::Date, "2024-01-02".into())));
    let input = TaskInput::Rows {
        table: ints(2),
        args: args(&[("n", Value::integer("99999999999999999999"))], 2),
        env: args(&[("V", Value::Int(5))], 2),
    };
    let ended = worker.run_input(&job, input);
    let row = |x| {
        let text = |s: &str| Value::Text(s.into());
        Value::List(vec![Value::Int(x), Value::integer("99999999999999999999"), text("2024-01-02"), text("5")])
    };
    assert_eq!(ended.column("y"), [row(0), row(1)], "{:?}", ended.failed());
}

#[test]
fn what_rust_cannot_keep_fails_its_item_alone() {
    let mut worker = Worker::start(
        "out = [{'y': 1, 'w': 2}, {'a': 5, 'y': '\\ud800'}, {3: 4}, {'y': {'k': '\\udfff'}}, {'\\ud800': 1}, {'y': 2}, \
         {'y': 1 << (1 << 21)}, {b'y': 1}]\n\
         def f(row): return out[row['x']]\ndef many(row): return [{'y': 0}, out[row['x']]]\n",
    );
    for (function, shape) in [("f", Shape::One), ("many", Shape::Many)] {
        let job = worker.job(function, shape, Call::Row);
        let ended = worker.run(&job, ints(8));
        let failed: Vec<u32> = ended.failed().iter().map(|f| f.0).collect();
        assert_eq!(failed, [1, 2, 3, 4, 6, 7]);
        assert!(ended.failed().iter().all(|f| f.1 == FailureKind::Output));
        assert_eq!(ended.failed()[0].2, "column \"y\": text with lone surrogates cannot be kept");
        assert_eq!(ended.rows().iter().map(|r| r.0).collect::<Vec<_>>(), [0, 5]);
        let names: Vec<_> = ended.parts.iter().flat_map(|p| p.added.names().iter().cloned()).collect();
        assert!(names.iter().all(|n| &**n == "y" || &**n == "w"), "nothing of the others is left: {names:?}");
    }
}

#[test]
fn filters_keep_or_drop() {
    let mut worker = Worker::start("def f(row): return row['x'] % 2\n");
    let job = worker.job("f", Shape::Keep, Call::Row);
    let ended = worker.run(&job, ints(4));
    let counts: Vec<u32> = ended.parts.iter().flat_map(|p| p.counts.clone().unwrap()).collect();
    assert_eq!(counts, [0, 1, 0, 1]);
    assert!(ended.parts.iter().all(|p| p.added.names().is_empty() && p.usage.len() == p.done.len()));
}

#[test]
fn groups_stream() {
    let mut worker =
        Worker::start("def f(rows, *, k): return {'n': sum(r['x'] for r in rows) * k}\ndef none(rows, **k): pass\n");
    let job = worker.job("f", Shape::Many, Call::Row);
    worker.send(&job_frame(1, &job));
    worker.seq = 9;
    worker.send(&group_frame(9, 1, 0, &args(&[("k", Value::Int(2))], 1)));
    worker.send(&rows_frame(&ints(5)));
    worker.send(&rows_frame(&ints(3)));
    worker.send(&end_of_rows_frame());
    let ended = worker.finish(&job);
    assert_eq!(ended.rows(), [(0, vec![vec![("n".to_string(), Value::Int(26))]])]);
    let job = worker.job("none", Shape::Many, Call::Row);
    worker.send(&job_frame(2, &job));
    worker.send(&group_frame(9, 2, 0, &Table::empty(1)));
    worker.send(&rows_frame(&ints(5)));
    worker.send(&end_of_rows_frame());
    let ended = worker.finish(&job);
    assert_eq!(ended.parts[0].counts, Some(vec![0]));
    assert_eq!(ended.begun, Some(1));
}

#[test]
fn a_dead_worker_is_named_by_its_slot() {
    let mut worker = Worker::start("import os\ndef f(row):\n    if row['x'] == 3: os.abort()\n");
    let job = worker.job("f", Shape::One, Call::Row);
    let ended = worker.run(&job, ints(9));
    assert_eq!((ended.begun, ended.broken), (None, None));
    assert_eq!(worker.slot_words()[..2], [4, 1]);
}

#[test]
fn a_function_with_several_items_in_hand_blames_none() {
    let mut worker = Worker::start("import os\ndef f(rows): os.abort()\n");
    let job = worker.job("f", Shape::One, Call::Chunk(ChunkFormat::Rows));
    worker.run(&job, ints(9));
    assert_eq!(worker.slot_words()[0], SLOT_CHUNK);
}

#[test]
fn broken_jobs_say_what_is_there() {
    let mut worker = Worker::start("def measure(row): pass\n");
    let job = worker.job("mesure", Shape::One, Call::Row);
    let message = worker.run(&job, ints(1)).broken.unwrap();
    assert_eq!(message, "the module `m` has no function `mesure`; did you mean `measure`?");
}

#[test]
fn frames_are_cut_wherever_the_bytes_break() {
    let stream = [end_of_rows_frame(), rows_frame(&ints(3)), quit_frame()].concat();
    for size in 1..stream.len() {
        let mut buffer = FrameBuffer::default();
        let mut frames = Vec::new();
        for piece in stream.chunks(size) {
            buffer.extend(piece);
            while let Some((kind, payload)) = buffer.next_frame().unwrap() {
                frames.push((kind, payload.len()));
            }
        }
        assert_eq!(frames, [(b'Z', 0), (b'R', rows_frame(&ints(3)).len() - 5), (b'Q', 0)]);
        assert!(!buffer.is_partial());
    }
    let mut buffer = FrameBuffer::default();
    buffer.extend(&[0, 0, 0, 0xFF, b'P']);
    assert_eq!(buffer.next_frame(), Err(WireError::Length(0xFF00_0000)));
}

proptest::proptest! {
    #[test]
    fn damaged_frames_are_errors(kind: u8, mut payload: Vec<u8>, seed: [u8; 20]) {
        let job = Worker::shapeless_job();
        let _ = decode(kind, &payload, &job);
        // A part whose head is whole.
        let mut part = seed.to_vec();
        part.extend_from_slice(b"(\x02\0\0\0[\0\0\0\0[\0\0\0\0");
        part[12..16].copy_from_slice(&[3, 0, 0, 0]);
        part.append(&mut payload);
        let _ = decode(kind::PART, &part, &job);
    }
}

#[test]
fn what_a_generator_yields() {
    let mut worker =
        Worker::start("def f():\n    yield {'x': 1, 'y': 'a'}\n    yield {'x': object()}\n    yield {'z': 2.5}\n");
    let job = worker.job("f", Shape::Many, Call::Row);
    worker.send(&job_frame(7, &job));
    worker.send(&yield_frame(1, 7));
    let mut payloads = Vec::new();
    loop {
        match worker.buffer.next_frame().unwrap() {
            Some((kind::YIELD, payload)) => payloads.push(payload.to_vec()),
            Some((kind::HELLO, _)) => {}
            Some((kind, _)) => break assert_eq!(kind, kind::DONE),
            None => assert!(worker.buffer.fill(&mut worker.socket, 1 << 16).unwrap() > 0),
        }
    }
    let mut table = crate::data::TableBuilder::default();
    let mut bad = Vec::new();
    for payload in &payloads {
        let mut rows = Yielded::new(payload.clone()).unwrap();
        while !rows.is_empty() {
            bad.extend(rows.take().unwrap().put(&mut table).err());
            table.end_row();
        }
        for end in 0..payload.len() {
            let Ok(mut cut) = Yielded::new(payload[..end].to_vec()) else { continue };
            let whole = (0..).map_while(|_| (!cut.is_empty()).then(|| cut.take().is_ok())).all(|taken| taken);
            assert!(!whole, "{end} of {} bytes pass for a frame", payload.len());
        }
    }
    let table = table.finish();
    let row = |at| table.row(at);
    assert_eq!(row(0), [("x".into(), Value::Int(1)), ("y".into(), Value::Text("a".into()))]);
    assert_eq!((row(1), row(2)), (Vec::new(), vec![("z".into(), Value::Float(2.5))]));
    assert!(bad.len() == 1 && bad[0].starts_with("column \"x\": a value of type object"), "{bad:?}");
}
