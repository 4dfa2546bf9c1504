//! People with tokens of their own, and events that concern them.

use serde_json::{Value, json};

use super::Client;
use super::client::{HS256_KEY, token_of};
use super::socket::{Opening, Socket};

pub(crate) const ANN: &str = "0197d0a4-3a5c-7c3e-9d5b-6a1f0e2d4c3a";
pub(crate) const BOB: &str = "0197d0a4-3a5c-7c3e-9d5b-6a1f0e2d4c3b";
pub(crate) const CAT: &str = "0197d0a4-3a5c-7c3e-9d5b-6a1f0e2d4c3c";

/// A token that lets a person see and say what is the person's own.
pub(crate) fn token_of_person(person: &str) -> String {
    token_of(HS256_KEY, person, "events:read:own events:write:own", 3_600)
}

/// The same caller, as this person.
pub(crate) fn as_person(client: &Client, person: &str) -> Client {
    client.with_token(Some(token_of_person(person)))
}

/// A connection of this person.
pub(crate) async fn open(client: &Client, person: &str) -> Socket {
    let opening = Opening { token: Some(token_of_person(person)), ..Opening::default() };
    let address = client.base.trim_start_matches("http://").parse().expect("an address");
    opening.open(address).await.expect("the token is good")
}

/// An event of a service.
pub(crate) fn named(id: &str, event_type: &str, subject: &str, data: &Value) -> Value {
    json!({"specversion": "1.0", "id": id, "source": "/tests", "type": event_type, "subject": subject, "data": data})
}

/// Lets the person into the course.
pub(crate) fn enrolled(person: &str, course: &str) -> Value {
    let data = json!({"user_id": person, "course_id": course, "enrolled_at": "2026-01-02T03:04:05Z"});
    named(&format!("{person} in {course}"), "course.enrolled", &format!("course/{course}"), &data)
}

/// What the person has done in the course.
pub(crate) fn lesson(id: &str, person: &str, course: &str) -> Value {
    let data = json!({"user_id": person, "course_id": course, "lesson_id": "1"});
    named(id, "lesson.completed", "lesson/1", &data)
}
