//! The run lock: one process writes a state at a time.
//!
//! The lock is the kernel's (`flock` on the file `lock`, close-on-exec), so it goes with its process however that
//! ends. The file's text says who holds it, and only informs.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::error::StoreError;

/// Who holds the lock of a state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Owner {
    pub host: String,
    /// The boot of that host, so that a process number means something.
    pub boot_id: String,
    pub pid: u32,
    /// When it took the lock, RFC 3339.
    pub since: String,
    /// What it runs.
    pub command: String,
}

impl Owner {
    fn this_process(command: &str) -> Owner {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Owner {
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            boot_id: boot_id.trim().to_string(),
            pid: std::process::id(),
            since: jiff::Timestamp::now().round(jiff::Unit::Second).unwrap_or_default().to_string(),
            command: command.to_string(),
        }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.pid == 0 {
            return f.write_str("another process");
        }
        write!(f, "process {} on {}", self.pid, self.host)?;
        if !self.since.is_empty() {
            write!(f, " since {}", self.since)?;
        }
        if !self.command.is_empty() {
            write!(f, " ({})", self.command)?;
        }
        Ok(())
    }
}

/// The lock, held until it is dropped.
#[derive(Debug)]
pub(super) struct RunLock {
    _file: File,
}

/// How often a lock that is taken is tried again: [`owner`] holds it for an instant.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(2);

impl RunLock {
    /// Takes the lock of the state in `dir` at once, or says who has it.
    pub fn take(dir: &Path, command: &str) -> Result<RunLock, StoreError> {
        let path = lock_path(dir);
        let mut file = super::open_file(&path, false)?;
        lock(&mut file, FlockOperation::NonBlockingLockExclusive, &path)?;
        write_owner(&mut file, &Owner::this_process(command)).map_err(StoreError::io("write", &path))?;
        Ok(RunLock { _file: file })
    }

    /// Keeps runs away while the state in `dir` is read, where nothing can be written; `None`: there never was one.
    pub fn share(dir: &Path) -> Result<Option<RunLock>, StoreError> {
        let path = lock_path(dir);
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(StoreError::io("open", &path))?,
        };
        lock(&mut file, FlockOperation::NonBlockingLockShared, &path)?;
        Ok(Some(RunLock { _file: file }))
    }
}

fn lock(file: &mut File, how: FlockOperation, path: &Path) -> Result<(), StoreError> {
    for tried in 1.. {
        match flock(&*file, how) {
            Ok(()) => break,
            Err(rustix::io::Errno::WOULDBLOCK) if tried < TRIES => std::thread::sleep(PAUSE),
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(StoreError::Locked(read_owner(file))),
            Err(error) => return Err(StoreError::io("lock", path)(error.into())),
        }
    }
    Ok(())
}

/// Who holds the lock of the state in `dir` now, if anyone does.
pub(super) fn owner(dir: &Path) -> Option<Owner> {
    let mut file = File::open(lock_path(dir)).ok()?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => Some(read_owner(&mut file)),
        _ => None,
    }
}

fn lock_path(dir: &Path) -> PathBuf {
    dir.join("lock")
}

fn read_owner(file: &mut File) -> Owner {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
    read.ok().and_then(|_| serde_json::from_str(&text).ok()).unwrap_or_default()
}

fn write_owner(file: &mut File, owner: &Owner) -> std::io::Result<()> {
    let text = serde_json::to_string(owner)?;
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_refused_and_told_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(owner(dir.path()), None);
        let lock = RunLock::take(dir.path(), "run a.yaml").unwrap();
        let Err(StoreError::Locked(first)) = RunLock::take(dir.path(), "run b.yaml") else { panic!("not refused") };
        assert_eq!(first.pid, std::process::id());
        assert_eq!(first.command, "run a.yaml");
        assert_eq!(owner(dir.path()), Some(first));
        drop(lock);
        assert_eq!(owner(dir.path()), None);
        RunLock::take(dir.path(), "run b.yaml").unwrap();
    }

    #[test]
    fn a_lock_file_with_other_text_still_locks() {
        let dir = tempfile::tempdir().unwrap();
        let _lock = RunLock::take(dir.path(), "run").unwrap();
        std::fs::write(lock_path(dir.path()), "what?").unwrap();
        assert_eq!(owner(dir.path()), Some(Owner::default()));
        assert_eq!(Owner::default().to_string(), "another process");
    }
}
