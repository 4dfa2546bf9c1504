//! A user and a profile, as they are sent. Pure.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

/// The subject of a user's events, and the key of the user's record in the caches.
pub fn subject(id: Uuid) -> String {
    format!("user/{id}")
}

/// The user whom a subject names.
pub fn id_of_subject(subject: &str) -> Option<Uuid> {
    subject.strip_prefix("user/")?.parse().ok()
}

/// A user.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct User {
    /// Names the user in every record and event.
    pub id: Uuid,
    /// The address as it was given; unique without regard to case.
    pub email: String,
    /// What other people see.
    pub display_name: String,
    /// Grows by one with every change.
    pub version: i64,
    /// When the user was registered.
    pub created_at: Timestamp,
    /// When the record last changed.
    pub updated_at: Timestamp,
    /// When the user last logged in; null before the first time.
    pub last_login_at: Option<Timestamp>,
}

/// A user's profile: what is shown of a person, in one document.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
pub struct Profile {
    /// The user.
    pub user_id: Uuid,
    /// What other people see.
    pub display_name: String,
    /// Whatever the platform's interfaces keep about the user.
    pub attributes: Map<String, Value>,
    /// Version of the user's record that the profile shows.
    pub version: i64,
    /// When the user was registered.
    pub registered_at: Timestamp,
    /// When the user last logged in; null before the first time.
    pub last_login_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_leads_back_to_its_user() {
        let id = Uuid::from_u128(7);
        assert_eq!(id_of_subject(&subject(id)), Some(id));
        assert_eq!(id_of_subject("user/nobody"), None);
        assert_eq!(id_of_subject("wallet/00000000-0000-0000-0000-000000000007"), None);
    }
}
