//! YAML text of nodes, which reads back as the same.

use super::yaml::{self, Kind, Node, Scalar};
use crate::data::{Value, json};

/// A node in one line.
pub fn inline(node: &Node) -> String {
    match &node.kind {
        Kind::Scalar(scalar) => scalar_text(scalar),
        Kind::List(elements) => format!("[{}]", elements.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Kind::Map(entries) if entries.is_empty() => "{}".into(),
        Kind::Map(entries) => {
            let entry = |(k, v): &(Node, Node)| format!("{}: {}", key(k.key_text()), inline(v));
            format!("{{ {} }}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

/// The lines of a text as a literal block, with the indicator that opens it; none where it is of one line, or would not
/// read back.
pub fn block(node: &Node) -> Option<(&'static str, Vec<&str>)> {
    let text = node.text().filter(|text| text.trim_end_matches('\n').contains('\n'))?;
    let (opens, body) = match text.strip_suffix('\n') {
        Some(body) => ("|", body),
        None => ("|-", text),
    };
    let plain = |c: char| c == '\n' || (!c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}'));
    (!body.starts_with([' ', '\n']) && !body.ends_with('\n') && body.chars().all(plain))
        .then(|| (opens, body.split('\n').collect()))
}

/// A key.
pub fn key(text: &str) -> String {
    text_or_quoted(text)
}

fn scalar_text(scalar: &Scalar) -> String {
    match &scalar.value {
        Value::Null => "null".into(),
        Value::Text(text) => text_or_quoted(text),
        Value::Float(v) if v.is_nan() => ".nan".into(),
        Value::Float(v) if v.is_infinite() => if *v > 0.0 { ".inf" } else { "-.inf" }.into(),
        _ => scalar.text.clone(),
    }
}

/// Bare where that reads back as the same text, in a list too.
fn text_or_quoted(text: &str) -> String {
    let reads_back = |node: &Node| node.scalar().is_some_and(|s| !s.quoted && s.value == Value::Text(text.into()));
    let in_list =
        || yaml::parse(&format!("[{text}, {text}]")).ok().filter(|n| n.elements().is_some_and(|e| e.len() == 2));
    let in_map = || yaml::parse(&format!("{text}: {text} # x"));
    let bare = !text.is_empty()
        && !text.contains('\n')
        && in_list().is_some_and(|n| n.elements().unwrap_or_default().iter().all(reads_back))
        && in_map().is_ok_and(|n| n.entries().is_some_and(|e| reads_back(&e[0].0) && reads_back(&e[0].1)));
    if bare { text.to_string() } else { json::text(&Value::Text(text.into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(value: Value) -> Node {
        let text = value.to_string();
        Node { span: Default::default(), kind: Kind::Scalar(Scalar { text, quoted: false, value }) }
    }

    fn same(a: &Node, b: &Node) -> bool {
        match (&a.kind, &b.kind) {
            (Kind::Scalar(a), Kind::Scalar(b)) => a.value == b.value,
            _ => false,
        }
    }

    #[test]
    fn words_stand_bare_and_the_rest_is_quoted() {
        let text = |t: &str| inline(&scalar(Value::Text(t.into())));
        for bare in ["features:measure", "item.x / 2", "out/a b.csv", "5%", "30s", "a-b"] {
            assert_eq!(text(bare), bare);
        }
        for quoted in ["", "3", "true", "null", "a: b", "a #b", "{{ x }}", "[a", "*x", "a, b", " a", "- a", "0x1f", "?"]
        {
            assert_eq!(text(quoted), format!("{quoted:?}"));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_reads_back(text in "[ -~\n\t\u{e9}\u{85}\u{2028}\u{feff}]{0,20}|\\PC{0,10}", number: f64, integer: i64) {
            for value in [Value::Text(text), Value::Float(number), Value::Int(integer)] {
                let node = scalar(value);
                let line = format!("k: {}  # note\nl: [{}]\n", inline(&node), inline(&node));
                let read = yaml::parse(&line).expect("valid");
                proptest::prop_assert!(same(read.get("k").expect("k"), &node), "{line}");
                proptest::prop_assert!(same(&read.get("l").and_then(Node::elements).expect("l")[0], &node), "{line}");
                if let Some((opens, lines)) = block(&node) {
                    let line = format!("k: {opens}  # note\n{}\nl: 1\n", lines.iter().map(|l| format!("  {l}")).collect::<Vec<_>>().join("\n"));
                    let read = yaml::parse(&line).expect("valid");
                    proptest::prop_assert!(same(read.get("k").expect("k"), &node), "{line}");
                }
            }
        }
    }
}
