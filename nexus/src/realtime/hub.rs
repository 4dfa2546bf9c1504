//! Brings each entry of the log to the connections that may want it, and to no other: ten thousand idle connections cost
//! an event nothing. One task follows the log and fills the inboxes.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::inbox::{Inbox, Taken};
use super::subscription::Filter;
use crate::events::Registry;
use crate::log::{Batch, Entry, Tail};
use crate::position::Position;

/// Entries that are dispatched together: a connection then writes them together.
const BATCH_ENTRIES: usize = 256;

/// A pause per connection that an entry was brought to. While it lasts, further entries gather and are written with
/// one call to the network per connection: under load this is where the time goes.
const PAUSE_PER_DELIVERY: Duration = Duration::from_micros(5);

/// Longest pause: far below what a person notices.
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// All connections of the pod; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Hub {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    index: Mutex<Index>,
    /// Every connection that was live then was brought everything up to here.
    dispatched: AtomicI64,
    draining: AtomicBool,
}

/// Connections by what they follow. Each is found at least where its subscriptions need it, and filters again.
#[derive(Debug, Default)]
struct Index {
    connections: HashMap<u64, Arc<Inbox>>,
    next: u64,
    by_type: HashMap<&'static str, Inboxes>,
    by_subject: HashMap<Arc<str>, Inboxes>,
    /// Those that may want types that a newer pod knows and this one does not.
    of_other_types: Inboxes,
}

type Inboxes = HashMap<u64, Arc<Inbox>>;

/// One place in the index.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Type(&'static str),
    Subject(Arc<str>),
    OtherTypes,
}

impl Hub {
    /// A new connection, which follows nothing.
    pub(super) fn join(&self) -> Member {
        let inbox = Arc::<Inbox>::default();
        let mut index = self.index();
        let id = index.next;
        index.next += 1;
        index.connections.insert(id, Arc::clone(&inbox));
        drop(index);
        Member { hub: self.clone(), id, inbox, places: Box::default() }
    }

    /// Tells every connection when the pod is asked to leave.
    pub(crate) async fn drain_with(self, draining: CancellationToken) {
        draining.cancelled().await;
        self.shared.draining.store(true, Ordering::Release);
        self.index().connections.values().for_each(|inbox| inbox.wake());
    }

    /// Waits for an entry after `head` that the filter may want, or for the pod to leave.
    pub(crate) async fn grown(&self, tail: &Tail, filter: &Filter, head: Position) {
        let mut member = self.join();
        member.follow(std::iter::once(filter));
        // The reader has seen `head` in the log, perhaps before this pod's tail has.
        if tail.subscribe().wait_for(|seq| *seq >= head.seq).await.is_err() {
            return;
        }
        member.open();
        if tail.position() != head {
            return;
        }
        poll_fn(|context| {
            member.register(context.waker());
            if member.is_due() || member.is_draining() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Follows the log until shutdown.
    pub(crate) async fn dispatch(self, tail: Tail, shutdown: CancellationToken) {
        let mut moved = tail.subscribe();
        let mut epoch = 0;
        while !shutdown.is_cancelled() {
            while self.dispatched() < tail.head() || epoch != tail.epoch() {
                if epoch != tail.epoch() {
                    epoch = tail.epoch();
                    self.skip_to(tail.head());
                    continue;
                }
                let deliveries = match tail.read_after(self.dispatched(), BATCH_ENTRIES).await {
                    Ok(Batch::Entries(entries)) if !entries.is_empty() => self.bring(&entries),
                    // What is not in memory, the connections read by themselves.
                    _ => {
                        self.skip_to(tail.head());
                        0
                    }
                };
                self.pause(deliveries).await;
            }
            tokio::select! {
                _ = moved.changed() => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    /// Everything up to here was brought to the connections that are live.
    pub(super) fn dispatched(&self) -> i64 {
        self.shared.dispatched.load(Ordering::Acquire)
    }

    /// Whether the pod leaves.
    pub(crate) fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Acquire)
    }

    async fn pause(&self, deliveries: u32) {
        let pause = (PAUSE_PER_DELIVERY * deliveries).min(PAUSE_MAX);
        // A timer has a resolution of a millisecond; what is shorter is not worth one.
        if pause >= Duration::from_millis(1) {
            tokio::time::sleep_until(Instant::now() + pause).await;
        }
    }

    /// Puts the entries into inboxes and wakes their connections; how many deliveries this made.
    fn bring(&self, entries: &[Arc<Entry>]) -> u32 {
        let mut woken = Vec::new();
        let mut deliveries = 0;
        let index = self.index();
        for entry in entries {
            for inbox in index.interested(entry) {
                deliveries += 1;
                if inbox.put(entry) {
                    woken.push(Arc::clone(inbox));
                }
            }
        }
        drop(index);
        if let Some(newest) = entries.last() {
            self.shared.dispatched.store(newest.seq, Ordering::Release);
        }
        // After all entries are in: each connection then takes all of them at once.
        for inbox in woken {
            inbox.wake();
        }
        deliveries
    }

    /// Dispatches nothing up to `head`: the connections that are live read the log instead.
    fn skip_to(&self, head: i64) {
        let dispatched = self.dispatched();
        self.index().connections.values().for_each(|inbox| inbox.fall_behind(dispatched));
        self.shared.dispatched.store(head, Ordering::Release);
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.shared.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn interested(&self, entry: &Entry) -> impl Iterator<Item = &Arc<Inbox>> {
        let by_type = self.by_type.get(&*entry.event_type);
        let is_known = by_type.is_some() || Registry::global().get(&entry.event_type).is_some();
        let others = (!is_known).then_some(&self.of_other_types);
        let by_subject = self.by_subject.get(&*entry.subject);
        [by_type, others, by_subject].into_iter().flatten().flat_map(HashMap::values)
    }

    fn inboxes(&mut self, place: &Place) -> &mut Inboxes {
        match place {
            Place::Type(event_type) => self.by_type.entry(event_type).or_default(),
            Place::Subject(subject) => self.by_subject.entry(Arc::clone(subject)).or_default(),
            Place::OtherTypes => &mut self.of_other_types,
        }
    }

    fn leave(&mut self, id: u64, places: &[Place]) {
        for place in places {
            let inboxes = self.inboxes(place);
            inboxes.remove(&id);
            if let Place::Subject(subject) = place
                && inboxes.is_empty()
            {
                self.by_subject.remove(subject);
            }
        }
    }
}

/// One connection in the hub; it leaves when this is dropped.
#[derive(Debug)]
pub(super) struct Member {
    hub: Hub,
    id: u64,
    inbox: Arc<Inbox>,
    places: Box<[Place]>,
}

impl Member {
    /// From now on the connection follows this, and nothing else. What is in its inbox stays.
    pub(super) fn follow<'a>(&mut self, filters: impl Iterator<Item = &'a Filter>) {
        let mut places: Vec<Place> = Vec::new();
        for filter in filters {
            if let Some(subjects) = filter.subjects() {
                // The types are looked at when the entry is taken.
                places.extend(subjects.iter().map(|subject| Place::Subject(Arc::from(&**subject))));
            } else {
                places.extend(filter.types().iter().map(|event_type| Place::Type(event_type)));
                places.push(Place::OtherTypes);
            }
        }
        let mut index = self.hub.index();
        index.leave(self.id, &self.places);
        for place in &mut places {
            // One text in memory for all that follow the subject.
            if let Place::Subject(subject) = place
                && let Some((kept, _)) = index.by_subject.get_key_value(&**subject)
            {
                *subject = Arc::clone(kept);
            }
            index.inboxes(place).insert(self.id, Arc::clone(&self.inbox));
        }
        drop(index);
        self.places = places.into();
    }

    /// From now on everything that is dispatched comes in.
    pub(super) fn open(&self) {
        self.inbox.open();
    }

    /// Nothing comes in any more.
    pub(super) fn close(&self) {
        self.inbox.close();
    }

    /// What came in, and up to where it is complete.
    pub(super) fn take(&self) -> (Taken, i64) {
        // Before the inbox is looked at: what is dispatched in between may be in it, and is counted next time.
        let dispatched = self.hub.dispatched();
        (self.inbox.take(), dispatched)
    }

    /// Whether `take` has something to say.
    pub(super) fn is_due(&self) -> bool {
        self.inbox.is_due()
    }

    pub(super) fn is_draining(&self) -> bool {
        self.hub.is_draining()
    }

    /// Whom to wake when something is due, or when the pod leaves.
    pub(super) fn register(&self, waker: &Waker) {
        self.inbox.register(waker);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut index = self.hub.index();
        index.connections.remove(&self.id);
        index.leave(self.id, &self.places);
    }
}
