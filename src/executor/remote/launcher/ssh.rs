//! Hosts behind ssh: a job is a host, on which a shell reads the script from the connection.
//!
//! Keepers end with their connection to bpp-flow, whatever becomes of that of ssh.

use std::time::{Duration, Instant};

use super::script::Script;
use super::tool::{Said, Tool};
use super::{JobEnd, JobNews, JobState, Launcher};
use crate::spec::model::SshOptions;

/// How long a check waits for all hosts.
const ANSWER: Duration = Duration::from_secs(60);
/// The status by which ssh says that it failed itself.
const UNREACHABLE: i32 = 255;

/// A host, and the script for it.
struct Host {
    name: String,
    script: String,
    ssh: Option<Tool>,
    /// How often it was of no use.
    failures: u32,
}

/// The hosts of a run.
pub(in crate::executor) struct Ssh {
    command: Vec<String>,
    hosts: Vec<Host>,
    probe: String,
}

impl Ssh {
    /// Reaches for none of them yet.
    pub(in crate::executor) fn new(options: &SshOptions, script: &Script) -> Ssh {
        let host = |name: &String| Host { name: name.clone(), script: script.for_host(name), ssh: None, failures: 0 };
        let hosts = options.hosts.iter().map(host).collect();
        Ssh { command: options.ssh.clone(), hosts, probe: script.probe() }
    }

    fn argv(&self, host: &str) -> Vec<String> {
        self.command.iter().map(String::as_str).chain([host, "bash", "-s"]).map(str::to_string).collect()
    }
}

impl Launcher for Ssh {
    /// On that many of the hosts where nothing runs, fewer if there are no more; those that failed come last.
    fn launch(&mut self, jobs: usize) -> Result<Vec<String>, String> {
        let mut free: Vec<usize> = (0..self.hosts.len()).filter(|at| self.hosts[*at].ssh.is_none()).collect();
        free.sort_by_key(|at| self.hosts[*at].failures);
        free.truncate(jobs);
        let mut names = Vec::new();
        for at in free {
            let argv = self.argv(&self.hosts[at].name);
            let host = &mut self.hosts[at];
            host.ssh = Some(Tool::start(&argv, host.script.as_bytes(), None)?);
            names.push(host.name.clone());
        }
        Ok(names)
    }

    fn look(&mut self) -> Result<Vec<JobNews>, String> {
        let news = self.hosts.iter_mut().filter_map(|host| {
            let state = match host.ssh.as_mut()?.wait(Duration::ZERO) {
                None => JobState::Running { node: host.name.clone() },
                Some(said) => {
                    host.ssh = None;
                    let end = end(said);
                    host.failures += u32::from(end != JobEnd::Finished);
                    JobState::Ended(end)
                }
            };
            Some(JobNews { job: host.name.clone(), state })
        });
        Ok(news.collect())
    }

    fn cancel(&mut self) {
        self.hosts.iter_mut().for_each(|host| host.ssh = None);
    }

    fn check(&self) -> Result<String, String> {
        let start = |host: &Host| Tool::start(&self.argv(&host.name), self.probe.as_bytes(), None);
        let started: Vec<_> = self.hosts.iter().map(|host| (&host.name, start(host))).collect();
        let until = Instant::now() + ANSWER;
        let (mut found, mut failed) = (Vec::new(), Vec::new());
        for (name, tool) in started {
            let said = tool.and_then(|tool| tool.finish(until.saturating_duration_since(Instant::now())));
            match said.and_then(|said| said.success("ssh")) {
                Ok(python) => found.push(format!("{name}: {}", python.trim())),
                Err(words) => failed.push(format!("{name}: {words}")),
            }
        }
        if failed.is_empty() { Ok(found.join("\n")) } else { Err(failed.join("\n")) }
    }
}

fn end(said: Said) -> JobEnd {
    let status = said.status;
    match said.success("ssh") {
        Ok(_) => JobEnd::Finished,
        Err(words) if status.code() == Some(UNREACHABLE) || status.code().is_none() => JobEnd::Infrastructure(words),
        Err(words) => JobEnd::Failed(words),
    }
}
