//! Engine.IO packets (protocol revision 4) as a server reads and writes them. Pure: text in, packets out.
//!
//! Text only: a packet with binary data is refused. What is read is borrowed from the request. Source of the rules:
//! <https://github.com/socketio/socket.io/blob/main/docs/engine.io-protocol/v4-current.md>.

use serde::Serialize;

pub mod payload;
pub mod polling;
pub mod request;
pub(crate) mod sessions;
pub mod upgrade;

/// Begins a message packet. What follows is the message, as it is.
pub const MESSAGE: u8 = b'4';

/// The data of the ping and the pong that try a WebSocket out before an upgrade.
pub const PROBE: &str = "probe";

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Opens a session, with the handshake as JSON. Only a server sends it; from a client it means nothing.
    Open(&'a str),
    /// The session ends.
    Close,
    /// Asks for a pong. A client sends it only as the probe of an upgrade.
    Ping(&'a str),
    /// Answers a ping, with its data.
    Pong(&'a str),
    /// A message, for us a Socket.IO packet.
    Message(&'a str),
    /// From now on the WebSocket is the transport.
    Upgrade,
    /// Nothing: it lets a pending poll end.
    Noop,
}

/// Why a text is no packet. The session ends: an official server closes it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadPacket {
    /// It has not even a type.
    #[error("the packet is empty")]
    Empty,
    /// It is base64 after a `b`. A caller that gets a binary WebSocket frame gives this answer too.
    #[error("the packet is binary; this server takes text only")]
    Binary,
    /// Its type is none of 0 to 6.
    #[error("the packet has no type of Engine.IO 4")]
    Type,
    /// It carries data where its type has none.
    #[error("a packet of this type carries no data")]
    Data,
}

impl<'a> Packet<'a> {
    /// Reads one WebSocket text message, or one packet of a payload.
    pub fn read(text: &'a str) -> Result<Self, ReadPacket> {
        let mut rest = text.chars();
        let packet = match (rest.next(), rest.as_str()) {
            (None, _) => return Err(ReadPacket::Empty),
            (Some('b'), _) => return Err(ReadPacket::Binary),
            (Some('0'), data) => Self::Open(data),
            (Some('2'), data) => Self::Ping(data),
            (Some('3'), data) => Self::Pong(data),
            (Some('4'), data) => Self::Message(data),
            (Some('1'), "") => Self::Close,
            (Some('5'), "") => Self::Upgrade,
            (Some('6'), "") => Self::Noop,
            (Some('1' | '5' | '6'), _) => return Err(ReadPacket::Data),
            (Some(_), _) => return Err(ReadPacket::Type),
        };
        Ok(packet)
    }

    /// Appends the packet: a WebSocket text message, or one packet of a payload.
    pub fn append(self, into: &mut Vec<u8>) {
        let (kind, data) = match self {
            Self::Open(data) => (b'0', data),
            Self::Close => (b'1', ""),
            Self::Ping(data) => (b'2', data),
            Self::Pong(data) => (b'3', data),
            Self::Message(data) => (MESSAGE, data),
            Self::Upgrade => (b'5', ""),
            Self::Noop => (b'6', ""),
        };
        into.push(kind);
        into.extend_from_slice(data.as_bytes());
    }
}

/// What the server tells a client when a session opens.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Handshake<'a> {
    /// The session, secret: whoever has it speaks for the client.
    pub sid: &'a str,
    /// The transports that the session may move to: `websocket` from polling, nothing from a WebSocket.
    pub upgrades: &'a [&'a str],
    /// Milliseconds between two pings of the server.
    #[serde(rename = "pingInterval")]
    pub ping_interval_ms: u32,
    /// Milliseconds in which the pong must come. The client gives up when no ping came for both together.
    #[serde(rename = "pingTimeout")]
    pub ping_timeout_ms: u32,
    /// Bytes that a request of the client may have.
    #[serde(rename = "maxPayload")]
    pub payload_bytes_max: usize,
}

impl Handshake<'_> {
    /// Appends the packet that opens the session.
    pub fn append(&self, into: &mut Vec<u8>) {
        into.push(b'0');
        serde_json::to_writer(into, self).expect("text and numbers are written to memory");
    }
}

#[cfg(test)]
mod laws;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(packet: Packet<'_>) -> String {
        let mut bytes = Vec::new();
        packet.append(&mut bytes);
        String::from_utf8(bytes).expect("packets are text")
    }

    #[test]
    fn every_type_is_read_and_written_back() {
        for (text, packet) in [
            ("0{}", Packet::Open("{}")),
            ("1", Packet::Close),
            ("2", Packet::Ping("")),
            ("2probe", Packet::Ping(PROBE)),
            ("3", Packet::Pong("")),
            ("3probe", Packet::Pong(PROBE)),
            ("4", Packet::Message("")),
            ("4hello", Packet::Message("hello")),
            ("4a\nb\r\n\u{2028}\x1e€", Packet::Message("a\nb\r\n\u{2028}\x1e€")),
            ("5", Packet::Upgrade),
            ("6", Packet::Noop),
        ] {
            assert_eq!(Packet::read(text), Ok(packet));
            assert_eq!(written(packet), text);
        }
    }

    #[test]
    fn what_is_no_packet_is_refused_each_with_its_reason() {
        for (text, reason) in [
            ("", ReadPacket::Empty),
            ("abc", ReadPacket::Type),
            ("7", ReadPacket::Type),
            (" 4", ReadPacket::Type),
            ("\n", ReadPacket::Type),
            ("٤hello", ReadPacket::Type),
            ("b", ReadPacket::Binary),
            ("bAQIDBA==", ReadPacket::Binary),
            ("1x", ReadPacket::Data),
            ("5probe", ReadPacket::Data),
            ("6\n", ReadPacket::Data),
        ] {
            assert_eq!(Packet::read(text), Err(reason), "{text:?}");
        }
    }

    #[test]
    fn a_handshake_has_the_members_of_the_protocol() {
        let mut bytes = Vec::new();
        let upgrades = ["websocket"];
        let open = Handshake {
            sid: "lv_VI97HAXpY6yYWAAAC",
            upgrades: &upgrades,
            ping_interval_ms: 25_000,
            ping_timeout_ms: 20_000,
            payload_bytes_max: 1_000_000,
        };
        open.append(&mut bytes);
        let want = concat!(
            r#"0{"sid":"lv_VI97HAXpY6yYWAAAC","upgrades":["websocket"],"#,
            r#""pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#
        );
        assert_eq!(String::from_utf8_lossy(&bytes), want);
    }

    proptest! {
        #[test]
        fn any_text_that_is_a_packet_is_written_back_as_it_came(text in "[0-7b]?\\PC{0,20}") {
            if let Ok(packet) = Packet::read(&text) {
                prop_assert_eq!(written(packet), text);
            }
        }

        #[test]
        fn no_text_makes_it_fail_otherwise_than_by_an_answer(text in any::<String>()) {
            let _ = Packet::read(&text);
        }
    }
}
