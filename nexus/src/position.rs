//! A place in the log, as clients hold it: the opaque token `epoch.seq`.
//! Only Nexus may look inside; clients compare tokens for equality and hand them back.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A place in the log. Ordered by epoch, then by sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Grows by one when the log is restored from a backup, so that older positions are recognised.
    pub epoch: i32,
    /// Dense number of the event, from 1; 0 stands before the first event.
    pub seq: i64,
}

impl Position {
    /// Whether everything up to `other` is among everything up to here. Never for positions of different epochs,
    /// which say nothing about one another.
    #[must_use]
    pub fn includes(self, other: Self) -> bool {
        self.epoch == other.epoch && other.seq <= self.seq
    }
}

/// A token that is not a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a position has the form epoch.seq, two decimal numbers without sign")]
pub struct ParsePosition;

impl fmt::Display for Position {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.epoch, self.seq)
    }
}

impl FromStr for Position {
    type Err = ParsePosition;

    fn from_str(token: &str) -> Result<Self, ParsePosition> {
        let (epoch, seq) = token.split_once('.').ok_or(ParsePosition)?;
        Ok(Self { epoch: number(epoch)?, seq: number(seq)? })
    }
}

/// Parses digits only: one position has exactly one spelling, so `+1`, `01` and `-1` are refused.
fn number<N: FromStr>(digits: &str) -> Result<N, ParsePosition> {
    let canonical = digits == "0" || !digits.starts_with('0');
    if !canonical || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ParsePosition);
    }
    digits.parse().map_err(|_| ParsePosition)
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Position {
    fn schema_name() -> Cow<'static, str> {
        "Position".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^(0|[1-9][0-9]*)\\.(0|[1-9][0-9]*)$",
            "description": "A place in the log; opaque to clients.",
            "examples": ["1.42"],
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_position_survives_its_token(epoch in 0..i32::MAX, seq in 0..i64::MAX) {
            let position = Position { epoch, seq };
            prop_assert_eq!(position.to_string().parse(), Ok(position));
        }

        #[test]
        fn a_token_that_parses_is_the_only_spelling(token in "[0-9+. -]{0,24}") {
            if let Ok(position) = token.parse::<Position>() {
                prop_assert_eq!(position.to_string(), token);
            }
        }

        #[test]
        fn a_later_event_has_a_greater_position(seq in 0..i64::MAX - 1, epoch in 0..i32::MAX - 1) {
            let of = |epoch, seq| Position { epoch, seq };
            prop_assert!(of(epoch, seq) < of(epoch, seq + 1));
            prop_assert!(of(epoch, i64::MAX) < of(epoch + 1, seq));
        }
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for token in ["", ".", "1", "1.", ".1", "1.2.3", "-1.2", "1.-2", "1.+2", "01.2", "1.02", "a.b", "2147483648.1"]
        {
            assert_eq!(token.parse::<Position>(), Err(ParsePosition), "{token}");
        }
    }
}

#[cfg(test)]
mod laws {
    use proptest::prelude::*;

    use super::*;
    use crate::damage::{damaged_text, damages};

    proptest! {
        #[test]
        fn a_damaged_token_is_refused_or_is_another_position(
            epoch in 0..i32::MAX, seq in 0..i64::MAX, damages in damages(), noise in any::<Option<String>>(),
        ) {
            let token = Position { epoch, seq }.to_string();
            let damaged = noise.unwrap_or_else(|| damaged_text(&token, &damages));
            if let Ok(position) = damaged.parse::<Position>() {
                prop_assert_eq!(position.to_string(), damaged);
                prop_assert!(position.epoch >= 0 && position.seq >= 0);
            } else {
                prop_assert_ne!(damaged, token);
            }
        }
    }
}
