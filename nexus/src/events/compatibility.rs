//! Whether a released type may become what it is now without a new version. Whoever wrote for what was released is still
//! understood, and still understands: every event that was valid is valid, and whatever a reader found in each it finds.
//! Pure, but for the test at the end, which holds the types of this build against `schemas/`.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// What only people read.
const SAID: [&str; 7] = ["$comment", "$schema", "default", "deprecated", "description", "examples", "title"];
/// Lower bounds: greater is narrower.
const LEAST: [&str; 5] = ["exclusiveMinimum", "minItems", "minLength", "minProperties", "minimum"];
/// Upper bounds: smaller is narrower.
const MOST: [&str; 5] = ["exclusiveMaximum", "maxItems", "maxLength", "maxProperties", "maximum"];
/// What may be taken away, for that lets only more in.
const NARROWS: [&str; 3] = ["multipleOf", "pattern", "uniqueItems"];
/// What is compared by rules of its own.
const OWN_RULE: [&str; 7] = ["additionalProperties", "const", "enum", "items", "oneOf", "properties", "required"];

/// What breaks between a type as it was released and as it is now, each with its place.
fn breaks(released: &Value, current: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    for member in ["type", "subject", "audience", "lets_in"] {
        if released[member] != current[member] {
            broken.push(format!("/{member}: was {}, is {}", released[member], current[member]));
        }
    }
    if released["publisher"] != current["publisher"] && current["publisher"] != "service" {
        broken.push(format!("/publisher: was {}, is {}", released["publisher"], current["publisher"]));
    }
    // Who was given every event counts on it.
    if released["delivery"] == "all" && current["delivery"] != "all" {
        broken.push(format!("/delivery: was {}, is {}", released["delivery"], current["delivery"]));
    }
    compare("/schema", &released["schema"], &current["schema"], &mut broken);
    broken
}

fn compare(place: &str, released: &Value, current: &Value, broken: &mut Vec<String>) {
    let nothing = Map::new();
    // `true` says as much as a schema without keywords.
    let (Some(was), Some(is)) = (keywords(released, &nothing), keywords(current, &nothing)) else {
        if released != current {
            broken.push(format!("{place}: was {released}, is {current}"));
        }
        return;
    };
    compare_literals(place, released, current, broken);
    compare_properties(place, was, is, broken);
    compare_keywords(place, was, is, broken);
    for keyword in ["items", "additionalProperties"] {
        match (was.get(keyword), is.get(keyword)) {
            (_, None | Some(Value::Bool(true))) | (Some(Value::Bool(false)), _) => {}
            (None | Some(Value::Bool(true)), Some(_)) => broken.push(format!("{place}/{keyword}: is narrower")),
            (Some(was), Some(is)) => compare(&format!("{place}/{keyword}"), was, is, broken),
        }
    }
}

fn keywords<'a>(schema: &'a Value, nothing: &'a Map<String, Value>) -> Option<&'a Map<String, Value>> {
    match schema {
        Value::Object(keywords) => Some(keywords),
        Value::Bool(true) => Some(nothing),
        _ => None,
    }
}

/// Further values may be added to those that a schema lists; readers are told to expect that.
fn compare_literals(place: &str, released: &Value, current: &Value, broken: &mut Vec<String>) {
    match (literals(released), literals(current)) {
        (Some(was), Some(is)) => {
            let gone = was.into_iter().filter(|value| !is.contains(value));
            broken.extend(gone.map(|value| format!("{place}: {value} is refused")));
        }
        (None, Some(is)) => broken.push(format!("{place}: is refused unless {}", told(&is))),
        (None, None) if released.get("oneOf") != current.get("oneOf") => {
            broken.push(format!("{place}/oneOf: was changed, which nobody can judge"));
        }
        (Some(_) | None, None) => {}
    }
}

fn told(values: &[&Value]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

/// The values that a schema lists, if it lists them.
fn literals(schema: &Value) -> Option<Vec<&Value>> {
    if let Some(value) = schema.get("const") {
        return Some(vec![value]);
    }
    if let Some(values) = schema.get("enum") {
        return Some(values.as_array()?.iter().collect());
    }
    schema.get("oneOf")?.as_array()?.iter().map(|one| one.get("const")).collect()
}

fn compare_properties(place: &str, was: &Map<String, Value>, is: &Map<String, Value>, broken: &mut Vec<String>) {
    let (properties_before, properties) = (properties(was), properties(is));
    let (required_before, required) = (required(was), required(is));
    for (name, before) in &properties_before {
        let place = format!("{place}/properties/{name}");
        match properties.iter().find(|(one, _)| one == name) {
            Some((_, now)) => compare(&place, before, now, broken),
            None => broken.push(format!("{place}: is gone")),
        }
    }
    for name in required.difference(&required_before) {
        broken.push(format!("{place}/properties/{name}: is required now"));
    }
    for name in required_before.difference(&required) {
        if properties.iter().any(|(one, _)| one == name) {
            broken.push(format!("{place}/properties/{name}: may be absent now, and readers count on it"));
        }
    }
}

fn properties(schema: &Map<String, Value>) -> Vec<(&str, &Value)> {
    let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    properties.map(|(name, schema)| (name.as_str(), schema)).collect()
}

fn required(schema: &Map<String, Value>) -> BTreeSet<&str> {
    schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn compare_keywords(place: &str, was: &Map<String, Value>, is: &Map<String, Value>, broken: &mut Vec<String>) {
    let all: BTreeSet<&str> = was.keys().chain(is.keys()).map(String::as_str).collect();
    for keyword in all.into_iter().filter(|keyword| !SAID.contains(keyword) && !OWN_RULE.contains(keyword)) {
        let (before, now) = (was.get(keyword), is.get(keyword));
        let greater = || now.and_then(Value::as_f64) > before.and_then(Value::as_f64);
        let wider = match (before, now) {
            _ if before == now => true,
            (Some(_), None) => LEAST.contains(&keyword) || MOST.contains(&keyword) || NARROWS.contains(&keyword),
            (Some(_), Some(_)) if LEAST.contains(&keyword) => !greater(),
            (Some(_), Some(_)) if MOST.contains(&keyword) => greater(),
            _ => false,
        };
        if !wider {
            let told = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
            broken.push(format!("{place}/{keyword}: was {}, is {}", told(before), told(now)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use serde_json::json;

    use super::*;
    use crate::events::{Definition, Registry};

    fn of_schemas(released: &Value, current: &Value) -> Vec<String> {
        let of = |schema: &Value| json!({ "type": "a.b", "audience": ["a/{a}"], "schema": schema });
        let broken = breaks(&of(released), &of(current));
        broken.into_iter().map(|broken| broken.trim_start_matches("/schema").to_owned()).collect()
    }

    /// An object of the property `a`, which is as given.
    fn object(a: &Value, required: &[&str]) -> Value {
        json!({ "type": "object", "additionalProperties": false, "properties": { "a": a }, "required": required })
    }

    #[test]
    fn what_lets_more_in_or_only_says_more_breaks_nothing() {
        let text = || json!({"type": "string", "maxLength": 5, "minLength": 2, "pattern": "^a"});
        let mut with_b = object(&text(), &["a"]);
        with_b["properties"]["b"] = json!({"type": "integer"});
        for (released, current) in [
            (object(&text(), &["a"]), object(&text(), &["a"])),
            (object(&text(), &["a"]), with_b),
            (text(), json!({"type": "string", "maxLength": 6, "minLength": 1, "description": "New."})),
            (json!({"enum": ["a", "b"]}), json!({"oneOf": [{"const": "b"}, {"const": "c"}, {"const": "a"}]})),
            (json!({"const": 1}), json!({"enum": [1, 2]})),
            (json!({"type": "array", "items": {"maximum": 5}}), json!({"type": "array", "items": {"maximum": 6}})),
            (json!({"additionalProperties": false}), json!({"additionalProperties": true})),
            (json!({"additionalProperties": false}), json!({})),
            (json!(true), json!({"title": "Anything"})),
        ] {
            assert_eq!(of_schemas(&released, &current), Vec::<String>::new(), "{released} to {current}");
        }
    }

    #[test]
    fn what_refuses_more_or_promises_less_breaks() {
        let (a, number) = (|| object(&json!({"type": "string"}), &["a"]), json!({"type": "integer"}));
        let mut renamed = a();
        renamed["properties"] = json!({"b": {"type": "string"}});
        renamed["required"] = json!(["b"]);
        let mut nested = a();
        nested["properties"]["a"] = json!({"type": "string", "maxLength": 1});
        for (released, current, want) in [
            (a(), renamed, &["/properties/a: is gone", "/properties/b: is required now"][..]),
            (object(&number, &[]), object(&number, &["a"]), &["/properties/a: is required now"]),
            (
                a(),
                object(&json!({"type": "string"}), &[]),
                &["/properties/a: may be absent now, and readers count on it"],
            ),
            (a(), nested, &["/properties/a/maxLength: was nothing, is 1"]),
            (json!({"maximum": 5}), json!({"maximum": 4}), &["/maximum: was 5, is 4"]),
            (json!({"minLength": 1}), json!({"minLength": 2}), &["/minLength: was 1, is 2"]),
            (json!({}), json!({"pattern": "^a"}), &["/pattern: was nothing, is \"^a\""]),
            (json!({"format": "uuid"}), json!({}), &["/format: was \"uuid\", is nothing"]),
            (json!({"type": "integer"}), json!({"type": "string"}), &["/type: was \"integer\", is \"string\""]),
            (
                json!({"type": "integer"}),
                json!({"type": ["integer", "null"]}),
                &["/type: was \"integer\", is [\"integer\",\"null\"]"],
            ),
            (json!({"enum": ["a", "b"]}), json!({"oneOf": [{"const": "b"}]}), &[": \"a\" is refused"]),
            (json!({}), json!({"const": 1}), &[": is refused unless 1"]),
            (
                json!({"oneOf": [{"type": "string"}]}),
                json!({"oneOf": [{"type": "null"}]}),
                &["/oneOf: was changed, which nobody can judge"],
            ),
            (json!({}), json!({"additionalProperties": false}), &["/additionalProperties: is narrower"]),
            (json!({}), json!({"items": {"type": "string"}}), &["/items: is narrower"]),
            (json!({"items": {"maximum": 2}}), json!({"items": {"maximum": 1}}), &["/items/maximum: was 2, is 1"]),
            (json!({}), json!({"not": {"type": "null"}}), &["/not: was nothing, is {\"type\":\"null\"}"]),
            (json!({}), json!(false), &[": was {}, is false"]),
        ] {
            assert_eq!(of_schemas(&released, &current), want, "{released} to {current}");
        }
    }

    #[test]
    fn for_whom_it_is_about_what_and_by_whom_stays() {
        let released = json!({
            "type": "a.b", "subject": "a/{id}", "audience": ["a/{a}"], "lets_in": false, "publisher": "administrator",
            "delivery": "all", "schema": {},
        });
        for (member, value, want) in [
            ("subject", json!("b/{id}"), Some("/subject: was \"a/{id}\", is \"b/{id}\"")),
            ("audience", json!(["everyone"]), Some("/audience: was [\"a/{a}\"], is [\"everyone\"]")),
            ("lets_in", json!(true), Some("/lets_in: was false, is true")),
            ("publisher", json!("nexus"), Some("/publisher: was \"administrator\", is \"nexus\"")),
            ("publisher", json!("service"), None),
            ("delivery", json!("latest-by-subject"), Some("/delivery: was \"all\", is \"latest-by-subject\"")),
            ("domain", json!("post"), None),
        ] {
            let mut current = released.clone();
            current[member] = value;
            assert_eq!(breaks(&released, &current), Vec::from_iter(want), "{member}");
        }
    }

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")
    }

    /// A type as it is released: everything but the list of its versions.
    fn release(definition: &Definition) -> Value {
        let mut release = serde_json::to_value(definition).expect("a definition is JSON");
        release.as_object_mut().expect("a definition is an object").shift_remove("versions");
        release
    }

    #[test]
    fn no_released_type_breaks_without_a_new_version() {
        let (registry, update) = (Registry::built_in(), std::env::var_os("UPDATE_SCHEMAS").is_some());
        let mut expected = BTreeSet::new();
        for definition in registry.definitions() {
            let name = |version: u16| format!("{}.{version}.json", definition.event_type);
            let (file, current) = (name(definition.version), release(definition));
            let path = folder().join(&file);
            let released = fs::read_to_string(&path).ok();
            let released = released.map_or(Value::Null, |text| serde_json::from_str(&text).expect("a release is JSON"));
            let broken = if released.is_null() { Vec::new() } else { breaks(&released, &current) };
            assert!(
                broken.is_empty(),
                "{file} was released, and whoever relies on it would break:\n  {}\nLet the type be as it was, or give \
                 it a new version: put `Earlier {{ released: include_str!(\"../../schemas/{file}\"), upcast }}` at the \
                 end of its `EARLIER`.",
                broken.join("\n  ")
            );
            if update && released != current {
                let text = serde_json::to_string_pretty(&current).expect("a release is JSON");
                fs::write(&path, text + "\n").expect("the folder can be written");
            } else {
                let mend = "`UPDATE_SCHEMAS=1 cargo test -p azora-nexus compatibility` writes it";
                assert_eq!(released, current, "{file} is not what is released now; nothing breaks, {mend}");
            }
            expected.extend((1..=definition.version).map(name));
        }
        let files = fs::read_dir(folder()).expect("the folder is there").filter_map(Result::ok);
        let files: BTreeSet<String> = files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
        assert_eq!(files, expected, "a released type or version stays");
    }
}
