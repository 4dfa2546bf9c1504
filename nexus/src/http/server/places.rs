//! The places of a server: how many connections may be open, and which of them is given up for a newcomer. Knows nothing
//! of sockets, never makes anybody wait, and takes no place from a connection whose request is under way.

use std::collections::BTreeMap;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// The places of this server.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    /// How often a connection began to wait for a request.
    waits: AtomicU64,
    /// Those that wait for one, by the order in which they began to.
    waiting: Mutex<BTreeMap<u64, Waiting>>,
}

/// Of a connection that waits for a request: whoever takes it out of the map has its place.
#[derive(Debug)]
struct Waiting {
    permit: OwnedSemaphorePermit,
    given_up: CancellationToken,
}

/// The place of a connection, until it is dropped or the connection is given up.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    standing: Mutex<Standing>,
    given_up: CancellationToken,
}

#[derive(Debug)]
enum Standing {
    /// By this number, unless it was given up meanwhile.
    Waits(u64),
    Keeps(OwnedSemaphorePermit),
    GivenUp,
}

/// A request that is under way: its connection keeps its place meanwhile.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Place>);

impl Places {
    /// So many, all of them free.
    pub(super) fn new(most: usize) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { free, waits: AtomicU64::default(), waiting: Mutex::default() })
    }

    /// A free place, or that of the connection that has waited longest for a request, which is given up. `None` when every
    /// connection has one under way.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Arc<Place>> {
        let free = Arc::clone(&self.free).try_acquire_owned().ok();
        let permit = free.or_else(|| self.give_up_oldest())?;
        let given_up = CancellationToken::new();
        let standing = Mutex::new(self.wait(permit, given_up.clone()));
        Some(Arc::new(Place { places: Arc::clone(self), standing, given_up }))
    }

    fn give_up_oldest(&self) -> Option<OwnedSemaphorePermit> {
        let (_, oldest) = self.waiting().pop_first()?;
        oldest.given_up.cancel();
        Some(oldest.permit)
    }

    fn wait(&self, permit: OwnedSemaphorePermit, given_up: CancellationToken) -> Standing {
        let number = self.waits.fetch_add(1, Ordering::Relaxed);
        self.waiting().insert(number, Waiting { permit, given_up });
        Standing::Waits(number)
    }

    fn leave(&self, number: u64) -> Option<Waiting> {
        self.waiting().remove(&number)
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, Waiting>> {
        // Each change is a single one.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// A request has come: until it is answered the place is the connection's own.
    pub(super) fn request(self: &Arc<Self>) -> UnderWay {
        let mut standing = self.standing();
        if let Standing::Waits(number) = *standing {
            let waiting = self.places.leave(number);
            *standing = waiting.map_or(Standing::GivenUp, |waiting| Standing::Keeps(waiting.permit));
        }
        drop(standing);
        UnderWay(Arc::clone(self))
    }

    /// Ends when the place is another connection's.
    pub(super) async fn given_up(&self) {
        self.given_up.cancelled().await;
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Self(place) = self;
        let mut standing = place.standing();
        if let Standing::Keeps(permit) = mem::replace(&mut *standing, Standing::GivenUp) {
            *standing = place.places.wait(permit, place.given_up.clone());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Standing::Waits(number) = *self.standing() {
            self.places.leave(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Stands {
        Waits,
        Keeps,
        GivenUp,
    }

    /// A connection, and how it should stand.
    struct Connection {
        place: Arc<Place>,
        under_way: Option<UnderWay>,
        standing: Stands,
        /// Counts from when it began to wait.
        since: usize,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Accept,
        Request(Index),
        Answer(Index),
        End(Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Accept),
            3 => any::<Index>().prop_map(Step::Request),
            2 => any::<Index>().prop_map(Step::Answer),
            1 => any::<Index>().prop_map(Step::End),
        ]
    }

    fn count(open: &[Connection], stands: Stands) -> usize {
        open.iter().filter(|connection| connection.standing == stands).count()
    }

    /// Of `most` places, at the time `now`.
    fn take(step: &Step, now: usize, places: &Arc<Places>, open: &mut Vec<Connection>, most: usize) {
        match step {
            Step::Accept => {
                let mut has_room = count(open, Stands::Waits) + count(open, Stands::Keeps) < most;
                let waiting = open.iter_mut().filter(|one| one.standing == Stands::Waits);
                if !has_room && let Some(oldest) = waiting.min_by_key(|one| one.since) {
                    oldest.standing = Stands::GivenUp;
                    has_room = true;
                }
                let entered = places.enter();
                assert_eq!(entered.is_some(), has_room);
                let connection = |place| Connection { place, under_way: None, standing: Stands::Waits, since: now };
                open.extend(entered.map(connection));
            }
            Step::Request(_) | Step::Answer(_) | Step::End(_) if open.is_empty() => {}
            Step::Request(index) => {
                let connection = index.get_mut(open.as_mut_slice());
                // One that was given up may have brought one at the same moment.
                if connection.under_way.is_none() {
                    connection.under_way = Some(connection.place.request());
                    if connection.standing == Stands::Waits {
                        connection.standing = Stands::Keeps;
                    }
                }
            }
            Step::Answer(index) => {
                let connection = index.get_mut(open.as_mut_slice());
                if connection.under_way.take().is_some() && connection.standing == Stands::Keeps {
                    (connection.standing, connection.since) = (Stands::Waits, now);
                }
            }
            Step::End(index) => drop(open.remove(index.index(open.len()))),
        }
    }

    fn check(places: &Places, open: &[Connection], most: usize) {
        let (waiting, kept) = (count(open, Stands::Waits), count(open, Stands::Keeps));
        assert_eq!(places.free.available_permits() + waiting + kept, most);
        assert_eq!(places.waiting().len(), waiting);
        for connection in open {
            assert_eq!(connection.place.given_up.is_cancelled(), connection.standing == Stands::GivenUp);
            let keeps = matches!(*connection.place.standing(), Standing::Keeps(_));
            assert_eq!(keeps, connection.standing == Stands::Keeps);
        }
    }

    proptest! {
        #[test]
        fn no_place_is_lost_or_doubled_and_only_who_has_waited_longest_for_a_request_is_given_up(
            most in 0_usize..6,
            steps in prop::collection::vec(step(), 0..80),
        ) {
            let places = Places::new(most);
            let mut open = Vec::new();
            for (now, step) in steps.iter().enumerate() {
                take(step, now, &places, &mut open, most);
                check(&places, &open, most);
            }
            drop(open);
            check(&places, &[], most);
        }
    }
}
