//! Rows as tables of databases, written in one transaction: whole or not at all.
//!
//! `replace` fills a new table, which then takes the place of the old one; tables that bpp-flow makes carry its mark
//! (in PostgreSQL a comment on the table, in SQLite one inside its definition), and one without it is refused. `upsert`
//! gathers the rows in a temporary table and merges them by key. [`TableWriter`] is the way in; what differs
//! between the two databases is behind [`Session`].
//!
//! | cell | PostgreSQL | SQLite |
//! |---|---|---|
//! | integer | `bigint`, beyond 64 bits `numeric` | `INTEGER`, beyond 64 bits `TEXT` |
//! | float | `double precision` | `REAL`; NaN is an error |
//! | text | `text`; NUL is an error | `TEXT` |
//! | bool, bytes | `boolean`, `bytea` | `BOOLEAN` (0, 1), `BLOB` |
//! | date, time, date and time | `date`, `time`, `timestamp`, `timestamptz` | `TEXT` (ISO 8601) |
//! | duration | `interval` | `REAL` (seconds) |
//! | list, mapping | `jsonb`; NaN and the infinities in it are an error | `TEXT` (JSON) |

mod postgres;
mod sqlite;

use std::path::Path;
use std::sync::Arc;

use super::ExportError;
use super::schema::{Kind, OutputColumn, OutputSchema};
use crate::data::sql::{Database, SqlError, TableName, quoted};
use crate::data::table::Table;
use crate::data::value::Value;

/// What a table of ours is known by.
const MARK: &str = "made by bpp-flow";

/// How rows come into a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableMode {
    /// The table holds these rows and no others.
    Replace,
    /// Rows of the same key are updated, others inserted; none is deleted.
    Upsert,
}

/// A table that rows are written to.
#[derive(Debug, Clone)]
pub struct TableTarget {
    pub database: Database,
    pub table: TableName,
    pub mode: TableMode,
    /// The columns that name a row, for `upsert`.
    pub key: Vec<String>,
}

/// What differs between databases.
trait Session {
    /// Runs a statement.
    fn execute(&mut self, sql: &str) -> Result<(), String>;
    /// The table of that name.
    fn find(&mut self, table: &TableName) -> Result<Option<Existing>, String>;
    /// The type of a column.
    fn type_of(&self, kind: &Kind) -> &'static str;
    /// A statement that makes an empty table of these definitions, with the mark where it belongs in there.
    fn create(&self, table: &TableName, definitions: &str, mark: &str) -> String;
    /// A statement that sets the mark of a table, where it is not part of its definition.
    fn mark(&self, table: &TableName, mark: &str) -> Option<String>;
    /// A statement that makes a temporary table as some columns of another.
    fn stage(&self, name: &str, columns: &str, like: &TableName) -> String;
    /// Appends rows, which are numbered from `first_row` in messages.
    fn load(
        &mut self,
        into: &TableName,
        columns: &[OutputColumn],
        rows: &Table,
        first_row: u64,
    ) -> Result<(), ExportError>;
    /// What a column's name must not be, if it is that.
    fn refuses(&self, name: &str) -> Option<String>;
    /// Whether two names are one column.
    fn same(&self, a: &str, b: &str) -> bool;
}

/// A table that is there.
struct Existing {
    /// Its full name.
    name: TableName,
    ours: bool,
    /// Another table of the same name has another one.
    identity: String,
    columns: Vec<String>,
}

/// Writes rows into a table.
pub struct TableWriter<'a> {
    target: &'a TableTarget,
    session: Box<dyn Session>,
    columns: Arc<[OutputColumn]>,
    /// The table itself, and where the rows lie until the end.
    table: TableName,
    staging: TableName,
    /// `replace`: the table that goes.
    old: Option<TableName>,
    rows: u64,
}

impl TableTarget {
    /// For people.
    pub fn shown(&self) -> String {
        format!("{} table {}", self.database.shown(), self.table)
    }

    /// What tells this table from one that was put in its place; `None`: it is not there.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub fn identity(&self, dir: &Path) -> Result<Option<String>, ExportError> {
        if let Database::Sqlite(path) = &self.database
            && !dir.join(path).exists()
        {
            return Ok(None);
        }
        let mut session = self.open(dir, false)?;
        Ok(session.find(&self.table).map_err(|what| self.error(what))?.map(|existing| existing.identity))
    }

    fn open(&self, dir: &Path, write: bool) -> Result<Box<dyn Session>, ExportError> {
        let opened = match &self.database {
            Database::Sqlite(path) => sqlite::open(&dir.join(path), write),
            Database::Postgres(server) => postgres::open(server, write),
        };
        opened.map_err(|what| self.error(what))
    }

    fn error(&self, what: String) -> ExportError {
        ExportError::Database(SqlError { database: self.database.shown(), what })
    }
}

impl<'a> TableWriter<'a> {
    /// Begins: nothing that is there changes before [`TableWriter::commit`]. The `token`, another one each time, is in
    /// the name of what is temporary and in the mark.
    ///
    /// # Errors
    /// When the database cannot be reached, or the table is not ours, or lacks columns.
    pub fn begin(
        target: &'a TableTarget,
        dir: &Path,
        schema: &OutputSchema,
        token: &str,
    ) -> Result<TableWriter<'a>, ExportError> {
        let mut session = target.open(dir, true)?;
        let existing = session.find(&target.table).map_err(|what| target.error(what))?;
        let table = existing.as_ref().map_or(target.table.clone(), |e| e.name.clone());
        let staging = table.beside(format!("_bpp_flow_{token}"));
        let columns: Arc<[OutputColumn]> = schema.columns().into();
        let mut writer = TableWriter { target, session, columns, table, staging, old: None, rows: 0 };
        writer.check_names()?;
        let mark = format!("{MARK} ({token})");
        match target.mode {
            TableMode::Replace => writer.begin_replace(existing, &mark)?,
            TableMode::Upsert => writer.begin_upsert(existing, &mark)?,
        }
        Ok(writer)
    }

    fn begin_replace(&mut self, existing: Option<Existing>, mark: &str) -> Result<(), ExportError> {
        if let Some(existing) = &existing
            && !existing.ours
        {
            return Err(self.target.error(format!(
                "table {} was not made by bpp-flow, and is left as it is: name another table, drop this one, or write \
                 into it with `mode: upsert`",
                self.table
            )));
        }
        self.old = existing.map(|existing| existing.name);
        if self.columns.is_empty() {
            return Ok(());
        }
        let definitions = self.definitions();
        let staging = self.staging.clone();
        self.execute(&self.session.create(&staging, &definitions, mark))?;
        self.set_mark(&staging, mark)
    }

    fn begin_upsert(&mut self, existing: Option<Existing>, mark: &str) -> Result<(), ExportError> {
        if self.columns.is_empty() {
            return Ok(());
        }
        match existing {
            Some(existing) => self.has_columns(&existing)?,
            None => {
                let definitions = format!("{}, primary key ({})", self.definitions(), names(&self.target.key));
                let table = self.table.clone();
                self.execute(&self.session.create(&table, &definitions, mark))?;
                self.set_mark(&table, mark)?;
            }
        }
        self.staging = TableName { schema: None, name: std::mem::take(&mut self.staging.name) };
        self.execute(&self.session.stage(&self.staging.name, &self.names(), &self.table))
    }

    fn set_mark(&mut self, table: &TableName, mark: &str) -> Result<(), ExportError> {
        match self.session.mark(table, mark) {
            Some(statement) => self.execute(&statement),
            None => Ok(()),
        }
    }

    fn check_names(&self) -> Result<(), ExportError> {
        for (at, column) in self.columns.iter().enumerate() {
            let name = &*column.name;
            let twin = self.columns[..at].iter().find(|other| self.session.same(&other.name, name));
            let what = match (self.session.refuses(name), twin) {
                (Some(what), _) => what,
                (None, Some(twin)) => format!("the name {:?} but for the case of its letters", &*twin.name),
                (None, None) => continue,
            };
            let what = format!("column {name:?} has {what}: rename it in the stage, or leave it out with `columns:`");
            return Err(self.target.error(what));
        }
        Ok(())
    }

    fn has_columns(&self, existing: &Existing) -> Result<(), ExportError> {
        let there = |name: &str| existing.columns.iter().any(|column| self.session.same(column, name));
        let missing: Vec<&OutputColumn> = self.columns.iter().filter(|c| !there(&c.name)).collect();
        let Some(first) = missing.first() else { return Ok(()) };
        let all: Vec<String> = missing.iter().map(|c| format!("{:?}", &*c.name)).collect();
        let add = format!(
            "alter table {} add column {} {}",
            self.table.quoted(),
            quoted(&first.name),
            self.session.type_of(&first.kind)
        );
        Err(self.target.error(format!(
            "table {} has no column {}: add it (`{add}`), or choose with `columns:`",
            self.table,
            all.join(", ")
        )))
    }

    fn names(&self) -> String {
        self.columns.iter().map(|c| quoted(&c.name)).collect::<Vec<_>>().join(", ")
    }

    fn definitions(&self) -> String {
        let definition = |c: &OutputColumn| format!("{} {}", quoted(&c.name), self.session.type_of(&c.kind));
        self.columns.iter().map(definition).collect::<Vec<_>>().join(", ")
    }

    fn execute(&mut self, sql: &str) -> Result<(), ExportError> {
        self.session.execute(sql).map_err(|what| self.target.error(what))
    }

    /// Appends rows.
    ///
    /// # Errors
    /// When a cell cannot be held, or the database fails.
    pub fn write(&mut self, rows: &Table) -> Result<(), ExportError> {
        if !self.columns.is_empty() && rows.rows() > 0 {
            self.check_keys(rows)?;
            let loaded = self.session.load(&self.staging, &self.columns, rows, self.rows);
            loaded.map_err(|error| match error {
                ExportError::Database(inner) => self.target.error(inner.what),
                other => other,
            })?;
        }
        self.rows += rows.rows() as u64;
        Ok(())
    }

    fn check_keys(&self, rows: &Table) -> Result<(), ExportError> {
        let keys = self.columns.iter().filter(|c| self.target.key.iter().any(|key| **key == *c.name));
        for column in keys {
            let cells = rows.column(&column.name);
            let is_null =
                |row: usize| cells.is_none_or(|cells| matches!(cells.value(row), Value::Null | Value::Absent));
            if let Some(row) = (0..rows.rows()).find(|row| is_null(*row)) {
                return Err(cell_error(column, self.rows + row as u64, "null, and it is part of the key"));
            }
        }
        Ok(())
    }

    /// Lets the rows be seen.
    ///
    /// # Errors
    /// When the database refuses. Then all is as it was.
    pub fn commit(mut self) -> Result<(), ExportError> {
        match (self.target.mode, self.columns.is_empty()) {
            (TableMode::Replace, true) => {
                if let Some(old) = self.old.take() {
                    self.execute(&format!("delete from {}", old.quoted()))?;
                }
            }
            (TableMode::Replace, false) => {
                if let Some(old) = self.old.take() {
                    let dropped = self.session.execute(&format!("drop table {}", old.quoted()));
                    dropped.map_err(|what| {
                        self.target.error(format!("{what}; where others build on the table, `mode: upsert` keeps it"))
                    })?;
                }
                let rename = format!("alter table {} rename to {}", self.staging.quoted(), quoted(&self.table.name));
                self.execute(&rename)?;
            }
            (TableMode::Upsert, true) => {}
            (TableMode::Upsert, false) => self.merge()?,
        }
        self.execute("commit")
    }

    fn merge(&mut self) -> Result<(), ExportError> {
        let (staging, key) = (quoted(&self.staging.name), names(&self.target.key));
        let unique =
            format!("create unique index {} on {staging} ({key})", quoted(&format!("{}_key", self.staging.name)));
        self.session.execute(&unique).map_err(|what| {
            self.target.error(format!("two rows have one key ({}): {what}", self.target.key.join(", ")))
        })?;
        let is_key = |name: &str| self.target.key.iter().any(|key| self.session.same(key, name));
        let others = self.columns.iter().filter(|c| !is_key(&c.name)).map(|c| quoted(&c.name));
        let set: Vec<String> = others.map(|name| format!("{name} = excluded.{name}")).collect();
        let action = if set.is_empty() { "nothing".to_string() } else { format!("update set {}", set.join(", ")) };
        let columns = self.names();
        let table = self.table.quoted();
        let merge = format!(
            "insert into {table} ({columns}) select {columns} from {staging} where true on conflict ({key}) do {action}"
        );
        self.session.execute(&merge).map_err(|what| {
            let hint = match what.to_lowercase().contains("on conflict") {
                true => format!("; make them unique: create unique index on {table} ({key})"),
                false => String::new(),
            };
            self.target.error(format!("cannot merge into table {}: {what}{hint}", self.table))
        })
    }
}

fn names(columns: &[String]) -> String {
    columns.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

/// A cell that the database cannot hold.
fn cell_error(column: &OutputColumn, row: u64, what: &str) -> ExportError {
    ExportError::Cell { column: column.name.to_string(), what: format!("{what} (row {row})") }
}

fn database_error(what: String) -> ExportError {
    // The writer names the database.
    ExportError::Database(SqlError { database: String::new(), what })
}
