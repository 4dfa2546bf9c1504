//! What a Socket.IO client hands back when it returns: how far each of its subscriptions had come. Pure.
//!
//! Most of the time all of them stand at one place, and this is a position with the number of the newest subscription,
//! `3:1.250`. While one catches up, those that are ahead are named: `3:1.250;s1=1.900`.

use std::fmt;
use std::str::FromStr;

use crate::position::Position;
use crate::realtime::subscription::Subscription;

/// Subscriptions that an offset may name: no connection has more.
const AHEAD_MAX: usize = 64;

/// How far the subscriptions of a connection had come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::realtime) struct Offset {
    /// Number of the newest subscription there was; of later ones the offset says nothing.
    newest: u64,
    /// Where those stand that are not ahead.
    position: Position,
    ahead: Vec<(u64, Position)>,
}

impl Offset {
    /// Where the subscriptions stand; `newest` is the number of the last that was made. Without any it is of no use.
    pub(in crate::realtime) fn of(subscriptions: &[Subscription], newest: u64, head: Position) -> Self {
        let position = subscriptions.iter().map(|subscription| subscription.position).min().unwrap_or(head);
        let ahead = subscriptions.iter().filter(|subscription| subscription.position > position);
        let ahead = ahead.map(|subscription| (subscription.number, subscription.position)).collect();
        Self { newest, position, ahead }
    }

    /// Number of the newest subscription there was.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// Where the subscription with this number stands, if there was one.
    pub(super) fn place(&self, number: u64) -> Option<Position> {
        let named = self.ahead.iter().find(|(ahead, _)| *ahead == number).map(|(_, position)| *position);
        (number <= self.newest).then(|| named.unwrap_or(self.position))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.newest, self.position)?;
        self.ahead.iter().try_for_each(|(number, position)| write!(out, ";s{number}={position}"))
    }
}

/// A text that is no offset of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an offset is what came with the last event")]
pub(in crate::realtime) struct ParseOffset;

impl FromStr for Offset {
    type Err = ParseOffset;

    fn from_str(text: &str) -> Result<Self, ParseOffset> {
        let (newest, places) = text.split_once(':').ok_or(ParseOffset)?;
        let mut places = places.split(';');
        let position = places.next().and_then(|position| position.parse().ok()).ok_or(ParseOffset)?;
        let named = |place: &str| {
            let (number, position) = place.strip_prefix('s')?.split_once('=')?;
            Some((number.parse().ok()?, position.parse().ok()?))
        };
        let ahead: Option<Vec<_>> = places.take(AHEAD_MAX).map(named).collect();
        let newest = newest.parse().map_err(|_| ParseOffset)?;
        Ok(Self { newest, position, ahead: ahead.ok_or(ParseOffset)? })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::events::Registry;
    use crate::realtime::subscription::{Asked, Filter};

    fn at(seq: i64) -> Position {
        Position { epoch: 1, seq }
    }

    fn subscription(number: u64, seq: i64) -> Subscription {
        let registry = Arc::new(Registry::built_in());
        let everything = Asked { types: vec!["**".to_owned()], ..Asked::default() };
        let filter = Filter::read(&registry, everything).expect("it matches everything");
        Subscription { number, filter, position: at(seq) }
    }

    #[test]
    fn level_subscriptions_need_one_position_and_one_that_catches_up_names_the_others() {
        let level = Offset::of(&[subscription(1, 9), subscription(3, 9)], 3, at(9));
        assert_eq!(level.to_string(), "3:1.9");
        assert_eq!([1, 3, 4].map(|number| level.place(number)), [Some(at(9)), Some(at(9)), None]);
        let uneven = Offset::of(&[subscription(1, 9), subscription(3, 5)], 3, at(9));
        assert_eq!(uneven.to_string(), "3:1.5;s1=1.9");
        assert_eq!([1, 3].map(|number| uneven.place(number)), [Some(at(9)), Some(at(5))]);
    }

    proptest! {
        #[test]
        fn an_offset_is_read_back(seqs in prop::collection::vec(0..50_i64, 1..9)) {
            let subscriptions: Vec<_> = (1..).zip(&seqs).map(|(number, seq)| subscription(number, *seq)).collect();
            let offset = Offset::of(&subscriptions, seqs.len() as u64, at(99));
            prop_assert_eq!(offset.to_string().parse::<Offset>(), Ok(offset.clone()));
            for (number, seq) in (1..).zip(seqs) {
                prop_assert_eq!(offset.place(number), Some(at(seq)));
            }
        }

        #[test]
        fn no_text_makes_it_fail_otherwise_than_by_an_answer(text in "[0-9]{0,3}:?[0-9.]{0,9}(;s?[0-9]{0,3}=?[0-9.]{0,9}){0,3}") {
            let _ = text.parse::<Offset>();
        }
    }
}
