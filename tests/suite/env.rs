//! [`TestEnv`]: a folder of its own, a cleared environment, and the promise that nothing is left when a test ends.
//!
//! Every process that a test starts inherits `BPP_TEST_MARK`, so that `/proc/*/environ` tells what is left of it; and
//! `TMPDIR`, so that stray files are seen. Both are checked when the `TestEnv` goes out of scope.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

/// No command of a test may take longer.
const LIMIT: Duration = Duration::from_secs(150);
/// How long helpers may take to clear up after a `kill -9`.
const GRACE: Duration = Duration::from_secs(15);

/// A workflow's folder and the environment in which `bpp-flow` runs.
pub struct TestEnv {
    root: tempfile::TempDir,
    mark: String,
    serial: AtomicU64,
    vars: Vec<(String, String)>,
}

/// What a finished command said.
#[derive(Debug)]
pub struct Output {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    what: String,
}

/// A `bpp-flow` that is going; killed when dropped.
pub struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
    what: String,
}

impl TestEnv {
    /// An empty folder with `kit.py` in it.
    pub fn new() -> TestEnv {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let root = tempfile::Builder::new().prefix("bpp-test-").tempdir().expect("a temporary folder");
        for dir in ["work", "home", "tmp", "log", "io"] {
            fs::create_dir(root.path().join(dir)).expect("a folder");
        }
        let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos();
        let mark = format!("{}-{}-{nanos}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let env = TestEnv { root, mark, serial: AtomicU64::new(0), vars: Vec::new() };
        env.write("kit.py", include_str!("py/kit.py"));
        env
    }

    /// A folder with `pipeline.yaml` and `f.py`.
    pub fn with(pipeline: &str, module: &str) -> TestEnv {
        let env = TestEnv::new();
        env.write("pipeline.yaml", pipeline);
        env.write("f.py", module);
        env
    }

    /// Sets a variable for all commands that follow.
    pub fn set_var(&mut self, name: &str, value: &str) {
        self.vars.push((name.to_string(), value.to_string()));
    }

    /// The folder of the workflow.
    pub fn dir(&self) -> PathBuf {
        self.root.path().join("work")
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// Writes a file, folders included.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    /// Reads a text file.
    pub fn read(&self, name: &str) -> String {
        let path = self.path(name);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// The lines that functions logged under `name`.
    pub fn logged(&self, name: &str) -> Vec<String> {
        match fs::read_to_string(self.root.path().join("log").join(name)) {
            Ok(text) => text.lines().map(str::to_string).collect(),
            Err(_) => Vec::new(),
        }
    }

    /// Forgets what was logged.
    pub fn clear_log(&self, name: &str) {
        let _ = fs::remove_file(self.root.path().join("log").join(name));
    }

    /// Opens a gate for `kit.pass_gate`.
    pub fn open_gate(&self, name: &str) {
        fs::write(self.root.path().join("log").join(name), "").expect("a gate");
    }

    /// Any program in the cleared environment.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var_os("PATH").expect("PATH");
        let root = self.root.path();
        command.env_clear().current_dir(self.dir()).stdin(Stdio::null());
        command.env("PATH", path).env("HOME", root.join("home")).env("TMPDIR", root.join("tmp"));
        command.env("LANG", "C.UTF-8").env("NO_COLOR", "1").env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("BPP_TEST_MARK", &self.mark).env("BPP_TEST_LOG", root.join("log"));
        command.envs(self.vars.iter().map(|(k, v)| (k, v)));
        command
    }

    /// The program under test with these arguments.
    pub fn bpp(&self, args: &[&str]) -> Command {
        let mut command = self.command(bpp_flow());
        command.args(args);
        command
    }

    /// Starts a command; what it says goes to files, so that no pipe fills or is held by a grandchild.
    pub fn start(&self, mut command: Command) -> Running {
        let n = self.serial.fetch_add(1, Ordering::Relaxed);
        let io = self.root.path().join("io");
        let (out, err) = (io.join(format!("{n}.out")), io.join(format!("{n}.err")));
        let what = format!("{command:?}").rsplit(r#"bpp-flow""#).next().unwrap_or_default().to_string();
        command.stdout(fs::File::create(&out).expect("a file")).stderr(fs::File::create(&err).expect("a file"));
        let child = command.spawn().unwrap_or_else(|e| panic!("{what}: {e}"));
        Running { child, out, err, what }
    }

    /// Starts `bpp-flow` with these arguments.
    pub fn spawn(&self, args: &[&str]) -> Running {
        self.start(self.bpp(args))
    }

    /// Runs `bpp-flow` with these arguments to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.spawn(args).wait()
    }

    /// Runs `bpp-flow` with a file as its standard input.
    pub fn run_with_input(&self, args: &[&str], input: &str) -> Output {
        let path = self.root.path().join("io/input");
        fs::write(&path, input).expect("a file");
        let mut command = self.bpp(args);
        command.stdin(fs::File::open(&path).expect("a file"));
        self.start(command).wait()
    }

    /// A script of bash, in which `$BPP` is the program.
    pub fn bash(&self, script: &str) -> Output {
        let mut command = self.command("bash");
        command.args(["-c", script]).env("BPP", bpp_flow());
        self.start(command).wait()
    }

    /// The summary of a `run --json` that must end with this code.
    pub fn run_json(&self, args: &[&str], code: i32) -> Json {
        let mut all = vec!["run", "--json"];
        all.extend(args);
        self.run(&all).exits(code).json()
    }

    /// `plan --json`: all of it.
    pub fn plan(&self) -> Json {
        self.run(&["plan", "--json"]).exits(0).json()
    }

    /// One stage of `plan --json`.
    pub fn plan_of(&self, stage: &str) -> Json {
        stage_of(&self.plan(), stage)
    }

    /// One stage of `status --json`.
    pub fn status_of(&self, stage: &str) -> Json {
        stage_of(&self.run(&["status", "--json"]).exits(0).json(), stage)
    }

    /// The rows of a stage, in order.
    pub fn rows(&self, stage: &str) -> Vec<Json> {
        self.run(&["results", stage, "--format", "jsonl"]).exits(0).json_lines()
    }

    /// One column of a stage's rows.
    pub fn column(&self, stage: &str, name: &str) -> Vec<Json> {
        self.rows(stage).iter().map(|row| row.get(name).cloned().unwrap_or(Json::Null)).collect()
    }

    /// The failed items of a stage.
    pub fn failed_rows(&self, stage: &str) -> Vec<Json> {
        self.run(&["results", stage, "--failed", "--format", "jsonl"]).exits(0).json_lines()
    }

    /// `errors --json`.
    pub fn errors(&self) -> Vec<Json> {
        self.run(&["errors", "--json"]).exits(0).json().as_array().expect("a list").clone()
    }

    /// Failures by kind, over all stages.
    pub fn failures_by_kind(&self) -> std::collections::BTreeMap<String, u64> {
        let mut kinds = std::collections::BTreeMap::new();
        for group in self.errors() {
            *kinds.entry(text(&group["kind"])).or_default() += number(&group["count"]);
        }
        kinds
    }

    /// Processes that carry this test's mark.
    pub fn processes_left(&self) -> Vec<String> {
        let needle = format!("BPP_TEST_MARK={}", self.mark);
        let mut left = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let Ok(environ) = fs::read(entry.path().join("environ")) else { continue };
            if environ.split(|b| *b == 0).any(|var| var == needle.as_bytes()) {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                left.push(format!("{:?} {}", entry.file_name(), String::from_utf8_lossy(&line).replace('\0', " ")));
            }
        }
        left
    }

    /// Fails unless every process of the test is gone soon.
    pub fn assert_nothing_runs(&self) {
        let end = Instant::now() + GRACE;
        loop {
            let left = self.processes_left();
            if left.is_empty() {
                return;
            }
            if Instant::now() > end {
                self.kill_left();
                panic!("processes are left: {left:#?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn kill_left(&self) {
        for line in self.processes_left() {
            let digits: String = line.chars().filter(char::is_ascii_digit).take_while(char::is_ascii_digit).collect();
            let pid = line.split('"').nth(1).unwrap_or(&digits);
            let _ = Command::new("kill").args(["-9", pid]).status();
        }
    }

    /// Fails if something lies about in `TMPDIR`.
    pub fn assert_no_stray_files(&self) {
        let left: Vec<_> = fs::read_dir(self.root.path().join("tmp")).expect("tmp").flatten().collect();
        assert!(left.is_empty(), "stray files: {left:?}");
    }
}

impl Drop for TestEnv {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.kill_left();
            if std::env::var_os("BPP_TEST_KEEP").is_some() {
                let kept = std::env::temp_dir().join(format!("bpp-kept-{}", self.mark));
                let _ = fs::rename(self.root.path(), &kept);
                eprintln!("kept in {}", kept.display());
            }
            return;
        }
        self.assert_nothing_runs();
        self.assert_no_stray_files();
    }
}

impl Output {
    /// Fails unless the exit code is this one.
    #[track_caller]
    pub fn exits(self, code: i32) -> Output {
        assert_eq!(self.code, Some(code), "{}\n--- stdout\n{}\n--- stderr\n{}", self.what, self.head(), self.stderr);
        self
    }

    fn head(&self) -> String {
        self.stdout.chars().take(4000).collect()
    }

    /// Standard output as one JSON value.
    #[track_caller]
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("{}: not JSON: {e}\n{}\n{}", self.what, self.head(), self.stderr))
    }

    /// Standard output as JSON lines.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Json> {
        json_lines(&self.stdout)
    }

    /// All that was said, data and talk.
    pub fn all(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }

    /// Fails unless all of these are in what was said.
    #[track_caller]
    pub fn says(self, parts: &[&str]) -> Output {
        let all = self.all();
        for part in parts {
            assert!(all.contains(part), "{} does not say {part:?}:\n{all}", self.what);
        }
        self
    }
}

impl Running {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill(2) takes two integers; the child is ours and not yet waited for.
        let rc = unsafe { libc::kill(self.child.id() as i32, signal) };
        assert_eq!(rc, 0, "kill");
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_some()
    }

    /// `kill -9`; returns once the process itself is gone.
    pub fn kill9(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        let end = Instant::now() + LIMIT;
        let mut pause = Duration::from_micros(500);
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                break status;
            }
            if Instant::now() > end {
                let _ = self.child.kill();
                panic!("{} takes too long:\n{}\n{}", self.what, read_lossy(&self.out), read_lossy(&self.err));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        };
        let (stdout, stderr) = (read_lossy(&self.out), read_lossy(&self.err));
        Output { code: status.code(), stdout, stderr, what: std::mem::take(&mut self.what) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// The program under test: the one cargo built, or `BPP_TEST_BIN`.
pub fn bpp_flow() -> PathBuf {
    std::env::var_os("BPP_TEST_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_bpp-flow")), PathBuf::from)
}

/// Polls until `ready`; fails after a minute.
#[track_caller]
pub fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !ready() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// JSON lines, parsed.
#[track_caller]
pub fn json_lines(text: &str) -> Vec<Json> {
    text.lines().map(|line| serde_json::from_str(&plain_json(line)).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Python's `NaN`, `Infinity` and `-Infinity` outside of strings, as the texts `nan`, `inf` and `-inf`.
fn plain_json(line: &str) -> String {
    let (mut plain, mut rest) = (String::with_capacity(line.len()), line);
    while let Some(c) = rest.chars().next() {
        let tokens = [("NaN", "\"nan\""), ("-Infinity", "\"-inf\""), ("Infinity", "\"inf\"")];
        if let Some((token, word)) = tokens.iter().find(|(token, _)| rest.starts_with(token)) {
            plain.push_str(word);
            rest = &rest[token.len()..];
        } else if c == '"' {
            let end = string_end(rest);
            plain.push_str(&rest[..end]);
            rest = &rest[end..];
        } else {
            plain.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    plain
}

/// Where the JSON string at the start of `text` ends.
fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The entry of a stage in a `stages` list.
#[track_caller]
pub fn stage_of(json: &Json, stage: &str) -> Json {
    let stages = json["stages"].as_array().unwrap_or_else(|| panic!("no stages in {json}"));
    stages.iter().find(|s| s["name"] == stage).unwrap_or_else(|| panic!("no stage {stage} in {json}")).clone()
}

/// A count.
#[track_caller]
pub fn number(json: &Json) -> u64 {
    json.as_u64().unwrap_or_else(|| panic!("no count: {json}"))
}

/// A text.
#[track_caller]
pub fn text(json: &Json) -> String {
    json.as_str().unwrap_or_else(|| panic!("no text: {json}")).to_string()
}

/// Fails unless the named counts of a stage are these.
#[track_caller]
pub fn counts(stage: &Json, expected: &[(&str, u64)]) {
    for (name, count) in expected {
        assert_eq!(stage[*name].as_u64(), Some(*count), "{name} in {stage}");
    }
}

/// A reason's count in an entry of `plan`; none given is 0.
pub fn reason(stage: &Json, name: &str) -> u64 {
    stage["reasons"].get(name).and_then(Json::as_u64).unwrap_or(0)
}

/// Integers of a list of JSON values.
#[track_caller]
pub fn ints(values: &[Json]) -> Vec<i64> {
    values.iter().map(|v| v.as_i64().unwrap_or_else(|| panic!("no integer: {v}"))).collect()
}

/// A CSV of a column `id` from 0 and a column `x` of ten times that.
pub fn numbers_csv(n: usize) -> String {
    let rows: String = (0..n).map(|i| format!("{i},{}\n", i * 10)).collect();
    format!("id,x\n{rows}")
}

/// The different lines of a log.
pub fn distinct(lines: &[String]) -> BTreeSet<String> {
    lines.iter().cloned().collect()
}
