//! The commands of rooms: `join`, `leave`, `presence`. A connection is in the rooms that its subscriptions name, so the log
//! and who is there cannot tell two stories.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::command::Join;
use super::presence::{LIST_MAX, Present};
use super::session::{Refusal, Session};
use super::subscription::Asked;
use crate::auth::Access;
use crate::events::audience::EVERYONE;
use crate::http::AppState;
use crate::problem::ApiError;

impl Session {
    /// Follows all that is told in the room. Whoever is there already stays as it is.
    pub(super) async fn join(&mut self, Join { room, after }: Join) -> Result<Value, Refusal> {
        let joined = self.subscriptions.iter().find(|one| one.filter.room() == Some(&room));
        let joined = if let Some(joined) = joined {
            joined
        } else {
            let types = vec!["**".to_owned()];
            self.add(Asked { types, room: Some(room.clone()), ..Asked::default() }, &BTreeMap::new(), after).await?
        };
        Ok(json!({ "room": room, "subscription": joined.name(), "position": joined.position }))
    }

    /// Follows nothing of the room any more.
    pub(super) fn leave(&mut self, room: &str) -> Result<Value, Refusal> {
        self.drop_subscriptions(|one| one.filter.room() == Some(room))
            .ok_or_else(|| Refusal::new("room_unknown", "the connection is not in this room"))
    }

    /// Who is in the room, for one who may see what is told there.
    pub(super) async fn presence(&mut self, room: &str) -> Result<Value, Refusal> {
        self.look_up_access().await.map_err(ApiError::from)?;
        Ok(json!(present(&self.state, &self.access, room).await?))
    }
}

/// Who is in the room, for one who may see what is told there.
pub(crate) async fn present(state: &AppState, access: &Access, room: &str) -> Result<Present, ApiError> {
    if !access.is_in(room) {
        return Err(ApiError::RefuseRoom);
    }
    // Nobody is shown to everyone.
    let list_max = if room == EVERYONE && *access != Access::All { 0 } else { LIST_MAX };
    state.presence.look(room, list_max).await.map_err(ApiError::unavailable)
}
