//! From a command line to a loaded workflow: which file, which state.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::diagnostic::{self, Diagnostic, Sources};
use crate::engine::api::Flow;
use crate::report::Invocation;
use crate::spec::model::Workflow;
use crate::spec::{self, LoadOptions, Profile};

use super::error::{CliError, Context, did_you_mean};
use super::globals::Globals;
use super::terminal::Terminal;

/// Tried in the current folder where no file is named.
const DEFAULT_FILES: [&str; 2] = ["pipeline.yaml", "workflow.yaml"];

/// A workflow, ready to be handed to the engine.
#[derive(Debug)]
pub(super) struct Loaded {
    pub flow: Flow,
    /// For commands to paste.
    pub invocation: Invocation,
}

impl Loaded {
    /// Refuses a stage that the workflow does not have.
    pub(super) fn check_stage(&self, name: &str) -> Result<(), CliError> {
        let names: Vec<&str> = self.flow.workflow.stages.iter().map(|s| s.name.as_str()).collect();
        if names.contains(&name) {
            return Ok(());
        }
        let near = did_you_mean(name, names.iter().copied());
        let all = format!("the stages are: {}", names.join(", "));
        Err(CliError::usage(format!("there is no stage `{name}` in {}", self.invocation.file))
            .hint(near.unwrap_or(all)))
    }
}

/// A workflow file that was read, and the files of profiles.
#[derive(Debug)]
pub(super) struct Files {
    /// The workflow file, as it was given or found.
    pub path: PathBuf,
    pub sources: Sources,
    /// The profiles that are chosen.
    profiles: Vec<Profile>,
}

/// Finds, reads and validates the workflow; mistakes in it are printed, with exit code 2.
pub(super) fn load(file: Option<&Path>, globals: &Globals, terminal: &Terminal) -> Result<Loaded, CliError> {
    load_on(None, file, globals, terminal)
}

/// As [`load`], with a backend for all stages.
pub(super) fn load_on(
    backend: Option<&str>,
    file: Option<&Path>,
    globals: &Globals,
    terminal: &Terminal,
) -> Result<Loaded, CliError> {
    let files = read(file, globals)?;
    let workflow = match parse(&files, backend, globals) {
        Ok(workflow) => workflow,
        Err(diagnostics) => {
            let text = diagnostic::render(&files.sources, &diagnostics, terminal.err.color());
            crate::report::tell(&terminal.hide(&text));
            return Err(CliError::told());
        }
    };
    let state_dir = state_dir(&workflow, globals.state.as_deref(), std::env::var_os("BPP_FLOW_STATE"));
    let secrets = terminal.secrets.get_or_init(|| crate::engine::api::secrets(&workflow));
    let options = globals.identity().iter().map(|option| secrets.hide(option).into_owned()).collect();
    let invocation = Invocation { options, ..Invocation::new(&files.path) };
    let source_text = files.sources.file(0).0.to_string();
    let flow = Flow { workflow, state_dir: absolute(&state_dir)?, file: files.path, source_text };
    Ok(Loaded { flow, invocation })
}

/// Finds and reads the workflow file, and the files of profiles.
pub(super) fn read(file: Option<&Path>, globals: &Globals) -> Result<Files, CliError> {
    let path = match (file, globals.file.as_deref()) {
        (Some(given), Some(other)) if given != other => {
            return Err(CliError::usage(format!("two workflow files: {} and {}", given.display(), other.display())));
        }
        (Some(given), _) | (None, Some(given)) => given.to_path_buf(),
        (None, None) => default_file()?,
    };
    let mut sources = Sources::new(path.display().to_string(), &text_of(&path, "workflow")?);
    let mut profiles = Vec::new();
    for name in &globals.profiles {
        if !is_file_name(name) {
            profiles.push(Profile::Named(name.clone()));
            continue;
        }
        sources = sources.and(name, &text_of(Path::new(name), "profile")?);
        profiles.push(Profile::File(sources.len() - 1));
    }
    Ok(Files { path, sources, profiles })
}

/// Whether `--profile` names a file, not one of the workflow's profiles.
fn is_file_name(profile: &str) -> bool {
    profile.contains('/') || [".yaml", ".yml"].iter().any(|ending| profile.ends_with(ending))
}

fn text_of(path: &Path, what: &str) -> Result<String, CliError> {
    let bytes = std::fs::read(path).map_err(|error| unreadable(path, what, error))?;
    String::from_utf8(bytes).map_err(|_| CliError::usage(format!("{} is not UTF-8 text", path.display())))
}

/// Validates a workflow file.
pub(super) fn parse(files: &Files, backend: Option<&str>, globals: &Globals) -> Result<Workflow, Vec<Diagnostic>> {
    let workflow = with_options(files, backend, globals, |options| spec::load(&files.sources, options))?;
    let mistakes = crate::engine::api::check(&workflow);
    if mistakes.is_empty() { Ok(workflow) } else { Err(mistakes) }
}

/// What a workflow depends on besides its files.
pub(super) fn with_options<T>(
    files: &Files,
    backend: Option<&str>,
    globals: &Globals,
    then: impl FnOnce(&LoadOptions) -> T,
) -> T {
    let path = std::path::absolute(&files.path).unwrap_or_else(|_| files.path.clone());
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let dir = path.parent().map(Path::to_path_buf).unwrap_or_default();
    let env = |name: &str| std::env::var(name).ok();
    then(&LoadOptions { stem: &stem, dir, params: &globals.params, profiles: &files.profiles, backend, env: &env })
}

fn default_file() -> Result<PathBuf, CliError> {
    let found = DEFAULT_FILES.iter().map(PathBuf::from).find(|path| path.is_file());
    found.ok_or_else(|| {
        CliError::usage("no workflow file: neither pipeline.yaml nor workflow.yaml is in the current folder")
            .hint("name one (bpp-flow run FILE), or make one with `bpp-flow init`")
    })
}

fn unreadable(path: &Path, what: &str, error: std::io::Error) -> CliError {
    let inside = DEFAULT_FILES.iter().map(|name| path.join(name)).find(|p| p.is_file());
    let hint = inside.map(|p| format!("did you mean {}?", p.display()));
    let doing = format!("cannot read the {what} file {}", path.display());
    CliError::usage(Context { doing, source: error.into() }).maybe_hint(hint)
}

/// `--state` is the folder itself; `BPP_FLOW_STATE` holds one per workflow; then the file; then beside the file.
fn state_dir(workflow: &Workflow, given: Option<&Path>, env: Option<OsString>) -> PathBuf {
    match (given, env.filter(|dir| !dir.is_empty()), &workflow.state) {
        (Some(dir), _, _) => dir.to_path_buf(),
        (None, Some(dir), _) => Path::new(&dir).join(&workflow.name),
        (None, None, Some(dir)) => workflow.dir.join(dir),
        (None, None, None) => workflow.dir.join(".bpp-flow").join(&workflow.name),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path).map_err(|error| {
        CliError::failed(Context { doing: "cannot tell the current folder".into(), source: error.into() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workflow(state: Option<&str>) -> Workflow {
        Workflow {
            name: "cells".into(),
            description: None,
            dir: "/w".into(),
            params: Vec::new(),
            sources: Vec::new(),
            stages: Vec::new(),
            outputs: Vec::new(),
            state: state.map(str::to_string),
        }
    }

    #[test]
    fn the_state_lies_where_the_nearest_says() {
        let env = || Some(OsString::from("/scratch"));
        let dir = |state, given: Option<&str>, env| state_dir(&workflow(state), given.map(Path::new), env);
        assert_eq!(dir(None, None, None), Path::new("/w/.bpp-flow/cells"));
        assert_eq!(dir(Some("st"), None, None), Path::new("/w/st"));
        assert_eq!(dir(Some("st"), None, env()), Path::new("/scratch/cells"));
        assert_eq!(dir(Some("st"), None, Some(OsString::new())), Path::new("/w/st"));
        assert_eq!(dir(Some("st"), Some("here"), env()), Path::new("here"));
    }

    #[test]
    fn two_files_are_one_too_many() {
        let globals = Globals { file: Some("a.yaml".into()), ..Globals::default() };
        let error = read(Some(Path::new("b.yaml")), &globals).expect_err("two files");
        assert_eq!(error.to_string(), "two workflow files: b.yaml and a.yaml");
    }

    #[test]
    fn a_folder_is_no_workflow_but_may_hold_one() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("pipeline.yaml"), "stages: {}\n").expect("writes");
        let error = read(Some(folder.path()), &Globals::default()).expect_err("a folder");
        let text = error.render(crate::report::Style::PLAIN);
        assert!(text.contains("hint: did you mean "), "{text}");
        assert!(text.contains("pipeline.yaml?"), "{text}");
    }
}
