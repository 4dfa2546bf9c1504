//! `/v1/events`: publishing, and reading history.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use jiff::Timestamp;
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use super::admission::{ClientAddress, own_place, place};
use super::extract::{Body, QueryOf};
use super::{Answer, AppState, Operation, Parameter, Routes};
use crate::auth::{Access, Caller, EventsRead, EventsReadOwn, EventsWriteOwn, Scope};
use crate::events::{CloudEvent, Pattern, Registry, Violation};
use crate::log::read::{self, READ_ENTRIES_MAX, Selection};
use crate::log::{Entry, NewEvent, Published, Versions};
use crate::position::{ParsePosition, Position};
use crate::problem::{ApiError, Problem};
use crate::realtime::subscription::{Asked, Filter, attributes_of};
use crate::traces;

pub(crate) use author::Author;

mod author;

/// Most events of one batch.
const BATCH_EVENTS_MAX: usize = 1_000;
/// Largest event, in bytes. A read of the log has at least one event, however large, so it bounds what a reader holds.
const EVENT_BYTES_MAX: usize = 64 * 1024;
/// Events of a page when the caller names no limit.
const PAGE_EVENTS: usize = 100;
/// Longest that a reader may wait for an event: below the deadline of a request, with room for reads that take long.
const WAIT_SECONDS_MAX: u64 = 12;
/// Carries the position of a write.
pub const POSITION_HEADER: HeaderName = HeaderName::from_static("nexus-position");

pub(super) fn routes() -> Routes {
    Routes::new().with(publish_operation(), post(publish)).with(list_operation(), get(list))
}

fn publish_operation() -> Operation {
    let headers: &[&str] = &["Nexus-Position"];
    Operation {
        scope: Some(EventsWriteOwn::NAME),
        parameters: vec![Parameter {
            place: "query",
            name: "atomic",
            description: "false publishes those events of a batch that are valid and tells of each; true by default.",
            required: false,
        }],
        body: vec![
            ("application/cloudevents+json", SchemaGenerator::subschema_for::<Event>),
            ("application/cloudevents-batch+json", SchemaGenerator::subschema_for::<Vec<Event>>),
            ("application/json", SchemaGenerator::subschema_for::<Event>),
        ],
        answers: vec![
            Answer { headers, ..Answer::json::<Answered>(201, "Published, at least one for the first time") },
            Answer { headers, ..Answer::json::<Answered>(200, "All were published before") },
            Answer { headers, ..Answer::json::<Answered>(207, "Some were refused, with `atomic=false`") },
        ],
        ..Operation::new(Method::POST, "/v1/events", "publishEvents", "Publishes one event, or a batch as a whole")
    }
}

/// In which versions events are to come.
pub(super) const VERSIONS: Parameter = Parameter {
    place: "query",
    name: "versions",
    description: "Versions of types in which events are to come, as wallet.created:1, separated by commas; the current \
        ones by default. An event that was published in a later version comes in that.",
    required: false,
};

fn list_operation() -> Operation {
    let query = |name, description| Parameter { place: "query", name, description, required: false };
    Operation {
        scope: Some(EventsReadOwn::NAME),
        parameters: vec![
            query("type", "Patterns of types, separated by commas; * is one segment, ** any number. All by default."),
            query("subject", "Only events about this subject."),
            query("attributes", "Only events with these attributes: `source=/mint,tenant=7`."),
            query("user", "Only events that concern this user. Another than oneself needs the scope events:read."),
            query("after", "Only events after this position; from the oldest by default."),
            query("since", "Only events that were logged from this time on, RFC 3339."),
            query("until", "Only events that were logged before this time, RFC 3339."),
            query("limit", "Most events to return, 1 to 500; 100 by default. Large events end a page earlier."),
            query("wait", "Seconds to wait when there is no event yet, 0 to 12; 0 by default."),
            VERSIONS,
        ],
        answers: vec![Answer::json::<Page>(200, "Events, oldest first")],
        ..Operation::new(Method::GET, "/v1/events", "listEvents", "Reads history")
    }
}

/// An event in the structured JSON form of `CloudEvents` 1.0; the type's own schema is at `/v1/event-types`.
#[derive(Serialize, JsonSchema)]
pub(super) struct Event {
    /// Always `1.0`.
    specversion: String,
    /// Unique per source.
    id: String,
    /// Who produced the event, a URI reference.
    source: String,
    /// One of the registered types.
    r#type: String,
    /// What it is about, in the form that the type asks for.
    subject: String,
    /// When it happened; now by default.
    time: Option<Timestamp>,
    /// Names the version of the type that the payload is in, as /v1/event-types/wallet.created/versions/2; the first
    /// one by default.
    dataschema: Option<String>,
    /// The payload.
    data: Value,
}

/// What became of one event.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Receipt {
    /// The event's id.
    pub id: String,
    /// The event's source.
    pub source: String,
    /// Its place in the log.
    pub position: Position,
    /// Whether it was there before.
    pub duplicate: bool,
}

/// What became of one event of a batch.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum Outcome {
    Published(Receipt),
    Refused {
        /// Its place in the batch, from 0.
        index: usize,
        /// Why.
        problem: Problem,
    },
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum Answered {
    Batch { results: Vec<Outcome> },
    Single(Receipt),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishQuery {
    #[serde(default = "all_or_none")]
    atomic: bool,
}

fn all_or_none() -> bool {
    true
}

async fn publish(
    State(state): State<AppState>,
    caller: Caller<EventsWriteOwn>,
    QueryOf(PublishQuery { atomic }): QueryOf<PublishQuery>,
    body: Body,
) -> Result<Response, ApiError> {
    let (documents, single) = documents(&body)?;
    let author = Author::of(&state, &caller.claims).await?;
    let (events, refused) = if atomic || single {
        (accept(&state.registry, &author, documents, single)?, Vec::new())
    } else {
        accept_each(&state.registry, &author, documents)?
    };
    let mut receipts = publish_all(&state, events).await?;
    let status = match (receipts.iter().any(|receipt| !receipt.duplicate), refused.is_empty()) {
        (_, false) => StatusCode::MULTI_STATUS,
        (true, true) => StatusCode::CREATED,
        (false, true) => StatusCode::OK,
    };
    let newest = receipts.iter().map(|receipt| receipt.position).max().unwrap_or_else(|| state.tail.position());
    let answer = match receipts.pop() {
        Some(receipt) if single => Answered::Single(receipt),
        last => {
            receipts.extend(last);
            Answered::Batch { results: outcomes(receipts, refused) }
        }
    };
    Ok((status, [(POSITION_HEADER, newest.to_string())], Json(answer)).into_response())
}

/// What became of each event, in the order of the batch.
fn outcomes(receipts: Vec<Receipt>, refused: Vec<(usize, ApiError)>) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = receipts.into_iter().map(Outcome::Published).collect();
    // In the order of their places: each finds those before it already there.
    for (index, error) in refused {
        outcomes.insert(index, Outcome::Refused { index, problem: error.problem() });
    }
    outcomes
}

/// The events of the body, and whether it was a single one.
fn documents(body: &Body) -> Result<(Vec<Value>, bool), ApiError> {
    let read = || serde_json::from_slice(&body.content).map_err(|error| ApiError::MalformedBody(error.to_string()));
    match (body.media_type.as_str(), read) {
        ("application/cloudevents+json", read) => Ok((vec![read()?], true)),
        ("application/cloudevents-batch+json" | "application/json", read) => match read()? {
            Value::Array(documents) => Ok((documents, false)),
            document if body.media_type == "application/json" => Ok((vec![document], true)),
            _ => Err(ApiError::MalformedBody("a batch is a JSON array".to_owned())),
        },
        _ => Err(ApiError::RefuseMediaType),
    }
}

/// Validates every document and the caller's right to publish its type; lists everything that is wrong.
pub(crate) fn accept(
    registry: &Registry,
    author: &Author<'_>,
    documents: Vec<Value>,
    single: bool,
) -> Result<Vec<NewEvent>, ApiError> {
    check_length(&documents)?;
    let now = Timestamp::now();
    let mut violations = Vec::new();
    let mut events = Vec::with_capacity(documents.len());
    for (index, document) in documents.into_iter().enumerate() {
        let place = if single { String::new() } else { format!("/{index}") };
        match validate(registry, author, document, now) {
            Ok(event) => events.push(event),
            Err(ApiError::InvalidDocument(found)) => {
                let found = found.into_iter().map(|one| Violation::new(place.clone() + &one.path, one.message));
                violations.extend(found);
            }
            Err(refused) => return Err(refused),
        }
    }
    if violations.is_empty() { Ok(events) } else { Err(ApiError::InvalidDocument(violations)) }
}

/// The events that may be published, and why each other one, by its place, may not.
#[expect(clippy::type_complexity, reason = "read in one place")]
fn accept_each(
    registry: &Registry,
    author: &Author<'_>,
    documents: Vec<Value>,
) -> Result<(Vec<NewEvent>, Vec<(usize, ApiError)>), ApiError> {
    check_length(&documents)?;
    let now = Timestamp::now();
    let (mut events, mut refused) = (Vec::new(), Vec::new());
    for (index, document) in documents.into_iter().enumerate() {
        match validate(registry, author, document, now) {
            Ok(event) => events.push(event),
            Err(error) => refused.push((index, error)),
        }
    }
    Ok((events, refused))
}

fn check_length(documents: &[Value]) -> Result<(), ApiError> {
    if documents.len() <= BATCH_EVENTS_MAX {
        return Ok(());
    }
    let message = format!("has more than {BATCH_EVENTS_MAX} events");
    Err(ApiError::InvalidDocument(vec![Violation::new("", message)]))
}

fn validate(registry: &Registry, author: &Author<'_>, document: Value, now: Timestamp) -> Result<NewEvent, ApiError> {
    let event = CloudEvent::read(document, now).map_err(ApiError::InvalidDocument)?;
    let definition = registry.validate(&event).map_err(ApiError::InvalidDocument)?;
    author.check(&event, definition)?;
    let audience = definition.audience(&event);
    let event = NewEvent::accepted(event, audience);
    if event.encoded_bytes() > EVENT_BYTES_MAX {
        let message = format!("has more than {EVENT_BYTES_MAX} bytes");
        return Err(ApiError::InvalidDocument(vec![Violation::new("", message)]));
    }
    Ok(event)
}

/// Publishes accepted events as one; used by every protocol.
pub(crate) async fn publish_all(state: &AppState, events: Vec<NewEvent>) -> Result<Vec<Receipt>, ApiError> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<(String, String)> = events.iter().map(|event| (event.id.clone(), event.source.clone())).collect();
    let _append = traces::step("append");
    let published = state.publisher.publish(events).await?;
    let receipt = |((id, source), Published { position, duplicate }): ((String, String), Published)| Receipt {
        id,
        source,
        position,
        duplicate,
    };
    Ok(names.into_iter().zip(published).map(receipt).collect())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    r#type: Option<String>,
    subject: Option<String>,
    attributes: Option<String>,
    user: Option<String>,
    after: Option<String>,
    since: Option<String>,
    until: Option<String>,
    limit: Option<String>,
    wait: Option<String>,
    versions: Option<String>,
}

/// A page of history.
#[derive(Serialize, JsonSchema)]
struct Page {
    /// Events, oldest first, each with the extension attribute `position`.
    #[schemars(with = "Vec<Value>")]
    events: Vec<Box<RawValue>>,
    /// Where the next page begins; null on the last one.
    next: Option<Position>,
    /// The newest place in the log.
    head: Position,
    /// What retention has dropped of what was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<Gap>,
}

/// A part of the log that is no longer there: everything after `from`, up to and with `to`.
#[derive(Serialize, JsonSchema)]
struct Gap {
    from: Position,
    to: Position,
}

async fn list(
    State(state): State<AppState>,
    caller: Caller<EventsReadOwn>,
    address: ClientAddress,
    QueryOf(query): QueryOf<ListQuery>,
) -> Result<Json<Page>, ApiError> {
    let types = query.r#type.as_deref().map(|patterns| types(&state.registry, patterns)).transpose()?.flatten();
    let limit = query.limit.as_deref().map_or(Ok(PAGE_EVENTS), limit)?;
    let after = query.after.as_deref().map(|after| position("after", after)).transpose()?;
    let since = query.since.as_deref().map(|since| time("since", since)).transpose()?;
    let until = query.until.as_deref().map(|until| time("until", until)).transpose()?;
    let versions = versions(&state.registry, query.versions.as_deref())?;
    let subjects = query.subject.as_ref().map(std::slice::from_ref);
    let access = match &query.user {
        Some(user) if *user != caller.claims.sub && !caller.claims.allows(EventsRead::NAME) => {
            return Err(ApiError::LackScope { scope: EventsRead::NAME });
        }
        Some(user) if user.contains(char::is_control) => {
            let message = "must not contain control characters".to_owned();
            return Err(ApiError::InvalidParameter { name: "user", message });
        }
        Some(user) => Access::of_person(user),
        None => Access::of(&caller.claims),
    };
    let wait = query.wait.as_deref().map_or(Ok(Duration::ZERO), wait)?;
    let deadline = Instant::now() + wait;
    let asked = Asked { attributes: attributes(query.attributes.as_deref())?, ..Asked::default() };
    let attributes = attributes_of(asked.attributes.clone());
    let attributes = &*attributes
        .map_err(|refused| ApiError::InvalidParameter { name: "attributes", message: refused.to_string() })?;
    // Before the first look: what comes after that is noticed.
    let mut waiting = if wait.is_zero() {
        None
    } else {
        let filter = filter(&state.registry, query.r#type.as_deref(), query.subject.clone(), asked)?;
        let places = (place(&state, address).await?, own_place(&state, &caller.claims).await?);
        Some((places, state.hub.wait_for(filter, access.clone())))
    };
    let read = loop {
        let access = access.clone().with_memberships(&state.postgres).await?;
        if let Some((_, waiter)) = &mut waiting {
            waiter.set_access(access.clone());
        }
        let types: Option<Vec<&str>> = types.as_ref().map(|types| types.iter().map(|one| &**one).collect());
        let (types, rooms) = (types.as_deref(), access.rooms());
        let selection = Selection { types, subjects, attributes, rooms, after, since, until, limit };
        let read = read::history(&state.postgres, &state.registry, &selection).await?;
        if access.has_grown(&state.postgres).await? {
            continue;
        }
        match &mut waiting {
            Some((_, waiter)) if read.entries.is_empty() && read.gap.is_none() => {
                let came = timeout_at(deadline, waiter.entry_after(read.head)).await.is_ok();
                // What came meanwhile is not for one whose token was revoked meanwhile.
                state.verifier.check(&caller.claims)?;
                if !came || state.hub.is_draining() {
                    break read;
                }
            }
            _ => break read,
        }
    };
    let (head, next) = (read.head, read.next());
    let gap = read.gap.map(|(from, to)| Gap { from, to });
    let text = |entry: &Arc<Entry>| serde_json::from_slice(&versions.text(&state.registry, entry));
    let events = read.entries.iter().map(text).collect::<Result<_, _>>();
    Ok(Json(Page { events: events.map_err(ApiError::internal)?, next, head, gap }))
}

/// What the parameters `type` and `subject` ask for, and others that some operations have.
pub(super) fn filter(
    registry: &Arc<Registry>,
    types: Option<&str>,
    subject: Option<String>,
    others: Asked,
) -> Result<Filter, ApiError> {
    let types = types.unwrap_or("**").split(',').map(str::to_owned).collect();
    let filter = Filter::read(registry, Asked { types, subjects: subject.map(|subject| vec![subject]), ..others });
    // The message names what is wrong by the name that it has in commands, which is the parameter's or its plural.
    filter.map_err(|refused| ApiError::InvalidParameter { name: "query", message: refused.to_string() })
}

/// The types that the parameter `type` asks for; nothing when it asks for every type, also those of newer pods.
fn types(registry: &Registry, patterns: &str) -> Result<Option<Vec<Arc<str>>>, ApiError> {
    let invalid = |error: crate::events::pattern::ParsePattern| ApiError::InvalidParameter {
        name: "type",
        message: error.to_string(),
    };
    let patterns: Vec<Pattern> = patterns.split(',').map(str::parse).collect::<Result<_, _>>().map_err(invalid)?;
    Ok((!patterns.iter().any(Pattern::is_any)).then(|| registry.matching(&patterns)))
}

/// What the parameter `versions` asks for.
fn versions(registry: &Registry, asked: Option<&str>) -> Result<Versions, ApiError> {
    let invalid = |message: String| ApiError::InvalidParameter { name: "versions", message };
    Versions::read(registry, &by_type(asked)?).map_err(|refused| invalid(refused.to_string()))
}

/// Versions by type, as the parameter `versions` lists them.
pub(super) fn by_type(asked: Option<&str>) -> Result<BTreeMap<String, u16>, ApiError> {
    let invalid = || ApiError::InvalidParameter {
        name: "versions",
        message: "must list each type once with its version, as wallet.created:1,job.posted:2".to_owned(),
    };
    let mut versions = BTreeMap::new();
    for one in asked.into_iter().flat_map(|asked| asked.split(',')) {
        let (event_type, version) = one.split_once(':').ok_or_else(invalid)?;
        let version = version.parse().map_err(|_| invalid())?;
        if versions.insert(event_type.to_owned(), version).is_some() {
            return Err(invalid());
        }
    }
    Ok(versions)
}

/// Attributes by name, as the parameter `attributes` lists them.
pub(super) fn attributes(asked: Option<&str>) -> Result<BTreeMap<String, String>, ApiError> {
    let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let message = "has the form `name=value`, more separated by commas".to_owned();
    let pairs: Option<_> = asked.into_iter().flat_map(|asked| asked.split(',')).map(pair).collect();
    pairs.ok_or(ApiError::InvalidParameter { name: "attributes", message })
}

fn time(name: &'static str, text: &str) -> Result<Timestamp, ApiError> {
    let message = "must be an RFC 3339 timestamp".to_owned();
    text.parse().map_err(|_| ApiError::InvalidParameter { name, message })
}

fn limit(text: &str) -> Result<usize, ApiError> {
    let limit = text.parse().ok().filter(|limit| (1..=READ_ENTRIES_MAX).contains(limit));
    let message = format!("must be a number from 1 to {READ_ENTRIES_MAX}");
    limit.ok_or(ApiError::InvalidParameter { name: "limit", message })
}

fn wait(text: &str) -> Result<Duration, ApiError> {
    let seconds = text.parse().ok().filter(|seconds| *seconds <= WAIT_SECONDS_MAX);
    let message = format!("must be a number of seconds from 0 to {WAIT_SECONDS_MAX}");
    seconds.map(Duration::from_secs).ok_or(ApiError::InvalidParameter { name: "wait", message })
}

/// The position in the parameter or header of this name.
pub(super) fn position(name: &'static str, token: &str) -> Result<Position, ApiError> {
    let invalid = |error: ParsePosition| ApiError::InvalidParameter { name, message: error.to_string() };
    token.parse().map_err(invalid)
}
