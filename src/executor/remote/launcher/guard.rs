//! Cancels a run's jobs when bpp-flow is gone: a small shell that outlives it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// Reads names of jobs, one a line, until nobody is left who could write any. Where the batch system does not answer
/// it is asked again.
const SHELL: &str = r#"trap "" HUP INT TERM
jobs=
while read -r job; do
    [ "$job" = done ] && exit
    jobs="$jobs $job"
done
[ -n "$jobs" ] || exit
for pause in 0 5 30 120; do
    sleep "$pause"
    "$@" $jobs && exit
done"#;

/// A process that waits for the end of bpp-flow, in a process group of its own. When dropped it cancels, in its
/// own time.
pub(super) struct Guard {
    child: Child,
    /// Its standard input: bpp-flow holds the other end, and whoever submits jobs for it.
    words: File,
}

impl Guard {
    /// A guard that ends jobs with this command, to which their names are added.
    #[expect(clippy::disallowed_methods, reason = "it must outlive bpp-flow, and so cannot be under a keeper")]
    pub(super) fn start(cancel: &[&str]) -> io::Result<Guard> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let mut command = Command::new("sh");
        command.args(["-c", SHELL, "bpp-flow-guard"]).args(cancel).process_group(0);
        let child = command.stdin(reader).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Guard { child, words: File::from(writer) })
    }

    /// Where names of jobs are written to.
    pub(super) fn pipe(&self) -> io::Result<OwnedFd> {
        self.words.as_fd().try_clone_to_owned()
    }

    /// Nothing is left to be cancelled.
    pub(super) fn dismiss(mut self) {
        // It does not listen if somebody killed it.
        let _ = self.words.write_all(b"done\n");
        let _ = self.child.wait();
    }
}
