//! For whom an event is: the rooms in which it is told. Pure.
//!
//! A room is named like a subject, `wallet/w1`. Each person has a room of their own, `user/{id}`, and everybody is in
//! `everyone`. Each event type has a rule, a list of room names in which a field of the data stands for an id.

use serde_json::Value;

/// The room that everybody is in.
pub const EVERYONE: &str = "everyone";

/// Kind of the rooms that hold one person each.
pub const PERSON: &str = "user";

/// Longest name of a room, in bytes: far below what an index of Postgres holds, which is what a room is found by.
pub(crate) const ROOM_BYTES_MAX: usize = 512;

/// Stands between two rooms; no room has a control character.
pub(crate) const SEPARATOR: char = '\x1f';

/// The rooms of one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audience(Box<str>);

impl Audience {
    /// The rooms, joined by the separator.
    pub(crate) fn joined(rooms: impl Into<Box<str>>) -> Self {
        Self(rooms.into())
    }

    /// What the rule says about this data. A field that is not there adds nothing.
    pub fn of(rule: &[impl AsRef<str>], data: &Value) -> Self {
        let mut joined = String::new();
        for room in rule.iter().filter_map(|template| room(template.as_ref(), data)) {
            if !joined.is_empty() {
                joined.push(SEPARATOR);
            }
            joined.push_str(&room);
        }
        Self(joined.into())
    }

    /// The rooms, joined by the separator, as they go to the database.
    pub(crate) fn as_joined(&self) -> &str {
        &self.0
    }

    /// Each room.
    pub fn rooms(&self) -> impl Iterator<Item = &str> {
        self.0.split(SEPARATOR).filter(|room| !room.is_empty())
    }
}

/// The room of a person.
pub fn room_of_person(id: &str) -> String {
    format!("{PERSON}/{id}")
}

/// The field that gives a rule's room its id; none for a room that has no id.
pub fn field(template: &str) -> Option<&str> {
    template.split_once('{')?.1.strip_suffix('}')
}

fn room(template: &str, data: &Value) -> Option<String> {
    let Some((kind, field)) = template.split_once('{') else { return Some(template.to_owned()) };
    let id = data.get(field.strip_suffix('}')?)?.as_str()?;
    // The registry has refused such an event; nothing may stand for two rooms.
    (!id.is_empty() && !id.contains(char::is_control)).then(|| format!("{kind}{id}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rooms(rule: &[&str], data: &Value) -> Vec<String> {
        Audience::of(rule, data).rooms().map(str::to_owned).collect()
    }

    #[test]
    fn a_rule_names_rooms_by_fields_of_the_data() {
        let data = json!({"user_id": "u", "wallet_id": "w/1", "count": 7, "empty": ""});
        assert_eq!(rooms(&["user/{user_id}", "wallet/{wallet_id}"], &data), ["user/u", "wallet/w/1"]);
        assert_eq!(rooms(&["everyone", "job/{job_id}"], &data), ["everyone"]);
        assert_eq!(rooms(&["a/{count}", "a/{empty}"], &data), [""; 0]);
        assert_eq!(rooms(&[], &data), [""; 0]);
    }

    #[test]
    fn an_id_cannot_smuggle_in_a_second_room() {
        assert_eq!(rooms(&["wallet/{id}"], &json!({"id": "w\u{1f}user/victim"})), [""; 0]);
    }
}
