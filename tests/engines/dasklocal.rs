//! Dask without a scheduler that somebody else has started: workers of Dask on this machine.

use crate::engine::Engine;
use crate::flow;

fn local() -> Engine {
    Engine::of_packages("{ kind: dask, workers: 2 }")
}

holds!(local());

#[test]
#[ignore = "needs the engine: tests/run --engines"]
fn says_why_there_is_no_scheduler() {
    let nowhere = Engine::of_packages("{ kind: dask, scheduler: \"tcp://127.0.0.1:1\", start_timeout: 3s }");
    flow::no_worker_comes(&nowhere, &["tcp://127.0.0.1:1"]);
}
