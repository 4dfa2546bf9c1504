//! The messages of the real-time fronts and the schemas of what they carry. Each schema stands once, under a name.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::to;
use crate::events::{Definition, Registry};
use crate::http::events::Event;
use crate::position::Position;
use crate::realtime::command::{COMMANDS, Form};
use crate::realtime::encode;

/// A way in or out, as `docs/CLIENTS.md` tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Front {
    WebSocket,
    CloudEvents,
    EventStream,
    SocketIo,
}

pub(super) const FRONTS: [Front; 4] = [Front::WebSocket, Front::CloudEvents, Front::EventStream, Front::SocketIo];

impl Front {
    /// The name of its channel.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "stream",
            Self::CloudEvents => "cloudEvents",
            Self::EventStream => "eventStream",
            Self::SocketIo => "socketIo",
        }
    }

    pub(super) fn server(self) -> &'static str {
        match self {
            Self::WebSocket => "webSocket",
            Self::CloudEvents => "cloudEvents",
            Self::EventStream => "http",
            Self::SocketIo => "socketIo",
        }
    }

    pub(super) fn address(self) -> &'static str {
        match self {
            Self::WebSocket | Self::CloudEvents => "/v1/stream",
            Self::EventStream => "/v1/stream/sse",
            Self::SocketIo => "/socket.io/",
        }
    }

    pub(super) fn description(self) -> &'static str {
        match self {
            Self::WebSocket => "One JSON object per text frame. A command has an `id`, which its answer repeats.",
            Self::CloudEvents => {
                "For a client that offers the subprotocol `cloudevents.json`: each text frame is a CloudEvent, both ways. \
                 The query says what is followed. After `nexus.gap` the connection ends."
            }
            Self::EventStream => {
                "Events without a name are CloudEvents and have their position as `id`; the others are named after \
                 their message. A client comes back with `Last-Event-ID`."
            }
            Self::SocketIo => {
                "Commands are events of their name with one object and an ack; what comes is an event of its type's \
                 name, with an offset as the last argument, which the client hands back by itself."
            }
        }
    }

    /// The names of the messages that answer a command.
    pub(super) fn answers(self) -> &'static [&'static str] {
        match self {
            Self::WebSocket => &["answer", "refusal"],
            Self::CloudEvents => &["nexus.refused"],
            Self::EventStream => &[],
            Self::SocketIo => &["ack"],
        }
    }

    /// Name and summary of what it receives.
    pub(super) fn received(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let commands: &[Form] = match self {
            Self::WebSocket | Self::SocketIo => &COMMANDS,
            Self::CloudEvents | Self::EventStream => &[],
        };
        let event = (self == Self::CloudEvents).then_some(PUBLISH);
        commands.iter().map(|command| (command.name, command.summary)).chain(event)
    }
}

/// The only message that plain `CloudEvents` bring.
const PUBLISH: (&str, &str) = ("publish", "Publishes an event.");

/// Everything that a component is made from.
pub(super) struct Messages {
    /// By their keys among the components.
    pub(super) all: Map<String, Value>,
    pub(super) schemas: Map<String, Value>,
    /// Front, name in its channel, and key among the components.
    places: Vec<(Front, String, String)>,
}

impl Messages {
    pub(super) fn of(registry: &Registry) -> Self {
        let settings = SchemaSettings::draft07().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
        let mut generator = settings.into_generator();
        let mut messages = Self { all: Map::new(), schemas: Map::new(), places: Vec::new() };
        messages.add_events(registry);
        messages.add_commands(&mut generator);
        messages.add_pushes(&mut generator);
        generator.subschema_for::<Event>();
        let events = std::mem::take(&mut messages.schemas);
        messages.schemas = generator.take_definitions(true);
        // In place of what stood for them while nobody knew which types there are.
        messages.schemas.extend(events);
        messages
    }

    /// Names in the front's channel and keys among the components.
    pub(super) fn keys(&self, front: Front) -> impl Iterator<Item = (&str, &str)> {
        let here = self.places.iter().filter(move |(of, ..)| *of == front);
        here.map(|(_, name, key)| (name.as_str(), key.as_str()))
    }

    /// Names of what the front sends without being asked.
    pub(super) fn sent(&self, front: Front) -> impl Iterator<Item = &str> {
        let is_received = move |name: &str| front.received().any(|(received, _)| received == name);
        let names = self.keys(front).map(|(name, _)| name);
        names.filter(move |name| !is_received(name) && !front.answers().contains(name))
    }

    fn add_events(&mut self, registry: &Registry) {
        for definition in registry.definitions() {
            let name = &*definition.event_type;
            self.schemas.insert(name.to_owned(), definition.schema_in_document());
            self.schemas.insert(format!("{name}.event"), event_of(definition));
            let message = json!({
                "name": name,
                "summary": definition.description,
                "contentType": "application/cloudevents+json",
                "payload": to("schemas", &format!("{name}.event")),
            });
            self.all.insert(name.to_owned(), message);
            for front in [Front::CloudEvents, Front::EventStream, Front::SocketIo] {
                self.places.push((front, name.to_owned(), name.to_owned()));
            }
        }
        let types = registry.definitions().iter().map(|definition| &definition.event_type);
        let any: Vec<Value> = types.map(|name| to("schemas", &format!("{name}.event"))).collect();
        let described = "An event of any type; `type` tells which.";
        self.schemas.insert("AzoraEvent".to_owned(), json!({ "description": described, "oneOf": any }));
        let described = "An event as it is published: Nexus gives it its position.";
        let all = json!([to("schemas", "AzoraEvent"), { "not": { "required": ["position"] } }]);
        self.schemas.insert("NewEvent".to_owned(), json!({ "description": described, "allOf": all }));
        let (name, summary) = PUBLISH;
        self.add(Front::CloudEvents, name, summary, &to("schemas", "NewEvent"));
    }

    fn add_commands(&mut self, generator: &mut SchemaGenerator) {
        for command in COMMANDS {
            for (front, payload) in
                [(Front::WebSocket, command.frame(generator)), (Front::SocketIo, command.members(generator))]
            {
                self.add(front, command.name, command.summary, &payload);
            }
        }
        let error = error();
        let number = json!({ "type": "integer", "description": "The `id` of the command." });
        let perhaps = json!({ "type": ["integer", "null"], "description": "The `id`; null when none could be read." });
        let result = json!({ "description": "What the command tells." });
        let answer = object(&[("id", number), ("result", result.clone())]);
        let refusal = object(&[("id", perhaps), ("error", error.clone())]);
        let (done, refused) = (object(&[("result", result)]), object(&[("error", error.clone())]));
        self.add(Front::WebSocket, "answer", "Answers a command.", &answer);
        self.add(Front::WebSocket, "refusal", "Refuses a command.", &refusal);
        self.add(Front::SocketIo, "ack", "Answers or refuses a command.", &json!({ "oneOf": [done, refused] }));
        let told = json!({
            "type": "object",
            "properties": { "command": text("The command that was refused."), "error": error },
            "required": ["error"],
        });
        self.add(Front::SocketIo, "error", "Tells of what was refused and has no ack.", &told);
        let mut data = error;
        for (name, of) in [("id", "The `id` of the refused event"), ("source", "The `source` of the refused event")] {
            data["properties"][name] =
                json!({ "type": ["string", "null"], "description": format!("{of}, if it had one.") });
        }
        let refused = own_event("nexus.refused", &[("data", data)]);
        self.add(Front::CloudEvents, "nexus.refused", "Refuses an event.", &refused);
    }

    fn add_pushes(&mut self, generator: &mut SchemaGenerator) {
        for (name, payload) in encode::pushes(generator) {
            let summary = payload["description"].as_str().unwrap_or_default();
            self.add(Front::WebSocket, &name, summary, &payload);
        }
        let position = generator.subschema_for::<Position>().to_value();
        let ends = [("from", position.clone()), ("to", position.clone())];
        let gap = "The events after `from` up to `to` are no longer kept.";
        self.add(Front::EventStream, "gap", gap, &object(&ends));
        let event = own_event("nexus.gap", &[("data", object(&ends)), ("position", position)]);
        self.add(Front::CloudEvents, "nexus.gap", gap, &event);
        let [from, to] = ends;
        self.add(Front::SocketIo, "gap", gap, &object(&[("subscription", text("Its name.")), from, to]));
        let code = json!({ "type": "integer", "description": "As a WebSocket would be closed with." });
        let close = object(&[("code", code), ("reason", text("Stable, for programs."))]);
        self.add(Front::EventStream, "close", "Why the stream ends.", &close);
    }

    fn add(&mut self, front: Front, name: &str, summary: &str, payload: &Value) {
        let key = format!("{}.{name}", front.name());
        let mut message = json!({ "name": name, "summary": summary, "payload": payload });
        if front == Front::CloudEvents {
            message["contentType"] = json!("application/cloudevents+json");
        }
        self.all.insert(key.clone(), message);
        self.places.push((front, name.to_owned(), key));
    }
}

/// The `CloudEvent` of a type.
fn event_of(definition: &Definition) -> Value {
    let name = &*definition.event_type;
    json!({
        "description": definition.description,
        "allOf": [to("schemas", "Event")],
        "type": "object",
        "properties": {
            "type": { "const": name },
            "subject": { "type": "string", "description": format!("In the form {}.", definition.subject) },
            "data": to("schemas", name),
            "position": to("schemas", "Position"),
        },
    })
}

/// An event that Nexus tells of itself, which the log does not have.
fn own_event(name: &str, members: &[(&str, Value)]) -> Value {
    let always = [
        ("specversion", json!({ "const": "1.0" })),
        ("id", text("Unique.")),
        ("source", json!({ "const": "/nexus" })),
        ("type", json!({ "const": name })),
        ("subject", text("What it is about.")),
        ("datacontenttype", json!({ "const": "application/json" })),
    ];
    object(&[&always, members].concat())
}

/// Why something is refused.
fn error() -> Value {
    let mut error = object(&[("code", text("Stable, for programs.")), ("message", text("For people."))]);
    error["properties"]["retry_after_ms"] =
        json!({ "type": "integer", "description": "In how long it may be worth another try, where that is known." });
    error
}

/// An object that has all of these.
fn object(properties: &[(&str, Value)]) -> Value {
    let required: Vec<&str> = properties.iter().map(|(name, _)| *name).collect();
    let properties: Map<String, Value> = properties.iter().map(|(name, of)| ((*name).to_owned(), of.clone())).collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}
