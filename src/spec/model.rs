//! The workflow as validated: what a file means, with nothing left to check.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::template::{Expression, RenderError, Scope, Template, TemplateTree};
use crate::data::Value;
use crate::data::export::TableTarget;
use crate::data::sql::Database;
use crate::diagnostic::Span;

/// A whole workflow.
#[derive(Debug, Clone)]
pub struct Workflow {
    /// Its name: names the state folder.
    pub name: String,
    /// One line for people.
    pub description: Option<String>,
    /// The folder to which the file's paths are relative, absolute.
    pub dir: PathBuf,
    /// Parameters, overrides applied, in file order.
    pub params: Vec<(String, Value)>,
    /// The sources, in file order.
    pub sources: Vec<Source>,
    /// The stages, in file order (inputs may name later ones).
    pub stages: Vec<Stage>,
    /// The outputs, in file order.
    pub outputs: Vec<Output>,
    /// `state:`, where the state lies, relative to `dir`.
    pub state: Option<String>,
}

impl Workflow {
    /// The databases that it reads and writes.
    pub fn databases(&self) -> impl Iterator<Item = &Database> {
        let read = self.sources.iter().filter_map(|source| match &source.reader {
            Reader::Sql { database, .. } => Some(database),
            _ => None,
        });
        let written = self.outputs.iter().filter_map(|output| match &output.place {
            OutputPlace::Table(target) => Some(&target.database),
            OutputPlace::File { .. } => None,
        });
        read.chain(written)
    }
}

/// A named source of rows.
#[derive(Debug, Clone)]
pub struct Source {
    pub name: String,
    pub reader: Reader,
    /// The columns that name an item; empty: the row's number does.
    pub key: Vec<String>,
    pub span: Span,
}

/// How a source reads.
#[derive(Debug, Clone)]
pub enum Reader {
    /// One or more files (globs expanded later, sorted), relative to the workflow.
    Files { format: Format, paths: Vec<String>, text: TextOptions },
    /// A row per file that matches; `{name}` wildcards become columns.
    Glob { pattern: String },
    /// A row per line of a file; `None`: standard input.
    Lines { path: Option<String> },
    /// Rows written in place.
    Values { rows: Vec<Vec<(String, Value)>> },
    /// `start, start + step, … < stop` (or `>` for a negative step); integers or floats.
    Range { start: Value, stop: Value, step: Value },
    /// The rows of a query.
    Sql { database: Database, query: String },
    /// A parameter sweep.
    Sweep(Sweep),
    /// What a program gives.
    Program(Program),
}

/// A program that gives rows.
#[derive(Debug, Clone, PartialEq)]
pub enum Program {
    /// A function that yields them.
    Python {
        module: String,
        function: String,
        args: Vec<(String, Value)>,
        /// How many it yields, for progress.
        length: Option<u64>,
        interpreter: Option<String>,
    },
    /// A command that prints them as JSON lines.
    Command { argv: Vec<String> },
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Program::Python { module, function, .. } => write!(f, "{module}:{function}"),
            Program::Command { argv } => f.write_str(&argv.join(" ")),
        }
    }
}

/// `product:` and `zip:`.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// `zip:`; else all combinations, the last column varying fastest.
    pub in_step: bool,
    /// The columns, in order.
    pub columns: Vec<(String, SweepValues)>,
    /// `where:`.
    pub filter: Option<SweepFilter>,
}

impl Sweep {
    /// The other sources whose columns it names (indices into the workflow), perhaps several times.
    pub fn sources(&self) -> impl Iterator<Item = usize> {
        self.columns.iter().filter_map(|(_, values)| match values {
            SweepValues::Column { source, .. } => Some(*source),
            _ => None,
        })
    }
}

/// What a column of a sweep takes on.
#[derive(Debug, Clone)]
pub enum SweepValues {
    Listed(Vec<Value>),
    Range {
        start: Value,
        stop: Value,
        step: Value,
    },
    /// The values of a column of another source (an index into the workflow), in order.
    Column {
        source: usize,
        column: String,
    },
}

/// Which combinations of a sweep are rows, with the values of what the condition names.
#[derive(Debug, Clone)]
pub struct SweepFilter {
    pub condition: Expression,
    pub params: Vec<(String, Value)>,
    pub env: Vec<(String, String)>,
}

/// A table format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    Csv,
    Tsv,
    Jsonl,
    Parquet,
    Arrow,
}

/// How text tables are read.
#[derive(Debug, Clone, Default)]
pub struct TextOptions {
    /// Column names where the file has no header line (`header: [a, b]`), or `header: false` (`c0`, `c1`, …).
    pub header: Header,
    /// The delimiter, where it is not the format's own.
    pub delimiter: Option<u8>,
    /// Types that are given, not inferred.
    pub schema: BTreeMap<String, CellType>,
}

/// Where column names come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Header {
    /// The first line.
    #[default]
    Line,
    /// There is none: `c0`, `c1`, …
    None,
    /// There is none: these.
    Names(Vec<String>),
}

/// A type that `schema:` may give to a column of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellType {
    /// `int`
    Int,
    /// `float`
    Float,
    /// `bool`
    Bool,
    /// `text` (also `str`, `string`)
    Text,
    /// `date`
    Date,
    /// `datetime`
    DateTime,
}

/// A stage.
#[derive(Debug, Clone)]
pub struct Stage {
    pub name: String,
    pub verb: Verb,
    /// What it maps over, in order; empty for a stage that runs once.
    pub inputs: Vec<Input>,
    pub action: Action,
    /// Stages that must have finished without failures before this one starts (indices into `Workflow::stages`).
    pub after: Vec<usize>,
    /// `use:`, the columns that the action sees.
    pub uses: Option<Vec<String>>,
    /// `keep:`, the columns that are passed on.
    pub keep: Option<Vec<String>>,
    pub settings: Settings,
    pub span: Span,
}

/// What a stage does with its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// One row in, one out.
    Map,
    /// One row in, any number out.
    FlatMap,
    /// Rows kept or dropped.
    Filter,
    /// All rows (of a group) in, one or more out.
    Reduce {
        /// Once per distinct value of these; empty: once.
        group_by: Vec<String>,
        /// `needs: all`: blocked by a missing row.
        needs_all: bool,
        /// `ordered: false` makes the order of the rows irrelevant.
        ordered: bool,
    },
    /// No input: runs once.
    Once,
}

/// What a stage maps over (indices into the workflow).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Input {
    Source(usize),
    Stage(usize),
}

impl Input {
    /// The stage, if it is one.
    pub fn stage(&self) -> Option<usize> {
        match *self {
            Input::Stage(stage) => Some(stage),
            Input::Source(_) => None,
        }
    }
}

/// What a stage runs.
#[derive(Debug, Clone)]
pub enum Action {
    Python(PythonAction),
    Command(CommandAction),
    /// New columns from expressions, in order.
    Assign(Vec<(String, Expression)>),
    /// A filter's condition.
    Where(Expression),
}

/// `python:`.
#[derive(Debug, Clone)]
pub struct PythonAction {
    /// `module:function`, apart.
    pub module: String,
    pub function: String,
    pub call: Call,
    /// Names of a returned tuple's elements.
    pub returns: Option<Vec<String>>,
    /// Keyword arguments.
    pub args: Vec<(String, TemplateTree)>,
}

/// How a Python function is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    Row,
    Kwargs,
    Value,
    Chunk(ChunkFormat),
}

/// What a `call: chunk` function gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChunkFormat {
    Pandas,
    Arrow,
    Rows,
}

/// `command:` or `shell:`.
#[derive(Debug, Clone)]
pub struct CommandAction {
    pub line: CommandLine,
    /// What is written to its standard input.
    pub stdin: Option<Template>,
    pub stdout: Stdout,
    pub ok_codes: Vec<i32>,
}

/// What a command is.
#[derive(Debug, Clone)]
pub enum CommandLine {
    /// Each template an argument; one that is a list gives several.
    Argv(Vec<Template>),
    /// A script for `bash -euo pipefail -c`; values are shell-quoted as it is rendered.
    Shell(Template),
}

/// What becomes of a command's standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stdout {
    /// One column of text, trailing newline cut.
    Text {
        column: String,
    },
    /// A JSON object, its keys columns.
    Json,
    /// JSON objects, a row each.
    Jsonl,
    Ignore,
}

/// Settings of a stage, `defaults:` applied.
#[derive(Debug, Clone)]
pub struct Settings {
    pub backend: Engine,
    pub workers: Option<usize>,
    pub cpus: usize,
    /// `None`: auto.
    pub chunk_size: Option<usize>,
    /// `None`: auto.
    pub batch_size: Option<usize>,
    pub retries: Retries,
    pub timeout: Option<Duration>,
    /// Bytes that a worker with all that it starts may hold.
    pub memory: Option<u64>,
    /// How many items a Python worker takes.
    pub max_tasks_per_worker: Option<usize>,
    pub stop_on_error: bool,
    pub max_failures: Option<MaxFailures>,
    /// A Python function run once in every worker.
    pub init: Option<Init>,
    pub env: Vec<(String, Template)>,
    pub cwd: Option<Template>,
    pub version: Option<String>,
    /// Further files that results depend on: globs, or templates of paths.
    pub deps: Vec<Template>,
    /// Installed packages whose versions results depend on.
    pub packages: Vec<String>,
    pub interpreter: Option<String>,
    /// Files that an item makes.
    pub files: Vec<MadeFile>,
    /// Whether the contents of these are looked at, not only their sizes.
    pub verify_files: bool,
    /// What workers load once, for Python functions.
    pub share: Vec<Share>,
}

/// A file that an item makes.
#[derive(Debug, Clone)]
pub struct MadeFile {
    /// Its name in templates, and the column that holds its path.
    pub name: String,
    /// Where it goes, relative to the workflow.
    pub path: Template,
    /// Whether its path may lead out of the workflow's folder; what is written without templates always may.
    pub allow_outside: bool,
}

/// An object that a worker loads once and passes to the function under its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    pub name: String,
    pub from: Shared,
}

/// Where a shared object comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shared {
    /// A file, relative to the workflow.
    File { path: String, format: SharedFormat },
    /// The rows of a stage that has finished (index into `Workflow::stages`; it stands in `Stage::after` too).
    Stage(usize),
}

/// How a shared file is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SharedFormat {
    /// Memory-mapped by numpy.
    Npy,
    /// A dict of numpy's arrays.
    Npz,
    /// A table of pyarrow, memory-mapped.
    Arrow,
    /// A table of pyarrow.
    Parquet,
    Pickle,
    Json,
}

impl SharedFormat {
    /// The endings of files, and what they stand for.
    pub const ENDINGS: [(&'static str, SharedFormat); 8] = [
        ("npy", SharedFormat::Npy),
        ("npz", SharedFormat::Npz),
        ("arrow", SharedFormat::Arrow),
        ("feather", SharedFormat::Arrow),
        ("parquet", SharedFormat::Parquet),
        ("pkl", SharedFormat::Pickle),
        ("pickle", SharedFormat::Pickle),
        ("json", SharedFormat::Json),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            SharedFormat::Npy => "npy",
            SharedFormat::Npz => "npz",
            SharedFormat::Arrow => "arrow",
            SharedFormat::Parquet => "parquet",
            SharedFormat::Pickle => "pickle",
            SharedFormat::Json => "json",
        }
    }
}

/// Where items run, as configured.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Engine {
    pub kind: Backend,
    /// For stages that say nothing of it.
    pub workers: Option<usize>,
    /// What is beyond this machine's own processes.
    pub remote: Option<Arc<Remote>>,
}

/// A kind of engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Backend {
    Serial,
    Threads,
    #[default]
    Processes,
    Remote,
}

/// An engine of somebody else's, to whose workers chunks are given.
#[derive(Debug, Clone, PartialEq)]
pub struct Remote {
    /// Its name under `backends`, or its kind.
    pub name: String,
    pub kind: RemoteKind,
    /// How long a run waits for the first worker.
    pub start_timeout: Duration,
    /// Modules and folders that nodes are sent, relative to the workflow.
    pub upload: Vec<String>,
    /// How nodes reach this machine.
    pub address: Option<String>,
    /// The Python on nodes, or of the bridge.
    pub interpreter: Option<String>,
    pub access: Access,
}

impl Remote {
    /// How many workers it has at most, as far as its options say.
    pub fn workers_at_most(&self) -> Option<usize> {
        match &self.access {
            Access::Slurm(slurm) => Some(slurm.jobs * slurm.workers_per_job),
            Access::Ssh(ssh) => Some(ssh.hosts.len() * ssh.workers_per_host),
            Access::Bridge { options, .. } => {
                let count = |name: &str| match options.iter().find(|(n, _)| n == name)? {
                    (_, Value::Int(n)) => usize::try_from(*n).ok(),
                    _ => None,
                };
                count("workers").or(count("engines"))
            }
        }
    }
}

impl Remote {
    /// How many jobs are submitted for so many items, where jobs are: none that would find nothing to do.
    pub fn jobs_for(&self, items: u64) -> Option<u64> {
        let Access::Slurm(slurm) = &self.access else { return None };
        Some((slurm.jobs as u64).min(items.div_ceil(slurm.workers_per_job as u64)))
    }
}

/// How chunks come to the workers of an engine.
#[derive(Debug, Clone, PartialEq)]
pub enum Access {
    /// Through its client, in a process of its own: what that is told, and the command that it runs under.
    Bridge {
        options: Vec<(String, Value)>,
        launch: Vec<String>,
    },
    Slurm(SlurmOptions),
    Ssh(SshOptions),
}

/// The kinds of [`Remote`] engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RemoteKind {
    Dask,
    Ray,
    Mpi,
    Ipyparallel,
    Bridge,
    Slurm,
    Ssh,
}

impl RemoteKind {
    /// All of them.
    pub const ALL: [RemoteKind; 7] = [
        RemoteKind::Dask,
        RemoteKind::Ray,
        RemoteKind::Mpi,
        RemoteKind::Ipyparallel,
        RemoteKind::Bridge,
        RemoteKind::Slurm,
        RemoteKind::Ssh,
    ];

    /// Its name in the language.
    pub fn name(self) -> &'static str {
        match self {
            RemoteKind::Dask => "dask",
            RemoteKind::Ray => "ray",
            RemoteKind::Mpi => "mpi",
            RemoteKind::Ipyparallel => "ipyparallel",
            RemoteKind::Bridge => "bridge",
            RemoteKind::Slurm => "slurm",
            RemoteKind::Ssh => "ssh",
        }
    }

    /// What a chunk costs beside its items, roughly.
    pub fn overhead(self) -> Duration {
        Duration::from_micros(match self {
            RemoteKind::Dask | RemoteKind::Ipyparallel => 2000,
            RemoteKind::Ray | RemoteKind::Bridge => 500,
            RemoteKind::Mpi => 200,
            RemoteKind::Slurm | RemoteKind::Ssh => 50,
        })
    }
}

/// Jobs of Slurm that hold workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlurmOptions {
    /// At most so many at once.
    pub jobs: usize,
    pub workers_per_job: usize,
    pub partition: Option<String>,
    pub account: Option<String>,
    pub qos: Option<String>,
    pub time: Option<Duration>,
    /// Cores of a job.
    pub cpus: Option<usize>,
    /// Bytes of a job.
    pub memory: Option<u64>,
    pub gres: Option<String>,
    /// Lines of shell before the interpreter is looked for.
    pub setup: Vec<String>,
    /// Further options of sbatch.
    pub sbatch: Vec<String>,
}

/// Hosts that are reached by ssh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshOptions {
    pub hosts: Vec<String>,
    pub workers_per_host: usize,
    /// Lines of shell before the interpreter is looked for.
    pub setup: Vec<String>,
    /// The command that reaches a host, without its name.
    pub ssh: Vec<String>,
}

/// `retries:`.
#[derive(Debug, Clone, PartialEq)]
pub struct Retries {
    pub max: u32,
    pub backoff: Duration,
    pub factor: f64,
    pub max_backoff: Duration,
    pub kinds: Vec<crate::data::FailureKind>,
}

/// `max_failures:`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxFailures {
    Count(u64),
    /// Of the items finished, from 0 to 100.
    Percent(f64),
}

/// `init:`.
#[derive(Debug, Clone)]
pub struct Init {
    pub module: String,
    pub function: String,
    pub args: Vec<(String, TemplateTree)>,
}

/// What a stage's rows are written to.
#[derive(Debug, Clone)]
pub struct Output {
    /// Index of the stage.
    pub stage: usize,
    pub place: OutputPlace,
    /// Only these columns, in this order.
    pub columns: Option<Vec<String>>,
    /// `failed: include`: also failed rows, with `status` and `error`.
    pub with_failed: bool,
    /// Whether a path may lead out of the workflow's folder; what is written without templates always may.
    pub allow_outside: bool,
    /// Of the path or URL.
    pub span: Span,
}

/// Where an output lies.
#[derive(Debug, Clone)]
pub enum OutputPlace {
    /// The path, relative to the workflow.
    File {
        path: Template,
        format: Format,
    },
    Table(TableTarget),
}

impl Output {
    /// The path of the file that it is or lies in, relative to the workflow; `None`: it lies on a server.
    ///
    /// # Errors
    /// When a template cannot be rendered.
    pub fn path(&self, scope: &Scope<'_>) -> Result<Option<String>, RenderError> {
        match &self.place {
            OutputPlace::File { path, .. } => path.render_text(scope).map(Some),
            OutputPlace::Table(target) => Ok(target.database.path().map(str::to_string)),
        }
    }
}
