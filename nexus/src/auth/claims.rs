//! The claims of a verified token.

use serde::{Deserialize, Serialize};

/// What a token says. `sub` and `exp` are required; `scope` is a list separated by spaces (RFC 8693).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who calls.
    pub sub: String,
    /// End of validity, in seconds since 1970.
    pub exp: u64,
    /// What the caller may do.
    #[serde(default)]
    pub scope: String,
    /// When it was issued, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iat: Option<u64>,
    /// The token's own id, by which it can be revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// Who issued the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// Whom the token is meant for. Checked by the verifier, which also takes a list; only written here.
    #[serde(default, skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
}

impl Claims {
    /// Whether the caller has the scope. `admin` includes every other one, and a scope includes the narrower ones whose
    /// names it begins: `events:read` includes `events:read:own`.
    pub fn allows(&self, scope: &str) -> bool {
        let includes =
            |held: &str| scope.strip_prefix(held).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'));
        self.scopes().any(|held| includes(held) || held == "admin")
    }

    /// Whether the caller is a person: whatever it may do, it may do with its own only. Every other one is a service.
    pub fn is_person(&self) -> bool {
        self.scopes().next().is_some() && self.scopes().all(|held| held.ends_with(":own"))
    }

    fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scope.split(' ').filter(|held| !held.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_has_scopes_for_its_own_only() {
        let is_person = |scope: &str| Claims { scope: scope.into(), ..Claims::default() }.is_person();
        assert!(is_person("events:read:own"));
        assert!(is_person(" events:read:own  events:write:own"));
        assert!(!is_person("events:read:own events:write"));
        assert!(!is_person("admin"));
        assert!(!is_person(""));
    }

    #[test]
    fn a_scope_is_a_whole_word() {
        let claims = |scope: &str| Claims { sub: "s".into(), scope: scope.into(), ..Claims::default() };
        assert!(claims("users:read events:read").allows("events:read"));
        assert!(claims("admin").allows("events:read"));
        assert!(claims("events:read").allows("events:read:own"));
        assert!(!claims("events:read:own").allows("events:read"));
        assert!(!claims("events:reader").allows("events:read"));
        assert!(!claims("").allows("events:read"));
    }
}
