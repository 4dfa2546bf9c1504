//! What a Socket.IO client presents when it connects to a namespace. Pure.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ReadPacket, text};

/// The payload of a connect. Other members are the application's and are ignored, and so are these when they are no
/// text.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Auth {
    /// A JWT, without `Bearer`.
    pub token: Option<String>,
    /// The secret session it had before.
    pub pid: Option<String>,
    /// The last text that came as the last argument of an event; none when no event came in that session.
    pub offset: Option<String>,
}

impl Auth {
    /// Reads the payload: a JSON object, or nothing.
    pub(super) fn read(payload: &str) -> Result<Self, ReadPacket> {
        #[derive(Deserialize)]
        struct Members<'a> {
            #[serde(borrow)]
            token: Option<&'a RawValue>,
            #[serde(borrow)]
            pid: Option<&'a RawValue>,
            #[serde(borrow)]
            offset: Option<&'a RawValue>,
        }
        if payload.is_empty() {
            return Ok(Self::default());
        }
        // Serde would take an array for an object, member by member.
        if !payload.starts_with('{') {
            return Err(ReadPacket::Payload);
        }
        let Members { token, pid, offset } = serde_json::from_str(payload).map_err(|_| ReadPacket::Payload)?;
        let owned = |member: Option<&RawValue>| member.and_then(text).map(Cow::into_owned);
        Ok(Self { token: owned(token), pid: owned(pid), offset: owned(offset) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(token: Option<&str>, pid: Option<&str>, offset: Option<&str>) -> Auth {
        let [token, pid, offset] = [token, pid, offset].map(|text| text.map(str::to_owned));
        Auth { token, pid, offset }
    }

    #[test]
    fn what_a_client_presents_is_read_and_all_else_ignored() {
        for (payload, want) in [
            ("", auth(None, None, None)),
            ("{}", auth(None, None, None)),
            (r#"{"pid":"p","offset":"1.42","token":"t"}"#, auth(Some("t"), Some("p"), Some("1.42"))),
            (r#"{"pid":"p"}"#, auth(None, Some("p"), None)),
            (r#"{"pid":1,"offset":["1.42"],"token":null,"room":{"a":[1]}}"#, auth(None, None, None)),
            (r#"{"token":"a\"b\\\u0041"}"#, auth(Some("a\"b\\A"), None, None)),
            (r#"{"token":"\ud800"}"#, auth(None, None, None)),
        ] {
            assert_eq!(Auth::read(payload), Ok(want), "{payload}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for payload in [
            "null",
            "[]",
            r#"["token","pid","offset"]"#,
            "\"token\"",
            " {}",
            "{}{}",
            "{",
            r#"{"token"}"#,
            r#"{"pid":"a","pid":"b"}"#,
        ] {
            assert_eq!(Auth::read(payload), Err(ReadPacket::Payload), "{payload}");
        }
    }
}
