//! A type that has changed twice, for tests: none of the build's has yet.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::registry::{Domain, Payload};
use super::{Definition, Earlier, Registry};

/// A parcel was sent.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ParcelSent {
    parcel_id: String,
    recipient_id: String,
    grams: i64,
}

impl Payload for ParcelSent {
    const TYPE: &'static str = "parcel.sent";
    const EARLIER: &'static [Earlier] = &[
        Earlier {
            released: r#"{"audience": ["user/{to}", "parcel/{parcel_id}"], "schema": {
                "type": "object", "additionalProperties": false, "required": ["parcel_id", "to"],
                "properties": {"parcel_id": {"type": "string"}, "to": {"type": "string"}}
            }}"#,
            upcast: |data| {
                if let Some(to) = data.remove("to") {
                    data.insert("recipient_id".to_owned(), to);
                }
            },
        },
        Earlier {
            released: r#"{"audience": ["user/{recipient_id}", "parcel/{parcel_id}"], "schema": {
                "type": "object", "additionalProperties": false, "required": ["parcel_id", "recipient_id"],
                "properties": {"parcel_id": {"type": "string"}, "recipient_id": {"type": "string"}}
            }}"#,
            upcast: |data| {
                data.insert("grams".to_owned(), json!(0));
            },
        },
    ];
    const DOMAIN: Domain = Domain::Marketplace;
    const SUBJECT: &'static str = "parcel";
    const AUDIENCE: &'static [&'static str] = &["user/{recipient_id}", "parcel/{parcel_id}"];
    const DESCRIPTION: &'static str = "A parcel was sent.";
}

/// A registry of it alone.
pub(crate) fn registry() -> Registry {
    Registry::of(vec![Definition::of::<ParcelSent>()])
}

/// An event as it stands in the log; without a version when it was published before there were others.
pub(crate) fn text(version: Option<u16>, data: &Value) -> String {
    let version = version.map(|version| format!(r#""dataschema":"/v1/event-types/parcel.sent/versions/{version}","#));
    let version = version.unwrap_or_default();
    format!(r#"{{"id":"1","type":"parcel.sent","datacontenttype":"application/json",{version}"data":{data}}}"#)
}
