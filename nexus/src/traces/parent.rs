//! `traceparent`: where a trace goes on. Pure: text in, text out.
//! Source: W3C Trace Context, <https://www.w3.org/TR/trace-context/#traceparent-header>.

use std::fmt;
use std::str::FromStr;

/// A place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    /// The trace; never zero.
    pub(super) trace: u128,
    /// The span in it; never zero.
    pub(super) span: u64,
    /// Whether whoever began the trace keeps it.
    pub(super) sampled: bool,
}

/// A text that is no `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a traceparent has the form 00-trace-span-flags, in lower-case hexadecimal digits")]
pub(crate) struct ParseParent;

impl Parent {
    /// Bytes of its text.
    pub(crate) const BYTES: usize = 55;

    /// What the extension attribute of an encoded event says. Extensions stand before the data, and quotes within a text
    /// are escaped, so nothing else can be taken for it.
    pub(super) fn of_event(encoded: &[u8]) -> Option<Self> {
        const ATTRIBUTE: &[u8] = b"\"traceparent\":\"";
        let envelope = &encoded[..find(encoded, b",\"data\":")?];
        let value = &envelope[find(envelope, ATTRIBUTE)? + ATTRIBUTE.len()..];
        let end = value.iter().position(|byte| *byte == b'"')?;
        str::from_utf8(&value[..end]).ok()?.parse().ok()
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|part| part == wanted)
}

impl FromStr for Parent {
    type Err = ParseParent;

    fn from_str(text: &str) -> Result<Self, ParseParent> {
        let mut parts = text.split('-');
        let mut part = |length| parts.next().filter(|part| part.len() == length).ok_or(ParseParent);
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        // A version that is not known yet may have more to say.
        let more = parts.next().is_some();
        let (version, flags) = (number(version)?, number(flags)?);
        let parent = Self {
            trace: number(trace)?,
            span: u64::try_from(number(span)?).map_err(|_| ParseParent)?,
            sampled: flags & 1 == 1,
        };
        let valid = version != 0xff && (version > 0 || !more) && parent.trace != 0 && parent.span != 0;
        if valid { Ok(parent) } else { Err(ParseParent) }
    }
}

fn number(digits: &str) -> Result<u128, ParseParent> {
    if !digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(ParseParent);
    }
    u128::from_str_radix(digits, 16).map_err(|_| ParseParent)
}

impl fmt::Display for Parent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

#[cfg(test)]
mod laws {
    use jiff::Timestamp;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::damage::{damaged_text, damages};
    use crate::events::CloudEvent;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parent() -> impl Strategy<Value = Parent> {
        (1..u128::MAX, 1..u64::MAX, any::<bool>()).prop_map(|(trace, span, sampled)| Parent { trace, span, sampled })
    }

    fn encoded(id: &str, extensions: &[(&str, Value)], data: &Value) -> String {
        let mut event = json!({
            "specversion": "1.0", "id": id, "source": "/laws", "type": "a.b", "subject": "a/1", "data": data,
        });
        for (name, value) in extensions {
            event[*name] = value.clone();
        }
        CloudEvent::read(event, Timestamp::UNIX_EPOCH).expect("it is valid").encode()
    }

    proptest! {
        #[test]
        fn a_parent_is_read_back(parent in parent()) {
            let text = parent.to_string();
            prop_assert_eq!(text.len(), Parent::BYTES);
            prop_assert_eq!(text.parse(), Ok(parent));
        }

        #[test]
        fn a_damaged_parent_is_refused_or_names_a_trace_and_a_span(
            parent in parent(), damages in damages(), noise in any::<Option<String>>(),
        ) {
            let text = noise.unwrap_or_else(|| damaged_text(&parent.to_string(), &damages));
            if let Ok(parent) = text.parse::<Parent>() {
                prop_assert!(parent.trace != 0 && parent.span != 0);
                prop_assert_eq!(&parent.to_string()[3..52], &text[3..52]);
            }
        }

        #[test]
        fn it_is_found_in_an_event_where_it_is_an_attribute_and_nowhere_else(
            parent in parent(), id in "[ -~]{0,40}|\"traceparent\":\"00", other in "[ -~]{1,40}", has in any::<bool>(),
        ) {
            let misleading = json!({"traceparent": TEXT, "a": format!("{other},\"data\":\"traceparent\":\"{TEXT}\"")});
            let id = format!("{id},\"traceparent\":\"{TEXT}\"");
            let mut extensions = vec![("a", json!(other.clone())), ("tracestate", json!(other))];
            if has {
                extensions.push(("traceparent", json!(parent.to_string())));
            }
            let encoded = encoded(&id, &extensions, &misleading);
            prop_assert_eq!(Parent::of_event(encoded.as_bytes()), has.then_some(parent), "{}", encoded);
        }
    }

    #[test]
    fn each_rule_of_the_standard_is_held() {
        let parent =
            Parent { trace: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, span: 0x00f0_67aa_0ba9_02b7, sampled: true };
        assert_eq!(TEXT.parse(), Ok(parent));
        for (text, sampled) in [
            (TEXT.replace("-01", "-00"), false),
            (TEXT.replace("-01", "-ff"), true),
            (TEXT.replacen("00-", "cc-", 1), true),
            (format!("{}-what-comes", TEXT.replacen("00-", "cc-", 1)), true),
        ] {
            assert_eq!(text.parse(), Ok(Parent { sampled, ..parent }), "{text}");
        }
        for text in [
            String::new(),
            TEXT.to_uppercase(),
            TEXT.replacen("00-", "ff-", 1),
            format!("{TEXT}-more"),
            format!("{TEXT}-"),
            format!(" {TEXT}"),
            TEXT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            TEXT.replace("00f067aa0ba902b7", &"0".repeat(16)),
            TEXT.replace("00f067aa0ba902b7", "+0f067aa0ba902b7"),
            TEXT.replace('-', "_"),
        ] {
            assert_eq!(text.parse::<Parent>(), Err(ParseParent), "{text}");
        }
    }
}
