//! Planning: from the text of a workflow of 1,000 stages to its compiled graph.

use std::sync::Arc;

use bpp_flow::diagnostic::Sources;
use bpp_flow::plan::{Plan, Surroundings};
use bpp_flow::spec::{LoadOptions, load};
use criterion::{Criterion, criterion_group, criterion_main};

fn workflow(stages: usize) -> String {
    let mut text = String::from("sources: { s0: { range: { start: 0, stop: 10 } } }\nstages:\n");
    for n in 1..=stages {
        text += &format!("  s{n}: {{ map: s{}, assign: {{ value: \"item.value + {n}\" }} }}\n", n - 1);
    }
    text
}

fn planning(c: &mut Criterion) {
    let text = workflow(1000);
    let env = |_: &str| None;
    let dir = std::env::temp_dir();
    let read = || {
        let options =
            LoadOptions { stem: "bench", dir: dir.clone(), params: &[], profiles: &[], backend: None, env: &env };
        load(&Sources::new("bench.yaml", &text), &options).expect("a valid workflow")
    };
    c.bench_function("load 1000 stages", |b| b.iter(read));
    let workflow = Arc::new(read());
    let (secrets, digests) = Default::default();
    let around = Surroundings {
        env: &env,
        cores: 4,
        workers: None,
        run: ("bench", "bench"),
        backend: None,
        secrets: &secrets,
        digests: &digests,
        programs: None,
    };
    c.bench_function("compile 1000 stages", |b| {
        b.iter(|| Plan::compile(workflow.clone(), &around).expect("a plan"));
    });
}

criterion_group!(benches, planning);
criterion_main!(benches);
