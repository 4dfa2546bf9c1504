//! The laws of reading WebSocket frames, for any bytes that a network may bring. `cargo test` tries a few hundred
//! streams; `PROPTEST_CASES` asks for more.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::damage::{damaged, damages};

/// Bytes of the longest head: two, eight of the length, four of the mask.
const HEAD_BYTES_MAX: usize = 14;

/// What a client says.
#[derive(Clone, Debug)]
enum Said {
    /// A text, in fragments that end at these places.
    Text(String, Vec<Index>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(u16, String),
}

fn said() -> impl Strategy<Value = Said> {
    let payload = || prop::collection::vec(any::<u8>(), 0..=CONTROL_BYTES_MAX);
    prop_oneof![
        4 => ("\\PC{0,90}", prop::collection::vec(any::<Index>(), 0..3)).prop_map(|(text, ends)| Said::Text(text, ends)),
        1 => payload().prop_map(Said::Ping),
        1 => payload().prop_map(Said::Pong),
        1 => (1000..=1003_u16, "[a-zé]{0,40}").prop_map(|(code, reason)| Said::Close(code, reason)),
    ]
}

impl Said {
    /// Appends the frames as a client sends them.
    fn append(&self, mask: [u8; 4], into: &mut Vec<u8>) {
        match self {
            Self::Text(text, ends) => {
                let mut ends: Vec<usize> = ends.iter().map(|end| end.index(text.len() + 1)).collect();
                ends.push(text.len());
                ends.sort_unstable();
                let mut begin = 0;
                for (number, end) in ends.iter().enumerate() {
                    let last = if number + 1 == ends.len() { 0x80 } else { 0 };
                    frame(last | u8::from(number == 0), &text.as_bytes()[begin..*end], mask, into);
                    begin = *end;
                }
            }
            Self::Ping(payload) => frame(0x89, payload, mask, into),
            Self::Pong(payload) => frame(0x8a, payload, mask, into),
            Self::Close(code, reason) => {
                frame(0x88, &[&code.to_be_bytes(), reason.as_bytes()].concat(), mask, into);
            }
        }
    }

    fn message(self) -> Message {
        match self {
            Self::Text(text, _) => Message::Text(text),
            Self::Ping(payload) => Message::Ping(payload),
            Self::Pong(_) => Message::Pong,
            Self::Close(..) => Message::Close,
        }
    }
}

fn frame(first: u8, payload: &[u8], mask: [u8; 4], into: &mut Vec<u8>) {
    head(first, payload.len() as u64, mask, into);
    into.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// A head that announces so many bytes, whatever follows.
fn head(first: u8, payload_bytes: u64, mask: [u8; 4], into: &mut Vec<u8>) {
    into.push(first);
    match (u8::try_from(payload_bytes), u16::try_from(payload_bytes)) {
        (Ok(length @ 0..=125), _) => into.push(0x80 | length),
        (_, Ok(length)) => {
            into.push(0xfe);
            into.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            into.push(0xff);
            into.extend_from_slice(&payload_bytes.to_be_bytes());
        }
    }
    into.extend_from_slice(&mask);
}

fn stream() -> impl Strategy<Value = (Vec<u8>, Vec<Message>)> {
    prop::collection::vec((said(), any::<[u8; 4]>()), 0..8).prop_map(|all| {
        let mut bytes = Vec::new();
        for (said, mask) in &all {
            said.append(*mask, &mut bytes);
        }
        (bytes, all.into_iter().map(|(said, _)| said.message()).collect())
    })
}

/// Reads pieces that end at these places until one is refused.
fn read(bytes: &[u8], ends: &[Index], bytes_max: usize) -> (Vec<Message>, Result<(), ReadMessage>) {
    let (mut reader, mut messages) = (Reader::default(), VecDeque::new());
    let mut ends: Vec<usize> = ends.iter().map(|end| end.index(bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let mut begin = 0;
    let outcome = ends.into_iter().try_for_each(|end| {
        let mut piece = bytes[begin..end].to_vec();
        begin = end;
        reader.read(&mut piece, bytes_max, &mut messages)
    });
    (messages.into(), outcome)
}

proptest! {
    #[test]
    fn what_a_client_says_is_read_wherever_the_network_cuts_it(
        (bytes, messages) in stream(),
        ends in prop::collection::vec(any::<Index>(), 0..12),
    ) {
        prop_assert_eq!(read(&bytes, &ends, 1_000), (messages, Ok(())));
    }

    #[test]
    fn a_damaged_stream_is_read_or_refused_the_same_wherever_the_network_cuts_it(
        (bytes, _) in stream(),
        damages in damages(),
        ends in prop::collection::vec(any::<Index>(), 1..12),
        bytes_max in 0..400_usize,
    ) {
        let bytes = damaged(&bytes, &damages);
        prop_assert_eq!(read(&bytes, &ends, bytes_max), read(&bytes, &[], bytes_max));
    }

    #[test]
    fn no_head_makes_it_ask_for_more_memory_than_the_limit(
        first in any::<u8>(),
        claimed in prop_oneof![0..2_000_u64, any::<u64>(), Just(u64::MAX), Just(1 << 63)],
        (bytes, _) in stream(),
        payload in prop::collection::vec(any::<u8>(), 0..6_000),
        damages in damages(),
        bytes_max in 0..300_usize,
        piece in 1..90_usize,
    ) {
        let mut all = bytes;
        // Nearly always one that may come here.
        head(if first < 0x40 { 0x01 } else { 0x80 | (first & 0x0f) }, claimed, [0; 4], &mut all);
        all.extend(payload);
        let mut all = damaged(&all, &damages);
        let (mut reader, mut messages) = (Reader::default(), VecDeque::new());
        // A vector that grows doubles.
        let frame_bytes_max = HEAD_BYTES_MAX + bytes_max.max(CONTROL_BYTES_MAX);
        for piece in all.chunks_mut(piece) {
            let count = piece.len();
            if reader.read(piece, bytes_max, &mut messages).is_err() {
                break;
            }
            prop_assert!(reader.rest.len() < frame_bytes_max);
            prop_assert!(reader.rest.capacity() <= 2 * (frame_bytes_max + count));
            let fragments = reader.fragments.as_ref().map_or(0, Vec::capacity);
            prop_assert!(fragments <= 2 * bytes_max.max(8), "{}", fragments);
        }
        for message in messages {
            let bytes = match message {
                Message::Text(text) => text.len(),
                Message::Ping(payload) => payload.len(),
                Message::Pong | Message::Close => 0,
            };
            prop_assert!(bytes <= bytes_max.max(CONTROL_BYTES_MAX));
        }
    }

    #[test]
    fn what_was_appended_for_a_client_is_taken_apart_and_damage_is_left_out(
        texts in prop::collection::vec("\\PC{0,200}", 0..6),
        damages in damages(),
    ) {
        let mut bytes = Vec::new();
        for text in &texts {
            text_message(text, &mut bytes);
        }
        let whole: Vec<&[u8]> = super::texts(&bytes).collect();
        prop_assert_eq!(whole, texts.iter().map(String::as_bytes).collect::<Vec<_>>());
        let damaged = damaged(&bytes, &damages);
        prop_assert!(super::texts(&damaged).map(<[u8]>::len).sum::<usize>() <= damaged.len());
    }
}
