//! Ray: a head node that is there, and one that bpp-flow starts.

use crate::engine::Engine;
use crate::flow;

fn head() -> Engine {
    Engine::up("ray", "{ kind: ray, address: \"$RAY_ADDRESS\" }")
}

holds!(head());

#[test]
#[ignore = "needs the engine: tests/run --engines"]
fn is_started_and_stopped_where_no_address_is_given() {
    flow::as_serial(&Engine::of_packages("{ kind: ray, workers: 2 }"));
}
