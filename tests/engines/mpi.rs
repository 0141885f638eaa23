//! MPI, of two makes. The death of a rank takes all others with it.

use crate::engine::Engine;
use crate::flow;

const BACKEND: &str = "{ kind: mpi, launch: [mpiexec, -n, \"3\"] }";

mod openmpi {
    holds!(super::openmpi());
}

mod mpich {
    holds!(super::mpich());
}

fn openmpi() -> Engine {
    Engine::up("mpi", BACKEND)
}

fn mpich() -> Engine {
    Engine::up("mpi", BACKEND).with_python("venv-mpich")
}

#[test]
#[ignore = "needs the engine: tests/run --engines"]
fn says_why_nothing_could_be_launched() {
    let nowhere = Engine::up("mpi", "{ kind: mpi, launch: [no-such-mpiexec, -n, \"3\"], start_timeout: 3s }");
    flow::no_worker_comes(&nowhere, &["no-such-mpiexec"]);
}
