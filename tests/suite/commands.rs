//! `command:` and `shell:`: argv, standard input and output, exit codes, quoting.

use serde_json::{Value as Json, json};

use crate::env::*;

fn one_stage(source: &str, stage: &str) -> TestEnv {
    TestEnv::with(&format!("sources:\n  s: {source}\nstages:\n  work: {{ {stage} }}\n"), "")
}

/// Values that a careless shell would trip over.
fn hostile() -> Vec<String> {
    [
        "'; touch pwned; '",
        "\"; touch pwned; \"",
        "$(touch pwned)",
        "`touch pwned`",
        "${IFS}",
        "a b  c",
        "*",
        "~",
        "-n",
        "--help",
        "\\",
        "\\n",
        "'",
        "''",
        "\"",
        "#",
        "!",
        "&& touch pwned",
        "| touch pwned",
        "> pwned",
        "line\nbreak",
        "tab\there",
        "\n\nleading",
        "ä☃𝄞",
        "{{ item.v }}",
        "%s%n",
        "",
        " ",
        "[a-z]",
        "a=b",
        "\u{1b}[31m",
        "\r",
    ]
    .map(str::to_string)
    .to_vec()
}

fn hostile_jsonl() -> String {
    hostile().iter().map(|v| format!("{}\n", json!({"v": v}))).collect()
}

#[test]
fn every_list_element_is_one_argument() {
    let env = one_stage(
        "{ jsonl: a.jsonl }",
        r#"map: s, command: [python3, -c, "import sys, json; print(json.dumps(sys.argv[1:]))", "{{ item.v }}", "pre-{{ item.v }}"]"#,
    );
    env.write("a.jsonl", hostile_jsonl());
    env.run(&["run"]).exits(0);
    for (value, got) in hostile().iter().zip(env.column("work", "stdout")) {
        let argv: Json = serde_json::from_str(&text(&got)).expect("argv");
        assert_eq!(argv, json!([value, format!("pre-{value}")]));
    }
    assert!(!env.path("pwned").exists());
}

#[test]
fn a_list_gives_several_arguments() {
    let env = one_stage(
        "{ jsonl: a.jsonl }",
        r#"map: s, command: [python3, -c, "import sys, json; print(json.dumps(sys.argv[1:]))", first, "{{ item.l }}", last]"#,
    );
    env.write("a.jsonl", "{\"l\": [\"a b\", 2, 1.5]}\n{\"l\": []}\n{\"l\": \"one\"}\n");
    env.run(&["run"]).exits(0);
    let got: Vec<Json> =
        env.column("work", "stdout").iter().map(|t| serde_json::from_str(&text(t)).expect("json")).collect();
    assert_eq!(
        got,
        [json!(["first", "a b", "2", "1.5", "last"]), json!(["first", "last"]), json!(["first", "one", "last"])]
    );
}

#[test]
fn shell_values_are_quoted() {
    let env = one_stage("{ jsonl: a.jsonl }", r#"map: s, shell: "printf '<%s>' {{ item.v }}""#);
    env.write("a.jsonl", hostile_jsonl());
    env.run(&["run"]).exits(0);
    for (value, got) in hostile().iter().zip(env.column("work", "stdout")) {
        assert_eq!(text(&got), format!("<{value}>"));
    }
    assert!(!env.path("pwned").exists());
}

#[test]
fn filters_do_not_unquote() {
    for filter in ["tojson", "safe", "upper", "join(' ')"] {
        let env =
            one_stage("{ jsonl: a.jsonl }", &format!(r#"map: s, shell: "printf '<%s>' {{{{ item.v | {filter} }}}}""#));
        env.write("a.jsonl", "{\"v\": \"; touch PWNED; touch pwned\"}\n{\"v\": \"'$(touch pwned)'\"}\n");
        let run = env.run(&["run"]);
        assert!(matches!(run.code, Some(0 | 2)), "{}", run.all());
        assert!(!env.path("pwned").exists() && !env.path("PWNED").exists(), "{filter}");
    }
}

#[test]
fn raw_is_the_way_round_quoting() {
    let env =
        one_stage("{ values: [\"a  b\"] }", r#"map: s, shell: "echo {{ item.value | raw }}; echo {{ item.value }}""#);
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("work", "stdout"), [json!("a b\na  b")]);
}

#[test]
fn a_template_inside_quotes_is_an_error() {
    for shell in [
        "echo '{{ item.value }}'",
        "echo \"{{ item.value }}\"",
        "echo `ls {{ item.value }}`",
        "echo $(( {{ item.value }} + 1 ))",
        "cat <<END\n{{ item.value }}\nEND\n",
    ] {
        let env = TestEnv::with("", "");
        let block: String = shell.lines().map(|line| format!("      {line}\n")).collect();
        env.write(
            "pipeline.yaml",
            format!("sources: {{ s: {{ values: [a] }} }}\nstages:\n  work:\n    map: s\n    shell: |\n{block}"),
        );
        env.run(&["check"]).exits(2).says(&["pipeline.yaml:"]);
        env.run(&["run"]).exits(2);
    }
}

#[test]
fn the_environment_is_the_way_out() {
    let env = one_stage("{ jsonl: a.jsonl }", r#"map: s, shell: "printf '<%s>' \"$F\"", env: { F: "{{ item.v }}" }"#);
    env.write("a.jsonl", hostile_jsonl());
    env.run(&["run"]).exits(0);
    for (value, got) in hostile().iter().zip(env.column("work", "stdout")) {
        assert_eq!(text(&got), format!("<{value}>"));
    }
    assert!(!env.path("pwned").exists());
}

#[test]
fn a_nul_fails_its_item() {
    let env = one_stage("{ jsonl: a.jsonl }", r#"map: s, command: [echo, "{{ item.v }}"]"#);
    env.write("a.jsonl", "{\"v\": \"a\\u0000b\"}\n{\"v\": \"good\"}\n");
    env.run(&["run"]).exits(100);
    assert_eq!(env.column("work", "stdout"), [json!("good")]);
    assert_eq!(env.failures_by_kind().values().sum::<u64>(), 1);
}

#[test]
fn shell_is_strict_bash() {
    let env = one_stage(
        "{ values: [pipe, unset, middle, bash] }",
        r#"map: s, shell: "case {{ item.value }} in pipe) false | true;; unset) echo $NO_SUCH;; middle) false; echo on;; bash) [[ a == a ]] && echo yes;; esac""#,
    );
    env.run(&["run"]).exits(100);
    assert_eq!(env.rows("work"), [json!({"value": "bash", "stdout": "yes"})]);
    assert_eq!(env.failures_by_kind(), [("exit".to_string(), 3)].into());
}

#[test]
fn exit_codes_fail_and_keep_stderr() {
    let env = one_stage(
        "{ range: {start: 0, stop: 4} }",
        r#"map: s, command: [sh, -c, "echo out $0; echo complaint $0 >&2; exit $0", "{{ item.value }}"], ok_codes: [0, 1]"#,
    );
    env.run(&["run"]).exits(100);
    assert_eq!(ints(&env.column("work", "value")), [0, 1]);
    let failed = env.failed_rows("work");
    assert_eq!(failed.len(), 2);
    assert_eq!(failed[0]["value"], 2);
    assert_eq!(failed[0]["status"], "failed");
    assert!(text(&failed[0]["error"]).contains('2'), "{}", failed[0]);
    assert_eq!(env.failures_by_kind(), [("exit".to_string(), 2)].into());
    env.run(&["errors", "--item", "3"]).exits(0).says(&["complaint 3"]);
    assert_eq!(env.errors().len(), 2, "exit codes are different signatures");
}

#[test]
fn zero_is_bad_where_it_is_not_ok() {
    let env = one_stage("{ values: [a] }", "map: s, command: [\"true\"], ok_codes: [1]");
    env.run(&["run"]).exits(100);
}

#[test]
fn a_signal_is_a_crash() {
    let env = one_stage("{ values: [9, 11, 15] }", r#"map: s, command: [sh, -c, "kill -$0 $$", "{{ item.value }}"]"#);
    env.run(&["run"]).exits(100);
    assert_eq!(env.failures_by_kind(), [("crash".to_string(), 3)].into());
}

#[test]
fn standard_input_is_a_template() {
    let env = one_stage("{ jsonl: a.jsonl }", r#"map: s, command: [cat], stdin: "<{{ item.v }}>""#);
    env.write("a.jsonl", hostile_jsonl());
    env.run(&["run"]).exits(0);
    for (value, got) in hostile().iter().zip(env.column("work", "stdout")) {
        assert_eq!(text(&got), format!("<{value}>"));
    }
}

#[test]
fn without_stdin_there_is_nothing_to_read() {
    let env = one_stage("{ lines: stdin }", r#"map: s, shell: "cat; echo {{ item.line }}""#);
    env.run_with_input(&["run"], "a\nb\nc\n").exits(0);
    assert_eq!(env.column("work", "stdout"), [json!("a"), json!("b"), json!("c")]);
}

#[test]
fn much_input_and_much_output_at_once() {
    let env = one_stage("{ jsonl: a.jsonl }", r#"map: s, command: [cat], stdin: "{{ item.v }}", use: [v]"#);
    let long = "0123456789".repeat(300_000);
    env.write("a.jsonl", format!("{{\"v\": \"{long}\"}}\n"));
    env.run(&["run"]).exits(0);
    assert_eq!(text(&env.column("work", "stdout")[0]), long);
}

#[test]
fn a_command_need_not_read_its_input() {
    let env = one_stage("{ jsonl: a.jsonl }", r#"map: s, command: ["true"], stdin: "{{ item.v }}""#);
    env.write("a.jsonl", format!("{{\"v\": \"{}\"}}\n", "x".repeat(1_000_000)));
    env.run(&["run"]).exits(0);
}

#[test]
fn standard_output_as_text_json_or_nothing() {
    let env = TestEnv::with(
        r#"
sources: { n: { range: {start: 0, stop: 2} } }
stages:
  text: { map: n, command: [printf, "a\n\nb\n\n"] }
  json: { map: n, command: [echo, '{"a": 1, "b": [1, {"c": 2.5}], "value": "new", "big": 123456789012345678901234567890}'], stdout: json }
  ignore: { map: n, command: [echo, noise], stdout: ignore }
"#,
        "",
    );
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("text", "stdout")[0], json!("a\n\nb\n"), "one trailing newline is cut");
    let row = &env.rows("json")[0];
    assert_eq!(row["value"], "new");
    assert_eq!(row["b"], json!([1, {"c": 2.5}]));
    assert_eq!(row["big"].to_string(), "123456789012345678901234567890");
    assert_eq!(env.rows("ignore"), [json!({"value": 0}), json!({"value": 1})]);
}

#[test]
fn json_lines_give_rows() {
    let env = one_stage(
        "{ range: {start: 0, stop: 4} }",
        r#"flat_map: s, shell: "for i in $(seq {{ item.value }}); do echo \"{\\\"i\\\": $i}\"; done", stdout: jsonl"#,
    );
    env.run(&["run"]).exits(0);
    let pairs: Vec<_> = env.rows("work").iter().map(|r| (r["value"].clone(), r["i"].clone())).collect();
    let expected = [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3)].map(|(v, i)| (json!(v), json!(i)));
    assert_eq!(pairs, expected);
}

#[test]
fn bad_json_fails_its_item() {
    let env = one_stage(
        "{ values: ['{\"a\": 1}', 'no', '[1]', ''] }",
        r#"map: s, command: [echo, "{{ item.value }}"], stdout: json"#,
    );
    env.run(&["run"]).exits(100);
    assert_eq!(ints(&env.column("work", "a")), [1]);
    assert_eq!(env.failures_by_kind(), [("output".to_string(), 3)].into());
}

#[test]
fn output_that_is_no_text_is_never_silently_changed() {
    let env = one_stage("{ values: [a] }", r#"map: s, command: [printf, '\377\376']"#);
    let run = env.run(&["run"]);
    assert_eq!(run.code, Some(100), "{}", run.all());
    assert_eq!(env.failures_by_kind(), [("output".to_string(), 1)].into());
}

#[test]
fn a_reduce_command_reads_json_lines() {
    let env = one_stage(
        "{ values: [{g: a, v: 1}, {g: b, v: 2}, {g: a, v: 3}] }",
        r#"reduce: s, group_by: [g], command: [python3, -c, "import sys, json; print(sum(json.loads(l)['v'] for l in sys.stdin))"]"#,
    );
    env.run(&["run"]).exits(0);
    let mut rows = env.rows("work");
    rows.sort_by_key(|row| text(&row["g"]));
    assert_eq!(rows, [json!({"g": "a", "stdout": "4"}), json!({"g": "b", "stdout": "2"})]);
}

#[test]
fn a_large_group_streams_to_a_command() {
    let env = one_stage("{ range: {start: 0, stop: 60000} }", "reduce: s, command: [wc, -l]");
    env.run(&["run"]).exits(0);
    assert_eq!(text(&env.column("work", "stdout")[0]).trim(), "60000");
    let env = one_stage("{ range: {start: 0, stop: 60000} }", "reduce: s, command: [head, -n1]");
    env.run(&["run"]).exits(0);
    let first: Json = serde_json::from_str(&text(&env.column("work", "stdout")[0])).expect("json");
    assert_eq!(first, json!({"value": 0}));
}

#[test]
fn a_child_left_behind_does_not_hold_the_item() {
    let env = one_stage(
        "{ range: {start: 0, stop: 3} }",
        r#"map: s, shell: "sleep 600 & (setsid sleep 600 &) ; echo {{ item.value }}""#,
    );
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("work", "stdout"), [json!("0"), json!("1"), json!("2")]);
    env.assert_nothing_runs();
}

#[test]
fn many_commands() {
    let env =
        one_stage("{ range: {start: 0, stop: 500} }", r#"map: s, command: [echo, "{{ item.value }}"], workers: 8"#);
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("work", "stdout"), (0..500).map(|i| json!(i.to_string())).collect::<Vec<_>>());
}

#[test]
fn a_commands_folder_may_depend_on_the_item() {
    let env = one_stage("{ values: [one, two] }", r#"map: s, command: [cat, name.txt], cwd: "sub/{{ item.value }}""#);
    env.write("sub/one/name.txt", "eins");
    env.write("sub/two/name.txt", "zwei");
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("work", "stdout"), [json!("eins"), json!("zwei")]);
}

#[test]
fn templates_see_key_index_and_run() {
    let env = TestEnv::with(
        r#"
name: named
sources: { s: { csv: a.csv, key: id } }
stages:
  work:
    map: s
    command: [sh, -c, 'echo "$0 $1 $RUN"', "{{ key }}", "{{ index }}"]
    env: { RUN: "{{ run.name }}" }
"#,
        "",
    );
    env.write("a.csv", "id\nx\ny\n");
    env.run(&["run"]).exits(0);
    let lines = env.column("work", "stdout").iter().map(text).collect::<Vec<_>>();
    assert!(lines[0].starts_with("x 0 ") && lines[1].starts_with("y 1 "), "{lines:?}");
    assert!(lines[0].len() > 4, "{lines:?}");
}
