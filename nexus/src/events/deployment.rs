//! An event type that a deployment brings as a JSON document, beside those of the build. Pure: a definition from a text,
//! or the member that is wrong and how it is mended. It is held to what a test holds the types of the build to.

use serde::Deserialize;
use serde_json::Value;

use super::audience::{self, EVERYONE, PERSON};
use super::registry::DeliveryClass;
use super::version::Version;
use super::{Definition, Pattern, Publisher};

/// Longest event type, in bytes: it stands in every event, and in an index.
const TYPE_BYTES_MAX: usize = 100;

/// Keywords that lead out of the schema. It is shown in documents in which they would lead nowhere.
const REFERENCES: [&str; 4] = ["$ref", "$dynamicRef", "$recursiveRef", "$id"];

/// Why a text is no event type.
#[derive(Debug, thiserror::Error)]
pub enum ReadDefinition {
    /// It is not JSON, or a member is missing, unknown or of another kind.
    #[error("is no event type")]
    ParseDocument(#[source] serde_json::Error),
    /// A member says what cannot be.
    #[error("has a wrong `{member}`: it {mend}")]
    AcceptMember {
        /// Which one.
        member: &'static str,
        /// What it has to be.
        mend: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    r#type: String,
    version: u16,
    description: String,
    domain: String,
    subject: String,
    publisher: Publisher,
    audience: Vec<String>,
    #[serde(default)]
    lets_in: bool,
    #[serde(default)]
    delivery: DeliveryClass,
    schema: Value,
}

impl Definition {
    /// Reads the definition of a type that a deployment brings.
    pub fn read(text: &str) -> Result<Self, ReadDefinition> {
        let document: Document = serde_json::from_str(text).map_err(ReadDefinition::ParseDocument)?;
        document.check()?;
        let (schema, audience) = (document.schema.clone(), document.audience.clone());
        let version = Version::new(&document.r#type, document.version, schema, audience);
        let version = version.map_err(|error| wrong("schema", format!("must be a JSON Schema: {error}")))?;
        Ok(Self {
            event_type: document.r#type.into(),
            version: document.version,
            domain: document.domain,
            subject: document.subject,
            description: document.description,
            publisher: document.publisher,
            person: None,
            audience: document.audience,
            lets_in: document.lets_in,
            delivery: document.delivery,
            schema: document.schema,
            versions: vec![version],
        })
    }
}

impl Document {
    fn check(&self) -> Result<(), ReadDefinition> {
        let is_type = self.r#type.parse::<Pattern>().is_ok() && !self.r#type.contains('*');
        if !is_type || !self.r#type.contains('.') || self.r#type.len() > TYPE_BYTES_MAX {
            let mend =
                format!("must have two or more words of a-z, 0-9, - and _, joined by dots, in {TYPE_BYTES_MAX} bytes");
            return Err(wrong("type", mend));
        }
        if self.version == 0 {
            return Err(wrong("version", "must be at least 1"));
        }
        if self.description.trim().is_empty() {
            return Err(wrong("description", "must be a sentence for people"));
        }
        if !is_word(&self.domain) {
            return Err(wrong("domain", "must be a word of a-z, 0-9, - and _"));
        }
        if !self.subject.strip_suffix("/{id}").is_some_and(is_word) {
            return Err(wrong("subject", "must be a word and `/{id}`, as `order/{id}`"));
        }
        if self.publisher == Publisher::Nexus {
            return Err(wrong("publisher", "must be `service` or `administrator`: Nexus emits only its own types"));
        }
        self.check_schema()?;
        self.check_audience()
    }

    fn check_schema(&self) -> Result<(), ReadDefinition> {
        if self.schema["type"] != "object" {
            return Err(wrong("schema", "must have `\"type\": \"object\"`: data is an object"));
        }
        match reference(&self.schema) {
            Some(keyword) => Err(wrong("schema", format!("must do without `{keyword}`: write out what it refers to"))),
            None => Ok(()),
        }
    }

    fn check_audience(&self) -> Result<(), ReadDefinition> {
        for room in self.audience.iter().filter(|room| *room != EVERYONE) {
            let field = audience::field(room);
            let kind = field.and_then(|field| room.strip_suffix(&format!("/{{{field}}}")));
            let (Some(field), true) = (field, kind.is_some_and(is_word)) else {
                let mend =
                    format!("must list `{EVERYONE}`, or a word and a field as `order/{{order_id}}`; not `{room}`");
                return Err(wrong("audience", mend));
            };
            let required = self.schema["required"].as_array().into_iter().flatten().any(|required| required == field);
            if !required || self.schema["properties"][field]["type"] != "string" {
                let mend = format!("must name fields that `schema` requires and that are strings; `{field}` is none");
                return Err(wrong("audience", mend));
            }
        }
        let people = self.audience.iter().filter(|room| room.starts_with(&format!("{PERSON}/"))).count();
        let others = self.audience.iter().filter(|room| *room != EVERYONE).count() - people;
        if self.lets_in && (people == 0 || others == 0) {
            let mend =
                format!("must be false unless `audience` names a `{PERSON}/{{...}}` and a room to let them into");
            return Err(wrong("lets_in", mend));
        }
        Ok(())
    }
}

fn wrong(member: &'static str, mend: impl Into<String>) -> ReadDefinition {
    ReadDefinition::AcceptMember { member, mend: mend.into() }
}

fn is_word(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
}

/// A keyword of the schema, or within it, that leads out of it. A property may well have its name.
fn reference(schema: &Value) -> Option<&'static str> {
    match schema {
        Value::Object(keywords) => {
            let own = REFERENCES.into_iter().find(|keyword| keywords.contains_key(*keyword));
            own.or_else(|| {
                keywords.iter().find_map(|(keyword, value)| match (keyword.as_str(), value) {
                    ("const" | "enum" | "default" | "examples", _) => None,
                    ("properties" | "patternProperties", Value::Object(all)) => all.values().find_map(reference),
                    _ => reference(value),
                })
            })
        }
        Value::Array(schemas) => schemas.iter().find_map(reference),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::events::{CloudEvent, Registry};

    fn placed() -> Value {
        json!({
            "type": "order.placed", "version": 2, "description": "An order was placed.", "domain": "shop",
            "subject": "order/{id}", "publisher": "service", "audience": ["user/{user_id}", "order/{order_id}"],
            "lets_in": true,
            "schema": {
                "type": "object", "additionalProperties": false, "required": ["user_id", "order_id"],
                "properties": {
                    "user_id": {"type": "string", "format": "uuid"}, "order_id": {"type": "string"},
                    "$ref": {"const": {"$ref": "is only a name here"}},
                },
            },
        })
    }

    #[test]
    fn a_type_of_a_deployment_is_like_one_of_the_build() {
        let registry = Registry::built_in().with(Definition::read(&placed().to_string()).expect("it is a type"));
        let user = "0197d0a4-3a5c-7c3e-9d5b-6a1f0e2d4c3b";
        let order = |dataschema: &str, user: &str| {
            let document = json!({
                "specversion": "1.0", "id": "1", "source": "/shop", "type": "order.placed", "subject": "order/1",
                "dataschema": dataschema, "data": {"user_id": user, "order_id": "1"},
            });
            let event = CloudEvent::read(document, Timestamp::UNIX_EPOCH).expect("the envelope is valid");
            match registry.validate(&event) {
                Ok(definition) => definition.audience(&event).rooms().map(str::to_owned).collect(),
                Err(refused) => refused.into_iter().map(|violation| violation.path).collect::<Vec<_>>(),
            }
        };
        let current = "/v1/event-types/order.placed/versions/2";
        assert_eq!(order(current, user), [format!("user/{user}"), "order/1".to_owned()]);
        assert_eq!(order(current, "me"), ["/data/user_id"]);
        assert_eq!(order("/v1/event-types/order.placed/versions/1", user), ["/dataschema"]);
    }

    #[test]
    fn a_type_says_what_may_be_missed_of_it_and_nothing_by_default() {
        let mut document = placed();
        let read = |document: &Value| Definition::read(&document.to_string()).expect("it is a type").delivery;
        assert_eq!(read(&document), DeliveryClass::All);
        document["delivery"] = json!("latest-by-subject");
        assert_eq!(read(&document), DeliveryClass::LatestBySubject);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_member_and_what_it_has_to_be() {
        let schema = |member: &str, value: Value| {
            let mut schema = placed()["schema"].take();
            schema[member] = value;
            schema
        };
        for (member, value, mend) in [
            ("type", json!("Order.placed"), "two or more words"),
            ("type", json!("order"), "two or more words"),
            ("type", json!("order.*"), "two or more words"),
            ("type", json!(format!("order.{}", "x".repeat(95))), "in 100 bytes"),
            ("version", json!(0), "at least 1"),
            ("description", json!(" "), "a sentence"),
            ("domain", json!("my shop"), "a word"),
            ("subject", json!("order"), "`order/{id}`"),
            ("subject", json!("my order/{id}"), "`order/{id}`"),
            ("publisher", json!("nexus"), "`service` or `administrator`"),
            ("audience", json!(["order/1"]), "not `order/1`"),
            ("audience", json!(["{order_id}"]), "not `{order_id}`"),
            ("audience", json!(["order/{name}"]), "`name` is none"),
            ("lets_in", json!(true), "must be false unless"),
            ("schema", schema("required", json!(["user_id"])), "`order_id` is none"),
            ("schema", schema("type", json!("string")), "\"object\""),
            ("schema", schema("type", json!("objekt")), "\"object\""),
            ("schema", schema("allOf", json!([{"$ref": "https://example.org"}])), "without `$ref`"),
            ("schema", schema("minProperties", json!("two")), "must be a JSON Schema"),
        ] {
            let mut document = placed();
            document[member] = value;
            if member == "lets_in" {
                document["audience"] = json!(["everyone", "user/{user_id}"]);
            }
            let refused = Definition::read(&document.to_string()).expect_err("it is wrong").to_string();
            let named = if mend.contains("is none") { "audience" } else { member };
            assert!(refused.starts_with(&format!("has a wrong `{named}`: it must")), "{document}: {refused}");
            assert!(refused.contains(mend), "{document}: {refused}");
        }
    }

    #[test]
    fn a_member_that_is_missing_or_misspelt_is_named() {
        for (member, told) in [("type", "missing field `type`"), ("audience", "missing field `audience`")] {
            let mut document = placed();
            document.as_object_mut().expect("an object").shift_remove(member);
            let Err(ReadDefinition::ParseDocument(refused)) = Definition::read(&document.to_string()) else {
                panic!("it lacks {member}")
            };
            assert!(refused.to_string().contains(told), "{refused}");
        }
        let mut document = placed();
        document["letsIn"] = json!(true);
        let Err(ReadDefinition::ParseDocument(refused)) = Definition::read(&document.to_string()) else {
            panic!("it has a member too many")
        };
        assert!(refused.to_string().contains("unknown field `letsIn`, expected one of"), "{refused}");
    }
}
