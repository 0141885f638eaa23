//! A workflow under edits, and all that must hold after each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value as Json;

use crate::edits::{self, Edit};
use crate::env::*;
use crate::flow::{Feature, Flow, is_built};
use crate::oracle::{Foretold, Item, Memory, foretell};
use crate::random::Random;

/// Workflows that failed once.
const KEPT_SEEDS: [u64; 0] = [];
/// How often a workflow is edited.
const EDITS: u64 = 6;
/// Keys by stage.
type Keys = BTreeMap<String, Vec<String>>;

/// What a plan says of a stage: what will run, and what may run besides.
#[derive(Debug)]
struct Promise {
    stage: String,
    certain: u64,
    /// Keys of the certain: a few, or all.
    keys: Vec<String>,
    /// `None`: nobody knows how many.
    possible: Option<u64>,
}

impl Promise {
    /// A stage of `plan --json`.
    fn new(stage: &Json) -> Promise {
        let samples = stage["samples"].as_object().expect("samples").values();
        let samples = samples.flat_map(|keys| keys.as_array().expect("keys"));
        // What changed stands behind the key.
        let key = |sample: &Json| text(sample).split(" (").next().unwrap_or_default().to_string();
        let known = |possible: &u64| *possible == 0 || stage["total_known"] != false;
        Promise {
            stage: text(&stage["name"]),
            certain: number(&stage["due"]),
            keys: samples.map(key).collect(),
            possible: Some(number(&stage["possible"])).filter(known),
        }
    }

    /// All keys of the certain, as `plan --out` lists them.
    fn list(&mut self, keys: Vec<String>) {
        assert_eq!(self.certain, keys.len() as u64, "{self:?} and {keys:?}");
        assert!(self.keys.iter().all(|key| keys.contains(key)), "{self:?} and {keys:?}");
        self.keys = keys;
    }

    fn is_empty(&self) -> bool {
        self.certain == 0 && self.possible == Some(0)
    }

    /// The certain are among those that ran, and those among the certain and the possible.
    fn holds(&self, stage: &Foretold, executed: &[String]) {
        let ran = executed.len() as u64;
        let is_true = is_within(&stage.identities(&self.keys), &stage.identities(executed));
        assert!(self.certain <= ran && is_true, "{self:?}, but {executed:?} ran");
        assert!(self.possible.is_none_or(|possible| ran <= self.certain + possible), "{self:?}, but {executed:?} ran");
    }
}

struct Trial {
    env: TestEnv,
    random: Random,
    flow: Flow,
    /// What the workflow was.
    earlier: Vec<Flow>,
    memory: Memory,
    written: BTreeMap<String, String>,
    runs: u32,
    /// For whoever has to find out why it failed.
    story: Vec<String>,
}

impl Drop for Trial {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}\n{}", self.story.join("\n"), self.flow.yaml());
            let files = self.flow.files().into_iter().filter(|(name, _)| name != "pipeline.yaml");
            files.for_each(|(name, text)| eprintln!("--- {name}\n{text}"));
        }
    }
}

impl Trial {
    fn new(seed: u64) -> Trial {
        Trial {
            env: TestEnv::new(),
            random: Random(seed ^ 0xABCD),
            flow: edits::flow(seed),
            earlier: Vec::new(),
            memory: Memory::default(),
            written: BTreeMap::new(),
            runs: 0,
            story: vec![format!("seed {seed}")],
        }
    }

    /// Runs the workflow as it is, then edits it again and again. `all`: compares each time with a run from nothing.
    fn go(&mut self, edits: u64) {
        self.write();
        self.check(false);
        for _ in 0..edits {
            let edit = self.edit();
            self.write();
            let partly = !edit.is_idle() && self.random.one_in(6);
            if partly {
                self.run_partly();
            }
            self.check(edit.is_idle());
        }
    }

    fn edit(&mut self) -> Edit {
        self.earlier.push(self.flow.clone());
        let edit = loop {
            let edit = Edit::any(&mut self.random);
            if self.is_done_by_us(edit) || edit.apply(&mut self.flow, &mut self.random) {
                break edit;
            }
        };
        self.story.push(format!("{edit:?}"));
        edit
    }

    /// Edits that need more than the workflow.
    fn is_done_by_us(&mut self, edit: Edit) -> bool {
        match edit {
            Edit::Undo => self.flow = self.random.pick(&self.earlier),
            Edit::Unmake | Edit::Cut => {
                let paths: Vec<String> = self.memory.made.keys().cloned().collect();
                if paths.is_empty() {
                    return false;
                }
                let path = self.random.pick(&paths);
                let (size, _) = self.memory.made.get_mut(&path).expect("a path of it");
                *size = 0;
                if edit == Edit::Unmake {
                    let _ = fs::remove_file(self.env.path(&path));
                } else {
                    self.env.write(&path, "");
                }
            }
            _ => return false,
        }
        true
    }

    /// Writes the files that are others than before, and removes those that are no more.
    fn write(&mut self) {
        let files = self.flow.files();
        for name in self.written.keys().filter(|name| !files.contains_key(*name)) {
            fs::remove_file(self.env.path(name)).expect("a file that was written");
        }
        for (name, text) in files.iter().filter(|(name, text)| self.written.get(*name) != Some(text)) {
            self.env.write(name, text);
        }
        self.written = files;
    }

    fn command(&self, command: &[&str]) -> Output {
        let args: Vec<&str> = command.iter().copied().chain(self.flow.arguments()).collect();
        self.env.run(&args)
    }

    /// Plans, runs, and compares with what is foretold.
    fn check(&mut self, idle: bool) {
        let promises = self.plan();
        let foretold = foretell(&self.flow, usize::MAX);
        let executed = self.run(&[], &foretold);
        for promise in &promises {
            let stage = foretold.iter().find(|stage| stage.name == promise.stage).expect("a stage");
            let executed = executed.get(&promise.stage).map(Vec::as_slice).unwrap_or_default();
            promise.holds(stage, executed);
            assert!(!idle || executed.is_empty() && promise.is_empty(), "nothing may be due: {promise:?}");
        }
        for promise in self.plan() {
            assert!(promise.is_empty(), "a second plan: {promise:?}");
        }
        self.compare_rows(&foretold);
        if self.random.one_in(3) {
            self.compare_with_fresh_run();
        }
    }

    /// A run of a part, before all is looked at.
    fn run_partly(&mut self) {
        let mut foretold = foretell(&self.flow, usize::MAX);
        if self.random.one_in(2) {
            let limit = self.random.below(3) as usize + 1;
            self.story.push(format!("  run --limit {limit}"));
            foretold = foretell(&self.flow, limit);
            self.run(&["--limit", &limit.to_string()], &foretold);
        } else {
            let stage = self.random.pick(&self.flow.stages.iter().map(|stage| stage.name()).collect::<Vec<_>>());
            self.story.push(format!("  run --stage {stage}"));
            let wanted = self.with_ancestors(&stage);
            foretold.retain(|foretold| wanted.contains(&foretold.name));
            self.run(&["--stage", &stage], &foretold);
        }
    }

    fn with_ancestors(&self, stage: &str) -> BTreeSet<String> {
        let mut wanted: BTreeSet<String> = [stage.to_string()].into();
        for stage in self.flow.stages.iter().rev() {
            if wanted.contains(&stage.name()) {
                wanted.extend(stage.inputs.iter().cloned());
            }
        }
        wanted
    }

    /// Runs, and holds what ran against what is due of these stages.
    fn run(&mut self, options: &[&str], foretold: &[Foretold]) -> Keys {
        let events = self.env.path("events.jsonl");
        let mut args = vec!["run", "--json", "--events", events.to_str().expect("text")];
        args.extend(options);
        let fails = foretold.iter().flat_map(|stage| &stage.items).any(|item| item.failed);
        self.command(&args).exits(if fails { 100 } else { 0 });
        let executed = executed(&fs::read_to_string(&events).expect("events"));
        let names: BTreeSet<&String> = foretold.iter().map(|stage| &stage.name).collect();
        assert!(executed.keys().all(|name| names.contains(name)), "only {names:?}: {executed:?}");
        for stage in foretold {
            let due: Vec<&Item> = self.memory.due(stage);
            let ran = executed.get(&stage.name).map(Vec::as_slice).unwrap_or_default();
            let expected = stage.identities(due.iter().map(|item| &item.key));
            assert_eq!(expected, stage.identities(ran), "what is due, and what ran of {}: {ran:?}", stage.name);
            self.memory.learn(stage, ran);
        }
        executed
    }

    fn plan(&self) -> Vec<Promise> {
        let out = self.env.path("plan.json");
        let mut args = vec!["plan", "--json"];
        if is_built(Feature::Keys) {
            args.extend(["--out", out.to_str().expect("text")]);
        }
        let told = self.command(&args).exits(0).json();
        let mut promises: Vec<Promise> = told["stages"].as_array().expect("stages").iter().map(Promise::new).collect();
        if is_built(Feature::Keys) {
            let listed: Json = serde_json::from_slice(&fs::read(out).expect("a plan")).expect("JSON");
            for (promise, listed) in promises.iter_mut().zip(listed["stages"].as_array().expect("stages")) {
                assert_eq!(promise.stage, text(&listed["name"]));
                promise.list(listed["due"].as_array().expect("keys").iter().map(text).collect());
            }
        }
        promises
    }

    /// Outputs are what is foretold, and `results` says the same.
    fn compare_rows(&mut self, foretold: &[Foretold]) {
        for stage in foretold {
            let rows: Vec<BTreeMap<String, Json>> =
                json_lines(&self.env.read(&format!("out/{}.jsonl", stage.name))).iter().map(without_nulls).collect();
            assert_eq!(stage.shown(), rows, "rows of {}", stage.name);
        }
        let stage = &foretold[self.random.below(foretold.len() as u64) as usize].name;
        let shown = self.command(&["results", stage, "--format", "jsonl"]).exits(0).stdout;
        assert_eq!(shown, self.env.read(&format!("out/{stage}.jsonl")), "results of {stage} and its output");
    }

    fn compare_with_fresh_run(&mut self) {
        self.runs += 1;
        let (state, out) = (format!("fresh-state-{}", self.runs), format!("out=fresh-{}", self.runs));
        let run = self.command(&["run", "--state", &state, "--param", &out]);
        assert!(matches!(run.code, Some(0 | 100)), "{}", run.all());
        for stage in &self.flow.stages {
            let of = |folder: &str| self.env.read(&format!("{folder}/{}.jsonl", stage.name()));
            assert_eq!(of("out"), of(&out["out=".len()..]), "{} and a fresh run's", stage.name());
        }
    }
}

/// Whether each of `part` is in `whole`, as often.
fn is_within(part: &[&str], whole: &[&str]) -> bool {
    let count = |list: &[&str], key: &str| list.iter().filter(|other| **other == key).count();
    part.iter().all(|key| count(part, key) <= count(whole, key))
}

/// Which items of which stage ran, sorted.
fn executed(events: &str) -> Keys {
    let mut keys = Keys::new();
    for event in json_lines(events).iter().filter(|event| event["event"] == "item") {
        keys.entry(text(&event["stage"])).or_default().push(text(&event["key"]));
    }
    keys.values_mut().for_each(|keys| keys.sort_unstable());
    keys
}

fn without_nulls(row: &Json) -> BTreeMap<String, Json> {
    let cells = row.as_object().expect("a row").iter().filter(|(_, cell)| !cell.is_null());
    cells.map(|(name, cell)| (name.clone(), cell.clone())).collect()
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Every third workflow; all in a few threads' time.
fn cases(part: u64) {
    let (edits, first) = (setting("BPP_TEST_CASES", 510), setting("BPP_TEST_SEED", 1));
    for seed in (first..first + edits.div_ceil(EDITS)).filter(|seed| seed % 3 == part) {
        Trial::new(seed).go(EDITS);
    }
}

#[test]
fn plans_of_edited_workflows_come_true_a() {
    cases(0);
}

#[test]
fn plans_of_edited_workflows_come_true_b() {
    cases(1);
}

#[test]
fn plans_of_edited_workflows_come_true_c() {
    cases(2);
}

#[test]
fn plans_that_once_were_wrong_come_true() {
    KEPT_SEEDS.into_iter().for_each(|seed| Trial::new(seed).go(EDITS));
}
