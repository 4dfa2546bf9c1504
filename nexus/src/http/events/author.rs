//! Who publishes, and what of. A service publishes what its scope allows. A person publishes what the registry allows people
//! to say: about oneself, under one's own name, and in rooms that one is in.

use crate::auth::{Access, Claims, EventsWrite, EventsWriteOwn, Scope};
use crate::events::{CloudEvent, Definition, Publisher, Violation};
use crate::http::AppState;
use crate::problem::ApiError;

/// Who publishes.
#[derive(Debug)]
pub(crate) struct Author<'a> {
    claims: &'a Claims,
    /// Where a person may say something. A service may anywhere.
    rooms: Option<Access>,
}

impl<'a> Author<'a> {
    /// The caller, if it may publish at all.
    pub(crate) async fn of(state: &AppState, claims: &'a Claims) -> Result<Self, ApiError> {
        let rooms = if claims.allows(EventsWrite::NAME) {
            None
        } else if claims.allows(EventsWriteOwn::NAME) {
            Some(Access::of_person(&claims.sub).with_memberships(&state.postgres).await?)
        } else {
            return Err(ApiError::LackScope { scope: EventsWriteOwn::NAME });
        };
        Ok(Self { claims, rooms })
    }

    /// Refuses a valid event that is not the author's to publish.
    pub(super) fn check(&self, event: &CloudEvent, definition: &Definition) -> Result<(), ApiError> {
        match definition.publisher {
            Publisher::Nexus => return Err(ApiError::ReservedType(event.event_type.clone())),
            Publisher::Administrator if !self.claims.allows("admin") => {
                return Err(ApiError::LackScope { scope: "admin" });
            }
            Publisher::Administrator | Publisher::Service => {}
        }
        match &self.rooms {
            Some(rooms) => self.check_person(event, definition, rooms),
            None => Ok(()),
        }
    }

    fn check_person(&self, event: &CloudEvent, definition: &Definition, rooms: &Access) -> Result<(), ApiError> {
        let field = definition.person.ok_or(ApiError::LackScope { scope: EventsWrite::NAME })?;
        let sub = &self.claims.sub;
        let mut violations = Vec::new();
        if event.data.get(field).and_then(|id| id.as_str()) != Some(sub) {
            violations.push(Violation::new(format!("/data/{field}"), "must be your own id, the `sub` of the token"));
        }
        // Else one could take the id of an event before its true source has published it.
        if event.source.strip_prefix("/users/") != Some(sub) {
            violations.push(Violation::new("/source", "must be `/users/` and your own id"));
        }
        if definition.audience(event).rooms().any(|room| !rooms.is_in(room)) {
            violations.push(Violation::new("/data", "is told in a room that you were not let into"));
        }
        if violations.is_empty() { Ok(()) } else { Err(ApiError::InvalidDocument(violations)) }
    }
}
