//! `GET /v1/event-types`: what may be published, and the schema of each version.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

use super::extract::PathOf;
use super::{Answer, AppState, Operation, Parameter, Routes};
use crate::events::Registry;
use crate::problem::ApiError;

pub(super) fn routes() -> Routes {
    let list_operation = Operation {
        answers: vec![Answer::json::<Registry>(200, "Every event type with its schema and versions")],
        ..Operation::new(Method::GET, "/v1/event-types", "listEventTypes", "Lists the event types")
    };
    let path = |name, description| Parameter { place: "path", name, description, required: true };
    let at = "/v1/event-types/{type}/versions/{version}";
    let schema_operation = Operation {
        parameters: vec![path("type", "The event type."), path("version", "The version, from 1 on.")],
        answers: vec![Answer::plain(200, "The JSON Schema of the data")],
        ..Operation::new(
            Method::GET,
            at,
            "readEventSchema",
            "Reads the schema of one version, as `dataschema` names it",
        )
    };
    Routes::new().with(list_operation, get(list)).with(schema_operation, get(schema))
}

/// Needs no token: the types are the same for everybody and published with the source.
async fn list(State(state): State<AppState>) -> Json<Value> {
    Json(document(&state.registry))
}

async fn schema(
    State(state): State<AppState>,
    PathOf((event_type, version)): PathOf<(String, u16)>,
) -> Result<Response, ApiError> {
    let version = state.registry.get(&event_type).and_then(|definition| definition.version(version));
    let version = version.ok_or(ApiError::FindNothing("the event type or its version is not known"))?;
    let media_type = (header::CONTENT_TYPE, HeaderValue::from_static("application/schema+json"));
    Ok(([media_type], version.schema.to_string()).into_response())
}

/// The registry as a document.
pub fn document(registry: &Registry) -> Value {
    json!({ "types": registry.definitions() })
}
