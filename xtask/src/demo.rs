//! What `up` and `nexus` give a newcomer to try, once Nexus answers.

/// Who the demo token speaks for.
pub const SUBJECT: &str = "demo";

/// What the demo token allows: everything, since it is for trying out.
pub const SCOPE: &str = "events:read events:write users:read users:write admin";

/// How long the demo token is valid.
pub const TOKEN_SECONDS: u32 = 24 * 60 * 60;

/// The token and three commands: a write that emits an event, the history that holds it, the health.
pub fn commands(address: &str, token: &str) -> String {
    format!(
        r#"
Nexus answers at {address}

A token for the user `{SUBJECT}`, good for {hours} hours:

  TOKEN={token}

Three commands to try:

  curl -sS {address}/v1/users -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{{"email":"ada@example.org","display_name":"Ada"}}'
  curl -sS "{address}/v1/events?type=user.*&limit=10" -H "Authorization: Bearer $TOKEN"
  curl -sS {address}/health
"#,
        hours = TOKEN_SECONDS / 3600
    )
}
