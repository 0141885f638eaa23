//! Workers on other machines: engines that somebody else runs, and those that this module asks for workers.
//!
//! Each engine that is used has a hub ([`hub`]), a thread that talks to peers ([`peer`]) over one protocol
//! ([`frames`]): to a bridge, a Python process that makes each chunk a task of the engine ([`bridge`]), or to keepers that
//! jobs of Slurm or processes behind ssh started ([`launcher`]) and that connect back over TLS ([`listener`]). Whoever
//! starts or carries workers, what becomes of a chunk is decided here alone.

mod body;
mod bridge;
mod frames;
mod hub;
mod jobs;
pub(super) mod launcher;
pub(super) mod listener;
mod peer;
mod upload;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, unbounded};

use super::seat::Wake;
use super::{Report, Task};
use crate::spec::model::Remote;

/// What an engine has, for people and for whoever hands out work.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EngineNews {
    /// Its name under `backends`, or its kind.
    pub name: String,
    pub kind: String,
    /// How many chunks it runs at once, now or as soon as it has all its workers.
    pub slots: usize,
    /// Workers that are there.
    pub workers: usize,
    /// Where it can be watched.
    pub dashboard: Option<String>,
    /// Jobs that run.
    pub running: usize,
    /// Jobs that wait, by what they wait for.
    pub pending: Vec<(String, usize)>,
    /// The last that it had to say.
    pub note: Option<String>,
}

/// What a hub is told.
enum Order {
    Submit(Box<Task>),
    Drain,
    Stop,
}

/// What hubs need of the run.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    /// bpp-flow itself, to be executed again as a keeper.
    pub program: PathBuf,
    pub state_dir: PathBuf,
    /// The workflow's folder.
    pub dir: PathBuf,
    /// The workflow's name.
    pub workflow: String,
}

/// Runs tasks on one engine. Dropping it stops it.
pub(super) struct RemoteExecutor {
    orders: Sender<Order>,
    wake: Arc<Wake>,
    hub: Option<JoinHandle<()>>,
}

impl RemoteExecutor {
    /// Reaches out to that engine.
    pub(super) fn new(
        remote: &Arc<Remote>,
        around: &Surroundings,
        reports: &Sender<Report>,
    ) -> std::io::Result<RemoteExecutor> {
        let (orders, taken) = unbounded();
        let wake = Arc::new(Wake::new()?);
        let hub = hub::Hub::new(remote.clone(), around.clone(), reports.clone(), taken, wake.clone());
        let (reports, stage) = (reports.clone(), remote.name.clone());
        let hub = std::thread::Builder::new().name("hub".into()).spawn(move || {
            if catch_unwind(AssertUnwindSafe(|| hub.run())).is_err() {
                // Nobody else would say what became of its tasks.
                let message = "bpp-flow's own fault, see above".to_string();
                let _ = reports.send(Report::Broken { task: 0, stage, message });
            }
        })?;
        Ok(RemoteExecutor { orders, wake, hub: Some(hub) })
    }

    fn order(&self, order: Order) {
        // A hub that has ended has given everything back.
        let _ = self.orders.send(order);
        self.wake.wake();
    }

    pub(super) fn submit(&self, task: Task) {
        self.order(Order::Submit(Box::new(task)));
    }

    /// Takes up no new item.
    pub(super) fn drain(&self) {
        self.order(Order::Drain);
    }

    /// Asks for the end of everything.
    pub(super) fn ask_to_stop(&self) {
        self.order(Order::Stop);
    }

    /// Returns when everything has ended.
    pub(super) fn stop(&mut self) {
        self.ask_to_stop();
        if let Some(hub) = self.hub.take() {
            // One that panicked has dropped, and so ended, what it held.
            let _ = hub.join();
        }
    }
}

impl Drop for RemoteExecutor {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Tries whether what is uploaded is there, and whether an engine would take jobs, in its own words; `None`: it has none
/// to be asked for.
///
/// # Errors
/// Why it would not.
pub fn try_jobs(remote: &Remote, state_dir: &Path, dir: &Path, workflow: &str) -> Option<Result<String, String>> {
    let around = Surroundings {
        program: PathBuf::new(),
        state_dir: state_dir.to_path_buf(),
        dir: dir.to_path_buf(),
        workflow: workflow.to_string(),
    };
    match upload::Uploads::read(dir, &absolute(dir, &remote.upload)) {
        Err(message) => Some(Err(message)),
        Ok(_) => jobs::check(remote, &around),
    }
}

/// The paths of modules and folders that are uploaded, under the workflow's folder.
fn absolute(dir: &Path, paths: &[String]) -> Vec<PathBuf> {
    paths.iter().map(|path| dir.join(path)).collect()
}
