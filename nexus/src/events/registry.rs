//! The registry: for each event type its schema, subject form, domain and who may publish it.
//! The one place that knows which types there are.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::Value;

use super::audience::{self, Audience, EVERYONE};
use super::{CloudEvent, Pattern, Violation, education, finance, marketplace, system};

/// The data of one event type.
pub trait Payload: Serialize + JsonSchema {
    /// The event type, such as `wallet.created`.
    const TYPE: &'static str;
    /// Version of the schema; grows when a change is not backward compatible.
    const VERSION: u16 = 1;
    /// Part of the platform that the type belongs to.
    const DOMAIN: Domain;
    /// First segment of the subject: `wallet` stands for `wallet/{id}`.
    const SUBJECT: &'static str;
    /// Who may publish the type over the API.
    const PUBLISHER: Publisher = Publisher::Service;
    /// For whom it is: room names in which a field of the data stands for an id, such as `wallet/{wallet_id}`.
    /// Nobody but readers of everything sees a type without any.
    const AUDIENCE: &'static [&'static str];
    /// Whether it lets the people in its audience into the other rooms of it: whoever opened a wallet sees what becomes
    /// of it.
    const LETS_IN: bool = false;
    /// One sentence for people.
    const DESCRIPTION: &'static str;
}

/// Part of the platform that an event type belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Domain {
    /// Courses, lessons, assessments, certificates.
    Education,
    /// Wallets, transactions, mining rewards, universal basic income.
    Finance,
    /// Jobs, applications, contracts, payments.
    Marketplace,
    /// Users and the platform itself.
    System,
}

/// Who may publish a type over the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Publisher {
    /// Every caller with the scope `events:write`.
    Service,
    /// Callers with the scope `admin`.
    Administrator,
    /// Nobody: Nexus emits it in the transaction of the write that it tells about.
    Nexus,
}

/// What the registry knows of one event type.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Definition {
    /// The type, such as `wallet.created`.
    #[serde(rename = "type")]
    pub event_type: Arc<str>,
    /// Version of the schema.
    pub version: u16,
    /// Part of the platform that it belongs to.
    pub domain: Domain,
    /// Form of the subject, such as `wallet/{id}`.
    pub subject: String,
    /// One sentence for people.
    pub description: String,
    /// Who may publish it over the API.
    pub publisher: Publisher,
    /// The rooms in which it is told; a field of the data stands for an id.
    pub audience: Vec<String>,
    /// Whether it lets the people in its audience into its other rooms.
    pub lets_in: bool,
    /// JSON Schema of the data.
    pub schema: Value,
    #[serde(skip)]
    validator: jsonschema::Validator,
}

impl Definition {
    /// The definition that a Rust type gives.
    pub fn of<P: Payload>() -> Self {
        let generator =
            SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true).into_generator();
        let schema = generator.into_root_schema_for::<P>().to_value();
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(&schema)
            .expect("a schema that schemars derives compiles; a test builds every one");
        Self {
            event_type: P::TYPE.into(),
            version: P::VERSION,
            domain: P::DOMAIN,
            subject: format!("{}/{{id}}", P::SUBJECT),
            description: P::DESCRIPTION.to_owned(),
            publisher: P::PUBLISHER,
            audience: P::AUDIENCE.iter().map(ToString::to_string).collect(),
            lets_in: P::LETS_IN,
            schema,
            validator,
        }
    }

    fn accepts_subject(&self, subject: &str) -> bool {
        let stem = self.subject.trim_end_matches("{id}");
        subject.strip_prefix(stem).is_some_and(|id| {
            !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
        })
    }

    /// For whom an event with this data is.
    pub fn audience(&self, data: &Value) -> Audience {
        Audience::of(&self.audience, data)
    }

    /// Whether everybody sees its events.
    pub fn is_for_everyone(&self) -> bool {
        self.audience.iter().any(|room| room == EVERYONE)
    }

    fn data_violations(&self, data: &Value) -> Vec<Violation> {
        let mut violations: Vec<_> = self.validator.iter_errors(data).flat_map(|error| violations_of(&error)).collect();
        for field in self.audience.iter().filter_map(|template| audience::field(template)) {
            let id = data.get(field).and_then(Value::as_str).unwrap_or_default();
            if id.contains(char::is_control) {
                violations.push(Violation::new(format!("/data/{field}"), "must have no control characters"));
            }
        }
        violations
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

/// All event types, in the order of their domains.
#[derive(Debug)]
pub struct Registry {
    definitions: Vec<Definition>,
    places: HashMap<Arc<str>, usize>,
}

impl Registry {
    /// The types of this build.
    pub fn built_in() -> Self {
        Self::of(vec![
            Definition::of::<education::CourseEnrolled>(),
            Definition::of::<education::LessonCompleted>(),
            Definition::of::<education::AssessmentSubmitted>(),
            Definition::of::<education::CertificateIssued>(),
            Definition::of::<finance::WalletCreated>(),
            Definition::of::<finance::TransactionCompleted>(),
            Definition::of::<finance::MiningReward>(),
            Definition::of::<finance::UbiDistributed>(),
            Definition::of::<marketplace::JobPosted>(),
            Definition::of::<marketplace::ApplicationSubmitted>(),
            Definition::of::<marketplace::ContractSigned>(),
            Definition::of::<marketplace::PaymentReleased>(),
            Definition::of::<system::UserRegistered>(),
            Definition::of::<system::UserLogin>(),
            Definition::of::<system::SystemAlert>(),
            Definition::of::<system::HealthCheck>(),
        ])
    }

    /// A registry of these types; of two with one name the later counts.
    pub fn of(definitions: Vec<Definition>) -> Self {
        let places = definitions.iter().enumerate();
        let places = places.map(|(place, definition)| (Arc::clone(&definition.event_type), place)).collect();
        Self { definitions, places }
    }

    /// Every type.
    pub fn definitions(&self) -> &[Definition] {
        &self.definitions
    }

    /// The definition of one type.
    pub fn get(&self, event_type: &str) -> Option<&Definition> {
        self.places.get(event_type).map(|place| &self.definitions[*place])
    }

    /// The types that any of the patterns matches.
    pub fn matching(&self, patterns: &[Pattern]) -> Vec<Arc<str>> {
        let types = self.definitions.iter().map(|definition| &definition.event_type);
        types.filter(|event_type| patterns.iter().any(|pattern| pattern.matches(event_type))).cloned().collect()
    }

    /// Checks type, subject and data; lists everything that is wrong.
    pub fn validate(&self, event: &CloudEvent) -> Result<&Definition, Vec<Violation>> {
        let Some(definition) = self.get(&event.event_type) else {
            return Err(vec![Violation::new("/type", "is not a registered event type; see /v1/event-types")]);
        };
        let mut violations = definition.data_violations(&event.data);
        if !definition.accepts_subject(&event.subject) {
            violations.insert(0, Violation::new("/subject", format!("must have the form {}", definition.subject)));
        }
        if violations.is_empty() { Ok(definition) } else { Err(violations) }
    }
}

impl JsonSchema for Registry {
    fn schema_name() -> Cow<'static, str> {
        "EventTypes".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let definition = generator.subschema_for::<Definition>();
        schemars::json_schema!({
            "type": "object",
            "required": ["types"],
            "properties": {"types": {"type": "array", "items": definition}},
        })
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    fn reward(subject: &str, data: &Value) -> CloudEvent {
        let document = json!({
            "specversion": "1.0", "id": "1", "source": "/mint", "type": "mining.reward", "subject": subject, "data": data,
        });
        CloudEvent::read(document, Timestamp::UNIX_EPOCH).expect("the envelope is valid")
    }

    fn paths(subject: &str, data: &Value) -> Vec<String> {
        let refused = Registry::built_in().validate(&reward(subject, data)).err().unwrap_or_default();
        refused.into_iter().map(|violation| violation.path).collect()
    }

    #[test]
    fn there_are_sixteen_types_of_four_domains() {
        let registry = Registry::built_in();
        let types: Vec<_> = registry.definitions().iter().map(|definition| &*definition.event_type).collect();
        assert_eq!(
            types,
            [
                "course.enrolled",
                "lesson.completed",
                "assessment.submitted",
                "certificate.issued",
                "wallet.created",
                "transaction.completed",
                "mining.reward",
                "ubi.distributed",
                "job.posted",
                "application.submitted",
                "contract.signed",
                "payment.released",
                "user.registered",
                "user.login",
                "system.alert",
                "health.check",
            ]
        );
    }

    #[test]
    fn every_audience_is_named_by_fields_that_the_data_must_have() {
        for definition in Registry::built_in().definitions() {
            let required = definition.schema["required"].as_array().expect("every type has required fields");
            for field in definition.audience.iter().filter_map(|template| audience::field(template)) {
                assert!(required.contains(&json!(field)), "{} without {field}", definition.event_type);
            }
            // Otherwise it would let people into rooms that it does not name.
            let rooms = definition.audience.iter().filter(|room| room.starts_with("user/")).count();
            assert!(!definition.lets_in || (rooms > 0 && rooms < definition.audience.len()));
        }
    }

    #[test]
    fn an_id_with_a_control_character_is_refused() {
        let data = json!({"wallet_id": "a\u{1f}b", "block_height": 7, "money": {"amount_minor": 1, "currency": "AZR"}});
        assert_eq!(paths("wallet/1", &data), ["/data/wallet_id"]);
    }

    #[test]
    fn a_pattern_selects_types() {
        let pattern = |text: &str| text.parse::<Pattern>().expect("a pattern");
        let registry = Registry::built_in();
        let matching = |patterns: &[&str]| {
            let patterns: Vec<Pattern> = patterns.iter().map(|text| pattern(text)).collect();
            registry.matching(&patterns).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(matching(&["user.*", "ubi.**"]), ["ubi.distributed", "user.registered", "user.login"]);
        assert_eq!(matching(&["**"]).len(), 16);
        assert_eq!(matching(&["nothing.*"]), Vec::<String>::new());
    }

    #[test]
    fn money_is_whole_positive_minor_units() {
        let data = |amount: Value| json!({"wallet_id": "1", "block_height": 7, "money": {"amount_minor": amount, "currency": "AZR"}});
        assert_eq!(paths("wallet/1", &data(json!(1))), Vec::<String>::new());
        for wrong in [json!(0), json!(-1), json!(1.5), json!("1"), json!(9_007_199_254_740_992_i64), json!(1e300)] {
            assert_eq!(paths("wallet/1", &data(wrong.clone())), ["/data/money/amount_minor"], "{wrong}");
        }
    }

    #[test]
    fn every_violation_names_its_field() {
        let data = json!({"wallet_id": "", "money": {"amount_minor": 1, "currency": "azr"}, "extra": true});
        let mut found = paths("purse/1", &data);
        found.sort();
        assert_eq!(found, ["/data/block_height", "/data/extra", "/data/money/currency", "/data/wallet_id", "/subject"]);
    }

    #[test]
    fn a_subject_has_the_form_of_its_type() {
        let data = json!({"wallet_id": "1", "block_height": 7, "money": {"amount_minor": 1, "currency": "AZR"}});
        for (subject, accepted) in [
            ("wallet/1", true),
            ("wallet/a-B_c.9:0", true),
            ("wallet/", false),
            ("wallet", false),
            ("wallet/a/b", false),
            ("wallet/a b", false),
            ("user/1", false),
        ] {
            assert_eq!(paths(subject, &data).is_empty(), accepted, "{subject}");
        }
    }
}
