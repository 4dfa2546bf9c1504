//! `/v1/presence`: who is in a room.

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::routing::get;
use serde::Deserialize;

use super::extract::QueryOf;
use super::{Answer, AppState, Operation, Parameter, Routes};
use crate::auth::{Access, Caller, EventsReadOwn, Scope};
use crate::problem::ApiError;
use crate::realtime::presence::Present;
use crate::realtime::rooms;

pub(super) fn routes() -> Routes {
    let description = "The room, such as course/c1. Only those who may see what is told there may ask.";
    let operation = Operation {
        scope: Some(EventsReadOwn::NAME),
        parameters: vec![Parameter { place: "query", name: "room", description, required: true }],
        answers: vec![Answer::json::<Present>(200, "Who has a connection that is in the room, on whichever pod")],
        ..Operation::new(Method::GET, "/v1/presence", "readPresence", "Tells who is in a room")
    };
    Routes::new().with(operation, get(read))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PresenceQuery {
    room: String,
}

async fn read(
    State(state): State<AppState>,
    caller: Caller<EventsReadOwn>,
    QueryOf(PresenceQuery { room }): QueryOf<PresenceQuery>,
) -> Result<Json<Present>, ApiError> {
    let access = Access::load(&state.postgres, &caller.claims).await?;
    rooms::present(&state, &access, &room).await.map(Json)
}
