//! What fuzzing kept (`fuzz/corpus`), and what it once broke (`fuzz/regressions`), through the functions that it calls.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bpp_flow::fuzzing;

#[test]
fn workflow() {
    replay("workflow", fuzzing::workflow);
}

#[test]
fn frames() {
    replay("frames", fuzzing::frames);
}

#[test]
fn segments() {
    replay("segments", fuzzing::segments);
}

#[test]
fn rows() {
    replay("rows", fuzzing::rows);
}

/// Tries every input of a target; none may take long.
fn replay(target: &str, run: fn(&[u8])) {
    let corpus = files("corpus", target);
    assert!(corpus.len() >= 20, "only {} inputs", corpus.len());
    for file in corpus.into_iter().chain(files("regressions", target)) {
        let bytes = std::fs::read(&file).expect("readable");
        let start = Instant::now();
        if std::panic::catch_unwind(|| run(&bytes)).is_err() {
            panic!("{} breaks {target}", file.display());
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{} took {:?}", file.display(), start.elapsed());
    }
}

/// The inputs of a target, if it has any.
fn files(kind: &str, target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind).join(target);
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.expect("readable").path()).collect()
}
