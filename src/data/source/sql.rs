//! `sql:`: the rows of a query, streamed.
//!
//! A thread of its own holds the connection and hands batches on, at most one ahead. PostgreSQL sends the rows by
//! `COPY … TO STDOUT` in one read-only transaction, SQLite is stepped through; neither holds the result in memory.
//! A cell that no value holds (a date beyond the year 9999) fails its row.

use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::{Sender, bounded};
use postgres::Client;
use rusqlite::types::ValueRef;

use super::error::SourceError;
use super::{Limits, ReadBatch, SourceReader, bad_row};
use crate::data::failure::Failure;
use crate::data::sql::{Database, Decoder, Server, SqlError, open_postgres, open_sqlite, server_error, sqlite_error};
use crate::data::table::{ColumnBuilder, Table};
use crate::data::value::Value;

/// One transaction, so that all rows are of one moment, and none is changed.
const BEGIN: &str = "begin transaction isolation level repeatable read, read only";

/// Opens the rows of a query.
pub(super) fn open(
    source_name: &str,
    database: &Database,
    query: &str,
    dir: &Path,
    limits: Limits,
) -> Result<SourceReader, SourceError> {
    if let Database::Sqlite(path) = database {
        let place = dir.join(path);
        std::fs::File::open(&place).map_err(|cause| SourceError::open(source_name, path, place, cause))?;
    }
    // One batch waits while another is on its way: what is read ahead is bounded.
    let (to, batches) = bounded(1);
    let (source_name, database, query) = (source_name.to_string(), database.clone(), query.to_string());
    let dir = dir.to_path_buf();
    std::thread::spawn(move || {
        let mut rows = Rows::new(limits, to.clone());
        let read = match &database {
            Database::Sqlite(path) => read_sqlite(&dir.join(path), &query, &mut rows),
            Database::Postgres(server) => read_postgres(server, &query, &mut rows),
        };
        let error = match read.and_then(|()| rows.flush()) {
            Ok(()) | Err(Stop::Left) => return,
            Err(Stop::Error(what)) => SqlError { database: database.shown(), what },
        };
        let _ = to.send(Err(SourceError::Database { source_name, cause: error }));
    });
    Ok(SourceReader::new(batches.into_iter()))
}

/// The file whose bytes decide what a query gives, if they do: an SQLite file that no writer is in the middle of, and a
/// query without functions of chance or time. A server does not tell whether it is as it was.
pub(super) fn decided_by_file(database: &Database, query: &str, dir: &Path) -> Option<String> {
    let Database::Sqlite(path) = database else { return None };
    let place = dir.join(path);
    let beside = |ending: &str| std::fs::metadata(format!("{}{ending}", place.display())).is_ok_and(|m| m.len() > 0);
    if !place.is_file() || beside("-wal") || beside("-journal") {
        return None;
    }
    let connection = open_sqlite(&place, false).ok()?;
    let mut statement = connection.prepare(&format!("explain {query}")).ok()?;
    let mut steps = statement.query([]).ok()?;
    while let Some(step) = steps.next().ok()? {
        let operation: String = step.get("opcode").ok()?;
        let function: Option<String> = step.get("p4").ok()?;
        let name = function.as_deref().unwrap_or_default().split('(').next().unwrap_or_default();
        let calls = matches!(operation.as_str(), "Function" | "PureFunc");
        if (calls && UNSTEADY.contains(&name)) || operation == "VOpen" {
            return None;
        }
    }
    Some(path.clone())
}

/// Functions of SQLite that may give something else from the same file.
const UNSTEADY: [&str; 15] = [
    "random",
    "randomblob",
    "date",
    "time",
    "datetime",
    "julianday",
    "unixepoch",
    "strftime",
    "timediff",
    "current_date",
    "current_time",
    "current_timestamp",
    "changes",
    "total_changes",
    "last_insert_rowid",
];

/// Why reading ends before its time.
enum Stop {
    /// Nobody wants more rows.
    Left,
    Error(String),
}

impl From<String> for Stop {
    fn from(what: String) -> Stop {
        Stop::Error(what)
    }
}

/// Rows on their way into batches.
struct Rows {
    names: Arc<[Arc<str>]>,
    columns: Vec<ColumnBuilder>,
    rows: Vec<u64>,
    bad: Vec<(u64, Failure)>,
    /// Of the batch so far.
    bytes: usize,
    next_row: u64,
    limits: Limits,
    to: Sender<Result<ReadBatch, SourceError>>,
}

impl Rows {
    fn new(limits: Limits, to: Sender<Result<ReadBatch, SourceError>>) -> Rows {
        Rows {
            names: Arc::from([]),
            columns: Vec::new(),
            rows: Vec::new(),
            bad: Vec::new(),
            bytes: 0,
            next_row: 0,
            limits,
            to,
        }
    }

    /// Names the columns, before the first row.
    fn begin(&mut self, names: Vec<String>) -> Result<(), Stop> {
        if let Some(twice) = names.iter().enumerate().find_map(|(i, name)| names[..i].contains(name).then_some(name)) {
            return Err(Stop::Error(format!("the query gives two columns {twice:?}: rename one with `as`")));
        }
        self.columns = names.iter().map(|_| ColumnBuilder::default()).collect();
        self.names = names.into_iter().map(Arc::from).collect();
        Ok(())
    }

    /// Takes the next row: its cells, or what is wrong with one.
    fn push(&mut self, cells: Result<&[Value], String>, bytes: usize) -> Result<(), Stop> {
        match cells {
            Ok(cells) => {
                self.columns.iter_mut().zip(cells).for_each(|(column, cell)| column.push(cell));
                self.rows.push(self.next_row);
            }
            Err(what) => self.bad.push((self.next_row, bad_row(format!("row {}: {what}", self.next_row)))),
        }
        self.next_row += 1;
        self.bytes += bytes;
        let full = self.rows.len() + self.bad.len() >= self.limits.rows || self.bytes >= self.limits.bytes;
        if full { self.flush() } else { Ok(()) }
    }

    /// Hands the batch on.
    fn flush(&mut self) -> Result<(), Stop> {
        let rows = std::mem::take(&mut self.rows);
        let columns = self.columns.iter_mut().map(|column| std::mem::take(column).finish()).collect();
        let table = Table::new(self.names.clone(), columns, rows.len());
        let batch = ReadBatch { rows, table, bad: std::mem::take(&mut self.bad), bytes: 0 };
        self.bytes = 0;
        self.to.send(Ok(batch)).map_err(|_| Stop::Left)
    }

    fn wrong(&self, column: usize, what: &str) -> String {
        format!("column {:?} holds {what}", self.names[column])
    }
}

fn read_sqlite(path: &Path, query: &str, to: &mut Rows) -> Result<(), Stop> {
    let told = |error: rusqlite::Error| Stop::Error(sqlite_error(&error));
    let connection = open_sqlite(path, false).map_err(told)?;
    let mut statement = connection.prepare(query).map_err(told)?;
    if !statement.readonly() || statement.column_count() == 0 {
        return Err(Stop::Error("the query gives no rows, or changes the database: write a `select`".into()));
    }
    if statement.parameter_count() > 0 {
        return Err(Stop::Error("the query has parameters (`?`), and nothing fills them".into()));
    }
    to.begin(statement.column_names().into_iter().map(str::to_string).collect())?;
    let mut cells = Vec::new();
    let mut rows = statement.query([]).map_err(told)?;
    while let Some(row) = rows.next().map_err(told)? {
        cells.clear();
        let (mut wrong, mut bytes) = (None, 0);
        for column in 0..to.columns.len() {
            cells.push(match row.get_ref(column).map_err(told)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(v) => Value::Int(v),
                ValueRef::Real(v) => Value::Float(v),
                ValueRef::Blob(v) => Value::Bytes(v.to_vec()),
                ValueRef::Text(v) => match std::str::from_utf8(v) {
                    Ok(text) => Value::Text(text.to_string()),
                    Err(_) => {
                        wrong.get_or_insert_with(|| to.wrong(column, "text that is not UTF-8"));
                        Value::Null
                    }
                },
            });
            bytes += size_of(&cells[column]);
        }
        to.push(wrong.map_or(Ok(&cells), Err), bytes)?;
    }
    Ok(())
}

fn size_of(cell: &Value) -> usize {
    match cell {
        Value::Text(text) => text.len() + 4,
        Value::Bytes(bytes) => bytes.len() + 4,
        _ => 8,
    }
}

fn read_postgres(server: &Server, query: &str, to: &mut Rows) -> Result<(), Stop> {
    let mut client = open_postgres(server, BEGIN)?;
    let read = copy_rows(&mut client, query, to);
    if read.is_err() {
        // The rest of the rows is not sent only to be thrown away.
        let _ = client.cancel_token().cancel_query(postgres::NoTls);
    }
    read
}

fn copy_rows(client: &mut Client, query: &str, to: &mut Rows) -> Result<(), Stop> {
    let query = query.trim_end().trim_end_matches(';');
    let statement = client.prepare(query).map_err(|error| server_error(&error, Some(query)))?;
    if !statement.params().is_empty() {
        return Err(Stop::Error("the query has parameters (`$1`), and nothing fills them".into()));
    }
    if statement.columns().is_empty() {
        return Err(Stop::Error("the query gives no columns: write a `select`".into()));
    }
    let decoders: Vec<Decoder> = statement.columns().iter().map(|column| Decoder::of(column.type_())).collect();
    to.begin(statement.columns().iter().map(|column| column.name().to_string()).collect())?;
    let copy = format!("copy (\n{query}\n) to stdout");
    let mut reader = client.copy_out(&copy).map_err(|error| server_error(&error, None))?;
    let (mut line, mut cells, mut text) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(|error| lost(&error))? == 0 {
            return Ok(());
        }
        cells.clear();
        let read = line_cells(&line, &decoders, to, &mut text, &mut cells);
        to.push(read.map(|()| cells.as_slice()), line.len())?;
    }
}

fn lost(error: &std::io::Error) -> String {
    let what = server_error(error, None);
    if what.contains("connection closed") { "the connection was lost".into() } else { what }
}

/// The cells of a line of `COPY`'s text format.
fn line_cells(
    line: &[u8],
    decoders: &[Decoder],
    rows: &Rows,
    text: &mut Vec<u8>,
    cells: &mut Vec<Value>,
) -> Result<(), String> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    for (column, (field, decoder)) in line.split(|b| *b == b'\t').zip(decoders).enumerate() {
        if field == b"\\N" {
            cells.push(Value::Null);
            continue;
        }
        unescape(field, text);
        let text = std::str::from_utf8(text).map_err(|_| rows.wrong(column, "text that is not UTF-8"))?;
        cells.push(decoder.read(text).map_err(|what| rows.wrong(column, &what))?);
    }
    Ok(())
}

/// A field without its backslashes.
fn unescape(field: &[u8], text: &mut Vec<u8>) {
    text.clear();
    let mut rest = field.iter();
    while let Some(&byte) = rest.next() {
        let plain = match (byte, byte == b'\\') {
            (_, true) => rest.next().map_or(b'\\', |escaped| match escaped {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 11,
                other => *other,
            }),
            (byte, false) => byte,
        };
        text.push(plain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::source::testing::{Folder, all_rows, messages};

    fn read(folder: &Folder, query: &str, rows: usize) -> Result<Vec<ReadBatch>, String> {
        let database = Database::parse("sqlite:///x.db", &|_| None).expect("a URL");
        let reader = open("s", &database, query, folder.path(), Limits { rows, bytes: 1 << 20 });
        reader.map_err(|e| e.to_string())?.collect::<Result<_, _>>().map_err(|e| e.to_string())
    }

    fn filled() -> Folder {
        let folder = Folder::with(&[]);
        let connection = open_sqlite(&folder.path().join("x.db"), true).expect("opens");
        let rows = "create table t (a, b); insert into t values (1, 'x'), (2.5, null), (x'00ff', 'y'),
             (9, cast(x'ff' as text))";
        connection.execute_batch(rows).expect("works");
        folder
    }

    #[test]
    fn cells_have_the_types_they_have() {
        let batches = read(&filled(), "select * from t;", 3).expect("reads");
        let first: Vec<Value> = all_rows(&batches).iter().map(|row| row[0].1.clone()).collect();
        assert_eq!(first, [Value::Int(1), Value::Float(2.5), Value::Bytes(vec![0, 255])]);
        assert_eq!(messages(&batches), [(3, "row 3: column \"b\" holds text that is not UTF-8".to_string())]);
        assert_eq!(batches.iter().map(ReadBatch::len).collect::<Vec<_>>(), [3, 1]);
    }

    #[test]
    fn queries_that_cannot_be_read() {
        let folder = filled();
        for (query, told) in [
            ("select a, a from t", "two columns \"a\""),
            ("select\n nope from t", "no such column: nope (line 2, column 2 of the query)"),
            ("select * from t where a = ?", "parameters"),
            ("delete from t", "changes the database"),
            ("select 1; select 2", "more than one statement"),
        ] {
            let error = read(&folder, query, 9).expect_err(query);
            assert!(error.starts_with("source s: sqlite:///x.db: ") && error.contains(told), "{error}");
        }
        std::fs::remove_file(folder.path().join("x.db")).expect("there");
        assert!(read(&folder, "select 1", 9).expect_err("no file").contains("there is no file x.db"));
    }

    #[test]
    fn a_file_decides_unless_chance_or_time_does() {
        let folder = filled();
        let database = Database::parse("sqlite:///x.db", &|_| None).expect("a URL");
        let connection = open_sqlite(&folder.path().join("x.db"), true).expect("opens");
        connection.execute_batch("create view today as select *, date('now') as day from t").expect("works");
        drop(connection);
        let decides = |query: &str| decided_by_file(&database, query, folder.path()).is_some();
        for query in ["select a, upper(b) from t order by a", "select count(*) from t;"] {
            assert!(decides(query), "{query}");
        }
        for query in [
            "select random() from t",
            "select * from today",
            "select current_timestamp",
            "select * from t where a < strftime('%s')",
            "select nope from t",
            "select value from json_each('[1]')",
        ] {
            assert!(!decides(query), "{query}");
        }
        folder.write("x.db-wal", b"not empty");
        assert!(!decides("select a from t"));
    }

    #[test]
    fn escapes_of_copy() {
        let mut text = Vec::new();
        unescape(br"a\tb\nc\\d\\N", &mut text);
        assert_eq!(text, b"a\tb\nc\\d\\N");
    }
}
