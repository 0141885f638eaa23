//! Tables of SQLite.

use std::path::Path;

use rusqlite::types::{ToSqlOutput, Value as Bound};
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::super::ExportError;
use super::super::schema::{Kind, OutputColumn};
use super::{Existing, MARK, Session, cell_error, database_error};
use crate::data::json;
use crate::data::sql::{TableName, open_sqlite, quoted, sqlite_error};
use crate::data::table::Table;
use crate::data::value::{TimeKind, Value};

pub(super) fn open(path: &Path, write: bool) -> Result<Box<dyn Session>, String> {
    if let (true, Some(folder)) = (write, path.parent()) {
        std::fs::create_dir_all(folder).map_err(|e| format!("the folder cannot be made: {e}"))?;
    }
    let connection = open_sqlite(path, write).map_err(|e| sqlite_error(&e))?;
    let mut session = Sqlite { connection };
    session.execute(if write { "begin immediate" } else { "begin" })?;
    Ok(Box::new(session))
}

struct Sqlite {
    connection: Connection,
}

impl Session for Sqlite {
    fn execute(&mut self, sql: &str) -> Result<(), String> {
        self.connection.execute_batch(sql).map_err(|e| sqlite_error(&e))
    }

    fn find(&mut self, table: &TableName) -> Result<Option<Existing>, String> {
        let schema = quoted(table.schema.as_deref().unwrap_or("main"));
        let query = format!(
            "select name, rootpage, coalesce(sql, '') from {schema}.sqlite_schema where type in ('table', 'view') and name = ?1 collate nocase"
        );
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let found = self.connection.query_row(&query, [&table.name], row).optional();
        let Some((name, root, sql)): Option<(String, i64, String)> = found.map_err(|e| sqlite_error(&e))? else {
            return Ok(None);
        };
        let name = table.beside(name);
        let columns = self.connection.prepare(&format!("select * from {} limit 0", name.quoted()));
        let columns = columns.map_err(|e| sqlite_error(&e))?;
        let columns = columns.column_names().into_iter().map(str::to_string).collect();
        Ok(Some(Existing {
            name,
            ours: sql.contains(&format!("/* {MARK}")),
            identity: format!("{root} {sql}"),
            columns,
        }))
    }

    fn type_of(&self, kind: &Kind) -> &'static str {
        match kind {
            Kind::Bool => "BOOLEAN",
            Kind::Int => "INTEGER",
            Kind::Float | Kind::Duration => "REAL",
            Kind::Bytes => "BLOB",
            _ => "TEXT",
        }
    }

    fn create(&self, table: &TableName, definitions: &str, mark: &str) -> String {
        format!("create table {} (/* {mark} */ {definitions})", table.quoted())
    }

    fn mark(&self, _: &TableName, _: &str) -> Option<String> {
        None
    }

    fn stage(&self, name: &str, columns: &str, like: &TableName) -> String {
        format!("create temp table {} as select {columns} from {} limit 0", quoted(name), like.quoted())
    }

    fn load(
        &mut self,
        into: &TableName,
        columns: &[OutputColumn],
        rows: &Table,
        first_row: u64,
    ) -> Result<(), ExportError> {
        let failed = |e: rusqlite::Error| database_error(sqlite_error(&e));
        let places = vec!["?"; columns.len()].join(", ");
        let insert = format!("insert into {} values ({places})", into.quoted());
        let mut insert = self.connection.prepare(&insert).map_err(failed)?;
        let cells: Vec<_> = columns.iter().map(|c| (c, rows.column(&c.name))).collect();
        for row in 0..rows.rows() {
            let mut bound = Vec::with_capacity(columns.len());
            for (column, cells) in &cells {
                let value = cells.map_or(Value::Null, |cells| cells.value(row)).plain();
                let cell = bind(&column.kind, value);
                bound.push(cell.map_err(|what| cell_error(column, first_row + row as u64, what))?);
            }
            insert.execute(params_from_iter(bound)).map_err(failed)?;
        }
        Ok(())
    }

    fn refuses(&self, name: &str) -> Option<String> {
        name.contains('\0').then(|| "a NUL character in its name".into())
    }

    fn same(&self, a: &str, b: &str) -> bool {
        a.eq_ignore_ascii_case(b)
    }
}

/// A cell as SQLite keeps it.
fn bind(kind: &Kind, value: Value) -> Result<ToSqlOutput<'static>, &'static str> {
    let bound = match (kind, value) {
        (_, Value::Null | Value::Absent) => Bound::Null,
        (_, Value::Bool(v)) => Bound::Integer(v.into()),
        (Kind::Float, Value::Int(v)) => Bound::Real(v as f64),
        (Kind::BigInt(_), Value::Int(v)) => Bound::Text(v.to_string()),
        (_, Value::Int(v)) => Bound::Integer(v),
        (Kind::Float, Value::BigInt(digits)) => Bound::Real(digits.parse().unwrap_or(f64::NAN)),
        (_, Value::BigInt(digits)) => Bound::Text(digits),
        (_, Value::Float(v)) if v.is_nan() => {
            return Err(
                "NaN, which SQLite cannot hold; null in its place (`assign: {x: \"none if item.x != item.x else item.x\"}`)",
            );
        }
        (_, Value::Float(v)) => Bound::Real(v),
        (_, Value::Text(v)) => Bound::Text(v),
        (_, Value::Bytes(v)) => Bound::Blob(v),
        (_, Value::Time(TimeKind::Duration, seconds)) => Bound::Real(seconds.parse().unwrap_or(f64::NAN)),
        (_, Value::Time(_, text)) => Bound::Text(text),
        (_, nested) => Bound::Text(json::text(&nested)),
    };
    Ok(ToSqlOutput::Owned(bound))
}
