//! The engines of this machine: the workflow itself is sound.

use crate::engine::Engine;
use crate::flow;

#[test]
fn processes_give_what_serial_gives() {
    flow::as_serial(&Engine::here("{ kind: processes, workers: 3 }"));
}

#[test]
fn processes_end_with_bpp_flow() {
    flow::killed(&Engine::here("{ kind: processes, workers: 3 }"));
}
