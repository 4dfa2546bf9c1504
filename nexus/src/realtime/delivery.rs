//! What a session sends next: reads the log after the position of the subscription that is
//! furthest behind, and makes the pushes of all of them from the same stretch.

use std::sync::Arc;

use jiff::Timestamp;

use super::encode;
use super::session::Session;
use crate::log::{Batch, Entry, ReadLog};
use crate::position::Position;

/// Entries looked at in one stretch: between two stretches commands are served and the end
/// of the token is seen.
const STRETCH_ENTRIES: usize = 256;

/// Bytes after which a stretch ends: this bounds the memory of a connection.
const STRETCH_BYTES: usize = 128 * 1024;

/// One frame to send.
#[derive(Debug)]
pub(super) struct Push {
    pub(super) frame: String,
    pub(super) content: Content,
}

/// What is pushed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content {
    /// An event that is new.
    Live { stamped_at: Timestamp },
    /// An event that the client missed.
    Missed,
    /// The end of events that are no longer kept.
    Gap,
}

/// The next frames, and whether the session is at the head after them.
#[derive(Debug)]
pub(super) struct Stretch {
    pub(super) pushes: Vec<Push>,
    pub(super) caught_up: bool,
}

impl Session {
    /// The next stretch. `live` says that the session was at the head before this wake-up.
    pub(super) async fn next_stretch(&mut self, live: bool) -> Result<Stretch, ReadLog> {
        let mut pushes = self.epoch_gaps();
        let lowest = self.subscriptions.iter().map(|subscription| subscription.position.seq).min();
        let Some(lowest) = lowest.filter(|lowest| *lowest < self.state.tail.head()) else {
            return Ok(Stretch { pushes, caught_up: true });
        };
        match self.state.tail.read_after(lowest, STRETCH_ENTRIES).await? {
            Batch::Entries(entries) => self.push_entries(&entries, live, &mut pushes),
            Batch::Gap { oldest } => self.push_gap(oldest - 1, &mut pushes),
        }
        Ok(Stretch { pushes, caught_up: false })
    }

    /// Everything that matches up to here was made into pushes; the head when nothing is followed.
    pub(super) fn position(&self) -> Position {
        let lowest = self.subscriptions.iter().map(|subscription| subscription.position).min();
        lowest.unwrap_or_else(|| self.state.tail.position())
    }

    fn push_entries(&mut self, entries: &[Arc<Entry>], live: bool, pushes: &mut Vec<Push>) {
        let mut bytes = 0;
        for entry in entries {
            let event = str::from_utf8(&entry.encoded).expect("the log holds JSON text, which is UTF-8");
            let behind = self.subscriptions.iter_mut().filter(|one| one.position.seq < entry.seq);
            for subscription in behind {
                subscription.position.seq = entry.seq;
                if subscription.filter.wants(entry) {
                    let frame = encode::event(&subscription.name, event);
                    bytes += frame.len();
                    let content = if live { Content::Live { stamped_at: entry.recorded_at } } else { Content::Missed };
                    pushes.push(Push { frame, content });
                }
            }
            if bytes >= STRETCH_BYTES {
                return;
            }
        }
    }

    /// Retention has dropped everything up to `to`.
    fn push_gap(&mut self, to: i64, pushes: &mut Vec<Push>) {
        for subscription in self.subscriptions.iter_mut().filter(|one| one.position.seq < to) {
            let end = Position { seq: to, ..subscription.position };
            pushes.push(gap(&subscription.name, subscription.position, end));
            subscription.position = end;
        }
    }

    /// The log was restored from a backup: what was between a position of the old epoch and
    /// the head cannot be told apart, so all of it is a gap.
    fn epoch_gaps(&mut self) -> Vec<Push> {
        let head = self.state.tail.position();
        let mut pushes = Vec::new();
        for subscription in self.subscriptions.iter_mut().filter(|one| one.position.epoch != head.epoch) {
            pushes.push(gap(&subscription.name, subscription.position, head));
            subscription.position = head;
        }
        pushes
    }
}

fn gap(subscription: &str, from: Position, to: Position) -> Push {
    Push { frame: encode::gap(subscription, from, to), content: Content::Gap }
}
