//! What `docs/backends.md` shows is true.

use std::net::TcpListener;

use crate::engine::Engine;
use crate::env::*;
use crate::flow;

/// The blocks of code of that language.
fn blocks(language: &str) -> Vec<&'static str> {
    let page = include_str!("../../docs/backends.md");
    let fence = format!("```{language}\n");
    page.split(fence.as_str()).skip(1).map(|rest| rest.split("```").next().expect("a block")).collect()
}

#[test]
fn every_backend_is_accepted() {
    let env = TestEnv::new();
    let configured: Vec<_> = blocks("yaml").into_iter().filter(|block| block.starts_with("backends:")).collect();
    assert!(configured.len() >= 8, "{configured:?}");
    for block in configured {
        let backends = block.split("\nstages:").next().and_then(|b| b.split("\ndefaults:").next()).expect("a part");
        let stages = "stages: { one: { shell: \"true\" } }";
        env.write("pipeline.yaml", format!("{}\n{stages}\n", backends.trim_end()));
        env.run(&["check"]).exits(0);
    }
}

/// Run by the tests of the bridge.
pub fn an_engine_of_ones_own() {
    let code = blocks("python");
    let find = |start: &str| *code.iter().find(|block| block.starts_with(start)).expect(start);
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port().to_string();
    let engine = Engine::of_python("{ kind: bridge, python: \"lab:make_executor\" }");
    let env = flow::folder(&engine);
    let lab = find("# lab.py").replace("[\"node1\", \"node2\"]", "[\"127.0.0.1\"]").replace("6000", &port);
    env.write("lab.py", lab);
    env.write("lab.key", "a secret");
    env.write("server.py", find("import pickle\nfrom").replace("(\"\", 6000)", &format!("(\"127.0.0.1\", {port})")));
    let mut server = env.command("python3");
    server.arg("server.py");
    let server = env.start(server);
    let taken = || TcpListener::bind(("127.0.0.1", port.parse::<u16>().expect("a port"))).is_err();
    while !taken() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let run = flow::run(&env);
    flow::assert_as_serial(&env, &run);
    drop(server);
}
