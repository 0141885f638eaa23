//! A scheduler of Dask that is there, with two workers.

use crate::engine::Engine;
use crate::flow;

fn scheduler() -> Engine {
    Engine::up("dask", "{ kind: dask, scheduler: \"$BPP_DASK_SCHEDULER\" }")
}

holds!(scheduler());

#[test]
#[ignore = "needs the engine: tests/run --engines"]
fn is_found_by_its_scheduler_file() {
    flow::as_serial(&Engine::up("dask", "{ kind: dask, scheduler_file: $BPP_DASK_SCHEDULER_FILE }"));
}
