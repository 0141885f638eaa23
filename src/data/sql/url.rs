//! URLs of databases, and what the environment adds to them.

use std::path::PathBuf;
use std::time::Duration;

use postgres::Config;
use postgres::config::Host;

/// Looks an environment variable up.
pub type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// How long a server may take to answer, where nothing else is said.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// A database as a URL names it.
#[derive(Clone)]
pub enum Database {
    /// The path of a file, relative to the workflow.
    Sqlite(String),
    Postgres(Box<Server>),
}

/// A PostgreSQL server and a database on it.
#[derive(Clone)]
pub struct Server {
    pub(super) config: Config,
    pub(super) shown: String,
    /// A file of passwords, where the URL and the environment give none.
    pub(super) password_file: Option<PathBuf>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Database {
    /// Reads a URL. What a `postgresql` URL leaves open is taken from the variables that libpq knows (`PGHOST`,
    /// `PGPORT`, `PGUSER`, `PGPASSWORD`, `PGDATABASE`, `PGSSLMODE`, `PGCONNECT_TIMEOUT`, `PGOPTIONS`, `PGPASSFILE`).
    ///
    /// # Errors
    /// What is wrong with it, and the way out.
    pub fn parse(url: &str, env: &Lookup) -> Result<Database, (String, String)> {
        let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
        match scheme.to_ascii_lowercase().as_str() {
            "sqlite" | "sqlite3" => sqlite(rest).map(Database::Sqlite),
            "postgresql" | "postgres" => server(rest, env).map(|server| Database::Postgres(Box::new(server))),
            scheme if scheme.starts_with("postgres") => Err((
                format!("`{scheme}` names no database"),
                "a driver's name is not part of it: write postgresql://user@host/database".into(),
            )),
            _ => Err((
                "the URL of a database begins with `sqlite:` or `postgresql:`".into(),
                "write sqlite:///file.db or postgresql://user@host/database".into(),
            )),
        }
    }

    /// The URL for people, without password and options.
    pub fn shown(&self) -> String {
        match self {
            Database::Sqlite(path) => format!("sqlite:///{path}"),
            Database::Postgres(server) => server.shown.clone(),
        }
    }

    /// The path of an SQLite file, relative to the workflow.
    pub fn path(&self) -> Option<&str> {
        match self {
            Database::Sqlite(path) => Some(path),
            Database::Postgres(_) => None,
        }
    }

    /// What must not be shown of it.
    pub fn password(&self) -> Option<String> {
        match self {
            Database::Sqlite(_) => None,
            Database::Postgres(server) => server.config.get_password().map(|p| String::from_utf8_lossy(p).into_owned()),
        }
    }
}

fn sqlite(rest: &str) -> Result<String, (String, String)> {
    let path = rest.strip_prefix("///").filter(|path| !path.is_empty());
    match path {
        Some(":memory:") => Err(("a database in memory is empty".into(), "name a file: sqlite:///file.db".into())),
        Some(path) if path.contains('\0') => Err(("a path cannot contain NUL".into(), "rename the file".into())),
        Some(path) => Ok(path.to_string()),
        None => {
            let name = rest.trim_start_matches('/');
            let name = if name.is_empty() { "file.db" } else { name };
            let help =
                format!("write sqlite:///{name} for a path beside the workflow, sqlite:////… for an absolute one");
            Err(("the path of an SQLite file stands behind three slashes".into(), help))
        }
    }
}

fn server(rest: &str, env: &Lookup) -> Result<Server, (String, String)> {
    let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
    let said = options.split('&').find_map(|option| option.strip_prefix("sslmode="));
    encryption(said.map(str::to_string).or_else(|| env("PGSSLMODE")).as_deref().unwrap_or("prefer"))?;
    let options: Vec<&str> = options.split('&').filter(|o| !o.is_empty() && !o.starts_with("sslmode=")).collect();
    let place = match env("PGPORT").filter(|port| !port.is_empty()) {
        Some(port) => with_port(place, &port),
        None => place.to_string(),
    };
    let url = format!("postgresql:{place}?{}", options.join("&"));
    let mut config: Config = url.parse().map_err(|error: postgres::Error| {
        let what = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        (format!("the URL cannot be read: {what}"), "write postgresql://user:password@host:5432/database".to_string())
    })?;
    complete(&mut config, env)?;
    let home = || env("HOME").map(|home| PathBuf::from(home).join(".pgpass"));
    let password_file = env("PGPASSFILE").map(PathBuf::from).or_else(home);
    Ok(Server { shown: shown(&config), config, password_file })
}

/// `//user@host/name` with a port for the hosts that have none.
fn with_port(place: &str, port: &str) -> String {
    let start = if place.starts_with("//") { 2 } else { 0 };
    let end = place[start..].find('/').map_or(place.len(), |at| start + at);
    let start = place[start..end].rfind('@').map_or(start, |at| start + at + 1);
    let host = |host: &str| match host.rsplit(']').next().unwrap_or_default().contains(':') || host.is_empty() {
        true => host.to_string(),
        false => format!("{host}:{port}"),
    };
    let hosts: Vec<String> = place[start..end].split(',').map(host).collect();
    format!("{}{}{}", &place[..start], hosts.join(","), &place[end..])
}

/// Refuses what only an encrypted connection can keep.
fn encryption(mode: &str) -> Result<(), (String, String)> {
    match mode {
        "disable" | "allow" | "prefer" => Ok(()),
        "require" | "verify-ca" | "verify-full" => Err((
            format!("sslmode={mode} asks for an encrypted connection, which bpp-flow cannot make"),
            "connect through a tunnel that ends on this machine (ssh -L, pgbouncer, a cloud's proxy), with \
             sslmode=disable"
                .into(),
        )),
        _ => Err((format!("there is no sslmode `{mode}`"), "there are disable, allow and prefer".into())),
    }
}

/// Adds what the environment says, and defaults.
fn complete(config: &mut Config, env: &Lookup) -> Result<(), (String, String)> {
    let number = |name: &str| match env(name).filter(|text| !text.is_empty()) {
        Some(text) => text
            .parse::<u16>()
            .map(Some)
            .map_err(|_| (format!("{name} is not a number: {text}"), "unset it, or say it in the URL".to_string())),
        None => Ok(None),
    };
    let set = |name: &str| env(name).filter(|text| !text.is_empty());
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        // Without one, a default is looked for when a connection is made.
        set("PGHOST").iter().flat_map(|hosts| hosts.split(',')).for_each(|host| _ = config.host(host));
    }
    if let (true, Some(port)) = (config.get_ports().is_empty(), number("PGPORT")?) {
        config.port(port);
    }
    if let (None, Some(user)) = (config.get_user(), set("PGUSER").or_else(|| set("USER"))) {
        config.user(&user);
    }
    if let (None, Some(password)) = (config.get_password(), set("PGPASSWORD")) {
        config.password(password);
    }
    if let (None, Some(name)) = (config.get_dbname(), set("PGDATABASE")) {
        config.dbname(&name);
    }
    if let (None, Some(options)) = (config.get_options(), set("PGOPTIONS")) {
        config.options(&options);
    }
    if config.get_connect_timeout().is_none() {
        let seconds = number("PGCONNECT_TIMEOUT")?.map(|s| Duration::from_secs(s.into()));
        config.connect_timeout(seconds.unwrap_or(CONNECT_TIMEOUT));
    }
    if config.get_application_name().is_none() {
        config.application_name("bpp-flow");
    }
    Ok(())
}

fn shown(config: &Config) -> String {
    let ports = config.get_ports();
    let port = |i: usize| ports.get(i).or(ports.first()).map_or(String::new(), |port| format!(":{port}"));
    let user = config.get_user().map_or(String::new(), |user| format!("{user}@"));
    let name = config.get_dbname().unwrap_or_default();
    let (mut hosts, mut folders) = (Vec::new(), Vec::new());
    for (i, host) in config.get_hosts().iter().enumerate() {
        match host {
            Host::Tcp(host) => hosts.push(format!("{host}{}", port(i))),
            Host::Unix(folder) => folders.push(folder.display().to_string()),
        }
    }
    let folders = if folders.is_empty() { String::new() } else { format!("?host={}", folders.join(",")) };
    format!("postgresql://{user}{}/{name}{folders}", hosts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str, env: &[(&str, &str)]) -> Result<Database, String> {
        let lookup = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string());
        Database::parse(url, &lookup).map_err(|(message, _)| message)
    }

    fn shown(url: &str, env: &[(&str, &str)]) -> String {
        parsed(url, env).unwrap_or_else(|message| panic!("{url}: {message}")).shown()
    }

    #[test]
    fn paths_stand_behind_three_slashes() {
        assert_eq!(parsed("sqlite:///a/b.db", &[]).expect("good").path(), Some("a/b.db"));
        assert_eq!(parsed("sqlite:////a/b.db", &[]).expect("good").path(), Some("/a/b.db"));
        for wrong in ["sqlite://a.db", "sqlite:a.db", "sqlite:///", "sqlite:///:memory:", "a.db", ""] {
            assert!(parsed(wrong, &[]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_environment_fills_in_and_no_password_is_shown() {
        let env = [
            ("PGHOST", "/run/x"),
            ("PGUSER", "me"),
            ("PGPASSWORD", "sesame"),
            ("PGDATABASE", "lab"),
            ("PGPORT", "5433"),
        ];
        assert_eq!(shown("postgresql://", &env), "postgresql://me@/lab?host=/run/x");
        assert_eq!(shown("postgres://you:p%40w@h/other?connect_timeout=3", &env), "postgresql://you@h:5433/other");
        assert_eq!(shown("postgresql:///db?host=/run/y&user=u&password=secret", &[]), "postgresql://u@/db?host=/run/y");
        assert_eq!(shown("postgresql://a:1,b:2/db", &[]), "postgresql://a:1,b:2/db");
        assert_eq!(with_port("//u:p@a,b:1,[::1],[::2]:3/db", "7"), "//u:p@a:7,b:1,[::1]:7,[::2]:3/db");
        let database = parsed("postgresql://you:p%40w@h/db", &env).expect("good");
        assert_eq!(database.password().as_deref(), Some("p@w"));
        assert_eq!(format!("{database:?}"), "postgresql://you@h:5433/db");
        assert_eq!(parsed("postgresql://h/db", &env).expect("good").password().as_deref(), Some("sesame"));
    }

    #[test]
    fn encryption_is_refused_where_it_is_asked_for() {
        assert!(parsed("postgresql://h/db?sslmode=allow", &[]).is_ok());
        assert!(parsed("postgresql://h/db?sslmode=verify-full", &[]).expect_err("refused").contains("encrypted"));
        assert!(parsed("postgresql://h/db", &[("PGSSLMODE", "require")]).expect_err("refused").contains("encrypted"));
        assert!(parsed("postgresql://h/db?sslmode=disable", &[("PGSSLMODE", "require")]).is_ok());
    }
}
