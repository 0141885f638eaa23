//! Values in scripts, judged by a real bash: they arrive byte for byte where they are accepted, and never run.
//!
//! `BPP_TEST_CASES` says how many batches of random strings and scripts are tried (default 6).

use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

const HOSTILE: &[&str] = &[
    "", " ", "a b", "'", "\"", "`id`", "$(id)", "$HOME", "\\", "a\nb", "-n", "*", "~", "a;b", "&&", "#x", "!!",
    "{a,b}", "\t", "if", "é", "''", "'\\''", "$'\\n'", "\n", ">x", "(", ")", "EOF",
];

/// The script with this value, where both are accepted.
fn filled(script: &str, value: &str) -> Option<String> {
    let template = Template::parse(script, true).ok()?;
    let params = [("v".to_string(), Value::List(vec![Value::Text(value.to_string())]))];
    Some(template.render(&Scope { params: &params, ..Scope::default() }).ok()?.to_string())
}

fn shell(script: &str, values: &[&str]) -> Result<String, TemplateError> {
    let template = Template::parse(script, true)?;
    let params = vec![("v".to_string(), Value::List(values.iter().map(|v| Value::Text(v.to_string())).collect()))];
    Ok(template.render(&Scope { params: &params, ..Scope::default() }).expect("renders").to_string())
}

#[expect(clippy::disallowed_methods, reason = "the shell judges the quoting")]
fn bash(script: &str) -> String {
    let output = Command::new("bash").args(["-euo", "pipefail", "-c", script]).output().expect("bash runs");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn hostile_values_come_back_from_a_shell() {
    let scripts = [
        "printf '%s\\0' {{ params.v }}",
        "x={{ params.v[0] }}; printf '%s\\0' \"$x\"",
        "echo \"$(printf '%s' {{ params.v[0] }}; echo .)\" >/dev/null; printf '%s\\0' {{ params.v[0] }} # done",
        "cat <<EOF >/dev/null\nnothing ' here\nEOF\nprintf '%s\\0' {{ params.v[0] }}",
        "if [ -n \"${x:-}\" ]; then echo 'a'; fi; (( 1 + 1 )) && printf '%s\\0' {{ params.v[0] }}",
        "f() { printf '%s\\0' \"$@\"; }; f {{ params.v[0] }}; : ${#f} \"it's\" $'it\\'s' `echo \"'\"`",
        "case a in a) printf '%s\\0' {{ params.v[0] }};; esac",
    ];
    for (at, script) in scripts.iter().enumerate() {
        let many: Vec<&str> = if at == 0 { HOSTILE.to_vec() } else { Vec::new() };
        for one in HOSTILE {
            let values = if many.is_empty() { vec![*one] } else { many.clone() };
            let expected: String = values.iter().map(|v| format!("{v}\0")).collect();
            assert_eq!(bash(&shell(script, &values).expect("a safe place")), expected, "{script}");
        }
    }
}

#[test]
fn no_filter_gets_past_the_quoter() {
    for filter in ["tojson", "safe", "escape", "e", "string", "join(' ')", "pprint", "first", "last", "upper", "trim"] {
        let script = format!("printf '%s' {{{{ params.v | {filter} }}}}");
        let rendered = shell(&script, &["$(echo hacked >&2; id)'\""]).expect("a safe place");
        assert!(!bash(&rendered).contains("uid="), "{rendered}");
    }
    assert_eq!(shell("echo {{ params.v[0] | raw }}", &["a b"]).as_deref(), Ok("echo a b"));
    assert_eq!(shell("echo {{ none }} {{ [] }}.", &[]).as_deref(), Ok("echo '' ."));
    assert!(shell("echo {{ (params.v[0] | raw) ~ 'x' }}", &["a"]).is_err());
}

#[test]
fn templates_where_quoting_cannot_help_are_refused() {
    for (script, place) in [
        ("echo '{{ params.v }}'", "single quotes"),
        ("echo \"{{ params.v }}\"", "double quotes"),
        ("echo `cat {{ params.v }}`", "backticks"),
        ("echo $((1 + {{ params.v }}))", "arithmetic"),
        ("(( x = {{ params.v }} ))", "arithmetic"),
        ("echo $[ {{ params.v }} ]", "arithmetic"),
        ("cat <<EOF\n{{ params.v }}\nEOF", "here-document"),
        ("cat <<-'END'\n{{ params.v }}\nEND", "here-document"),
        ("cat <<{{ params.v }}\nx", "here-document"),
        ("true # {{ params.v }}", "comment"),
        ("echo \\{{ params.v }}", "backslash"),
        ("echo ${{ params.v }}", "`$`"),
        ("echo ${x:-{{ params.v }} }", "${ }"),
        ("a[{{ params.v }}]=1", "subscript"),
        ("echo \"$(case a in a) echo;; esac)\" {{ params.v }}", "case"),
        ("echo $'{{ params.v }}'", "single quotes"),
        ("echo \"a $(echo \"{{ params.v }}\")\"", "double quotes"),
        ("echo \"it's {{ params.v }}\"", "double quotes"),
        ("echo $(( $(echo {{ params.v }}) ))", "arithmetic"),
        ("echo a \\\n# {{ params.v }}", "comment"),
        ("m=([{{ params.v }}]=1)", "subscript"),
        ("a[1; # ] <<E\n{{ params.v }}", "subscript"),
        ("a=([1; # ]=2 <<E\n{{ params.v }}", "subscript"),
    ] {
        let error = Template::parse(script, true).expect_err(script);
        assert!(error.message.contains(place), "{script}: {error:?}");
        assert!(error.help.as_deref().unwrap_or("").contains("env:"), "{error:?}");
        assert_eq!(&script[error.at.clone()][..2], "{{", "{script}");
    }
}

/// Where bash takes a word for arithmetic, for a name or for a command, and where it only looks so.
#[test]
fn templates_that_bash_would_evaluate_are_refused() {
    for script in [
        "if [[ -z a\n || -v {{ params.v }} ]]; then :; fi",
        "test -v {{ params.v }}",
        "$(true)read {{ params.v }} <<< x",
        "`true`let x={{ params.v }}",
        "${none-}unset {{ params.v }}",
        "let x={{ params.v }}",
        "declare -i x={{ params.v }}",
        "f() { local -a x={{ params.v }}; }; f",
        "readonly -A x={{ params.v }}",
        "declare {{ params.v }}=1",
        "typeset -r x{{ params.v }}",
        "n={{ params.v }}; declare -i n",
        "declare -i n; a=({{ params.v }})",
        "printf -v {{ params.v }} x",
        "read -r {{ params.v }} <<< x",
        "unset {{ params.v }}",
        "command eval {{ params.v }}",
        "true && 2>&1 x=1 ev\\\nal {{ params.v }}",
        "trap {{ params.v }} EXIT",
        "mapfile -C {{ params.v }} -c 1 y <<< z",
        "shopt -s expand_aliases; alias a={{ params.v }}\na",
        "PS4={{ params.v }}; set -x; :",
        "RANDOM={{ params.v }}",
        "BASH_ENV={{ params.v }} bash -c :",
        "echo \"$(eval {{ params.v }})\"",
        "echo x >& {{ params.v }}",
        "wait -n -p {{ params.v }}",
    ] {
        let error = Template::parse(script, true).expect_err(script);
        assert_eq!(&script[error.at.clone()][..2], "{{", "{script}");
        assert!(error.message.contains("evaluates once more") || error.message.contains(">&"), "{script}: {error:?}");
    }
    for script in [
        "[[ {{ params.v }} == a || -n {{ params.v }} || {{ params.v }} < b ]] && [ {{ params.v }} -eq 1 ]",
        "[[ -f x ]] && echo {{ params.v }} -eq 1",
        "while read -r line; do echo \"$line\"; done < {{ params.v }}",
        "read -r line < {{ params.v }}; mapfile -t lines <<< {{ params.v }}",
        "export F={{ params.v }}; f() { local x={{ params.v }}; declare y={{ params.v }}; }",
        "echo let {{ params.v }} > {{ params.v }} 2>&1; printf -- '-v' {{ params.v }}",
        "eval 'x=1'; echo {{ params.v }}",
        "case {{ params.v }} in {{ params.v }}) echo {{ params.v }};; esac",
        "x=({{ params.v }}); for i in {{ params.v }}; do echo $i; done",
        "cat {{ params.v }} | sort > {{ params.v }}.sorted",
    ] {
        Template::parse(script, true).unwrap_or_else(|e| panic!("{script}: {e:?}"));
    }
}

#[test]
fn only_numbers_are_compared_as_numbers() {
    for script in [
        "[[ {{ params.v[0] }} -gt 1 ]] && printf yes",
        "if [[ a &&\n ( 1 -lt {{ params.v[0] }} ) ]]; then printf yes; fi",
        "[[ a == {{ params.v[1] }} && {{ params.v[0] }} -eq 7 ]] && printf yes",
        "[[ $([[ {{ params.v[0] }} -ge 2 ]] && echo 3) -le {{ params.v[0] }} ]] && printf yes",
    ] {
        assert_eq!(bash(&shell(script, &["7", "a"]).expect("a safe place")), "yes", "{script}");
        for value in PAYLOADS {
            let template = Template::parse(script, true).expect("a safe place");
            let values = [value, "a"].map(|v| Value::Text(v.into())).to_vec();
            let params = [("v".to_string(), Value::List(values))];
            let error = template.render(&Scope { params: &params, ..Scope::default() }).expect_err(script);
            assert!(error.0.contains("no number"), "{script}: {error}");
        }
    }
}

#[test]
fn long_values_and_lists_come_back() {
    let long = "'\"$(x)\n".repeat(12_000);
    let script = shell("printf '%s\\0' {{ params.v }}", &[&long, "", &long]).expect("a safe place");
    assert_eq!(bash_file(&script), format!("{long}\0\0{long}\0"));
    assert!(Template::parse("echo {{ params.v }}", true).is_ok());
    let nul = [("v".to_string(), Value::Text("a\0b".into()))];
    let template = Template::parse("echo {{ params.v }}", true).expect("valid");
    let error = template.render(&Scope { params: &nul, ..Scope::default() }).expect_err("refused");
    assert!(error.0.contains("NUL"), "{error}");
}

/// As `bash -c`, for scripts that are too long for an argument.
#[expect(clippy::disallowed_methods, reason = "the shell judges the quoting")]
fn bash_file(script: &str) -> String {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), script).expect("written");
    let output = Command::new("bash").args(["-euo", "pipefail"]).arg(file.path()).output().expect("bash runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Every way in which a script may use a value and print it again, followed by a NUL.
const USES: [&str; 12] = [
    "printf '%s\\0' V",
    "x=V; printf '%s\\0' \"$x\"",
    "export X=V; bash -c 'printf \"%s\\0\" \"$X\"'",
    "for y in V; do printf '%s\\0' \"$y\"; done",
    "f() { local z=V; printf '%s\\0' \"$z\"; }; f",
    "a=(V); printf '%s\\0' \"${a[@]}\"",
    "set -- V; printf '%s\\0' \"$1\"",
    "y=$(printf '%s' V; echo .); printf '%s\\0' \"${y%.}\"",
    "case V in V) printf '%s\\0' V;; esac",
    "if [[ V == V && ! V != V ]] && [ V = V ]; then printf '%s\\0' V; fi",
    "y=$(cat <<< V; echo .); y=${y%.}; printf '%s\\0' \"${y%?}\"",
    "y=$(printf '%s\\0' a\"b\"V'c'V | tr '\\0' .); [ \"$y\" = abV\"c\"V. ] && printf '%s\\0' V",
];

/// What a careless shell would run, expand, split or cut.
const FRAGMENTS: [&str; 40] = [
    "$(touch PWNED)",
    "`touch PWNED`",
    ";touch PWNED;",
    "\ntouch PWNED\n",
    "|touch PWNED",
    "&&touch PWNED",
    "a[$(touch PWNED)]",
    "<(touch PWNED)",
    "${x:=$(touch PWNED)}",
    "$((a[$(touch PWNED)]))",
    "'",
    "\"",
    "'\\''",
    "\\",
    "$'",
    "!",
    "!!",
    "~",
    "~root",
    "*",
    "?",
    "[a-z]",
    "{a,b}",
    "-n",
    "--",
    "-",
    " ",
    "\t",
    "\n",
    "\r",
    "#",
    "EOF",
    "\x1b[31m",
    "\u{202e}",
    "é",
    "𝄞",
    "\u{fffd}",
    "\x7f",
    "=",
    "\\x41\\u0041\\0",
];

fn hostile_text() -> impl Strategy<Value = String> {
    let fragments = prop::collection::vec(prop::sample::select(&FRAGMENTS[..]), 0..6);
    prop_oneof![2 => "[^\0]{0,30}", 3 => fragments.prop_map(|parts| parts.concat()), 1 => "[ -~]{0,60}"]
}

fn cases() -> u32 {
    std::env::var("BPP_TEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(6)
}

/// The same scripts in every run, unless others are asked for.
fn seed() -> RngSeed {
    RngSeed::Fixed(std::env::var("BPP_TEST_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1))
}

/// Values that run when they are not quoted, or evaluated after they were.
const PAYLOADS: [&str; 12] = [
    "$(touch PWNED)",
    "`touch PWNED`",
    "a[$(touch PWNED)]",
    "a[$(touch PWNED)]=1",
    "x=a[$(touch PWNED)]",
    "([$(touch PWNED)]=1)",
    "touch PWNED",
    "1;touch PWNED",
    "\ntouch PWNED\n",
    "'\ntouch PWNED #'\n",
    "\nE\ntouch PWNED\n",
    "\n'\"`touch PWNED`$(touch PWNED)\nE\ntouch PWNED\n",
];

/// Runs scripts, each in a subshell of its own, and tells those that made the file of the payloads.
fn that_run(scripts: &[String]) -> Vec<&String> {
    let any = run_all(scripts);
    if any { scripts.iter().filter(|script| run_all(std::slice::from_ref(script))).collect() } else { Vec::new() }
}

#[expect(clippy::disallowed_methods, reason = "the shell judges the quoting")]
fn run_all(scripts: &[String]) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let driver = "while IFS= read -r -d '' s; do (set -euo pipefail; eval \"$s\") < /dev/null; done";
    std::fs::write(folder.path().join("scripts"), scripts.iter().map(|s| format!("{s}\0")).collect::<String>())
        .expect("written");
    let input = std::fs::File::open(folder.path().join("scripts")).expect("opens");
    let mut bash = Command::new("timeout");
    bash.args(["60", "bash", "-c", driver]).current_dir(folder.path()).stdin(input);
    let status = bash.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("bash runs");
    assert_ne!(status.code(), Some(124), "a script does not end: {scripts:?}");
    folder.path().join("PWNED").exists()
}

/// A template, whose value the script must neither run nor hand to what would.
const HOLE: &str = "{{ params.v[0] }}";

fn soup() -> impl Strategy<Value = String> {
    let tokens = [
        "echo ",
        "printf %s ",
        "x=",
        "a=(",
        ")",
        "a[",
        "]",
        "[[ ",
        " ]]",
        "[ ",
        " ] ",
        " -eq ",
        " -v ",
        " 1 ",
        "&&",
        "||",
        ";",
        "\n",
        "|",
        " ",
        " >f ",
        ">&",
        "<",
        "<<<",
        " 2>&1 ",
        "<<E\n",
        "\nE\n",
        "<<-'E' ",
        "$(",
        "`",
        "$((1",
        "))",
        "((1",
        "${z:-",
        "}",
        "'",
        "\"",
        "$'",
        "$\"",
        "#",
        " # ",
        "\\",
        "\\\n",
        "case q in ",
        "q)",
        ";;",
        "esac",
        "if ",
        "then ",
        "fi ",
        "for y in ",
        "do ",
        "done ",
        "{ ",
        "f() ",
        "declare ",
        "-i ",
        "-a ",
        "local ",
        "export ",
        "let ",
        "eval ",
        "unset ",
        "read ",
        "printf -v ",
        "test ",
        "trap ",
        "PS4=",
        "set -x;",
        "RANDOM=",
        "alias ",
        "command ",
        "time ",
        "! ",
        "$",
        "~",
        "*",
        "<(",
        ">(",
    ];
    let token = prop_oneof![3 => prop::sample::select(tokens.to_vec()), 1 => Just(HOLE)];
    prop::collection::vec(token, 1..14).prop_map(|parts| parts.concat())
}

/// Scripts that bash can read, most of them.
fn script() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(format!("echo {HOLE}")),
        Just(format!("x={HOLE} printf %s a{HOLE}b")),
        Just(format!("[[ {HOLE} == {HOLE} ]]")),
        prop::sample::select(vec!["-eq", "<", "-nt", "=~", "-ge"]).prop_map(|op| format!("[[ 1 {op} {HOLE} ]]")),
        prop::sample::select(vec!["-v", "-n", "-o", "-R", "-t"])
            .prop_map(|op| format!("[[ {op} {HOLE} ]] || [ {op} {HOLE} ]")),
        ("(declare|local|export|readonly|typeset|let|unset|read|wait|printf)", "( -[aAinvpxr])?", "( | x=| x)")
            .prop_map(|(builtin, option, before)| format!("{builtin}{option}{before}{HOLE} 2>f")),
        Just(format!("cat < {HOLE} > {HOLE} 2>&1 <<< {HOLE}")),
        Just(format!("cat <<E\nE\necho {HOLE} # '\n:")),
        Just(format!("a=({HOLE} b [2]={HOLE})")),
        Just(format!("echo 'it''s' \"$z '\" {HOLE} $'\\'' {HOLE}")),
        Just(format!("echo a \\\n {HOLE} \\\n#{HOLE}")),
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone(), "(;|\n| && | \\|\\| | \\| | & )")
                .prop_map(|(a, b, op)| format!("{a}{op}{b}")),
            inner.clone().prop_map(|a| format!("echo \"$({a})\" {HOLE}")),
            inner.clone().prop_map(|a| format!("z=$({a}\n) ; {{ {a}\n}} > {HOLE}")),
            inner.clone().prop_map(|a| format!("if {a}\nthen {a}\nelse ((z=1)); fi")),
            inner.clone().prop_map(|a| format!("case {HOLE} in {HOLE}) {a} ;; *) {a}\n;; esac")),
            inner.clone().prop_map(|a| format!("f() {{ {a}\n}}; f {HOLE}")),
            inner.clone().prop_map(|a| format!("for y in {HOLE}; do {a}\ndone < <({a}\n)")),
            inner.clone().prop_map(|a| format!("( {a}\n) | {{ read -r y; echo {HOLE}; }}")),
            inner.prop_map(|a| format!("declare -i n=1; {a}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), rng_seed: seed(), max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_comes_back_from_a_shell(texts in prop::collection::vec(hostile_text(), 80)) {
        let values: Vec<&str> = texts.iter().map(String::as_str).collect();
        let expected: String = texts.iter().map(|text| format!("{text}\0")).collect();
        let spliced = shell("printf '%s\\0' {{ params.v }}", &values).expect("a safe place");
        prop_assert_eq!(bash_file(&spliced), expected.clone());
        let one_by_one = (0..texts.len()).map(|i| USES[i % USES.len()].replace('V', &format!("{{{{ params.v[{i}] }}}}")) + "\n");
        let used = shell(&one_by_one.collect::<String>(), &values).expect("a safe place");
        prop_assert_eq!(bash_file(&used), expected);
    }

    /// Whatever the script: where a value is allowed, what it holds is never run.
    #[test]
    fn no_script_runs_a_value(scripts in prop::collection::vec(prop_oneof![soup(), script()], 60)) {
        let pairs = scripts.iter().flat_map(|script| PAYLOADS.iter().map(move |payload| filled(script, payload)));
        let rendered: Vec<String> = pairs.flatten().collect();
        prop_assert!(rendered.len() > 60, "only {} are accepted", rendered.len());
        prop_assert!(that_run(&rendered).is_empty(), "{:#?}", that_run(&rendered));
    }
}
