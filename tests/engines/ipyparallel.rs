//! ipyparallel: a controller that is there, and engines that bpp-flow starts.

use crate::engine::{Engine, mend};
use crate::flow;

fn controller() -> Engine {
    // An engine that was killed does not come back by itself.
    mend("ipyparallel");
    Engine::up("ipyparallel", "{ kind: ipyparallel, connection_file: $BPP_IPYPARALLEL_FILE }")
}

fn engines() -> Engine {
    Engine::of_packages("{ kind: ipyparallel, engines: 2 }")
}

mod connection_file {
    holds!(super::controller());
}

mod started {
    holds!(super::engines());
}

#[test]
#[ignore = "needs the engine: tests/run --engines"]
fn says_why_there_is_no_controller() {
    let nowhere = "{ kind: ipyparallel, connection_file: no-such-file.json, start_timeout: 3s }";
    flow::no_worker_comes(&Engine::of_packages(nowhere), &["no-such-file.json"]);
}
