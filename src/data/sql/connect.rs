//! Connections, and errors in a database's own words.

use std::error::Error;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use postgres::config::Host;
use postgres::error::{ErrorPosition, SqlState};
use postgres::{Client, NoTls};
use rusqlite::{Connection, OpenFlags};

use super::url::Server;

/// How long a lock that another program holds on an SQLite file is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where servers that listen on a socket have it by default (Debian; elsewhere).
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// How texts come and go, whatever the server's or the user's settings say.
const SETTINGS: &str = "set local datestyle = 'ISO, YMD'; set local intervalstyle = 'postgres'; \
     set local timezone = 'UTC'; set local bytea_output = 'hex'; set local extra_float_digits = 1; \
     set local standard_conforming_strings = on";

/// Opens an SQLite file; one that is not there only where it is to be written.
#[expect(clippy::disallowed_methods, reason = "SQLite files are opened here, and nowhere else")]
pub(in crate::data) fn open_sqlite(path: &Path, write: bool) -> rusqlite::Result<Connection> {
    let access = match write {
        true => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        false => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(PATIENCE)?;
    Ok(connection)
}

/// Connects to a server and begins a transaction (`begin …`).
#[expect(clippy::disallowed_methods, reason = "connections are made here, and nowhere else")]
pub(in crate::data) fn open_postgres(server: &Server, begin: &str) -> Result<Client, String> {
    let mut config = server.config.clone();
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        config.host(local_server(config.get_ports().first().copied().unwrap_or(5432)));
    }
    if config.get_password().is_none()
        && let Some(password) = stored_password(server)
    {
        config.password(password);
    }
    let mut client = config.connect(NoTls).map_err(|error| {
        let what = server_error(&error, None);
        match error.code() {
            Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => {
                format!("cannot log in: {what}; look at the user and PGPASSWORD")
            }
            Some(_) => format!("cannot connect: {what}"),
            None if what.contains("password missing") => {
                "cannot log in: the server wants a password; set PGPASSWORD, or write it into ~/.pgpass".to_string()
            }
            None => format!("cannot connect: {what}; is the server running there?"),
        }
    })?;
    // A query whose reader was killed ends; servers before version 14 do not know how.
    let _ = client.batch_execute("set client_connection_check_interval = '5s'");
    client.batch_execute(&format!("{begin}; {SETTINGS}")).map_err(|error| server_error(&error, None))?;
    Ok(client)
}

/// The folder of the socket of a server on this machine, or else the machine's name.
fn local_server(port: u16) -> &'static str {
    let listens = |folder: &&&str| Path::new(folder).join(format!(".s.PGSQL.{port}")).exists();
    SOCKET_FOLDERS.iter().find(listens).copied().unwrap_or("localhost")
}

/// The password of the first line that fits, `host:port:database:user:password`. As libpq does, a file that others
/// may read is passed over.
fn stored_password(server: &Server) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let mut file = std::fs::File::open(server.password_file.as_ref()?).ok()?;
    let meta = file.metadata().ok()?;
    if !meta.is_file() || meta.permissions().mode() & 0o077 != 0 {
        return None;
    }
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    let config = &server.config;
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        Some(Host::Unix(folder)) => folder.display().to_string(),
        None => "localhost".to_string(),
    };
    let local = host.starts_with('/');
    let port = config.get_ports().first().copied().unwrap_or(5432).to_string();
    let user = config.get_user().unwrap_or_default();
    let wanted = [&host, &port, config.get_dbname().unwrap_or(user), user];
    text.lines().find_map(|line| {
        let fields = fields_of(line);
        let fits = |(field, wanted): (&String, &&str)| field == "*" || field == wanted;
        let host_fits = fields.first().is_some_and(|f| f == "*" || *f == host || (local && f == "localhost"));
        let rest_fits = fields.iter().skip(1).zip(&wanted[1..]).all(fits);
        (fields.len() == 5 && host_fits && rest_fits).then(|| fields[4].clone())
    })
}

/// The fields of a line of a password file; a backslash takes the next character as it is.
fn fields_of(line: &str) -> Vec<String> {
    let (mut fields, mut escaped) = (vec![String::new()], false);
    for c in line.chars() {
        match c {
            '\\' if !escaped => escaped = true,
            ':' if !escaped => fields.push(String::new()),
            c => {
                escaped = false;
                fields.last_mut().expect("one at least").push(c);
            }
        }
    }
    fields
}

/// What the server says, with the place in `query`.
pub(in crate::data) fn server_error(error: &(dyn Error + 'static), query: Option<&str>) -> String {
    let Some(database) = innermost(error) else { return chain(error) };
    let mut what = database.message().to_string();
    if let (Some(query), Some(ErrorPosition::Original(at))) = (query, database.position()) {
        let before: String = query.chars().take((*at as usize).saturating_sub(1)).collect();
        what += &place(&before);
    }
    let copied =
        database.where_().filter(|place| place.starts_with("COPY")).and_then(|place| place.split_once(", column "));
    if let Some((column, _)) = copied.and_then(|(_, rest)| rest.split_once(':')) {
        what = format!("column {column:?}: {what}");
    }
    for more in [database.detail(), database.hint()].into_iter().flatten() {
        what = format!("{what}; {}", more.trim_end_matches('.'));
    }
    what
}

/// What SQLite says, with the place in the query.
pub(in crate::data) fn sqlite_error(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqlInputError { msg, sql, offset, .. } => {
            let before = usize::try_from(*offset).ok().and_then(|offset| sql.get(..offset));
            format!("{msg}{}", before.map_or(String::new(), place))
        }
        rusqlite::Error::MultipleStatement => "more than one statement".into(),
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        other => chain(other),
    }
}

/// ` (line 2, column 7 of the query)`, given what stands before.
fn place(before: &str) -> String {
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!(" (line {line}, column {column} of the query)")
}

fn innermost<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a postgres::error::DbError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<postgres::error::DbError>() {
            return Some(found);
        }
        let inner = error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        next = inner.map(|e| e as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}

/// An error and its causes in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut parts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(error) = next {
        let part = error.to_string();
        if !parts.iter().any(|p| p.contains(&part)) {
            parts.push(part);
        }
        next = error.source();
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_password_files() {
        assert_eq!(fields_of(r"h:5432:*:me:a\:b\\c"), ["h", "5432", "*", "me", r"a:b\c"]);
        assert_eq!(place("select 1,\n  ßx"), " (line 2, column 5 of the query)");
    }
}
