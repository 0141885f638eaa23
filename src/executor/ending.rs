//! How processes end, in words.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use crate::data::{Failure, FailureKind, bytes_in_words};

/// Why a program could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotStarted {
    /// Not the program but the folder to run it in.
    pub folder: bool,
    pub errno: i32,
}

/// An item took longer than its limit.
pub(super) fn over(limit: Duration) -> Failure {
    let failure = Failure::new(FailureKind::Timeout, format!("over {limit:?}"));
    Failure { limit: Some(limit.as_millis() as u64), ..failure }
}

/// An item's worker, or its command, held more than its limit.
pub(super) fn over_memory(limit: u64, peak_kib: u32) -> Failure {
    let held = bytes_in_words(u64::from(peak_kib) << 10);
    let failure = Failure::new(FailureKind::Memory, format!("over {}: held {held}", bytes_in_words(limit)));
    Failure { limit: Some(limit), ..failure }
}

/// `killed by signal 11 (SIGSEGV)` or `exited with code 3`.
pub(super) fn in_words(status: i32) -> String {
    match (libc::WIFSIGNALED(status), libc::WTERMSIG(status)) {
        (true, signal) => match signal_name(signal) {
            Some(name) => format!("killed by signal {signal} ({name})"),
            None => format!("killed by signal {signal}"),
        },
        (false, _) => format!("exited with code {}", libc::WEXITSTATUS(status)),
    }
}

/// Why a program could not be started.
pub(super) fn not_started(why: NotStarted, program: &str, cwd: &Path) -> String {
    let cause = std::io::Error::from_raw_os_error(why.errno);
    match (why.folder, why.errno) {
        (true, libc::ENOENT) => format!("folder {:?} not found", cwd.display().to_string()),
        (true, _) => format!("folder {:?} cannot be entered: {cause}", cwd.display().to_string()),
        (false, libc::ENOENT) => format!("program {program:?} not found"),
        (false, _) => format!("program {program:?} cannot be started: {cause}"),
    }
}

/// The last bytes of a file, that many at most, whoever else writes to it.
pub(super) fn end_of(file: &File, most: u64) -> String {
    let length = file.metadata().map_or(0, |m| m.len());
    let taken = length.min(most);
    let mut bytes = vec![0; taken as usize];
    // A file that cannot be read says nothing.
    let _ = file.read_exact_at(&mut bytes, length - taken);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Kills a process group that its keeper can no longer look after; 0: there is none.
pub(super) fn kill_group(group: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(group).filter(|_| group > 1) {
        // It may be gone already.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        assert_eq!(in_words(6), "killed by signal 6 (SIGABRT)");
        assert_eq!(in_words(6 | 0x80), "killed by signal 6 (SIGABRT)", "with a core dump");
        assert_eq!(in_words(3 << 8), "exited with code 3");
        assert_eq!(in_words(40), "killed by signal 40");
    }

    #[test]
    fn a_missing_program_is_named() {
        let why = |folder, errno| NotStarted { folder, errno };
        let cwd = Path::new("/w");
        assert_eq!(not_started(why(false, libc::ENOENT), "nope", cwd), r#"program "nope" not found"#);
        assert_eq!(not_started(why(true, libc::ENOENT), "nope", cwd), r#"folder "/w" not found"#);
        let denied = not_started(why(false, libc::EACCES), "nope", cwd);
        assert!(denied.starts_with(r#"program "nope" cannot be started: Permission denied"#), "{denied}");
    }
}
