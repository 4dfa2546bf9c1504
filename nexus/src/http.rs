//! The HTTP front: what is shared by all handlers, and how the router is put together.

pub mod operation;
pub mod state;

pub mod asyncapi;
pub mod consumers;
pub mod event_stream;
pub mod event_types;
pub mod events;
pub mod health;
pub mod log_filter;
pub mod openapi;
pub mod presence;
pub mod revocations;
pub mod server;
pub mod socket_io;
pub mod stream;
pub mod users;
pub mod webhooks;

pub(crate) mod admission;
pub mod extract;
pub mod forward;
mod layers;
mod lent;
mod unread;

pub use operation::{Answer, Operation, Parameter, Routes};
pub use state::{AppState, Shared};

use axum::Router;

/// Every route, with its documentation. A new front adds its line here.
pub fn routes() -> Routes {
    Routes::new()
        .merge(events::routes())
        .merge(event_types::routes())
        .merge(users::routes())
        .merge(presence::routes())
        .merge(revocations::routes())
        .merge(log_filter::routes())
        .merge(consumers::routes())
        .merge(webhooks::routes())
        .merge(stream::routes())
        .merge(event_stream::routes())
        .merge(socket_io::routes())
        .merge(health::routes())
        .merge(openapi::routes())
        .merge(asyncapi::routes())
}

/// The service as it is served: routes, answers for what is not routed, and the layers around all.
pub fn router(state: AppState) -> Router {
    layers::surround(routes().into_router(), state)
}
