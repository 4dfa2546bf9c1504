//! The command `history`: past events, a page at a time.

use serde_json::{Value, json};

use super::command::History;
use super::limits::SUBJECTS_MAX;
use super::requests::invalid;
use super::session::{READ, Refusal, Session};
use super::subscription::{Asked, Filter};
use crate::auth::Access;
use crate::log::Versions;
use crate::log::read::{self, READ_ENTRIES_MAX, Selection};
use crate::problem::ApiError;

/// Events of one answer when the client names no limit.
const PAGE_EVENTS: usize = 100;

impl Session {
    pub(super) async fn history(&self, history: History) -> Result<Value, Refusal> {
        let claims = self.claims(READ)?;
        let limit = history.limit.map_or(Ok(PAGE_EVENTS), usize::try_from).unwrap_or(usize::MAX);
        if !(1..=READ_ENTRIES_MAX).contains(&limit) {
            return Err(invalid(format!("`limit` is a number from 1 to {READ_ENTRIES_MAX}")));
        }
        let read = |types| Filter::read(&self.state.registry, Asked { types, ..Asked::default() });
        let filter = history.types.map(read).transpose();
        let filter = filter.map_err(|refused| invalid(refused.to_string()))?;
        let types: Option<Vec<&str>> = filter.as_ref().and_then(Filter::selected_types);
        let versions = Versions::read(&self.state.registry, &history.versions);
        let versions = versions.map_err(|refused| invalid(refused.to_string()))?;
        let subjects = history.subjects.unwrap_or_default();
        if subjects.len() > SUBJECTS_MAX {
            return Err(invalid(format!("`subjects` has at most {SUBJECTS_MAX} subjects")));
        }
        let read = loop {
            let access = Access::load(&self.state.postgres, claims).await.map_err(ApiError::from)?;
            let selection = Selection {
                types: types.as_deref(),
                subjects: (!subjects.is_empty()).then_some(&*subjects),
                attributes: &[],
                rooms: access.rooms(),
                after: history.after,
                since: None,
                until: None,
                limit,
            };
            let read = read::history(&self.state.postgres, &self.state.registry, &selection).await;
            let read = read.map_err(ApiError::from)?;
            if !access.has_grown(&self.state.postgres).await.map_err(ApiError::from)? {
                break read;
            }
        };
        let texts = read.entries.iter().map(|entry| versions.text(&self.state.registry, entry));
        let parsed: Result<Vec<Value>, _> = texts.map(|text| serde_json::from_slice(&text)).collect();
        let events = parsed.map_err(ApiError::internal)?;
        let gap = read.gap.map(|(from, to)| json!({ "from": from, "to": to }));
        Ok(json!({ "events": events, "next": read.next(), "head": read.head, "gap": gap }))
    }
}
