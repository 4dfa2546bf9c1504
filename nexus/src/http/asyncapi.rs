//! `/asyncapi.json`: AsyncAPI 3.0, the real-time fronts as OpenAPI describes the others. Made from the registry, and from
//! the table that commands are read by; it says nothing that is not served.
//! Source: <https://www.asyncapi.com/docs/reference/specification/v3.0.0>

mod messages;

use axum::Json;
use axum::extract::State;
use axum::http::Method;
use axum::routing::get;
use serde_json::{Map, Value, json};

use super::stream::CLOUD_EVENTS;
use super::{Answer, AppState, Operation, Parameter, Routes};
use crate::events::Registry;
use messages::{Front, Messages};

pub(super) fn routes() -> Routes {
    let answer = Answer::plain(200, "AsyncAPI 3.0");
    let operation = Operation {
        answers: vec![answer],
        ..Operation::new(
            Method::GET,
            "/asyncapi.json",
            "getAsyncApi",
            "The real-time fronts, as AsyncAPI describes them",
        )
    };
    let serve = |State(state): State<AppState>| async move { Json(document(&state.registry)) };
    Routes::new().with(operation, get(serve))
}

/// The document of this registry.
pub fn document(registry: &Registry) -> Value {
    let messages = Messages::of(registry);
    let (mut channels, mut operations) = (Map::new(), Map::new());
    for front in messages::FRONTS {
        channels.insert(front.name().to_owned(), channel(front, &messages));
        operations.extend(operations_of(front, &messages));
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Azora Nexus",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Events as they come, and what a client asks for over the same connection. Every event has a \
                `position`: hand the last one back, on any pod, and what was missed comes.",
            "license": { "name": env!("CARGO_PKG_LICENSE") },
        },
        "defaultContentType": "application/json",
        "servers": servers(),
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages.all,
            "schemas": messages.schemas,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "In the header." },
                "tokenInQuery": {
                    "type": "httpApiKey", "in": "query", "name": "access_token",
                    "description": "The same token, for an EventSource, which cannot send a header.",
                },
            },
        },
    })
}

/// One per protocol. Each is reached at the same address.
fn servers() -> Value {
    let server = |protocol, description, schemes: &[&str]| {
        let security: Vec<Value> = schemes.iter().map(|scheme| to("securitySchemes", scheme)).collect();
        json!({
            "host": "{address}", "protocol": protocol, "description": description, "security": security,
            "variables": { "address": { "default": "127.0.0.1:4001", "description": "Where Nexus is served." } },
        })
    };
    let in_a_command = "The token stands in the header of the upgrade, or in the first command, `connect`.";
    let in_the_connect = "The token stands in the header of the upgrade, or in `auth` of the connect packet.";
    json!({
        (Front::WebSocket.server()): server("ws", in_a_command, &["token"]),
        (Front::CloudEvents.server()): server("ws", "Plain CloudEvents.", &["token", "tokenInQuery"]),
        (Front::EventStream.server()): server("http", "Server-sent events.", &["token", "tokenInQuery"]),
        (Front::SocketIo.server()): server("socket.io", in_the_connect, &["token"]),
    })
}

fn channel(front: Front, messages: &Messages) -> Value {
    let keys = messages.keys(front);
    let messages: Map<String, Value> = keys.map(|(name, key)| (name.to_owned(), to("messages", key))).collect();
    let mut channel = json!({
        "address": front.address(),
        "description": front.description(),
        "servers": [{ "$ref": format!("#/servers/{}", front.server()) }],
        "messages": messages,
    });
    match front {
        Front::WebSocket => channel["bindings"] = json!({ "ws": { "method": "GET", "bindingVersion": "0.1.0" } }),
        Front::CloudEvents => {
            let subprotocol = json!({ "const": CLOUD_EVENTS });
            let name = "Sec-WebSocket-Protocol";
            let headers = json!({ "type": "object", "properties": { name: subprotocol }, "required": [name] });
            let binding = json!({ "method": "GET", "query": query(), "headers": headers, "bindingVersion": "0.1.0" });
            channel["bindings"] = json!({ "ws": binding });
        }
        Front::EventStream | Front::SocketIo => {}
    }
    channel
}

/// What Nexus receives and answers, one operation per command, and what it sends.
fn operations_of(front: Front, messages: &Messages) -> Map<String, Value> {
    let channel = json!({ "$ref": format!("#/channels/{}", front.name()) });
    let in_channel = |name: &str| json!({ "$ref": format!("#/channels/{}/messages/{name}", front.name()) });
    let mut operations = Map::new();
    for (name, summary) in front.received() {
        let answers: Vec<Value> = front.answers().iter().map(|name| in_channel(name)).collect();
        let operation = json!({
            "action": "receive",
            "channel": channel,
            "summary": summary,
            "messages": [in_channel(name)],
            "reply": { "channel": channel, "messages": answers },
        });
        operations.insert(format!("{}.{name}", front.name()), operation);
    }
    let sent: Vec<Value> = messages.sent(front).map(in_channel).collect();
    let mut operation = json!({
        "action": "send", "channel": channel, "summary": "Brings what is subscribed to.", "messages": sent,
    });
    if front == Front::EventStream {
        operation["bindings"] = json!({ "http": { "method": "GET", "query": query(), "bindingVersion": "0.3.0" } });
    }
    operations.insert(format!("{}.push", front.name()), operation);
    operations
}

/// The query of the event stream, as OpenAPI tells it.
fn query() -> Value {
    let routes = super::event_stream::routes();
    let parameters = routes.operations().iter().flat_map(|operation| &operation.parameters);
    let property = |parameter: &Parameter| {
        (parameter.name.to_owned(), json!({ "type": "string", "description": parameter.description }))
    };
    let properties: Map<String, Value> = parameters.filter(|one| one.place == "query").map(property).collect();
    json!({ "type": "object", "properties": properties })
}

/// A reference to a component.
fn to(kind: &str, key: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{key}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::openapi::dangling;
    use crate::realtime::command::COMMANDS;

    #[test]
    fn every_reference_leads_somewhere() {
        assert_eq!(dangling(&document(&Registry::built_in())), Vec::<String>::new());
    }

    #[test]
    fn every_event_type_is_a_message_of_each_front_with_the_schema_of_its_data() {
        let registry = Registry::built_in();
        let document = document(&registry);
        for definition in registry.definitions() {
            let name = &*definition.event_type;
            let data = &document["components"]["schemas"][name];
            assert_eq!(data["properties"], definition.schema["properties"], "{name}");
            let event = &document["components"]["schemas"][format!("{name}.event")];
            assert!(event.to_string().contains(&format!("\"#/components/schemas/{name}\"")), "{event}");
            let message = json!({ "$ref": format!("#/components/messages/{name}") });
            for front in ["cloudEvents", "eventStream", "socketIo"] {
                assert_eq!(document["channels"][front]["messages"][name], message);
                let sent = json!({ "$ref": format!("#/channels/{front}/messages/{name}") });
                let sends = document["operations"][format!("{front}.push")]["messages"].as_array().expect("messages");
                assert!(sends.contains(&sent), "{front} {name}");
            }
            let any = document["components"]["schemas"]["AzoraEvent"]["oneOf"].as_array().expect("it is one of them");
            assert!(any.contains(&json!({ "$ref": format!("#/components/schemas/{name}.event") })), "{name}");
        }
    }

    #[test]
    fn every_command_can_be_sent_and_is_answered() {
        let document = document(&Registry::built_in());
        for command in COMMANDS {
            for front in ["stream", "socketIo"] {
                let operation = &document["operations"][format!("{front}.{}", command.name)];
                assert_eq!(operation["action"], "receive", "{front} {}", command.name);
                assert!(operation["reply"]["messages"].as_array().is_some_and(|answers| !answers.is_empty()));
            }
            let frame = &document["components"]["messages"][format!("stream.{}", command.name)]["payload"];
            assert_eq!(frame["properties"]["command"]["const"], command.name);
        }
    }

    #[test]
    fn plain_events_are_published_and_nothing_but_events_is_sent() {
        let registry = Registry::built_in();
        let document = document(&registry);
        let named = |messages: &Value| -> Vec<String> {
            let messages = messages.as_array().expect("messages").iter();
            let reference = |message: &Value| message["$ref"].as_str().expect("a reference").to_owned();
            messages.map(|message| reference(message).replace("#/channels/cloudEvents/messages/", "")).collect()
        };
        let operations = &document["operations"];
        assert_eq!(named(&operations["cloudEvents.publish"]["messages"]), ["publish"]);
        assert_eq!(named(&operations["cloudEvents.publish"]["reply"]["messages"]), ["nexus.refused"]);
        let types = registry.definitions().iter().map(|definition| definition.event_type.to_string());
        let want: Vec<String> = types.chain(["nexus.gap".to_owned()]).collect();
        assert_eq!(named(&operations["cloudEvents.push"]["messages"]), want);
    }
}
