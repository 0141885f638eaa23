//! Databases as sources and outputs: SQLite files, and a real PostgreSQL server.

use serde_json::json;

use crate::env::*;
use crate::postgres::Postgres;

const MODULE: &str = r#"
import kit

def types(row):
    return {"types": {name: type(cell).__name__ for name, cell in row.items()}, "shown": repr(row)}

def work(row):
    kit.log("work", row["id"])
    return {"y": row["x"] * 2}

def cells(row):
    import datetime as d
    when = d.datetime(2026, 1, 31, 12, 0, 0, 500000)
    even = row["id"] % 2 == 0
    return {
        "big": 10 ** 30 + row["id"], "float": row["id"] / 3, "odd": float("inf"), "text": "tab\t back\\ line\n é'\"",
        "yes": even, "bytes": bytes([0, 255, row["id"]]), "date": when.date(), "time": when.time(), "naive": when,
        "aware": when.replace(tzinfo=d.timezone.utc), "span": d.timedelta(hours=30, microseconds=row["id"]),
        "list": [1, None, {"a": "b\\c"}], "map": {"k": [row["id"]]}, "none": None, "some": "x" if even else None,
    }
"#;

fn with(pipeline: &str) -> TestEnv {
    TestEnv::with(pipeline, MODULE)
}

/// A workflow over the rows of a query.
fn over(url: &str, query: &str) -> TestEnv {
    with(&format!(
        "sources:\n  s:\n    sql: {{ url: \"{url}\", query: {query:?} }}\n    key: id\nstages:\n  \
         work: {{ map: s, python: \"f:work\" }}\n"
    ))
}

/// A workflow that writes rows of `id`, `x` and `y` into a table.
fn into(output: &str) -> TestEnv {
    let env = with(&format!(
        "sources:\n  s: {{ csv: a.csv, key: id }}\nstages:\n  work: {{ map: s, python: \"f:work\" }}\noutputs:\n  \
         work: {output}\n"
    ));
    env.write("a.csv", numbers_csv(3));
    env
}

fn sqlite(env: &TestEnv, sql: &str) -> String {
    let script = "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1])\nfor s in sys.argv[2].split(';'):\n    rows = \
                  c.execute(s).fetchall()\nc.commit()\nprint(*rows, sep='\\n')";
    let mut command = env.command("python3");
    command.args(["-c", script, "x.db", sql]);
    env.start(command).wait().exits(0).stdout.trim_end().to_string()
}

fn wrote(env: &TestEnv) -> usize {
    env.run_json(&[], 0)["outputs"].as_array().map_or(0, Vec::len)
}

#[test]
fn rows_of_a_server_stream_and_only_changed_ones_are_due() {
    let mut env = over("postgresql:///", "select * from t order by id");
    let Some(pg) = Postgres::of(&mut env) else { return };
    env.write("pipeline.yaml", env.read("pipeline.yaml").replace("python: \"f:work\"", "assign: { y: item.x * 2 }"));
    pg.psql(
        "create table t as select g as id, g * 3 as x, repeat('x', 50) as filler from generate_series(1, 300000) g",
    );
    let run = env.run_json(&[], 0);
    assert_eq!(number(&stage_of(&run, "work")["ran"]), 300_000);
    counts(&env.plan_of("work"), &[("done", 300_000), ("due", 0)]);
    pg.psql("update t set x = 5 where id = 77777; delete from t where id = 5; insert into t values (300001, 1, '')");
    env.run(&["plan"]).exits(0).says(&["77777 (x: 233331 → 5)", "300001", "2 items to run"]);
    assert_eq!(number(&stage_of(&env.run_json(&[], 0), "work")["ran"]), 2);
    env.run(&["run", "--limit", "3", "--fresh"]).exits(0);
}

#[test]
fn types_of_a_server_arrive_exactly() {
    let query = r#"
        select 1 as id, 12.50::numeric n, 12::numeric whole, 99999999999999999999::numeric big, true b, '\x00ff'::bytea bytes,
        E'tab\t back\\ \n'::text t, date '2026-01-31' d, time '12:00:00.5' tm, timestamp '2026-01-31 12:00:00' ts,
        timestamptz '2026-01-31 12:00:00+02' tz, interval '90 minutes' span, interval '1 month' as month,
        '{"a": [1, null]}'::jsonb j, array[1.5, null]::float8[] list, null::int nothing, 'NaN'::float8 nan,
        'a'::mood mood, '6ba7b810-9dad-11d1-80b4-00c04fd430c8'::uuid u, row(1, 'x') pair, 0.1::real r, int4range(1, 3) range"#;
    let mut env = with(&format!(
        "sources:\n  s:\n    sql:\n      url: \"postgresql:///\"\n      query: |{query}\nstages:\n  \
         types: {{ map: s, python: \"f:types\" }}\n"
    ));
    let Some(pg) = Postgres::of(&mut env) else { return };
    pg.psql("create type mood as enum ('a', 'b')");
    env.set_var("TZ", "Asia/Tokyo");
    env.set_var("PGOPTIONS", "-c datestyle=German -c bytea_output=escape -c extra_float_digits=-5");
    env.run(&["run"]).exits(0);
    let shown = text(&env.column("types", "shown")[0]);
    for cell in [
        "'n': '12.50'",
        "'whole': 12,",
        "'big': 99999999999999999999",
        "'b': True",
        r"'bytes': b'\x00\xff'",
        r"'t': 'tab\t back\\ \n'",
        "'d': datetime.date(2026, 1, 31)",
        "'tm': datetime.time(12, 0, 0, 500000)",
        "'ts': datetime.datetime(2026, 1, 31, 12, 0)",
        "'tz': datetime.datetime(2026, 1, 31, 10, 0, tzinfo=datetime.timezone.utc)",
        "'span': datetime.timedelta(seconds=5400)",
        "'month': '1 mon'",
        "'j': {'a': [1, None]}",
        "'list': [1.5, None]",
        "'nothing': None",
        "'nan': nan",
        "'mood': 'a'",
        "'u': '6ba7b810-9dad-11d1-80b4-00c04fd430c8'",
        "'pair': '(1,x)'",
        "'r': 0.10000000149011612",
        "'range': '[1,3)'",
    ] {
        assert!(shown.contains(cell), "{cell} is not in {shown}");
    }
}

#[test]
fn a_cell_that_python_cannot_hold_fails_its_row() {
    let mut env = over(
        "postgresql:///",
        "select g as id, g as x, case g when 2 then 'infinity'::date end as d from generate_series(1, 3) g",
    );
    let Some(_pg) = Postgres::of(&mut env) else { return };
    env.run(&["run"]).exits(100);
    assert_eq!(env.rows("work").len(), 2);
    env.run(&["errors", "--item", "row:1"]).says(&["row 1: column \"d\" holds infinity, which Python cannot hold"]);
}

#[test]
fn rows_of_an_sqlite_file() {
    let env = over("sqlite:///x.db", "select id, x, note from t");
    sqlite(
        &env,
        "create table t (id integer, x, note); insert into t values (1, 2, 'a'), (2, 1.5, null), (3, 4, x'00')",
    );
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("work", "y"), [json!(4), json!(3.0), json!(8)]);
    assert_eq!(env.column("work", "note"), [json!("a"), json!(null), json!("00")]);
    counts(&env.plan_of("work"), &[("done", 3), ("due", 0)]);
    sqlite(&env, "update t set x = 5 where id = 2");
    counts(&env.plan_of("work"), &[("done", 2), ("due", 1)]);
    env.clear_log("work");
    // What lies in a write-ahead log counts too.
    sqlite(&env, "pragma journal_mode = wal");
    let script = "import sqlite3, os, signal\nc = sqlite3.connect('x.db')\nc.execute('insert into t values (9, 1, null)')\n\
                  c.commit()\nos._exit(0)";
    env.bash(&format!("python3 -c \"{script}\"")).exits(0);
    assert!(env.path("x.db-wal").exists());
    env.run(&["run"]).exits(0);
    assert_eq!(distinct(&env.logged("work")), ["2", "9"].map(str::to_string).into());
}

#[test]
fn values_of_templates_are_literals_of_a_query() {
    let env = over(
        "sqlite:///{{ params.file }}",
        "select * from {{ params.table | raw }} where note in ({{ params.notes }}) or x = {{ params.x }}",
    );
    let params = "params: { file: x.db, table: t, notes: [it's, b], x: none }\n";
    env.write("pipeline.yaml", format!("{params}{}", env.read("pipeline.yaml")));
    sqlite(
        &env,
        "create table t (id integer, x, note); insert into t values (1, 2, 'it''s'), (2, 3, 'b'), (3, -4, 'c'), (4, 5, 'd')",
    );
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("work", "id")), [1, 2]);
    env.run(&["run", "--param", "x=-4"]).exits(0);
    assert_eq!(ints(&env.column("work", "id")), [1, 2, 3]);
    env.run(&["run", "--param", "x=0 or 1 = 1"]).exits(0);
    assert_eq!(ints(&env.column("work", "id")), [1, 2], "a text is a text");
}

#[test]
fn queries_that_cannot_be_read_say_where() {
    let mut env = over("postgresql:///", "select id,\n  nope from t");
    let Some(pg) = Postgres::of(&mut env) else { return };
    env.run(&["run"]).exits(1).says(&[
        "source s",
        &pg.name,
        "relation \"t\" does not exist (line 2, column 13 of the query)",
    ]);
    pg.psql("create table t as select 1 as id");
    env.run(&["plan"]).exits(1).says(&["column \"nope\" does not exist (line 2, column 3 of the query)"]);
    let again = |query: &str, told: &[&str]| {
        let yaml = over("postgresql:///", query).read("pipeline.yaml");
        env.write("pipeline.yaml", yaml);
        env.run(&["run"]).exits(1).says(told);
    };
    again("delete from t returning id", &["read-only transaction"]);
    again("select 1; select 2", &["multiple commands"]);
    again("selec 1", &["syntax error at or near \"selec\" (line 1, column 1 of the query)"]);
    again("select id, id from t", &["two columns \"id\""]);
    again("select 10 / (id - 1) as id from t", &["division by zero"]);
    assert_eq!(pg.psql("select count(*) from t"), "1");
    let env = over("sqlite:///data/cels.db", "select 1");
    env.write("data/cells.db", "");
    env.run(&["run"]).exits(1).says(&["there is no file data/cels.db", "data/cells.db"]);
    env.write(
        "data/cels.db",
        "no database at all, but long enough to look at: it has more than a hundred bytes of text in it, this file.",
    );
    env.run(&["run"]).exits(1).says(&["file is not a database"]);
    env.run(&["check"]).exits(0);
}

#[test]
fn servers_that_cannot_be_reached() {
    let mut env = over("postgresql://nobody@127.0.0.1:1/db", "select 1 as id");
    env.run(&["check"]).exits(0);
    env.run(&["run"]).exits(1).says(&["postgresql://nobody@127.0.0.1:1/db", "refused", "is the server running there?"]);
    env.write("pipeline.yaml", env.read("pipeline.yaml").replace("nobody@127.0.0.1:1", "locked:mandarine@"));
    let Some(pg) = Postgres::of(&mut env) else { return };
    env.write("pipeline.yaml", env.read("pipeline.yaml").replace("/db\"", &format!("/{}\"", pg.name)));
    let all = env.run(&["run"]).exits(1).says(&["cannot log in", "password authentication failed"]).all();
    assert!(!all.contains("mandarine"), "{all}");
    env.write("pipeline.yaml", env.read("pipeline.yaml").replace("locked:mandarine@", "locked@"));
    env.run(&["run"]).exits(1).says(&["set PGPASSWORD"]);
}

#[test]
fn passwords_come_from_where_libpq_looks_and_are_told_nowhere() {
    let mut env = over("postgresql://locked:tangerine@/", "select 1 as id, 1 as x");
    let Some(pg) = Postgres::of(&mut env) else { return };
    let hushed = |env: &TestEnv, args: &[&str], code: i32| {
        let all = env.run(args).exits(code).all();
        assert!(!all.contains("tangerine"), "{args:?}: {all}");
    };
    for args in [&["run"][..], &["plan"], &["plan", "--json"], &["status"], &["runs"], &["check"]] {
        hushed(&env, args, 0);
    }
    env.write("pipeline.yaml", env.read("pipeline.yaml").replace("1 as x", "y"));
    hushed(&env, &["run"], 1);
    env.write("pipeline.yaml", env.read("pipeline.yaml").replace("/\",", "/?nope=1\","));
    hushed(&env, &["check"], 2);
    let dir = env.path(".bpp-flow/pipeline");
    let store = bpp_flow::store::Store::read(&dir).expect("opens").expect("is there");
    assert!(store.notes("").expect("reads").iter().all(|(key, json)| !format!("{key} {json}").contains("tangerine")));
    let mut older = over("postgresql://older@/", "select 1 as id, 1 as x");
    Postgres::of(&mut older).expect("a server");
    older.set_var("PGPASSWORD", "tangerine");
    older.run(&["run"]).exits(0);
    let mut filed = over("postgresql://locked@/", "select 1 as id, 1 as x");
    let pg2 = Postgres::of(&mut filed).expect("a server");
    let line = format!("elsewhere:*:*:*:no\nlocalhost:*:{}:locked:tangerine\n", pg2.name);
    filed.write("passwords", line);
    filed.set_var("PGPASSFILE", &filed.path("passwords").display().to_string());
    filed.run(&["run"]).exits(1);
    filed.bash("chmod 600 passwords").exits(0);
    filed.run(&["run"]).exits(0);
    drop(pg);
}

#[test]
fn a_connection_lost_in_the_middle_loses_nothing() {
    let query = "select id, x, case when id = 30000 then (select pg_advisory_xact_lock_shared(7))::text end as w from t order by id";
    let mut env = over("postgresql:///", query);
    let Some(pg) = Postgres::of(&mut env) else { return };
    env.write("pipeline.yaml", env.read("pipeline.yaml").replace("python: \"f:work\"", "assign: { y: item.x * 2 }"));
    pg.psql("create table t as select g as id, g as x from generate_series(1, 40000) g");
    env.run(&["run"]).exits(0);
    pg.psql("update t set x = -x where id in (5, 39999)");
    let held = pg.hold("select pg_advisory_xact_lock(7)");
    let run = env.spawn(&["run"]);
    let server = pg.until_locked();
    pg.psql(&format!("select pg_terminate_backend({server})"));
    run.wait().exits(1).says(&["source s", "connection"]);
    drop(held);
    assert_eq!(env.rows("work").len(), 40_000, "all rows as the last whole reading saw them");
    let run = env.run_json(&[], 0);
    assert!((1..=2).contains(&number(&stage_of(&run, "work")["ran"])));
    assert_eq!(env.rows("work").len(), 40_000);
    assert_eq!(env.rows("work")[39_998]["y"], json!(-79_998));
}

#[test]
fn a_table_of_a_server_is_replaced_only_when_it_is_ours() {
    let mut env = into("{ sql: \"postgresql:///\", table: ratio }");
    let Some(pg) = Postgres::of(&mut env) else { return };
    assert_eq!(wrote(&env), 1);
    assert_eq!(pg.psql("select id, x, y from ratio"), "0|0|0\n1|10|20\n2|20|40");
    assert_eq!(wrote(&env), 0);
    env.write("a.csv", numbers_csv(5));
    assert_eq!(wrote(&env), 1);
    assert_eq!(pg.psql("select count(*), sum(y) from ratio"), "5|200");
    pg.psql("drop table ratio");
    assert_eq!(wrote(&env), 1);
    assert_eq!(pg.psql("select count(*) from ratio"), "5");
    pg.psql("create view over as select * from ratio");
    env.write("a.csv", numbers_csv(6));
    env.run(&["run"]).exits(1).says(&["other objects depend on it", "`mode: upsert` keeps it"]);
    assert_eq!(pg.psql("select count(*) from over"), "5");
    pg.psql("drop view over");
    pg.psql("drop table ratio; create table ratio (mine text); insert into ratio values ('precious')");
    env.run(&["run"]).exits(1).says(&["table public.ratio was not made by bpp-flow", "mode: upsert"]);
    assert_eq!(pg.psql("select * from ratio"), "precious");
    assert_eq!(pg.psql("select count(*) from pg_class where relname like '\\_bpp%'"), "0");
    pg.psql("drop table ratio");
    env.write("a.csv", "id,x\n");
    env.write("pipeline.yaml", env.read("pipeline.yaml").replace("table: ratio", "table: ratio, columns: [id, y]"));
    assert_eq!(wrote(&env), 1);
    assert_eq!(pg.psql("select count(*) from ratio"), "0");
}

#[test]
fn cells_go_to_a_server_and_come_back() {
    let mut env = with(
        "sources:\n  s: { range: { stop: 3 } }\n  back:\n    sql: { url: \"postgresql:///\", query: select * from \
         lab.\"Order by\" }\nstages:\n  ids: { map: s, assign: { id: item.value }, keep: [id] }\n  cells: { map: ids, python: \"f:cells\" }\n  \
         types: { map: back, python: \"f:types\" }\noutputs:\n  cells: { sql: \"postgresql:///\", table: lab.Order by }\n",
    );
    let Some(pg) = Postgres::of(&mut env) else { return };
    env.run(&["run", "--stage", "cells"]).exits(1).says(&["schema \"lab\" does not exist"]);
    pg.psql("create schema lab");
    env.run(&["run", "--stage", "cells"]).exits(0);
    let types = pg.psql("select string_agg(column_name || ' ' || data_type, ', ' order by ordinal_position) from information_schema.columns where table_schema = 'lab'");
    assert_eq!(
        types,
        "id bigint, big numeric, float double precision, odd double precision, text text, yes boolean, bytes bytea, date date, \
         time time without time zone, naive timestamp without time zone, aware timestamp with time zone, span interval, \
         list jsonb, map jsonb, none text, some text"
    );
    env.run(&["run"]).exits(0);
    let (there, back) = (env.rows("cells"), env.rows("types"));
    assert_eq!(there.len(), 3);
    for (there, back) in there.iter().zip(&back) {
        for (name, cell) in there.as_object().expect("a row") {
            assert_eq!(&back[name], cell, "{name}");
        }
    }
    assert_eq!(back[1]["types"]["span"], "timedelta");
}

#[test]
fn upsert_updates_inserts_and_leaves_the_rest() {
    for database in ["postgresql:///", "sqlite:///x.db"] {
        let mut env = into(&format!("{{ sql: \"{database}\", table: lab, mode: upsert }}"));
        let pg = if database.starts_with("postgres") {
            let Some(pg) = Postgres::of(&mut env) else { continue };
            Some(pg)
        } else {
            None
        };
        let sql = |sql: &str| match &pg {
            Some(pg) => pg.psql(sql).replace('|', ", "),
            None => sqlite(&env, sql).replace(['(', ')', '\''], ""),
        };
        // A table of somebody else's, with columns and rows of its own.
        sql("create table lab (id integer primary key, x integer, y integer, note text)");
        sql("insert into lab values (1, 1, 1, 'kept'), (9, 9, 9, 'other')");
        assert_eq!(wrote(&env), 1);
        let all = "select id, x, y, coalesce(note, '-') from lab order by id";
        assert_eq!(sql(all), "0, 0, 0, -\n1, 10, 20, kept\n2, 20, 40, -\n9, 9, 9, other");
        assert_eq!(wrote(&env), 0);
        env.write("a.csv", "id,x\n1,11\n5,50\n");
        assert_eq!(wrote(&env), 1);
        assert_eq!(sql(all), "0, 0, 0, -\n1, 11, 22, kept\n2, 20, 40, -\n5, 50, 100, -\n9, 9, 9, other");
        sql("alter table lab drop column y");
        env.write("a.csv", "id,x\n1,12\n");
        env.run(&["run"]).exits(1).says(&["has no column \"y\"", "alter table", "`columns:`"]);
        assert_eq!(sql("select x from lab where id = 1").replace(',', ""), "11");
        sql("drop table lab");
        sql("create table lab (id integer, x integer, y integer)");
        env.run(&["run"]).exits(1).says(&["create unique index"]);
        sql("drop table lab");
        assert_eq!(wrote(&env), 1, "a table that is not there is made");
        assert_eq!(sql("select id, x, y from lab"), "1, 12, 24");
        env.write("pipeline.yaml", env.read("pipeline.yaml").replace(", key: id", ""));
        env.run(&["run"]).exits(2).says(&["`upsert` needs a key", "the source `s` has no `key`", "mode: replace"]);
    }
}

#[test]
fn a_table_of_sqlite_is_replaced_only_when_it_is_ours() {
    let env = into("{ sql: \"sqlite:///x.db\", table: ratio }");
    assert_eq!(wrote(&env), 1);
    assert_eq!(
        sqlite(&env, "select id, x, y, typeof(y) from ratio"),
        "(0, 0, 0, 'integer')\n(1, 10, 20, 'integer')\n(2, 20, 40, 'integer')"
    );
    assert_eq!(wrote(&env), 0);
    env.write("a.csv", numbers_csv(5));
    assert_eq!(wrote(&env), 1);
    assert_eq!(sqlite(&env, "select count(*), sum(y) from ratio"), "(5, 200)");
    sqlite(&env, "drop table ratio; create table Ratio (mine text); insert into ratio values ('precious')");
    env.run(&["run"]).exits(1).says(&["was not made by bpp-flow"]);
    assert_eq!(sqlite(&env, "select * from ratio"), "('precious',)");
    sqlite(&env, "drop table ratio; create view ratio as select 1 as one");
    env.run(&["run"]).exits(1).says(&["was not made by bpp-flow"]);
    std::fs::remove_file(env.path("x.db")).expect("a file");
    assert_eq!(wrote(&env), 1);
}

#[test]
fn cells_go_to_sqlite_and_come_back() {
    let env = with(
        "sources:\n  s: { range: { stop: 2 } }\nstages:\n  ids: { map: s, assign: { id: item.value }, keep: [id] }\n  \
         cells: { map: ids, python: \"f:cells\" }\noutputs:\n  cells: { sql: \"sqlite:///x.db\", table: \"a \\\"b\\\" é\" }\n",
    );
    env.write("pipeline.yaml", env.read("pipeline.yaml").replace("a \\\"b\\\" é", "\\\"a \\\"\\\"b. é\\\""));
    env.run(&["run"]).exits(0);
    assert_eq!(
        sqlite(&env, "select * from \"a \"\"b. é\" where id = 1"),
        r#"(1, '1000000000000000000000000000001', 0.3333333333333333, inf, 'tab\t back\\ line\n é\'"', 0, b'\x00\xff\x01', '2026-01-31', '12:00:00.500000', '2026-01-31T12:00:00.500000', '2026-01-31T12:00:00.500000+00:00', 108000.000001, '[1,null,{"a":"b\\\\c"}]', '{"k":[1]}', None, None)"#
    );
}

#[test]
fn cells_that_a_database_cannot_hold_are_named() {
    let bad = |assign: &str, database: &str| {
        let env = with(&format!(
            "sources:\n  s: {{ range: {{ stop: 3 }} }}\nstages:\n  bad: {{ map: s, python: \"f:bad\" }}\noutputs:\n  \
             bad: {{ sql: \"{database}\", table: bad }}\n"
        ));
        env.write("f.py", format!("def bad(row):\n    return {{}} if row['value'] < 2 else {assign}\n"));
        env
    };
    let nan = "{'n': float('nan')}";
    bad(nan, "sqlite:///x.db").run(&["run"]).exits(1).says(&["column \"n\" holds NaN", "row 2"]);
    let mixed = bad("{'value': 'x'}", "sqlite:///x.db");
    mixed.run(&["run"]).exits(1).says(&["column \"value\" holds int in row 0 and str in row 2"]);
    bad("{'VALUE': 1}", "sqlite:///x.db").run(&["run"]).exits(1).says(&["but for the case of its letters"]);
    for (assign, told) in [
        ("{'t': 'a\\0b'}", "column \"t\" holds text with a NUL character"),
        ("{'l': [float('inf')]}", "column \"l\" holds NaN or an infinity within a list"),
        ("{'l' * 64: 1}", "a name of 64 bytes"),
    ] {
        let mut env = bad(assign, "postgresql:///");
        let Some(pg) = Postgres::of(&mut env) else { return };
        env.run(&["run"]).exits(1).says(&[told]);
        assert_eq!(pg.psql("select count(*) from pg_class where relname in ('bad') or relname like '\\_bpp%'"), "0");
    }
}

#[test]
fn cells_take_the_types_of_a_table_that_is_there() {
    let mut env = with(
        "sources:\n  s: { range: { stop: 2 }, key: value }\nstages:\n  ids: { map: s, assign: { id: item.value } }\n  \
         cells: { map: ids, python: \"f:cells\" }\noutputs:\n  cells: { sql: \"postgresql:///\", table: t, mode: upsert, \
         columns: [value, id, date, text, map, yes, some] }\n",
    );
    let Some(pg) = Postgres::of(&mut env) else { return };
    pg.psql("create table t (value smallint unique, id numeric(5, 1), date text, text varchar(20), map json, yes text, \"some\" integer)");
    env.run(&["run"]).exits(1).says(&["column \"some\": invalid input syntax for type integer: \"x\""]);
    pg.psql("alter table t alter column \"some\" type text");
    env.run(&["run"]).exits(0);
    assert_eq!(
        pg.psql("select value, id, date, map, yes, \"some\" from t where value = 0"),
        "0|0.0|2026-01-31|{\"k\":[0]}|true|x"
    );
}

#[test]
fn failed_rows_go_into_a_table_on_request() {
    let env = into("{ sql: \"sqlite:///x.db\", table: t, failed: include }");
    env.write("a.csv", "id,x\n1,2\n2,\n");
    env.run(&["run"]).exits(100);
    assert_eq!(
        sqlite(&env, "select id, y, status, substr(error, 1, 9) from t order by id"),
        "(1, 4, 'done', None)\n(2, None, 'failed', 'exception')"
    );
}

#[test]
fn a_kill_in_the_middle_leaves_the_table_whole() {
    let mut env = into("{ sql: \"postgresql:///\", table: ratio }");
    let Some(pg) = Postgres::of(&mut env) else { return };
    env.run(&["run"]).exits(0);
    env.write("a.csv", numbers_csv(5));
    let held = pg.hold("lock table ratio in access share mode");
    let run = env.spawn(&["run"]);
    pg.until_locked();
    run.kill9();
    drop(held);
    let gone = || {
        pg.psql("select count(*) from pg_stat_activity where application_name = 'bpp-flow' and datname = current_database()") == "0"
    };
    until("the server has noticed", gone);
    assert_eq!(pg.psql("select count(*) from ratio"), "3");
    assert_eq!(wrote(&env), 1);
    assert_eq!(pg.psql("select count(*) from ratio"), "5");
}

#[test]
fn an_sqlite_output_of_a_template_stays_in_the_folder() {
    let env = into("{ sql: \"sqlite:///{{ params.place }}/x.db\", table: t }");
    env.write("pipeline.yaml", format!("params: {{ place: ../out }}\n{}", env.read("pipeline.yaml")));
    env.run(&["run"]).exits(2).says(&["lead out of the workflow's folder", "allow_outside"]);
    env.run(&["run", "--param", "place=in"]).exits(0);
    assert!(env.path("in/x.db").exists());
}
