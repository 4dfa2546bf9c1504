//! socketioxide as its documentation sets it up, for `cargo xtask bench compare`: what a client subscribes to is a room,
//! and an event that is posted goes to the rooms of its type and its subject. It keeps nothing and asks nobody who they
//! are.

use axum::routing::post;
use axum::{Json, Router, extract::State, http::StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, Data, SocketRef};

#[derive(Deserialize)]
struct Subscription {
    types: Vec<String>,
    subjects: Option<Vec<String>>,
}

#[tokio::main]
async fn main() {
    let address = std::env::args().nth(1).expect("give the address to listen on, such as 127.0.0.1:4001");
    let (layer, io) = SocketIo::new_layer();
    io.ns("/", async |socket: SocketRef| {
        socket.on("subscribe", async |socket: SocketRef, Data::<Subscription>(wanted), answer: AckSender| {
            socket.join(wanted.subjects.unwrap_or(wanted.types));
            let _ = answer.send(&json!({ "result": {} }));
        });
    });
    let routes = Router::new().route("/v1/events", post(publish)).with_state(io).layer(layer);
    let listener = tokio::net::TcpListener::bind(address).await.expect("listen");
    axum::serve(listener, routes).await.expect("serve");
}

async fn publish(State(io): State<SocketIo>, body: axum::body::Bytes) -> Result<StatusCode, StatusCode> {
    let Json(events) = Json::<Value>::from_bytes(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let events = match events {
        Value::Array(events) => events,
        event => vec![event],
    };
    for event in events {
        let rooms = ["type", "subject"].map(|name| event[name].as_str().unwrap_or_default().to_owned());
        let _ = io.to(rooms).emit("event", &event).await;
    }
    Ok(StatusCode::CREATED)
}
