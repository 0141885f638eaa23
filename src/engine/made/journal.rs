//! The temporary folders that there are, written down before they are made, so that the next run can remove what a killed
//! one left.
//!
//! A file in the state folder: the number of its inode, then the folders, each ended by a NUL: relative to the workflow's
//! folder where they lie in it. Folders elsewhere are removed only by a journal that is no copy: a copy of a state may
//! be made while its run goes on.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::PREFIX;

/// The journal's name in the state folder.
const NAME: &str = "files-in-hand";
/// So many entries, most of them done with, and it is written anew.
const MOST_ENTRIES: usize = 10_000;

/// The journal of a run that goes on.
pub struct Journal {
    path: PathBuf,
    dir: PathBuf,
    /// What the names of this run's folders begin with.
    prefix: String,
    state: Mutex<State>,
}

struct State {
    file: File,
    /// Folders made.
    number: u64,
    entries: usize,
    live: HashSet<PathBuf>,
    /// Folders above that were made for them, while nothing is in them.
    parents: HashSet<PathBuf>,
    closed: bool,
}

impl State {
    fn make_parents(&mut self, parent: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = parent.ancestors().take_while(|place| !place.exists()).collect();
        fs::create_dir_all(parent)?;
        self.parents.extend(missing.into_iter().map(Path::to_path_buf));
        Ok(())
    }
}

impl Journal {
    /// A new one, for a workflow in `dir`.
    pub fn create(state_dir: &Path, dir: &Path, prefix: &str) -> io::Result<Journal> {
        let path = state_dir.join(NAME);
        let file = begin(&path)?;
        let state = Mutex::new(State {
            file,
            number: 0,
            entries: 0,
            live: HashSet::new(),
            parents: HashSet::new(),
            closed: false,
        });
        Ok(Journal { path, dir: dir.to_path_buf(), prefix: prefix.to_string(), state })
    }

    /// Makes a new folder in `parent`, and `parent` where it is missing.
    pub fn make_folder(&self, parent: &Path) -> io::Result<PathBuf> {
        let mut state = self.state();
        if state.closed {
            return Err(io::Error::other("the run is over"));
        }
        state.number += 1;
        let folder = parent.join(format!("{}-{}", self.prefix, state.number));
        self.note(&mut state, &folder)?;
        let made = fs::create_dir(&folder).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => state.make_parents(parent).and_then(|()| fs::create_dir(&folder)),
            _ => Err(error),
        });
        if let Err(error) = made {
            // Not ours to remove, if it is there.
            state.live.remove(&folder);
            self.write_anew(&mut state)?;
            return Err(error);
        }
        Ok(folder)
    }

    /// Removes a folder with all that is in it, and what was made for it above, unless there is something in it.
    pub fn remove_folder(&self, folder: &Path) {
        let gone = fs::remove_dir_all(folder);
        if gone.is_ok() || gone.is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            let mut state = self.state();
            state.live.remove(folder);
            for parent in folder.ancestors().skip(1) {
                if !state.parents.contains(parent) || fs::remove_dir(parent).is_err() {
                    break;
                }
                state.parents.remove(parent);
            }
        }
    }

    /// A file has been moved to where the folder lies: what was made above it stays.
    pub fn keep_parents(&self, folder: &Path) {
        let mut state = self.state();
        for parent in folder.ancestors().skip(1) {
            if !state.parents.remove(parent) {
                break;
            }
        }
    }

    /// Removes all folders that are left, and the journal; no more are made.
    pub fn close(&self) {
        let live: Vec<PathBuf> = {
            let mut state = self.state();
            state.closed = true;
            state.live.iter().cloned().collect()
        };
        live.iter().for_each(|folder| self.remove_folder(folder));
        if self.state().live.is_empty() {
            let _ = fs::remove_file(&self.path);
        }
    }

    fn note(&self, state: &mut State, folder: &Path) -> io::Result<()> {
        state.live.insert(folder.to_path_buf());
        if state.entries >= MOST_ENTRIES && state.entries > 4 * state.live.len() {
            return self.write_anew(state);
        }
        state.entries += 1;
        state.file.write_all(&self.entry(folder))
    }

    fn write_anew(&self, state: &mut State) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = begin(&new)?;
        let entries: Vec<u8> = state.live.iter().flat_map(|folder| self.entry(folder)).collect();
        file.write_all(&entries)?;
        fs::rename(&new, &self.path)?;
        (state.file, state.entries) = (file, state.live.len());
        Ok(())
    }

    fn entry(&self, folder: &Path) -> Vec<u8> {
        let mut entry = folder.strip_prefix(&self.dir).unwrap_or(folder).as_os_str().as_bytes().to_vec();
        entry.push(0);
        entry
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A journal without entries.
fn begin(path: &Path) -> io::Result<File> {
    let _ = fs::remove_file(path);
    let mut file = File::options().create_new(true).append(true).mode(0o600).open(path)?;
    let inode = file.metadata()?.ino();
    file.write_all(format!("{inode}\0").as_bytes())?;
    Ok(file)
}

/// Removes the folders that a killed run has left, and its journal. The caller holds the run lock.
pub fn sweep(state_dir: &Path, dir: &Path) -> io::Result<()> {
    let path = state_dir.join(NAME);
    let (bytes, inode) = match (fs::read(&path), fs::symlink_metadata(&path)) {
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        (bytes, meta) => (bytes?, meta?.ino()),
    };
    let mut parts = bytes.split_inclusive(|&byte| byte == 0).filter_map(|part| part.strip_suffix(&[0]));
    let own = parts.next().is_some_and(|head| head == inode.to_string().as_bytes());
    for folder in parts.map(|part| Path::new(OsStr::from_bytes(part))) {
        let ours = folder.file_name().is_some_and(|name| name.as_bytes().starts_with(PREFIX.as_bytes()));
        let place = dir.join(folder);
        if ours && (own || folder.is_relative()) && fs::symlink_metadata(&place).is_ok_and(|meta| meta.is_dir()) {
            // One that cannot be removed is no reason not to run.
            let _ = fs::remove_dir_all(&place);
        }
    }
    fs::remove_file(&path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(dir: &Path) -> usize {
        fs::read_dir(dir).map_or(0, |entries| entries.filter(|e| e.as_ref().is_ok_and(|e| e.path().is_dir())).count())
    }

    #[test]
    fn what_is_left_is_swept_and_nothing_else() {
        let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let elsewhere = tempfile::tempdir().unwrap();
        let out = dir.path().join("a/b");
        {
            let journal = Journal::create(state.path(), dir.path(), ".bpp-flow-r").unwrap();
            let made: Vec<PathBuf> = (0..3).map(|_| journal.make_folder(&out).unwrap()).collect();
            fs::write(made[0].join("x"), "x").unwrap();
            journal.remove_folder(&made[1]);
            journal.make_folder(elsewhere.path()).unwrap();
        }
        fs::create_dir(out.join(".bpp-flow-theirs")).unwrap();
        assert_eq!((folders(&out), folders(elsewhere.path())), (3, 1));
        sweep(state.path(), dir.path()).unwrap();
        assert_eq!((folders(&out), folders(elsewhere.path())), (1, 0));
        assert!(!state.path().join(NAME).exists());
        sweep(state.path(), dir.path()).unwrap();
    }

    #[test]
    fn a_copy_leaves_alone_what_lies_elsewhere() {
        let (dir, state, copy) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let elsewhere = tempfile::tempdir().unwrap();
        let journal = Journal::create(state.path(), dir.path(), ".bpp-flow-r").unwrap();
        journal.make_folder(elsewhere.path()).unwrap();
        fs::copy(state.path().join(NAME), copy.path().join(NAME)).unwrap();
        sweep(copy.path(), dir.path()).unwrap();
        assert_eq!(folders(elsewhere.path()), 1);
        journal.close();
        assert_eq!(folders(elsewhere.path()), 0);
    }

    #[test]
    fn it_stays_small() {
        let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let journal = Journal::create(state.path(), dir.path(), ".bpp-flow-r").unwrap();
        let kept = journal.make_folder(dir.path()).unwrap();
        for _ in 0..MOST_ENTRIES {
            let folder = journal.make_folder(dir.path()).unwrap();
            journal.remove_folder(&folder);
        }
        assert!(fs::metadata(state.path().join(NAME)).unwrap().len() < 1000);
        drop(journal);
        sweep(state.path(), dir.path()).unwrap();
        assert!(!kept.exists());
    }
}
