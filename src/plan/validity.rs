//! What a stage's results depend on apart from its rows, collected part by part into its [`Fingerprint`].

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::PlanError;
use super::code::{Project, Unreadable};
use super::compile::{Compiler, templates_of};
use super::fingerprint::Fingerprint;
use super::packages::Installed;
use crate::data::{Hash, Value, source};
use crate::executor::{SharedObject, search_path};
use crate::spec::model::{Action, Call, ChunkFormat, CommandAction, CommandLine, Share, Shared};
use crate::spec::nearest;
use crate::spec::template::{Names, Template, TemplateTree};

impl Compiler<'_> {
    pub(super) fn fingerprint(&self, names: &Names, share: &[SharedObject]) -> Result<Fingerprint, PlanError> {
        let mut parts = Fingerprint::default();
        parts.add("verb", format!("{:?}", self.stage.verb));
        match &self.stage.action {
            Action::Python(python) => {
                parts.add("function", format!("{}:{}", python.module, python.function));
                parts.add("call", call_name(python.call));
                if let Some(returns) = &python.returns {
                    parts.add("returns", returns.join(","));
                }
                self.add_args(&mut parts, "args", &python.args)?;
            }
            Action::Command(command) => {
                self.add_command(&mut parts, command);
                self.add_scripts(&mut parts, command)?;
            }
            Action::Assign(columns) => {
                columns.iter().for_each(|(name, e)| parts.add(format!("assign {name}"), e.source()));
            }
            Action::Where(condition) => parts.add("where", condition.source()),
        }
        if !matches!(self.stage.action, Action::Python(_)) {
            self.add_named_values(&mut parts, names);
        }
        if let Some(init) = &self.stage.settings.init {
            parts.add("init.function", format!("{}:{}", init.module, init.function));
            self.add_args(&mut parts, "init", &init.args)?;
        }
        self.add_code(&mut parts)?;
        self.add_packages(&mut parts)?;
        if let Some(version) = &self.stage.settings.version {
            parts.add("version", version);
        }
        self.add_files(&mut parts);
        self.add_deps(&mut parts)?;
        self.add_share(&mut parts, share);
        Ok(parts)
    }

    /// Parameters and environment values that templates name count by value.
    fn add_named_values(&self, parts: &mut Fingerprint, names: &Names) {
        for name in &names.params {
            let value = self.workflow.params.iter().find(|(n, _)| n == name).map(|(_, v)| v.to_json().to_string());
            parts.add(format!("params.{name}"), value.unwrap_or_default());
        }
        let mut env: Vec<&String> = match &self.stage.action {
            Action::Command(command) => templates_of(command).flat_map(|t| &t.names().env).collect(),
            _ => Vec::new(),
        };
        env.sort();
        for name in env {
            let value = (self.surroundings.env)(name).unwrap_or_default();
            parts.add(format!("env.{name}"), Hash::of(value.as_bytes()).to_string());
        }
    }

    /// The code that the function and `init` can reach.
    fn add_code(&self, parts: &mut Fingerprint) -> Result<(), PlanError> {
        let mut functions = Vec::new();
        if let Action::Python(python) = &self.stage.action {
            functions.push((&*python.module, &*python.function));
        }
        functions.extend(self.stage.settings.init.iter().map(|init| (&*init.module, &*init.function)));
        if functions.is_empty() {
            return Ok(());
        }
        let reached = self.project()?.parts(&functions).map_err(|e| self.code_unreadable(e))?;
        reached.into_iter().for_each(|(name, value)| parts.add(name, value));
        Ok(())
    }

    /// The modules that the stage's workers find: beside the workflow file, then along `PYTHONPATH`, but for what is
    /// installed.
    pub(super) fn project(&self) -> Result<Rc<Project>, PlanError> {
        let folders = self.project_path(&self.workflow.dir)?;
        Ok(self.found.projects.seen_from(folders))
    }

    /// A folder, and those of `PYTHONPATH` in which nothing is installed.
    pub(super) fn project_path(&self, first: &Path) -> Result<Vec<PathBuf>, PlanError> {
        let installed = |folder: &PathBuf| folder.iter().any(|part| part == "site-packages" || part == "dist-packages");
        let more = self.python_path()?.into_iter().filter(|folder| !installed(folder));
        Ok([first.to_path_buf()].into_iter().chain(more).collect())
    }

    fn python_path(&self) -> Result<Vec<PathBuf>, PlanError> {
        let own = self.stage.settings.env.iter().find(|(name, t)| name == "PYTHONPATH" && !t.names().per_item());
        let path = match own {
            Some((_, template)) => Some(self.text("env.PYTHONPATH", template)?),
            None => (self.surroundings.env)("PYTHONPATH"),
        };
        let cwd = self.constant_cwd(&self.stage.settings)?;
        let path = path.filter(|path| !path.is_empty()).unwrap_or_default();
        Ok(std::env::split_paths(&path).filter(|_| !path.is_empty()).map(|folder| cwd.join(folder)).collect())
    }

    pub(super) fn code_unreadable(&self, unreadable: Unreadable) -> PlanError {
        let Unreadable { path, error } = unreadable;
        self.unreadable(&path, std::io::Error::new(error.kind(), error.to_string()))
    }

    fn add_args(&self, parts: &mut Fingerprint, group: &str, args: &[(String, TemplateTree)]) -> Result<(), PlanError> {
        for (name, tree) in args {
            let value = if tree.names().per_item() {
                let mut text = tree_text(tree);
                for param in &tree.names().params {
                    let value = self.workflow.params.iter().find(|(n, _)| n == param);
                    text += &format!(" {param}={}", value.map_or_else(String::new, |(_, v)| v.to_json().to_string()));
                }
                text
            } else {
                canonical_text(&self.render(&format!("{group}.{name}"), tree)?)
            };
            parts.add(format!("{group}.{name}"), value);
        }
        Ok(())
    }

    fn add_command(&self, parts: &mut Fingerprint, command: &CommandAction) {
        match &command.line {
            CommandLine::Argv(argv) => {
                let argv: Vec<&str> = argv.iter().map(Template::source).collect();
                parts.add("command", serde_json::json!(argv).to_string());
            }
            CommandLine::Shell(script) => parts.add("shell", script.source()),
        }
        if let Some(stdin) = &command.stdin {
            parts.add("stdin", stdin.source());
        }
        parts.add("stdout", format!("{:?}", command.stdout));
        parts.add("ok_codes", format!("{:?}", command.ok_codes));
    }

    /// The versions of the packages that the stage lists.
    fn add_packages(&self, parts: &mut Fingerprint) -> Result<(), PlanError> {
        let packages = &self.stage.settings.packages;
        if packages.is_empty() {
            return Ok(());
        }
        let interpreter = self.interpreter(&self.stage.settings.interpreter)?;
        let known = self.found.installed.borrow().get(&interpreter).cloned();
        let folders = match known {
            Some(folders) => folders,
            None => search_path(&interpreter).map_err(|source| PlanError::NoSearchPath {
                stage: self.stage.name.clone(),
                interpreter: interpreter.clone(),
                source,
            })?,
        };
        self.found.installed.borrow_mut().insert(interpreter.clone(), folders.clone());
        let own = [self.workflow.dir.clone()].into_iter().chain(self.python_path()?);
        let installed = Installed::along(&own.chain(folders).collect::<Vec<_>>());
        for package in packages {
            let version = installed.version(package).ok_or_else(|| PlanError::NoPackage {
                stage: self.stage.name.clone(),
                package: package.clone(),
                interpreter: interpreter.clone(),
                nearest: nearest(package, installed.names()).map(str::to_string),
            })?;
            parts.add(format!("package:{package}"), version);
        }
        Ok(())
    }

    /// The templates of the files that items make, with what they name that is the same for all items.
    fn add_files(&self, parts: &mut Fingerprint) {
        for file in &self.stage.settings.files {
            let mut text = file.path.source().to_string();
            for param in &file.path.names().params {
                let value = self.workflow.params.iter().find(|(n, _)| n == param);
                text += &format!(" {param}={}", value.map_or_else(String::new, |(_, v)| v.to_json().to_string()));
            }
            for name in &file.path.names().env {
                let value = (self.surroundings.env)(name).unwrap_or_default();
                text += &format!(" {name}={}", Hash::of(value.as_bytes()));
            }
            parts.add(format!("files.{}", file.name), text);
        }
    }

    fn add_deps(&self, parts: &mut Fingerprint) -> Result<(), PlanError> {
        for template in self.stage.settings.deps.iter().filter(|t| !t.names().per_item()) {
            let pattern = self.text("deps", template)?;
            for path in self.matching(&pattern)? {
                let digest = source::file_digest(&path, Some(self.surroundings.digests));
                let (_, digest) = digest.map_err(|source| self.unreadable(&path, source))?;
                let shown = path.strip_prefix(&self.workflow.dir).unwrap_or(&path).display();
                parts.add(format!("deps:{shown}"), Hash::of_digest(&digest).to_string());
            }
        }
        Ok(())
    }

    /// Shared files count by content and by how they are loaded, whatever their name. Rows of stages are part of what
    /// the stage's items see, not of its version: they are known only once those have finished.
    fn add_share(&self, parts: &mut Fingerprint, share: &[SharedObject]) {
        for Share { name, from } in &self.stage.settings.share {
            let object = share.iter().find(|object| object.name == *name);
            match (from, object) {
                (Shared::File { format, .. }, Some(SharedObject { shown, content, .. })) => {
                    parts.add_named(format!("share.{name}"), format!("{} {content}", format.name()), shown);
                }
                _ => parts.add(format!("share.{name}"), "rows"),
            }
        }
    }

    fn matching(&self, pattern: &str) -> Result<Vec<PathBuf>, PlanError> {
        let found = source::matching_files(&self.workflow.dir, pattern).map_err(|problem| PlanError::Template {
            stage: self.stage.name.clone(),
            what: "deps".into(),
            problem: problem.to_string(),
        })?;
        if found.is_empty() {
            let source = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(self.unreadable(&self.workflow.dir.join(pattern), source));
        }
        Ok(found)
    }

    pub(super) fn unreadable(&self, path: &Path, source: std::io::Error) -> PlanError {
        PlanError::Unreadable { stage: self.stage.name.clone(), path: path.to_path_buf(), source }
    }
}

fn call_name(call: Call) -> &'static str {
    match call {
        Call::Row => "row",
        Call::Kwargs => "kwargs",
        Call::Value => "value",
        Call::Chunk(ChunkFormat::Pandas) => "chunk pandas",
        Call::Chunk(ChunkFormat::Arrow) => "chunk arrow",
        Call::Chunk(ChunkFormat::Rows) => "chunk rows",
    }
}

/// The text of a tree of templates.
fn tree_text(tree: &TemplateTree) -> String {
    match tree {
        TemplateTree::Value(value) => canonical_text(value),
        TemplateTree::Template(template) => template.source().to_string(),
        TemplateTree::List(items) => format!("[{}]", items.iter().map(tree_text).collect::<Vec<_>>().join(", ")),
        TemplateTree::Map(entries) => {
            let entries = entries.iter().map(|(name, tree)| format!("{name}: {}", tree_text(tree)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
    }
}

/// A value as text in which different values differ: JSON, with the type where JSON has none.
fn canonical_text(value: &Value) -> String {
    match value {
        Value::Float(v) => crate::data::value::float_text(*v),
        other => other.to_json().to_string(),
    }
}
