//! The language as one table: every key, what its value may be, and what it means.
//!
//! The table drives the checks of shape ([`super::shape`]), their suggestions, and the JSON Schema
//! ([`super::schema`]). What a value means beyond its shape is [`super::validate`]'s business.

/// A mapping of the language.
#[derive(Debug)]
pub struct Shape {
    /// What it is, with its article: `a stage`.
    pub what: &'static str,
    /// Its name in the JSON Schema.
    pub name: &'static str,
    pub doc: &'static str,
    pub keys: &'static [&'static [Key]],
    /// Keys that must be there.
    pub required: &'static [&'static str],
}

impl Shape {
    /// All its keys.
    pub fn all(&self) -> impl Iterator<Item = &'static Key> {
        self.keys.iter().copied().flatten()
    }

    /// The key of that name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.all().find(|k| k.name == name)
    }
}

/// A key.
#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    pub kind: Kind,
    pub doc: &'static str,
}

/// What a value may be.
#[derive(Debug)]
pub enum Kind {
    /// Anything; text in it may be templates, rendered when a stage runs.
    Any,
    /// Anything; text in it may be templates, rendered at once.
    Data,
    /// Text (or a number, taken as it is written).
    Text,
    /// A whole number of at least this.
    Integer(i64),
    /// Any number.
    Number,
    Bool,
    /// One of these words.
    Word(&'static [Word]),
    /// One of these words, or a name of the user's own.
    Named(&'static [Word]),
    Duration,
    Size,
    /// `5%`
    Percent,
    /// Text with `{{ … }}`, rendered when a stage runs.
    Template,
    /// What stands between `{{` and `}}`.
    Expression,
    /// `module:function`
    Function,
    List(&'static Kind),
    /// A value or a list of such.
    OneOrMore(&'static Kind),
    /// A mapping with names of the user's own.
    Map(&'static Kind),
    Shape(&'static Shape),
    /// Keys of this mapping, laid over those of another place; null takes one away there.
    Overlay(&'static Shape),
    Either(&'static [Kind]),
}

/// A word that a value may be.
#[derive(Debug)]
pub struct Word {
    pub name: &'static str,
    pub doc: &'static str,
}

const fn key(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, doc }
}

const fn word(name: &'static str, doc: &'static str) -> Word {
    Word { name, doc }
}

/// Names of columns, stages or files.
const NAMES: Kind = Kind::OneOrMore(&Kind::Text);
const SIZE_OR_AUTO: Kind = Kind::Either(&[Kind::Integer(1), Kind::Word(&[word("auto", "chosen as the run goes")])]);

/// A workflow file.
pub static WORKFLOW: Shape = Shape {
    what: "a workflow",
    name: "workflow",
    doc: "A bpp-flow workflow: sources of rows, stages that map over them, outputs.",
    keys: &[&[
        key(
            "name",
            Kind::Text,
            "The workflow's name, which names its state folder; default: the file's name without its extension.",
        ),
        key("description", Kind::Text, "What the workflow is for."),
        key(
            "params",
            Kind::Map(&Kind::Any),
            "Parameters and their defaults; `--param name=value` overrides one. Templates see them as `params.name`.",
        ),
        key("sources", Kind::Map(&Kind::Shape(&SOURCE)), "Where rows come from, by name."),
        key(
            "defaults",
            Kind::Shape(&DEFAULTS),
            "Settings for all stages; a stage's own setting wins (`env` is joined name by name).",
        ),
        key("stages", Kind::Map(&Kind::Shape(&STAGE)), "What is done, by name."),
        key(
            "outputs",
            Kind::Map(&OUTPUTS),
            "Files that a stage's rows are written to, by the stage's name; the extension gives the format.",
        ),
        key("state", Kind::Text, "Where the state lies; default: `.bpp-flow/NAME` beside the workflow file."),
        key("backends", Kind::Map(&Kind::Shape(&BACKEND)), "Configured engines, by name: `backend: NAME` uses one."),
        key(
            "profiles",
            Kind::Map(&Kind::Shape(&PROFILE)),
            "Overlays of this file, by name: `--profile NAME` chooses one.",
        ),
    ]],
    required: &["stages"],
};

/// A source.
pub static SOURCE: Shape = Shape {
    what: "a source",
    name: "source",
    doc: "A source of rows: one reader and its options.",
    keys: &[READERS, SOURCE_OPTIONS],
    required: &[],
};

/// The keys of a source of which there must be exactly one.
pub const READERS: &[Key] = &[
    key("csv", NAMES, "One or more CSV files, or a glob; `.gz` and `.zst` are unpacked."),
    key("tsv", NAMES, "One or more files of tab-separated values, or a glob."),
    key("jsonl", NAMES, "One or more files with a JSON object per line, or a glob."),
    key("parquet", NAMES, "One or more Parquet files, or a glob."),
    key("arrow", NAMES, "One or more Arrow IPC files, or a glob."),
    key(
        "glob",
        Kind::Text,
        "A row per file that matches: `path`, `name`, `stem`, `parent`, `size`, `modified` and the `{wildcards}` by name.",
    ),
    key("lines", Kind::Text, "A row per line of a file, as `line`; `stdin` (or `-`) is standard input."),
    key(
        "values",
        Kind::List(&Kind::Data),
        "Rows written in place: scalars give the column `value`, mappings their columns.",
    ),
    key("range", Kind::Shape(&RANGE), "Numbers, as `value`."),
    key("product", Kind::Map(&SWEEP_VALUES), "A parameter sweep: all combinations, the last name varying fastest."),
    key("zip", Kind::Map(&SWEEP_VALUES), "A parameter sweep: the first values of all names, then the second, …"),
    key("sql", Kind::Shape(&SQL), "The rows of a query."),
    key("python", Kind::Function, "A generator function that yields rows; it is run each time, and read as it goes."),
    key("command", Kind::List(&Kind::Template), "A command that prints rows as JSON lines; it is run each time."),
];

const SOURCE_OPTIONS: &[Key] = &[
    key("key", NAMES, "The column or columns that name an item."),
    key(
        "header",
        Kind::Either(&[Kind::Bool, Kind::List(&Kind::Text)]),
        "`false`: the files have no header line, columns are c0, c1, …; a list: the columns' names.",
    ),
    key("delimiter", Kind::Text, "The character between two fields."),
    key("schema", Kind::Map(&Kind::Word(CELL_TYPES)), "Types of columns that are not to be inferred."),
    key("where", Kind::Expression, "Keeps only the combinations of a sweep for which it holds."),
    key("args", Kind::Map(&Kind::Data), "Keyword arguments of the generator function."),
    key("length", Kind::Integer(0), "How many rows the generator yields, for progress."),
];

const CELL_TYPES: &[Word] = &[
    word("int", "a whole number"),
    word("float", "a number"),
    word("bool", "true or false"),
    word("text", "text as it stands"),
    word("str", "text as it stands"),
    word("string", "text as it stands"),
    word("date", "a calendar date"),
    word("datetime", "a date and a time of day"),
];

static SQL: Shape = Shape {
    what: "a query",
    name: "sql",
    doc: "A query of an SQLite file or a PostgreSQL database.",
    keys: &[&[
        key(
            "url",
            Kind::Text,
            "`sqlite:///file.db` (beside the workflow file), `sqlite:////absolute/file.db` or `postgresql://user@host/database`.",
        ),
        key("query", Kind::Template, "One `select`, which can change nothing; values of templates are literals in it."),
    ]],
    required: &["url", "query"],
};

static RANGE: Shape = Shape {
    what: "a range",
    name: "range",
    doc: "start, start + step, … up to but without stop.",
    keys: &[&[
        key("start", Kind::Number, "The first value; default 0."),
        key("stop", Kind::Number, "The end, itself left out."),
        key("step", Kind::Number, "From one value to the next; default 1."),
    ]],
    required: &["stop"],
};

/// What a name of a sweep takes on.
const SWEEP_VALUES: Kind = Kind::Either(&[Kind::List(&Kind::Data), Kind::Shape(&SWEEP_RANGE), Kind::Text]);

static SWEEP_RANGE: Shape = Shape {
    what: "values of a sweep",
    name: "sweep_range",
    doc: "The numbers of a range.",
    keys: &[&[key("range", Kind::Shape(&RANGE), "start, start + step, … up to but without stop.")]],
    required: &["range"],
};

/// A stage.
pub static STAGE: Shape = Shape {
    what: "a stage",
    name: "stage",
    doc: "A stage: one verb with its input, one action, and settings. Without a verb it runs once.",
    keys: &[VERBS, ACTIONS, STAGE_OPTIONS, SETTINGS],
    required: &[],
};

/// The keys of a stage of which there may be one; its value is the input.
pub const VERBS: &[Key] = &[
    key("map", NAMES, "One row in, one row out, for each row of this source or stage (or of several)."),
    key("flat_map", NAMES, "One row in, any number of rows out."),
    key("filter", NAMES, "Keeps the rows for which the action says so."),
    key("reduce", NAMES, "All rows in (of each group, with `group_by`), one or more out."),
];

/// The keys of a stage of which there must be exactly one.
pub const ACTIONS: &[Key] = &[
    key("python", Kind::Function, "A Python function, `module:function`, found beside the workflow file first."),
    key("command", Kind::List(&Kind::Template), "A program and its arguments, each element one argument."),
    key("shell", Kind::Template, "A script for bash; values are quoted as they are filled in."),
    key("assign", Kind::Map(&Kind::Expression), "New columns from expressions."),
    key("where", Kind::Expression, "A filter's condition."),
];

/// Options of a stage that depend on its verb or action.
const STAGE_OPTIONS: &[Key] = &[
    key("call", Kind::Word(CALLS), "How the Python function is called."),
    key("chunk_format", Kind::Word(CHUNK_FORMATS), "What a `call: chunk` function gets; default pandas."),
    key("args", Kind::Map(&Kind::Any), "Keyword arguments of the Python function."),
    key("returns", Kind::List(&Kind::Text), "Names of the elements of a returned tuple."),
    key("stdin", Kind::Template, "What the command reads on its standard input."),
    key("stdout", Kind::Word(STDOUTS), "What becomes of the command's standard output; default text."),
    key("ok_codes", Kind::OneOrMore(&Kind::Integer(0)), "Exit codes that mean success; default [0]."),
    key("group_by", NAMES, "Reduces once for each distinct value of these columns."),
    key(
        "needs",
        Kind::Word(&[word("all", "blocked as long as a row is missing")]),
        "`all`: a reduce waits for every row, failed ones too.",
    ),
    key("ordered", Kind::Bool, "`false`: the order of the rows does not matter to a reduce; default true."),
    key("after", NAMES, "Stages that must have finished without failures before."),
    key("use", NAMES, "The columns that the action sees, and so what its results depend on; default all."),
    key("keep", NAMES, "The columns that are passed on; default all."),
];

const CALLS: &[Word] = &[
    word("row", "the row as a dict, then `args` as keywords"),
    word("kwargs", "the columns that the signature names, as keywords"),
    word("value", "the column `value`, or the only column of `use`, as first argument"),
    word("chunk", "a whole chunk, as `chunk_format` says"),
];

const CHUNK_FORMATS: &[Word] =
    &[word("pandas", "a pandas DataFrame"), word("arrow", "a pyarrow Table"), word("rows", "a list of dicts")];

const STDOUTS: &[Word] = &[
    word("text", "the column `stdout`, without the trailing newline"),
    word("json", "an object whose keys become columns"),
    word("jsonl", "an object per line, each a row"),
    word("ignore", "dropped"),
];

/// `defaults:`
pub static DEFAULTS: Shape =
    Shape { what: "`defaults`", name: "defaults", doc: "Settings for all stages.", keys: &[SETTINGS], required: &[] };

/// An overlay under `profiles`, or a file that holds one.
pub static PROFILE: Shape = Shape {
    what: "a profile",
    name: "profile",
    doc: "What differs where this profile is chosen: parameters, settings, engines, the place of the state.",
    keys: &[&[
        key("params", Kind::Map(&Kind::Any), "Parameters; `--param` wins over them."),
        key("defaults", Kind::Overlay(&DEFAULTS), "Settings for all stages that do not set them themselves."),
        key("backends", Kind::Map(&Kind::Shape(&BACKEND)), "Configured engines, by name."),
        key(
            "stages",
            Kind::Map(&Kind::Overlay(&DEFAULTS)),
            "Settings by stage, which win over the stage's own; null takes one away.",
        ),
        key("state", Kind::Text, "Where the state lies, relative to the workflow file."),
    ]],
    required: &[],
};

/// An engine under `backends`.
pub static BACKEND: Shape = Shape {
    what: "a backend",
    name: "backend",
    doc: "A configured engine: its kind and what that kind takes.",
    keys: &[&[key("kind", Kind::Named(BACKENDS), "Which kind of engine."), ENGINE_WORKERS], ENGINE_OPTIONS],
    required: &["kind"],
};

const ENGINE_WORKERS: Key = key(
    "workers",
    Kind::Integer(1),
    "How many items run at once of a stage that says nothing of it; default: the cores.",
);

/// What engines beyond this machine's own processes take.
pub const ENGINE_OPTIONS: &[Key] = &[
    key("start_timeout", Kind::Duration, "How long a run waits for the first worker; default 5m."),
    key("upload", NAMES, "Modules, or folders of them, that nodes without the workflow's folder get."),
    key("address", Kind::Text, "Ray: where its cluster listens; others: how nodes reach this machine."),
    key("interpreter", Kind::Text, "The Python on nodes, or of the process that talks to the engine."),
    key("scheduler", Kind::Text, "Where a running Dask scheduler listens."),
    key("scheduler_file", Kind::Text, "The file in which a Dask scheduler says where it listens."),
    key("security", Kind::Data, "TLS files of a Dask scheduler: ca_file, cert, key."),
    key("cluster", Kind::Data, "How dask-jobqueue submits jobs: slurm, sge, pbs, lsf or htcondor, and its options."),
    key("adapt", Kind::List(&Kind::Integer(0)), "The least and the most jobs of an adaptive Dask cluster."),
    key("mpi", Kind::Bool, "Dask's workers are the other ranks of an MPI job (dask-mpi)."),
    key("resources", Kind::Data, "What an item takes of a Ray cluster: cpus, gpus, memory."),
    key("launch", NAMES, "The command that starts MPI processes."),
    key("profile", Kind::Text, "The profile of a running ipyparallel cluster."),
    key("connection_file", Kind::Text, "The connection file of a running ipyparallel cluster."),
    key("engines", Kind::Integer(1), "How many ipyparallel engines are started."),
    key("python", Kind::Function, "A function of your own that gives an executor: module:function."),
    key("jobs", Kind::Integer(1), "How many jobs are submitted, at most."),
    key("workers_per_job", Kind::Integer(1), "How many workers each job has; default 1."),
    key("partition", Kind::Text, "The partition of Slurm."),
    key("account", Kind::Text, "The account of Slurm."),
    key("qos", Kind::Text, "The quality of service of Slurm."),
    key("time", Kind::Text, "The time limit of a job, such as 2h or 1-00:00:00."),
    key("memory", Kind::Size, "The memory of a job, such as 8GiB."),
    key("cpus", Kind::Integer(1), "The cores of a job; default: one a worker."),
    key("gres", Kind::Text, "Generic resources of a job, such as gpu:1."),
    key("setup", NAMES, "Lines of shell that run before the interpreter is looked for, such as module load."),
    key("sbatch", NAMES, "Further options of sbatch."),
    key("hosts", NAMES, "The hosts on which workers are started."),
    key("workers_per_host", Kind::Integer(1), "How many workers each host has; default 1."),
    key("ssh", NAMES, "The command that reaches a host; default ssh -o BatchMode=yes."),
];

/// Settings of a stage that may stand under `defaults`.
pub const SETTINGS: &[Key] = &[
    key("backend", Kind::Named(BACKENDS), "Where items run: a kind, or a name under `backends`; default processes."),
    key("workers", Kind::Integer(1), "How many items of this stage run at once; default: the cores."),
    key("cpus", Kind::Integer(1), "How many cores one item takes; default 1."),
    key("chunk_size", SIZE_OR_AUTO, "Items sent to a worker in one message; default auto."),
    key("batch_size", SIZE_OR_AUTO, "Items that flow through the stages together, at most; default auto."),
    key("retries", Kind::Either(RETRIES_FORMS), "How often a failed item is tried again; default 0."),
    key("timeout", Kind::Duration, "Limit per item, such as 30s."),
    key("memory", Kind::Size, "Limit per worker with all that it starts, such as 2GiB; the item in hand fails."),
    key(
        "max_tasks_per_worker",
        Kind::Integer(1),
        "How many items a Python worker takes before a new one takes its place; default: no limit.",
    ),
    key(
        "on_error",
        Kind::Word(&[word("continue", "the other items go on"), word("stop", "the run stops")]),
        "What a failed item means for the run; default continue.",
    ),
    key(
        "max_failures",
        Kind::Either(&[Kind::Integer(0), Kind::Percent]),
        "The run stops when more items fail: a number, or a share such as 5%.",
    ),
    key("init", Kind::Shape(&INIT), "A Python function that runs once in every worker before its first item."),
    key("env", Kind::Map(&Kind::Template), "Environment variables."),
    key("cwd", Kind::Template, "The folder in which the action runs; default: the workflow file's."),
    key("version", Kind::Text, "Part of what results depend on: change it to have them made again."),
    key("deps", Kind::OneOrMore(&Kind::Template), "Further files that results depend on: paths, globs or templates."),
    key("interpreter", Kind::Text, "The Python interpreter; default: $VIRTUAL_ENV, then python3."),
    key(
        "files",
        Kind::Map(&FILE_FORMS),
        "Files that an item makes: a name, which templates see as `files.NAME` and Python as a keyword, and the path.",
    ),
    key(
        "verify_files",
        Kind::Bool,
        "`true`: not only the sizes of the files that items made are looked at, but their contents.",
    ),
    key(
        "share",
        Kind::Map(&SHARED),
        "Large read-only objects, loaded once per worker and passed as keywords: a file, or a finished stage's rows.",
    ),
    key("packages", NAMES, "Installed packages whose versions results depend on."),
];

/// The kinds of engines.
pub const BACKENDS: &[Word] = &[
    word("serial", "one item at a time, in order"),
    word("threads", "one Python process with many threads"),
    word("processes", "a process per worker"),
    word("dask", "tasks of Dask"),
    word("ray", "tasks of Ray"),
    word("mpi", "tasks of mpi4py.futures"),
    word("ipyparallel", "tasks of ipyparallel"),
    word("slurm", "jobs of Slurm"),
    word("ssh", "processes on other hosts"),
    word("bridge", "tasks of an executor of your own"),
];

const RETRIES_FORMS: &[Kind] = &[Kind::Integer(0), Kind::Shape(&RETRIES)];

static RETRIES: Shape = Shape {
    what: "`retries`",
    name: "retries",
    doc: "How often, when and after what a failed item is tried again.",
    keys: &[&[
        key("max", Kind::Integer(0), "How often."),
        key("backoff", Kind::Duration, "Time before the first new attempt; default 1s."),
        key("factor", Kind::Number, "By which that time grows with each attempt; default 2."),
        key("max_backoff", Kind::Duration, "The longest such time; default 1m."),
        key("kinds", Kind::OneOrMore(&Kind::Word(FAILURES)), "After which failures; default: all of them."),
        key("on", Kind::OneOrMore(&Kind::Word(FAILURES)), "Another name of `kinds`."),
    ]],
    required: &["max"],
};

const FAILURES: &[Word] = &[
    word("exception", "the function raised"),
    word("exit", "a non-zero exit code"),
    word("output", "a value that cannot be kept"),
    word("timeout", "it took too long"),
    word("memory", "it took too much memory"),
    word("crash", "its process died"),
];

const FILE_FORMS: Kind = Kind::Either(&[Kind::Template, Kind::Shape(&FILE)]);

/// A file that an item makes.
pub static FILE: Shape = Shape {
    what: "a file",
    name: "file",
    doc: "A file that an item makes.",
    keys: &[&[
        key("path", Kind::Template, "Where it goes, relative to the workflow file."),
        key("allow_outside", Kind::Bool, "`true`: a path made of templates may lead out of the workflow's folder."),
    ]],
    required: &["path"],
};

static INIT: Shape = Shape {
    what: "`init`",
    name: "init",
    doc: "A function that prepares a worker.",
    keys: &[&[
        key("python", Kind::Function, "The function, `module:function`."),
        key("args", Kind::Map(&Kind::Any), "Its keyword arguments."),
    ]],
    required: &["python"],
};

const SHARED: Kind = Kind::Either(&[Kind::Text, Kind::Shape(&SHARE)]);

/// What `share` takes that is no file.
pub static SHARE: Shape = Shape {
    what: "a shared object",
    name: "share",
    doc: "The rows of a finished stage, as a table.",
    keys: &[&[key("stage", Kind::Text, "The stage; this one waits until it has finished without failures.")]],
    required: &["stage"],
};

const OUTPUTS: Kind = Kind::OneOrMore(&Kind::Either(&[Kind::Template, Kind::Shape(&OUTPUT)]));

/// An output.
pub static OUTPUT: Shape = Shape {
    what: "an output",
    name: "output",
    doc: "A file, or a table of a database, that a stage's rows are written to.",
    keys: &[&[
        key("path", Kind::Template, "The file, relative to the workflow file."),
        key("format", Kind::Word(FORMATS), "Its format; default: by the extension."),
        key("columns", NAMES, "Only these columns, in this order."),
        key(
            "failed",
            Kind::Word(&[word("include", "failed rows too, with `status` and `error`")]),
            "`include`: failed rows are written too.",
        ),
        key("allow_outside", Kind::Bool, "`true`: a path made of templates may lead out of the workflow's folder."),
        key("sql", Kind::Template, "The URL of a database, instead of `path`; see a source's `sql`."),
        key("table", Kind::Text, "The table in it: `name` or `schema.name`."),
        key("mode", Kind::Word(TABLE_MODES), "How the table is written; default replace."),
    ]],
    required: &[],
};

const TABLE_MODES: &[Word] = &[
    word("replace", "the table holds these rows and no others; one that bpp-flow did not make is refused"),
    word("upsert", "rows of the same key are updated, others inserted"),
];

const FORMATS: &[Word] = &[
    word("parquet", "Parquet"),
    word("csv", "comma-separated values"),
    word("tsv", "tab-separated values"),
    word("jsonl", "a JSON object per line"),
    word("arrow", "Arrow IPC file"),
];

/// All shapes, for hints at keys that stand in the wrong place.
pub static SHAPES: &[&Shape] = &[
    &WORKFLOW,
    &SOURCE,
    &STAGE,
    &RETRIES,
    &INIT,
    &OUTPUT,
    &RANGE,
    &SWEEP_RANGE,
    &SQL,
    &FILE,
    &PROFILE,
    &BACKEND,
    &SHARE,
];

/// Words that other tools use, and ours.
pub const OTHER_WORDS: &[(&str, &str)] = &[
    ("input", "map"),
    ("inputs", "map"),
    ("foreach", "map"),
    ("for_each", "map"),
    ("each", "map"),
    ("flatmap", "flat_map"),
    ("aggregate", "reduce"),
    ("depends_on", "after"),
    ("depends", "after"),
    ("needs_stages", "after"),
    ("run", "shell"),
    ("script", "shell"),
    ("bash", "shell"),
    ("sh", "shell"),
    ("cmd", "command"),
    ("exec", "command"),
    ("function", "python"),
    ("func", "python"),
    ("py", "python"),
    ("condition", "where"),
    ("when", "where"),
    ("if", "where"),
    ("kwargs", "args"),
    ("arguments", "args"),
    ("environment", "env"),
    ("jobs", "workers"),
    ("parallel", "workers"),
    ("concurrency", "workers"),
    ("threads", "workers"),
    ("cores", "cpus"),
    ("retry", "retries"),
    ("attempts", "retries"),
    ("columns", "use"),
    ("select", "keep"),
    ("groupby", "group_by"),
    ("workdir", "cwd"),
    ("working_directory", "cwd"),
    ("parameters", "params"),
    ("vars", "params"),
    ("variables", "params"),
    ("source", "sources"),
    ("steps", "stages"),
    ("tasks", "stages"),
    ("rules", "stages"),
    ("targets", "outputs"),
    ("id", "key"),
    ("separator", "delimiter"),
    ("sep", "delimiter"),
    ("types", "schema"),
    ("dtypes", "schema"),
    ("json", "jsonl"),
    ("ndjson", "jsonl"),
    ("feather", "arrow"),
    ("files", "glob"),
    ("grid", "product"),
    ("matrix", "product"),
    ("end", "stop"),
    ("count", "max"),
    ("times", "max"),
];

impl Kind {
    /// What it is, in words: `a whole number of at least 1`.
    pub fn describe(&self) -> String {
        let names = |words: &[Word]| {
            let names: Vec<&str> = words.iter().map(|w| w.name).collect();
            match names.as_slice() {
                [only] => format!("`{only}`"),
                many => format!("one of {}", many.join(", ")),
            }
        };
        match self {
            Kind::Any | Kind::Data => "a value".into(),
            Kind::Text | Kind::Template => "text".into(),
            Kind::Integer(0) => "a whole number".into(),
            Kind::Integer(min) => format!("a whole number of at least {min}"),
            Kind::Number => "a number".into(),
            Kind::Bool => "true or false".into(),
            Kind::Word(words) => names(words),
            Kind::Named(words) => format!("{}, or a name of your own", names(words)),
            Kind::Duration => "a duration such as 30s, 1.5h or 100ms".into(),
            Kind::Size => "a size such as 2GiB".into(),
            Kind::Percent => "a share such as 5%".into(),
            Kind::Expression => "an expression".into(),
            Kind::Function => "a function as module:function".into(),
            Kind::List(Kind::Data | Kind::Any) => "a list".into(),
            Kind::List(element) => format!("a list of {}", element.describe()),
            Kind::OneOrMore(Kind::Text) => "a name, or a list of names".into(),
            Kind::OneOrMore(element) => format!("{}, or a list of such", element.describe()),
            Kind::Map(_) => "a mapping of names to values".into(),
            Kind::Shape(shape) | Kind::Overlay(shape) => {
                format!("a mapping ({})", shape.all().map(|k| k.name).take(4).collect::<Vec<_>>().join(", "))
            }
            Kind::Either(kinds) => kinds.iter().map(Kind::describe).collect::<Vec<_>>().join(", or "),
        }
    }
}
