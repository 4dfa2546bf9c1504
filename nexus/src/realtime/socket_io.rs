//! Socket.IO packets (protocol revision 5) as a server reads them. Pure: text in, packets out.
//!
//! Text only: an event with binary attachments is refused. Arguments are borrowed from the text and stay JSON that
//! nobody has parsed. Source of the rules:
//! <https://github.com/socketio/socket.io/blob/main/docs/socket.io-protocol/v5-current.md> and the official parser,
//! <https://github.com/socketio/socket.io/blob/main/packages/socket.io-parser/lib/index.ts>.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

pub mod auth;
pub(super) mod client;
pub mod encode;
pub(super) mod offset;

use auth::Auth;

/// The main namespace. It is not written in packets.
pub const MAIN: &str = "/";

/// Bytes of a namespace's name. An answer repeats it, and it may become a key of the server's.
const NAMESPACE_BYTES_MAX: usize = 128;

/// Digits of an ack id: those of the largest integer that JavaScript counts to without a gap, 2^53 - 1.
const ACK_DIGITS_MAX: usize = 16;

/// Names of events that mean something else to every client, so that no application may send them.
const RESERVED: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// One packet of a client.
#[derive(Debug)]
pub struct Packet<'a> {
    /// Which namespace it belongs to, with its leading `/`.
    pub namespace: &'a str,
    /// What it says there.
    pub body: Body<'a>,
}

/// What a client says in a namespace.
#[derive(Debug)]
pub enum Body<'a> {
    /// Connect me; the answer is a connect with a session, or a connect error.
    Connect(Auth),
    /// Disconnect me; there is no answer.
    Disconnect,
    /// An event.
    Event(Event<'a>),
    /// Answers the event that the server sent with this id.
    Ack(u64, &'a RawValue),
}

/// An event of a client.
#[derive(Debug)]
pub struct Event<'a> {
    /// The client awaits an ack with this id.
    pub id: Option<u64>,
    /// Its name; a number is given by its digits.
    pub name: Cow<'a, str>,
    /// What follows the name, each one JSON. Its depth is unbounded: whoever parses it has `serde_json`'s limit.
    pub arguments: Vec<&'a RawValue>,
}

/// Why a text is no packet. The connection ends, as the protocol demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadPacket {
    /// Its type is missing, or none of 0 to 6.
    #[error("the packet has no type of Socket.IO 5")]
    Type,
    /// It announces binary attachments.
    #[error("the packet is binary; this server takes text only")]
    Binary,
    /// It is a connect error, which only a server sends.
    #[error("a client sends no connect error")]
    Direction,
    /// Its namespace is longer than allowed.
    #[error("the namespace is longer than {NAMESPACE_BYTES_MAX} bytes")]
    Namespace,
    /// Its ack id is too large, or is missing, or stands where none belongs.
    #[error("the ack id is missing, misplaced or longer than {ACK_DIGITS_MAX} digits")]
    AckId,
    /// Its payload is no JSON, or not what its type demands.
    #[error("the payload does not fit the type of the packet")]
    Payload,
    /// It is an event with a name that is reserved.
    #[error("the name of the event is reserved")]
    Reserved,
}

impl<'a> Packet<'a> {
    /// Reads the data of one Engine.IO message.
    pub fn read(text: &'a str) -> Result<Self, ReadPacket> {
        let mut rest = text.chars();
        let kind = match rest.next() {
            Some(kind @ '0'..='3') => kind,
            Some('4') => return Err(ReadPacket::Direction),
            Some('5' | '6') => return Err(ReadPacket::Binary),
            _ => return Err(ReadPacket::Type),
        };
        let rest = rest.as_str();
        // A packet without payload may leave out the comma.
        let (namespace, rest) =
            if rest.starts_with('/') { rest.split_once(',').unwrap_or((rest, "")) } else { (MAIN, rest) };
        if namespace.len() > NAMESPACE_BYTES_MAX {
            return Err(ReadPacket::Namespace);
        }
        let (digits, payload) = rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count());
        let id = match digits.len() {
            0 => None,
            1..=ACK_DIGITS_MAX => Some(digits.parse().map_err(|_| ReadPacket::AckId)?),
            _ => return Err(ReadPacket::AckId),
        };
        let body = match kind {
            '0' | '1' if id.is_some() => return Err(ReadPacket::AckId),
            '0' => Body::Connect(Auth::read(payload)?),
            '1' if payload.is_empty() => Body::Disconnect,
            '1' => return Err(ReadPacket::Payload),
            '2' => event(id, payload)?,
            _ => ack(id, payload)?,
        };
        Ok(Self { namespace, body })
    }
}

fn event(id: Option<u64>, payload: &str) -> Result<Body<'_>, ReadPacket> {
    let mut arguments: Vec<&RawValue> = array(payload)?;
    if arguments.is_empty() {
        return Err(ReadPacket::Payload);
    }
    let name = arguments.remove(0);
    let name = match name.get().as_bytes().first() {
        Some(b'0'..=b'9' | b'-') => Cow::Borrowed(name.get()),
        _ => text(name).ok_or(ReadPacket::Payload)?,
    };
    if RESERVED.contains(&name.as_ref()) {
        return Err(ReadPacket::Reserved);
    }
    Ok(Body::Event(Event { id, name, arguments }))
}

fn ack(id: Option<u64>, payload: &str) -> Result<Body<'_>, ReadPacket> {
    Ok(Body::Ack(id.ok_or(ReadPacket::AckId)?, array(payload)?))
}

/// Reads a payload that is an array: as a whole, or its elements.
fn array<'a, T: Deserialize<'a>>(payload: &'a str) -> Result<T, ReadPacket> {
    if !payload.starts_with('[') {
        return Err(ReadPacket::Payload);
    }
    serde_json::from_str(payload).map_err(|_| ReadPacket::Payload)
}

/// The text that JSON says, if it says text.
fn text(json: &RawValue) -> Option<Cow<'_, str>> {
    let quoted = json.get().strip_prefix('"')?.strip_suffix('"')?;
    if quoted.contains('\\') {
        serde_json::from_str(json.get()).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(quoted))
    }
}

#[cfg(test)]
mod laws;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a packet says, in one line.
    fn told(text: &str) -> Result<String, ReadPacket> {
        let Packet { namespace, body } = Packet::read(text)?;
        Ok(match body {
            Body::Connect(auth) => {
                let token = auth.token.map(|token| format!(" token={token}")).unwrap_or_default();
                format!("{namespace} connect{token}")
            }
            Body::Disconnect => format!("{namespace} disconnect"),
            Body::Event(Event { id, name, arguments }) => {
                let id = id.map(|id| format!(" {id}")).unwrap_or_default();
                let arguments: Vec<&str> = arguments.iter().flat_map(|json| [" ", json.get()]).collect();
                format!("{namespace} event{id} {name}{}", arguments.concat())
            }
            Body::Ack(id, arguments) => format!("{namespace} ack {id} {}", arguments.get()),
        })
    }

    #[test]
    fn every_packet_of_a_client_is_read() {
        for (text, want) in [
            ("0", "/ connect"),
            ("0{}", "/ connect"),
            (r#"0{"token":"123"}"#, "/ connect token=123"),
            ("0/admin,", "/admin connect"),
            ("0/random", "/random connect"),
            (r#"0/custom,{"token":"abc"}"#, "/custom connect token=abc"),
            (r#"0/admin?token=1234&uid=abcd,{"token":"x"}"#, "/admin?token=1234&uid=abcd connect token=x"),
            ("1", "/ disconnect"),
            ("1/admin,", "/admin disconnect"),
            ("1/custom", "/custom disconnect"),
            (r#"2["foo"]"#, "/ event foo"),
            (r#"2/,["foo"]"#, "/ event foo"),
            (r#"2/admin,["bar"]"#, "/admin event bar"),
            (r#"212["foo"]"#, "/ event 12 foo"),
            (r#"20["foo"]"#, "/ event 0 foo"),
            (r#"2/admin,13["foo"]"#, "/admin event 13 foo"),
            (r#"2["message",1,"2",{"3":[true]}]"#, r#"/ event message 1 "2" {"3":[true]}"#),
            (r#"2456["message-with-ack",1,"2",{"3":[false]}]"#, r#"/ event 456 message-with-ack 1 "2" {"3":[false]}"#),
            (r#"2[1,"a",{}]"#, r#"/ event 1 "a" {}"#),
            (r#"2/test,1["a",1,{}]"#, "/test event 1 a 1 {}"),
            (r#"3123["a",1,{}]"#, r#"/ ack 123 ["a",1,{}]"#),
            ("2[-1.5e3]", "/ event -1.5e3"),
            ("2[\n\"a\",\r\n\t1 ] \n", "/ event a 1"),
            (r#"2["a\nb\u0041"]"#, "/ event a\nbA"),
            (r#"2["",null]"#, "/ event  null"),
            ("2[\"\u{2028}€\x7f\"]", "/ event \u{2028}€\x7f"),
            ("312[]", "/ ack 12 []"),
            (r#"3/admin,13["bar"]"#, r#"/admin ack 13 ["bar"]"#),
            ("39007199254740991[1]", "/ ack 9007199254740991 [1]"),
        ] {
            assert_eq!(told(text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn every_text_that_is_no_packet_is_refused_with_its_reason() {
        let namespace = format!("0/{}", "a".repeat(NAMESPACE_BYTES_MAX));
        for (text, want) in [
            ("", ReadPacket::Type),
            ("abc", ReadPacket::Type),
            ("7", ReadPacket::Type),
            (" 2[\"a\"]", ReadPacket::Type),
            ("999", ReadPacket::Type),
            (r#"4{"message":"Not authorized"}"#, ReadPacket::Direction),
            (r#"51-["baz",{"_placeholder":true,"num":0}]"#, ReadPacket::Binary),
            (r#"442["some","data""#, ReadPacket::Direction),
            ("5", ReadPacket::Binary),
            ("50-", ReadPacket::Binary),
            ("5a-", ReadPacket::Binary),
            (r#"61-15["bar",{"_placeholder":true,"num":0}]"#, ReadPacket::Binary),
            (&namespace, ReadPacket::Namespace),
            (r#"212345678901234567["a"]"#, ReadPacket::AckId),
            ("299999999999999999999999999999", ReadPacket::AckId),
            ("3[]", ReadPacket::AckId),
            ("05{}", ReadPacket::AckId),
            ("11", ReadPacket::AckId),
            ("0[]", ReadPacket::Payload),
            (r#"0["token","pid","offset"]"#, ReadPacket::Payload),
            ("0null", ReadPacket::Payload),
            ("0\"token\"", ReadPacket::Payload),
            ("0 {}", ReadPacket::Payload),
            ("0{}{}", ReadPacket::Payload),
            ("0/admin,{", ReadPacket::Payload),
            (r#"0/admin,"invalid""#, ReadPacket::Payload),
            (r#"2/admin,"invalid"#, ReadPacket::Payload),
            ("2/admin,{}", ReadPacket::Payload),
            (r#"2[{"toString":"foo"}]"#, ReadPacket::Payload),
            (r#"2[true,"foo"]"#, ReadPacket::Payload),
            (r#"2[null,"bar"]"#, ReadPacket::Payload),
            ("1{}", ReadPacket::Payload),
            ("1/admin,{}", ReadPacket::Payload),
            ("2", ReadPacket::Payload),
            ("2[]", ReadPacket::Payload),
            ("2{}", ReadPacket::Payload),
            ("2\"a\"", ReadPacket::Payload),
            ("2[[\"a\"]]", ReadPacket::Payload),
            ("2[\"a\"", ReadPacket::Payload),
            ("2[\"a\",]", ReadPacket::Payload),
            ("2[\"a\"]x", ReadPacket::Payload),
            ("2[\"a\nb\"]", ReadPacket::Payload),
            (r#"2["\ud800"]"#, ReadPacket::Payload),
            (r#"2abc["message-with-ack",1]"#, ReadPacket::Payload),
            (r#"2-1["a"]"#, ReadPacket::Payload),
            (r#"21.5["a"]"#, ReadPacket::Payload),
            (r#"2/admin["a"]"#, ReadPacket::Payload),
            (r#"2admin,["a"]"#, ReadPacket::Payload),
            ("3", ReadPacket::AckId),
            ("31", ReadPacket::Payload),
            ("31{}", ReadPacket::Payload),
            ("31[", ReadPacket::Payload),
            (r#"2["connect"]"#, ReadPacket::Reserved),
            (r#"2["connect_error"]"#, ReadPacket::Reserved),
            (r#"2["disconnect","123"]"#, ReadPacket::Reserved),
            (r#"2/admin,["disconnecting"]"#, ReadPacket::Reserved),
            (r#"2["newListener"]"#, ReadPacket::Reserved),
            (r#"21["remove\u004cistener"]"#, ReadPacket::Reserved),
        ] {
            assert_eq!(told(text), Err(want), "{text}");
        }
    }

    #[test]
    fn deep_json_overflows_no_stack() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        let event = format!("2[\"a\",{deep}]");
        let Ok(Packet { body: Body::Event(Event { arguments, .. }), .. }) = Packet::read(&event) else {
            panic!("a deep argument is read as JSON that nobody has parsed");
        };
        assert_eq!(arguments[0].get(), deep);
        serde_json::from_str::<serde_json::Value>(arguments[0].get())
            .expect_err("who parses it has serde_json's limit");
        assert_eq!(told(&format!("0{{\"token\":{deep}}}")).as_deref(), Ok("/ connect"));
        assert_eq!(told(&format!("2{}", "[".repeat(200_000))), Err(ReadPacket::Payload));
        assert_eq!(told(&format!("2{}", "9".repeat(200_000))), Err(ReadPacket::AckId));
        assert_eq!(told(&format!("2/{}", "/".repeat(200_000))), Err(ReadPacket::Namespace));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_fail_otherwise_than_by_an_answer(text in "[0-6]?(/[a-z]{0,9},?)?[0-9]{0,18}\\PC*") {
            let _ = told(&text);
        }

        #[test]
        fn no_payload_makes_it_fail_otherwise_than_by_an_answer(
            text in "[0-4](/a,)?[0-9]?[\\[{]([\"\\\\\\[\\]{}:,au0-9 ]|\"a\"|\"pid\":|null){0,20}[\\]}]",
        ) {
            let _ = told(&text);
        }
    }
}
