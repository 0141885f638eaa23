//! Jobs of Slurm: each call of [`Launcher::launch`] is one array.
//!
//! Works with `sbatch`, `squeue` and `scancel` of Slurm 20 and later, and `sacct` where there are records. Jobs are
//! never requeued: a lost one is replaced by another. They are cancelled when they are needed no more, by a
//! [`Guard`] if bpp-flow cannot do it.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::guard::Guard;
use super::script::Script;
use super::tool::{TAIL_BYTES, Tool};
use super::{JobEnd, JobNews, JobState, Launcher};
use crate::executor::ending::end_of;
use crate::spec::model::SlurmOptions;

/// What answers within seconds, or not at all.
const ANSWER: Duration = Duration::from_secs(30);
/// A controller that is busy takes submissions slowly; one that was given up might have been taken.
const SUBMISSION: Duration = Duration::from_secs(300);
/// Submits by `"$@"`, and tells the name of the job on standard error and then on standard output, which the guard
/// reads: also when bpp-flow is gone by then.
const SUBMIT: &str = r#"trap "" PIPE; job=$("$@") || exit; echo "$job" >&2; echo "${job%%;*}""#;
/// Options of sbatch that say where output goes.
const OUTPUT: [&str; 4] = ["-o", "--output", "-e", "--error"];

/// Jobs of a run.
pub(in crate::executor) struct Slurm {
    options: SlurmOptions,
    /// Its jobs' name in listings.
    name: String,
    script: String,
    /// Where jobs say what went wrong, on nodes that share this folder.
    logs: PathBuf,
    guard: Option<Guard>,
    /// Jobs that have not ended, as `ARRAY_TASK`.
    live: BTreeSet<String>,
}

impl Slurm {
    /// Submits nothing yet. `logs` is a folder of its own, made and removed here.
    pub(in crate::executor) fn new(options: SlurmOptions, workflow: &str, script: &Script, logs: &Path) -> Slurm {
        let own_output = options.sbatch.iter().any(|option| is_about_output(option));
        let script = script.for_slurm((!own_output).then_some(logs), options.time);
        let name = format!("bpp-flow-{workflow}");
        Slurm { options, name, script, logs: logs.to_path_buf(), guard: None, live: BTreeSet::new() }
    }

    /// What the job asks for.
    fn arguments(&self) -> Vec<String> {
        let options = &self.options;
        let mut arguments = vec![
            "--no-requeue".into(),
            format!("--job-name={}", self.name),
            "--output=/dev/null".into(),
            "--nodes=1".into(),
            "--ntasks=1".into(),
        ];
        let mut add = |name: &str, value: Option<String>| {
            arguments.extend(value.map(|value| format!("--{name}={value}")));
        };
        add("partition", options.partition.clone());
        add("account", options.account.clone());
        add("qos", options.qos.clone());
        add("time", options.time.map(|time| format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)));
        add("cpus-per-task", Some(options.cpus.unwrap_or(options.workers_per_job).to_string()));
        add("mem", options.memory.map(|bytes| format!("{}K", bytes.div_ceil(1024))));
        add("gres", options.gres.clone());
        arguments.extend(options.sbatch.iter().cloned());
        arguments
    }

    fn submit(&mut self, jobs: usize) -> Result<String, String> {
        let cannot = |e: io::Error| format!("jobs cannot be guarded: {e}");
        if self.guard.is_none() {
            // Without the folder jobs say nothing when they fail, but run.
            let _ = std::fs::create_dir_all(&self.logs);
            self.guard = Some(Guard::start(&["scancel"]).map_err(cannot)?);
        }
        let guard = self.guard.as_ref().expect("it was started").pipe().map_err(cannot)?;
        let mut argv = words(&["sh", "-c", SUBMIT, "sbatch", "sbatch", "--parsable"]);
        argv.push(format!("--array=0-{}", jobs - 1));
        argv.extend(self.arguments());
        let said = Tool::start(&argv, self.script.as_bytes(), Some(guard))?.finish(SUBMISSION)?;
        let words = said.err.clone();
        said.success("sbatch")?;
        let name = words.lines().last().and_then(|line| line.split(';').next()).map(str::trim);
        name.filter(|name| is_number(name)).map(str::to_string).ok_or(format!("sbatch named no job: {}", words.trim()))
    }

    /// The arrays of which something may still run.
    fn arrays(&self) -> BTreeSet<&str> {
        self.live.iter().filter_map(|job| job.split('_').next()).collect()
    }

    fn arrays_as_list(&self) -> String {
        self.arrays().into_iter().collect::<Vec<_>>().join(",")
    }

    /// What `squeue` says of every job.
    fn queue(&self) -> Result<HashMap<String, JobState>, String> {
        let argv = words(&["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%N|%r"]);
        let argv = [argv, vec![format!("--jobs={}", self.arrays_as_list())]].concat();
        match Tool::run(&argv, b"", ANSWER)?.success("squeue") {
            Ok(lines) => Ok(lines.lines().filter_map(queued).collect()),
            // All have ended so long ago that it has forgotten them.
            Err(words) if words.contains("Invalid job id") => Ok(HashMap::new()),
            Err(words) => Err(words),
        }
    }

    /// What the records say of jobs that `squeue` no longer knows; nothing where none are kept.
    fn records(&self) -> HashMap<String, JobState> {
        let argv =
            words(&["sacct", "--noheader", "--allocations", "--parsable2", "--format=JobID,State,NodeList,Reason"]);
        let argv = [argv, vec![format!("--jobs={}", self.arrays_as_list())]].concat();
        let said = Tool::run(&argv, b"", ANSWER).and_then(|said| said.success("sacct"));
        said.map(|lines| lines.lines().filter_map(queued).collect()).unwrap_or_default()
    }

    /// What the job wrote before it failed; then nobody needs it any more.
    fn last_words(&self, job: &str) -> Option<String> {
        let path = self.logs.join(format!("{job}.log"));
        let words = File::open(&path).map(|file| end_of(&file, TAIL_BYTES)).ok()?;
        // The folder goes with the run in any case.
        let _ = std::fs::remove_file(&path);
        Some(words.trim().to_string()).filter(|words| !words.is_empty())
    }
}

impl Launcher for Slurm {
    fn launch(&mut self, jobs: usize) -> Result<Vec<String>, String> {
        if jobs == 0 {
            return Ok(Vec::new());
        }
        let array = self.submit(jobs)?;
        let names: Vec<String> = (0..jobs).map(|task| format!("{array}_{task}")).collect();
        self.live.extend(names.iter().cloned());
        Ok(names)
    }

    fn look(&mut self) -> Result<Vec<JobNews>, String> {
        if self.live.is_empty() {
            return Ok(Vec::new());
        }
        let queue = self.queue()?;
        let forgotten = self.live.iter().any(|job| !queue.contains_key(job));
        let records = if forgotten { self.records() } else { HashMap::new() };
        let news = self.live.iter().map(|job| {
            let state = queue.get(job).or_else(|| records.get(job)).cloned();
            let state = match state.unwrap_or(JobState::Ended(JobEnd::Finished)) {
                JobState::Ended(end) => {
                    let words = self.last_words(job);
                    JobState::Ended(match end {
                        JobEnd::Failed(reason) => JobEnd::Failed(words.unwrap_or(reason)),
                        end => end,
                    })
                }
                state => state,
            };
            JobNews { job: job.clone(), state }
        });
        let news: Vec<JobNews> = news.collect();
        for JobNews { job, state } in &news {
            if matches!(state, JobState::Ended(_)) {
                self.live.remove(job);
            }
        }
        Ok(news)
    }

    fn cancel(&mut self) {
        // Without one nothing was submitted, and the folder may be another's.
        let Some(guard) = self.guard.take() else { return };
        let argv = [words(&["scancel"]), self.arrays().into_iter().map(str::to_string).collect()].concat();
        let done = argv.len() == 1 || Tool::run(&argv, b"", ANSWER).is_ok_and(|said| said.status.success());
        self.live.clear();
        // Where the batch system did not answer, the guard asks it again.
        if done {
            guard.dismiss();
        }
        let _ = std::fs::remove_dir_all(&self.logs);
    }

    fn check(&self) -> Result<String, String> {
        let argv = [words(&["sbatch", "--test-only"]), self.arguments()].concat();
        let said = Tool::run(&argv, self.script.as_bytes(), ANSWER)?;
        let words = said.err.trim().to_string();
        said.success("sbatch").map(|_| words)
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        self.cancel();
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_about_output(option: &str) -> bool {
    let name = option.split('=').next().unwrap_or_default();
    OUTPUT.contains(&name) || (!option.starts_with("--") && (option.starts_with("-o") || option.starts_with("-e")))
}

/// A line of `squeue` or `sacct`: job, state, nodes, reason.
fn queued(line: &str) -> Option<(String, JobState)> {
    let mut fields = line.trim().split('|');
    let (job, state, node, reason) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    Some((job.to_string(), job_state(state.split(' ').next()?, node, reason)))
}

/// The states of Slurm 20 to 24.
fn job_state(state: &str, node: &str, reason: &str) -> JobState {
    let words = || match reason {
        "" | "None" | "(null)" => state.to_string(),
        reason => format!("{state} ({reason})"),
    };
    match state {
        "PENDING" => JobState::Pending { reason: reason.to_string() },
        "CONFIGURING" | "REQUEUED" | "REQUEUE_HOLD" | "REQUEUE_FED" | "RESV_DEL_HOLD" | "SPECIAL_EXIT" => {
            JobState::Pending { reason: words() }
        }
        "COMPLETED" => JobState::Ended(JobEnd::Finished),
        "CANCELLED" => JobState::Ended(JobEnd::Cancelled),
        "FAILED" | "OUT_OF_MEMORY" => JobState::Ended(JobEnd::Failed(words())),
        "NODE_FAIL" | "PREEMPTED" | "BOOT_FAIL" | "TIMEOUT" | "DEADLINE" | "REVOKED" | "LAUNCH_FAILED"
        | "RECONFIG_FAIL" => JobState::Ended(JobEnd::Infrastructure(words())),
        // RUNNING, and what is still a job: COMPLETING, RESIZING, SIGNALING, STAGE_OUT, STOPPED, SUSPENDED.
        _ => JobState::Running { node: node.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_told_apart() {
        let state = |line: &str| queued(line).unwrap().1;
        let lost = |words: &str| JobState::Ended(JobEnd::Infrastructure(words.into()));
        let failed = |words: &str| JobState::Ended(JobEnd::Failed(words.into()));
        let pending = |words: &str| JobState::Pending { reason: words.into() };
        let running = |node: &str| JobState::Running { node: node.into() };
        for (line, told) in [
            ("3_0|PENDING||Resources", pending("Resources")),
            ("3_0|CONFIGURING|n1|None", pending("CONFIGURING")),
            ("3_0|REQUEUE_HOLD||BeginTime", pending("REQUEUE_HOLD (BeginTime)")),
            ("3_0|RUNNING|n1|None", running("n1")),
            ("3_0|COMPLETING|n1|None", running("n1")),
            ("3_0|SUSPENDED|n1|None", running("n1")),
            ("3_0|COMPLETED|n1|None", JobState::Ended(JobEnd::Finished)),
            ("3_0|CANCELLED by 1000|n1|None", JobState::Ended(JobEnd::Cancelled)),
            ("3_0|FAILED|n1|NonZeroExitCode", failed("FAILED (NonZeroExitCode)")),
            ("3_0|OUT_OF_MEMORY|n1|OutOfMemory", failed("OUT_OF_MEMORY (OutOfMemory)")),
            ("3_0|NODE_FAIL|n1|NodeDown", lost("NODE_FAIL (NodeDown)")),
            ("3_0|BOOT_FAIL|n1|(null)", lost("BOOT_FAIL")),
            ("3_0|PREEMPTED|n1|None", lost("PREEMPTED")),
            ("3_0|TIMEOUT|n1|TimeLimit", lost("TIMEOUT (TimeLimit)")),
            ("3_0|DEADLINE|n1|", lost("DEADLINE")),
        ] {
            assert_eq!(state(line), told, "{line}");
        }
        assert_eq!(queued("  12_7|PENDING||Priority ").unwrap().0, "12_7");
        assert_eq!(queued("slurm_load_jobs error"), None);
    }

    #[test]
    fn options_about_output_are_known() {
        for option in ["-o", "-ofile", "--output=x", "--output", "-e", "--error=x"] {
            assert!(is_about_output(option), "{option}");
        }
        for option in ["--open-mode=append", "--export=ALL", "--exclusive", "x"] {
            assert!(!is_about_output(option), "{option}");
        }
    }
}
