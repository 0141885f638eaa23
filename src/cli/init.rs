//! `init`: a small workflow that runs as it is, with comments that teach.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::report::phrase::shell_quote;
use crate::report::{Tint, tell};

use super::Exit;
use super::error::{CliError, Context};
use super::globals::Globals;
use super::terminal::Terminal;

/// The files, by their paths in the folder.
const FILES: [(&str, &str); 3] = [
    ("pipeline.yaml", include_str!("starter/pipeline.yaml")),
    ("plants.py", include_str!("starter/plants.py")),
    ("data/plants.csv", include_str!("starter/data/plants.csv")),
];

const EXAMPLE: &str = "\
Examples:
  bpp-flow init demo    into the folder demo, which is made
  bpp-flow init         into the current folder";

/// Writes a small workflow that runs as it is
///
/// A workflow file, a Python module and a table, all with comments that say what to change. A file that is there
/// already is never overwritten.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// The folder; default: the current one
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &Args, globals: &Globals, terminal: &Terminal) -> Result<Exit, CliError> {
    let dir = args.dir.as_deref().unwrap_or(Path::new("."));
    refuse_overwriting(dir)?;
    for (name, text) in FILES {
        let path = dir.join(name);
        write_new(&path, text).map_err(|error| {
            CliError::failed(Context { doing: format!("cannot write {}", path.display()), source: error.into() })
        })?;
    }
    if !globals.quiet {
        for (name, _) in FILES {
            tell(&format!("wrote {}\n", dir.join(name).display()));
        }
        tell(&format!("\n{}\n{}", terminal.err.paint(Tint::Bold, "next:"), next_steps(args.dir.as_deref())));
    }
    Ok(Exit::Success)
}

fn refuse_overwriting(dir: &Path) -> Result<(), CliError> {
    let there = FILES.iter().map(|(name, _)| dir.join(name)).find(|path| path.symlink_metadata().is_ok());
    match there {
        Some(path) => Err(CliError::failed(format!("{} is there already; nothing was written", path.display()))
            .hint("choose an empty folder: bpp-flow init DIR")),
        None => Ok(()),
    }
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}

fn next_steps(dir: Option<&Path>) -> String {
    let mut steps = String::new();
    if let Some(dir) = dir.filter(|dir| *dir != Path::new(".")) {
        steps.push_str(&format!("  cd {}\n", shell_quote(&dir.display().to_string())));
    }
    steps + "  bpp-flow plan\n  bpp-flow run\n  bpp-flow results by_bed\n"
}

#[cfg(test)]
mod tests {
    use super::super::terminal::Color;
    use super::*;

    fn init(dir: &Path) -> Result<Exit, CliError> {
        let globals = Globals { quiet: true, ..Globals::default() };
        run(&Args { dir: Some(dir.to_path_buf()) }, &globals, &Terminal::detect(Color::Never))
    }

    #[test]
    fn the_starter_is_written_once_and_never_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("new/demo");
        assert_eq!(init(&dir).expect("writes"), Exit::Success);
        for (name, text) in FILES {
            assert_eq!(std::fs::read_to_string(dir.join(name)).expect("reads"), text);
        }
        std::fs::write(dir.join("plants.py"), "mine").expect("writes");
        std::fs::remove_file(dir.join("pipeline.yaml")).expect("removes");
        let error = init(&dir).expect_err("refuses");
        assert!(error.to_string().contains("plants.py is there already"), "{error}");
        assert!(!dir.join("pipeline.yaml").exists(), "nothing was written");
        assert_eq!(std::fs::read_to_string(dir.join("plants.py")).expect("reads"), "mine");
    }

    #[test]
    fn the_starter_is_a_valid_workflow() {
        let folder = tempfile::tempdir().expect("a folder");
        init(folder.path()).expect("writes");
        let globals = Globals::default();
        let file = folder.path().join("pipeline.yaml");
        let loaded = super::super::load::load(Some(&file), &globals, &Terminal::detect(Color::Never)).expect("loads");
        let workflow = &loaded.flow.workflow;
        assert_eq!((workflow.stages.len(), workflow.outputs.len()), (3, 2));
        assert_eq!(loaded.flow.state_dir, folder.path().join(".bpp-flow/plants"));
    }

    #[test]
    fn the_next_steps_can_be_pasted() {
        assert!(next_steps(Some(Path::new("a b"))).starts_with("  cd 'a b'\n  bpp-flow plan\n"));
        assert!(next_steps(None).starts_with("  bpp-flow plan\n"));
    }
}
