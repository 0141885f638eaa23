//! Those whom bpp-flow asks for workers: a batch system ([`slurm`]), hosts behind ssh ([`ssh`]).
//!
//! A launcher starts *jobs*. Each runs the same script ([`script`]), which starts keepers that connect back; what they
//! then do is no concern of a launcher's. It tells what becomes of its jobs, and ends them. [`crew::Crew`] asks it, in
//! a thread of its own, as the answers may take their time.

pub(in crate::executor) mod crew;
mod guard;
pub(in crate::executor) mod script;
pub(in crate::executor) mod slurm;
pub(in crate::executor) mod ssh;
#[cfg(test)]
mod tests;
mod tool;

/// Starts jobs and looks after them.
pub(in crate::executor) trait Launcher: Send {
    /// Starts that many jobs; their names. The error is the engine's own words.
    fn launch(&mut self, jobs: usize) -> Result<Vec<String>, String>;
    /// How all jobs are that were not said to have ended before.
    fn look(&mut self) -> Result<Vec<JobNews>, String>;
    /// Ends all jobs, those that wait too.
    fn cancel(&mut self);
    /// Whether a job could be started, in the engine's words; starts none.
    fn check(&self) -> Result<String, String>;
}

/// How a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::executor) struct JobNews {
    /// Its name, which its keepers say in their hello.
    pub job: String,
    pub state: JobState,
}

/// What a job is at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::executor) enum JobState {
    /// It waits, for a reason in the engine's word.
    Pending {
        reason: String,
    },
    /// It runs there.
    Running {
        node: String,
    },
    Ended(JobEnd),
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::executor) enum JobEnd {
    /// By itself, or nobody knows any more how.
    Finished,
    /// Its script failed: why.
    Failed(String),
    /// The engine took it away: a node that went down, a limit of time, somebody more important.
    Infrastructure(String),
    /// Somebody, or bpp-flow itself, cancelled it.
    Cancelled,
}
