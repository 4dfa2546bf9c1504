//! `GET /v1/event-types`: what may be published.

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::routing::get;
use serde_json::{Value, json};

use super::{Answer, AppState, Operation, Routes};
use crate::events::Registry;

pub(super) fn routes() -> Routes {
    let operation = Operation {
        answers: vec![Answer::json::<Registry>(200, "Every event type with its schema")],
        ..Operation::new(Method::GET, "/v1/event-types", "listEventTypes", "Lists the event types")
    };
    Routes::new().with(operation, get(list))
}

/// Needs no token: the types are the same for everybody and published with the source.
async fn list(State(state): State<AppState>) -> Json<Value> {
    Json(document(&state.registry))
}

/// The registry as a document.
pub fn document(registry: &Registry) -> Value {
    json!({ "types": registry.definitions() })
}
