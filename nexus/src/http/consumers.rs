//! `/v1/consumers`: durable consumers, each of the subject that made it.

pub(super) mod dead_letters;
mod leases;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::routing::get;
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::extract::{JsonOf, PathOf, QueryOf};
use super::{Answer, AppState, Operation, Parameter, Routes};
use crate::auth::{Admin, Caller, Claims, ConsumersWrite, EventsRead, EventsReadOwn, Scope};
use crate::config::consumers::RETRY_SECONDS_MAX;
use crate::consumers::store::{self, AccessConsumers, Settings, texts};
use crate::consumers::{Consumer, Standing};
use crate::events::audience::room_of_person;
use crate::events::{Registry, Violation};
use crate::log::Versions;
use crate::position::Position;
use crate::problem::ApiError;
use crate::realtime::subscription::{Asked, Filter};

const PATH: &str = "/v1/consumers/{name}";
/// Longest name of a consumer, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Longest lease: twelve hours, as elsewhere in the field.
const LEASE_SECONDS_MAX: i32 = 43_200;
/// Lease of a consumer that names none: longer than most work, short enough to notice who has vanished.
const LEASE_SECONDS: i32 = 30;
/// Most waits of a schedule: a hundred attempts.
const RETRIES_MAX: usize = 99;

const NAME: Parameter = Parameter {
    place: "path",
    name: "name",
    description: "The consumer's name among those of its owner.",
    required: true,
};
const OWNER: Parameter = Parameter {
    place: "query",
    name: "owner",
    description: "The subject whose consumer is meant; the caller by default. Another one needs the scope admin.",
    required: false,
};

pub(super) fn routes() -> Routes {
    Routes::new()
        .with(list_operation(), get(list))
        .with(put_operation(), get(show).put(put).delete(end))
        .documented(show_operation())
        .documented(end_operation())
        .merge(leases::routes())
        .merge(dead_letters::routes())
}

fn list_operation() -> Operation {
    Operation {
        scope: Some(ConsumersWrite::NAME),
        answers: vec![Answer::json::<Consumers>(200, "The caller's consumers; everybody's for the scope admin")],
        ..Operation::new(Method::GET, "/v1/consumers", "listConsumers", "Lists durable consumers")
    }
}

fn put_operation() -> Operation {
    Operation {
        scope: Some(ConsumersWrite::NAME),
        parameters: vec![NAME],
        body: vec![("application/json", SchemaGenerator::subschema_for::<Wanted>)],
        answers: vec![
            Answer::json::<Shown>(201, "Made"),
            Answer::json::<Shown>(200, "Changed; it goes on from where it stands"),
        ],
        ..Operation::new(Method::PUT, PATH, "putConsumer", "Makes a durable consumer, or changes its settings")
    }
}

fn show_operation() -> Operation {
    Operation {
        scope: Some(ConsumersWrite::NAME),
        parameters: vec![NAME, OWNER],
        answers: vec![Answer::json::<Shown>(200, "The consumer and where it stands")],
        ..Operation::new(Method::GET, PATH, "readConsumer", "Reads a durable consumer")
    }
}

fn end_operation() -> Operation {
    Operation {
        scope: Some(ConsumersWrite::NAME),
        parameters: vec![NAME, OWNER],
        answers: vec![Answer::plain(204, "Ended, with everything that waited for it")],
        ..Operation::new(Method::DELETE, PATH, "deleteConsumer", "Ends a durable consumer")
    }
}

/// What a consumer is to get, and how.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Patterns of event types, 1 to 16; * is one segment, ** any number.
    types: Vec<String>,
    /// Only these subjects, 1 to 128; all by default.
    subjects: Option<Vec<String>>,
    /// The version of a type in which its events are to come, by type; the current one, also of later on, by default.
    #[serde(default)]
    versions: BTreeMap<String, u16>,
    /// Whether an event waits until the one before it of the same subject is acknowledged or a dead letter.
    #[serde(default)]
    ordered: bool,
    /// Where a new consumer begins: after this position; now by default. A consumer that is there stays where it stands.
    after: Option<Position>,
    /// How long a lease lasts when its taker does not say, 1 to 43200 seconds; 30 by default.
    #[serde(default = "lease_seconds")]
    #[schemars(range(min = 1, max = 43_200))]
    lease_seconds: i32,
    /// Waits after each failed attempt, up to 99 of 0 to 604800 seconds, each a fifth more or less. There is one attempt
    /// more than there are waits; after the last one the event is a dead letter. By default ten attempts, with waits from
    /// 1 second on that double.
    retry_seconds: Option<Vec<i32>>,
}

fn lease_seconds() -> i32 {
    LEASE_SECONDS
}

/// A consumer.
#[derive(Serialize, JsonSchema)]
struct Listed {
    /// Its name.
    name: String,
    /// The subject that made it.
    owner: String,
    /// What it sees: `everything`, or what its `owner` sees.
    sees: &'static str,
    /// Patterns of event types.
    types: Vec<String>,
    /// Only these subjects; null for all.
    subjects: Option<Vec<String>>,
    /// The versions that it asks for, by type.
    versions: BTreeMap<String, u16>,
    /// Whether events of one subject wait for one another.
    ordered: bool,
    /// How long a lease lasts when its taker does not say.
    lease_seconds: i32,
    /// Waits after each failed attempt, in seconds.
    retry_seconds: Vec<i32>,
}

/// A consumer and where it stands.
#[derive(Serialize, JsonSchema)]
struct Shown {
    #[serde(flatten)]
    consumer: Listed,
    /// Up to here the log was looked through for it.
    position: Position,
    /// The newest place in the log.
    head: Position,
    /// Deliveries that wait or are leased.
    pending: i64,
    /// Deliveries that were given up.
    dead_letters: i64,
}

#[derive(Serialize, JsonSchema)]
struct Consumers {
    consumers: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnerQuery {
    owner: Option<String>,
}

async fn list(State(state): State<AppState>, caller: Caller<ConsumersWrite>) -> Result<Json<Consumers>, ApiError> {
    let owner = (!caller.claims.allows(Admin::NAME)).then_some(&*caller.claims.sub);
    let consumers = store::list(&state.postgres, owner).await?;
    Ok(Json(Consumers { consumers: consumers.into_iter().map(|consumer| listed(&state, consumer)).collect() }))
}

async fn put(
    State(state): State<AppState>,
    caller: Caller<ConsumersWrite>,
    PathOf(name): PathOf<String>,
    JsonOf(wanted): JsonOf<Wanted>,
) -> Result<(StatusCode, Json<Shown>), ApiError> {
    let person = person(&caller.claims)?;
    let name = checked(name)?;
    let after = wanted.after;
    let settings = settings(&state.registry, wanted, person)?;
    let position = store::beginning(&state.postgres, after).await?;
    let max = state.config.consumers.per_owner_max;
    let named = (&*caller.claims.sub, &*name);
    let (consumer, is_new) = store::put(&state.postgres, named, &settings, position, max).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(shown(&state, consumer).await?)))
}

async fn show(
    State(state): State<AppState>,
    caller: Caller<ConsumersWrite>,
    PathOf(name): PathOf<String>,
    QueryOf(query): QueryOf<OwnerQuery>,
) -> Result<Json<Shown>, ApiError> {
    let consumer = find(&state, &caller.claims, &name, &query).await?;
    Ok(Json(shown(&state, consumer).await?))
}

async fn end(
    State(state): State<AppState>,
    caller: Caller<ConsumersWrite>,
    PathOf(name): PathOf<String>,
    QueryOf(query): QueryOf<OwnerQuery>,
) -> Result<StatusCode, ApiError> {
    let owner = owner(&caller.claims, &query)?;
    let was_there = store::delete(&state.postgres, owner, &name).await?;
    if was_there { Ok(StatusCode::NO_CONTENT) } else { Err(no_consumer()) }
}

fn no_consumer() -> ApiError {
    ApiError::FindNothing("there is no such consumer")
}

/// The consumer that is meant, if the caller may have to do with it.
async fn find(state: &AppState, claims: &Claims, name: &str, query: &OwnerQuery) -> Result<Consumer, ApiError> {
    let found = store::find(&state.postgres, owner(claims, query)?, name).await?;
    found.ok_or_else(no_consumer)
}

fn owner<'a>(claims: &'a Claims, query: &'a OwnerQuery) -> Result<&'a str, ApiError> {
    match &query.owner {
        Some(owner) if *owner != claims.sub && !claims.allows(Admin::NAME) => {
            Err(ApiError::LackScope { scope: Admin::NAME })
        }
        Some(owner) => Ok(owner),
        None => Ok(&claims.sub),
    }
}

/// The room of the person whose rights count for what the caller makes; none when the caller may see everything.
pub(super) fn person(claims: &Claims) -> Result<Option<String>, ApiError> {
    if claims.allows(EventsRead::NAME) {
        Ok(None)
    } else if claims.allows(EventsReadOwn::NAME) {
        Ok(Some(room_of_person(&claims.sub)))
    } else {
        Err(ApiError::LackScope { scope: EventsReadOwn::NAME })
    }
}

/// Refuses a caller who may now see less than the consumer is given.
pub(super) fn may_take(claims: &Claims, consumer: &Consumer) -> Result<(), ApiError> {
    match (person(claims)?, &consumer.settings.person) {
        (None, _) => Ok(()),
        (Some(person), Some(owner)) if person == *owner => Ok(()),
        _ => Err(ApiError::LackScope { scope: EventsRead::NAME }),
    }
}

fn checked(name: String) -> Result<String, ApiError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain) {
        return Ok(name);
    }
    let message = format!("must have 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`");
    Err(ApiError::InvalidParameter { name: "name", message })
}

fn settings(registry: &Arc<Registry>, wanted: Wanted, person: Option<String>) -> Result<Settings, ApiError> {
    let Wanted { types, subjects, versions, ordered, lease_seconds, retry_seconds, after: _ } = wanted;
    let mut violations = Vec::new();
    let filter = Filter::read(registry, Asked { types, subjects, ..Asked::default() });
    let filter = filter.map_err(|error| violations.push(Violation::new("", error.to_string())));
    violations.extend(refused_versions(registry, &versions));
    violations.extend(refused_lease("/lease_seconds", lease_seconds));
    violations.extend(retry_seconds.as_deref().and_then(refused_waits));
    match filter {
        Ok(filter) if violations.is_empty() => Ok(Settings {
            person,
            types: filter.patterns().to_vec(),
            subjects: filter.subjects().map(<[String]>::to_vec),
            versions,
            ordered,
            lease_seconds,
            retry_seconds,
        }),
        _ => Err(ApiError::InvalidDocument(violations)),
    }
}

pub(super) fn refused_versions(registry: &Registry, asked: &BTreeMap<String, u16>) -> Option<Violation> {
    let refused = Versions::read(registry, asked).err()?;
    Some(Violation::new("/versions", refused.to_string()))
}

fn refused_lease(path: &str, seconds: i32) -> Option<Violation> {
    let valid = (1..=LEASE_SECONDS_MAX).contains(&seconds);
    (!valid).then(|| Violation::new(path, format!("must be a number of seconds from 1 to {LEASE_SECONDS_MAX}")))
}

pub(super) fn refused_waits(waits: &[i32]) -> Option<Violation> {
    let valid =
        waits.len() <= RETRIES_MAX && waits.iter().all(|wait| (0..=RETRY_SECONDS_MAX).contains(&i64::from(*wait)));
    let message = format!("must have at most {RETRIES_MAX} numbers of seconds from 0 to {RETRY_SECONDS_MAX}");
    (!valid).then(|| Violation::new("/retry_seconds", message))
}

fn listed(state: &AppState, consumer: Consumer) -> Listed {
    let retry_seconds = consumer.retry_seconds(&state.config.consumers.retry_seconds).to_vec();
    let Consumer { owner, name, settings, .. } = consumer;
    Listed {
        name: name.unwrap_or_default(),
        owner,
        sees: if settings.person.is_none() { "everything" } else { "owner" },
        types: texts(&settings.types),
        subjects: settings.subjects,
        versions: settings.versions,
        ordered: settings.ordered,
        lease_seconds: settings.lease_seconds,
        retry_seconds,
    }
}

async fn shown(state: &AppState, consumer: Consumer) -> Result<Shown, ApiError> {
    let retry = consumer.retry_seconds(&state.config.consumers.retry_seconds);
    let standing = store::standing(&state.postgres, &consumer, retry).await?;
    let Standing { position, head, pending, dead_letters } = standing;
    Ok(Shown { consumer: listed(state, consumer), position, head, pending, dead_letters })
}

impl From<AccessConsumers> for ApiError {
    fn from(error: AccessConsumers) -> Self {
        match error {
            AccessConsumers::FindPlace(error) => error.into(),
            AccessConsumers::LimitConsumers { .. } => {
                Self::Conflict { code: "too_many_consumers", detail: error.to_string() }
            }
            AccessConsumers::QueryConsumers(_) => Self::unavailable(error),
        }
    }
}
