//! Webhooks as callers write and read them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use reqwest::Url;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use super::super::AppState;
use super::super::consumers::{refused_versions, refused_waits};
use crate::consumers::Standing;
use crate::consumers::store::{Settings, standing, texts};
use crate::events::Violation;
use crate::position::Position;
use crate::problem::ApiError;
use crate::realtime::subscription::{Asked, Filter};
use crate::webhooks::store::{Token, Written};
use crate::webhooks::{SigningSecret, Webhook};

/// Longest address and longest description, in bytes.
const TEXT_BYTES_MAX: usize = 2_048;

/// A webhook that is to be made.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewWebhook {
    /// Where to deliver, an https address up to 2048 bytes, without a user. Addresses that are not public are refused.
    url: String,
    /// Patterns of event types, 1 to 16; * is one segment, ** any number.
    types: Vec<String>,
    /// Only these subjects, 1 to 128; all by default.
    subjects: Option<Vec<String>>,
    /// The version of a type in which its events are to come, by type; the current one, also of later on, by default.
    #[serde(default)]
    versions: BTreeMap<String, u16>,
    /// For people, up to 2048 bytes.
    #[serde(default)]
    description: String,
    /// Waits after each failed attempt, up to 99 of 0 to 604800 seconds, each a fifth more or less. There is one attempt
    /// more than there are waits; after the last one the event is a dead letter. By default ten attempts in three days.
    retry_seconds: Option<Vec<i32>>,
    /// Where to begin: after this position; now by default.
    pub(super) after: Option<Position>,
    /// A secret of the caller's own, `whsec_` and the base64 of 24 to 64 bytes; made by Nexus by default.
    pub(super) secret: Option<String>,
}

/// What is to be changed; what is absent stays.
#[derive(Deserialize, JsonSchema)]
#[expect(clippy::option_option, reason = "absent, null and a value are three things")]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    /// Where to deliver.
    url: Option<String>,
    /// Patterns of event types.
    types: Option<Vec<String>>,
    /// Only these subjects; null for all.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Option<Vec<String>>")]
    subjects: Option<Option<Vec<String>>>,
    /// The versions in which events are to come, by type.
    versions: Option<BTreeMap<String, u16>>,
    /// For people.
    description: Option<String>,
    /// Waits after each failed attempt, in seconds; null for those by default.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Option<Vec<i32>>")]
    retry_seconds: Option<Option<Vec<i32>>>,
    /// False lets it get nothing; true lets it go on where it stood, and what waits is due at once.
    pub(super) enabled: Option<bool>,
}

/// Tells a null from what is absent.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl Change {
    /// The whole webhook, as it is to be.
    pub(super) fn over(self, webhook: &Webhook) -> NewWebhook {
        let Settings { types, subjects, versions, retry_seconds, .. } = &webhook.consumer.settings;
        NewWebhook {
            url: self.url.unwrap_or_else(|| webhook.url.clone()),
            types: self.types.unwrap_or_else(|| texts(types)),
            subjects: self.subjects.unwrap_or_else(|| subjects.clone()),
            versions: self.versions.unwrap_or_else(|| versions.clone()),
            description: self.description.unwrap_or_else(|| webhook.description.clone()),
            retry_seconds: self.retry_seconds.unwrap_or_else(|| retry_seconds.clone()),
            after: None,
            secret: None,
        }
    }
}

/// A webhook.
#[derive(Serialize, JsonSchema)]
pub(super) struct Listed {
    id: Uuid,
    /// The subject that made it.
    owner: String,
    /// Where it delivers.
    url: String,
    description: String,
    /// What it sees: `everything`, or what its `owner` sees.
    sees: &'static str,
    /// Patterns of event types.
    types: Vec<String>,
    /// Only these subjects; null for all.
    subjects: Option<Vec<String>>,
    /// The versions that it asks for, by type.
    versions: BTreeMap<String, u16>,
    /// Waits after each failed attempt, in seconds.
    retry_seconds: Vec<i32>,
    created_at: Timestamp,
    /// Until when the secret before the last rotation signs as well.
    previous_secret_until: Option<Timestamp>,
    /// Since when every delivery has failed; null after one that arrived, and when nothing waits.
    failing_since: Option<Timestamp>,
    /// Why the last one failed.
    last_error: Option<String>,
    /// Whether it gets anything.
    enabled: bool,
    /// Why and since when it gets nothing.
    disabled: Option<DisabledDocument>,
}

/// Why and since when a webhook gets nothing.
#[derive(Serialize, JsonSchema)]
struct DisabledDocument {
    /// `owner`: a caller wanted it so. `gone`: the receiver answered 410. `failing`: everything has failed for too long.
    /// `revoked`: the token that it was made with was revoked.
    reason: String,
    at: Timestamp,
}

/// A webhook and where it stands.
#[derive(Serialize, JsonSchema)]
pub(super) struct Shown {
    #[serde(flatten)]
    webhook: Listed,
    /// Up to here the log was looked through for it.
    position: Position,
    /// The newest place in the log.
    head: Position,
    /// Events that wait to be delivered.
    pending: i64,
    /// Events that were given up.
    dead_letters: i64,
}

pub(super) fn read_secret(text: &str) -> Result<SigningSecret, ApiError> {
    let refused = |error: crate::webhooks::signature::ParseSecret| {
        ApiError::InvalidDocument(vec![Violation::new("/secret", error.to_string())])
    };
    SigningSecret::parse(text).map_err(refused)
}

/// What is to be written down; lists everything that is wrong.
pub(super) fn written(
    state: &AppState,
    new: NewWebhook,
    person: Option<String>,
    token: Token,
) -> Result<Written, ApiError> {
    let NewWebhook { url, types, subjects, versions, description, retry_seconds, after: _, secret: _ } = new;
    let mut violations = Vec::new();
    violations.extend(refused_url(state, &url).map(|message| Violation::new("/url", message)));
    if description.len() > TEXT_BYTES_MAX || description.contains('\0') {
        let message = format!("must have at most {TEXT_BYTES_MAX} bytes, none of them zero");
        violations.push(Violation::new("/description", message));
    }
    violations.extend(refused_versions(&state.registry, &versions));
    violations.extend(retry_seconds.as_deref().and_then(refused_waits));
    match Filter::read(&state.registry, Asked { types, subjects, ..Asked::default() }) {
        Ok(filter) if violations.is_empty() => {
            let settings = Settings {
                person,
                types: filter.patterns().to_vec(),
                subjects: filter.subjects().map(<[String]>::to_vec),
                versions,
                ordered: true,
                // The time of an attempt is a setting of the pod that makes it.
                lease_seconds: 1,
                retry_seconds,
            };
            Ok(Written { url, description, token, settings })
        }
        Ok(_) => Err(ApiError::InvalidDocument(violations)),
        Err(error) => {
            violations.push(Violation::new("", error.to_string()));
            Err(ApiError::InvalidDocument(violations))
        }
    }
}

fn refused_url(state: &AppState, text: &str) -> Option<String> {
    let Ok(url) = Url::parse(text) else {
        return Some("must be an address such as https://receiver.example/events".into());
    };
    let allow_http = state.config.webhooks.allow_http;
    if text.len() > TEXT_BYTES_MAX {
        return Some(format!("must have at most {TEXT_BYTES_MAX} bytes"));
    }
    if url.scheme() != "https" && !(allow_http && url.scheme() == "http") {
        return Some("must begin with https://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("must not name a user: the signature proves who delivers".to_owned());
    }
    state.receivers.check(&url).err().map(|refused| refused.to_string())
}

pub(super) fn listed(state: &AppState, webhook: &Webhook) -> Listed {
    let settings = &webhook.consumer.settings;
    let disabled = webhook.disabled.clone().map(|(at, reason)| DisabledDocument { reason, at });
    Listed {
        id: webhook.id,
        owner: webhook.consumer.owner.clone(),
        url: webhook.url.clone(),
        description: webhook.description.clone(),
        sees: if settings.person.is_none() { "everything" } else { "owner" },
        types: texts(&settings.types),
        subjects: settings.subjects.clone(),
        versions: settings.versions.clone(),
        retry_seconds: webhook.consumer.retry_seconds(&state.config.webhooks.retry_seconds).to_vec(),
        created_at: webhook.created_at,
        previous_secret_until: webhook.previous_until().filter(|until| *until > Timestamp::now()),
        failing_since: webhook.failing_since,
        last_error: webhook.last_error.clone(),
        enabled: disabled.is_none(),
        disabled,
    }
}

pub(super) async fn shown(state: &AppState, webhook: &Webhook) -> Result<Shown, ApiError> {
    let retry = webhook.consumer.retry_seconds(&state.config.webhooks.retry_seconds);
    let Standing { position, head, pending, dead_letters } =
        standing(&state.postgres, &webhook.consumer, retry).await?;
    Ok(Shown { webhook: listed(state, webhook), position, head, pending, dead_letters })
}
