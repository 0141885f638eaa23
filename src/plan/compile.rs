//! Resolves stages one by one: their constants, their code, their version, their job.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::code::{Projects, Signature, signature};
use super::{Graph, Plan, PlanError, PlannedStage, Reading, Run, Surroundings};
use crate::data::{Hash, Uses, Value, source};
use crate::executor::{Job, PoolKey, PythonEnv, Shape, SharedForm, SharedObject, Work};
use crate::spec::model::{
    Action, Backend, Call, CommandAction, CommandLine, Engine, Input, PythonAction, Settings, Share, Shared, Stage,
    Verb, Workflow,
};
use crate::spec::template::{Names, Scope, Template, TemplateTree};

/// Libraries that start a thread a core unless told otherwise.
const THREAD_CAPS: [&str; 8] = [
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
];

pub(super) fn compile(workflow: Arc<Workflow>, surroundings: &Surroundings<'_>) -> Result<Plan, PlanError> {
    let graph = Graph::new(&workflow.stages);
    let reading = Reading(reading(&workflow, surroundings));
    let found = Found {
        projects: Projects::new(workflow.dir.clone()),
        interpreters: RefCell::default(),
        installed: RefCell::default(),
        reading: &reading.0,
    };
    let mut keyed = vec![false; workflow.stages.len()];
    let mut stages: Vec<Option<Arc<PlannedStage>>> = vec![None; workflow.stages.len()];
    for &index in graph.order() {
        let compiler = Compiler { workflow: &workflow, stage: &workflow.stages[index], surroundings, found: &found };
        keyed[index] = compiler.is_keyed(&keyed);
        let stage = compiler.compile(index, keyed[index])?;
        stages[index] = Some(Arc::new(stage));
    }
    let stages = stages.into_iter().flatten().collect();
    Ok(Plan { workflow, graph, stages, reading, secrets: surroundings.secrets.clone() })
}

fn reading(workflow: &Workflow, surroundings: &Surroundings<'_>) -> source::Surroundings {
    let scope = Scope {
        params: &workflow.params,
        env: Some(surroundings.env),
        run: Some(surroundings.run),
        ..Scope::default()
    };
    let outputs = workflow.outputs.iter().filter_map(|output| output.path(&scope).ok().flatten());
    source::Surroundings {
        dir: workflow.dir.clone(),
        excluded: Arc::new(outputs.map(|path| workflow.dir.join(path)).collect()),
        digests: Some(surroundings.digests.clone()),
        sources: workflow.sources.clone().into(),
        programs: surroundings.programs.clone(),
        cuts: Arc::default(),
    }
}

pub(super) struct Compiler<'a> {
    pub workflow: &'a Workflow,
    pub stage: &'a Stage,
    pub surroundings: &'a Surroundings<'a>,
    pub found: &'a Found<'a>,
}

/// What is found out once for all stages.
pub(super) struct Found<'a> {
    pub projects: Projects,
    /// Interpreters, by the name asked for.
    interpreters: RefCell<Vec<(Option<String>, PathBuf)>>,
    /// The folders in which an interpreter finds packages.
    pub installed: RefCell<HashMap<PathBuf, Vec<PathBuf>>>,
    /// The workflow's own outputs, and what is known of files.
    pub reading: &'a source::Surroundings,
}

impl Compiler<'_> {
    fn compile(&self, index: usize, keyed: bool) -> Result<PlannedStage, PlanError> {
        let settings = self.settings();
        let names = self.names();
        let share = self.shared_files();
        let fingerprint = self.fingerprint(&names, &share)?;
        let workers = self.workers(&settings);
        Ok(PlannedStage {
            index,
            name: self.stage.name.clone(),
            verb: self.stage.verb.clone(),
            inputs: self.stage.inputs.clone(),
            after: self.stage.after.clone(),
            uses: self.uses(&names),
            keep: self.stage.keep.clone(),
            sees_key: names.key,
            sees_index: names.index,
            keyed,
            version: fingerprint.version(),
            fingerprint: fingerprint.without(self.surroundings.secrets),
            run: self.run(&settings, share, workers)?,
            settings,
            workers,
            action: self.surroundings.secrets.hide(&self.describe()).into_owned(),
        })
    }

    fn settings(&self) -> Settings {
        let mut settings = self.stage.settings.clone();
        if let Some(backend) = self.surroundings.backend {
            settings.backend = Engine { kind: backend, ..Engine::default() };
        }
        settings
    }

    fn is_keyed(&self, keyed: &[bool]) -> bool {
        let mut inputs = self.stage.inputs.iter();
        !matches!(self.stage.verb, Verb::Reduce { .. } | Verb::Once)
            && inputs.all(|input| match input {
                Input::Source(source) => !self.workflow.sources[*source].key.is_empty(),
                Input::Stage(stage) => keyed[*stage],
            })
    }

    fn workers(&self, settings: &Settings) -> usize {
        let cap = self.surroundings.workers.unwrap_or(usize::MAX);
        let workers = match settings.backend.kind {
            Backend::Serial => 1,
            // Where nobody says, as many as there are, which shows when it runs.
            Backend::Remote => {
                let known = settings.backend.remote.as_ref().and_then(|remote| remote.workers_at_most());
                settings.workers.or(settings.backend.workers).or(known).unwrap_or(usize::MAX)
            }
            _ => settings
                .workers
                .or(settings.backend.workers)
                .unwrap_or_else(|| (self.surroundings.cores.min(cap) / settings.cpus).max(1)),
        };
        workers.min(cap).max(1)
    }

    /// The names in everything that an item's result depends on, or that needs columns to be rendered.
    fn names(&self) -> Names {
        let mut names = Names::default();
        let settings = &self.stage.settings;
        match &self.stage.action {
            Action::Python(python) => python.args.iter().for_each(|(_, tree)| names.unite(&tree.names())),
            Action::Command(command) => templates_of(command).for_each(|t| names.unite(t.names())),
            Action::Assign(columns) => columns.iter().for_each(|(_, e)| names.unite(e.names())),
            Action::Where(condition) => names.unite(condition.names()),
        }
        settings.files.iter().for_each(|file| names.unite(file.path.names()));
        names.env.clear();
        let outside = settings.env.iter().map(|(_, t)| t).chain(&settings.cwd).chain(&settings.deps);
        for template in outside.filter(|t| t.names().per_item()) {
            let mut per_item = template.names().clone();
            per_item.env.clear();
            per_item.params.clear();
            names.unite(&per_item);
        }
        names
    }

    fn uses(&self, names: &Names) -> Uses {
        if let Some(columns) = &self.stage.uses {
            return Uses::Columns(columns.iter().chain(self.group_by()).cloned().collect());
        }
        let seen_by_python = match &self.stage.action {
            Action::Python(python) => match python.call {
                Call::Value => Some(vec!["value".to_string()]),
                Call::Kwargs => self.keyword_columns(python),
                Call::Row | Call::Chunk(_) => None,
            },
            Action::Command(_) if matches!(self.stage.verb, Verb::Reduce { .. }) => None,
            _ => Some(Vec::new()),
        };
        match seen_by_python {
            Some(columns) if !names.whole_item => {
                Uses::Columns(columns.into_iter().chain(names.columns.iter().cloned()).collect())
            }
            _ => Uses::All,
        }
    }

    fn group_by(&self) -> &[String] {
        match &self.stage.verb {
            Verb::Reduce { group_by, .. } => group_by,
            _ => &[],
        }
    }

    fn keyword_columns(&self, python: &PythonAction) -> Option<Vec<String>> {
        let path = self.project().ok()?.file_of(&python.module)?;
        let source = std::fs::read_to_string(path).ok()?;
        match signature(&source, &python.function) {
            Signature::Names(names) => Some(names.into_iter().filter(|n| !self.is_keyword(python, n)).collect()),
            Signature::Any => None,
        }
    }

    /// Whether a function gets this keyword from elsewhere than its row.
    fn is_keyword(&self, python: &PythonAction, name: &str) -> bool {
        let settings = &self.stage.settings;
        python.args.iter().any(|(arg, _)| arg == name)
            || settings.share.iter().any(|share| share.name == name)
            || settings.files.iter().any(|file| file.name == name)
    }

    pub(super) fn scope(&self) -> Scope<'_> {
        Scope {
            params: &self.workflow.params,
            env: Some(self.surroundings.env),
            run: Some(self.surroundings.run),
            ..Scope::default()
        }
    }

    pub(super) fn render(&self, what: &str, tree: &TemplateTree) -> Result<Value, PlanError> {
        tree.render(&self.scope()).map_err(|problem| self.template_error(what, problem))
    }

    pub(super) fn text(&self, what: &str, template: &Template) -> Result<String, PlanError> {
        template.render_text(&self.scope()).map_err(|problem| self.template_error(what, problem))
    }

    fn template_error(&self, what: &str, problem: impl std::fmt::Display) -> PlanError {
        PlanError::Template { stage: self.stage.name.clone(), what: what.to_string(), problem: problem.to_string() }
    }

    fn run(&self, settings: &Settings, share: Vec<SharedObject>, workers: usize) -> Result<Run, PlanError> {
        let job = |work, python| -> Result<Arc<Job>, PlanError> {
            Ok(Arc::new(Job {
                stage: self.stage.name.clone(),
                work,
                shape: shape(&self.stage.verb),
                pool: PoolKey {
                    remote: settings.backend.remote.clone(),
                    threads: settings.backend.kind == Backend::Threads
                        && matches!(self.stage.action, Action::Python(_)),
                    python,
                    env: self.constant_env(settings)?,
                    cwd: self.constant_cwd(settings)?,
                    memory: settings.memory,
                    most_items: settings.max_tasks_per_worker,
                },
                workers,
                timeout: settings.timeout,
                files: settings.files.iter().map(|file| file.name.clone()).collect(),
            }))
        };
        Ok(match &self.stage.action {
            Action::Python(python) => {
                let (per_item, constant): (Vec<_>, Vec<_>) =
                    python.args.iter().cloned().partition(|(_, tree)| tree.names().per_item());
                let work = Work::Python {
                    module: python.module.clone(),
                    function: python.function.clone(),
                    // Without a row there are no columns to name: nothing but `args`.
                    call: if self.stage.verb == Verb::Once { Call::Kwargs } else { python.call },
                    returns: python.returns.clone(),
                    args: self.constants("args", &constant)?,
                };
                let python = Some(self.python_env(settings, share)?);
                Run::Python { job: job(work, python)?, args: per_item }
            }
            Action::Command(action) => {
                let work = Work::Command { stdout: action.stdout.clone(), ok_codes: action.ok_codes.clone() };
                Run::Command { job: job(work, None)?, action: action.clone() }
            }
            Action::Assign(columns) => Run::Assign(columns.clone()),
            Action::Where(condition) => Run::Where(condition.clone()),
        })
    }

    fn constants(&self, group: &str, args: &[(String, TemplateTree)]) -> Result<Vec<(String, Value)>, PlanError> {
        args.iter().map(|(name, tree)| Ok((name.clone(), self.render(&format!("{group}.{name}"), tree)?))).collect()
    }

    fn constant_env(&self, settings: &Settings) -> Result<Vec<(String, String)>, PlanError> {
        let cpus = settings.cpus.to_string();
        let mut env: Vec<(String, String)> = THREAD_CAPS.iter().map(|name| (name.to_string(), cpus.clone())).collect();
        for (name, template) in settings.env.iter().filter(|(_, t)| !t.names().per_item()) {
            env.retain(|(n, _)| n != name);
            env.push((name.clone(), self.text(&format!("env.{name}"), template)?));
        }
        Ok(env)
    }

    pub(super) fn constant_cwd(&self, settings: &Settings) -> Result<PathBuf, PlanError> {
        match &settings.cwd {
            Some(template) if !template.names().per_item() => Ok(self.workflow.dir.join(self.text("cwd", template)?)),
            _ => Ok(self.workflow.dir.clone()),
        }
    }

    fn python_env(&self, settings: &Settings, share: Vec<SharedObject>) -> Result<PythonEnv, PlanError> {
        let init = settings
            .init
            .as_ref()
            .map(|init| Ok((init.module.clone(), init.function.clone(), self.constants("init", &init.args)?)));
        Ok(PythonEnv {
            interpreter: match &settings.backend.remote {
                None => self.interpreter(&settings.interpreter)?,
                Some(remote) => {
                    settings.interpreter.as_ref().or(remote.interpreter.as_ref()).map(PathBuf::from).unwrap_or_default()
                }
            },
            path: self.workflow.dir.clone(),
            init: init.transpose()?,
            share,
        })
    }

    /// The files that the stage shares. Rows of stages come when these have finished.
    fn shared_files(&self) -> Vec<SharedObject> {
        let mut objects = Vec::new();
        for Share { name, from } in &self.stage.settings.share {
            let Shared::File { path: shown, format } = from else { continue };
            let path = self.workflow.dir.join(shown);
            // What cannot be read has no content, and keeps nobody from looking at results: see `Plan::check_shared`.
            let (stamp, content) = match source::file_digest(&path, self.found.reading.digests.as_deref()) {
                Ok((stamp, digest)) => (stamp, Hash::of(&digest)),
                Err(_) => (source::FileStamp::default(), Hash::default()),
            };
            let form = SharedForm::File(*format);
            objects.push(SharedObject { name: name.clone(), shown: shown.clone(), form, path, stamp, content });
        }
        objects
    }

    pub(super) fn interpreter(&self, wanted: &Option<String>) -> Result<PathBuf, PlanError> {
        if let Some((_, path)) = self.found.interpreters.borrow().iter().find(|(name, _)| name == wanted) {
            return Ok(path.clone());
        }
        let name = named_interpreter(wanted.as_deref(), self.surroundings.env);
        let path = find_program(&name, &self.workflow.dir, (self.surroundings.env)("PATH").as_deref())
            .ok_or_else(|| PlanError::NoInterpreter { stage: self.stage.name.clone(), interpreter: name })?;
        self.found.interpreters.borrow_mut().push((wanted.clone(), path.clone()));
        Ok(path)
    }

    fn describe(&self) -> String {
        match &self.stage.action {
            Action::Python(python) => format!("python {}:{}", python.module, python.function),
            Action::Command(command) => match &command.line {
                CommandLine::Argv(argv) => {
                    format!("command {}", argv.iter().map(Template::source).collect::<Vec<_>>().join(" "))
                }
                CommandLine::Shell(script) => format!("shell {}", script.source().trim()),
            },
            Action::Assign(columns) => {
                format!("assign {}", columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", "))
            }
            Action::Where(condition) => format!("where {}", condition.source()),
        }
    }
}

fn shape(verb: &Verb) -> Shape {
    match verb {
        Verb::Map => Shape::One,
        Verb::Filter => Shape::Keep,
        Verb::FlatMap | Verb::Reduce { .. } | Verb::Once => Shape::Many,
    }
}

pub(super) fn templates_of(command: &CommandAction) -> impl Iterator<Item = &Template> {
    let line: &[Template] = match &command.line {
        CommandLine::Argv(argv) => argv,
        CommandLine::Shell(script) => std::slice::from_ref(script),
    };
    line.iter().chain(&command.stdin)
}

/// The name or path of the Python that is `wanted`, or stands for none.
pub fn named_interpreter(wanted: Option<&str>, env: &dyn Fn(&str) -> Option<String>) -> String {
    let venv = env("VIRTUAL_ENV").filter(|v| !v.is_empty());
    match (wanted, venv) {
        (Some(name), _) => name.to_string(),
        (None, Some(venv)) => format!("{venv}/bin/python"),
        (None, None) => "python3".to_string(),
    }
}

/// Where a program lies: as named if it has a slash, else on `path`.
pub fn find_program(name: &str, dir: &Path, path: Option<&str>) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let runs =
        |candidate: &PathBuf| candidate.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    if name.contains('/') {
        return Some(dir.join(name)).filter(runs);
    }
    std::env::split_paths(path.unwrap_or("/usr/local/bin:/usr/bin:/bin")).map(|folder| folder.join(name)).find(runs)
}
