//! The `CloudEvents` 1.0 envelope in structured JSON: read strictly, written in one canonical form.
//! Source: <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::version::{FIRST, named, reference};

/// Longest `id` and `source` and `subject`, in bytes. They are stored and indexed with every event.
const ATTRIBUTE_BYTES_MAX: usize = 256;
/// Most extension attributes on one event.
const EXTENSIONS_MAX: usize = 16;
/// Longest extension name, as the specification recommends.
const EXTENSION_NAME_BYTES_MAX: usize = 20;

/// One event as a client sends it.
#[derive(Clone, Debug, PartialEq)]
pub struct CloudEvent {
    /// Unique per source; the two together are the idempotency key.
    pub id: String,
    /// Who produced the event, a URI reference.
    pub source: String,
    /// One of the registered types.
    pub event_type: String,
    /// What the event is about, in the form that the registry asks for.
    pub subject: String,
    /// When it happened.
    pub time: Timestamp,
    /// The version of the type that the payload is in.
    pub version: u16,
    /// The payload.
    pub data: Value,
    /// Further attributes, such as `traceparent`.
    pub extensions: BTreeMap<String, Value>,
}

/// One reason why an event is refused, with the place in the document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Violation {
    /// JSON Pointer into the event, such as `/data/amount_minor`; empty for the whole.
    pub path: String,
    /// What is wrong there.
    pub message: String,
}

impl Violation {
    /// A violation at `path`.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

impl CloudEvent {
    /// Reads an event from JSON; `now` is the time of an event that names none. Lists everything that is wrong.
    pub fn read(document: Value, now: Timestamp) -> Result<Self, Vec<Violation>> {
        let Value::Object(attributes) = document else {
            return Err(vec![Violation::new("", "an event is a JSON object")]);
        };
        let mut reader = Reader { attributes, violations: Vec::new() };
        reader.constant("specversion", "1.0", true);
        reader.constant("datacontenttype", "application/json", false);
        let (id, source, event_type) = (reader.text("id"), reader.source(), reader.text("type"));
        let event = Self {
            subject: reader.text("subject"),
            time: reader.time(now),
            version: reader.version(&event_type),
            data: reader.data(),
            id,
            source,
            event_type,
            extensions: reader.extensions(),
        };
        if reader.violations.is_empty() { Ok(event) } else { Err(reader.violations) }
    }

    /// The canonical JSON text. Attributes stand in a fixed order, extensions sorted, `data` last.
    pub fn encode(&self) -> String {
        #[derive(Serialize)]
        struct Envelope<'a> {
            specversion: &'static str,
            id: &'a str,
            source: &'a str,
            r#type: &'a str,
            subject: &'a str,
            time: Timestamp,
            datacontenttype: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            dataschema: Option<String>,
            #[serde(flatten)]
            extensions: &'a BTreeMap<String, Value>,
            data: &'a Value,
        }
        let envelope = Envelope {
            specversion: "1.0",
            id: &self.id,
            source: &self.source,
            r#type: &self.event_type,
            subject: &self.subject,
            time: self.time,
            datacontenttype: "application/json",
            // As it was before there were versions, for as long as a type has one.
            dataschema: (self.version != FIRST).then(|| reference(&self.event_type, self.version)),
            extensions: &self.extensions,
            data: &self.data,
        };
        serde_json::to_string(&envelope).expect("an event has only string keys, so it always serialises")
    }
}

/// Takes attributes out of the document one by one and notes what is wrong; the rest are extensions.
struct Reader {
    attributes: Map<String, Value>,
    violations: Vec<Violation>,
}

impl Reader {
    fn refuse(&mut self, attribute: &str, message: impl Into<String>) {
        self.violations.push(Violation::new(format!("/{attribute}"), message));
    }

    fn constant(&mut self, attribute: &str, expected: &str, required: bool) {
        match self.attributes.remove(attribute) {
            None if !required => {}
            Some(Value::String(value)) if value == expected => {}
            _ => self.refuse(attribute, format!("must be \"{expected}\"")),
        }
    }

    fn text(&mut self, attribute: &str) -> String {
        match self.attributes.remove(attribute) {
            Some(Value::String(text)) if is_plain(&text) => return text,
            Some(Value::String(_)) => {
                let message = format!("must have 1 to {ATTRIBUTE_BYTES_MAX} bytes and no control characters");
                self.refuse(attribute, message);
            }
            Some(_) => self.refuse(attribute, "must be a string"),
            None => self.refuse(attribute, "is required"),
        }
        String::new()
    }

    fn source(&mut self) -> String {
        let source = self.text("source");
        if source.chars().any(|character| character.is_whitespace() || "<>\"{}|\\^`".contains(character)) {
            self.refuse("source", "must be a URI reference");
        }
        source
    }

    fn time(&mut self, now: Timestamp) -> Timestamp {
        match self.attributes.remove("time") {
            None => return now,
            Some(Value::String(text)) => {
                if let Ok(time) = text.parse() {
                    return time;
                }
                self.refuse("time", "must be an RFC 3339 timestamp");
            }
            Some(_) => self.refuse("time", "must be an RFC 3339 timestamp"),
        }
        now
    }

    fn data(&mut self) -> Value {
        if self.attributes.remove("data_base64").is_some() {
            self.refuse("data_base64", "binary data is not accepted; every registered type has JSON data");
        }
        let Some(data) = self.attributes.remove("data") else {
            self.refuse("data", "is required");
            return Value::Null;
        };
        if holds_nul(&data) {
            self.refuse("data", "must have no NUL in a name or a text: the database cannot read it");
        }
        data
    }

    /// A producer's own reference to a schema of its own is not stored.
    fn version(&mut self, event_type: &str) -> u16 {
        let version = match self.attributes.remove("dataschema") {
            None => return FIRST,
            Some(Value::String(dataschema)) => named(event_type, &dataschema),
            Some(_) => None,
        };
        version.unwrap_or_else(|| {
            let form = reference(event_type, FIRST);
            self.refuse("dataschema", format!("must be a URI, and for a schema of Nexus have the form {form}"));
            FIRST
        })
    }

    fn extensions(&mut self) -> BTreeMap<String, Value> {
        let rest = std::mem::take(&mut self.attributes);
        if rest.len() > EXTENSIONS_MAX {
            self.refuse("", format!("has more than {EXTENSIONS_MAX} extension attributes"));
            return BTreeMap::new();
        }
        for (name, value) in &rest {
            let lower_case = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
            if !lower_case || name.is_empty() || name.len() > EXTENSION_NAME_BYTES_MAX {
                self.refuse(name, "is no attribute name: 1 to 20 lower-case letters and digits");
            } else if name == "position" {
                self.refuse(name, "is given by Nexus");
            } else if !is_attribute_value(value) {
                self.refuse(name, "must be a boolean, a 32-bit integer, or a string of at most 256 bytes");
            }
        }
        rest.into_iter().collect()
    }
}

/// Postgres keeps a NUL in a document, and fails whoever looks into that.
fn holds_nul(data: &Value) -> bool {
    match data {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(holds_nul),
        Value::Object(members) => members.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.len() <= ATTRIBUTE_BYTES_MAX && !text.chars().any(char::is_control)
}

fn is_attribute_value(value: &Value) -> bool {
    match value {
        Value::Bool(_) => true,
        Value::Number(number) => number.as_i64().is_some_and(|integer| i32::try_from(integer).is_ok()),
        Value::String(text) => is_plain(text),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn valid() -> Value {
        json!({"specversion": "1.0", "id": "1", "source": "/mint", "type": "wallet.created", "subject": "wallet/1", "data": {}})
    }

    fn paths(document: Value) -> Vec<String> {
        let violations = CloudEvent::read(document, Timestamp::UNIX_EPOCH).err().unwrap_or_default();
        violations.into_iter().map(|violation| violation.path).collect()
    }

    #[test]
    fn an_event_without_time_happened_now() {
        let event = CloudEvent::read(valid(), Timestamp::UNIX_EPOCH).expect("the event is valid");
        assert_eq!(
            event.encode(),
            concat!(
                r#"{"specversion":"1.0","id":"1","source":"/mint","type":"wallet.created","subject":"wallet/1","#,
                r#""time":"1970-01-01T00:00:00Z","datacontenttype":"application/json","data":{}}"#
            )
        );
    }

    #[test]
    fn an_encoded_event_reads_back_equal() {
        let mut document = valid();
        document["time"] = json!("2026-01-02T03:04:05.678Z");
        document["traceparent"] = json!("00-ab-cd-01");
        document["dataschema"] = json!("https://nexus.example.org/v1/event-types/wallet.created/versions/3");
        let event = CloudEvent::read(document, Timestamp::UNIX_EPOCH).expect("the event is valid");
        let again = serde_json::from_str(&event.encode()).expect("an encoded event is JSON");
        assert_eq!(CloudEvent::read(again, Timestamp::UNIX_EPOCH), Ok(event));
    }

    #[test]
    fn every_wrong_attribute_is_named() {
        for (attribute, wrong) in [
            ("specversion", json!("0.3")),
            ("id", json!("")),
            ("id", json!(7)),
            ("id", json!("x".repeat(257))),
            ("source", json!("two words")),
            ("type", Value::Null),
            ("subject", json!("a\u{0}b")),
            ("time", json!("yesterday")),
            ("time", json!(5)),
            ("datacontenttype", json!("text/plain")),
            ("data_base64", json!("AA==")),
            ("data", json!({"a": [{"b": "c\u{0}d"}]})),
            ("data", json!({"a": {"b\u{0}c": 1}})),
            ("dataschema", json!(1)),
            ("dataschema", json!("/v1/event-types/wallet.created/versions/two")),
            ("position", json!("1.1")),
            ("UpperCase", json!("x")),
            ("nested", json!({})),
            ("big", json!(2_147_483_648_i64)),
        ] {
            let mut document = valid();
            document[attribute] = wrong;
            assert_eq!(paths(document), [format!("/{attribute}")]);
        }
    }

    #[test]
    fn all_that_is_missing_is_listed_at_once() {
        assert_eq!(paths(json!({})), ["/specversion", "/id", "/source", "/type", "/subject", "/data"]);
        assert_eq!(paths(json!([])), [""]);
    }
}
