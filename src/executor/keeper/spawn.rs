//! Starting a process from a keeper: a child that shares the keeper's memory until it executes its program, as
//! `posix_spawn` does, but which also sets what `posix_spawn` cannot (the parent-death signal).
//!
//! Only for a process with a single thread.

use std::ffi::{CString, OsStr, c_char, c_int, c_void};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use super::super::ending::NotStarted;
use super::sweep::wait;

/// Descriptors below this are targets of the child's; sources must lie above the targets in use.
pub(super) const LOW_FDS: RawFd = 16;
/// The shell for programs without a format of their own, as `execvp` does it.
const SHELL: &std::ffi::CStr = c"/bin/sh";
const STACK_BYTES: usize = 64 << 10;

/// C strings in an array that ends with a null pointer: an `argv` or `envp`.
pub(super) struct CArray {
    strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl CArray {
    /// Strings with a zero byte inside are refused.
    pub(super) fn new<S: AsRef<OsStr>>(strings: impl IntoIterator<Item = S>) -> Option<CArray> {
        let strings: Vec<CString> =
            strings.into_iter().map(|s| CString::new(s.as_ref().as_bytes()).ok()).collect::<Option<_>>()?;
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
        Some(CArray { strings, pointers })
    }
}

/// What is to be started.
pub(super) struct Program<'a> {
    /// Paths to try in turn.
    pub candidates: &'a [CString],
    pub argv: &'a CArray,
    pub envp: &'a CArray,
    pub cwd: Option<&'a CString>,
    /// What becomes 0, 1, 2, …
    pub fds: &'a [BorrowedFd<'a>],
    /// Whether it gets a process group of its own.
    pub own_group: bool,
}

/// A started process.
pub(super) struct Child {
    pub pid: c_int,
    /// Readable when it has ended.
    pub ended: OwnedFd,
    /// Which of the candidates it executes.
    pub candidate: usize,
}

/// The memory in which a child runs until it executes its program.
pub(super) struct Stack(Vec<u8>);

impl Default for Stack {
    fn default() -> Stack {
        Stack(vec![0; STACK_BYTES])
    }
}

/// What the child reads, and where it leaves word of its failure.
struct Call<'a> {
    program: &'a Program<'a>,
    parent: c_int,
    /// The candidate tried last.
    candidate: usize,
    failure: Option<NotStarted>,
}

/// Starts a program.
pub(super) fn spawn(stack: &mut Stack, program: &Program) -> Result<Child, NotStarted> {
    match spawn_once(stack, program) {
        Err(NotStarted { folder: false, errno: libc::ENOEXEC }) => spawn_script(stack, program),
        other => other,
    }
}

/// A file without a `#!` line is a script for the shell.
fn spawn_script(stack: &mut Stack, program: &Program) -> Result<Child, NotStarted> {
    let failed = NotStarted { folder: false, errno: libc::ENOEXEC };
    for candidate in program.candidates {
        let rest = program.argv.strings.iter().skip(1);
        let words = [SHELL, candidate].into_iter().chain(rest.map(CString::as_c_str));
        let argv = CArray::new(words.map(|w| OsStr::from_bytes(w.to_bytes()))).ok_or(failed)?;
        // SAFETY: `access` only reads the C string.
        if unsafe { libc::access(candidate.as_ptr(), libc::X_OK) } == 0 {
            return spawn_once(stack, &Program { candidates: &[SHELL.into()], argv: &argv, ..*program });
        }
    }
    Err(failed)
}

fn spawn_once(stack: &mut Stack, program: &Program) -> Result<Child, NotStarted> {
    debug_assert!(program.fds.iter().enumerate().all(|(to, from)| from.as_raw_fd() > to as RawFd));
    // SAFETY: `getpid` cannot fail.
    let mut call = Call { program, parent: unsafe { libc::getpid() }, candidate: 0, failure: None };
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let top = stack.0.as_mut_ptr().wrapping_add(stack.0.len() & !15);
    let top = top.wrapping_sub(top as usize % 16);
    // SAFETY: the stack is ours and large enough for `child`; this process has one thread, which sleeps until the
    // child has executed its program or exited, so `call` and `pidfd` outlive their use.
    let pid = unsafe { libc::clone(child, top.cast(), flags, (&raw mut call).cast(), &raw mut pidfd) };
    if pid < 0 {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        return Err(NotStarted { folder: false, errno });
    }
    // SAFETY: `clone` gave a new descriptor, which nobody else owns.
    let ended = unsafe { OwnedFd::from_raw_fd(pidfd) };
    // SAFETY: `call` is alive; the child wrote it behind the compiler's back.
    let (failure, candidate) =
        unsafe { (ptr::read_volatile(&raw const call.failure), ptr::read_volatile(&raw const call.candidate)) };
    match failure {
        None => Ok(Child { pid, ended, candidate }),
        Some(failure) => {
            wait(pid, 0);
            Err(failure)
        }
    }
}

/// Runs in the child, in the parent's memory: system calls only.
extern "C" fn child(call: *mut c_void) -> c_int {
    // SAFETY: `spawn_once` passes its `Call` and sleeps until this is over; the pointers in it are valid C strings
    // and arrays.
    unsafe {
        let call = &mut *call.cast::<Call>();
        let program = call.program;
        if program.own_group {
            libc::setpgid(0, 0);
        }
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != call.parent {
            libc::_exit(127);
        }
        for (to, from) in program.fds.iter().enumerate() {
            libc::dup2(from.as_fd().as_raw_fd(), to as c_int);
        }
        let mut failure = NotStarted { folder: true, errno: 0 };
        if program.cwd.is_none_or(|cwd| libc::chdir(cwd.as_ptr()) == 0) {
            failure = NotStarted { folder: false, errno: execute(program, &mut call.candidate) };
        } else {
            failure.errno = *libc::__errno_location();
        }
        ptr::write_volatile(&raw mut call.failure, Some(failure));
        libc::_exit(127)
    }
}

/// Tries the candidates as `execvp` does; returns only when none can be executed: with the most telling error.
unsafe fn execute(program: &Program, tried: &mut usize) -> c_int {
    let mut errno = libc::ENOENT;
    // SAFETY: as `child`; an empty signal set is a valid one.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        for (number, candidate) in program.candidates.iter().enumerate() {
            ptr::write_volatile(tried, number);
            libc::execve(candidate.as_ptr(), program.argv.pointers.as_ptr(), program.envp.pointers.as_ptr());
            match *libc::__errno_location() {
                libc::ENOENT | libc::ENOTDIR => {}
                libc::EACCES => errno = libc::EACCES,
                other => return other,
            }
        }
    }
    errno
}

/// The last system call's error.
pub(super) fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Where a program of that name may lie: as it is if it has a slash, else in the folders of `path`.
pub(super) fn candidates(program: &OsStr, path: Option<&OsStr>) -> Vec<CString> {
    let bytes = program.as_bytes();
    if bytes.is_empty() {
        return Vec::new();
    }
    if bytes.contains(&b'/') {
        return CString::new(bytes).into_iter().collect();
    }
    let path = path.map_or(&b"/bin:/usr/bin"[..], OsStr::as_bytes);
    let joined = path.split(|&b| b == b':').map(|folder| {
        let mut full = folder.to_vec();
        if !full.is_empty() {
            full.push(b'/');
        }
        full.extend_from_slice(bytes);
        full
    });
    joined.filter_map(|full| CString::new(full).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_as_a_shell_does() {
        let found = |program: &str, path: Option<&str>| {
            let list = candidates(OsStr::new(program), path.map(OsStr::new));
            list.into_iter().map(|c| c.into_string().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(found("true", Some("/a:/b/c")), ["/a/true", "/b/c/true"]);
        assert_eq!(found("./true", Some("/a")), ["./true"]);
        assert_eq!(found("true", Some("/a:")), ["/a/true", "true"]);
        assert_eq!(found("true", None), ["/bin/true", "/usr/bin/true"]);
        assert!(found("", Some("/a")).is_empty());
    }

    #[test]
    fn zero_bytes_are_refused() {
        assert!(CArray::new(["a\0b"]).is_none());
        assert_eq!(CArray::new(["a", "b"]).unwrap().pointers.len(), 3);
    }
}
