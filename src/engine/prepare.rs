//! From due items to a task: renders what differs from item to item, and evaluates expressions.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::made::{Staged, Workshop, makes_files};
use super::stage::Pending;
use super::suspects::Marks;
use crate::data::{Failure, FailureKind, Secrets, Table, Usage, Value};
use crate::executor::{CommandItem, Mark, Outcomes, TaskInput};
use crate::plan::{PlannedStage, Run};
use crate::spec::model::{Call, CommandAction, CommandLine, Verb};
use crate::spec::template::{Expression, RenderError, Rows, Scope, Template, TemplateTree};

/// The rows of a reduce's group, by its number.
pub type RowsOf = Arc<dyn Fn(u64) -> Box<dyn Iterator<Item = Table> + Send> + Send + Sync>;

/// What templates of a stage may look at besides the item.
pub struct Preparer {
    pub stage: Arc<PlannedStage>,
    pub marks: Marks,
    pub params: Arc<Vec<(String, Value)>>,
    pub env: fn(&str) -> Option<String>,
    /// Id of the run and name of the workflow.
    pub run: (String, String),
    pub dir: PathBuf,
    /// What must not be kept of failures, whatever the item.
    pub secrets: Arc<Secrets>,
    /// For a reduce.
    pub rows: Option<RowsOf>,
    /// Where files are made, if any are.
    pub workshop: Option<Arc<Workshop>>,
}

/// A chunk, ready for an executor, and items that did not come that far.
#[derive(Default)]
pub struct Prepared {
    /// Positions, in the pending items, of those that go.
    pub ready: Vec<u32>,
    pub input: Option<TaskInput>,
    /// The mark of each that goes.
    pub marks: Vec<Mark>,
    /// Positions of those that a template failed for.
    pub failed: Vec<(u32, Failure)>,
    /// The files of those that go, where they make any.
    pub staged: Vec<Staged>,
}

impl Preparer {
    /// Renders the items of a task.
    pub fn prepare(&self, pending: &Pending) -> Prepared {
        let mut prepared = match &self.stage.run {
            Run::Python { job, args } => self.prepare_python(pending, &job.work, args),
            Run::Command { action, .. } => self.prepare_commands(pending, action),
            Run::Assign(_) | Run::Where(_) => Prepared::default(),
        };
        prepared.marks = prepared.ready.iter().map(|&i| pending.mark(self.marks, i as usize)).collect();
        prepared
    }

    fn scope<'a>(&'a self, pending: &'a Pending, i: usize, key: &'a str) -> Scope<'a> {
        let row = Some((&pending.batch.table, i));
        let grouped = matches!(self.stage.verb, Verb::Reduce { .. });
        Scope {
            params: &self.params,
            env: Some(&self.env),
            item: if grouped { None } else { row },
            key: Some(key),
            index: Some(pending.indices[i]),
            group: if grouped { row } else { None },
            run: Some((&self.run.0, &self.run.1)),
            files: &[],
        }
    }

    /// Makes ready for each item's files and renders it with `render`; those that fail are told apart.
    fn render_each<T>(
        &self,
        pending: &Pending,
        mut render: impl FnMut(&Scope<'_>) -> Result<T, RenderError>,
    ) -> (Prepared, Vec<T>) {
        let (mut prepared, mut rendered) = (Prepared::default(), Vec::new());
        for i in 0..pending.len() {
            let key = pending.batch.items.key(i);
            let scope = self.scope(pending, i, &key);
            let made = self.stage_files(pending, i, &scope).and_then(|staged| {
                let files = staged.as_ref().map_or(&[][..], |staged| &staged.paths);
                Ok((render(&Scope { files, ..scope }).map_err(|problem| exception(&problem))?, staged))
            });
            match made {
                Ok((value, staged)) => {
                    prepared.ready.push(i as u32);
                    prepared.staged.extend(staged);
                    rendered.push(value);
                }
                Err(failure) => prepared.failed.push((i as u32, failure)),
            }
        }
        (prepared, rendered)
    }

    fn stage_files(&self, pending: &Pending, i: usize, scope: &Scope<'_>) -> Result<Option<Staged>, Failure> {
        let Some(workshop) = self.workshop.as_ref().filter(|_| makes_files(&self.stage)) else { return Ok(None) };
        let (origin, key) = (pending.batch.items.origins[i], scope.key.unwrap_or_default());
        Staged::prepare(workshop, &self.stage, origin, key, scope).map(Some)
    }

    /// Takes out of the failure of the item at `at` what must not be kept.
    pub fn hide_secrets(&self, pending: &Pending, at: u32, failure: &mut Failure) {
        let env = self.item_env();
        if env.is_empty() {
            return self.secrets.hide_in_failure(failure);
        }
        let mut secrets = (*self.secrets).clone();
        let key = pending.batch.items.key(at as usize);
        let scope = Scope { run: None, ..self.scope(pending, at as usize, &key) };
        for (name, template) in env {
            if let Ok(value) = template.render_text(&scope) {
                secrets.add_variable(name, &value);
            }
        }
        secrets.hide_in_failure(failure);
    }

    fn item_env(&self) -> Vec<(&str, &Template)> {
        let env = &self.stage.settings.env;
        env.iter().filter(|(_, t)| t.names().per_item()).map(|(n, t)| (n.as_str(), t)).collect()
    }

    fn prepare_python(
        &self,
        pending: &Pending,
        work: &crate::executor::Work,
        args: &[(String, TemplateTree)],
    ) -> Prepared {
        let env = self.item_env();
        if args.is_empty() && env.is_empty() && !makes_files(&self.stage) {
            let ready = (0..pending.len() as u32).collect();
            let input = self.python_input(pending, work, Table::empty(pending.len()), Table::empty(pending.len()));
            return Prepared { ready, input: Some(input), ..Prepared::default() };
        }
        let (prepared, rendered) = self.render_each(pending, |scope| {
            let files = scope.files.iter().map(|(name, path)| Ok((name.clone(), Value::Text(path.clone()))));
            let args = args.iter().map(|(n, tree)| Ok((n.clone(), tree.render(scope)?)));
            let args = args.chain(files).collect::<Result<Vec<_>, _>>()?;
            let env = env
                .iter()
                .map(|(n, t)| Ok((n.to_string(), Value::Text(t.render_text(scope)?))))
                .collect::<Result<Vec<_>, _>>()?;
            Ok((args, env))
        });
        let (args, env): (Vec<_>, Vec<_>) = rendered.into_iter().unzip();
        let chosen = pending.take(&prepared.ready);
        let input = (!prepared.ready.is_empty())
            .then(|| self.python_input(&chosen, work, Table::from_rows(args), Table::from_rows(env)));
        Prepared { input, ..prepared }
    }

    fn python_input(&self, pending: &Pending, work: &crate::executor::Work, args: Table, env: Table) -> TaskInput {
        if let (Verb::Reduce { .. }, Some(rows)) = (&self.stage.verb, &self.rows) {
            return TaskInput::Group { rows: self.group_rows(rows, pending, 0), args, command: None };
        }
        let value_only = matches!(work, crate::executor::Work::Python { call: Call::Value, .. });
        let table = if value_only {
            let names = pending.batch.table.names();
            let chosen = match &self.stage.uses {
                crate::data::Uses::Columns(columns) => columns.first().map_or("value", String::as_str),
                crate::data::Uses::All => "value",
            };
            let only = names.iter().position(|n| &**n == chosen);
            pending.batch.table.select(|name| only.is_some_and(|at| *names[at] == *name))
        } else {
            pending.batch.table.select(|name| self.stage.uses.contains(name))
        };
        TaskInput::Rows { table, args, env }
    }

    /// The rows of the group at `at`, as the action sees them.
    fn group_rows(&self, rows: &RowsOf, pending: &Pending, at: u32) -> Box<dyn Iterator<Item = Table> + Send> {
        let uses = self.stage.uses.clone();
        let rows = rows(pending.batch.items.rows[at as usize]);
        Box::new(rows.map(move |table| table.select(|name| uses.contains(name))))
    }

    fn prepare_commands(&self, pending: &Pending, action: &CommandAction) -> Prepared {
        let env = self.item_env();
        let (prepared, mut items) = self.render_each(pending, |scope| {
            Ok(CommandItem {
                argv: render_line(&action.line, scope)?,
                env: env.iter().map(|(n, t)| Ok((n.to_string(), t.render_text(scope)?))).collect::<Result<_, _>>()?,
                cwd: self.item_cwd(scope)?,
                stdin: action.stdin.as_ref().map(|t| t.render_text(scope)).transpose()?.map(String::into_bytes),
            })
        });
        let input = match (&self.rows, items.len()) {
            (_, 0) => None,
            (Some(rows), _) => {
                let rows = self.group_rows(rows, pending, prepared.ready[0]);
                Some(TaskInput::Group { rows, args: Table::empty(1), command: items.pop() })
            }
            (None, _) => Some(TaskInput::Commands(items)),
        };
        Prepared { input, ..prepared }
    }

    fn item_cwd(&self, scope: &Scope<'_>) -> Result<Option<PathBuf>, RenderError> {
        match &self.stage.settings.cwd {
            Some(template) if template.names().per_item() => Ok(Some(self.dir.join(template.render_text(scope)?))),
            _ => Ok(None),
        }
    }

    /// Evaluates the expressions of an `assign` or `where` stage.
    pub fn evaluate(&self, pending: &Pending) -> Outcomes {
        let started = std::time::Instant::now();
        let mut outcomes = match &self.stage.run {
            Run::Assign(columns) => self.assign(pending, columns),
            Run::Where(condition) => self.filter(pending, condition),
            Run::Python { .. } | Run::Command { .. } => unreachable!("run by an executor"),
        };
        let micros = (started.elapsed().as_micros() / pending.len().max(1) as u128) as u32;
        outcomes.usage = vec![Usage::of_micros(micros); pending.len()];
        outcomes
    }

    /// What is the same for all rows of a stage of expressions.
    fn common_scope(&self) -> Scope<'_> {
        Scope { params: &self.params, env: Some(&self.env), run: Some((&self.run.0, &self.run.1)), ..Scope::default() }
    }

    fn assign(&self, pending: &Pending, columns: &[(String, Expression)]) -> Outcomes {
        let rows = Rows {
            table: &pending.batch.table,
            key: &|at| pending.batch.items.key(at),
            index: &|at| pending.indices[at],
        };
        let mut failures: BTreeMap<u32, Failure> = BTreeMap::new();
        let mut evaluated = Vec::with_capacity(columns.len());
        for (_, expression) in columns {
            let (column, failed) = expression.eval_table(&rows, &self.common_scope());
            evaluated.push(column);
            for (at, problem) in failed {
                failures.entry(at as u32).or_insert_with(|| exception(&problem));
            }
        }
        let names = columns.iter().map(|(name, _)| Arc::from(name.as_str())).collect();
        let all = Table::new(names, evaluated, pending.len());
        let done: Vec<u32> = (0..pending.len() as u32).filter(|at| !failures.contains_key(at)).collect();
        let added = all.take(&done);
        Outcomes { done, counts: None, added, failed: failures.into_iter().collect(), usage: Vec::new() }
    }

    fn filter(&self, pending: &Pending, condition: &Expression) -> Outcomes {
        let rows = Rows {
            table: &pending.batch.table,
            key: &|at| pending.batch.items.key(at),
            index: &|at| pending.indices[at],
        };
        let (mut done, mut counts, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for (at, kept) in (0..).zip(condition.test_table(&rows, &self.common_scope())) {
            match kept {
                Ok(kept) => {
                    done.push(at);
                    counts.push(u32::from(kept));
                }
                Err(problem) => failed.push((at, exception(&problem))),
            }
        }
        Outcomes { done, counts: Some(counts), added: Table::empty(0), failed, usage: Vec::new() }
    }
}

fn exception(problem: &RenderError) -> Failure {
    Failure::new(FailureKind::Exception, problem.to_string())
}

fn render_line(line: &CommandLine, scope: &Scope<'_>) -> Result<Vec<String>, RenderError> {
    match line {
        CommandLine::Argv(templates) => {
            let mut argv = Vec::with_capacity(templates.len());
            for template in templates {
                match template.render(scope)? {
                    Value::List(values) => argv.extend(values.iter().map(|v| v.to_string())),
                    value => argv.push(value.to_string()),
                }
            }
            match argv.iter().find(|a| a.contains('\0')) {
                Some(_) => Err(RenderError("an argument contains a NUL character".into())),
                None => Ok(argv),
            }
        }
        CommandLine::Shell(script) => {
            let script = script.render_text(scope)?;
            Ok(["bash", "-euo", "pipefail", "-c", &script].map(String::from).to_vec())
        }
    }
}
