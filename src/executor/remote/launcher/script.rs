//! What a job runs: a script of bash that prepares the node as the workflow says, finds a Python, and has it start
//! keepers.
//!
//! All that they need is inside: their source, and the invitation. So the script is a secret; it travels through
//! standard input alone.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use super::super::frames;
use super::super::listener::Invitation;
use crate::executor::marshal::Writer;

/// What Python reads from standard input.
const PROGRAM: &str = include_str!("job.py");
/// Where in it the rest goes.
const PLACE: &str = "@payload@";
/// Ends it; what is in it cannot look like this.
const END: &str = "BPP_FLOW_END";

/// Says why the job cannot go on.
const FAIL: &str = r#"#!/bin/bash
fail() { printf '%s\n' "$*" >&2; exit 1; }
"#;

/// Who the job is, and when Slurm will end it: as Slurm says itself where it can (from 23.02 on it says so unasked).
const SLURM: &str = r#"job=${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}
until=${SLURM_JOB_END_TIME:-}
if [ -z "$until" ] && end=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%e 2>/dev/null) && [ -n "$end" ]; then
    until=$(date --date="$end" +%s 2>/dev/null)
fi
"#;

/// What jobs are made of.
#[derive(Debug, Clone, Copy)]
pub(in crate::executor) struct Script<'a> {
    /// Lines of shell that prepare a node; one that fails ends the job.
    pub setup: &'a [String],
    /// Python on the node, if it is not to be looked for.
    pub interpreter: Option<&'a str>,
    /// The frame with the keepers' modules, of which the last has `main_job`.
    pub modules: &'a [u8],
    pub invitation: &'a Invitation,
    /// Keepers in a job.
    pub workers: usize,
}

impl Script<'_> {
    /// For a task of an array. What goes wrong is written into a file of its name in `logs`, if the node has that
    /// folder. `time`: how long it may run, as far as it is known.
    pub(super) fn for_slurm(&self, logs: Option<&Path>, time: Option<Duration>) -> String {
        let mut script = FAIL.to_string();
        if let Some(time) = time {
            let _ = writeln!(script, "latest=$(($(date +%s) + {}))", time.as_secs());
        }
        script.push_str(SLURM);
        script.push_str("until=${until:-${latest:-}}\n");
        if let Some(logs) = logs {
            let logs = quote(&logs.to_string_lossy());
            let _ = writeln!(script, "log={logs}/$job.log");
            script.push_str("if (umask 077 && : >\"$log\") 2>/dev/null; then exec 2>>\"$log\"; fi\n");
        }
        self.prepare(&mut script);
        self.run(script)
    }

    /// For a host behind ssh, whose keepers go by that name.
    pub(super) fn for_host(&self, host: &str) -> String {
        let mut script = FAIL.to_string();
        let _ = writeln!(script, "job={} until=", quote(host));
        // Or shells of items would take themselves for those of a login, and read what is for these.
        script.push_str("unset SSH_CLIENT SSH2_CLIENT\n");
        self.prepare(&mut script);
        self.run(script)
    }

    /// Does nothing but tell which Python is found.
    pub(super) fn probe(&self) -> String {
        let mut script = FAIL.to_string();
        self.prepare(&mut script);
        script
            .push_str("exec \"$python\" -c 'import platform, sys; print(sys.executable, platform.python_version())'\n");
        script
    }

    /// The setup, each part of it in the shell itself but with its mistakes its own; then `$python`.
    fn prepare(&self, script: &mut String) {
        for line in self.setup {
            let line = quote(line);
            let _ = writeln!(script, "eval {line} </dev/null || fail \"setup ended with $?:\" {line}");
        }
        match self.interpreter {
            Some(interpreter) => _ = writeln!(script, "python={}", quote(interpreter)),
            None => script.push_str(
                "python=${VIRTUAL_ENV:-}/bin/python\n[ -n \"${VIRTUAL_ENV:-}\" ] && [ -x \"$python\" ] || python=python3\n",
            ),
        }
        script.push_str("command -v -- \"$python\" >/dev/null || fail \"no Python on $(uname -n): $python\"\n");
    }

    fn run(&self, mut script: String) -> String {
        let program = PROGRAM.replace(PLACE, &hexadecimal(&packed(&self.payload())));
        let _ = write!(script, "exec \"$python\" - \"$job\" \"$until\" <<'{END}'\n{program}\n{END}\n");
        script
    }

    /// Marshal data: the modules' frame, and what `main_job` is given.
    fn payload(&self) -> Vec<u8> {
        let mut w = Writer::new(Vec::new());
        w.tuple(2);
        w.bytes(self.modules);
        w.dict();
        w.text("workers");
        w.int(self.workers as i64);
        w.text("idle");
        w.none();
        w.text("invitation");
        frames::invitation(&mut w, self.invitation);
        w.end_dict();
        w.into_bytes()
    }
}

/// One word of a shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes all")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
