//! Broken workflow files and what is said about them: each `broken/NAME.yaml` with its `broken/snapshots/NAME.snap`.
//!
//! `INSTA_UPDATE=always cargo test --test broken` writes the messages anew; read them before committing.

use std::path::{Path, PathBuf};

use bpp_flow::diagnostic::{Sources, render};
use bpp_flow::spec::{LoadOptions, load};

#[test]
fn broken_files_are_explained() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    assert!(files.len() >= 45, "only {} broken files", files.len());
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path("broken/snapshots");
    settings.bind(|| files.iter().for_each(|file| check(file)));
}

fn check(file: &Path) {
    let stem = file.file_stem().and_then(|s| s.to_str()).expect("a plain name");
    let text = std::fs::read_to_string(file).expect("readable");
    let env = |name: &str| (name == "HOME").then(|| "/home/user".to_string());
    let options = LoadOptions { stem, dir: "/work".into(), params: &[], profiles: &[], backend: None, env: &env };
    let sources = Sources::new(format!("{stem}.yaml"), &text);
    let start = std::time::Instant::now();
    let mistakes = load(&sources, &options).expect_err(&format!("{stem}.yaml is broken"));
    assert!(start.elapsed().as_secs_f64() < 1.0, "{stem} took {:?}", start.elapsed());
    insta::assert_snapshot!(stem, render(&sources, &mistakes, false));
}
