use super::*;
use crate::spec::model::*;

fn load_with(text: &str, params: &[(&str, &str)]) -> Result<Workflow, Vec<Diagnostic>> {
    let params: Vec<(String, String)> = params.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let env = |name: &str| (name == "HOME").then(|| "/root".to_string());
    let options =
        LoadOptions { stem: "pipeline", dir: "/w".into(), params: &params, profiles: &[], backend: None, env: &env };
    load(&Sources::new("p.yaml", text), &options)
}

fn good(text: &str) -> Workflow {
    load_with(text, &[])
        .unwrap_or_else(|m| panic!("{}", crate::diagnostic::render(&Sources::new("p.yaml", text), &m, false)))
}

const WHOLE: &str = r#"
# yaml-language-server: $schema=schemas/workflow.schema.json
name: cell-features
description: Shape features of every cell
params:
  min_size: 3
  out: "{{ env.HOME }}/out"
  batch: 100
x-common: &common {timeout: 30s}
sources:
  cells:
    csv: data/cells.csv
    key: cell_id
    schema: {area: float}
  more:
    tsv: ["data/*.tsv", "{{ params.out }}/x.tsv.gz"]
    header: [a, b]
    delimiter: "\t"
  scans: {glob: "data/{patient}/{scan}.{swc,txt}"}
  stdin: {lines: "-"}
  file: {lines: names.txt}
  some: {values: [1, "{{ params.min_size }}", {value: 3, other: x}]}
  steps: {range: {start: 1, stop: 2.5, step: 0.5}}
defaults:
  backend: processes
  retries: 1
  env: {A: "1", B: default}
  init: {python: "features:prepare", args: {n: "{{ params.min_size }}"}}
stages:
  measure:
    <<: *common
    map: [cells, more]
    python: features:measure
    args: {min_size: "{{ params.min_size }}", deep: [{k: "{{ item.x }}"}], plain: 1.50}
    batch_size: "{{ params.batch }}"
    chunk_size: auto
    env: {B: "{{ key }}", C: 1.10}
    retries: {max: 2, backoff: 100ms, factor: 1, kinds: [timeout, exit]}
    max_failures: 5%
    on_error: stop
    deps: ["*.py", "{{ item.path }}"]
    version: 1.10
  ratio:
    map: measure
    assign: {ratio: "item.area / item.perimeter", one: 1}
    keep: [ratio, region]
  big:
    filter: ratio
    where: item.ratio > params.min_size
  sum:
    reduce: big
    python: features:summary
    group_by: [region, "c"]
    needs: all
    ordered: false
    args: {r: "{{ group.region }}"}
  copy:
    flat_map: scans
    shell: |
      cp {{ item.path }} {{ params.out }}
      echo done
    stdout: jsonl
    ok_codes: [0, 1]
    after: sum
    cwd: "work/{{ run.id }}"
  chunks:
    map: steps
    python: m:f
    call: chunk
    chunk_format: arrow
  once:
    command: [touch, "{{ params.out }}/{{ env.HOME }}", 007, true]
    stdout: ignore
    after: [copy, sum]
outputs:
  ratio: out/ratio.parquet
  sum:
    - "out/{{ run.id }}/sum.csv"
    - {path: out/sum, format: jsonl, columns: [region], failed: include}
state: "{{ env.HOME }}/state"
"#;

#[test]
fn a_workflow_of_everything() {
    let workflow = good(WHOLE);
    assert_eq!(workflow.name, "cell-features");
    assert_eq!(workflow.state.as_deref(), Some("/root/state"));
    assert_eq!(workflow.params[1].1, Value::Text("/root/out".into()));
    assert_eq!(workflow.sources.len(), 7);
    let Reader::Files { paths, text, format: Format::Tsv } = &workflow.sources[1].reader else { panic!("files") };
    assert_eq!(paths, &["data/*.tsv", "/root/out/x.tsv.gz"]);
    assert_eq!((text.header.clone(), text.delimiter), (Header::Names(vec!["a".into(), "b".into()]), Some(b'\t')));
    assert_eq!(workflow.sources[2].key, ["path"]);
    assert!(matches!(&workflow.sources[3].reader, Reader::Lines { path: None }));
    let Reader::Values { rows } = &workflow.sources[5].reader else { panic!("values") };
    assert_eq!(rows[1], [("value".to_string(), Value::Int(3))]);
    assert_eq!(rows[2].len(), 2);

    let stage = |name: &str| workflow.stages.iter().find(|s| s.name == name).expect("there");
    let measure = stage("measure");
    assert_eq!(measure.inputs, [Input::Source(0), Input::Source(1)]);
    let settings = &measure.settings;
    assert_eq!((settings.batch_size, settings.chunk_size), (Some(100), None));
    assert_eq!(settings.timeout, Some(std::time::Duration::from_secs(30)));
    assert_eq!((settings.retries.max, settings.retries.kinds.len()), (2, 2));
    assert_eq!(settings.max_failures, Some(MaxFailures::Percent(5.0)));
    assert_eq!(settings.version.as_deref(), Some("1.10"));
    assert!(settings.stop_on_error && settings.init.is_some());
    let env: Vec<_> = settings.env.iter().map(|(n, t)| (n.as_str(), t.source())).collect();
    assert_eq!(env, [("A", "1"), ("B", "{{ key }}"), ("C", "1.10")]);
    let Action::Python(python) = &measure.action else { panic!("python") };
    assert_eq!((python.module.as_str(), python.function.as_str()), ("features", "measure"));
    assert!(python.args[1].1.per_item() && !python.args[0].1.per_item());

    assert_eq!(stage("ratio").settings.retries.max, 1);
    assert!(stage("ratio").settings.init.is_none());
    let group_by = vec!["region".to_string(), "c".to_string()];
    assert_eq!(stage("sum").verb, Verb::Reduce { group_by, needs_all: true, ordered: false });
    let Action::Command(copy) = &stage("copy").action else { panic!("command") };
    assert_eq!((copy.stdout.clone(), copy.ok_codes.clone()), (Stdout::Jsonl, vec![0, 1]));
    let Action::Command(CommandAction { line: CommandLine::Argv(argv), .. }) = &stage("once").action else {
        panic!("command")
    };
    assert_eq!(argv.iter().map(|t| t.source()).collect::<Vec<_>>()[2..], ["007", "true"]);
    assert_eq!(stage("once").after.len(), 2);
    assert_eq!(stage("once").verb, Verb::Once);
    let formats: Vec<Format> = workflow
        .outputs
        .iter()
        .filter_map(|o| match o.place {
            OutputPlace::File { format, .. } => Some(format),
            OutputPlace::Table(_) => None,
        })
        .collect();
    assert_eq!(formats, [Format::Parquet, Format::Csv, Format::Jsonl]);
    assert!(workflow.outputs[2].with_failed);
}

#[test]
fn parameters_of_the_command_line() {
    let text = "params: {n: 1, s: x}\nstages: {a: {command: [echo, '{{ params.n }}']}}\n";
    let workflow = load_with(text, &[("n", "5"), ("s", "007 x"), ("n", "6")]).expect("valid");
    assert_eq!(workflow.params[0].1, Value::Int(6));
    assert_eq!(workflow.params[1].1, Value::Text("007 x".into()));
    assert_eq!(workflow.name, "pipeline");
    let mistakes = load_with(text, &[("m", "5")]).expect_err("unknown");
    assert_eq!(mistakes[0].message, "the workflow has no parameter `m`");
    assert!(mistakes[0].span.is_none());
}

#[test]
fn parameters_are_rendered_once() {
    let workflow =
        good("params: {a: \"{{ '{' ~ '{ 6 * 7 }' ~ '}' }}\"}\nstages: {a: {command: [echo, '{{ params.a }}']}}\n");
    assert_eq!(workflow.params[0].1, Value::Text("{{ 6 * 7 }}".into()));
}

#[test]
fn parameters_do_not_grow_without_end() {
    let doubled = |n| format!("  a{}: \"{{{{ params.a{n} ~ params.a{n} }}}}\"\n", n + 1);
    let text =
        format!("params:\n  a0: {}\n{}stages: {{}}\n", "x".repeat(1000), (0..30).map(doubled).collect::<String>());
    let mistakes = load_with(&text, &[]).expect_err("too large");
    assert!(mistakes.iter().any(|m| m.message == "a value of more than 16 MiB"), "{mistakes:?}");
}

#[test]
fn a_thousand_stages_load_quickly() {
    let mut text = String::from("sources: {s: {range: {stop: 3}}}\nstages:\n  s0: {map: s, assign: {x: item.value}}\n");
    for i in 1..1000 {
        text += &format!("  s{i}: {{map: s{}, python: 'm:f', args: {{x: '{{{{ item.x }}}}'}}}}\n", i - 1);
    }
    let start = std::time::Instant::now();
    assert_eq!(good(&text).stages.len(), 1000);
    assert!(start.elapsed().as_secs_f64() < 2.0, "{:?}", start.elapsed());
}

proptest::proptest! {
    #[test]
    fn no_text_is_too_strange(text in "\\PC*") {
        let _ = load_with(&text, &[]);
    }

    /// Any value at any key of a workflow that is right gives a workflow or messages.
    #[test]
    fn any_value_anywhere(
        key in "(csv|glob|values|range|key|map|reduce|python|command|shell|assign|where|args|retries|env|init|deps|after|use|timeout|max_failures|stdout|group_by)",
        value in "(3|-1|x|'\\{\\{ item.x \\}\\}'|\\[a, b\\]|\\[\\]|\\{a: b\\}|\\{\\}|null|''|1.5|true|'\\{\\{'|s|a)",
        place in 0usize..4,
    ) {
        let entry = format!("{key}: {value}");
        let at = |n: usize| if n == place { format!(", {entry}") } else { String::new() };
        let text = format!(
            "sources: {{s: {{range: {{stop: 3}}{}}}}}\nstages: {{a: {{map: s, python: 'm:f'{}}}}}\ndefaults: {{cpus: 1{}}}\nparams: {{n: 1{}}}\n",
            at(0), at(1), at(2), at(3)
        );
        if let Err(mistakes) = load_with(&text, &[]) {
            proptest::prop_assert!(!mistakes.is_empty());
            for mistake in mistakes {
                proptest::prop_assert!(mistake.message != "this workflow cannot be understood", "{}", text);
            }
        }
    }
}
