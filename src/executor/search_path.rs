//! Where a Python looks for installed packages.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Prints the folders, each behind a NUL; those of the user as a worker has them.
const ASK: &str = "import os, site, sys
path = list(sys.path)
if sys.prefix == sys.base_prefix and not os.environ.get('PYTHONNOUSERSITE'):
    at = [number for number, p in enumerate(path) if p.endswith('-packages')]
    path.insert(at[0] if at else len(path), site.getusersitepackages())
sys.stdout.buffer.write(b''.join(os.fsencode(p) + b'\\0' for p in path))
";

/// The folders in which an interpreter looks for packages. Runs it, isolated, without any code of the user's.
///
/// # Errors
/// When it cannot be started, or fails.
#[expect(clippy::disallowed_methods, reason = "it ends at once, and nothing that it starts is left")]
pub fn search_path(interpreter: &Path) -> io::Result<Vec<PathBuf>> {
    use std::os::unix::ffi::OsStringExt;
    let output = Command::new(interpreter).args(["-I", "-c", ASK]).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr).trim().to_string();
        return Err(io::Error::other(error));
    }
    let folders = output.stdout.split(|b| *b == 0).filter(|folder| !folder.is_empty());
    Ok(folders.map(|folder| std::ffi::OsString::from_vec(folder.to_vec()).into()).collect())
}
