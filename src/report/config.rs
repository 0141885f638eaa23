//! The effective workflow, as YAML with the origin of every value behind it, and as JSON.

use serde_json::{Map, Value as Json, json};

use crate::data::json::text;
use crate::spec::effective::{Part, Setting};
use crate::spec::written::{block, inline, key};
use crate::spec::yaml::Node;

/// Lists longer than this stand with an element a line.
const MAX_INLINE: usize = 80;
/// Origins stand in one column, at most here.
const MAX_COLUMN: usize = 52;

/// YAML that is a workflow again.
pub fn yaml(workflow: &Part) -> String {
    let mut lines = Vec::new();
    if let Part::Map(parts) = workflow {
        let mut before = None;
        for (name, part) in parts {
            let is_map = matches!(part, Part::Map(_));
            if before.replace(is_map).is_some_and(|before| before || is_map) {
                lines.push(Line::default());
            }
            add(&mut lines, 0, name, part);
        }
    }
    let lengths = lines.iter().filter(|line| line.origin.is_some()).map(|line| line.text.chars().count());
    let column = lengths.filter(|length| *length <= MAX_COLUMN).max().unwrap_or(0);
    lines.iter().map(|line| line.render(column)).collect()
}

/// `{"value", "origin"}` for every value.
pub fn document(part: &Part) -> Json {
    match part {
        Part::Map(parts) => {
            Json::Object(parts.iter().map(|(name, part)| (name.clone(), document(part))).collect::<Map<_, _>>())
        }
        Part::Value(setting) => {
            let value = text(&setting.node.as_value());
            let value = serde_json::from_str(&value).unwrap_or(Json::String(value));
            json!({ "value": value, "origin": setting.origin })
        }
    }
}

#[derive(Default)]
struct Line {
    text: String,
    origin: Option<String>,
}

impl Line {
    fn render(&self, column: usize) -> String {
        match &self.origin {
            Some(origin) => format!("{:column$}  # {origin}\n", self.text),
            None => format!("{}\n", self.text),
        }
    }
}

fn add(lines: &mut Vec<Line>, indent: usize, name: &str, part: &Part) {
    let name = format!("{:indent$}{}:", "", key(name));
    match part {
        Part::Map(parts) if parts.is_empty() => lines.push(Line { text: format!("{name} {{}}"), origin: None }),
        Part::Map(parts) => {
            lines.push(Line { text: name, origin: None });
            parts.iter().for_each(|(name, part)| add(lines, indent + 2, name, part));
        }
        Part::Value(setting) => add_setting(lines, indent, &name, setting),
    }
}

fn add_setting(lines: &mut Vec<Line>, indent: usize, name: &str, setting: &Setting) {
    let node = setting.to_write();
    let origin = Some(setting.origin.clone());
    let below = |text: String| Line { text: format!("{:1$}{text}", "", indent + 2), origin: None };
    if let Some((opens, body)) = block(&node) {
        lines.push(Line { text: format!("{name} {opens}"), origin });
        lines.extend(body.into_iter().map(|line| match line {
            "" => Line::default(),
            line => below(line.to_string()),
        }));
        return;
    }
    let line = format!("{name} {}", inline(&node));
    match node.elements().filter(|list| !list.is_empty() && (line.chars().count() > MAX_INLINE || has_maps(list))) {
        None => lines.push(Line { text: line, origin }),
        Some(elements) => {
            lines.push(Line { text: name.to_string(), origin });
            lines.extend(elements.iter().map(|element| below(format!("- {}", inline(element)))));
        }
    }
}

fn has_maps(elements: &[Node]) -> bool {
    elements.iter().any(|element| element.entries().is_some())
}
