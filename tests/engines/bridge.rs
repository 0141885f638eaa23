//! A user's own executor: the process pool of Python's standard library.

use crate::documented;
use crate::engine::Engine;
use crate::flow;

fn pool() -> Engine {
    Engine::of_python("{ kind: bridge, python: pool:make_executor, workers: 2 }")
}

holds!(pool());

#[test]
#[ignore = "needs the engine: tests/run --engines"]
fn an_engine_of_ones_own_works_as_documented() {
    documented::an_engine_of_ones_own();
}

#[test]
#[ignore = "needs the engine: tests/run --engines"]
fn says_why_there_is_no_executor() {
    let nothing = Engine::of_python("{ kind: bridge, python: \"pool:nothing\", start_timeout: 3s }");
    flow::no_worker_comes(&nothing, &["pool:nothing"]);
}
