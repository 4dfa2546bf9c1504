//! WebSocket frames (RFC 6455) as a server reads and writes them. Pure: bytes in, messages out.
//!
//! A connection that is idle holds no buffer here: what comes is read where it lies, and only the beginning of a
//! message that is not whole yet is kept.

use std::collections::VecDeque;

/// Longest payload of a control frame (RFC 6455, section 5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// A text message.
    Text(String),
    /// A ping, whose payload goes back in a pong.
    Ping(Vec<u8>),
    /// A sign of life.
    Pong,
    /// The client closes, or answers our close.
    Close,
}

/// Why no further message can be read: the connection ends with the close code of the variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReadMessage {
    /// Against the protocol: 1002.
    #[error("the frame is against RFC 6455")]
    Protocol,
    /// A binary message: 1003.
    #[error("the message is binary")]
    Binary,
    /// Text that is no UTF-8: 1007.
    #[error("the text is no UTF-8")]
    Text,
    /// A message above the limit: 1009.
    #[error("the message is too large")]
    TooLarge,
}

/// Puts messages together from what the network brings.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The beginning of a frame.
    rest: Vec<u8>,
    /// The fragments of a message so far.
    fragments: Option<Vec<u8>>,
}

impl Message {
    /// Bytes that it holds beside itself.
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.capacity(),
            Self::Ping(payload) => payload.capacity(),
            Self::Pong | Self::Close => 0,
        }
    }
}

/// What messages hold, in bytes.
pub(super) fn bytes_of(messages: &VecDeque<Message>) -> usize {
    messages.capacity() * size_of::<Message>() + messages.iter().map(Message::bytes).sum::<usize>()
}

impl Reader {
    /// What it keeps of messages that are not whole, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.rest.capacity() + self.fragments.as_ref().map_or(0, Vec::capacity)
    }

    /// Adds the messages that `bytes` completes. The bytes are unmasked in place.
    pub(super) fn read(
        &mut self,
        bytes: &mut [u8],
        bytes_max: usize,
        into: &mut VecDeque<Message>,
    ) -> Result<(), ReadMessage> {
        if self.rest.is_empty() {
            let used = self.read_frames(bytes, bytes_max, into)?;
            self.rest.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut all = std::mem::take(&mut self.rest);
        all.extend_from_slice(bytes);
        let used = self.read_frames(&mut all, bytes_max, into)?;
        if used < all.len() {
            all.drain(..used);
            self.rest = all;
        }
        Ok(())
    }

    /// Reads whole frames and says how many bytes they were.
    fn read_frames(
        &mut self,
        bytes: &mut [u8],
        bytes_max: usize,
        into: &mut VecDeque<Message>,
    ) -> Result<usize, ReadMessage> {
        let mut used = 0;
        while let Some(head) = Head::read(&bytes[used..])? {
            let so_far = self.fragments.as_ref().map_or(0, Vec::len);
            // Refused by its announced length, before it takes any memory.
            if !head.opcode.is_control() && head.payload_bytes > bytes_max.saturating_sub(so_far) {
                return Err(if head.opcode == Opcode::Binary { ReadMessage::Binary } else { ReadMessage::TooLarge });
            }
            let begin = used + head.bytes;
            let Some(payload) = bytes.get_mut(begin..begin + head.payload_bytes) else { break };
            unmask(payload, head.mask);
            into.extend(self.take(&head, payload)?);
            used = begin + head.payload_bytes;
        }
        Ok(used)
    }

    fn take(&mut self, head: &Head, payload: &[u8]) -> Result<Option<Message>, ReadMessage> {
        match (head.opcode, self.fragments.take()) {
            (Opcode::Close, fragments) => {
                check_close(payload)?;
                self.keep(fragments, Message::Close)
            }
            (Opcode::Ping, fragments) => self.keep(fragments, Message::Ping(payload.to_vec())),
            (Opcode::Pong, fragments) => self.keep(fragments, Message::Pong),
            (Opcode::Binary, None) => Err(ReadMessage::Binary),
            (Opcode::Text, None) if head.last => text(payload.to_vec()).map(Some),
            (Opcode::Text, None) => {
                self.fragments = Some(payload.to_vec());
                Ok(None)
            }
            (Opcode::Continuation, Some(mut fragments)) => {
                fragments.extend_from_slice(payload);
                if head.last {
                    return text(fragments).map(Some);
                }
                self.fragments = Some(fragments);
                Ok(None)
            }
            (Opcode::Continuation, None) | (Opcode::Text | Opcode::Binary, Some(_)) => Err(ReadMessage::Protocol),
        }
    }

    /// A control frame may come between the fragments of a message.
    #[expect(clippy::unnecessary_wraps, reason = "an arm of a match whose others can fail")]
    fn keep(&mut self, fragments: Option<Vec<u8>>, message: Message) -> Result<Option<Message>, ReadMessage> {
        self.fragments = fragments;
        Ok(Some(message))
    }
}

/// A close says nothing, or a code that may be sent and a reason in UTF-8 (RFC 6455, sections 5.5.1 and 7.4).
fn check_close(payload: &[u8]) -> Result<(), ReadMessage> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(()) } else { Err(ReadMessage::Protocol) };
    };
    if !matches!(u16::from_be_bytes(*code), 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(ReadMessage::Protocol);
    }
    str::from_utf8(reason).map(drop).map_err(|_| ReadMessage::Text)
}

fn text(bytes: Vec<u8>) -> Result<Message, ReadMessage> {
    String::from_utf8(bytes).map(Message::Text).map_err(|_| ReadMessage::Text)
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    for four in payload.chunks_mut(4) {
        four.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The head of a client's frame.
struct Head {
    last: bool,
    opcode: Opcode,
    mask: [u8; 4],
    /// Bytes of the head itself.
    bytes: usize,
    payload_bytes: usize,
}

impl Head {
    /// Reads a head, if all of it is there.
    fn read(bytes: &[u8]) -> Result<Option<Self>, ReadMessage> {
        let [first, second, after @ ..] = bytes else { return Ok(None) };
        // No extension was negotiated, so the reserved bits are zero; a client masks.
        if first & 0x70 != 0 || second & 0x80 == 0 {
            return Err(ReadMessage::Protocol);
        }
        let last = first & 0x80 != 0;
        let opcode = match first & 0x0f {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            _ => return Err(ReadMessage::Protocol),
        };
        let length = usize::from(second & 0x7f);
        if opcode.is_control() && (!last || length > CONTROL_BYTES_MAX) {
            return Err(ReadMessage::Protocol);
        }
        let (payload_bytes, after) = match length {
            126 => match after.split_first_chunk::<2>() {
                Some((length, after)) => (usize::from(u16::from_be_bytes(*length)), after),
                None => return Ok(None),
            },
            127 => match after.split_first_chunk::<8>() {
                // What does not fit into memory is too large, whatever the limit.
                Some((length, after)) => {
                    (usize::try_from(u64::from_be_bytes(*length)).map_err(|_| ReadMessage::TooLarge)?, after)
                }
                None => return Ok(None),
            },
            length => (length, after),
        };
        let Some((mask, payload)) = after.split_first_chunk::<4>() else { return Ok(None) };
        Ok(Some(Self { last, opcode, mask: *mask, bytes: bytes.len() - payload.len(), payload_bytes }))
    }
}

/// Appends the head of a text message of `payload_bytes`; the payload follows.
pub(super) fn text_head(payload_bytes: usize, into: &mut Vec<u8>) {
    into.push(0x81);
    match payload_bytes {
        0..=125 => into.push(u8::try_from(payload_bytes).unwrap_or(125)),
        126..=0xffff => {
            into.push(126);
            into.extend_from_slice(&u16::try_from(payload_bytes).unwrap_or(u16::MAX).to_be_bytes());
        }
        _ => {
            into.push(127);
            into.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
        }
    }
}

/// Appends a text message.
pub(super) fn text_message(payload: &str, into: &mut Vec<u8>) {
    text_head(payload.len(), into);
    into.extend_from_slice(payload.as_bytes());
}

/// The payloads of text messages that were appended one after the other.
pub(super) fn texts(mut messages: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, after) = match messages {
            [0x81, 126, after @ ..] => {
                let (length, after) = after.split_first_chunk::<2>()?;
                (usize::from(u16::from_be_bytes(*length)), after)
            }
            [0x81, 127, after @ ..] => {
                let (length, after) = after.split_first_chunk::<8>()?;
                (usize::try_from(u64::from_be_bytes(*length)).ok()?, after)
            }
            [0x81, length, after @ ..] => (usize::from(*length), after),
            _ => return None,
        };
        let (payload, rest) = after.split_at_checked(length)?;
        messages = rest;
        Some(payload)
    })
}

/// Appends a ping without payload.
pub(super) fn ping(into: &mut Vec<u8>) {
    into.extend_from_slice(&[0x89, 0]);
}

/// Appends the answer to a ping. Its payload was that of a control frame, so the length is one byte.
pub(super) fn pong(payload: &[u8], into: &mut Vec<u8>) {
    control(0x8a, payload, into);
}

/// Appends a close with its code and reason.
pub(super) fn close(code: u16, reason: &str, into: &mut Vec<u8>) {
    let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
    control(0x88, &payload, into);
}

fn control(first: u8, payload: &[u8], into: &mut Vec<u8>) {
    let payload = &payload[..payload.len().min(CONTROL_BYTES_MAX)];
    into.extend_from_slice(&[first, u8::try_from(payload.len()).unwrap_or(0)]);
    into.extend_from_slice(payload);
}

#[cfg(test)]
mod laws;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 100_000;

    /// A client's frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        text_head(payload.len(), &mut frame);
        frame[0] = first;
        frame[1] |= 0x80;
        let mask = [7, 0, 255, 31];
        frame.extend_from_slice(&mask);
        let begin = frame.len();
        frame.extend_from_slice(payload);
        unmask(&mut frame[begin..], mask);
        frame
    }

    /// What is read when the bytes come in pieces of `piece`.
    fn read(bytes: &[u8], piece: usize) -> (Vec<Message>, Result<(), ReadMessage>) {
        let (mut reader, mut messages) = (Reader::default(), VecDeque::new());
        let mut bytes = bytes.to_vec();
        let outcome = bytes.chunks_mut(piece).try_for_each(|piece| reader.read(piece, LIMIT, &mut messages));
        (messages.into(), outcome)
    }

    #[test]
    fn what_was_appended_is_taken_apart() {
        let texts = [0, 1, 125, 126, 0xffff, 0x1_0000].map(|length| "a".repeat(length));
        let mut messages = Vec::new();
        for text in &texts {
            text_message(text, &mut messages);
        }
        assert!(super::texts(&messages).eq(texts.iter().map(String::as_bytes)));
    }

    fn refused(bytes: &[u8]) -> Option<ReadMessage> {
        read(bytes, usize::MAX).1.err()
    }

    proptest! {
        #[test]
        fn messages_come_whole_however_the_network_cuts_them(
            texts in prop::collection::vec("[a-zé]{0,200}", 1..8),
            piece in 1..300_usize,
        ) {
            let bytes: Vec<u8> = texts.iter().flat_map(|text| frame(0x81, text.as_bytes())).collect();
            let want: Vec<Message> = texts.into_iter().map(Message::Text).collect();
            prop_assert_eq!(read(&bytes, piece), (want, Ok(())));
        }

        #[test]
        fn fragments_make_one_message_and_control_frames_may_come_between(
            parts in prop::collection::vec("[a-z]{0,50}", 2..6), piece in 1..100_usize,
        ) {
            let last = parts.len() - 1;
            let mut bytes = Vec::new();
            for (number, part) in parts.iter().enumerate() {
                let opcode = u8::from(number == 0);
                let fin = if number == last { 0x80 } else { 0 };
                bytes.extend(frame(fin | opcode, part.as_bytes()));
                if number < last {
                    bytes.extend(frame(0x8a, b""));
                }
            }
            let (messages, outcome) = read(&bytes, piece);
            prop_assert_eq!(outcome, Ok(()));
            prop_assert_eq!(messages.last(), Some(&Message::Text(parts.concat())));
            prop_assert_eq!(messages.len(), parts.len());
        }

        #[test]
        fn no_bytes_make_it_fail_otherwise_than_by_an_answer(
            bytes in prop::collection::vec(any::<u8>(), 0..400), piece in 1..50_usize,
        ) {
            let _ = read(&bytes, piece);
        }
    }

    #[test]
    fn an_idle_reader_holds_no_memory() {
        let (mut reader, mut messages) = (Reader::default(), VecDeque::new());
        for piece in frame(0x81, &[b'a'; 300]).chunks_mut(7) {
            reader.read(piece, LIMIT, &mut messages).expect("it is valid");
        }
        assert_eq!((messages.len(), reader.rest.capacity(), reader.fragments), (1, 0, None));
    }

    #[test]
    fn what_is_against_the_protocol_is_refused_each_with_its_reason() {
        let huge = [&[0x81, 0xff][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
        for (bytes, reason) in [
            (vec![0x81, 0x01, b'a'], ReadMessage::Protocol), // Not masked.
            (frame(0xc1, b"a"), ReadMessage::Protocol),      // A reserved bit.
            (frame(0x83, b"a"), ReadMessage::Protocol),      // No such opcode.
            (frame(0x80, b"a"), ReadMessage::Protocol),      // Continues nothing.
            (frame(0x09, b""), ReadMessage::Protocol),       // A control frame in fragments.
            (frame(0x89, &[0; 126]), ReadMessage::Protocol), // A long control frame.
            ([frame(0x01, b"a"), frame(0x81, b"b")].concat(), ReadMessage::Protocol),
            (frame(0x88, b"\x03"), ReadMessage::Protocol), // Half a code.
            (frame(0x88, b"\x03\xed"), ReadMessage::Protocol), // A code that is never sent, 1005.
            (frame(0x88, b"\x03\xe8\xff"), ReadMessage::Text),
            (frame(0x82, b"a"), ReadMessage::Binary),
            (frame(0x82, &vec![0; LIMIT + 1]), ReadMessage::Binary),
            (frame(0x81, b"\xff"), ReadMessage::Text),
            (frame(0x81, &vec![b'a'; LIMIT + 1]), ReadMessage::TooLarge),
            ([frame(0x01, &vec![b'a'; LIMIT]), frame(0x80, b"b")].concat(), ReadMessage::TooLarge),
            (huge, ReadMessage::TooLarge),
        ] {
            assert_eq!(refused(&bytes), Some(reason), "{:?}", &bytes[..bytes.len().min(16)]);
        }
    }

    #[test]
    fn what_is_written_has_the_shape_of_the_standard() {
        let mut bytes = Vec::new();
        text_message("hi", &mut bytes);
        ping(&mut bytes);
        pong(b"x", &mut bytes);
        close(1012, "drain", &mut bytes);
        assert_eq!(bytes, b"\x81\x02hi\x89\x00\x8a\x01x\x88\x07\x03\xf4drain");
        for (length, head) in [(125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let mut bytes = Vec::new();
            text_head(length, &mut bytes);
            assert_eq!(bytes.len(), head, "{length}");
        }
    }
}
