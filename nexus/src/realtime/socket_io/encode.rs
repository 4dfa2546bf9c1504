//! Socket.IO packets (protocol revision 5) as a server writes them. Pure.
//!
//! What is appended is the data of one Engine.IO message; [`MESSAGE`](crate::realtime::engine_io::MESSAGE) goes before it. An
//! event's arguments were encoded once, when the event came into this pod: a push copies those bytes and parses nothing.
//! A namespace is the one the client connected to, so it was read from a packet and has no comma.

use serde::Serialize;
use serde_json::Value;

use super::MAIN;

/// Appends the answer to a connect: the client is connected under the public id `sid`. `pid` is the secret session
/// that the client presents when it comes back; the one it presented, when the session is recovered.
pub fn connect(namespace: &str, sid: &str, pid: Option<&str>, into: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Connected<'a> {
        sid: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        pid: Option<&'a str>,
    }
    head(b'0', namespace, into);
    json(&Connected { sid, pid }, into);
}

/// Appends the other answer to a connect: the client is refused. It does not try again by itself.
pub fn connect_error(namespace: &str, message: &str, data: Option<&Value>, into: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Refused<'a> {
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a Value>,
    }
    head(b'4', namespace, into);
    json(&Refused { message, data }, into);
}

/// Appends a disconnect: the namespace is over for the client, which does not come back by itself.
pub fn disconnect(namespace: &str, into: &mut Vec<u8>) {
    head(b'1', namespace, into);
}

/// Appends the answer to the event that the client sent with `id`. Each argument is JSON.
pub fn ack(namespace: &str, id: u64, arguments: &[&[u8]], into: &mut Vec<u8>) {
    head(b'3', namespace, into);
    into.extend_from_slice(id.to_string().as_bytes());
    into.push(b'[');
    join(arguments, into);
    into.push(b']');
}

/// An event for a client, to which no ack is asked.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// The namespace it belongs to.
    pub namespace: &'a str,
    /// Its name and then its arguments, each JSON: `"name"`, `{"a":1}`. A reserved name would end the connection: the
    /// client checks as we do.
    pub arguments: &'a [&'a [u8]],
    /// Where it stands, as the last argument: the client presents that of the last event when it comes back. Made by
    /// the server, without a character that JSON escapes.
    ///
    /// A client that was given a `pid` takes any text at the end for one, so then each event has its own.
    pub offset: Option<&'a str>,
}

impl Event<'_> {
    /// How many bytes [`append`](Self::append) appends; a WebSocket frame says so before them.
    pub fn bytes(&self) -> usize {
        let namespace = if self.namespace == MAIN { 0 } else { self.namespace.len() + 1 };
        let arguments: usize = self.arguments.iter().map(|json| json.len()).sum();
        let commas = self.arguments.len().saturating_sub(1);
        let offset = self.offset.map_or(0, |offset| offset.len() + 3);
        1 + namespace + 2 + arguments + commas + offset
    }

    /// Appends the event.
    pub fn append(&self, into: &mut Vec<u8>) {
        head(b'2', self.namespace, into);
        into.push(b'[');
        join(self.arguments, into);
        if let Some(offset) = self.offset {
            into.extend_from_slice(b",\"");
            into.extend_from_slice(offset.as_bytes());
            into.push(b'"');
        }
        into.push(b']');
    }
}

fn head(kind: u8, namespace: &str, into: &mut Vec<u8>) {
    into.push(kind);
    if namespace != MAIN {
        into.extend_from_slice(namespace.as_bytes());
        into.push(b',');
    }
}

fn join(arguments: &[&[u8]], into: &mut Vec<u8>) {
    for (number, argument) in arguments.iter().enumerate() {
        if number > 0 {
            into.push(b',');
        }
        into.extend_from_slice(argument);
    }
}

fn json(value: &impl Serialize, into: &mut Vec<u8>) {
    serde_json::to_writer(into, value).expect("text and values are written to memory");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::auth::Auth;
    use super::super::{Body, Packet};
    use super::*;

    fn written(append: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut bytes = Vec::new();
        append(&mut bytes);
        String::from_utf8(bytes).expect("packets are text")
    }

    #[test]
    fn every_answer_has_its_exact_shape() {
        let data = json!({"code": "token_expired"});
        for (got, want) in [
            (written(|into| connect(MAIN, "wZX3", None, into)), r#"0{"sid":"wZX3"}"#),
            (written(|into| connect("/admin", "oSO0", Some("p"), into)), r#"0/admin,{"sid":"oSO0","pid":"p"}"#),
            (
                written(|into| connect_error("/random", "Invalid namespace", None, into)),
                r#"4/random,{"message":"Invalid namespace"}"#,
            ),
            (
                written(|into| connect_error(MAIN, "no \"token\"", Some(&data), into)),
                r#"4{"message":"no \"token\"","data":{"code":"token_expired"}}"#,
            ),
            (written(|into| disconnect(MAIN, into)), "1"),
            (written(|into| disconnect("/admin", into)), "1/admin,"),
            (written(|into| ack(MAIN, 12, &[], into)), "312[]"),
            (written(|into| ack("/admin", 13, &[b"\"bar\""], into)), r#"3/admin,13["bar"]"#),
            (
                written(|into| ack(MAIN, 456, &[b"1", b"\"2\"", br#"{"3":[false]}"#], into)),
                r#"3456[1,"2",{"3":[false]}]"#,
            ),
        ] {
            assert_eq!(got, want);
        }
    }

    #[test]
    fn an_event_is_its_arguments_and_its_offset() {
        let arguments: &[&[u8]] = &[b"\"event\"", br#"{"id":"e"}"#];
        for (event, want) in [
            (Event { namespace: MAIN, arguments: &[b"\"foo\""], offset: None }, r#"2["foo"]"#),
            (Event { namespace: MAIN, arguments, offset: None }, r#"2["event",{"id":"e"}]"#),
            (Event { namespace: MAIN, arguments, offset: Some("1.42") }, r#"2["event",{"id":"e"},"1.42"]"#),
            (Event { namespace: "/admin", arguments, offset: Some("1.42") }, r#"2/admin,["event",{"id":"e"},"1.42"]"#),
        ] {
            assert_eq!(written(|into| event.append(into)), want);
            assert_eq!(event.bytes(), want.len());
        }
    }

    proptest! {
        #[test]
        fn an_event_is_read_back(
            namespace in "/[a-z]{0,9}",
            name in "\\PC{0,20}",
            values in prop::collection::vec("[a-z\"\\\\\n€]{0,9}", 0..5),
            offset in prop::option::of("[0-9]{1,3}\\.[0-9]{1,9}"),
        ) {
            let name = format!("+{name}"); // None that is reserved.
            let texts = std::iter::once(&name).chain(&values);
            let json: Vec<Vec<u8>> =
                texts.map(|text| serde_json::to_vec(text).expect("text is JSON")).collect();
            let arguments: Vec<&[u8]> = json.iter().map(Vec::as_slice).collect();
            let event = Event { namespace: &namespace, arguments: &arguments, offset: offset.as_deref() };
            let text = written(|into| event.append(into));
            prop_assert_eq!(event.bytes(), text.len());

            let packet = Packet::read(&text).expect("it is an event");
            prop_assert_eq!(packet.namespace, namespace);
            let Body::Event(read) = packet.body else { panic!("it is an event") };
            prop_assert_eq!((read.id, read.name.as_ref()), (None, name.as_str()));
            let read: Vec<String> =
                read.arguments.iter().map(|json| serde_json::from_str(json.get()).expect("it is text")).collect();
            prop_assert_eq!(read, values.into_iter().chain(offset).collect::<Vec<_>>());
        }

        #[test]
        fn an_ack_is_read_back(namespace in "/[a-z]{0,9}", id in 0..10_u64.pow(16), numbers in any::<Vec<i64>>()) {
            let json: Vec<String> = numbers.iter().map(i64::to_string).collect();
            let arguments: Vec<&[u8]> = json.iter().map(String::as_bytes).collect();
            let text = written(|into| ack(&namespace, id, &arguments, into));
            let packet = Packet::read(&text).expect("it is an ack");
            prop_assert_eq!(packet.namespace, namespace);
            let Body::Ack(read, arguments) = packet.body else { panic!("it is an ack") };
            prop_assert_eq!(read, id);
            prop_assert_eq!(serde_json::from_str::<Vec<i64>>(arguments.get()).expect("they are numbers"), numbers);
        }

        #[test]
        fn a_session_comes_back_as_it_was_given(namespace in "/[a-z]{0,9}", sid in "\\PC*", pid in "\\PC*") {
            let text = written(|into| connect(&namespace, &sid, Some(&pid), into));
            let Ok(Packet { body: Body::Connect(auth), .. }) = Packet::read(&text) else { panic!("it is a connect") };
            prop_assert_eq!(auth, Auth { pid: Some(pid), ..Auth::default() });
            let text = written(|into| disconnect(&namespace, into));
            let read = Packet::read(&text).map(|packet| packet.namespace);
            prop_assert_eq!(read, Ok(namespace.as_str()));
        }
    }
}
