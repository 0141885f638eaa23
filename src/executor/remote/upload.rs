//! What nodes are sent that do not see this machine's files: modules beside the workflow, and shared objects.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::frames::{self, Digest};
use crate::executor::{PoolKey, wire};

/// Folders and files that are nobody's module.
const LEFT_OUT: [&str; 4] = ["__pycache__", ".git", ".bpp-flow", ".venv"];

/// What can be asked for by its digest.
#[derive(Default)]
pub(super) struct Uploads {
    contents: HashMap<Digest, Vec<u8>>,
    files: HashMap<Digest, PathBuf>,
    /// The digests of what `upload` names.
    pub modules: Vec<Digest>,
}

impl Uploads {
    /// Reads what is to be uploaded of the workflow's folder.
    ///
    /// # Errors
    /// Words that name the path that cannot be read.
    pub(super) fn read(dir: &Path, paths: &[PathBuf]) -> Result<Uploads, String> {
        let mut uploads = Uploads::default();
        if paths.is_empty() {
            return Ok(uploads);
        }
        let mut files = Vec::new();
        for path in paths {
            let outside = |_| format!("upload: {} is not in the workflow's folder", path.display());
            let relative = path.strip_prefix(dir).map_err(outside)?;
            gather(path, relative, &mut files).map_err(|e| format!("upload: {}: {e}", path.display()))?;
        }
        files.sort();
        let content = frames::files(&files);
        if content.len() > wire::MAX_FRAME as usize / 2 {
            return Err(format!("upload: {} MiB are too much: put data where nodes see it", content.len() >> 20));
        }
        let digest = *blake3::hash(&content).as_bytes();
        uploads.contents.insert(digest, content);
        uploads.modules.push(digest);
        Ok(uploads)
    }

    /// Lets the objects of a pool be asked for.
    pub(super) fn share(&mut self, key: &PoolKey) {
        for object in key.python.iter().flat_map(|python| &python.share) {
            self.files.insert(frames::of_shared(object), object.path.clone());
        }
    }

    /// What has that digest.
    ///
    /// # Errors
    /// Words for people, when it cannot be read or is too large to be sent.
    pub(super) fn content(&self, digest: &Digest) -> Result<Vec<u8>, String> {
        if let Some(content) = self.contents.get(digest) {
            return Ok(content.clone());
        }
        let path = self.files.get(digest).ok_or("a node asks for what nobody has")?;
        let failed = |e: io::Error| format!("share: cannot read {}: {e}", path.display());
        let size = path.metadata().map_err(failed)?.len();
        if size >= u64::from(wire::MAX_FRAME) {
            let shown = path.display();
            return Err(format!(
                "share: nodes do not see {shown}, and it is too large to be sent: put it where they do"
            ));
        }
        fs::read(path).map_err(failed)
    }
}

/// The regular files of a folder, or the one file.
fn gather(path: &Path, relative: &Path, files: &mut Vec<(String, Vec<u8>, u32)>) -> io::Result<()> {
    let found = fs::metadata(path)?;
    if !found.is_dir() {
        let mode = found.permissions().mode() & 0o777;
        files.push((relative.to_string_lossy().into_owned(), fs::read(path)?, mode));
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if !LEFT_OUT.iter().any(|name| entry.file_name() == *name) {
            gather(&entry.path(), &relative.join(entry.file_name()), files)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_gathered_without_what_python_leaves_behind() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("lib/__pycache__")).unwrap();
        fs::write(dir.path().join("lib/a.py"), "x = 1").unwrap();
        fs::write(dir.path().join("lib/__pycache__/a.pyc"), "").unwrap();
        let uploads = Uploads::read(dir.path(), &[dir.path().join("lib/")]).unwrap();
        let content = uploads.content(&uploads.modules[0]).unwrap();
        assert_eq!(content, frames::files(&[("lib/a.py".into(), b"x = 1".to_vec(), 0o644)]));
        assert!(Uploads::read(dir.path(), &[dir.path().join("none")]).is_err_and(|e| e.contains("none")));
        assert!(Uploads::read(dir.path(), &["/etc/hostname".into()]).is_err());
        assert!(uploads.content(&[0; 32]).is_err());
    }
}
