//! Other processes: killed while they write, read while they write.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{open, put, segment_of, stored};
use crate::store::{Store, StoreError};

const DIR: &str = "BPP_FLOW_TEST_STORE";

/// Not a test by itself: the process that the others start. Commits for ever and says so.
#[test]
#[ignore = "started by other tests"]
fn commits_for_ever() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let store = open(Path::new(&dir));
    let first = (0..).find(|&n| !stored(&store, n * 100..n * 100 + 1)[0]).unwrap_or(0);
    for n in first.. {
        store.commit(&[put(&segment_of(n * 100..(n + 1) * 100), false)]).unwrap();
        println!("committed {n}");
    }
}

#[expect(clippy::disallowed_methods, reason = "the test kills a writer")]
fn start(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::processes::commits_for_ever", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Lets a child commit `commits` times, does something, kills it; gives the last commit that it told of.
fn kill_after(dir: &Path, commits: usize, meanwhile: impl FnOnce()) -> u64 {
    let mut child = start(dir);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told = lines.filter_map(|line| line.unwrap().strip_prefix("committed ")?.parse::<u64>().ok());
    let mut last = (&mut told).take(commits).last().unwrap();
    meanwhile();
    child.kill().unwrap();
    child.wait().unwrap();
    last = told.last().unwrap_or(last);
    last
}

#[test]
fn nothing_acknowledged_is_lost_by_kills() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let last = kill_after(dir.path(), 5 + round, || ());
        let found = |store: &Store| stored(store, 0..(last + 1) * 100).iter().all(|&found| found);
        if round % 2 == 0 {
            let reader = Store::read(dir.path()).unwrap().unwrap();
            assert!(found(&reader), "a reader repairs and finds all");
        }
        assert!(found(&open(dir.path())));
    }
}

#[test]
fn a_reader_follows_a_writer_in_another_process() {
    let dir = tempfile::tempdir().unwrap();
    kill_after(dir.path(), 3, || {
        let refused = Store::open(dir.path(), &Default::default());
        assert!(matches!(refused, Err(StoreError::Locked(owner)) if owner.command == "test"));
        let reader = Store::read(dir.path()).unwrap().unwrap();
        let seen = reader.last_sequence("s").unwrap();
        assert!(seen >= 3);
        while reader.last_sequence("s").unwrap() < seen + 20 {}
        assert!(stored(&reader, 0..(seen + 20) * 100).iter().all(|&found| found));
    });
    assert_eq!(Store::owner(dir.path()), None, "the lock went with its process");
}
