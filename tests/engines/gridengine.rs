//! Dask on Grid Engine, by dask-jobqueue.

use crate::engine::Engine;

fn jobqueue() -> Engine {
    Engine::up(
        "gridengine",
        "{ kind: dask, jobs: 2, cluster: { sge: { queue: main.q, cores: 1, memory: 1GB, interface: lo } } }",
    )
}

holds!(jobqueue());
