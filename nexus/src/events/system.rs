//! Events of users and of the platform itself.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::registry::{DeliveryClass, Domain, Payload, Publisher};

/// A user was registered. Carries no personal field: who may see those asks for the user.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserRegistered {
    /// The new user.
    pub user_id: Uuid,
    /// Version of the user's record after the write.
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_i64))]
    pub version: i64,
    /// When the user was registered.
    pub registered_at: Timestamp,
}

impl Payload for UserRegistered {
    const TYPE: &'static str = "user.registered";
    const DOMAIN: Domain = Domain::System;
    const SUBJECT: &'static str = "user";
    const PUBLISHER: Publisher = Publisher::Nexus;
    const AUDIENCE: &'static [&'static str] = &["user/{user_id}"];
    const DESCRIPTION: &'static str = "A user was registered.";
}

/// A user logged in.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserLogin {
    /// The user.
    pub user_id: Uuid,
    /// Version of the user's record after the write.
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_i64))]
    pub version: i64,
    /// When the user logged in.
    pub logged_in_at: Timestamp,
}

impl Payload for UserLogin {
    const TYPE: &'static str = "user.login";
    const DOMAIN: Domain = Domain::System;
    const SUBJECT: &'static str = "user";
    const PUBLISHER: Publisher = Publisher::Nexus;
    const AUDIENCE: &'static [&'static str] = &["user/{user_id}"];
    const DESCRIPTION: &'static str = "A user logged in.";
}

/// How much an alert matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Needs a look soon.
    Warning,
    /// Needs a look now.
    Critical,
}

/// Something about the platform that people should know.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SystemAlert {
    /// How much it matters.
    pub severity: Severity,
    /// Stable name of the condition, such as `disk-almost-full`.
    #[schemars(regex(pattern = "^[a-z0-9-]{1,64}$"))]
    pub code: String,
    /// One sentence for people.
    #[schemars(length(min = 1, max = 500))]
    pub message: String,
}

impl Payload for SystemAlert {
    const TYPE: &'static str = "system.alert";
    const DOMAIN: Domain = Domain::System;
    const SUBJECT: &'static str = "system";
    const PUBLISHER: Publisher = Publisher::Administrator;
    const AUDIENCE: &'static [&'static str] = &["everyone"];
    const DESCRIPTION: &'static str = "Something about the platform that people should know.";
}

/// How a component does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Works in full.
    Healthy,
    /// Works with a part missing.
    Degraded,
    /// Does not work.
    Unhealthy,
}

/// A component reported how it does.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// The component.
    #[schemars(regex(pattern = "^[a-z0-9-]{1,64}$"))]
    pub component: String,
    /// How it does.
    pub status: Health,
    /// How long the check took, in milliseconds.
    #[schemars(range(min = 0, max = 3_600_000))]
    pub latency_milliseconds: Option<i64>,
}

impl Payload for HealthCheck {
    const TYPE: &'static str = "health.check";
    const DOMAIN: Domain = Domain::System;
    const SUBJECT: &'static str = "system";
    const DELIVERY: DeliveryClass = DeliveryClass::LatestBySubject;
    const AUDIENCE: &'static [&'static str] = &[];
    const DESCRIPTION: &'static str = "A component reported how it does.";
}
