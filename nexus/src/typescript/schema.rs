//! TypeScript from JSON Schema. Pure. What TypeScript cannot say, such as bounds, goes into comments; a schema that
//! says nothing about the type is `unknown`, never `any`.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Not known, and so nothing that another part of a schema would take away from.
const UNKNOWN: &str = "unknown";

/// The exported declaration of this name.
pub(super) fn declaration(name: &str, schema: &Value) -> String {
    let (documentation, shape) = (documentation(schema, 0), type_of(schema, 0));
    if shape.starts_with("{\n") && shape.ends_with("\n}") {
        format!("{documentation}export interface {name} {shape}\n")
    } else {
        format!("{documentation}export type {name} = {shape};\n")
    }
}

/// The type of what the schema describes, written on a line that is indented by `indent`.
pub(super) fn type_of(schema: &Value, indent: usize) -> String {
    let Value::Object(keywords) = schema else {
        return if *schema == Value::Bool(false) { "never".to_owned() } else { UNKNOWN.to_owned() };
    };
    if let Some(target) = keywords.get("$ref").and_then(Value::as_str) {
        return target.rsplit('/').next().unwrap_or(UNKNOWN).to_owned();
    }
    if let Some(value) = keywords.get("const") {
        return value.to_string();
    }
    if let Some(values) = keywords.get("enum").and_then(Value::as_array) {
        return union(values.iter().map(Value::to_string));
    }
    let mut parts = vec![by_type(keywords, indent)];
    for keyword in ["oneOf", "anyOf"] {
        if let Some(schemas) = keywords.get(keyword).and_then(Value::as_array) {
            parts.push(union(schemas.iter().map(|schema| type_of(schema, indent))));
        }
    }
    let all = keywords.get("allOf").and_then(Value::as_array).into_iter().flatten();
    parts.extend(all.map(|schema| type_of(schema, indent)));
    parts.retain(|part| part != UNKNOWN);
    match &*parts {
        [] => UNKNOWN.to_owned(),
        [one] => one.clone(),
        _ => parts.iter().map(|part| bracketed(part)).collect::<Vec<_>>().join(" & "),
    }
}

/// A comment with the description and the bounds, above a line that is indented by `indent`; nothing when there is
/// nothing to say.
pub(super) fn documentation(schema: &Value, indent: usize) -> String {
    let description = schema["description"].as_str().unwrap_or_default();
    let said: Vec<String> =
        std::iter::once(description.to_owned()).chain(bounds(schema)).filter(|said| !said.is_empty()).collect();
    if said.is_empty() {
        return String::new();
    }
    let margin = " ".repeat(indent);
    let said = said.join(" ").replace("*/", "*\\/");
    if said.contains('\n') {
        let lines: Vec<String> = said.lines().map(|line| format!("{margin} * {line}\n")).collect();
        return format!("{margin}/**\n{}{margin} */\n", lines.concat());
    }
    format!("{margin}/** {said} */\n")
}

/// What else has to be true of a value, in sentences.
fn bounds(schema: &Value) -> Vec<String> {
    let mut said = Vec::new();
    let range = |least: &str, most: &str| match (schema.get(least), schema.get(most)) {
        (Some(least), Some(most)) => Some(format!("{least} to {most}")),
        (Some(least), None) => Some(format!("At least {least}")),
        (None, Some(most)) => Some(format!("At most {most}")),
        (None, None) => None,
    };
    said.extend(range("minimum", "maximum").map(|range| format!("{range}.")));
    said.extend(range("minLength", "maxLength").map(|range| format!("{range} characters.")));
    said.extend(range("minItems", "maxItems").map(|range| format!("{range} items.")));
    said.extend(schema["pattern"].as_str().map(|pattern| format!("Form: `{pattern}`.")));
    said.extend(match schema["format"].as_str() {
        Some("uuid") => Some("A UUID.".to_owned()),
        Some("date-time") => Some("RFC 3339.".to_owned()),
        _ => None,
    });
    said
}

fn by_type(keywords: &Map<String, Value>, indent: usize) -> String {
    match keywords.get("type") {
        Some(Value::String(name)) => named(name, keywords, indent),
        Some(Value::Array(names)) => {
            union(names.iter().filter_map(Value::as_str).map(|name| named(name, keywords, indent)))
        }
        _ if keywords.contains_key("properties") => object(keywords, indent),
        _ => UNKNOWN.to_owned(),
    }
}

fn named(name: &str, keywords: &Map<String, Value>, indent: usize) -> String {
    match name {
        "string" | "boolean" | "null" => name.to_owned(),
        "integer" | "number" => "number".to_owned(),
        "array" => {
            let items = keywords.get("items").map_or(UNKNOWN.to_owned(), |items| type_of(items, indent));
            format!("Array<{items}>")
        }
        "object" => object(keywords, indent),
        _ => UNKNOWN.to_owned(),
    }
}

fn object(keywords: &Map<String, Value>, indent: usize) -> String {
    let Some(properties) = keywords.get("properties").and_then(Value::as_object).filter(|all| !all.is_empty()) else {
        let values = keywords.get("additionalProperties").map_or(UNKNOWN.to_owned(), |values| type_of(values, indent));
        return format!("Record<string, {values}>");
    };
    let required = keywords.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let inner = indent + 2;
    let mut text = "{\n".to_owned();
    for (name, schema) in properties {
        let mark = if required.iter().any(|required| required == name) { "" } else { "?" };
        text += &documentation(schema, inner);
        let _ = writeln!(text, "{:inner$}{}{mark}: {};", "", key(name), type_of(schema, inner));
    }
    let _ = write!(text, "{:indent$}}}", "");
    text
}

/// A property's name; quoted when it is no plain word.
fn key(name: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    if name.chars().all(plain) && !name.starts_with(|first: char| first.is_ascii_digit()) && !name.is_empty() {
        name.to_owned()
    } else {
        Value::from(name).to_string()
    }
}

fn union(types: impl Iterator<Item = String>) -> String {
    let mut different: Vec<String> = Vec::new();
    for one in types {
        if !different.contains(&one) {
            different.push(one);
        }
    }
    if different.is_empty() || different.iter().any(|one| one == UNKNOWN) {
        return UNKNOWN.to_owned();
    }
    different.join(" | ")
}

/// Keeps a union together beside an `&`. Brackets around anything else would only be noise.
fn bracketed(part: &str) -> String {
    if part.contains(" | ") && !part.starts_with('{') { format!("({part})") } else { part.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_schema_has_its_type() {
        for (schema, want) in [
            (json!({"type": "string", "maxLength": 3}), "string"),
            (json!({"type": "integer"}), "number"),
            (json!({"type": ["number", "integer", "null"]}), "number | null"),
            (json!({"type": "array", "items": {"type": ["string", "null"]}}), "Array<string | null>"),
            (json!({"type": "array"}), "Array<unknown>"),
            (json!({"const": "a"}), "\"a\""),
            (json!({"enum": ["a", 1, null]}), "\"a\" | 1 | null"),
            (json!({"oneOf": [{"const": "a"}, {"const": "b"}]}), "\"a\" | \"b\""),
            (json!({"anyOf": [{"$ref": "#/$defs/Position"}, {"type": "null"}]}), "Position | null"),
            (json!({"allOf": [{"$ref": "#/$defs/A"}, {"enum": [1, 2]}]}), "A & (1 | 2)"),
            (json!({"oneOf": [{"required": ["a"]}, {"type": "string"}]}), "unknown"),
            (json!({"type": "object"}), "Record<string, unknown>"),
            (json!({"type": "object", "additionalProperties": false}), "Record<string, never>"),
            (json!({"type": "object", "additionalProperties": {"type": "integer"}}), "Record<string, number>"),
            (json!({"type": ["object", "null"], "properties": {"a": true}}), "{\n  a?: unknown;\n} | null"),
            (json!({"properties": {"a-b": {"type": "string"}}, "required": ["a-b"]}), "{\n  \"a-b\": string;\n}"),
            (
                json!({"type": "object", "properties": {"a": false}, "oneOf": [{"required": ["a"]}]}),
                "{\n  a?: never;\n}",
            ),
            (json!({}), "unknown"),
            (json!(true), "unknown"),
            (json!(false), "never"),
        ] {
            assert_eq!(type_of(&schema, 0), want, "{schema}");
        }
    }

    #[test]
    fn what_a_type_cannot_say_stands_above_it() {
        let schema = json!({
            "type": "object", "description": "A wallet.", "required": ["id", "money"],
            "properties": {
                "id": {"type": "string", "minLength": 1, "maxLength": 9, "description": "Which."},
                "money": {
                    "type": "object", "required": ["minor"],
                    "properties": {"minor": {"type": "integer", "minimum": 1, "description": "Not */ the end."}},
                },
                "note": {"description": "Two\nlines.", "format": "uuid"},
            },
        });
        let want = "/** A wallet. */\n\
            export interface Wallet {\n\
            \x20 /** Which. 1 to 9 characters. */\n\
            \x20 id: string;\n\
            \x20 money: {\n\
            \x20   /** Not *\\/ the end. At least 1. */\n\
            \x20   minor: number;\n\
            \x20 };\n\
            \x20 /**\n\
            \x20  * Two\n\
            \x20  * lines. A UUID.\n\
            \x20  */\n\
            \x20 note?: unknown;\n\
            }\n";
        assert_eq!(declaration("Wallet", &schema), want);
        assert_eq!(declaration("Position", &json!({"type": "string"})), "export type Position = string;\n");
    }
}
