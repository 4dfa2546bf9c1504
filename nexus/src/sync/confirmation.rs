//! Finds out since when this pod has every committed write. Pure: the clock and the answers of
//! the database come in as arguments.
//!
//! At an instant `t` every committed write is in the log, up to its head, or still waits in
//! the outbox. If nothing waits, a pod that has applied the log up to that head had at `t`
//! all there was. If something waits, then its newest number `n` is kept: as soon as nothing
//! up to `n` waits any more, all that was committed before `t` is in the log, up to the head
//! seen then. So a sequencer that stands still withholds confirmations, and under steady
//! load they come one question late instead of never.

use std::time::Instant;

/// What the database said, all from one snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Newest number of the log.
    pub(super) head: i64,
    /// Newest number that waits in the outbox, if any does.
    pub(super) newest_waiting: Option<i64>,
    /// Whether anything up to [`Confirmation::waiting_up_to`] waits.
    pub(super) earlier_waiting: bool,
}

/// The question that is open, if one is.
#[derive(Debug, Default)]
pub(super) struct Confirmation {
    open: Option<(Instant, i64)>,
}

impl Confirmation {
    /// The number to ask about in [`Answer::earlier_waiting`]; 0 when none is open.
    pub(super) fn waiting_up_to(&self) -> i64 {
        self.open.map_or(0, |(_, newest)| newest)
    }

    /// Takes in an answer to a question asked at `asked_at`. Returns a head and an instant
    /// for which it holds that every write committed before the instant is in the log, at
    /// or before the head.
    pub(super) fn answer(&mut self, asked_at: Instant, answer: Answer) -> Option<(i64, Instant)> {
        let Some(newest) = answer.newest_waiting else {
            self.open = None;
            return Some((answer.head, asked_at));
        };
        match self.open {
            Some(_) if answer.earlier_waiting => None,
            open => {
                self.open = Some((asked_at, newest));
                open.map(|(at, _)| (answer.head, at))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_empty_outbox_confirms_at_once() {
        let start = Instant::now();
        let answer = Answer { head: 7, newest_waiting: None, earlier_waiting: false };
        assert_eq!(Confirmation::default().answer(start, answer), Some((7, start)));
    }

    #[test]
    fn under_steady_load_the_confirmation_comes_one_question_late() {
        let start = Instant::now();
        let mut confirmation = Confirmation::default();
        let first = Answer { head: 7, newest_waiting: Some(9), earlier_waiting: false };
        assert_eq!(confirmation.answer(start, first), None);
        assert_eq!(confirmation.waiting_up_to(), 9);
        let second = Answer { head: 9, newest_waiting: Some(12), earlier_waiting: false };
        assert_eq!(confirmation.answer(start + SECOND, second), Some((9, start)));
        assert_eq!(confirmation.waiting_up_to(), 12);
    }

    #[test]
    fn a_sequencer_that_stands_still_withholds_the_confirmation() {
        let start = Instant::now();
        let mut confirmation = Confirmation::default();
        let stuck = Answer { head: 7, newest_waiting: Some(9), earlier_waiting: true };
        assert_eq!(confirmation.answer(start, Answer { earlier_waiting: false, ..stuck }), None);
        assert_eq!(confirmation.answer(start + SECOND, stuck), None);
        let later = Answer { head: 10, newest_waiting: None, earlier_waiting: false };
        assert_eq!(confirmation.answer(start + SECOND * 2, later), Some((10, start + SECOND * 2)));
    }
}
