//! One PostgreSQL server for all tests of this process (`scripts/postgres`), a database of its own for each.
//!
//! The server lies in a temporary folder, listens on a socket there, and goes, with the folder, when the pipe to its
//! script ends: at the end of the tests, however they end.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::env::*;

/// A server that is going.
struct Server {
    folder: String,
    script: Child,
    /// Kept open: what the script says at its end must not break it.
    _said: BufReader<ChildStdout>,
}

/// A database of a test's own.
pub struct Postgres {
    pub folder: String,
    pub name: String,
}

fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(start).as_ref()
}

fn start() -> Option<Server> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/postgres");
    let mut command = Command::new(script);
    // Reads from the pipe until it ends.
    command.args(["bash", "-c", "echo \"$PGHOST\"; cat >/dev/null"]);
    let mut script = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("bash");
    let mut said = BufReader::new(script.stdout.take().expect("piped"));
    let mut folder = String::new();
    said.read_line(&mut folder).expect("a pipe");
    if folder.is_empty() {
        assert!(std::env::var_os("CI").is_none(), "CI needs PostgreSQL");
        let _ = script.wait();
        eprintln!("skipped: no PostgreSQL server");
        return None;
    }
    let server = Server { folder: folder.trim().to_string(), script, _said: said };
    let locked = "create role locked login password 'tangerine'; set password_encryption = 'md5'; \
         create role older login password 'tangerine'";
    psql(&server.folder, "postgres", locked);
    let data = psql(&server.folder, "postgres", "show data_directory");
    let rules = "local all locked scram-sha-256\nlocal all older md5\nlocal all all trust\n";
    psql(
        &server.folder,
        "postgres",
        &format!(
            "copy (select line from regexp_split_to_table($${}$$, E'\\n') line) to '{data}/pg_hba.conf'",
            rules.trim()
        ),
    );
    psql(&server.folder, "postgres", "select pg_reload_conf()");
    Some(server)
}

fn psql(folder: &str, database: &str, sql: &str) -> String {
    let mut command = Command::new("psql");
    command.args(["-XAtqw", "-v", "ON_ERROR_STOP=1", "-h", folder, "-U", "postgres", "-d", database, "-f", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("psql");
    child.stdin.take().expect("piped").write_all(sql.as_bytes()).expect("psql reads");
    let out = child.wait_with_output().expect("psql");
    assert!(out.status.success(), "{sql}");
    String::from_utf8(out.stdout).expect("UTF-8").trim_end().to_string()
}

impl Postgres {
    /// An empty database, `env` pointed at it; `None` where no server is installed.
    pub fn of(env: &mut TestEnv) -> Option<Postgres> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let server = server()?;
        assert!(server.script.id() > 0);
        let name = format!("t{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        psql(&server.folder, "postgres", &format!("create database {name}"));
        for (variable, value) in [("PGHOST", server.folder.as_str()), ("PGUSER", "postgres"), ("PGDATABASE", &name)] {
            env.set_var(variable, value);
        }
        Some(Postgres { folder: server.folder.clone(), name })
    }

    /// What `psql` prints, its columns apart by `|`.
    pub fn psql(&self, sql: &str) -> String {
        psql(&self.folder, &self.name, sql)
    }

    /// A session that has done `sql` and holds its locks until it is dropped.
    pub fn hold(&self, sql: &str) -> Session {
        let mut command = Command::new("psql");
        command.args(["-XAtqw", "-h", &self.folder, "-U", "postgres", "-d", &self.name]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("psql");
        let script = format!("begin; {sql}; \\echo held\n");
        child.stdin.as_mut().expect("piped").write_all(script.as_bytes()).expect("psql reads");
        let mut said = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        while line.trim() != "held" {
            line.clear();
            assert!(said.read_line(&mut line).expect("a pipe") > 0, "{sql}");
        }
        Session { child }
    }

    /// Waits until bpp-flow waits for a lock; the id of its server process.
    pub fn until_locked(&self) -> String {
        let query = format!(
            "select pid from pg_stat_activity where datname = '{}' and application_name = 'bpp-flow' and wait_event_type = 'Lock'",
            self.name
        );
        let mut found = String::new();
        until("bpp-flow waits for a lock", || {
            found = self.psql(&query);
            !found.is_empty()
        });
        found
    }
}

/// A `psql` that holds locks.
pub struct Session {
    child: Child,
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
