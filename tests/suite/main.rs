//! The black-box suite: drives the real `bpp-flow` in folders of its own and holds it to the contract.
//!
//! - [`env`]: `TestEnv`, with its checks that no process and no stray file is left when a test ends.
//! - `running`, `planning`, `versions`, `selecting`: run and resume, `plan` and its reasons, what is recomputed and
//!   what is not.
//! - `sources`, `sweeps`, `generators`, `outputs`, `stages`, `calls`, `commands`, `values`: the language, seen from outside.
//! - `sources`, `outputs`, `stages`, `calls`, `commands`, `values`: the language, seen from outside.
//! - `sql`: SQLite files and a PostgreSQL server, as sources and outputs.
//! - `sources`, `sweeps`, `generators`, `globs`, `outputs`, `stages`, `calls`, `commands`, `values`: the language, seen
//!   from outside.
//! - `failures`, `broken`, `awkward`: what fails an item, what stops a run, what fails nothing else.
//! - `files`: files that items make, and what is remembered of the contents of files.
//! - `code`: which code results depend on, and how a change of it is told.
//! - `limits`, `suspects`: memory, workers that are recycled, items that take bpp-flow down.
//! - `security`: secrets, shells, paths and permissions.
//! - `signals`, `locking`, `disk`, `damage`: ends of all sorts. (Faults are injected in `tests/faults`.)
//! - `inspecting`: `status`, `errors`, `results`, `runs`, `check`, `init`, `schema`, `completions`.
//! - `property`: random workflows over random tables against a naive oracle (`py/oracle.py`).
//!
//! Every test has a temporary folder and may run beside all others. Tests wait for events (a line in a log, a gate),
//! never for time to pass, and none asserts on speed. Needs `python3` on the path, and no Python package.
//!
//! Variables: `BPP_TEST_CASES` (random workflows, damaged stores; default 6), `BPP_TEST_SEED` (the first of them),
//! `BPP_TEST_BIN` (another binary), `BPP_TEST_KEEP` (keep the folder of a failing test).
#![expect(clippy::disallowed_methods, reason = "the suite starts the program")]

mod env;
mod postgres;

mod awkward;
mod broken;
mod calls;
mod code;
mod commands;
mod config;
mod damage;
mod disk;
mod explaining;
mod failures;
mod files;
mod generators;
mod globs;
mod inspecting;
mod limits;
mod locking;
mod outputs;
mod planning;
mod profiles;
mod property;
#[expect(dead_code, reason = "what only the fault suite uses")]
mod random;
mod running;
mod security;
mod selecting;
mod share;
mod signals;
mod sources;
mod sql;
mod stages;
mod suspects;
mod sweeps;
mod values;
mod versions;
