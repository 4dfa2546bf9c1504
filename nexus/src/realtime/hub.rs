//! Brings each entry of the log to the connections that may want it, and to no other: ten thousand idle connections cost
//! an event nothing. One task follows the log and fills the inboxes.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::inbox::{Inbox, Taken};
use super::subscription::Filter;
use crate::auth::Access;
use crate::events::audience::EVERYONE;
use crate::events::{Definition, Registry};
use crate::log::{Batch, Entry, Tail};
use crate::position::Position;
use crate::traces::Traces;

/// Entries that are dispatched together: a connection then writes them together.
pub(super) const BATCH_ENTRIES: usize = 256;

/// Deliveries after which the dispatcher lets others have the index and the thread: a few milliseconds.
const DELIVERIES_AT_A_TIME: u32 = 16_384;

/// A pause per connection that the same entry was brought to. While it lasts, further entries gather and are written
/// with one call to the network per connection: this is where the time goes. An entry that few receive is followed by
/// no pause, for nothing would gather: ten thousand entries for one each are ten thousand writes either way.
const PAUSE_PER_RECEIVER: Duration = Duration::from_micros(40);

/// So many receivers of an entry are written to in a few milliseconds, which is not worth a pause.
const RECEIVERS_WITHOUT_PAUSE: u32 = 256;

/// Longest pause: less than half of the 100 ms in which an event is to be on every screen.
const PAUSE_MAX: Duration = Duration::from_millis(40);

/// Longest pause after a full batch: it has gathered by itself, and the connections need only the time to write it.
const PAUSE_AFTER_FULL_BATCH_MAX: Duration = Duration::from_millis(10);

/// All connections of the pod; cheap to clone.
#[derive(Clone, Debug)]
pub struct Hub {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    registry: Arc<Registry>,
    index: Mutex<Index>,
    /// Every connection that was live then was brought everything up to here.
    dispatched: Mutex<Position>,
    draining: AtomicBool,
    traces: Traces,
}

/// Connections by what they follow. Each is found at least where its subscriptions need it, and filters again.
#[derive(Debug, Default)]
struct Index {
    connections: HashMap<u64, Arc<Inbox>>,
    next: u64,
    by_type: HashMap<Arc<str>, Inboxes>,
    by_subject: HashMap<Arc<str>, Inboxes>,
    by_room: HashMap<Arc<str>, Inboxes>,
    /// Those that may want types that a newer pod knows and this one does not.
    of_other_types: Inboxes,
}

type Inboxes = HashMap<u64, Arc<Inbox>>;

/// One place in the index.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Type(Arc<str>),
    Subject(Arc<str>),
    Room(Arc<str>),
    OtherTypes,
}

impl Hub {
    /// A hub without connections, for events of these types, whose deliveries are traced.
    pub(crate) fn new(registry: Arc<Registry>, traces: Traces) -> Self {
        let shared = Shared {
            registry,
            traces,
            index: Mutex::default(),
            // Of no log: the first look at the tail begins.
            dispatched: Mutex::new(Position { epoch: 0, seq: 0 }),
            draining: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

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
        self.wake_all();
    }

    /// Lets every connection look at what concerns it.
    pub(crate) fn wake_all(&self) {
        self.index().connections.values().for_each(|inbox| inbox.wake());
    }

    /// Waits for entries that the filter wants and the caller may see.
    pub(crate) fn wait_for(&self, filter: Filter, access: Access) -> Waiter {
        let mut waiter = Waiter { member: self.join(), filter, access: Access::All };
        waiter.set_access(access);
        waiter.member.open();
        waiter
    }

    /// Follows the log until shutdown.
    pub(crate) async fn dispatch(self, tail: Tail, shutdown: CancellationToken) {
        let mut moved = tail.subscribe();
        while !shutdown.is_cancelled() {
            loop {
                let (at, head) = (self.dispatched(), tail.position());
                if at.epoch != head.epoch || at.seq > head.seq {
                    self.skip_to(head);
                    continue;
                }
                if at.seq == head.seq {
                    break;
                }
                let read = tail.read_after(at.seq, BATCH_ENTRIES).await;
                match read {
                    // What was read may be of a log that has just taken the place of this one.
                    _ if tail.epoch() != at.epoch => {}
                    Ok(Batch::Entries(entries)) if !entries.is_empty() => {
                        let receivers = self.bring(&entries, at.epoch).await;
                        pause(receivers, entries.len() == BATCH_ENTRIES).await;
                    }
                    // What is not in memory, the connections read by themselves.
                    _ => self.skip_to(head),
                }
            }
            tokio::select! {
                _ = moved.changed() => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    /// Everything up to here was brought to the connections that are live.
    pub(super) fn dispatched(&self) -> Position {
        *self.shared.dispatched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_dispatched(&self, position: Position) {
        *self.shared.dispatched.lock().unwrap_or_else(PoisonError::into_inner) = position;
    }

    /// Whether the pod leaves.
    pub(crate) fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Acquire)
    }

    /// Puts the entries of this epoch into inboxes and wakes their connections; how many received the entry that most did.
    async fn bring(&self, entries: &[Arc<Entry>], epoch: i32) -> u32 {
        let mut woken = Vec::new();
        let (mut most, mut at_a_time) = (0, 0);
        for entry in entries {
            // Others need the index too, and the thread.
            if at_a_time >= DELIVERIES_AT_A_TIME {
                tokio::task::yield_now().await;
                at_a_time = 0;
            }
            let index = self.index();
            let mut receivers = 0;
            for inbox in index.interested(entry, &self.shared.registry) {
                if receivers == 0 {
                    self.shared.traces.deliver(entry);
                }
                receivers += 1;
                if inbox.put(entry, epoch) {
                    woken.push(Arc::clone(inbox));
                }
            }
            at_a_time += receivers;
            most = receivers.max(most);
        }
        if let Some(newest) = entries.last() {
            self.has_dispatched(Position { epoch, seq: newest.seq });
        }
        // After all entries are in: each connection then takes all of them at once.
        for inbox in woken {
            inbox.wake();
        }
        most
    }

    /// Dispatches nothing up to `head`: the connections that are live read the log instead.
    fn skip_to(&self, head: Position) {
        let dispatched = self.dispatched();
        self.index().connections.values().for_each(|inbox| inbox.fall_behind(dispatched));
        self.has_dispatched(head);
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.shared.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn pause(receivers: u32, after_full_batch: bool) {
    if receivers > RECEIVERS_WITHOUT_PAUSE {
        let longest = if after_full_batch { PAUSE_AFTER_FULL_BATCH_MAX } else { PAUSE_MAX };
        tokio::time::sleep((PAUSE_PER_RECEIVER * receivers).min(longest)).await;
    }
}

impl Index {
    fn interested(&self, entry: &Entry, registry: &Registry) -> impl Iterator<Item = &Arc<Inbox>> {
        let by_type = self.by_type.get(&*entry.event_type);
        let is_known = by_type.is_some() || registry.get(&entry.event_type).is_some();
        let others = (!is_known).then_some(&self.of_other_types);
        let by_subject = self.by_subject.get(&*entry.subject);
        let by_room = entry.audience.rooms().filter_map(|room| self.by_room.get(room));
        [by_type, others, by_subject].into_iter().flatten().chain(by_room).flat_map(HashMap::values)
    }

    fn inboxes(&mut self, place: &Place) -> &mut Inboxes {
        match place {
            Place::Type(event_type) => self.by_type.entry(Arc::clone(event_type)).or_default(),
            Place::Subject(subject) => self.by_subject.entry(Arc::clone(subject)).or_default(),
            Place::Room(room) => self.by_room.entry(Arc::clone(room)).or_default(),
            Place::OtherTypes => &mut self.of_other_types,
        }
    }

    fn leave(&mut self, id: u64, places: &[Place]) {
        for place in places {
            let inboxes = self.inboxes(place);
            inboxes.remove(&id);
            if !inboxes.is_empty() {
                continue;
            }
            match place {
                Place::Subject(subject) => drop(self.by_subject.remove(subject)),
                Place::Room(room) => drop(self.by_room.remove(room)),
                Place::Type(_) | Place::OtherTypes => {}
            }
        }
    }

    /// One text in memory for all that have this place.
    fn share(&self, place: &mut Place) {
        let (places, text) = match place {
            Place::Subject(subject) => (&self.by_subject, subject),
            Place::Room(room) => (&self.by_room, room),
            Place::Type(_) | Place::OtherTypes => return,
        };
        if let Some((kept, _)) = places.get_key_value(&**text) {
            *text = Arc::clone(kept);
        }
    }
}

/// Where entries that one of the filters wants, and that may be seen, are found. More may be found there.
fn places<'a>(filters: impl Iterator<Item = &'a Filter>, access: &Access, registry: &Registry) -> Vec<Place> {
    let mut places = Vec::new();
    let (mut follows, mut by_room) = (false, false);
    for filter in filters {
        follows = true;
        if let Some(subjects) = filter.subjects() {
            // The types are looked at when the entry is taken.
            places.extend(subjects.iter().map(|subject| Place::Subject(Arc::from(&**subject))));
            continue;
        }
        if let Some(room) = filter.room() {
            places.push(Place::Room(Arc::from(room)));
            continue;
        }
        by_room = true;
        places.push(Place::OtherTypes);
        let is_for_everyone = |event_type: &str| registry.get(event_type).is_some_and(Definition::is_for_everyone);
        let types = filter.types().iter().filter(|event_type| *access == Access::All || is_for_everyone(event_type));
        places.extend(types.cloned().map(Place::Type));
    }
    if let Access::Rooms { person, rooms } = access {
        // What lets the caller into further rooms is told in the caller's own.
        let own = std::iter::once(person).filter(|_| follows && !by_room);
        let all = rooms.iter().filter(|room| by_room && ***room != *EVERYONE);
        places.extend(own.chain(all).map(|room| Place::Room(Arc::from(&**room))));
    }
    places
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
    pub(super) fn follow<'a>(&mut self, filters: impl Iterator<Item = &'a Filter>, access: &Access) {
        let mut places = places(filters, access, &self.hub.shared.registry);
        if *places == *self.places {
            return;
        }
        let mut index = self.hub.index();
        index.leave(self.id, &self.places);
        for place in &mut places {
            index.share(place);
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
    pub(super) fn take(&self) -> (Taken, Position) {
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

/// Waits in the hub without a session.
#[derive(Debug)]
pub(crate) struct Waiter {
    member: Member,
    filter: Filter,
    access: Access,
}

impl Waiter {
    /// From now on these are what the caller may see.
    pub(crate) fn set_access(&mut self, access: Access) {
        self.member.follow(std::iter::once(&self.filter), &access);
        self.access = access;
    }

    /// Waits until there may be an entry after `head` that the filter wants, or the caller may see more than before, or
    /// the pod leaves. Whoever made this before it read `head` misses none.
    pub(crate) async fn entry_after(&mut self, head: Position) {
        loop {
            poll_fn(|context| {
                self.member.register(context.waker());
                if self.member.is_due() || self.member.is_draining() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            let Self { member, filter, access } = self;
            let mut concerns = |entry: &Arc<Entry>| {
                // An older one may have come after the caller's rooms were looked up.
                access.grow(entry, &member.hub.shared.registry)
                    || (entry.seq > head.seq && filter.wants(entry) && access.sees(&entry.audience))
            };
            match member.take() {
                (Taken::Entries(entries), _) if !member.is_draining() && !entries.iter().any(&mut concerns) => {}
                (Taken::Entries(_), _) => return,
                (Taken::Behind(_), _) => {
                    member.open();
                    return;
                }
            }
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut index = self.hub.index();
        index.connections.remove(&self.id);
        index.leave(self.id, &self.places);
    }
}
