//! What a user is registered with: read strictly, and everything that is wrong listed with
//! its place. Pure.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::events::Violation;

/// RFC 5321, section 4.5.3.1: 254 characters in all, 64 before the `@`.
const EMAIL_CHARACTERS_MAX: usize = 254;
const LOCAL_PART_CHARACTERS_MAX: usize = 64;

/// A line on a screen.
const DISPLAY_NAME_CHARACTERS_MAX: usize = 100;

/// A profile is copied into every answer and document.
const PROFILE_BYTES_MAX: usize = 16 * 1024;

/// Deeper documents are no profile, and cost every reader a recursion.
const PROFILE_DEPTH_MAX: usize = 8;

/// A user to be registered.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct NewUser {
    /// An address that no other user has, without regard to case.
    pub email: String,
    /// What other people see, 1 to 100 characters.
    pub display_name: String,
    /// Whatever the platform's interfaces keep about the user; at most 16 KiB.
    #[schemars(default)]
    pub profile: Map<String, Value>,
}

impl NewUser {
    /// Reads a user from JSON; lists everything that is wrong.
    pub fn read(document: Value) -> Result<Self, Vec<Violation>> {
        let Value::Object(mut members) = document else {
            return Err(vec![Violation::new("", "a user is a JSON object")]);
        };
        let mut violations = Vec::new();
        let email = text(&mut members, "email", &mut violations);
        if let Some(message) = email.as_deref().and_then(email_fault) {
            violations.push(Violation::new("/email", message));
        }
        let display_name = text(&mut members, "display_name", &mut violations);
        if let Some(message) = display_name.as_deref().and_then(display_name_fault) {
            violations.push(Violation::new("/display_name", message));
        }
        let profile = profile(&mut members, &mut violations);
        for name in members.keys() {
            violations.push(Violation::new(format!("/{}", escape(name)), "is no member of a user"));
        }
        match (email, display_name) {
            (Some(email), Some(display_name)) if violations.is_empty() => Ok(Self { email, display_name, profile }),
            _ => Err(violations),
        }
    }
}

fn text(members: &mut Map<String, Value>, name: &str, violations: &mut Vec<Violation>) -> Option<String> {
    let message = match members.remove(name) {
        Some(Value::String(text)) => return Some(text),
        Some(_) => "must be a string",
        None => "is required",
    };
    violations.push(Violation::new(format!("/{name}"), message));
    None
}

/// Only what surely is no address is refused; whether it is one, only a letter to it can tell.
fn email_fault(email: &str) -> Option<String> {
    if email.chars().count() > EMAIL_CHARACTERS_MAX {
        return Some(format!("must have at most {EMAIL_CHARACTERS_MAX} characters"));
    }
    let plain = |text: &str| !text.chars().any(|character| character.is_whitespace() || character.is_control());
    let valid = email.split_once('@').is_some_and(|(local, domain)| {
        let local_fits = (1..=LOCAL_PART_CHARACTERS_MAX).contains(&local.chars().count());
        let domain_fits = domain.split('.').all(|label| !label.is_empty()) && !domain.contains('@');
        local_fits && domain_fits && plain(email)
    });
    (!valid).then(|| "must be an email address".to_owned())
}

fn display_name_fault(name: &str) -> Option<String> {
    if name.trim().is_empty() || name.chars().count() > DISPLAY_NAME_CHARACTERS_MAX {
        return Some(format!("must have 1 to {DISPLAY_NAME_CHARACTERS_MAX} characters, not only white space"));
    }
    name.chars().any(char::is_control).then(|| "must not contain control characters".to_owned())
}

fn profile(members: &mut Map<String, Value>, violations: &mut Vec<Violation>) -> Map<String, Value> {
    let profile = match members.remove("profile") {
        None => return Map::new(),
        Some(Value::Object(profile)) => profile,
        Some(_) => {
            violations.push(Violation::new("/profile", "must be a JSON object"));
            return Map::new();
        }
    };
    let document = Value::Object(profile);
    if document.to_string().len() > PROFILE_BYTES_MAX {
        violations.push(Violation::new("/profile", format!("must have at most {PROFILE_BYTES_MAX} bytes")));
    } else {
        storable(&document, "/profile", PROFILE_DEPTH_MAX, violations);
    }
    match document {
        Value::Object(profile) => profile,
        _ => Map::new(),
    }
}

/// What both stores can hold: Postgres' `jsonb` takes no NUL, and a document of `MongoDB` no
/// integer beyond 64 bits and no name that reads as an operator or a path.
fn storable(value: &Value, path: &str, depth_left: usize, violations: &mut Vec<Violation>) {
    let mut refuse = |message: &str| violations.push(Violation::new(path, message));
    match value {
        Value::Array(_) | Value::Object(_) if depth_left == 0 => refuse("is nested too deeply"),
        Value::String(text) if text.contains('\0') => refuse("must not contain a NUL character"),
        Value::Number(number) if number.is_u64() && number.as_i64().is_none() => refuse("is larger than 64 bits"),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                storable(item, &format!("{path}/{index}"), depth_left - 1, violations);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                let path = format!("{path}/{}", escape(name));
                if name.is_empty() || name.starts_with('$') || name.contains(['.', '\0']) {
                    let message = "is no name of a member: not empty, no $ in front, no dot, no NUL";
                    violations.push(Violation::new(&*path, message));
                }
                storable(member, &path, depth_left - 1, violations);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// RFC 6901: `~` and `/` are escaped in a JSON Pointer.
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(document: Value) -> Vec<(String, String)> {
        let violations = NewUser::read(document).err().unwrap_or_default();
        violations.into_iter().map(|violation| (violation.path, violation.message)).collect()
    }

    fn paths(document: Value) -> Vec<String> {
        faults(document).into_iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn a_user_with_a_profile_is_read_whole() {
        let document = json!({"email": "ada@example.org", "display_name": "Ada", "profile": {"languages": ["en"]}});
        let user = NewUser::read(document).expect("the user is valid");
        assert_eq!((&*user.email, &*user.display_name), ("ada@example.org", "Ada"));
        assert_eq!(Value::Object(user.profile), json!({"languages": ["en"]}));
    }

    #[test]
    fn all_that_is_wrong_is_listed_by_field() {
        assert_eq!(
            faults(json!({"email": 5, "profile": [], "admin": true})),
            [
                ("/email".to_owned(), "must be a string".to_owned()),
                ("/display_name".to_owned(), "is required".to_owned()),
                ("/profile".to_owned(), "must be a JSON object".to_owned()),
                ("/admin".to_owned(), "is no member of a user".to_owned()),
            ]
        );
        assert_eq!(paths(json!("ada")), [""]);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("{}@example.org", "a".repeat(65));
        for email in
            ["", "ada", "@example.org", "ada@", "a@b@c", "a da@example.org", "ada@example..org", "a\0@b.org", &long]
        {
            assert_eq!(paths(json!({"email": email, "display_name": "Ada"})), ["/email"], "{email}");
        }
    }

    #[test]
    fn what_a_store_cannot_hold_is_refused_with_its_place() {
        let mut deep = json!(1);
        for _ in 0..9 {
            deep = json!([deep]);
        }
        for (profile, path) in [
            (json!({"a": {"$set": 1}}), "/profile/a/$set"),
            (json!({"a": [1, "\u{0}"]}), "/profile/a/1"),
            (json!({"x.y": 1}), "/profile/x.y"),
            (json!({"n": u64::MAX}), "/profile/n"),
            (json!({"deep": deep}), "/profile/deep/0/0/0/0/0/0/0"),
            (json!({"long": "x".repeat(PROFILE_BYTES_MAX)}), "/profile"),
        ] {
            assert_eq!(paths(json!({"email": "a@b.org", "display_name": "Ada", "profile": profile})), [path]);
        }
    }

    #[test]
    fn a_display_name_of_white_space_or_control_characters_is_refused() {
        for name in ["", "  ", "a\nb", &"x".repeat(101)] {
            assert_eq!(paths(json!({"email": "a@b.org", "display_name": name})), ["/display_name"]);
        }
    }
}
