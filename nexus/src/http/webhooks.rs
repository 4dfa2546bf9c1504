//! `/v1/webhooks`: making webhooks, changing and ending them. A secret is shown once, in the answer that made it.

mod actions;
mod document;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, Method, StatusCode, header};
use axum::routing::get;
use jiff::Timestamp;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use uuid::Uuid;

use super::consumers::person;
use super::extract::{JsonOf, PathOf};
use super::{Answer, AppState, Operation, Parameter, Routes};
use crate::auth::{Admin, Caller, Claims, Scope, WebhooksWrite};
use crate::consumers::store::beginning;
use crate::problem::ApiError;
use crate::webhooks::store::{self, Disabled, Token};
use crate::webhooks::{SigningSecret, Webhook};

use document::{Change, Listed, NewWebhook, Shown, listed, read_secret, shown, written};

const PATH: &str = "/v1/webhooks/{id}";
const ID: Parameter = Parameter { place: "path", name: "id", description: "The webhook's id, a UUID.", required: true };

pub(super) fn routes() -> Routes {
    let list = Operation {
        answers: vec![Answer::json::<Webhooks>(200, "The caller's webhooks; everybody's for the scope admin")],
        ..operation(Method::GET, "/v1/webhooks", "listWebhooks", "Lists webhooks")
    };
    let create = Operation {
        body: vec![("application/json", SchemaGenerator::subschema_for::<NewWebhook>)],
        answers: vec![Answer {
            headers: &["Location"],
            ..Answer::json::<Created>(201, "Made; its secret is shown this once")
        }],
        ..operation(Method::POST, "/v1/webhooks", "createWebhook", "Makes a webhook")
    };
    let read = Operation {
        parameters: vec![ID],
        answers: vec![Answer::json::<Shown>(200, "The webhook and where it stands")],
        ..operation(Method::GET, PATH, "readWebhook", "Reads a webhook")
    };
    let change = Operation {
        parameters: vec![ID],
        body: vec![("application/json", SchemaGenerator::subschema_for::<Change>)],
        answers: vec![Answer::json::<Shown>(200, "Changed")],
        ..operation(Method::PATCH, PATH, "changeWebhook", "Changes a webhook, disables or enables it")
    };
    let delete = Operation {
        parameters: vec![ID],
        answers: vec![Answer::plain(204, "Ended, with everything that waited for it")],
        ..operation(Method::DELETE, PATH, "deleteWebhook", "Ends a webhook")
    };
    Routes::new()
        .with(list, get(list_webhooks).post(make))
        .documented(create)
        .with(read, get(show).patch(alter).delete(end))
        .documented(change)
        .documented(delete)
        .merge(actions::routes())
}

fn operation(method: Method, path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation { scope: Some(WebhooksWrite::NAME), ..Operation::new(method, path, id, summary) }
}

#[derive(Serialize, JsonSchema)]
struct Webhooks {
    webhooks: Vec<Listed>,
}

/// A new webhook.
#[derive(Serialize, JsonSchema)]
struct Created {
    /// `whsec_` and the base64 of the secret by which deliveries are signed. It is not shown again.
    secret: String,
    #[serde(flatten)]
    webhook: Shown,
}

async fn list_webhooks(
    State(state): State<AppState>,
    caller: Caller<WebhooksWrite>,
) -> Result<Json<Webhooks>, ApiError> {
    let webhooks = store::list(&state.postgres, owner(&caller.claims)).await?;
    Ok(Json(Webhooks { webhooks: webhooks.iter().map(|webhook| listed(&state, webhook)).collect() }))
}

async fn make(
    State(state): State<AppState>,
    caller: Caller<WebhooksWrite>,
    JsonOf(new): JsonOf<NewWebhook>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<Created>), ApiError> {
    let person = person(&caller.claims)?;
    let secret = new.secret.as_deref().map_or_else(|| Ok(SigningSecret::generate()), read_secret)?;
    let after = new.after;
    let token = Token::of(&caller.claims, Timestamp::now());
    let written = written(&state, new, person, token)?;
    let position = beginning(&state.postgres, after).await?;
    let max = state.config.webhooks.per_owner_max;
    let id = store::create(&state.postgres, &caller.claims.sub, &written, (&secret, position), max).await?;
    let webhook = shown(&state, &find(&state, &caller.claims, id).await?).await?;
    let location = [(header::LOCATION, format!("/v1/webhooks/{id}"))];
    Ok((StatusCode::CREATED, location, Json(Created { secret: secret.expose(), webhook })))
}

async fn show(
    State(state): State<AppState>,
    caller: Caller<WebhooksWrite>,
    PathOf(id): PathOf<Uuid>,
) -> Result<Json<Shown>, ApiError> {
    Ok(Json(shown(&state, &find(&state, &caller.claims, id).await?).await?))
}

async fn alter(
    State(state): State<AppState>,
    caller: Caller<WebhooksWrite>,
    PathOf(id): PathOf<Uuid>,
    JsonOf(change): JsonOf<Change>,
) -> Result<Json<Shown>, ApiError> {
    let webhook = find(&state, &caller.claims, id).await?;
    // What its owner changes gets the owner's rights of now; an administrator's help changes none.
    let (person, token) = if webhook.consumer.owner == caller.claims.sub {
        (person(&caller.claims)?, Token::of(&caller.claims, Timestamp::now()))
    } else {
        (webhook.consumer.settings.person.clone(), webhook.token.clone())
    };
    let enabled = change.enabled;
    let written = written(&state, change.over(&webhook), person, token)?;
    store::change(&state.postgres, &webhook, &written).await?;
    match enabled {
        Some(true) => store::enable(&state.postgres, &webhook).await?,
        Some(false) => {
            store::disable(&state.postgres, id, Disabled::Owner).await?;
        }
        None => {}
    }
    Ok(Json(shown(&state, &find(&state, &caller.claims, id).await?).await?))
}

async fn end(
    State(state): State<AppState>,
    caller: Caller<WebhooksWrite>,
    PathOf(id): PathOf<Uuid>,
) -> Result<StatusCode, ApiError> {
    let webhook = find(&state, &caller.claims, id).await?;
    store::delete(&state.postgres, &webhook).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The webhook, if the caller may have to do with it: its owner, and administrators.
async fn find(state: &AppState, claims: &Claims, id: Uuid) -> Result<Webhook, ApiError> {
    let found = store::find(&state.postgres, id, owner(claims)).await?;
    found.ok_or(ApiError::FindNothing("there is no such webhook"))
}

fn owner(claims: &Claims) -> Option<&str> {
    (!claims.allows(Admin::NAME)).then_some(&*claims.sub)
}
