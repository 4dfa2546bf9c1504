//! The bodies of Engine.IO's long-polling requests: packets one after another. Pure.

use super::{Packet, ReadPacket};

/// Stands between two packets. JSON escapes control characters, so no Socket.IO packet has it.
const SEPARATOR: char = '\x1e';

/// How much one long-polling request may carry.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the whole body; the client was told them as `maxPayload`.
    pub bytes_max: usize,
    /// Packets: a body of separators would otherwise cost more memory than it has bytes.
    pub packets_max: usize,
}

/// Why the body of a request is no payload. Nothing of it is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadPayload {
    /// More bytes than allowed: HTTP 413.
    #[error("the payload is too large")]
    TooLarge,
    /// More packets than allowed: HTTP 413.
    #[error("the payload has too many packets")]
    TooMany,
    /// The bytes are no UTF-8: HTTP 400, and the session ends.
    #[error("the payload is no UTF-8")]
    Text,
    /// One of the packets is none: HTTP 400, and the session ends.
    #[error("the payload has a packet that cannot be read")]
    Packet(#[source] ReadPacket),
}

/// Takes the body of a `POST` of a polling client apart. Each text is a packet, or one with binary data. Whoever takes
/// the packets refuses that in its turn: what the client has sent before it counts, and the packet that announces it is
/// refused with a reason.
pub fn read(body: &[u8], limits: Limits) -> Result<Vec<&str>, ReadPayload> {
    if body.len() > limits.bytes_max {
        return Err(ReadPayload::TooLarge);
    }
    let text = str::from_utf8(body).map_err(|_| ReadPayload::Text)?;
    if text.split(SEPARATOR).nth(limits.packets_max).is_some() {
        return Err(ReadPayload::TooMany);
    }
    let packet = |text| match Packet::read(text) {
        Ok(_) | Err(ReadPacket::Binary) => Ok(text),
        Err(error) => Err(ReadPayload::Packet(error)),
    };
    text.split(SEPARATOR).map(packet).collect()
}

/// Appends the body that answers a poll: packets that are encoded already. There is at least one; an answer without a
/// packet is an error to the client.
pub fn append<'a>(packets: impl IntoIterator<Item = &'a [u8]>, into: &mut Vec<u8>) {
    for (number, packet) in packets.into_iter().enumerate() {
        if number > 0 {
            into.push(SEPARATOR as u8);
        }
        into.extend_from_slice(packet);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { bytes_max: 1_000, packets_max: 10 };

    /// The body that carries the packets.
    fn payload(packets: &[&str]) -> Vec<u8> {
        let mut body = Vec::new();
        append(packets.iter().map(|packet| packet.as_bytes()), &mut body);
        body
    }

    #[test]
    fn a_payload_is_its_packets_in_order() {
        let read = |body| read(body, LIMITS);
        assert_eq!(read(b"4hello"), Ok(vec!["4hello"]));
        assert_eq!(read(b"4test1\x1e4test2\x1e4test3"), Ok(vec!["4test1", "4test2", "4test3"]));
        assert_eq!(read(b"4a\nb\x1e2\x1e4world"), Ok(vec!["4a\nb", "2", "4world"]));
        assert_eq!(read(b"0\x1e1\x1e2probe\x1e3probe\x1e4"), Ok(vec!["0", "1", "2probe", "3probe", "4"]));
        assert_eq!(read(b"4a\x1e451-[]\x1ebAQIDBA=="), Ok(vec!["4a", "451-[]", "bAQIDBA=="]));
        assert_eq!(payload(&["4hello", "2", "4world"]), b"4hello\x1e2\x1e4world");
    }

    #[test]
    fn what_is_no_payload_is_refused_as_a_whole_each_with_its_reason() {
        for (body, reason) in [
            (b"".to_vec(), ReadPayload::Packet(ReadPacket::Empty)),
            (b"abc".to_vec(), ReadPayload::Packet(ReadPacket::Type)),
            (b"{}".to_vec(), ReadPayload::Packet(ReadPacket::Type)),
            (br#"["a123", "a456"]"#.to_vec(), ReadPayload::Packet(ReadPacket::Type)),
            (b"4hello\x1ebAQIDBA==\x1e7".to_vec(), ReadPayload::Packet(ReadPacket::Type)),
            (b"4hello\x1e".to_vec(), ReadPayload::Packet(ReadPacket::Empty)),
            (b"\x1e4hello".to_vec(), ReadPayload::Packet(ReadPacket::Empty)),
            (b"4a\x1e\x1e4b".to_vec(), ReadPayload::Packet(ReadPacket::Empty)),
            (b"5:4hello".to_vec(), ReadPayload::Packet(ReadPacket::Data)), // Revision 3 counted characters.
            (b"4\xff".to_vec(), ReadPayload::Text),
            (vec![b'4'; 1_001], ReadPayload::TooLarge),
            (vec![0x1e; 1_000], ReadPayload::TooMany),
            (payload(&["2"; 11]), ReadPayload::TooMany),
        ] {
            assert_eq!(read(&body, LIMITS), Err(reason), "{:?}", &body[..body.len().min(16)]);
        }
        assert_eq!(read(&payload(&["2"; 10]), LIMITS).map(|packets| packets.len()), Ok(10));
        assert_eq!(read(&[b'4'; 1_000], LIMITS).map(|packets| packets.len()), Ok(1));
    }

    proptest! {
        #[test]
        fn what_is_joined_is_read_back(texts in prop::collection::vec("4[^\u{1e}]{0,20}|[1-36]|2probe", 1..10)) {
            let packets: Vec<&str> = texts.iter().map(String::as_str).collect();
            let body = payload(&packets);
            prop_assert_eq!(read(&body, LIMITS), Ok(packets));
        }

        #[test]
        fn no_body_makes_it_fail_otherwise_than_by_an_answer(body in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(packets) = read(&body, LIMITS) {
                prop_assert!(packets.len() <= LIMITS.packets_max);
            }
        }
    }
}
