//! Patterns over event types: `*` stands for one segment, `**` for any number of them.

use std::fmt;
use std::str::FromStr;

/// Longest pattern and most segments: enough for every type, small enough that matching stays trivial.
const LENGTH_MAX: usize = 128;

/// A pattern over dotted event types, such as `wallet.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Word(Box<str>),
    One,
    Any,
}

/// A text that is not a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pattern has segments of a-z, 0-9, - and _ joined by dots, where * is one segment and ** any number")]
pub struct ParsePattern;

impl Pattern {
    /// Whether `event_type` has the form that this pattern describes.
    pub fn matches(&self, event_type: &str) -> bool {
        let words: Vec<&str> = event_type.split('.').collect();
        // `reachable[n]`: the segments so far can stand for exactly the first n words.
        let mut reachable = vec![false; words.len() + 1];
        reachable[0] = true;
        for segment in &self.segments {
            reachable = step(segment, &words, &reachable);
        }
        reachable[words.len()]
    }

    /// Whether this is `**`, which every type matches, also one that nobody knows here.
    pub fn is_any(&self) -> bool {
        *self.segments == [Segment::Any]
    }
}

fn step(segment: &Segment, words: &[&str], before: &[bool]) -> Vec<bool> {
    let mut after = vec![false; before.len()];
    for end in 0..before.len() {
        let previous = end.checked_sub(1);
        after[end] = match segment {
            Segment::Word(word) => previous.is_some_and(|start| before[start] && words[start] == &**word),
            Segment::One => previous.is_some_and(|start| before[start]),
            Segment::Any => before[end] || previous.is_some_and(|start| after[start]),
        };
    }
    after
}

impl FromStr for Pattern {
    type Err = ParsePattern;

    fn from_str(text: &str) -> Result<Self, ParsePattern> {
        if text.len() > LENGTH_MAX {
            return Err(ParsePattern);
        }
        let segments = text.split('.').map(parse_segment).collect::<Result<_, _>>()?;
        Ok(Self { segments })
    }
}

fn parse_segment(text: &str) -> Result<Segment, ParsePattern> {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    match text {
        "*" => Ok(Segment::One),
        "**" => Ok(Segment::Any),
        word if !word.is_empty() && word.bytes().all(is_word) => Ok(Segment::Word(word.into())),
        _ => Err(ParsePattern),
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.segments.iter().enumerate() {
            let dot = if index == 0 { "" } else { "." };
            let text = match segment {
                Segment::Word(word) => word,
                Segment::One => "*",
                Segment::Any => "**",
            };
            write!(out, "{dot}{text}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, event_type: &str) -> bool {
        pattern.parse::<Pattern>().expect("the test gives a pattern").matches(event_type)
    }

    /// The definition, written as plainly as possible; exponential, so only for small inputs.
    fn oracle(pattern: &[&str], words: &[&str]) -> bool {
        match pattern.split_first() {
            None => words.is_empty(),
            Some((&"**", rest)) => (0..=words.len()).any(|skipped| oracle(rest, &words[skipped..])),
            Some((&"*", rest)) => !words.is_empty() && oracle(rest, &words[1..]),
            Some((word, rest)) => words.first() == Some(word) && oracle(rest, &words[1..]),
        }
    }

    proptest! {
        #[test]
        fn matching_follows_the_definition(
            pattern in prop::collection::vec(prop::sample::select(vec!["a", "b", "*", "**"]), 1..6),
            words in prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..6),
        ) {
            prop_assert_eq!(matches(&pattern.join("."), &words.join(".")), oracle(&pattern, &words));
        }

        #[test]
        fn a_pattern_survives_its_text(text in r"([a-z0-9_-]{1,6}|\*|\*\*)(\.([a-z0-9_-]{1,6}|\*|\*\*)){0,5}") {
            prop_assert_eq!(text.parse::<Pattern>().map(|pattern| pattern.to_string()), Ok(text));
        }

        #[test]
        fn a_plain_type_matches_only_itself(one in "[a-z]{1,3}(\\.[a-z]{1,3}){0,2}", other in "[a-z]{1,3}(\\.[a-z]{1,3}){0,2}") {
            prop_assert_eq!(matches(&one, &other), one == other);
        }

        #[test]
        fn two_stars_match_every_type(words in "[a-z]{1,5}(\\.[a-z]{1,5}){0,4}") {
            prop_assert!(matches("**", &words));
            let is_any = |text: &str| text.parse::<Pattern>().expect("a pattern").is_any();
            let longer = format!("{words}.**");
            prop_assert_eq!(["**", "*", &words, &longer].map(is_any), [true, false, false, false]);
        }
    }

    #[test]
    fn one_star_is_exactly_one_segment() {
        assert!(matches("wallet.*", "wallet.created"));
        assert!(!matches("wallet.*", "wallet"));
        assert!(!matches("wallet.*", "wallet.created.again"));
        assert!(!matches("wallet.*", "wallets.created"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let long = "a".repeat(LENGTH_MAX + 1);
        for text in ["", ".", "a.", ".a", "a..b", "***", "a*", "A.b", "a b", "wallet.%", &long] {
            assert_eq!(text.parse::<Pattern>(), Err(ParsePattern), "{text}");
        }
    }
}
