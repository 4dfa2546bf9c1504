//! `/v1/log-filter`: which log lines this pod writes, changed while it runs.

use axum::Json;
use axum::http::Method;
use axum::routing::get;
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::extract::JsonOf;
use super::{Answer, Operation, Routes};
use crate::auth::{Admin, Caller, Scope};
use crate::events::Violation;
use crate::logging::{self, ChooseLines};
use crate::problem::ApiError;

const PATH: &str = "/v1/log-filter";

pub(super) fn routes() -> Routes {
    let operation = |method, id, summary| Operation {
        scope: Some(Admin::NAME),
        answers: vec![Answer::json::<LogFilter>(200, "What this pod writes from now on")],
        ..Operation::new(method, PATH, id, summary)
    };
    let read = operation(Method::GET, "readLogFilter", "Tells which log lines this pod writes");
    let set = Operation {
        body: vec![("application/json", SchemaGenerator::subschema_for::<LogFilter>)],
        ..operation(Method::PUT, "setLogFilter", "Changes which log lines this pod writes, until it ends")
    };
    Routes::new().with(read, get(show).put(change)).documented(set)
}

/// Which log lines are written.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LogFilter {
    /// A level, or targets with levels: `info`, or `warn,nexus::log=debug`.
    #[schemars(length(min = 1, max = 1024))]
    filter: String,
}

async fn show(_: Caller<Admin>) -> Result<Json<LogFilter>, ApiError> {
    current()
}

fn current() -> Result<Json<LogFilter>, ApiError> {
    Ok(Json(LogFilter { filter: logging::filter().map_err(refused)? }))
}

async fn change(
    caller: Caller<Admin>,
    JsonOf(LogFilter { filter }): JsonOf<LogFilter>,
) -> Result<Json<LogFilter>, ApiError> {
    if filter.trim().is_empty() || filter.len() > 1_024 {
        let violation = Violation::new("/filter", "must have 1 to 1024 bytes; `off` writes nothing");
        return Err(ApiError::InvalidDocument(vec![violation]));
    }
    // Before, and so also when nothing more is to be written.
    tracing::info!(filter, caller = caller.claims.sub, "the log filter is changed");
    logging::set_filter(&filter).map_err(refused)?;
    current()
}

fn refused(error: ChooseLines) -> ApiError {
    match error {
        ChooseLines::ReadFilter(error) => {
            ApiError::InvalidDocument(vec![Violation::new("/filter", format!("cannot be read: {error}"))])
        }
        fixed @ ChooseLines::FindLog => ApiError::Conflict { code: "log_fixed", detail: fixed.to_string() },
    }
}
