//! `/openapi.json`: OpenAPI 3.1, made from the same values that the router is made from.

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::routing::get;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::operation::SchemaOf;
use super::{Answer, AppState, Operation, Parameter, Routes};
use crate::events::Registry;
use crate::problem::Problem;

pub(super) fn routes() -> Routes {
    let answer = Answer::plain(200, "OpenAPI 3.1");
    let operation = Operation {
        answers: vec![answer],
        ..Operation::new(Method::GET, "/openapi.json", "getOpenApi", "This document")
    };
    Routes::new().with(operation, get(serve))
}

async fn serve(State(state): State<AppState>) -> Json<Value> {
    Json(document(super::routes().operations(), &state.registry))
}

/// The document of these operations and event types.
pub fn document(operations: &[Operation], registry: &Registry) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for operation in operations {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.as_str().to_ascii_lowercase()] = describe(operation, &mut generator);
    }
    let mut schemas: Map<String, Value> = generator.take_definitions(true);
    add_types(&mut schemas, registry);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Azora Nexus",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The event bus and sync manager of the Azora data layer.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
        },
    })
}

/// Tells in the schema of an event which types there are, and adds the schema of each one's data.
fn add_types(schemas: &mut Map<String, Value>, registry: &Registry) {
    let types = registry.definitions().iter().map(|definition| &*definition.event_type);
    let data = types.clone().map(|name| json!({ "$ref": format!("#/components/schemas/{name}") }));
    if let Some(event) = schemas.get_mut("Event") {
        event["properties"]["type"]["enum"] = types.collect();
        event["properties"]["data"]["anyOf"] = data.collect();
    }
    for definition in registry.definitions() {
        schemas.insert(definition.event_type.to_string(), definition.schema_in_document());
    }
}

fn describe(operation: &Operation, generator: &mut SchemaGenerator) -> Value {
    let mut answers: Map<String, Value> = operation
        .answers
        .iter()
        .map(|answer| (answer.status.to_string(), describe_answer(answer, generator)))
        .collect();
    let problem: SchemaOf = SchemaGenerator::subschema_for::<Problem>;
    let problem = content(&[("application/problem+json", problem)], generator);
    answers.insert("default".to_owned(), json!({ "description": "A problem document (RFC 9457)", "content": problem }));
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": operation.parameters.iter().map(describe_parameter).collect::<Vec<_>>(),
        "responses": answers,
    });
    if let Some(scope) = operation.scope {
        described["security"] = json!([{ "token": [scope] }]);
    }
    if !operation.body.is_empty() {
        described["requestBody"] = json!({ "required": true, "content": content(&operation.body, generator) });
    }
    described
}

fn describe_parameter(parameter: &Parameter) -> Value {
    json!({
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "description": parameter.description,
        "schema": { "type": "string" },
    })
}

fn describe_answer(answer: &Answer, generator: &mut SchemaGenerator) -> Value {
    let mut described = json!({ "description": answer.description });
    if let Some(body) = answer.body {
        described["content"] = content(&[body], generator);
    }
    if !answer.headers.is_empty() {
        let header = |name: &&str| ((*name).to_owned(), json!({ "schema": { "type": "string" } }));
        described["headers"] = answer.headers.iter().map(header).collect::<Map<_, _>>().into();
    }
    described
}

fn content(bodies: &[(&'static str, SchemaOf)], generator: &mut SchemaGenerator) -> Value {
    let body = |(media_type, schema): &(&'static str, SchemaOf)| {
        ((*media_type).to_owned(), json!({ "schema": schema(generator) }))
    };
    Value::Object(bodies.iter().map(body).collect())
}

/// The references of a document that lead nowhere.
#[cfg(test)]
pub(super) fn dangling(document: &Value) -> Vec<String> {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|field| references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let mut targets = Vec::new();
    references(document, &mut targets);
    assert!(!targets.is_empty(), "the document refers to nothing");
    targets.retain(|target| document.pointer(target.trim_start_matches('#')).is_none());
    targets.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reference_leads_to_a_schema() {
        let registry = Registry::built_in();
        let document = document(super::super::routes().operations(), &registry);
        assert_eq!(dangling(&document), Vec::<String>::new());
        let event = &document["components"]["schemas"]["Event"]["properties"];
        assert_eq!(event["type"]["enum"].as_array().map(Vec::len), Some(16));
        assert_eq!(event["data"]["anyOf"].as_array().map(Vec::len), Some(16));
    }

    #[test]
    fn every_path_parameter_is_described() {
        for operation in super::super::routes().operations() {
            let in_path: BTreeSet<_> =
                operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
            let described = operation.parameters.iter().filter(|parameter| parameter.place == "path");
            assert_eq!(
                described.map(|parameter| parameter.name).collect::<BTreeSet<_>>(),
                in_path,
                "{}",
                operation.path
            );
        }
    }

    #[test]
    fn operation_names_are_unique() {
        let routes = super::super::routes();
        let names: BTreeSet<_> = routes.operations().iter().map(|operation| operation.id).collect();
        assert_eq!(names.len(), routes.operations().len());
    }
}
