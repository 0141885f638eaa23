//! A user's own executor: the process pool of Python's standard library.

use crate::engine::Engine;

fn pool() -> Engine {
    Engine::of_packages("{ kind: bridge, python: pool:make_executor, workers: 2 }")
}

holds!(pool());
