//! The same workflow on every engine, held to what `--backend serial` gives.
//!
//! - [`flow`]: the workflow of `flow/` (1,000 items, of which five fail in five ways) and what must hold on every
//!   engine: the same rows, keys, errors and attempts; nothing due after a change of the engine; nothing lost and no
//!   innocent failed when a worker dies; nothing left when bpp-flow is killed, and a run that goes on where it was.
//! - [`engine`]: what an engine's scripts (`NAME-up`, `NAME-down`) tell of it.
//! - `local`: the engines of this machine, for comparison; needs nothing. `documented`: the examples of
//!   `docs/backends.md`.
//! - A module per engine. Its tests are ignored by `cargo test`; `tests/run --engines NAME` starts the engine and runs
//!   them one by one.
#![expect(clippy::disallowed_methods, reason = "the suite starts the program")]

#[path = "../suite/env.rs"]
#[expect(dead_code, reason = "what only the other suite uses")]
mod env;

mod engine;
mod flow;

/// What holds on every engine, as tests of it.
macro_rules! holds {
    ($engine:expr) => {
        #[test]
        #[ignore = "needs the engine: tests/run --engines"]
        fn gives_what_serial_gives() {
            crate::flow::as_serial(&$engine);
        }

        #[test]
        #[ignore = "needs the engine: tests/run --engines"]
        fn loses_nothing_with_a_worker() {
            crate::flow::worker_killed(&$engine);
        }

        #[test]
        #[ignore = "needs the engine: tests/run --engines"]
        fn runs_nothing_once_bpp_flow_is_killed() {
            crate::flow::killed(&$engine);
        }
    };
}

mod bridge;
mod dask;
mod dasklocal;
mod documented;
mod gridengine;
mod ipyparallel;
mod local;
mod mpi;
mod ray;
mod slurm;
mod ssh;
