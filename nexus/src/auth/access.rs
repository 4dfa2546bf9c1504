//! Which events a caller may see: all of them, or those told in the rooms that the caller is in.

use sqlx::PgPool;

use super::Claims;
use super::caller::{EventsRead, Scope};
use crate::events::audience::{EVERYONE, room_of_person};
use crate::events::{Audience, Registry};
use crate::log::{Entry, ReadLog};
use crate::store::postgres::in_time;

/// Rooms of one person. Each costs memory in every connection of the person.
const ROOMS_MAX: usize = 1_000;

/// What a caller may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Every event.
    All,
    /// The events that are told in one of these rooms.
    Rooms {
        /// The room that is the caller's own.
        person: Box<str>,
        /// All of them, in their order.
        rooms: Vec<Box<str>>,
    },
}

impl Access {
    /// What the caller may see without having been let in anywhere.
    pub fn of(claims: &Claims) -> Self {
        if claims.allows(EventsRead::NAME) {
            return Self::All;
        }
        let mut access = Self::of_person(&claims.sub);
        if let Self::Rooms { rooms, .. } = &mut access {
            rooms.push(EVERYONE.into());
            rooms.sort_unstable();
        }
        access
    }

    /// What somebody may see who is not known yet.
    pub fn none() -> Self {
        Self::Rooms { person: Box::default(), rooms: Vec::new() }
    }

    /// What concerns a person: what everybody sees is left out.
    pub fn of_person(id: &str) -> Self {
        let person = room_of_person(id).into_boxed_str();
        Self::Rooms { rooms: vec![person.clone()], person }
    }

    /// What the caller may see now. Every entry of the log that this pod has read so far has its effect.
    pub async fn load(pool: &PgPool, claims: &Claims) -> Result<Self, ReadLog> {
        Self::of(claims).with_memberships(pool).await
    }

    /// The same, and the rooms that the person was let into.
    pub async fn with_memberships(mut self, pool: &PgPool) -> Result<Self, ReadLog> {
        if let Self::Rooms { person, rooms } = &mut self {
            let statement = sqlx::query_scalar("SELECT room FROM membership WHERE person = $1 LIMIT $2");
            let limit = i64::try_from(ROOMS_MAX).unwrap_or(i64::MAX);
            let let_in: Vec<String> =
                in_time(statement.bind(&**person).bind(limit + 1).fetch_all(pool)).await.map_err(ReadLog::QueryLog)?;
            if let_in.len() > ROOMS_MAX {
                return Err(ReadLog::LimitRooms { rooms_max: ROOMS_MAX });
            }
            rooms.extend(let_in.into_iter().map(String::into_boxed_str));
            rooms.sort_unstable();
            rooms.dedup();
        }
        Ok(self)
    }

    /// Whether the person was let into further rooms meanwhile. What was read from the log since these rights were looked
    /// up may then lack what is told there: it is to be read again. Rights never shrink, so a read between two equal looks
    /// was made with those of its own moment.
    pub async fn has_grown(&self, pool: &PgPool) -> Result<bool, ReadLog> {
        Ok(self.clone().with_memberships(pool).await? != *self)
    }

    /// Whether an event for this audience may be seen.
    pub fn sees(&self, audience: &Audience) -> bool {
        match self {
            Self::All => true,
            Self::Rooms { rooms, .. } => audience.rooms().any(|room| contains(rooms, room)),
        }
    }

    /// Whether what is told in the room may be seen.
    pub fn is_in(&self, room: &str) -> bool {
        self.rooms().is_none_or(|rooms| contains(rooms, room))
    }

    /// The rooms, unless everything may be seen.
    pub fn rooms(&self) -> Option<&[Box<str>]> {
        match self {
            Self::All => None,
            Self::Rooms { rooms, .. } => Some(rooms),
        }
    }

    /// Whether the caller is in more rooms than a connection follows.
    pub fn is_too_large(&self) -> bool {
        // Its own and everyone's are not counted.
        self.rooms().is_some_and(|rooms| rooms.len() > ROOMS_MAX + 2)
    }

    /// Takes note of an entry that may let the caller into rooms; whether it did.
    pub fn grow(&mut self, entry: &Entry, registry: &Registry) -> bool {
        let Self::Rooms { person, rooms } = self else { return false };
        let is_let_in = entry.audience.rooms().any(|room| *room == **person)
            && registry.get(&entry.event_type).is_some_and(|definition| definition.lets_in);
        if !is_let_in {
            return false;
        }
        let before = rooms.len();
        // Those of other people stay theirs.
        let own = room_of_person("");
        for room in entry.audience.rooms().filter(|room| !room.starts_with(&own)) {
            if let Err(place) = rooms.binary_search_by(|one| (**one).cmp(room)) {
                rooms.insert(place, room.into());
            }
        }
        rooms.len() > before
    }
}

fn contains(rooms: &[Box<str>], room: &str) -> bool {
    rooms.binary_search_by(|one| (**one).cmp(room)).is_ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn access(scope: &str) -> Access {
        Access::of(&Claims { sub: "u1".into(), scope: scope.into(), ..Claims::default() })
    }

    fn entry(event_type: &str, rooms: &[&str]) -> Entry {
        Entry {
            seq: 1,
            outbox_id: 1,
            event_type: event_type.into(),
            subject: "a/b".into(),
            type_number: 0,
            audience: Audience::joined(rooms.join("\x1f")),
            recorded_at: jiff::Timestamp::UNIX_EPOCH,
            encoded: Bytes::from_static(b"{}"),
            attributes: crate::log::event::Attributes::default(),
            published: None,
            delivery: crate::traces::Delivery::default(),
        }
    }

    #[test]
    fn a_person_sees_what_is_told_to_it_or_to_everyone_and_a_reader_of_all_sees_all() {
        let (person, all) = (access("events:read:own"), access("events:read"));
        for (rooms, seen) in [
            (&["user/u1"][..], true),
            (&["wallet/w", "user/u1"], true),
            (&["everyone"], true),
            (&["user/u"], false),
            (&["user/u10"], false),
            (&["wallet/w"], false),
            (&[], false),
        ] {
            let entry = entry("user.login", rooms);
            assert_eq!(person.sees(&entry.audience), seen, "{rooms:?}");
            assert!(all.sees(&entry.audience));
        }
    }

    #[test]
    fn an_entry_lets_in_only_who_it_names_and_only_into_rooms() {
        let registry = Registry::built_in();
        let mut person = access("events:read:own");
        assert!(!person.grow(&entry("user.login", &["user/u1", "wallet/w"]), &registry), "it lets nobody in");
        assert!(!person.grow(&entry("wallet.created", &["user/u2", "wallet/w"]), &registry), "it is of another person");
        assert!(!person.sees(&entry("mining.reward", &["wallet/w"]).audience));
        let signed = entry("contract.signed", &["user/u1", "user/u2", "contract/c"]);
        assert!(person.grow(&signed, &registry));
        assert!(!person.grow(&signed, &registry), "it is in already");
        assert!(person.sees(&entry("payment.released", &["contract/c"]).audience));
        assert!(!person.sees(&entry("user.login", &["user/u2"]).audience));
    }
}
