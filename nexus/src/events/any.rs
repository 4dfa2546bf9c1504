//! What stands in a schema for an event of any type. Which types there are, only the document knows that refers to it:
//! it adds the schema of this name itself.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// An event as Nexus sends it.
#[derive(Debug)]
pub struct AnyEvent;

/// An event as it is published.
#[derive(Debug)]
pub struct AnyNewEvent;

impl JsonSchema for AnyEvent {
    fn schema_name() -> Cow<'static, str> {
        "AzoraEvent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object" })
    }
}

impl JsonSchema for AnyNewEvent {
    fn schema_name() -> Cow<'static, str> {
        "NewEvent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object" })
    }
}
