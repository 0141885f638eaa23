//! The soak: random workflows are run while something kills their processes at random, and are resumed until a run
//! ends by itself. After every resume: each item has at most one outcome and the right one, nothing that was committed
//! is gone, nothing runs. In the end: each item has exactly the outcome that the oracle foretold.
//!
//! An item whose worker is killed from outside has failed with `crash`, and rightly so: at most one for each kill, and
//! it succeeds when it is retried.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::env::*;
use crate::killer::{self, kill};
use crate::random::Random;
use crate::scenario::{Outcome, Scenario, Stage, Verb};

/// What is done to a run that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Hit {
    FlowKilled,
    FlowInterrupted,
    FlowTerminated,
    FlowInterruptedTwice,
    WorkerKilled,
    CommandKilled,
    KeeperKilled,
    KeeperAndWorkerKilled,
}

/// What the soak has done so far.
#[derive(Debug, Default)]
struct Score {
    workflows: usize,
    runs: usize,
    hits: BTreeMap<Hit, usize>,
    /// Items whose outcome was compared with the oracle's at the end of a workflow.
    items: usize,
    /// Outcomes that were looked at after a resume.
    outcomes: usize,
    /// Items that a kill from outside had fail, until they were retried.
    crashes: usize,
}

/// Rows as text, each with how many there are.
type Bag = BTreeMap<String, usize>;

fn add(bag: &mut Bag, row: String) {
    *bag.entry(row).or_default() += 1;
}

/// Takes one out; whether there was one.
fn take(bag: &mut Bag, row: &str) -> bool {
    match bag.get_mut(row) {
        Some(count) if *count > 0 => {
            *count -= 1;
            true
        }
        _ => false,
    }
}

fn is_within(part: &Bag, whole: &Bag) -> bool {
    part.iter().all(|(row, count)| whole.get(row).is_some_and(|all| all >= count))
}

/// Cells that are integers, as text; the story of a failure is none.
fn cells<'a>(row: impl Iterator<Item = (&'a String, i64)>) -> String {
    let mut cells: Vec<String> = row.map(|(name, cell)| format!("{name}={cell}")).collect();
    cells.sort();
    cells.join(" ")
}

fn row_text(row: &Json) -> String {
    let told = row.as_object().expect("a row").iter().filter(|(_, cell)| !cell.is_null());
    cells(
        told.filter(|(name, _)| !matches!(name.as_str(), "status" | "error" | "traceback"))
            .map(|(name, cell)| (name, cell.as_i64().unwrap_or_else(|| panic!("{name} in {row} is no integer")))),
    )
}

fn foretold_text(row: &crate::scenario::Row) -> String {
    cells(row.iter().map(|(name, cell)| (name, *cell)))
}

/// What is seen of a stage from outside.
#[derive(Debug, Default, Clone)]
struct Seen {
    /// In the order in which they are printed.
    rows: Vec<String>,
    /// The rows of failed items, and the kinds of their failures.
    failed: Vec<(String, String)>,
    ids: BTreeSet<i64>,
}

impl Seen {
    fn bag(&self) -> Bag {
        let mut bag = Bag::new();
        self.rows.iter().for_each(|row| add(&mut bag, row.clone()));
        bag
    }
}

/// A workflow under fire.
struct Trial<'a> {
    env: TestEnv,
    scenario: Scenario,
    random: Random,
    score: &'a mut Score,
    /// Kills since the start of which each may have been one item's end.
    deadly: usize,
    /// How often bpp-flow was killed.
    ends: usize,
    seen: Vec<Seen>,
    events: usize,
    /// What was done to each run, for whoever has to find out why a trial failed.
    story: Vec<String>,
    began: Instant,
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.story.join("\n"));
        }
    }
}

impl Trial<'_> {
    fn new(seed: u64, pandas: bool, score: &mut Score) -> Trial<'_> {
        let scenario = Scenario::new(seed, pandas);
        let env = TestEnv::with(&scenario.yaml(), "");
        scenario.files().iter().for_each(|(name, text)| env.write(name, text));
        let seen = vec![Seen::default(); scenario.stages.len()];
        Trial {
            env,
            scenario,
            random: Random(seed ^ 0xABCD),
            score,
            deadly: 0,
            ends: 0,
            seen,
            events: 0,
            story: Vec::new(),
            began: Instant::now(),
        }
    }

    /// From the first run to the last check.
    fn survives(&mut self) {
        for _ in 0..=self.random.below(6) {
            self.storm();
            self.resumed();
        }
        self.calm(&["run"]);
        let (excess, _) = self.resumed();
        self.score.crashes += excess;
        if excess > 0 {
            self.calm(&["retry", "--kind", "crash", "--kind", "lost"]);
            let (excess, _) = self.resumed();
            assert_eq!(excess, 0, "an item that was retried in peace fails");
        }
        self.finished();
    }

    /// A run that is hit until it ends.
    fn storm(&mut self) {
        let args = self.random_run();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut run = self.env.spawn(&args);
        self.score.runs += 1;
        self.story.push(args.join(" "));
        let (hits, pause) = (self.random.below(9), self.random.pick(&[15, 60, 150, 400]));
        let (mut signalled, mut unkept, before) = (false, false, self.deadly);
        for _ in 0..hits {
            let end = Instant::now() + Duration::from_millis(1 + self.random.below(2 * pause));
            while !run.ended() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
            if run.ended() {
                break;
            }
            match self.hit(&run, unkept) {
                Some(Hit::KeeperKilled | Hit::KeeperAndWorkerKilled) => unkept = true,
                Some(Hit::FlowKilled) => {
                    self.ends += 1;
                    return run.kill9();
                }
                Some(Hit::FlowInterrupted | Hit::FlowTerminated | Hit::FlowInterruptedTwice) => signalled = true,
                _ => {}
            }
        }
        let out = run.wait();
        // A signal may come before bpp-flow can take one.
        let code = out.code.unwrap_or(if signalled { 130 } else { -1 });
        let given_up = ["before any item could run", "before any command could end"];
        let gave_up = code == 1 && self.deadly >= before + 3 && given_up.iter().any(|words| out.stderr.contains(words));
        assert!(
            matches!(code, 0 | 100) || (code == 130 && signalled) || gave_up,
            "exit {code} after {} kills of workers\n{}",
            self.deadly - before,
            out.all()
        );
        assert!(!out.stderr.contains("panicked"), "{}", out.all());
        if code != 130 && !gave_up {
            self.leaves_no_file();
        }
    }

    fn random_run(&mut self) -> Vec<String> {
        let random = &mut self.random;
        let mut args: Vec<String> = Vec::new();
        let mut say = |words: &[&str]| args.extend(words.iter().map(|word| word.to_string()));
        if random.one_in(6) {
            say(&["retry", "--failed"]);
        } else {
            say(&["run"]);
            if random.one_in(6) {
                let stage = &self.scenario.stages[random.below(self.scenario.stages.len() as u64) as usize];
                say(&["--stage", &stage.name]);
            }
            if random.one_in(6) {
                say(&["--limit", &(random.below(200) + 1).to_string()]);
            }
        }
        if random.one_in(3) {
            say(&["-j", &(random.below(5) + 1).to_string()]);
        }
        if random.one_in(4) {
            say(&["--backend", random.pick(&["processes", "threads", "serial"])]);
        }
        self.events += 1;
        say(&["--events", &format!("events-{}.jsonl", self.events)]);
        args
    }

    /// Kills or signals something; what, if it was there. Where a keeper was killed, bpp-flow is not: of both at once no
    /// promise is made.
    fn hit(&mut self, run: &Running, unkept: bool) -> Option<Hit> {
        let family = killer::family(run);
        let below = if family.commands.is_empty() { Hit::WorkerKilled } else { Hit::CommandKilled };
        let hit = match self.random.below(20) {
            0..=2 if !unkept => Hit::FlowKilled,
            3 => Hit::FlowInterrupted,
            4 => Hit::FlowTerminated,
            5 => Hit::FlowInterruptedTwice,
            6 | 7 if self.scenario.kills_keepers => Hit::KeeperKilled,
            8 if self.scenario.kills_keepers => Hit::KeeperAndWorkerKilled,
            9..=13 if !family.workers.is_empty() => Hit::WorkerKilled,
            _ => below,
        };
        let flow = run.id() as i32;
        let victims = match hit {
            Hit::WorkerKilled => self.one_of(&family.workers),
            Hit::CommandKilled => self.one_of(&family.commands),
            Hit::KeeperKilled => self.one_of(&family.keepers),
            Hit::KeeperAndWorkerKilled => [self.one_of(&family.workers), self.one_of(&family.keepers)].concat(),
            _ => Vec::new(),
        };
        let killed = victims.into_iter().filter(|&pid| kill(pid, libc::SIGKILL)).count();
        let done = match hit {
            Hit::FlowKilled => true,
            Hit::FlowInterrupted => kill(flow, libc::SIGINT),
            Hit::FlowTerminated => kill(flow, libc::SIGTERM),
            Hit::FlowInterruptedTwice => {
                kill(flow, libc::SIGINT);
                std::thread::sleep(Duration::from_millis(self.random.below(600)));
                kill(flow, libc::SIGINT)
            }
            _ => killed > 0,
        };
        if !done {
            return None;
        }
        self.deadly += killed;
        self.story.push(format!("{:?} {hit:?}", Instant::now().duration_since(self.began)));
        *self.score.hits.entry(hit).or_default() += 1;
        Some(hit)
    }

    fn one_of(&mut self, pids: &[i32]) -> Vec<i32> {
        if pids.is_empty() { Vec::new() } else { vec![self.random.pick(pids)] }
    }

    /// A run that nothing disturbs.
    fn calm(&mut self, args: &[&str]) {
        let out = self.env.run(args);
        self.score.runs += 1;
        assert!(matches!(out.code, Some(0 | 100)), "{args:?}: exit {:?}\n{}", out.code, out.all());
        assert!(!out.stderr.contains("panicked"), "{}", out.all());
        self.leaves_no_file();
    }

    fn leaves_no_file(&self) {
        self.env.assert_nothing_runs();
        self.env.assert_no_stray_files();
        let folder = self.env.path(".bpp-flow/pipeline");
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            assert!(matches!(name.to_str(), Some("lock" | "store.redb")), "left in the state folder: {name:?}");
        }
    }

    /// What must hold after any end of a run: gives how many items failed only because they were hit, and how many
    /// outcomes there are.
    fn resumed(&mut self) -> (usize, usize) {
        self.env.assert_nothing_runs();
        let (mut excess, mut outcomes) = (0, 0);
        for n in 0..self.scenario.stages.len() {
            let seen = self.look(n);
            let stage = &self.scenario.stages[n];
            excess += right_so_far(stage, &seen);
            outcomes += seen.rows.len() + seen.failed.len();
            if !stage.waits {
                let before = &self.seen[n];
                assert!(is_within(&before.bag(), &seen.bag()), "rows of {} are lost", stage.name);
                let told = self.told(&stage.name);
                let known = |key: &String| key.parse().is_ok_and(|id| seen.ids.contains(&id));
                if stage.keyed && stage.verb == Verb::Map {
                    assert!(told.iter().all(known), "told to be committed and lost, in {}: {told:?}", stage.name);
                }
            }
            self.seen[n] = seen;
        }
        self.score.outcomes += outcomes;
        let bound = self.deadly + self.ends / 3 * 4;
        assert!(excess <= bound, "{excess} items crashed in {} kills of workers", self.deadly);
        (excess, outcomes)
    }

    fn look(&self, n: usize) -> Seen {
        let name = &self.scenario.stages[n].name;
        let out = self.env.run(&["results", name, "--format", "jsonl"]);
        if out.code != Some(0) {
            assert!(self.seen[n].rows.is_empty(), "results are gone: {}", out.all());
            return Seen::default();
        }
        let rows = out.json_lines();
        let failed = self.env.failed_rows(name);
        let kind = |row: &Json| text(&row["error"]).split(':').next().unwrap_or_default().to_string();
        Seen {
            ids: rows.iter().chain(&failed).filter_map(|row| row["id"].as_i64()).collect(),
            rows: rows.iter().map(row_text).collect(),
            failed: failed.iter().map(|row| (row_text(row), kind(row))).collect(),
        }
    }

    /// Keys of the stage's items that the last run told to be done; the last line may be torn.
    fn told(&self, stage: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.env.path(&format!("events-{}.jsonl", self.events))).unwrap_or_default();
        let events = text.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
        events
            .filter(|e| e["event"] == "item" && e["stage"] == stage && e["status"] == "done")
            .map(|e| e["key"].as_str().expect("a key").to_string())
            .collect()
    }

    /// What must hold once a run of everything has ended by itself, and no item is left that only a kill had fail.
    fn finished(&mut self) {
        let status = self.env.run(&["status", "--json"]).exits(0).json();
        for (stage, seen) in self.scenario.stages.iter().zip(&self.seen) {
            let (rows, failed) = foretold(stage);
            let in_order = |mut rows: Vec<String>| {
                if stage.waits {
                    rows.sort();
                }
                rows
            };
            assert_eq!(in_order(seen.rows.clone()), in_order(rows), "rows of {}", stage.name);
            let mut told = seen.failed.clone();
            told.sort();
            assert_eq!(told, failed, "failures of {}", stage.name);
            let done = (stage.items.len() - failed.len()) as u64;
            counts(
                &stage_of(&status, &stage.name),
                &[("done", done), ("failed", failed.len() as u64), ("due", 0), ("possible", 0), ("running", 0)],
            );
            self.score.items += stage.items.len();
        }
        self.outputs_are_the_last_stage();
        let again = self.env.run(&["run", "--json"]).json();
        for stage in again["stages"].as_array().expect("stages") {
            assert_eq!(stage["ran"], 0, "nothing is due after the end: {stage}");
        }
        self.env.run(&["store", "verify"]).exits(0);
        self.leaves_no_file();
    }

    fn outputs_are_the_last_stage(&self) {
        let Ok(text) = std::fs::read_to_string(self.env.path("out.jsonl")) else { return };
        let rows: Vec<String> = json_lines(&text).iter().map(row_text).collect();
        assert_eq!(rows, self.seen.last().expect("a stage").rows, "out.jsonl");
    }
}

/// The oracle's rows in order, and its failures sorted.
fn foretold(stage: &Stage) -> (Vec<String>, Vec<(String, String)>) {
    let failed = stage.items.iter().filter_map(|item| match item.outcome {
        Outcome::Failed(kind) => Some((foretold_text(&item.input), kind.to_string())),
        Outcome::Rows(_) => None,
    });
    let mut failed: Vec<_> = failed.collect();
    failed.sort();
    (stage.rows().map(foretold_text).collect(), failed)
}

/// Fails unless each outcome is the oracle's, and no item has two; gives the number of items that failed otherwise.
fn right_so_far(stage: &Stage, seen: &Seen) -> usize {
    let mut failures: BTreeMap<(String, &str), usize> = BTreeMap::new();
    let mut inputs: BTreeMap<String, Vec<&Outcome>> = BTreeMap::new();
    let mut left = Bag::new();
    for item in &stage.items {
        inputs.entry(foretold_text(&item.input)).or_default().push(&item.outcome);
        match &item.outcome {
            Outcome::Failed(kind) => *failures.entry((foretold_text(&item.input), kind)).or_default() += 1,
            Outcome::Rows(rows) => rows.iter().for_each(|row| add(&mut left, foretold_text(row))),
        }
    }
    let mut excess = 0;
    for (row, kind) in &seen.failed {
        let right = failures.get_mut(&(row.clone(), kind.as_str())).filter(|count| **count > 0);
        if let Some(count) = right {
            *count -= 1;
            continue;
        }
        excess += 1;
        assert!(matches!(kind.as_str(), "crash" | "lost"), "{}: {row} failed with {kind}", stage.name);
        // While it waits, a stage may see other groups than in the end.
        let outcome = inputs.get_mut(row).and_then(Vec::pop);
        assert!(outcome.is_some() || stage.waits, "{}: no such item, or one outcome too many: {row}", stage.name);
        if let Some(Outcome::Rows(rows)) = outcome {
            rows.iter().for_each(|row| assert!(take(&mut left, &foretold_text(row)), "{}: {row:?}", stage.name));
        }
    }
    if !stage.waits {
        for row in &seen.rows {
            assert!(take(&mut left, row), "{}: a wrong row, or one too many: {row}", stage.name);
        }
    }
    excess
}

fn has_pandas() -> bool {
    let import = TestEnv::new().bash("python3 -c 'import pandas'");
    import.code == Some(0)
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn soak() {
    let limit = Duration::from_secs(setting("BPP_SOAK_SECONDS").unwrap_or(20));
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let first = setting("BPP_TEST_SEED").unwrap_or(clock.as_secs() % 1_000_000 * 1000);
    let (began, pandas, mut score) = (Instant::now(), has_pandas(), Score::default());
    for seed in first.. {
        let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            Trial::new(seed, pandas, &mut score).survives();
        }));
        if let Err(panic) = tried {
            eprintln!("{}", Scenario::new(seed, pandas).yaml());
            eprintln!("again: BPP_TEST_SEED={seed} BPP_SOAK_SECONDS=1 cargo test --test faults soak -- --nocapture");
            std::panic::resume_unwind(panic);
        }
        score.workflows += 1;
        if began.elapsed() >= limit {
            break;
        }
    }
    let Score { workflows, runs, hits, items, outcomes, crashes } = score;
    eprintln!(
        "soak from seed {first}: {workflows} workflows, {runs} runs, hits {hits:?}, {outcomes} outcomes looked at, {items} items as foretold, {crashes} crashed by a kill and came through"
    );
}
