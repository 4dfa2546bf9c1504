//! The commands a client sends, parsed from one JSON text frame. Pure.
//!
//! A frame is an object with `id` (any integer, echoed in the answer), `command` and the
//! command's own members. Unknown members are refused: a misspelt `after` must not turn
//! a resume into a fresh start.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::events::AnyNewEvent;
use crate::position::Position;

/// One frame of a client.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// The client's own number for the command; the answer carries it.
    pub id: i64,
    /// What to do.
    pub command: Command,
}

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Authenticate; without a token, describe the session (which the upgrade authenticated).
    Connect(Connect),
    /// Replace the token of the same person by a fresh one.
    Refresh(Refresh),
    /// Receive events, from `after` on or from now on.
    Subscribe(Subscribe),
    /// Stop receiving the events of one subscription.
    Unsubscribe(Unsubscribe),
    /// Be in a room, and receive what is told there.
    Join(Join),
    /// Be in a room no longer.
    Leave(Leave),
    /// Ask who is in a room.
    Presence(PresenceOf),
    /// Publish one `CloudEvent`, as `POST /v1/events` does.
    Publish(Publish),
    /// Read past events once, as `GET /v1/events` does.
    History(History),
    /// Ask for a sign of life.
    Ping,
}

/// Members of `connect`.
#[derive(Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// A JWT, without `Bearer`.
    pub token: Option<String>,
}

/// Members of `refresh`.
#[derive(Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    /// A JWT, without `Bearer`.
    pub token: String,
}

/// Members of `subscribe`.
#[derive(Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    /// Patterns of event types: `*` is one segment, `**` any number of them.
    pub types: Vec<String>,
    /// Exact subjects; all of them when absent.
    pub subjects: Option<Vec<String>>,
    /// Attributes of `CloudEvents` and the text that each must have; any when absent.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// Only what is told in this room, in which the client is from then on; any when absent.
    pub room: Option<String>,
    /// The position of the last event the client has; from now on when absent.
    pub after: Option<Position>,
    /// The version of a type in which its events are to come; the current one when absent.
    #[serde(default)]
    pub versions: BTreeMap<String, u16>,
}

/// Members of `join`.
#[derive(Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// The room, such as `course/c1`.
    pub room: String,
    /// The position of the last event the client has; from now on when absent.
    pub after: Option<Position>,
}

/// Members of `leave`.
#[derive(Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Leave {
    /// The room, such as `course/c1`.
    pub room: String,
}

/// Members of `presence`.
#[derive(Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct PresenceOf {
    /// The room, such as `course/c1`.
    pub room: String,
}

/// Members of `unsubscribe`.
#[derive(Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Unsubscribe {
    /// The name that `subscribe` answered with.
    pub subscription: String,
}

/// Members of `publish`.
#[derive(Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// A `CloudEvent` in structured JSON.
    #[schemars(with = "AnyNewEvent")]
    pub event: Value,
}

/// Members of `history`.
#[derive(Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// Patterns of event types; all types when absent.
    pub types: Option<Vec<String>>,
    /// Exact subjects; all of them when absent.
    pub subjects: Option<Vec<String>>,
    /// Only events after this position; from the oldest kept on when absent.
    pub after: Option<Position>,
    /// How many events at most.
    pub limit: Option<u32>,
    /// The version of a type in which its events are to come; the current one when absent.
    #[serde(default)]
    pub versions: BTreeMap<String, u16>,
}

/// Members of `ping`: none.
#[derive(Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Ping {}

/// The form of one command.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// What the command is called.
    pub name: &'static str,
    /// One sentence for people.
    pub summary: &'static str,
    members: fn(&mut SchemaGenerator) -> Schema,
    read: fn(Map<String, Value>) -> Result<Command, String>,
}

/// Every command there is.
pub const COMMANDS: [Form; 10] = [
    Form {
        name: "connect",
        summary: "Authenticates; without a token, describes the session, which the upgrade authenticated.",
        members: Connect::json_schema,
        read: |members| from_members(members).map(Command::Connect),
    },
    Form {
        name: "refresh",
        summary: "Replaces the token of the same person by a fresh one.",
        members: Refresh::json_schema,
        read: |members| from_members(members).map(Command::Refresh),
    },
    Form {
        name: "subscribe",
        summary: "Receives events, from `after` on or from now on.",
        members: Subscribe::json_schema,
        read: |members| from_members(members).map(Command::Subscribe),
    },
    Form {
        name: "unsubscribe",
        summary: "Stops receiving the events of one subscription.",
        members: Unsubscribe::json_schema,
        read: |members| from_members(members).map(Command::Unsubscribe),
    },
    Form {
        name: "join",
        summary: "Is in a room, and receives what is told there.",
        members: Join::json_schema,
        read: |members| from_members(members).map(Command::Join),
    },
    Form {
        name: "leave",
        summary: "Is in a room no longer.",
        members: Leave::json_schema,
        read: |members| from_members(members).map(Command::Leave),
    },
    Form {
        name: "presence",
        summary: "Tells who is in a room.",
        members: PresenceOf::json_schema,
        read: |members| from_members(members).map(Command::Presence),
    },
    Form {
        name: "publish",
        summary: "Publishes one event, as `POST /v1/events` does.",
        members: Publish::json_schema,
        read: |members| from_members(members).map(Command::Publish),
    },
    Form {
        name: "history",
        summary: "Reads past events once, as `GET /v1/events` does.",
        members: History::json_schema,
        read: |members| from_members(members).map(Command::History),
    },
    Form {
        name: "ping",
        summary: "Asks for a sign of life.",
        members: Ping::json_schema,
        read: |members| from_members(members).map(|Ping {}| Command::Ping),
    },
];

impl Form {
    /// Schema of the command's members, as Socket.IO carries them.
    pub fn members(&self, generator: &mut SchemaGenerator) -> Value {
        let mut schema = (self.members)(generator).to_value();
        schema["description"] = json!(self.summary);
        schema
    }

    /// Schema of the whole frame, as a WebSocket carries it: the members behind `id` and `command`.
    pub fn frame(&self, generator: &mut SchemaGenerator) -> Value {
        let mut schema = self.members(generator);
        let mut properties = Map::new();
        let id = json!({ "type": "integer", "description": "The client's own number for it; the answer carries it." });
        properties.insert("id".to_owned(), id);
        properties.insert("command".to_owned(), json!({ "type": "string", "const": self.name }));
        let mut required = vec![json!("id"), json!("command")];
        if let Value::Object(members) = schema["properties"].take() {
            properties.extend(members);
        }
        if let Value::Array(members) = schema["required"].take() {
            required.extend(members);
        }
        schema["properties"] = properties.into();
        schema["required"] = required.into();
        schema
    }
}

/// A frame that is no command. `id` is the client's, where it could be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{message}")]
pub struct ParseFrame {
    /// The `id` of the frame, where it has one.
    pub id: Option<i64>,
    /// What is wrong with it, for the client.
    pub message: String,
}

#[derive(Deserialize)]
struct Envelope {
    id: Option<i64>,
    command: Option<String>,
    #[serde(flatten)]
    members: Map<String, Value>,
}

impl Frame {
    /// Parses one text frame.
    pub fn parse(text: &str) -> Result<Self, ParseFrame> {
        let Envelope { id, command, members } = serde_json::from_str(text).map_err(|error| ParseFrame {
            id: None,
            message: format!("the frame is no JSON object with an integer `id`: {error}"),
        })?;
        let refuse = |message: String| ParseFrame { id, message };
        let id = id.ok_or_else(|| refuse("`id` is missing".into()))?;
        let name = command.ok_or_else(|| refuse("`command` is missing".into()))?;
        let command = Command::parse(&name, members).map_err(|message| ParseFrame { id: Some(id), message })?;
        Ok(Self { id, command })
    }
}

impl Command {
    /// The command of this name; or what is wrong with it.
    pub(super) fn parse(name: &str, members: Map<String, Value>) -> Result<Self, String> {
        let Some(form) = COMMANDS.iter().find(|form| form.name == name) else {
            return Err(format!(
                "unknown command `{}`; there are {}",
                name.chars().take(40).collect::<String>(),
                COMMANDS.map(|form| form.name).join(", ")
            ));
        };
        (form.read)(members)
    }
}

fn from_members<T: serde::de::DeserializeOwned>(members: Map<String, Value>) -> Result<T, String> {
    serde_json::from_value(Value::Object(members)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod laws;

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (Option<i64>, String) {
        let error = Frame::parse(text).expect_err("the frame is bad");
        (error.id, error.message)
    }

    #[test]
    fn a_subscription_with_a_position_is_parsed_whole() {
        let text = r#"{"id":7,"command":"subscribe","types":["wallet.*"],"subjects":["wallet/1"],"after":"1.42",
            "versions":{"wallet.created":1}}"#;
        let want = Frame {
            id: 7,
            command: Command::Subscribe(Subscribe {
                types: vec!["wallet.*".into()],
                subjects: Some(vec!["wallet/1".into()]),
                attributes: BTreeMap::new(),
                room: None,
                after: Some(Position { epoch: 1, seq: 42 }),
                versions: BTreeMap::from([("wallet.created".into(), 1)]),
            }),
        };
        assert_eq!(Frame::parse(text), Ok(want));
    }

    #[test]
    fn a_misspelt_member_is_refused_with_the_id_of_the_frame() {
        let (id, message) = refused(r#"{"id":7,"command":"subscribe","types":["**"],"aftr":"1.42"}"#);
        assert_eq!(id, Some(7));
        let members = "`types`, `subjects`, `attributes`, `room`, `after`, `versions`";
        assert_eq!(message, format!("unknown field `aftr`, expected one of {members}"));
    }

    #[test]
    fn frames_that_are_no_commands_are_refused_each_with_its_reason() {
        assert_eq!(refused(r#"{"command":"ping"}"#), (None, "`id` is missing".into()));
        assert_eq!(refused(r#"{"id":1}"#), (Some(1), "`command` is missing".into()));
        let (id, message) = refused("not json");
        assert_eq!(id, None);
        assert!(message.starts_with("the frame is no JSON object"), "{message}");
        let (id, message) = refused(r#"{"id":2,"command":"fly"}"#);
        assert_eq!(id, Some(2));
        assert!(message.starts_with("unknown command `fly`"), "{message}");
    }

    #[test]
    fn a_publish_without_an_event_is_refused() {
        let (id, message) = refused(r#"{"id":2,"command":"publish"}"#);
        assert_eq!((id, message.as_str()), (Some(2), "missing field `event`"));
    }
}
