//! Small damage to what is valid, for property tests of parsers: what a broken client or an attacker sends is nearly
//! right, and noise seldom gets beyond the first byte.

use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Bytes that mean something in one of the formats: noise finds them too rarely.
const MEANINGFUL: &[u8] = b"{}[]\",:\\./;=&*-+_ abesu0123456789\0\n\r\x1e\x1f\x7f\x80\xc3\xff";

/// One change of bytes. A place is relative to their number, so that the change fits whatever it is done to.
#[derive(Clone, Debug)]
pub(crate) enum Damage {
    Change { at: Index, by: u8 },
    Insert { at: Index, bytes: Vec<u8> },
    Remove { at: Index, count: usize },
    Repeat { at: Index, count: usize },
    Cut { at: Index },
}

/// None to a few changes: what is whole must stay readable in the same test.
pub(crate) fn damages() -> impl Strategy<Value = Vec<Damage>> {
    prop::collection::vec(damage(), 0..4)
}

/// One change or a few.
pub(crate) fn some_damages() -> impl Strategy<Value = Vec<Damage>> {
    prop::collection::vec(damage(), 1..4)
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    let byte = prop_oneof![any::<u8>(), select(MEANINGFUL)];
    prop_oneof![
        (at(), 1..=u8::MAX).prop_map(|(at, by)| Damage::Change { at, by }),
        (at(), prop::collection::vec(byte, 1..4)).prop_map(|(at, bytes)| Damage::Insert { at, bytes }),
        (at(), 1..6_usize).prop_map(|(at, count)| Damage::Remove { at, count }),
        (at(), 1..40_usize).prop_map(|(at, count)| Damage::Repeat { at, count }),
        at().prop_map(|at| Damage::Cut { at }),
    ]
}

/// The bytes with the damage done, one change after another.
pub(crate) fn damaged(bytes: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for damage in damages {
        let place = |at: &Index| at.index(bytes.len() + 1);
        match damage {
            Damage::Change { at, by } => {
                let at = place(at);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= by);
            }
            Damage::Insert { at, bytes: inserted } => {
                let at = place(at);
                bytes.splice(at..at, inserted.iter().copied());
            }
            Damage::Remove { at, count } => {
                let at = place(at);
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Damage::Repeat { at, count } => {
                let at = place(at);
                let again = bytes[at..(at + count).min(bytes.len())].to_vec();
                bytes.splice(at..at, again);
            }
            Damage::Cut { at } => {
                let at = place(at);
                bytes.truncate(at);
            }
        }
    }
    bytes
}

/// The same for a text; what is no UTF-8 any more becomes a character that stands for it.
pub(crate) fn damaged_text(text: &str, damages: &[Damage]) -> String {
    String::from_utf8_lossy(&damaged(text.as_bytes(), damages)).into_owned()
}
