//! Ending everything that a keeper has started: its children, and what their deaths leave to it (it is a subreaper).

use std::ffi::c_int;
use std::fs;

use super::spawn::errno;

/// Kills all children, and all that become children as their parents die, until none is left. Returns the status of
/// `child` if it was among them.
pub(super) fn sweep(child: Option<c_int>) -> Option<c_int> {
    let mut status = None;
    loop {
        note(reap(child), &mut status);
        let children = children();
        if children.is_empty() && !has_children() {
            return status;
        }
        for pid in children {
            kill(pid, libc::SIGKILL);
        }
        let mut raw = 0;
        // SAFETY: `raw` is valid for writes.
        let pid = unsafe { libc::waitpid(-1, &raw mut raw, 0) };
        if pid > 0 && Some(pid) == child {
            status = Some(raw);
        }
    }
}

fn note(found: Option<c_int>, status: &mut Option<c_int>) {
    if found.is_some() {
        *status = found;
    }
}

/// Takes leave of children that have ended, without waiting; the status of `child` if it was among them.
pub(super) fn reap(child: Option<c_int>) -> Option<c_int> {
    let mut found = None;
    loop {
        let mut raw = 0;
        // SAFETY: `raw` is valid for writes.
        let pid = unsafe { libc::waitpid(-1, &raw mut raw, libc::WNOHANG) };
        if pid <= 0 {
            return found;
        }
        if Some(pid) == child {
            found = Some(raw);
        }
    }
}

/// Whether there are children, ended ones included.
fn has_children() -> bool {
    // SAFETY: an all-zero `siginfo_t` is valid; `waitid` writes it.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        libc::waitid(libc::P_ALL, 0, &raw mut info, flags) == 0 || errno() != libc::ECHILD
    }
}

/// Sends a signal to a process, or to a group if `pid` is negative; whether there was one.
pub(super) fn kill(pid: c_int, signal: c_int) -> bool {
    // SAFETY: `kill` touches no memory.
    unsafe { libc::kill(pid, signal) == 0 }
}

/// The processes whose parent this is.
fn children() -> Vec<c_int> {
    // SAFETY: `getpid` cannot fail.
    let me = unsafe { libc::getpid() };
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<c_int>().ok());
    pids.filter(|&pid| parent_of(pid) == Some(me)).collect()
}

fn parent_of(pid: c_int) -> Option<c_int> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test is a parent")]
    fn children_are_found_by_their_parent() {
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = child.id() as c_int;
        assert!(children().contains(&pid));
        assert!(has_children());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children().contains(&pid));
    }
}
