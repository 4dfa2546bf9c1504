//! The registry: for each event type its schema, subject form, domain and who may publish it.
//! The one place that knows which types there are.

use std::borrow::Cow;
use std::sync::LazyLock;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::Value;

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
    pub event_type: &'static str,
    /// Version of the schema.
    pub version: u16,
    /// Part of the platform that it belongs to.
    pub domain: Domain,
    /// Form of the subject, such as `wallet/{id}`.
    pub subject: String,
    /// One sentence for people.
    pub description: &'static str,
    /// Who may publish it over the API.
    pub publisher: Publisher,
    /// JSON Schema of the data.
    pub schema: Value,
    #[serde(skip)]
    validator: jsonschema::Validator,
}

impl Definition {
    fn of<P: Payload>() -> Self {
        let generator =
            SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true).into_generator();
        let schema = generator.into_root_schema_for::<P>().to_value();
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(&schema)
            .expect("a schema that schemars derives compiles; a test builds every one");
        Self {
            event_type: P::TYPE,
            version: P::VERSION,
            domain: P::DOMAIN,
            subject: format!("{}/{{id}}", P::SUBJECT),
            description: P::DESCRIPTION,
            publisher: P::PUBLISHER,
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

    fn data_violations(&self, data: &Value) -> Vec<Violation> {
        let violation = |error: jsonschema::ValidationError<'_>| {
            Violation::new(format!("/data{}", error.instance_path()), error.to_string())
        };
        self.validator.iter_errors(data).map(violation).collect()
    }
}

/// All event types, in the order of their domains.
#[derive(Debug)]
pub struct Registry {
    definitions: Vec<Definition>,
}

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry {
    definitions: vec![
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
    ],
});

impl Registry {
    /// The registry of this build.
    pub fn global() -> &'static Self {
        &REGISTRY
    }

    /// Every type.
    pub fn definitions(&self) -> &[Definition] {
        &self.definitions
    }

    /// The definition of one type.
    pub fn get(&self, event_type: &str) -> Option<&Definition> {
        self.definitions.iter().find(|definition| definition.event_type == event_type)
    }

    /// The types that any of the patterns matches.
    pub fn matching(&self, patterns: &[Pattern]) -> Vec<&'static str> {
        let types = self.definitions.iter().map(|definition| definition.event_type);
        types.filter(|event_type| patterns.iter().any(|pattern| pattern.matches(event_type))).collect()
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
