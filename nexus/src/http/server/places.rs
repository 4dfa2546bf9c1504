//! The places of a server: how many connections may be open, and which of them is given up for a newcomer. Knows nothing
//! of sockets, never makes anybody wait, and takes no place from a connection that has brought a request.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// The places of this server.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    /// Connections that ever had a place.
    accepted: AtomicU64,
    /// Those that have brought no request, by the order in which they were accepted.
    waiting: Mutex<BTreeMap<u64, Waiting>>,
}

/// Of a connection that has brought no request: whoever takes it out of the map has its place.
#[derive(Debug)]
struct Waiting {
    permit: OwnedSemaphorePermit,
    give_up: oneshot::Sender<()>,
}

/// The place of a connection, until it is dropped or the connection is given up.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    kept: OnceLock<OwnedSemaphorePermit>,
}

/// Tells a connection that its place is another's now; an error when that can no longer happen.
pub(super) type GivenUp = oneshot::Receiver<()>;

impl Places {
    /// So many, all of them free.
    pub(super) fn new(most: usize) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { free, accepted: AtomicU64::default(), waiting: Mutex::default() })
    }

    /// A free place, or that of the connection that has waited longest without a request, which is given up. `None` when
    /// every connection has brought one.
    pub(super) fn enter(self: &Arc<Self>) -> Option<(Arc<Place>, GivenUp)> {
        let free = Arc::clone(&self.free).try_acquire_owned().ok();
        let permit = free.or_else(|| self.give_up_oldest())?;
        let (give_up, told) = oneshot::channel();
        let number = self.accepted.fetch_add(1, Ordering::Relaxed);
        self.waiting().insert(number, Waiting { permit, give_up });
        Some((Arc::new(Place { places: Arc::clone(self), number, kept: OnceLock::new() }), told))
    }

    fn give_up_oldest(&self) -> Option<OwnedSemaphorePermit> {
        let (_, oldest) = self.waiting().pop_first()?;
        // One that has just ended hears nothing any more.
        let _ = oldest.give_up.send(());
        Some(oldest.permit)
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
    /// A request has come: from now on the place is the connection's own. Costs nothing from the second time on.
    pub(super) fn keep(&self) {
        if self.kept.get().is_none()
            && let Some(waiting) = self.places.leave(self.number)
        {
            // It was in the map until now, so nobody else has set it.
            let _ = self.kept.set(waiting.permit);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.kept.get().is_none() {
            self.places.leave(self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Standing {
        Waits,
        Keeps,
        GivenUp,
    }

    /// A connection, and how it should stand.
    struct Connection {
        place: Arc<Place>,
        given_up: GivenUp,
        was_told: bool,
        standing: Standing,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Accept,
        Request(Index),
        End(Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Accept),
            2 => any::<Index>().prop_map(Step::Request),
            1 => any::<Index>().prop_map(Step::End),
        ]
    }

    fn count(open: &[Connection], standing: Standing) -> usize {
        open.iter().filter(|connection| connection.standing == standing).count()
    }

    /// Of `most` places; `open` is in the order of acceptance.
    fn take(step: &Step, places: &Arc<Places>, open: &mut Vec<Connection>, most: usize) {
        match step {
            Step::Accept => {
                let mut has_room = count(open, Standing::Waits) + count(open, Standing::Keeps) < most;
                if !has_room && let Some(oldest) = open.iter_mut().find(|one| one.standing == Standing::Waits) {
                    oldest.standing = Standing::GivenUp;
                    has_room = true;
                }
                let entered = places.enter();
                assert_eq!(entered.is_some(), has_room);
                open.extend(entered.map(|(place, given_up)| Connection {
                    place,
                    given_up,
                    was_told: false,
                    standing: Standing::Waits,
                }));
            }
            Step::Request(_) | Step::End(_) if open.is_empty() => {}
            Step::Request(index) => {
                let connection = index.get_mut(open.as_mut_slice());
                connection.place.keep();
                if connection.standing == Standing::Waits {
                    connection.standing = Standing::Keeps;
                }
            }
            Step::End(index) => drop(open.remove(index.index(open.len()))),
        }
    }

    fn check(places: &Places, open: &mut [Connection], most: usize) {
        let (waiting, kept) = (count(open, Standing::Waits), count(open, Standing::Keeps));
        assert_eq!(places.free.available_permits() + waiting + kept, most);
        assert_eq!(places.waiting().len(), waiting);
        for connection in open {
            connection.was_told |= connection.given_up.try_recv().is_ok();
            assert_eq!(connection.was_told, connection.standing == Standing::GivenUp);
            assert_eq!(connection.place.kept.get().is_some(), connection.standing == Standing::Keeps);
        }
    }

    proptest! {
        #[test]
        fn no_place_is_lost_or_doubled_and_only_the_oldest_without_a_request_is_given_up(
            most in 0_usize..6,
            steps in prop::collection::vec(step(), 0..80),
        ) {
            let places = Places::new(most);
            let mut open = Vec::new();
            for step in &steps {
                take(step, &places, &mut open, most);
                check(&places, &mut open, most);
            }
            drop(open);
            check(&places, &mut [], most);
        }
    }
}
