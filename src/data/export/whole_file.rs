//! Files that appear whole or not at all.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::Sink;

/// A file that is being written beside its place; it takes it with [`WholeFile::commit`], and is removed without.
#[derive(Debug)]
pub struct WholeFile {
    temporary: NamedTempFile,
    path: PathBuf,
}

impl WholeFile {
    /// Begins a file that will be `path`; its folder is made if need be. A link is followed.
    pub fn create(path: &Path) -> io::Result<WholeFile> {
        use std::os::unix::fs::PermissionsExt;
        let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        if path.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, format!("{} is a folder", path.display())));
        }
        let folder = folder_of(&path);
        std::fs::create_dir_all(folder)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mode = std::fs::metadata(&path).map_or(0o666, |m| m.permissions().mode() & 0o777);
        let temporary = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".part")
            .permissions(std::fs::Permissions::from_mode(mode))
            .tempfile_in(folder)?;
        Ok(WholeFile { temporary, path })
    }

    /// Where to write; unbuffered.
    pub fn sink(&self) -> io::Result<Sink> {
        Ok(Box::new(self.temporary.as_file().try_clone()?))
    }

    /// Puts the file into its place, durably.
    pub fn commit(self) -> io::Result<()> {
        self.temporary.as_file().sync_all()?;
        self.temporary.persist(&self.path).map_err(|e| e.error)?;
        File::open(folder_of(&self.path))?.sync_all()
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("new/out.csv");
        let names = || std::fs::read_dir(path.parent().expect("some")).expect("there").count();
        let write = |text: &str| {
            let file = WholeFile::create(&path).expect("can be made");
            file.sink().expect("open").write_all(text.as_bytes()).expect("written");
            file
        };
        drop(write("half"));
        assert_eq!(names(), 0);
        write("one").commit().expect("committed");
        drop(write("half"));
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "one");
        write("two").commit().expect("committed");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "two");
        assert_eq!(names(), 1);
        assert!(WholeFile::create(folder.path()).is_err());
    }
}
