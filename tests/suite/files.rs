//! Files that items make: they are there whole or not at all, a result holds while they are, and nothing else is left.

use std::fs;
use std::path::Path;

use crate::env::*;

/// A stage that writes what its row says, as its row says.
const MODULE: &str = r#"
import os
import sys
import time
import kit

def make(row, x, **more):
    kit.log("made", row["id"])
    assert os.path.isabs(x) and os.path.basename(x) == row["id"] + ".txt", x
    how = row.get("how", "")
    if how == "gate":
        with open(x, "w") as file:
            file.write("half")
        kit.open_gate("inside")
        kit.pass_gate("go")
        os.truncate(x, 0)
    if how == "nothing":
        return None
    if how == "folder":
        return os.mkdir(x)
    if how == "link":
        return os.symlink("/etc/passwd", x)
    with open(x, "a") as file:
        file.write("text of %s" % row.get("text", row["id"]))
    if how == "raise":
        raise ValueError("no")
    if how == "die":
        os._exit(3)
    if how == "lost" and not kit.is_open("lost"):
        kit.open_gate("lost")
        os.kill(os.getppid(), 9)
        time.sleep(60)
    if how == "slow":
        time.sleep(60)
    if how == "once" and not kit.is_open("again"):
        kit.open_gate("again")
        raise ValueError("once")
    return {"chars": len(row["id"]), "x": 1} if how == "clash" else {"chars": len(row["id"])}

def both(id, x, n=1):
    kit.log("made", id)
    with open(x, "w") as file:
        file.write(id * n)

def parts(row, x):
    with open(x, "w") as file:
        file.write(row["id"])
    for n in range(row["n"]):
        yield {"n": n}

def total(rows, x):
    with open(x, "w") as file:
        file.write(" ".join(row["id"] for row in rows))
    return {"done": True}

def once(x):
    with open(x, "w") as file:
        file.write("once")

def read(row):
    kit.log("read", row["id"])
    with open(row["x"]) as file:
        return file.read()
"#;

fn rows(rows: &str) -> String {
    format!("sources: {{ s: {{ values: [{rows}], key: id }} }}\n")
}

/// A stage `work` that calls `make` for these rows.
fn making(source: &str, settings: &str) -> TestEnv {
    let stage = format!("{{ map: s, python: f:make, files: {{x: \"out/{{{{ item.id }}}}.txt\"}}, {settings} }}");
    TestEnv::with(&format!("{}stages:\n  work: {stage}\n", rows(source)), MODULE)
}

fn edit(env: &TestEnv, from: &str, to: &str) {
    let text = env.read("pipeline.yaml");
    assert!(text.contains(from), "{text}");
    env.write("pipeline.yaml", text.replace(from, to));
}

/// The names in a folder, hidden ones too.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

fn out(env: &TestEnv) -> Vec<String> {
    names(&env.path("out"))
}

fn made(env: &TestEnv) -> Vec<String> {
    let mut made = env.logged("made");
    made.sort();
    env.clear_log("made");
    made
}

fn nothing_is_due(env: &TestEnv) {
    let plan = env.plan();
    let stages = plan["stages"].as_array().expect("stages");
    assert!(stages.iter().all(|s| number(&s["due"]) + number(&s["possible"]) == 0), "{plan}");
}

#[test]
fn files_are_moved_to_their_places_and_become_columns() {
    for backend in ["processes", "threads", "serial"] {
        let env = making("{id: a}, {id: bb}", &format!("backend: {backend}"));
        env.run(&["run"]).exits(0);
        assert_eq!(out(&env), ["a.txt", "bb.txt"]);
        assert_eq!(env.read("out/bb.txt"), "text of bb");
        assert_eq!(env.column("work", "x"), ["out/a.txt", "out/bb.txt"]);
        assert_eq!(env.column("work", "chars"), [1, 2]);
        assert_eq!(names(&env.path(".bpp-flow/pipeline")), ["lock", "store.redb"]);
        nothing_is_due(&env);
    }
}

#[test]
fn an_item_that_fails_leaves_nothing() {
    let env = making(
        "{id: a, how: raise}, {id: b, how: die}, {id: c, how: nothing}, {id: d, how: folder}, {id: e, how: link}, \
         {id: f, how: clash}, {id: g, how: slow}, {id: h}, {id: i}",
        "timeout: 2s",
    );
    env.write("out/i.txt/theirs", "");
    env.run(&["run"]).exits(100);
    assert_eq!(out(&env), ["h.txt", "i.txt"]);
    assert_eq!(names(&env.path("out/i.txt")), ["theirs"]);
    let failed: Vec<String> = env.failed_rows("work").iter().map(|row| text(&row["error"])).collect();
    let told = [
        "ValueError: no",
        "crash",
        "the file `x` was not made (out/c.txt)",
        "the file `x` is a folder; pack it into one file (out/d.txt)",
        "the file `x` is a link; a file is needed (out/e.txt)",
        "it gives a column `x`, which is the file `x`",
        "timeout",
        "the file `x` cannot be moved to where a folder is (out/i.txt)",
    ];
    assert_eq!(failed.len(), told.len());
    told.iter().zip(&failed).for_each(|(told, failed)| assert!(failed.contains(told), "{told}: {failed}"));
    assert_eq!(env.failures_by_kind()["output"], 5);
    assert_eq!(env.column("work", "x"), ["out/h.txt"]);
    // Not even the folders that were made for it.
    let env = making("{id: a, how: raise}", "retries: 1");
    edit(&env, "out/{{", "out/deep/{{");
    fs::create_dir(env.path("out")).unwrap();
    env.run(&["run"]).exits(100);
    assert_eq!(out(&env), Vec::<String>::new());
}

#[test]
fn a_file_that_is_gone_or_cut_makes_its_item_due() {
    let env = making("{id: a}, {id: b}, {id: c}, {id: d}, {id: e}", "verify_files: false");
    env.run(&["run"]).exits(0);
    made(&env);
    fs::remove_file(env.path("out/b.txt")).unwrap();
    env.write("out/c.txt", "text");
    env.write("out/d.txt", "TEXT OF D");
    env.write("new", "TEXT OF E");
    fs::rename(env.path("new"), env.path("out/e.txt")).unwrap();
    let plan = env.plan_of("work");
    assert_eq!((number(&plan["done"]), number(&plan["due"])), (2, 3), "{plan}");
    assert_eq!(number(&plan["reasons"]["file_missing"]), 1);
    assert_eq!(number(&plan["reasons"]["file_changed"]), 2, "cut, and another file in its place");
    env.run(&["retry"]).exits(0);
    assert_eq!(made(&env).len(), 0, "nothing failed");
    env.run(&["run"]).exits(0);
    assert_eq!(made(&env), ["b", "c", "e"]);
    assert_eq!(env.read("out/c.txt"), "text of c");
    assert_eq!(env.read("out/d.txt"), "TEXT OF D", "its size is right, and its content is not looked at");
    nothing_is_due(&env);
    edit(&env, "verify_files: false", "verify_files: true");
    assert_eq!(number(&env.plan_of("work")["reasons"]["file_changed"]), 1);
    env.run(&["run"]).exits(0);
    assert_eq!(made(&env), ["d"]);
    assert_eq!(env.read("out/d.txt"), "text of d");
    nothing_is_due(&env);
}

#[test]
fn what_follows_is_done_while_the_content_is_the_same() {
    let env = making("{id: a}, {id: b, text: one}", "retries: 0");
    let more = r#"
  reads: { map: work, use: [id, x], python: f:read }
  shows: { map: work, command: [cat, "{{ item.x }}"] }
  sums: { reduce: work, shell: "wc -l > {{ files.n }}", files: { n: sums.txt } }
"#;
    env.write("pipeline.yaml", env.read("pipeline.yaml") + more);
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("reads", "value"), ["text of a", "text of one"]);
    assert_eq!(env.column("shows", "stdout"), ["text of a", "text of one"]);
    assert_eq!(env.read("sums.txt").trim(), "2");
    fs::remove_file(env.path("out/a.txt")).unwrap();
    assert_eq!(env.column("work", "x"), ["out/a.txt", "out/b.txt"], "what was made is shown");
    assert_eq!(env.column("reads", "value").len(), 2);
    env.clear_log("read");
    let summary = env.run_json(&[], 0);
    let ran = |name: &str| number(&stage_of(&summary, name)["ran"]);
    assert_eq!((ran("work"), ran("reads"), ran("shows"), ran("sums")), (1, 0, 0, 0), "{summary}");
    edit(&env, "text: one", "text: two");
    let summary = env.run_json(&[], 0);
    let ran = |name: &str| number(&stage_of(&summary, name)["ran"]);
    assert_eq!((ran("work"), ran("reads"), ran("shows"), ran("sums")), (1, 1, 1, 1), "{summary}");
    assert_eq!(env.logged("read"), ["b"]);
}

#[test]
fn going_back_finds_files_that_were_written_over_missing() {
    let env = TestEnv::with(
        &format!(
            "{}stages:\n  work: {{ map: s, python: f:both, call: kwargs, args: {{n: 1}}, \
             files: {{x: \"out/{{{{ key }}}}.txt\"}} }}\n",
            rows("{id: a}, {id: b}")
        ),
        &MODULE.replace("id * n", "chr(96 + n)"),
    );
    env.run(&["run"]).exits(0);
    edit(&env, "n: 1", "n: 2");
    env.run(&["run"]).exits(0);
    assert_eq!(env.read("out/a.txt"), "b");
    made(&env);
    edit(&env, "n: 2", "n: 1");
    assert_eq!(number(&env.plan_of("work")["reasons"]["file_changed"]), 2, "of the same size, but not those");
    env.run(&["run"]).exits(0);
    assert_eq!(made(&env), ["a", "b"]);
    assert_eq!(env.read("out/a.txt"), "a");
    nothing_is_due(&env);
}

#[test]
fn two_items_with_one_path() {
    let env = making("{id: a, n: 1}, {id: b, n: 1}", "chunk_size: 1, workers: 1");
    edit(&env, "python: f:make", "command: [touch, \"{{ files.x }}\"]");
    edit(&env, "{{ item.id }}", "{{ item.n }}");
    env.run(&["run"]).exits(100);
    let errors = env.errors();
    assert_eq!((text(&errors[0]["kind"]), number(&errors[0]["count"])), ("input".into(), 1));
    let failed = env.failed_rows("work").remove(0);
    let (second, first) = if failed["id"] == "a" { ("a", "b") } else { ("b", "a") };
    let told = format!("out/1.txt cannot be the file of item {second}: it is the file of item {first}");
    assert!(text(&failed["error"]).contains(&told), "{failed}");
    // Across runs: what is done keeps its own.
    edit(&env, "n: 1}]", "n: 1}, {id: c, n: 1}, {id: d, n: 2}]");
    env.run(&["run"]).exits(100);
    let failed: Vec<String> = env.failed_rows("work").iter().map(|row| text(&row["error"])).collect();
    assert!(failed[1].contains(&format!("item c: it is the file of item {first}")), "{failed:?}");
    assert_eq!(out(&env), ["1.txt", "2.txt"]);
    // A row that is gone has none any more.
    edit(&env, "{id: a, n: 1}, {id: b, n: 1}, ", "");
    env.run(&["retry"]).exits(0);
    assert_eq!(env.column("work", "id"), ["c", "d"]);
    nothing_is_due(&env);
}

#[test]
fn paths_across_stages_outputs_and_sources() {
    let env = TestEnv::with(
        r#"
sources:
  s: { values: [a], key: value }
  t: { lines: in/list.txt }
  g: { glob: "in/{what}.dat" }
stages:
  first: { map: s, command: [touch, "{{ files.x }}"], files: {x: out/one} }
  second: { map: s, after: first, command: [touch, "{{ files.x }}"], files: {x: "out/../out/./{{ 'one' }}"} }
  third: { map: s, command: [touch, "{{ files.x }}"], files: {x: out/rows.csv} }
  fourth: { map: s, command: [touch, "{{ files.x }}"], files: {x: in/list.txt} }
  fifth: { map: s, command: [touch, "{{ files.x }}"], files: {x: in/new.dat} }
  sixth: { map: s, command: [touch, "{{ files.x }}"], files: {x: .bpp-flow/pipeline/store.redb} }
  seventh: { map: s, command: [touch, "{{ files.x }}", "{{ files.y }}"], files: {x: out/two, y: "out/{{ 'two' }}"} }
  lists: { map: [t, g], command: ["true"] }
outputs: { first: out/rows.csv }
"#,
        "",
    );
    env.write("in/list.txt", "one\n");
    env.write("in/old.dat", "");
    env.run(&["run"]).exits(100);
    for (stage, told) in [
        ("second", "out/one cannot be the file of item a: it is the file of item a of another stage"),
        ("third", "out/rows.csv cannot be the file of item a: it is an output of the workflow"),
        ("fourth", "in/list.txt cannot be the file of item a: it is what the source `t` reads"),
        ("fifth", "in/new.dat would be read by the source `g`"),
        ("sixth", ".bpp-flow/pipeline/store.redb lies in bpp-flow's own state"),
        ("seventh", "two files of the item have the path out/two"),
    ] {
        let failed = env.failed_rows(stage);
        assert!(failed.len() == 1 && text(&failed[0]["error"]).contains(told), "{stage}: {failed:?}");
    }
    assert_eq!(out(&env), ["one", "rows.csv"]);
    assert_eq!(env.read("in/list.txt"), "one\n");
    assert_eq!(names(&env.path("in")), ["list.txt", "old.dat"]);
}

#[test]
fn paths_stay_in_the_folder_unless_they_may_leave() {
    let env = TestEnv::with(
        r#"
sources: { s: { values: ["../up", link/in, deep/er/in], key: value } }
stages:
  work: { map: s, command: [touch, "{{ files.x }}"], files: {x: "{{ item.value }}.txt"} }
"#,
        "",
    );
    fs::create_dir(env.path("../elsewhere")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", env.path("link")).unwrap();
    env.run(&["run"]).exits(100);
    let failed = env.failed_rows("work");
    assert_eq!(failed.len(), 2);
    let outside = |row: &serde_json::Value| {
        text(&row["error"]).contains("is out of the workflow's folder, and `allow_outside` is not true")
    };
    assert!(failed.iter().all(outside), "{failed:?}");
    assert_eq!(env.column("work", "x"), ["deep/er/in.txt"]);
    edit(&env, "\"{{ item.value }}.txt\"", "{path: \"{{ item.value }}.txt\", allow_outside: true}");
    env.run(&["retry"]).exits(0);
    assert!(env.path("../up.txt").exists() && env.path("../elsewhere/in.txt").exists());
    assert_eq!(names(&env.path("../elsewhere")), ["in.txt"]);
    let shown = env.column("work", "x");
    assert!(text(&shown[0]).starts_with('/') && shown[1] == "link/in.txt", "{shown:?}");
    nothing_is_due(&env);
}

#[test]
fn what_a_killed_run_leaves_is_swept() {
    let env = making("{id: a}, {id: b, how: gate}, {id: c, how: gate}", "workers: 3, chunk_size: 1");
    edit(&env, "out/{{ item.id }}.txt", "out/{{ item.id }}/{{ item.id }}.txt");
    let running = env.spawn(&["run"]);
    until("an item is inside", || env.path("../log/inside").exists());
    until("one is done", || env.path("out/a/a.txt").exists());
    let left = |name: &str| names(&env.path(&format!("out/{name}"))).iter().any(|n| n.starts_with(".bpp-flow-"));
    until("two are begun", || left("b") && left("c"));
    running.kill9();
    env.assert_nothing_runs();
    assert!(left("b") && left("c"), "else this tests nothing");
    fs::create_dir(env.path("out/b/.bpp-flow-not-ours")).unwrap();
    env.open_gate("go");
    env.run(&["run"]).exits(0);
    assert_eq!(names(&env.path("out/a")), ["a.txt"]);
    assert_eq!(names(&env.path("out/b")), [".bpp-flow-not-ours", "b.txt"]);
    assert_eq!(names(&env.path("out/c")), ["c.txt"]);
    assert_eq!(env.read("out/c/c.txt"), "text of c");
    nothing_is_due(&env);
}

#[test]
fn what_an_interrupted_run_leaves_is_gone() {
    let env = making("{id: a, how: gate}, {id: b}", "workers: 1, chunk_size: 1");
    let running = env.spawn(&["run", "--grace", "100ms"]);
    until("an item is inside", || env.path("../log/inside").exists());
    assert_ne!(out(&env), Vec::<String>::new());
    running.signal(libc::SIGTERM);
    let ended = running.wait();
    assert!(matches!(ended.code, Some(130)), "{}", ended.all());
    // The other one may have been first.
    assert!(out(&env).is_empty() || out(&env) == ["b.txt"], "{:?}", out(&env));
    env.open_gate("go");
    env.run(&["run"]).exits(0);
    assert_eq!(out(&env), ["a.txt", "b.txt"]);
}

#[test]
fn an_attempt_that_failed_leaves_nothing_to_the_next() {
    let env = making("{id: a, how: once}", "retries: {max: 1, backoff: 10ms}");
    env.run(&["run"]).exits(0);
    assert_eq!(made(&env), ["a", "a"]);
    assert_eq!(env.read("out/a.txt"), "text of a", "it is appended to");
    // Nor does one that lost its worker, through no fault of its own.
    let env = making("{id: a}, {id: b, how: lost}, {id: c}", "workers: 1, chunk_size: 3");
    env.run(&["run"]).exits(0);
    assert!(made(&env).iter().filter(|id| *id == "b").count() > 1, "else this tests nothing");
    assert_eq!(out(&env), ["a.txt", "b.txt", "c.txt"]);
    assert_eq!(env.read("out/b.txt"), "text of b", "it is appended to");
    nothing_is_due(&env);
}

#[test]
fn every_verb_that_can() {
    let env = TestEnv::with(
        &format!(
            "{}{}",
            rows("{id: a, n: 2}, {id: b, n: 0}, {id: c, n: 1}"),
            r#"
defaults: { files: { x: "out/{{ key }}" } }
stages:
  parts: { flat_map: s, python: f:parts }
  assigned: { map: parts, assign: { m: "item.n + 1" } }
  groups: { reduce: parts, group_by: [id], python: f:total, files: { x: "out/group-{{ group.id }}" } }
  all: { reduce: s, shell: "cat > {{ files.x }}", files: { x: out/all } }
  once: { python: f:once, files: { x: out/once } }
  env: { map: s, shell: 'echo $F > "$F"', env: { F: "{{ files.x }}" }, files: { x: "out/env-{{ index }}" } }
  fed: { map: s, command: [tee, "{{ files.x }}"], stdin: "{{ item.id }}", files: { x: "out/fed-{{ key }}" } }
"#
        ),
        MODULE,
    );
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("parts", "x"), ["out/a", "out/a", "out/c"]);
    assert_eq!(env.column("assigned", "m"), [1, 2, 1]);
    assert_eq!(env.column("groups", "x"), ["out/group-a", "out/group-c"]);
    assert_eq!(env.read("out/group-a"), "a a");
    assert_eq!(env.read("out/all").lines().count(), 3);
    assert_eq!(env.read("out/once"), "once");
    assert!(env.read("out/env-1").contains("/env-1"));
    assert_eq!(env.read("out/fed-b"), "b");
    assert_eq!(env.read("out/b"), "b", "made, though no row tells of it");
    nothing_is_due(&env);
    fs::remove_file(env.path("out/a")).unwrap();
    assert_eq!(number(&env.plan_of("parts")["reasons"]["file_missing"]), 1);
}

#[test]
fn the_template_and_what_it_names_count() {
    let env = making("{id: a, dir: one, other: 1}", "use: [id, dir]");
    edit(&env, "out/{{ item.id }}.txt", "out/{{ item.dir }}/{{ params.sub }}/{{ item.id }}.txt");
    env.write("pipeline.yaml", format!("params: {{ sub: p }}\n{}", env.read("pipeline.yaml")));
    env.run(&["run"]).exits(0);
    edit(&env, "other: 1", "other: 2");
    nothing_is_due(&env);
    edit(&env, "dir: one", "dir: two");
    assert_eq!(number(&env.plan_of("work")["due"]), 1);
    env.run(&["run"]).exits(0);
    env.run(&["run", "--param", "sub=q"]).exits(0);
    assert_eq!(env.column("work", "x"), ["out/two/p/a.txt"]);
    assert!(env.path("out/two/q/a.txt").exists());
    edit(&env, "{{ params.sub }}/", "");
    assert_eq!(number(&env.plan_of("work")["due"]), 1);
}

#[test]
fn a_file_is_read_again_only_when_it_looks_different() {
    let env = TestEnv::with(
        r#"
sources: { g: { glob: "in/*" } }
stages:
  work: { map: g, assign: { n: item.path } }
  fixed: { map: g, command: [echo, "{{ item.name }}"], deps: "in/a" }
  own: { map: g, command: [echo, "{{ item.name }}"], deps: "in/{{ item.name }}" }
"#,
        "",
    );
    for name in ["a", "b"] {
        env.write(&format!("in/{name}"), name);
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        fs::File::options().write(true).open(env.path(&format!("in/{name}"))).unwrap().set_modified(old).unwrap();
    }
    env.run(&["run"]).exits(0);
    let due = |env: &TestEnv| ["work", "fixed", "own"].map(|stage| number(&env.plan_of(stage)["due"]));
    // The same size, time and inode: what is remembered of it is believed.
    let stamp = fs::metadata(env.path("in/a")).unwrap().modified().unwrap();
    let file = fs::File::options().write(true).open(env.path("in/a")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"x", 0).unwrap();
    file.set_modified(stamp).unwrap();
    assert_eq!(due(&env), [0, 0, 0]);
    // Another time: it is read.
    file.set_modified(stamp + std::time::Duration::from_secs(1)).unwrap();
    assert_eq!(due(&env), [1, 2, 1]);
    // And what it says counts, not the time.
    std::os::unix::fs::FileExt::write_all_at(&file, b"a", 0).unwrap();
    file.set_modified(stamp + std::time::Duration::from_secs(2)).unwrap();
    assert_eq!(due(&env), [0, 0, 0]);
}

#[test]
fn a_file_that_vanishes_is_its_items_failure() {
    let env = TestEnv::with(
        r#"
sources: { g: { glob: "in/*" } }
stages:
  work: { map: g, shell: "rm -f in/[b]; cat {{ item.path }}", backend: serial }
"#,
        "",
    );
    ["a", "b", "c"].iter().for_each(|name| env.write(&format!("in/{name}"), name));
    assert_eq!(number(&env.plan_of("work")["due"]), 3);
    env.run(&["run"]).exits(100);
    assert_eq!(env.column("work", "stdout"), ["a", "c"]);
    assert_eq!(text(&env.failed_rows("work")[0]["path"]), "in/b");
    // It is no row any more.
    let plan = env.plan_of("work");
    assert_eq!((number(&plan["total"]), number(&plan["done"]), number(&plan["failed"])), (2, 2, 0), "{plan}");
}

/// Kills runs at random moments: what counts as done has its file, whole; nothing else is left.
#[test]
fn killed_at_any_moment() {
    let module = r#"
import os
import random
import time

def make(row, x, y):
    with open(y, "w") as file:
        file.write("y" * row["value"])
    with open(x, "w") as file:
        for _ in range(20):
            file.write("%d " % row["value"])
            file.flush()
        time.sleep(random.random() / 50)
"#;
    let pipeline = r#"
sources: { s: { range: { stop: 150 } } }
stages:
  work:
    map: s
    python: f:make
    files: { x: "out/{{ item.value % 3 }}/x{{ key }}", y: "out/y{{ key }}" }
"#;
    let env = TestEnv::with(pipeline, module);
    let mut random = crate::random::Random(7);
    let mut done = 0;
    for _ in 0..5 {
        let mut running = env.spawn(&["run"]);
        let more = out(&env).len() + 1 + random.below(30) as usize;
        until("there are more", || out(&env).len() >= more || running.ended());
        if running.ended() {
            break;
        }
        running.kill9();
        env.assert_nothing_runs();
        let rows = if env.path(".bpp-flow/pipeline/store.redb").exists() { env.rows("work") } else { Vec::new() };
        assert!(rows.len() >= done, "{} after {done}", rows.len());
        done = rows.len();
        for row in rows {
            let value = row["value"].as_u64().expect("a number") as usize;
            assert_eq!(env.read(&text(&row["x"])), format!("{value} ").repeat(20));
            assert_eq!(env.read(&text(&row["y"])).len(), value);
        }
    }
    env.run(&["run"]).exits(0);
    assert_eq!(env.rows("work").len(), 150);
    nothing_is_due(&env);
    let listed = env.bash("find out -type f | wc -l; find out -name '.*' | wc -l").exits(0);
    assert_eq!(listed.stdout.split_whitespace().collect::<Vec<_>>(), ["300", "0"]);
}
