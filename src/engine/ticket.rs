//! A plan that was written down, for a run that does what it says or nothing.

use serde::{Deserialize, Serialize};

use super::EngineError;
use super::api::{Flow, RunOptions};
use super::events::{DueItems, PlanReport};

/// What `plan --out` writes: what was asked for, and which items are due.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    /// The version of the program that made it.
    pub bpp_flow: String,
    pub workflow: String,
    #[serde(default)]
    pub stage: Option<String>,
    #[serde(default)]
    pub limit: Option<u64>,
    #[serde(default)]
    pub items: Vec<String>,
    #[serde(default)]
    pub rows: Vec<u64>,
    #[serde(default)]
    pub fresh: bool,
    /// In the order of the graph.
    pub stages: Vec<DueItems>,
}

impl Ticket {
    /// For what was planned with these options.
    pub fn new(flow: &Flow, options: &RunOptions, report: &PlanReport) -> Ticket {
        Ticket {
            bpp_flow: env!("CARGO_PKG_VERSION").to_string(),
            workflow: flow.workflow.name.clone(),
            stage: options.stage.clone(),
            limit: options.limit,
            items: options.items.clone(),
            rows: options.rows.clone(),
            fresh: options.fresh,
            stages: report.due.clone(),
        }
    }

    /// The options of the run that was planned, in the place of what these select.
    #[must_use]
    pub fn options(self, options: RunOptions) -> RunOptions {
        let Ticket { stage, limit, items, rows, fresh, .. } = self.clone();
        RunOptions { stage, limit, items, rows, fresh, ticket: Some(self), ..options }
    }

    /// Compares it with what would be done now.
    ///
    /// # Errors
    /// When something else would be run.
    pub fn check(&self, workflow: &str, now: &PlanReport) -> Result<(), EngineError> {
        let stale = |what: String| Err(EngineError::StalePlan { what });
        if self.workflow != workflow {
            return stale(format!("it was made for the workflow {}, this is {workflow}", self.workflow));
        }
        let names = |stages: &[DueItems]| stages.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
        if names(&self.stages) != names(&now.due) {
            return stale("the workflow has other stages now".into());
        }
        for (then, now) in self.stages.iter().zip(&now.due) {
            if then.version != now.version {
                return stale(format!("what results of stage {} depend on has changed", then.name));
            }
            if (then.count, then.possible) != (now.count, now.possible) {
                let told = |items: &DueItems| format!("{} due and {} possible", items.count, items.possible);
                return stale(format!("stage {} had {} items, now {}", then.name, told(then), told(now)));
            }
            if then.digest != now.digest {
                return stale(format!("other items of stage {} are due now", then.name));
            }
        }
        Ok(())
    }
}
