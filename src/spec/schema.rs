//! The JSON Schema of workflow files, from the [`grammar`], for editors.

use serde_json::{Map, Value as Json, json};

use super::grammar::{self, Key, Kind, Shape, Word};

/// The schema, draft 2020-12.
pub fn json_schema() -> Json {
    let mut definitions = Map::new();
    for shape in grammar::SHAPES.iter().copied().chain([&grammar::DEFAULTS]) {
        if !std::ptr::eq(shape, &grammar::WORKFLOW) {
            definitions.insert(shape.name.to_string(), mapping(shape));
        }
    }
    definitions.insert(
        "template".into(),
        json!({"type": "string", "pattern": "\\{\\{", "description": "A template: {{ … }} is filled in."}),
    );
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "bpp-flow workflow",
    });
    let Json::Object(root) = mapping(&grammar::WORKFLOW) else { return schema };
    if let Json::Object(entries) = &mut schema {
        entries.extend(root);
        entries.insert("patternProperties".into(), json!({"^x-": {"description": "Ignored: a place for anchors."}}));
        entries.insert("$defs".into(), Json::Object(definitions));
    }
    schema
}

fn mapping(shape: &Shape) -> Json {
    let mut properties = Map::new();
    for key in shape.all() {
        properties.insert(key.name.to_string(), property(key));
    }
    let mut schema = json!({
        "description": shape.doc,
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if !shape.required.is_empty() {
        schema["required"] = json!(shape.required);
    }
    if std::ptr::eq(shape, &grammar::SOURCE) {
        schema["oneOf"] = exactly_one(grammar::READERS);
    }
    if std::ptr::eq(shape, &grammar::STAGE) {
        schema["oneOf"] = exactly_one(grammar::ACTIONS);
    }
    schema
}

/// Any of the keys, each of them or null.
fn overlay(shape: &Shape) -> Json {
    let nullable = |key: &Key| {
        let doc = key.doc;
        json!({"anyOf": [of_kind(&key.kind), {"type": "null"}], "description": doc})
    };
    let properties: Map<String, Json> = shape.all().map(|key| (key.name.to_string(), nullable(key))).collect();
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

fn exactly_one(keys: &[Key]) -> Json {
    keys.iter().map(|key| json!({"required": [key.name]})).collect()
}

fn property(key: &Key) -> Json {
    let mut schema = of_kind(&key.kind);
    if let Json::Object(entries) = &mut schema {
        entries.insert("description".into(), Json::String(key.doc.to_string()));
    }
    schema
}

fn of_kind(kind: &Kind) -> Json {
    match kind {
        Kind::Any | Kind::Data => json!({}),
        Kind::Text | Kind::Template => json!({"type": ["string", "number", "boolean"]}),
        Kind::Expression => json!({"type": ["string", "number", "boolean"]}),
        Kind::Integer(min) => or_template(json!({"type": "integer", "minimum": min})),
        Kind::Number => or_template(json!({"type": "number"})),
        Kind::Bool => or_template(json!({"type": "boolean"})),
        Kind::Word(words) => or_template(json!({"oneOf": words.iter().map(of_word).collect::<Json>()})),
        Kind::Named(words) => {
            let words = words.iter().map(of_word).collect::<Json>();
            json!({"anyOf": [{"oneOf": words}, {"type": "string"}]})
        }
        Kind::Duration => or_template(json!({
            "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": "^[0-9.]+ *(ms|s|m|min|h|d)$"}],
        })),
        Kind::Size => or_template(json!({"type": ["string", "integer"]})),
        Kind::Percent => or_template(json!({"type": "string", "pattern": "^[0-9.]+ *%$"})),
        Kind::Function => or_template(json!({"type": "string", "pattern": "^[^:]+:[^:]+$"})),
        Kind::List(element) => json!({"type": "array", "items": of_kind(element)}),
        Kind::OneOrMore(element) => json!({"anyOf": [of_kind(element), {"type": "array", "items": of_kind(element)}]}),
        Kind::Map(value) => json!({"type": ["object", "null"], "additionalProperties": of_kind(value)}),
        Kind::Shape(shape) => json!({"$ref": format!("#/$defs/{}", shape.name)}),
        Kind::Overlay(shape) => overlay(shape),
        Kind::Either(kinds) => json!({"anyOf": kinds.iter().map(of_kind).collect::<Json>()}),
    }
}

fn of_word(word: &Word) -> Json {
    json!({"const": word.name, "description": word.doc})
}

fn or_template(schema: Json) -> Json {
    json!({"anyOf": [schema, {"$ref": "#/$defs/template"}]})
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `BLESS=1 cargo test schema` writes the file anew.
    #[test]
    fn the_committed_schema_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/workflow.schema.json");
        let current = serde_json::to_string_pretty(&json_schema()).expect("plain data") + "\n";
        if std::env::var_os("BLESS").is_some() {
            std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/schemas")).expect("a folder");
            std::fs::write(path, &current).expect("written");
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == current, "schemas/workflow.schema.json is stale: run `BLESS=1 cargo test schema`");
    }

    #[test]
    fn every_reference_is_defined() {
        let schema = json_schema();
        let text = schema.to_string();
        for (at, _) in text.match_indices("#/$defs/") {
            let name = text[at + 8..].split('"').next().unwrap_or("");
            assert!(schema["$defs"].get(name).is_some(), "{name}");
        }
    }
}
