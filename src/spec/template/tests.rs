mod shell;

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::data::TimeKind;

fn row() -> Table {
    Table::from_rows([vec![
        ("area".to_string(), Value::Int(6)),
        ("name".to_string(), Value::Text("a b".into())),
        ("big".to_string(), Value::BigInt("1".repeat(60))),
        ("when".to_string(), Value::Time(TimeKind::Date, "2024-02-03".into())),
        ("path".to_string(), Value::File { path: "d/x.csv".into(), digest: [7; 32], size: None }),
        ("bytes".to_string(), Value::Bytes(vec![0, 255])),
        ("nan".to_string(), Value::Float(f64::NAN)),
        ("none".to_string(), Value::Null),
        ("list".to_string(), Value::List(vec![Value::Int(1), Value::Map(vec![("k".into(), Value::Float(1.0))])])),
        ("took".to_string(), Value::Time(TimeKind::Duration, "1.5".into())),
    ]])
}

fn with_scope<T>(run: impl FnOnce(&Scope) -> T) -> T {
    let table = row();
    let params = [("n".to_string(), Value::Int(3)), ("names".to_string(), Value::List(vec![Value::Text("x".into())]))];
    let env = |name: &str| (name == "HOME").then(|| "/root".to_string());
    run(&Scope {
        files: &[],
        params: &params,
        env: Some(&env),
        item: Some((&table, 0)),
        key: Some("a/b"),
        index: Some(4),
        group: Some((&table, 0)),
        run: Some(("r1", "test")),
    })
}

fn eval(source: &str) -> Result<Value, String> {
    with_scope(|scope| Expression::parse(source).map_err(|e| e.message)?.eval(scope).map_err(|e| e.0))
}

fn text(source: &str) -> Result<String, String> {
    with_scope(|scope| Template::parse(source, false).map_err(|e| e.message)?.render_text(scope).map_err(|e| e.0))
}

#[test]
fn no_expression_exhausts_the_stack() {
    assert_eq!(eval(&format!("0{}", " + 1".repeat(240))), Ok(Value::Int(240)));
    for (head, part) in
        [("0", " + 1"), ("0", "|abs"), ("item", ".a"), ("item", "[0]"), ("", "1 if 1 else "), ("", "not ")]
    {
        let deep = format!("{head}{}{}", part.repeat(20_000), if head.is_empty() { "1" } else { "" });
        let message = "an expression of more than 250 operators and brackets";
        assert_eq!(eval(&deep), Err(message.into()), "{part}");
        assert_eq!(text(&format!("{{{{ {deep} }}}}")), Err(message.into()), "{part}");
    }
    assert_eq!(text(&"{{ 1 + 1 }}".repeat(2000)), Ok("2".repeat(2000)), "each expression counts for itself");
}

#[test]
fn filters_make_no_more_than_range_does() {
    for filter in ["batch(100001)", "slice(100001)", "indent(100001)", "indent(width=100001)"] {
        let error = eval(&format!("'a' | {filter} | list")).expect_err(filter);
        assert!(error.contains("100001 is more than 100000"), "{error}");
    }
    assert_eq!(eval("'a\nb' | indent(width=2)"), Ok(Value::Text("a\n  b".into())));
    assert_eq!(eval("[1, 2, 3] | batch(2, 0) | list | length"), Ok(Value::Int(2)));
    assert_eq!(eval("[1, 2, 3] | slice(2) | list | length"), Ok(Value::Int(2)));
}

fn is_shared<T: Send + Sync + Clone>() {}

#[test]
fn can_be_shared() {
    is_shared::<Template>();
    is_shared::<Expression>();
    is_shared::<TemplateTree>();
}

#[test]
fn what_is_named_comes_back_exactly() {
    let table = row();
    for name in table.names().iter() {
        let value = table.column(name).expect("there").value(0);
        assert_eq!(eval(&format!("item.{name}")), Ok(value.clone()), "{name}");
        assert_eq!(eval(&format!("item['{name}']")), Ok(value.clone()), "{name}");
        assert_eq!(eval(&format!("[item.{name}][0] if false else item.{name}")), Ok(value.clone()), "{name}");
        assert_eq!(eval(&format!("{{'k': item.{name}}}")), Ok(Value::Map(vec![("k".into(), value.clone())])), "{name}");
        let template = Template::parse(&format!("{{{{ item.{name} }}}}"), false).expect("valid");
        assert_eq!(with_scope(|s| template.render(s)), Ok(value));
    }
    assert_eq!(eval("item"), Ok(Value::Map(table.row(0))));
    assert_eq!(eval("item.list[1].k"), Ok(Value::Float(1.0)));
    assert_eq!(eval("item.list[-2]"), Ok(Value::Int(1)));
}

#[test]
fn expressions() {
    for (source, expected) in [
        ("item.area * 2 + params.n", Value::Int(15)),
        ("item.area / 4", Value::Float(1.5)),
        ("9223372036854775807 + item.area", Value::BigInt("9223372036854775813".into())),
        ("item.name | upper", Value::Text("A B".into())),
        ("item.path | replace('.csv', '.txt')", Value::Text("d/x.txt".into())),
        ("item.path == 'd/x.csv'", Value::Bool(true)),
        ("item.when < '2024-03-01'", Value::Bool(true)),
        ("item.took > 1", Value::Bool(true)),
        ("item.list | length", Value::Int(2)),
        ("item.nope | default(5)", Value::Int(5)),
        ("item.nope is defined", Value::Bool(false)),
        ("item.none is none", Value::Bool(true)),
        ("item.area > 5 and item.name != 'x'", Value::Bool(true)),
        ("key ~ '-' ~ index", Value::Text("a%2Fb-4".into())),
        ("run.id ~ env.HOME", Value::Text("r1/root".into())),
        ("group.area", Value::Int(6)),
        ("range(3) | list", Value::List(vec![Value::Int(0), Value::Int(1), Value::Int(2)])),
        ("[1, item.area] | sum", Value::Int(7)),
        ("{'a': 1} | tojson", Value::Text("{\"a\":1}".into())),
        ("'<b>' | tojson", Value::Text("\"<b>\"".into())),
        ("item.nan", Value::Float(f64::NAN)),
        ("-item.area", Value::Int(-6)),
        ("'it' in item.name", Value::Bool(false)),
    ] {
        assert_eq!(eval(source), Ok(expected), "{source}");
    }
}

#[test]
fn undefined_names_are_named() {
    for (source, expected) in [
        ("item.aera", "`item.aera` is not defined; columns: area, name"),
        ("item.aera * 2", "`item.aera` is not defined; columns: area, name"),
        ("params.m", "`params.m` is not defined; parameters: n, names"),
        ("env.NOPE", "the environment variable NOPE is not set"),
        ("item.list[1].nope", "`item.list[1].nope` is not defined: the dict has k"),
        ("item.area.x", "a value of type int has no such part"),
        ("[item.area, item.aera]", "`item.aera` is not defined"),
        ("(item.list | first).x", "not defined"),
        ("item.name * item.name", "in `item.name * item.name`"),
        ("item.big + 1", "too large to compute with"),
        ("item.area / 0", "unable to calculate 6 / 0"),
        ("1 if item.none", "not defined"),
    ] {
        let error = eval(source).expect_err(source);
        assert!(error.contains(expected), "{source}: {error}");
    }
}

#[test]
fn what_can_never_work_is_told_when_parsed() {
    for (source, expected, help) in [
        ("itme.x", "`itme` is not defined", "did you mean `item`?"),
        ("area", "`area` is not defined", "a column is `item.area`"),
        ("item.x | uper", "there is no filter `uper`", "did you mean `upper`?"),
        ("item.x is nmber", "there is no test `nmber`", "did you mean `number`?"),
        ("rnge(3)", "there is no function `rnge`", "did you mean `range`?"),
        ("item.x.upper()", "values have no methods such as `.upper()`", "value | upper"),
        ("env", "`env` needs a name", "env.HOME"),
        ("run.nme", "`run.nme` is not defined", "run.name"),
        ("files", "`files` needs a name", ""),
        ("item.x | raw", "`raw` belongs in `shell` and in queries only", "drop"),
        ("item.x +", "not a valid expression", ""),
        ("{{ item.x }}", "an expression stands without {{ }}", "drop"),
        ("", "not a valid expression", ""),
    ] {
        let error = Expression::parse(source).expect_err(source);
        assert!(error.message.contains(expected), "{source}: {error:?}");
        assert!(error.help.as_deref().unwrap_or("").contains(help), "{source}: {error:?}");
    }
}

#[test]
fn templates_print() {
    for (source, expected) in [
        ("{{ item.area }}px", "6px"),
        ("{{ item.none }}|{{ true }}|{{ 1.0 }}|{{ item.nan }}", "|true|1.0|nan"),
        ("{{ item.path }}.out", "d/x.csv.out"),
        ("{{ item.big }}!", &format!("{}!", "1".repeat(60))),
        ("a\n", "a\n"),
        ("${#x} {%s} {# no comment #} {{ '{{' }}", "${#x} {%s} {# no comment #} {{"),
        ("{{ {'a': {'b': 1}}.a.b }}-", "1-"),
        ("{{- ' x ' -}}", " x "),
        ("", ""),
    ] {
        assert_eq!(text(source).as_deref(), Ok(expected), "{source}");
    }
    for (source, expected) in [
        ("x {{ item.a", "never closed"),
        ("{% if x %}a{% endif %}", "no statements such as {% if %}"),
        ("{{ }}", "not a valid expression"),
        ("{{ item.bytes }}x", "not UTF-8"),
    ] {
        let error = text(source).expect_err(source);
        assert!(error.contains(expected), "{source}: {error}");
    }
}

#[test]
fn a_template_knows_its_names_and_their_places() {
    let template = Template::parse("ä {{ item.x + item['y'] }} {{ params.p ~ key }}", false).expect("valid");
    let names = template.names();
    assert_eq!(names.columns, ["x", "y"]);
    assert_eq!(names.params, ["p"]);
    assert!(names.key && names.per_item() && !names.whole_item);
    let places: Vec<&str> = template.references().iter().map(|r| &template.source()[r.at.clone()]).collect();
    assert_eq!(places, ["item.x", "item['y']", "params.p", "key"]);
    assert!(Expression::parse("item[params.p]").expect("valid").names().whole_item);
    let error = Template::parse("ä {{ item.x | uper }}", false).expect_err("wrong");
    assert_eq!(&"ä {{ item.x | uper }}"[error.at], "uper");
}

#[test]
fn words_of_a_command_line() {
    let words = |source: &str| {
        with_scope(|scope| Template::parse(source, false).expect("valid").render_words(scope).expect("renders"))
    };
    assert_eq!(words("{{ params.names + ['y z'] }}"), ["x", "y z"]);
    assert_eq!(words("-n{{ params.n }}"), ["-n3"]);
    assert!(words("{{ [] }}").is_empty());
}

#[test]
fn whole_tables() {
    let table = Table::from_rows((0..5).map(|i| {
        let mut row = vec![("a".to_string(), Value::Int(i))];
        if i != 3 {
            row.push(("b".to_string(), Value::Float(i as f64 / 2.0)));
        }
        row
    }));
    let rows = Rows { table: &table, key: &|row| format!("k{row}"), index: &|row| row as u64 + 10 };
    let scope = Scope::default();
    let (column, failed) = Expression::parse("item.a + item.b").expect("valid").eval_table(&rows, &scope);
    assert_eq!(column.value(2), Value::Float(3.0));
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].0, 3);
    assert!(failed[0].1.0.contains("`item.b` is not defined"), "{failed:?}");
    let (column, _) = Expression::parse("key ~ index").expect("valid").eval_table(&rows, &scope);
    assert_eq!(column.value(1), Value::Text("k111".into()));
    let kept = Expression::parse("item.a % 2 == 0").expect("valid").test_table(&rows, &scope);
    assert_eq!(kept, [Ok(true), Ok(false), Ok(true), Ok(false), Ok(true)]);
}

#[test]
fn keys_in_file_names() {
    for (key, expected) in [
        ("a", "a"),
        ("a/b", "a%2Fb"),
        ("..", "%2E."),
        (".x", "%2Ex"),
        ("a\0b", "a%00b"),
        ("100%", "100%25"),
        ("", "%"),
        ("-n", "%2Dn"),
        ("ä ö", "ä ö"),
    ] {
        assert_eq!(file_safe(key), expected);
    }
    let long = file_safe(&"x".repeat(5000));
    assert!(long.len() <= 200);
    assert_ne!(long, file_safe(&"x".repeat(5001)));
}

proptest! {
    #[test]
    fn parsing_never_panics(source in "\\PC{0,40}") {
        let _ = Template::parse(&source, false);
        let _ = Template::parse(&source, true);
        let _ = Expression::parse(&source);
    }

    #[test]
    fn parsing_what_looks_like_a_template_never_panics(
        source in "(\\{\\{|\\}\\}|item|params|\\.|\\||\\(|\\)|\\[|\\]|'|\"|x|1| |if|else|is|not|~|\\{|\\}|:|,|-|\\*\\*|ä|\n){0,25}"
    ) {
        if let Err(error) = Template::parse(&source, true) {
            prop_assert!(source.get(error.at).is_some());
        }
        let _ = Expression::parse(&source);
    }

    #[test]
    fn keys_give_different_safe_names(a in "\\PC{0,30}", b in "\\PC{0,30}") {
        let (x, y) = (file_safe(&a), file_safe(&b));
        prop_assert_eq!(a == b, x == y);
        prop_assert!(!x.contains('/') && !x.starts_with('.') && !x.is_empty());
    }
}

/// Not a test of correctness: prints what a row costs (`cargo test --release -- --ignored --nocapture rows_are_cheap`).
#[test]
#[ignore = "a measurement"]
fn rows_are_cheap() {
    let rows = 1_000_000;
    let table = Table::new(
        Arc::from([Arc::from("area"), Arc::from("perimeter")]),
        vec![
            Column::from_values((0..rows).map(|i| Value::Int(i as i64))),
            Column::from_values((0..rows).map(|i| Value::Float(i as f64 + 0.5))),
        ],
        rows,
    );
    let view = Rows { table: &table, key: &|_| String::new(), index: &|row| row as u64 };
    for source in ["item.area / item.perimeter", "item.area", "item.area * params.n + 1"] {
        let params = [("n".to_string(), Value::Int(3))];
        let start = std::time::Instant::now();
        let expression = Expression::parse(source).expect("valid");
        let (column, _) = expression.eval_table(&view, &Scope { params: &params, ..Scope::default() });
        let nanos = start.elapsed().as_nanos() / column.len() as u128;
        eprintln!("{source}: {nanos} ns a row");
    }
}
