//! The files of one item, from the paths that its templates name to their places.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{PREFIX, Workshop};
use crate::data::source::{Digests, FileStamp, file_digest};
use crate::data::{Failure, FailureKind, Value};
use crate::plan::PlannedStage;
use crate::spec::model::MadeFile;
use crate::spec::template::Scope;

/// The files of an item that is being run. The temporary folders go with it.
pub struct Staged {
    workshop: Arc<Workshop>,
    folders: Vec<PathBuf>,
    files: Vec<StagedFile>,
    /// Names and temporary paths, for templates.
    pub paths: Vec<(String, String)>,
}

struct StagedFile {
    name: String,
    /// Where the item writes it, and where it goes.
    temporary: PathBuf,
    target: PathBuf,
    /// The target as results hold it.
    shown: String,
}

/// The new columns of an item, and the files to be made durable.
pub type Finished = (Vec<(String, Value)>, Vec<PathBuf>);

impl Staged {
    /// Makes ready for an item: its paths are its own, and there are folders to write into.
    ///
    /// # Errors
    /// The item's failure: a template without a value, a path that is not for it, a folder that cannot be made.
    pub fn prepare(
        workshop: &Arc<Workshop>,
        stage: &PlannedStage,
        origin: u64,
        key: &str,
        scope: &Scope<'_>,
    ) -> Result<Staged, Failure> {
        let mut staged =
            Staged { workshop: workshop.clone(), folders: Vec::new(), files: Vec::new(), paths: Vec::new() };
        let mut parents: Vec<PathBuf> = Vec::new();
        for file in &stage.settings.files {
            let place = staged.place(file, scope)?;
            workshop
                .claims
                .claim(&place.target, stage.index, origin, key)
                .map_err(|whose| refused(format!("{} cannot be the file of item {key}: it is {whose}", place.shown)))?;
            let parent = place.target.parent().unwrap_or(Path::new("/")).to_path_buf();
            let at = match parents.iter().position(|known| *known == parent) {
                Some(at) => at,
                None => {
                    let folder = workshop.journal.make_folder(&parent);
                    staged.folders.push(folder.map_err(|e| unmade(&parent, &e))?);
                    parents.push(parent);
                    parents.len() - 1
                }
            };
            let temporary = staged.folders[at].join(place.target.file_name().unwrap_or_default());
            let Some(path) = temporary.to_str() else {
                return Err(refused(format!("{} is not valid UTF-8", temporary.display())));
            };
            staged.paths.push((file.name.clone(), path.to_string()));
            staged.files.push(StagedFile { temporary, ..place });
        }
        Ok(staged)
    }

    /// Where a file goes, if it may go there.
    fn place(&self, file: &MadeFile, scope: &Scope<'_>) -> Result<StagedFile, Failure> {
        let workshop = &self.workshop;
        let text = file.path.render_text(scope).map_err(|e| Failure::new(FailureKind::Exception, e.to_string()))?;
        let (place, shown) = workshop.target(&text);
        if text.is_empty() || text.ends_with('/') || text.contains('\0') || place.file_name().is_none() {
            return Err(refused(format!("{text:?} is no path of a file")));
        }
        let target = workshop.real_place(&place);
        if !file.allow_outside && !target.starts_with(&workshop.real_dir) {
            let place = target.display();
            return Err(refused(format!("{place} is out of the workflow's folder, and `allow_outside` is not true")));
        }
        let state =
            |part: &std::ffi::OsStr| part == ".bpp-flow" || part.as_encoded_bytes().starts_with(PREFIX.as_bytes());
        if target.starts_with(&workshop.real_state) || target.iter().any(state) {
            return Err(refused(format!("{shown} lies in bpp-flow's own state")));
        }
        if let Some(source) = workshop.inputs.reader_of(&shown) {
            return Err(refused(format!("{shown} would be read by the source `{source}`")));
        }
        if self.files.iter().any(|other| other.target == target) {
            return Err(refused(format!("two files of the item have the path {shown}")));
        }
        Ok(StagedFile { name: file.name.clone(), temporary: PathBuf::new(), target, shown })
    }

    /// Moves the files of an item that has succeeded to their places.
    ///
    /// # Errors
    /// The item's failure: a file that it did not make, or that cannot be moved.
    pub fn finish(self, digests: &Digests) -> Result<Finished, Failure> {
        let mut made = Vec::with_capacity(self.files.len());
        for file in &self.files {
            file.check()?;
            made.push(file_digest(&file.temporary, None).map_err(|e| file.unkept("read", &e))?);
        }
        let mut cells = Vec::with_capacity(self.files.len());
        for (file, (stamp, digest)) in self.files.iter().zip(made) {
            file.publish(&stamp)?;
            digests.put(&self.workshop.dir.join(&file.shown), &stamp, digest);
            let path = file.shown.clone();
            cells.push((file.name.clone(), Value::File { path, digest, size: Some(stamp.size) }));
        }
        self.folders.iter().for_each(|folder| self.workshop.journal.keep_parents(folder));
        Ok((cells, self.files.iter().map(|file| file.target.clone()).collect()))
    }
}

impl StagedFile {
    /// Whether the item made it, and as a file.
    fn check(&self) -> Result<(), Failure> {
        let what = match fs::symlink_metadata(&self.temporary) {
            Ok(meta) if meta.is_file() && self.target.is_dir() => "cannot be moved to where a folder is",
            Ok(meta) if meta.is_file() => return Ok(()),
            Ok(meta) if meta.is_dir() => "is a folder; pack it into one file",
            Ok(meta) if meta.is_symlink() => "is a link; a file is needed",
            Ok(_) => "is no regular file",
            Err(error) if error.kind() == io::ErrorKind::NotFound => "was not made",
            Err(error) => return Err(self.unkept("read", &error)),
        };
        Err(output(format!("the file `{}` {what} ({})", self.name, self.shown)))
    }

    /// Gives it its name; one of that name goes. Between the two looks at it, nothing may have changed it.
    fn publish(&self, stamp: &FileStamp) -> Result<(), Failure> {
        let now = fs::metadata(&self.temporary).map(|meta| FileStamp::of(&meta));
        if now.map_err(|e| self.unkept("read", &e))? != *stamp {
            return Err(output(format!("the file `{}` is still being written ({})", self.name, self.shown)));
        }
        fs::rename(&self.temporary, &self.target).map_err(|e| self.unkept("move", &e))
    }

    fn unkept(&self, verb: &str, error: &io::Error) -> Failure {
        output(format!("cannot {verb} the file `{}` ({}): {error}", self.name, self.shown))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.folders.iter().for_each(|folder| self.workshop.journal.remove_folder(folder));
    }
}

/// Something is wrong with the path: the item is not run, and would not be the better for being tried again.
fn refused(message: String) -> Failure {
    Failure::new(FailureKind::Input, message)
}

fn output(message: String) -> Failure {
    Failure::new(FailureKind::Output, message)
}

fn unmade(parent: &Path, error: &io::Error) -> Failure {
    output(format!("cannot make a folder in {}: {error}", parent.display()))
}
