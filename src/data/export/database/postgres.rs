//! Tables of PostgreSQL; rows go there by `COPY … FROM STDIN`.

use std::io::Write;

use postgres::Client;

use super::super::ExportError;
use super::super::schema::{Kind, OutputColumn};
use super::{Existing, MARK, Session, cell_error, database_error};
use crate::data::json;
use crate::data::sql::{LONGEST_NAME, Server, TableName, open_postgres, quoted, server_error};
use crate::data::table::Table;
use crate::data::value::{TimeKind, Value};

pub(super) fn open(server: &Server, write: bool) -> Result<Box<dyn Session>, String> {
    let begin = if write { "begin" } else { "begin transaction read only" };
    Ok(Box::new(Postgres { client: open_postgres(server, begin)? }))
}

struct Postgres {
    client: Client,
}

const FIND: &str = "select c.oid::text, n.nspname::text, coalesce(obj_description(c.oid, 'pg_class'), ''), \
     array(select attname::text from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped order by attnum) \
     from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = to_regclass($1::text)";

impl Session for Postgres {
    fn execute(&mut self, sql: &str) -> Result<(), String> {
        self.client.batch_execute(sql).map_err(|e| server_error(&e, None))
    }

    fn find(&mut self, table: &TableName) -> Result<Option<Existing>, String> {
        let row = self.client.query_opt(FIND, &[&table.quoted()]).map_err(|e| server_error(&e, None))?;
        Ok(row.map(|row| {
            let (oid, schema, comment): (String, String, String) = (row.get(0), row.get(1), row.get(2));
            Existing {
                name: TableName { schema: Some(schema), name: table.name.clone() },
                ours: comment.starts_with(MARK),
                identity: format!("{oid} {comment}"),
                columns: row.get(3),
            }
        }))
    }

    fn type_of(&self, kind: &Kind) -> &'static str {
        match kind {
            Kind::Bool => "boolean",
            Kind::Int => "bigint",
            Kind::BigInt(_) => "numeric",
            Kind::Float => "double precision",
            Kind::Null | Kind::Text | Kind::Any => "text",
            Kind::Bytes => "bytea",
            Kind::DateTime { aware: true } => "timestamptz",
            Kind::DateTime { aware: false } => "timestamp",
            Kind::Date => "date",
            Kind::Time => "time",
            Kind::Duration => "interval",
            Kind::List(_) | Kind::Struct(_) | Kind::Json => "jsonb",
        }
    }

    fn create(&self, table: &TableName, definitions: &str, _: &str) -> String {
        format!("create table {} ({definitions})", table.quoted())
    }

    fn mark(&self, table: &TableName, mark: &str) -> Option<String> {
        Some(format!("comment on table {} is '{}'", table.quoted(), mark.replace('\'', "''")))
    }

    fn stage(&self, name: &str, columns: &str, like: &TableName) -> String {
        let (name, like) = (quoted(name), like.quoted());
        format!("create temporary table {name} on commit drop as select {columns} from {like} with no data")
    }

    fn load(
        &mut self,
        into: &TableName,
        columns: &[OutputColumn],
        rows: &Table,
        first_row: u64,
    ) -> Result<(), ExportError> {
        let cells: Vec<_> = columns.iter().map(|c| (c, rows.column(&c.name))).collect();
        let mut text = String::new();
        for row in 0..rows.rows() {
            for (at, (column, cells)) in cells.iter().enumerate() {
                let value = cells.map_or(Value::Null, |cells| cells.value(row)).plain();
                text.push_str(if at > 0 { "\t" } else { "" });
                print(&column.kind, &value, &mut text)
                    .map_err(|what| cell_error(column, first_row + row as u64, what))?;
            }
            text.push('\n');
        }
        let failed = |e: &(dyn std::error::Error + 'static)| database_error(server_error(e, None));
        let mut writer = self.client.copy_in(&format!("copy {} from stdin", into.quoted())).map_err(|e| failed(&e))?;
        writer.write_all(text.as_bytes()).map_err(|e| failed(&e))?;
        writer.finish().map(drop).map_err(|e| failed(&e))
    }

    fn refuses(&self, name: &str) -> Option<String> {
        match name {
            "" => Some("an empty name".into()),
            _ if name.contains('\0') => Some("a NUL character in its name".into()),
            _ if name.len() > LONGEST_NAME => {
                Some(format!("a name of {} bytes, and PostgreSQL keeps {LONGEST_NAME}", name.len()))
            }
            _ => None,
        }
    }

    fn same(&self, a: &str, b: &str) -> bool {
        a == b
    }
}

/// A cell as `COPY` reads it.
fn print(kind: &Kind, value: &Value, out: &mut String) -> Result<(), &'static str> {
    match value {
        Value::Null | Value::Absent => out.push_str("\\N"),
        Value::Bytes(bytes) => {
            out.push_str("\\\\x");
            bytes.iter().for_each(|byte| out.push_str(&format!("{byte:02x}")));
        }
        Value::Text(text) if text.contains('\0') => {
            return Err("text with a NUL character, which PostgreSQL cannot hold");
        }
        Value::Text(text) => escape(text, out),
        Value::Time(TimeKind::Duration, seconds) => {
            out.push_str(seconds);
            out.push_str(" seconds");
        }
        Value::Time(TimeKind::Time, text) if text.contains(['+', '-', 'Z']) => {
            return Err("a time of day with an offset, which PostgreSQL's `time` cannot hold");
        }
        Value::List(_) | Value::Map(_) => {
            json_holds(value)?;
            escape(&json::text(value), out);
        }
        value if *kind == Kind::Json => {
            json_holds(value)?;
            escape(&json::text(value), out);
        }
        value => out.push_str(&value.to_string()),
    }
    Ok(())
}

/// Whether `jsonb` can hold a value.
fn json_holds(value: &Value) -> Result<(), &'static str> {
    match value {
        Value::Float(v) if !v.is_finite() => {
            Err("NaN or an infinity within a list or mapping, which `jsonb` cannot hold")
        }
        Value::Text(text) if text.contains('\0') => {
            Err("text with a NUL character within a list or mapping, which `jsonb` cannot hold")
        }
        Value::List(items) => items.iter().try_for_each(json_holds),
        Value::Map(entries) => entries.iter().try_for_each(|(name, value)| {
            if name.contains('\0') { Err("a NUL character in a mapping's key") } else { json_holds(value) }
        }),
        Value::Aside(value) => json_holds(value),
        _ => Ok(()),
    }
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c => out.push(c),
        }
    }
}
