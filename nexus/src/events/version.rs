//! Versions of an event type: how an event names the one that its data is in, and how data of an earlier one is brought
//! up to a later one. Pure. Never downwards: what a later version left out cannot be made up.

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::Violation;

/// The version of an event that names none: whoever published before there were others goes on as before.
pub const FIRST: u16 = 1;

/// Brings data of one version to the next. It is total: data of an SQL writer was never validated, and may lack anything.
pub type Upcast = fn(&mut Map<String, Value>);

/// A version of a type before the current one.
#[derive(Clone, Copy, Debug)]
pub struct Earlier {
    /// The type as it was released then: the text of `schemas/{type}.{version}.json`, of which `schema` and `audience`
    /// count.
    pub released: &'static str,
    /// Brings its data to the next version.
    pub upcast: Upcast,
}

/// A version of a type.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Version {
    /// Its number.
    pub version: u16,
    /// By this an event's `dataschema` names it. The schema is there.
    pub dataschema: String,
    /// JSON Schema of the data.
    #[serde(skip)]
    pub schema: Value,
    /// The rooms in which it is told, by fields of its own data. Only SQL writers are served by it: what is published
    /// over the API is brought to the current version first.
    #[serde(skip)]
    pub(crate) audience: Vec<String>,
    #[serde(skip)]
    validator: jsonschema::Validator,
    /// To the next version; none for the newest, and where nobody has said how.
    #[serde(skip)]
    pub(super) upcast: Option<Upcast>,
}

impl Version {
    /// The version with this schema and audience, whose data nobody brings to the next one; or why the schema is none.
    pub(super) fn new(event_type: &str, version: u16, schema: Value, audience: Vec<String>) -> Result<Self, String> {
        let options = jsonschema::options().should_validate_formats(true);
        let validator = options.build(&schema).map_err(|error| error.to_string())?;
        Ok(Self { version, dataschema: reference(event_type, version), schema, audience, validator, upcast: None })
    }

    /// The same, with what brings its data to the next version.
    pub(super) fn followed_by(self, upcast: Option<Upcast>) -> Self {
        Self { upcast, ..self }
    }

    /// What is wrong with data of this version.
    pub(super) fn violations(&self, data: &Value) -> Vec<Violation> {
        self.validator.iter_errors(data).flat_map(|error| violations_of(&error)).collect()
    }
}

/// Names the field itself also where the schema's error stands at the object around it.
/// The value is left out of the message: the caller has it, and it may be long.
fn violations_of(error: &ValidationError<'_>) -> Vec<Violation> {
    let place = format!("/data{}", error.instance_path());
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            let field = property.as_str().unwrap_or_default();
            vec![Violation::new(format!("{place}/{field}"), "is required")]
        }
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let unknown = |field: &String| Violation::new(format!("{place}/{field}"), "is not known");
            unexpected.iter().map(unknown).collect()
        }
        _ => vec![Violation::new(place, error.masked().to_string())],
    }
}

/// What `dataschema` of an event in this version is.
pub fn reference(event_type: &str, version: u16) -> String {
    format!("/v1/event-types/{event_type}/versions/{version}")
}

/// The version that a `dataschema` names. A reference to somewhere else is the producer's own and names none, which is
/// the first; one of ours that is for another type, or for no number, is a mistake.
pub fn named(event_type: &str, dataschema: &str) -> Option<u16> {
    let Some((_, named)) = dataschema.split_once("/v1/event-types/") else { return Some(FIRST) };
    let number = named.strip_prefix(event_type)?.strip_prefix("/versions/")?;
    let version = number.parse::<u16>().ok().filter(|version| *version >= FIRST)?;
    // One version has one spelling.
    (version.to_string() == number).then_some(version)
}

/// The version that the data of an event is in; nothing when its `dataschema` cannot be read.
pub(super) fn of_event(event_type: &str, event: &Map<String, Value>) -> Option<u16> {
    event.get("dataschema").map_or(Some(FIRST), |dataschema| named(event_type, dataschema.as_str()?))
}

/// Writes down that the event is in this version, behind the attributes that stand before it in what is published.
pub(super) fn set_version(event_type: &str, version: u16, event: &mut Map<String, Value>) {
    let dataschema = Value::from(reference(event_type, version));
    if let Some(named) = event.get_mut("dataschema") {
        *named = dataschema;
        return;
    }
    let behind = event.keys().position(|name| name == "datacontenttype").map_or(event.len(), |place| place + 1);
    event.shift_insert(behind, "dataschema".to_owned(), dataschema);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_its_version_and_no_other_text_does() {
        for version in [1, 2, 65_535] {
            assert_eq!(named("wallet.created", &reference("wallet.created", version)), Some(version));
        }
        for (dataschema, version) in [
            ("https://nexus.example.org/v1/event-types/wallet.created/versions/2", Some(2)),
            ("https://example.org/schemas/wallet.json", Some(FIRST)),
            ("/v1/event-types/wallet.closed/versions/2", None),
            ("/v1/event-types/wallet.created/version/2", None),
            ("/v1/event-types/wallet.created/versions/0", None),
            ("/v1/event-types/wallet.created/versions/02", None),
            ("/v1/event-types/wallet.created/versions/65536", None),
            ("/v1/event-types/wallet.created/versions/2/", None),
            ("/v1/event-types/wallet.created", None),
        ] {
            assert_eq!(named("wallet.created", dataschema), version, "{dataschema}");
        }
    }
}
