//! Hosts by ssh.

use crate::engine::Engine;
use crate::flow;

fn hosts(hosts: &str) -> Engine {
    let backend = format!(
        "{{ kind: ssh, hosts: {hosts}, setup: [\"PATH=$VENV/bin:$PATH\"], ssh: [ssh, -F, $BPP_SSH_CONFIG], start_timeout: 10s }}"
    );
    Engine::up("ssh", &backend).with_generations(1)
}

holds!(hosts("[node1, node2]"));

#[test]
#[ignore = "needs the engine: tests/run --engines"]
fn says_why_no_host_answers() {
    flow::no_worker_comes(&hosts("[no-such-host]"), &["no-such-host"]);
}

#[test]
#[ignore = "needs the engine: tests/run --engines"]
fn does_without_a_host_that_does_not_answer() {
    flow::as_serial(&hosts("[no-such-host, node1]"));
}
