//! Commands.

use std::time::{Duration, Instant};

use bpp_flow::data::{FailureKind, Table, Value};
use bpp_flow::executor::{CommandItem, Executor, Shape, TaskInput};
use bpp_flow::spec::model::Stdout;

use crate::bench::*;

fn stdout(ended: &Ended, item: u32) -> String {
    match &ended.rows[&item][0][0].1 {
        Value::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn commands_run_and_are_told_apart() {
    let mut bench = Bench::new(4);
    let job = command_job(text(), Shape::One, 4, Some(Duration::from_millis(400)));
    let items = vec![
        command(&["echo", "hello"]),
        shell("echo problem >&2; exit 3"),
        command(&["no-such-program-at-all"]),
        shell("kill -ABRT $$"),
        command(&["sleep", "60"]),
        CommandItem { stdin: Some(vec![b'x'; 3 << 20]), ..shell("wc -c") },
        CommandItem {
            env: vec![("NAME".into(), "me".into())],
            cwd: Some("/usr".into()),
            ..shell("echo $NAME in $PWD")
        },
        CommandItem { cwd: Some("/no/such/folder".into()), ..command(&["true"]) },
        shell("printf 'a\\xffb'"),
        CommandItem { stdin: Some(vec![b'x'; 3 << 20]), ..shell("exec <&-; echo unread") },
    ];
    let ended = bench.run(&job, TaskInput::Commands(items));
    assert_eq!(stdout(&ended, 0), "hello");
    assert_eq!(stdout(&ended, 5).trim(), (3 << 20).to_string());
    assert_eq!(stdout(&ended, 6), "me in /usr");
    assert_eq!(stdout(&ended, 9), "unread");
    let told = |i: u32| (ended.failed[&i].kind, ended.failed[&i].message.as_str());
    assert_eq!(told(1), (FailureKind::Exit, "exit code 3"));
    assert_eq!(ended.failed[&1].output, "problem\n");
    assert_eq!(told(2), (FailureKind::Exit, "program \"no-such-program-at-all\" not found"));
    assert_eq!(told(3), (FailureKind::Crash, "killed by signal 6 (SIGABRT)"));
    assert_eq!(told(4), (FailureKind::Timeout, "over 400ms"));
    assert_eq!(told(7), (FailureKind::Exit, "folder \"/no/such/folder\" not found"));
    assert_eq!(told(8), (FailureKind::Output, "standard output is not UTF-8 (byte 1)"));
    assert!(ended.unfinished.is_empty());
}

#[test]
fn four_thousand_commands_come_back_once_each() {
    let mut bench = Bench::new(4);
    let job = command_job(Stdout::Ignore, Shape::One, 4, None);
    for _ in 0..40 {
        bench.submit(&job, TaskInput::Commands(vec![command(&["true"]); 100]));
    }
    let ended = bench.finish();
    assert_eq!(ended.values().map(|t| t.rows.len()).sum::<usize>(), 4000);
}

#[test]
fn much_output_on_both_streams_never_stalls() {
    let mut bench = Bench::new(1);
    let job = command_job(text(), Shape::One, 1, None);
    let noise =
        "for i in 1 2 3 4 5; do head -c 500000 /dev/zero | tr '\\0' o; head -c 500000 /dev/zero | tr '\\0' e >&2; done";
    let ended = bench.run(&job, TaskInput::Commands(vec![shell(noise), shell(&format!("{noise}; exit 1"))]));
    assert_eq!(stdout(&ended, 0), "o".repeat(2_500_000));
    let kept = &ended.failed[&1].output;
    assert!(kept.starts_with("eee") && kept.ends_with("eee") && kept.len() < 70_000);
    assert!(kept.contains("2434464 bytes left out"), "{}", kept.replace('e', ""));
}

#[test]
fn a_process_left_in_the_background_holds_nobody_up_and_does_not_outlive_the_executor() {
    let marker = format!("BPP_TEST_BACKGROUND={}", std::process::id());
    let (name, value) = marker.split_once('=').unwrap();
    let mut bench = Bench::new(1);
    let job = command_job(text(), Shape::One, 1, None);
    let item = CommandItem {
        env: vec![(name.into(), value.into())],
        ..shell("(setsid sleep 1000 &) ; sleep 1000 & echo started")
    };
    let begun = Instant::now();
    let ended = bench.run(&job, TaskInput::Commands(vec![item]));
    assert_eq!(stdout(&ended, 0), "started");
    assert!(begun.elapsed() < Duration::from_secs(30));
    // One that is just being executed shows no environment for a moment.
    while processes_with(&marker).len() != 2 {
        assert!(begun.elapsed() < Duration::from_secs(30), "both go on behind the command");
        std::thread::yield_now();
    }
    bench.executor.stop();
    assert!(processes_with(&marker).is_empty());
}

#[test]
fn a_timeout_takes_children_along_even_stubborn_ones() {
    let marker = format!("BPP_TEST_STUBBORN={}", std::process::id());
    let (name, value) = marker.split_once('=').unwrap();
    let mut bench = Bench::new(1);
    let job = command_job(text(), Shape::One, 1, Some(Duration::from_millis(300)));
    let item = CommandItem {
        env: vec![(name.into(), value.into())],
        ..shell("trap '' TERM; setsid sleep 1000 & sleep 1000 & while true; do sleep 0.01; done")
    };
    let ended = bench.run(&job, TaskInput::Commands(vec![item, command(&["echo", "next"])]));
    assert_eq!((ended.failed[&0].kind, ended.failed[&0].limit), (FailureKind::Timeout, Some(300)));
    assert_eq!(stdout(&ended, 1), "next");
    assert!(processes_with(&marker).is_empty());
}

#[test]
fn a_drain_lets_the_item_in_hand_finish_and_takes_no_other() {
    let mut bench = Bench::new(1);
    let job = command_job(text(), Shape::One, 1, None);
    let gate = bench.dir.path().join("gate");
    let wait = format!("until [ -e {} ]; do sleep 0.01; done; echo done", gate.display());
    let first = bench.submit(&job, TaskInput::Commands(vec![shell(&wait), command(&["true"])]));
    let second = bench.submit(&job, TaskInput::Commands(vec![command(&["true"])]));
    bench.wait_started(first);
    // The first item may or may not have been taken up yet: it is once its shell is there.
    until("the shell", || {
        std::fs::read_dir("/proc").unwrap().flatten().any(|e| {
            std::fs::read(e.path().join("cmdline")).is_ok_and(|c| c.windows(wait.len()).any(|w| w == wait.as_bytes()))
        })
    });
    bench.executor.drain();
    let third = bench.submit(&job, TaskInput::Commands(vec![command(&["true"])]));
    std::fs::write(&gate, "").unwrap();
    let ended = bench.read(|tasks, _| tasks.len() == 3 && tasks.values().all(|t| t.over));
    assert_eq!((stdout(&ended[&first], 0).as_str(), &ended[&first].unfinished[..]), ("done", &[1][..]));
    assert_eq!((&ended[&second].unfinished[..], &ended[&third].unfinished[..]), (&[0][..], &[0][..]));
}

#[test]
fn stop_ends_what_runs_at_once() {
    let marker = format!("BPP_TEST_STOP={}", std::process::id());
    let (name, value) = marker.split_once('=').unwrap();
    let mut bench = Bench::new(2);
    let job = command_job(text(), Shape::One, 2, None);
    let item = CommandItem { env: vec![(name.into(), value.into())], ..shell("trap '' TERM; sleep 1000; sleep 1000") };
    let id = bench.submit(&job, TaskInput::Commands(vec![item.clone(), item]));
    bench.wait_started(id);
    until("the shell", || processes_with(&marker).len() >= 2);
    bench.executor.stop();
    assert!(processes_with(&marker).is_empty());
    assert_eq!(bench.read(|t, _| t.values().any(|t| t.over))[&id].unfinished, [0, 1]);
}

#[test]
fn the_rows_of_a_group_arrive_as_json_lines() {
    let mut bench = Bench::new(1);
    let job = command_job(Stdout::Json, Shape::Many, 1, None);
    let rows = |n: i64| Table::from_rows((0..n).map(|i| vec![("i".to_string(), Value::Int(i))]));
    let group = |script: &str, tables: usize| TaskInput::Group {
        rows: Box::new((0..tables).map(move |_| rows(10_000))),
        args: Table::empty(1),
        command: Some(shell(script)),
    };
    let ended = bench.run(&job, group("wc -l | sed 's/.*/{\"lines\": &}/'", 100));
    assert_eq!(ended.rows[&0], [vec![("lines".to_string(), Value::Int(1_000_000))]]);
    let ended = bench.run(&job, group("head -n 1", 100));
    assert_eq!(ended.rows[&0], [vec![("i".to_string(), Value::Int(0))]], "the rest is dropped");
    let ended = bench.run(&job, group("cat > /dev/null; echo '[]'", 0));
    assert_eq!(ended.rows[&0], Vec::<Vec<_>>::new());
}
