//! A route and its documentation in one value, so that neither can be there without the other.

use axum::Router;
use axum::http::Method;
use axum::routing::MethodRouter;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::AppState;

/// Makes the schema of a type, into the components of the document.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// One operation of the API as OpenAPI describes it.
#[derive(Clone, Debug)]
pub struct Operation {
    /// HTTP method.
    pub method: Method,
    /// Path with `{names}`.
    pub path: &'static str,
    /// Name for generated clients.
    pub id: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Scope that the token must carry; none when no token is needed.
    pub scope: Option<&'static str>,
    /// Parameters in path, query and header.
    pub parameters: Vec<Parameter>,
    /// Media types and schema of the body.
    pub body: Vec<(&'static str, SchemaOf)>,
    /// What is answered when all is well; errors are the same everywhere.
    pub answers: Vec<Answer>,
}

/// One parameter.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// `path`, `query` or `header`.
    pub place: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Meaning, unit, range, default.
    pub description: &'static str,
    /// Whether it must be given.
    pub required: bool,
}

/// One answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// When it is given.
    pub description: &'static str,
    /// Media type and schema of the body, when there is one.
    pub body: Option<(&'static str, SchemaOf)>,
    /// Names of the headers that it carries.
    pub headers: &'static [&'static str],
}

impl Operation {
    /// An operation without parameters, body and answers; the rest is given in a struct literal.
    pub fn new(method: Method, path: &'static str, id: &'static str, summary: &'static str) -> Self {
        let (parameters, body, answers) = (Vec::new(), Vec::new(), Vec::new());
        Self { method, path, id, summary, scope: None, parameters, body, answers }
    }
}

impl Answer {
    /// An answer with a JSON document.
    pub fn json<T: JsonSchema>(status: u16, description: &'static str) -> Self {
        Self {
            status,
            description,
            body: Some(("application/json", SchemaGenerator::subschema_for::<T>)),
            headers: &[],
        }
    }

    /// An answer without a described body.
    pub fn plain(status: u16, description: &'static str) -> Self {
        Self { status, description, body: None, headers: &[] }
    }
}

/// Routes with their operations.
#[derive(Debug, Default)]
pub struct Routes {
    router: Router<AppState>,
    operations: Vec<Operation>,
}

impl Routes {
    /// No routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the handler of an operation, as `get(handler)` or `post(handler)`.
    #[must_use]
    pub fn with(mut self, operation: Operation, handler: MethodRouter<AppState>) -> Self {
        self.router = self.router.route(operation.path, handler);
        self.operations.push(operation);
        self
    }

    /// Adds the operation of a handler that stands beside another one's at its path.
    #[must_use]
    pub fn documented(mut self, operation: Operation) -> Self {
        self.operations.push(operation);
        self
    }

    /// Adds the routes of another front.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.operations.extend(other.operations);
        self
    }

    /// What the document is made from.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// What is served.
    pub fn into_router(self) -> Router<AppState> {
        self.router
    }
}
