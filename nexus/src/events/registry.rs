//! The registry: for each event type its schema, subject form, domain and who may publish it.
//! The one place that knows which types there are.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::audience::{self, Audience, EVERYONE, ROOM_BYTES_MAX};
use super::choice::{Choice, Choices};
use super::version::{self, Earlier, Version};
use super::{CloudEvent, Pattern, Violation, education, finance, marketplace, system};

/// The data of one event type.
pub trait Payload: Serialize + JsonSchema {
    /// The event type, such as `wallet.created`.
    const TYPE: &'static str;
    /// The versions of its schema before this one, from the first on. One is added when a change is not backward
    /// compatible.
    const EARLIER: &'static [Earlier] = &[];
    /// Part of the platform that the type belongs to.
    const DOMAIN: Domain;
    /// First segment of the subject: `wallet` stands for `wallet/{id}`.
    const SUBJECT: &'static str;
    /// Who may publish the type over the API.
    const PUBLISHER: Publisher = Publisher::Service;
    /// The field of the data that names the one person who may publish it with the scope `events:write:own`; none when
    /// only services may.
    const PERSON: Option<&'static str> = None;
    /// For whom it is: room names in which a field of the data stands for an id, such as `wallet/{wallet_id}`.
    /// Nobody but readers of everything sees a type without any.
    const AUDIENCE: &'static [&'static str];
    /// Whether it lets the people in its audience into the other rooms of it: whoever opened a wallet sees what becomes
    /// of it.
    const LETS_IN: bool = false;
    /// What a client that does not keep up may miss.
    const DELIVERY: DeliveryClass = DeliveryClass::All;
    /// One sentence for people.
    const DESCRIPTION: &'static str;
}

/// Part of the platform that an event type of the build belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl Domain {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Education => "education",
            Self::Finance => "finance",
            Self::Marketplace => "marketplace",
            Self::System => "system",
        }
    }
}

/// Who may publish a type over the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Publisher {
    /// Every caller with the scope `events:write`.
    Service,
    /// Callers with the scope `admin`.
    Administrator,
    /// Nobody: Nexus emits it in the transaction of the write that it tells about.
    Nexus,
}

/// What a client that does not keep up may miss of a type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeliveryClass {
    /// Nothing.
    #[default]
    All,
    /// An event after which it is given a later one of the same type and subject: each tells the whole state.
    LatestBySubject,
}

/// What the registry knows of one event type.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Definition {
    /// The type, such as `wallet.created`.
    #[serde(rename = "type")]
    pub event_type: Arc<str>,
    /// The current version of the schema.
    pub version: u16,
    /// Part of the platform that it belongs to: education, finance, marketplace, system, or one of the deployment's own.
    pub domain: String,
    /// Form of the subject, such as `wallet/{id}`.
    pub subject: String,
    /// One sentence for people.
    pub description: String,
    /// Who may publish it over the API.
    pub publisher: Publisher,
    /// The field of the data that names the one person who may publish it too, with the scope `events:write:own`.
    pub person: Option<&'static str>,
    /// The rooms in which it is told; a field of the data stands for an id.
    pub audience: Vec<String>,
    /// Whether it lets the people in its audience into its other rooms.
    pub lets_in: bool,
    /// What a client that does not keep up may miss.
    pub delivery: DeliveryClass,
    /// JSON Schema of the data in the current version.
    pub schema: Value,
    /// Every version that is taken, the oldest first.
    pub versions: Vec<Version>,
}

/// The number of the version that a type is in now.
pub fn current_version<P: Payload>() -> u16 {
    u16::try_from(P::EARLIER.len() + 1).expect("a type does not change so often")
}

impl Definition {
    /// The definition that a Rust type gives.
    pub fn of<P: Payload>() -> Self {
        let generator =
            SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true).into_generator();
        let schema = generator.into_root_schema_for::<P>().to_value();
        let audience: Vec<String> = P::AUDIENCE.iter().map(ToString::to_string).collect();
        let earlier = P::EARLIER.iter().map(|earlier| (released(earlier.released), Some(earlier.upcast)));
        let all = (1..).zip(earlier.chain([((schema.clone(), audience.clone()), None)]));
        let versions = all.map(|(number, ((schema, audience), upcast))| {
            let version = Version::new(P::TYPE, number, schema, audience);
            let version = version.expect("a schema that schemars derives compiles; a test builds every one");
            version.followed_by(upcast)
        });
        Self {
            event_type: P::TYPE.into(),
            version: current_version::<P>(),
            domain: P::DOMAIN.name().to_owned(),
            subject: format!("{}/{{id}}", P::SUBJECT),
            description: P::DESCRIPTION.to_owned(),
            publisher: P::PUBLISHER,
            person: P::PERSON,
            audience,
            lets_in: P::LETS_IN,
            delivery: P::DELIVERY,
            schema,
            versions: versions.collect(),
        }
    }

    /// The schema of the data, to stand within a document that says of itself what its schemas are.
    pub fn schema_in_document(&self) -> Value {
        let mut schema = self.schema.clone();
        if let Value::Object(keywords) = &mut schema {
            keywords.shift_remove("$schema");
        }
        schema
    }

    /// One of its versions.
    pub fn version(&self, number: u16) -> Option<&Version> {
        self.versions.iter().find(|version| version.version == number)
    }

    /// The event in the version `to`, if it is in an earlier one and can be brought there.
    pub fn upcast(&self, event: &[u8], to: u16) -> Option<String> {
        // Most types have one version, and nothing is looked at.
        if self.versions.len() < 2 {
            return None;
        }
        let mut event: Map<String, Value> = serde_json::from_slice(event).ok()?;
        let from = version::of_event(&self.event_type, &event).filter(|from| *from < to)?;
        self.upcast_data(event.get_mut("data")?, from, to)?;
        version::set_version(&self.event_type, to, &mut event);
        serde_json::to_string(&event).ok()
    }

    /// Brings data from one version to another; nothing happens when a step is not known.
    fn upcast_data(&self, data: &mut Value, from: u16, to: u16) -> Option<()> {
        let steps: Vec<_> = (from..to).map(|number| self.version(number)?.upcast).collect::<Option<_>>()?;
        let data = data.as_object_mut()?;
        for upcast in steps {
            upcast(data);
        }
        Some(())
    }

    /// The data in the current version, which the audience is named by.
    fn current_data<'a>(&self, event: &'a CloudEvent) -> Cow<'a, Value> {
        let mut data = Cow::Borrowed(&event.data);
        if event.version < self.version {
            self.upcast_data(data.to_mut(), event.version, self.version);
        }
        data
    }

    fn accepts_subject(&self, subject: &str) -> bool {
        let stem = self.subject.trim_end_matches("{id}");
        subject.strip_prefix(stem).is_some_and(|id| {
            !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
        })
    }

    /// For whom the event is.
    pub fn audience(&self, event: &CloudEvent) -> Audience {
        Audience::of(&self.audience, &self.current_data(event))
    }

    /// Whether everybody sees its events.
    pub fn is_for_everyone(&self) -> bool {
        self.audience.iter().any(|room| room == EVERYONE)
    }

    fn data_violations(&self, event: &CloudEvent) -> Vec<Violation> {
        let Some(version) = self.version(event.version) else {
            let taken: Vec<&str> = self.versions.iter().map(|version| version.dataschema.as_str()).collect();
            return vec![Violation::new("/dataschema", format!("names no version of the type: {}", taken.join(", ")))];
        };
        let mut violations = version.violations(&event.data);
        let data = self.current_data(event);
        for (template, field) in self.audience.iter().filter_map(|one| Some((one, audience::field(one)?))) {
            let id = data.get(field).and_then(Value::as_str).unwrap_or_default();
            let mut refuse = |message: String| violations.push(Violation::new(format!("/data/{field}"), message));
            if id.contains(char::is_control) {
                refuse("must have no control characters".to_owned());
            }
            let kind_bytes = template.find('{').unwrap_or_default();
            if kind_bytes + id.len() > ROOM_BYTES_MAX {
                refuse(format!("must have at most {} bytes", ROOM_BYTES_MAX.saturating_sub(kind_bytes)));
            }
        }
        violations
    }
}

/// The schema and the audience of a release.
fn released(released: &str) -> (Value, Vec<String>) {
    #[derive(Deserialize)]
    struct Released {
        schema: Value,
        audience: Vec<String>,
    }
    let Released { schema, audience } =
        serde_json::from_str(released).expect("a released type says so; a test reads every one");
    (schema, audience)
}

/// All event types, in the order of their domains.
#[derive(Debug)]
pub struct Registry {
    definitions: Vec<Definition>,
    places: HashMap<Arc<str>, usize>,
    choices: Choices,
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

    /// A registry of these types, each of another name.
    pub fn of(definitions: Vec<Definition>) -> Self {
        let places = definitions.iter().enumerate();
        let places = places.map(|(place, definition)| (Arc::clone(&definition.event_type), place)).collect();
        Self { definitions, places, choices: Choices::default() }
    }

    /// The same and one more type, which takes the place of one with its name.
    #[must_use]
    pub fn with(mut self, definition: Definition) -> Self {
        self.definitions.retain(|one| one.event_type != definition.event_type);
        self.definitions.push(definition);
        Self::of(self.definitions)
    }

    /// Every type.
    pub fn definitions(&self) -> &[Definition] {
        &self.definitions
    }

    /// The definition of one type.
    pub fn get(&self, event_type: &str) -> Option<&Definition> {
        self.places.get(event_type).map(|place| &self.definitions[*place])
    }

    /// The name of a type, which all its entries share; a text of its own for a type that is not known.
    pub fn name(&self, event_type: &str) -> Arc<str> {
        self.places.get_key_value(event_type).map_or_else(|| event_type.into(), |(name, _)| Arc::clone(name))
    }

    /// The place of a type among the definitions; their number for one that is not among them.
    pub fn number(&self, event_type: &str) -> usize {
        self.places.get(event_type).copied().unwrap_or(self.definitions.len())
    }

    /// What these patterns choose.
    pub fn choose(&self, patterns: Vec<Pattern>) -> Arc<Choice> {
        self.choices.get(patterns, |patterns| self.matching(patterns))
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
        let mut violations = definition.data_violations(event);
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
    use crate::events::finance::MiningReward;
    use crate::events::parcel::{self, text};

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
            assert!(definition.person.is_none_or(|field| required.contains(&json!(field))));
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
    fn an_id_that_no_index_holds_is_refused() {
        let mut definition = Definition::of::<MiningReward>();
        definition.versions[0] =
            Version::new("mining.reward", 1, json!({}), definition.audience.clone()).expect("a schema");
        let registry = Registry::built_in().with(definition);
        for (bytes, refused) in
            [(ROOM_BYTES_MAX - "wallet/".len(), false), (ROOM_BYTES_MAX - "wallet/".len() + 1, true)]
        {
            let event = reward("wallet/1", &json!({"wallet_id": "w".repeat(bytes)}));
            let violations = registry.validate(&event).err().unwrap_or_default();
            let wanted = Violation::new("/data/wallet_id", "must have at most 505 bytes");
            assert_eq!(violations, if refused { vec![wanted] } else { Vec::new() }, "{bytes}");
        }
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

    #[test]
    fn an_event_of_an_earlier_version_is_brought_up_to_any_later_one() {
        let registry = parcel::registry();
        let parcel = registry.get("parcel.sent").expect("it is registered");
        let first = text(None, &json!({"parcel_id": "p", "to": "u"}));
        let second = text(Some(2), &json!({"parcel_id": "p", "recipient_id": "u"}));
        let third = text(Some(3), &json!({"parcel_id": "p", "recipient_id": "u", "grams": 0}));
        for (from, to, want) in [
            (&first, 3, Some(&third)),
            (&first, 2, Some(&second)),
            (&second, 3, Some(&third)),
            (&first, 1, None),
            (&third, 3, None),
            (&third, 1, None),
            (&text(Some(9), &json!({})), 3, None),
            (&text(None, &json!([])), 3, None),
        ] {
            assert_eq!(parcel.upcast(from.as_bytes(), to).as_ref(), want, "{from} to {to}");
        }
        // An SQL writer's data may lack what an upcast looks for.
        assert_eq!(parcel.upcast(text(None, &json!({})).as_bytes(), 3), Some(text(Some(3), &json!({"grams": 0}))));
        let built_in = Registry::built_in();
        let wallet = built_in.get("wallet.created").expect("it is registered");
        assert_eq!(wallet.upcast(br#"{"data":{}}"#, 1), None);
    }

    #[test]
    fn every_version_is_taken_by_its_own_schema_for_the_audience_of_the_current_one() {
        let sent = |version: u16, data: Value| {
            let document = json!({
                "specversion": "1.0", "id": "1", "source": "/post", "type": "parcel.sent", "subject": "parcel/p",
                "dataschema": version::reference("parcel.sent", version), "data": data,
            });
            let event = CloudEvent::read(document, Timestamp::UNIX_EPOCH).expect("the envelope is valid");
            let registry = parcel::registry();
            registry
                .validate(&event)
                .map(|definition| definition.audience(&event).rooms().collect::<Vec<_>>().join(" "))
        };
        let paths = |refused: Result<String, Vec<Violation>>| {
            refused.expect_err("it is refused").into_iter().map(|violation| violation.path).collect::<Vec<_>>()
        };
        assert_eq!(sent(1, json!({"parcel_id": "p", "to": "u"})), Ok("user/u parcel/p".to_owned()));
        assert_eq!(
            sent(3, json!({"parcel_id": "p", "recipient_id": "u", "grams": 7})),
            Ok("user/u parcel/p".to_owned())
        );
        assert_eq!(
            paths(sent(3, json!({"parcel_id": "p", "to": "u"}))),
            ["/data/recipient_id", "/data/grams", "/data/to"]
        );
        assert_eq!(paths(sent(1, json!({"parcel_id": "p", "to": "u\u{7}"}))), ["/data/recipient_id"]);
        assert_eq!(paths(sent(4, json!({}))), ["/dataschema"]);
    }
}
