//! What a session sends next. A live session is given what is new; one that is behind reads the log after the position of
//! the subscription that is furthest behind, and makes the pushes of all of them from the same stretch.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::close::Close;
use super::encode::Encoding;
use super::session::Session;
use super::socket_io::client;
use super::socket_io::offset::Offset;
use super::subscription::Subscription;
use crate::events::Registry;
use crate::events::registry::DeliveryClass;
use crate::log::{Batch, Entry, ReadLog};
use crate::position::Position;

/// Entries looked at in one stretch: between two stretches commands are served and the end
/// of the token is seen.
const STRETCH_ENTRIES: usize = 256;

/// Bytes after which a stretch ends: this bounds the memory of a connection.
const STRETCH_BYTES: usize = 128 * 1024;

/// What a push takes beside the event, in bytes.
const PUSH_BYTES: usize = 64;

/// What is pushed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content {
    /// An event that is new.
    Live { stamped_at: Timestamp, type_number: usize },
    /// An event that the client missed.
    Missed,
    /// The end of events that are no longer kept.
    Gap,
    /// Nothing: a later event of the same type and subject says it all.
    Conflated,
}

/// The latest event of each subject in a stretch, of the types of which only that one counts.
#[derive(Default)]
struct Latest<'a>(HashMap<(&'a str, &'a str), &'a Entry>);

impl<'a> Latest<'a> {
    fn of(entries: &'a [Arc<Entry>], registry: &Registry) -> Self {
        let conflated = |event_type: &str| {
            registry.get(event_type).is_some_and(|definition| definition.delivery == DeliveryClass::LatestBySubject)
        };
        let entries = entries.iter().filter(|entry| conflated(&entry.event_type));
        Self(entries.map(|entry| ((&*entry.event_type, &*entry.subject), &**entry)).collect())
    }

    /// The entry after this one that says it all.
    fn instead_of(&self, entry: &Entry) -> Option<&'a Entry> {
        let latest = *self.0.get(&(&*entry.event_type, &*entry.subject))?;
        (latest.seq > entry.seq).then_some(latest)
    }
}

/// The next pushes, and whether the session is at the head after them.
#[derive(Debug, Default)]
pub(super) struct Stretch {
    pub(super) contents: Vec<Content>,
    pub(super) caught_up: bool,
}

/// Where pushes go.
struct Out<'a> {
    bytes: &'a mut Vec<u8>,
    contents: &'a mut Vec<Content>,
}

impl Session {
    /// Appends the pushes of new entries, after which the session has everything up to `complete`; or of as many as are
    /// sent at a time, and whether these are all.
    pub(super) fn push_live(&mut self, entries: &[Arc<Entry>], complete: Position, bytes: &mut Vec<u8>) -> Stretch {
        let mut stretch = Stretch::default();
        for entry in entries {
            if bytes.len() >= STRETCH_BYTES {
                return stretch;
            }
            let place = Position { epoch: complete.epoch, seq: entry.seq };
            self.push_entry(entry, None, place, true, &mut Out { bytes, contents: &mut stretch.contents });
            if self.grow(entry) {
                // What follows may be for a room of which nothing was brought.
                return stretch;
            }
        }
        self.has_all_up_to(complete);
        stretch.caught_up = true;
        stretch
    }

    /// Appends the pushes of the next stretch of the log. `live` says that the session was at the head before it was
    /// woken.
    pub(super) async fn next_stretch(&mut self, live: bool, bytes: &mut Vec<u8>) -> Result<Stretch, ReadLog> {
        let mut stretch = Stretch::default();
        let head = self.state.tail.position();
        if self.subscriptions.iter().any(|subscription| subscription.position.epoch != head.epoch) {
            self.look_again().await?;
            self.push_epoch_gaps(head, bytes, &mut stretch.contents);
        }
        let lowest = self.subscriptions.iter().map(|subscription| subscription.position.seq).min();
        let Some(lowest) = lowest.filter(|lowest| *lowest < head.seq) else {
            stretch.caught_up = true;
            return Ok(stretch);
        };
        let read = self.state.tail.read_after(lowest, STRETCH_ENTRIES).await?;
        if self.state.tail.epoch() != head.epoch {
            // What was read may be of a log that has just taken the place of this one: the next stretch tells.
            return Ok(stretch);
        }
        match read {
            Batch::Entries(entries) => {
                // Who asks for what it missed is given all of it; who was live and does not keep up is not. The one that
                // stands for the others is of the same stretch, or the next one might put it off again.
                let (entries, latest) = if live {
                    let fitting = self.fitting(&entries);
                    (fitting, Latest::of(fitting, &self.state.registry))
                } else {
                    (&*entries, Latest::default())
                };
                for entry in entries {
                    if !live && bytes.len() >= STRETCH_BYTES {
                        break;
                    }
                    let place = Position { epoch: head.epoch, seq: entry.seq };
                    let mut out = Out { bytes, contents: &mut stretch.contents };
                    self.push_entry(entry, latest.instead_of(entry), place, live, &mut out);
                    self.grow(entry);
                }
            }
            Batch::Gap { oldest } => {
                // What let the client in may be gone with the rest.
                self.look_again().await?;
                self.push_gap(oldest - 1, bytes, &mut stretch.contents);
            }
        }
        Ok(stretch)
    }

    /// As many of the entries, at least one, as are a stretch when every subscription wants them all.
    fn fitting<'a>(&self, entries: &'a [Arc<Entry>]) -> &'a [Arc<Entry>] {
        let mut bytes = 0;
        let fits = |entry: &&Arc<Entry>| {
            bytes += (entry.bytes() + PUSH_BYTES) * self.subscriptions.len();
            bytes <= STRETCH_BYTES
        };
        let count = entries.iter().take_while(fits).count();
        &entries[..count.max(1).min(entries.len())]
    }

    /// Everything that matches up to here was made into pushes; the head when nothing is followed.
    pub(super) fn position(&self) -> Position {
        let lowest = self.subscriptions.iter().map(|subscription| subscription.position).min();
        lowest.unwrap_or_else(|| self.state.tail.position())
    }

    /// Whether nothing is left to read.
    pub(super) fn is_at_head(&self) -> bool {
        let head = self.state.tail.position();
        let at_head = |position: Position| position.epoch == head.epoch && position.seq >= head.seq;
        self.subscriptions.iter().all(|subscription| at_head(subscription.position))
    }

    /// What a subscription wants up to here was made into pushes, or there was nothing. A place of another epoch says
    /// nothing.
    pub(super) fn has_all_up_to(&mut self, place: Position) {
        for subscription in self.subscriptions.iter_mut().filter(|one| one.position.epoch == place.epoch) {
            subscription.position.seq = subscription.position.seq.max(place.seq);
        }
    }

    /// Takes note of an entry that lets the client in; whether it did.
    fn grow(&mut self, entry: &Entry) -> bool {
        let grown = self.access.grow(entry, &self.state.registry);
        if grown {
            self.subscriptions_changed += 1;
            if self.access.is_too_large() {
                self.ends = Some(Close::TooManyRooms);
            }
        }
        grown
    }

    /// Looks up what the client may see while it is served. Too many rooms are its end, not a reason to try again.
    async fn look_again(&mut self) -> Result<(), ReadLog> {
        let looked = self.look_up_access().await;
        if matches!(looked, Err(ReadLog::LimitRooms { .. })) {
            self.ends = Some(Close::TooManyRooms);
        }
        looked
    }

    /// Appends the pushes of an entry, to those who are not given the one `instead`.
    fn push_entry(&mut self, entry: &Entry, instead: Option<&Entry>, place: Position, live: bool, out: &mut Out<'_>) {
        let Entry { recorded_at: stamped_at, type_number, .. } = *entry;
        let content = if live { Content::Live { stamped_at, type_number } } else { Content::Missed };
        let seen = self.access.sees(&entry.audience);
        let instead = instead.filter(|instead| self.access.sees(&instead.audience));
        let mut wanted_by = None;
        let before =
            |subscription: &Subscription| subscription.position.epoch == place.epoch && subscription.position < place;
        for (index, subscription) in self.subscriptions.iter_mut().enumerate().filter(|(_, one)| before(one)) {
            subscription.position = place;
            if !seen || !subscription.filter.wants(entry) {
                continue;
            }
            if instead.is_some_and(|instead| subscription.filter.wants(instead)) {
                out.contents.push(Content::Conflated);
                continue;
            }
            wanted_by = wanted_by.or(Some(index));
            if self.encoding != Encoding::SocketIo {
                self.encoding.event(subscription, entry, out.bytes);
                out.contents.push(content);
            }
        }
        if let Some(index) = wanted_by.filter(|_| self.encoding == Encoding::SocketIo) {
            let offset = Offset::of(&self.subscriptions, self.subscriptions_made, place);
            // It comes once, in the version that the oldest subscription asks for.
            client::event(entry, &self.subscriptions[index].filter.text(entry), &offset, out.bytes);
            out.contents.push(content);
        }
        if wanted_by.is_some() {
            entry.delivery.told();
        }
    }

    /// Retention has dropped everything up to `to`.
    fn push_gap(&mut self, to: i64, bytes: &mut Vec<u8>, contents: &mut Vec<Content>) {
        for subscription in self.subscriptions.iter_mut().filter(|one| one.position.seq < to) {
            let end = Position { seq: to, ..subscription.position };
            self.encoding.gap(&subscription.name(), subscription.position, end, bytes);
            contents.push(Content::Gap);
            subscription.position = end;
        }
    }

    /// A client of plain events that is told of a gap is not to go on as if nothing were missing.
    pub(super) fn end_after_gap(&mut self, contents: &[Content]) {
        let told = contents.iter().any(|content| matches!(content, Content::Gap));
        if told && self.encoding == Encoding::CloudEvents {
            self.ends = Some(Close::Gap);
        }
    }

    /// The log was restored from a backup: what was between a position of the old epoch and
    /// the head cannot be told apart, so all of it is a gap.
    fn push_epoch_gaps(&mut self, head: Position, bytes: &mut Vec<u8>, contents: &mut Vec<Content>) {
        for subscription in self.subscriptions.iter_mut().filter(|one| one.position.epoch != head.epoch) {
            self.encoding.gap(&subscription.name(), subscription.position, head, bytes);
            contents.push(Content::Gap);
            subscription.position = head;
        }
    }
}
