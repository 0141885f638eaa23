//! Ending everything that a keeper has started: its children, and what their deaths leave to it (it is a subreaper).

use std::ffi::c_int;
use std::fs;

use super::spawn::errno;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    /// As `wait` gives it.
    pub status: c_int,
    /// The most memory that it, or one of the children that it waited for, held at once.
    pub peak_kib: u32,
}

/// Kills all children, and all that become children as their parents die, until none is left. Returns the end of
/// `child` if it was among them.
pub(super) fn sweep(child: Option<c_int>) -> Option<Ended> {
    let mut end = None;
    loop {
        end = reap(child).or(end);
        let children = children();
        if children.is_empty() && !has_children() {
            return end;
        }
        for pid in children {
            kill(pid, libc::SIGKILL);
        }
        if let Some((pid, ended)) = wait(-1, 0)
            && Some(pid) == child
        {
            end = Some(ended);
        }
    }
}

/// Takes leave of children that have ended, without waiting; the end of `child` if it was among them.
pub(super) fn reap(child: Option<c_int>) -> Option<Ended> {
    let mut found = None;
    while let Some((pid, ended)) = wait(-1, libc::WNOHANG) {
        if Some(pid) == child {
            found = Some(ended);
        }
    }
    found
}

/// Waits for that child (-1: for any); `None`: there is none, or none has ended.
pub(super) fn wait(pid: c_int, flags: c_int) -> Option<(c_int, Ended)> {
    // SAFETY: an all-zero `rusage` is valid; both are valid for writes.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let mut status = 0;
        loop {
            let pid = libc::wait4(pid, &raw mut status, flags, &raw mut usage);
            if pid > 0 {
                let peak_kib = u32::try_from(usage.ru_maxrss).unwrap_or(u32::MAX);
                return Some((pid, Ended { status, peak_kib }));
            }
            if pid == 0 || errno() != libc::EINTR {
                return None;
            }
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
    let me = std::process::id() as c_int;
    processes().into_iter().filter(|&(_, parent)| parent == me).map(|(pid, _)| pid).collect()
}

/// The children of this process, their children, and so on.
pub(super) fn descendants() -> Vec<c_int> {
    let mut rest = processes();
    let mut tree = vec![std::process::id() as c_int];
    let mut known = 0;
    while known < tree.len() {
        let (found, others): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|(_, parent)| tree[known..].contains(parent));
        known = tree.len();
        tree.extend(found.into_iter().map(|(pid, _)| pid));
        rest = others;
    }
    tree.split_off(1)
}

/// All processes with their parents.
fn processes() -> Vec<(c_int, c_int)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<c_int>().ok());
    pids.filter_map(|pid| Some((pid, parent_of(pid)?))).collect()
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
        assert!(children().contains(&pid) && descendants().contains(&pid));
        assert!(has_children());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children().contains(&pid));
    }
}
