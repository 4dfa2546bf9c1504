//! What waits to be published. Whoever is free to commit takes all of it at once: one commit then serves many callers.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::event::NewEvent;
use super::publisher::{Publish, Published};
use crate::position::Position;

/// Requests that may wait for a commit; more are told to come back.
const REQUESTS_MAX: usize = 4_096;
/// Bytes of events that may wait, after which no further request may: a small part of the smallest pod's memory.
const WAITING_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Events after which a group takes no further request: one statement stays short.
const GROUP_EVENTS_MAX: usize = 1_000;
/// Bytes of events after which it takes none: as for a batch of the outbox.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

type Reply = oneshot::Sender<Result<Vec<Published>, Publish>>;

#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    grew: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    requests: VecDeque<Request>,
    events: usize,
    bytes: usize,
    closed: bool,
}

#[derive(Debug)]
struct Request {
    events: Vec<NewEvent>,
    reply: Reply,
}

impl Queue {
    /// Adds a request; the answer comes when its events have their places.
    pub(super) fn push(
        &self,
        events: Vec<NewEvent>,
    ) -> Result<oneshot::Receiver<Result<Vec<Published>, Publish>>, Publish> {
        let (reply, answer) = oneshot::channel();
        let mut waiting = self.waiting();
        if waiting.closed {
            return Err(Publish::Stop);
        }
        if waiting.is_full() {
            waiting.forget_the_gone();
        }
        if waiting.is_full() {
            return Err(Publish::FillQueue);
        }
        let request = Request { events, reply };
        waiting.events += request.events.len();
        waiting.bytes += request.bytes();
        waiting.requests.push_back(request);
        drop(waiting);
        self.grew.notify_one();
        Ok(answer)
    }

    /// What waits, in its order, as far as it fits into one statement; an empty group when nothing waits.
    pub(super) fn take(&self) -> Group {
        self.take_large(0)
    }

    /// The same, but an empty group as long as fewer events wait than this.
    pub(super) fn take_large(&self, events_min: usize) -> Group {
        let mut group = Group::default();
        let mut bytes = 0;
        let mut waiting = self.waiting();
        if waiting.events < events_min {
            return group;
        }
        while group.events.len() < GROUP_EVENTS_MAX && bytes < GROUP_BYTES_MAX {
            let Some(request) = waiting.requests.pop_front() else { break };
            waiting.events -= request.events.len();
            waiting.bytes -= request.bytes();
            if request.reply.is_closed() {
                continue;
            }
            bytes += request.bytes();
            group.replies.push((request.events.len(), request.reply));
            group.events.extend(request.events);
        }
        group
    }

    /// How many requests wait, and how many bytes of events.
    pub(super) fn len(&self) -> (usize, usize) {
        let waiting = self.waiting();
        (waiting.requests.len(), waiting.bytes)
    }

    /// Waits until something was pushed since the last call.
    pub(super) async fn grew(&self) {
        self.grew.notified().await;
    }

    /// Refuses further requests; what waits can still be taken.
    pub(super) fn close(&self) {
        self.waiting().closed = true;
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn is_full(&self) -> bool {
        self.requests.len() >= REQUESTS_MAX || self.bytes >= WAITING_BYTES_MAX
    }

    /// Drops requests whose callers have left, or were told that it took too long. They may repeat them.
    fn forget_the_gone(&mut self) {
        self.requests.retain(|request| !request.reply.is_closed());
        self.events = self.requests.iter().map(|request| request.events.len()).sum();
        self.bytes = self.requests.iter().map(Request::bytes).sum();
    }
}

impl Request {
    fn bytes(&self) -> usize {
        self.events.iter().map(NewEvent::encoded_bytes).sum()
    }
}

/// Requests that are committed together.
#[derive(Debug, Default)]
pub(super) struct Group {
    events: Vec<NewEvent>,
    /// How many of the events each request has, and where its answer goes.
    replies: Vec<(usize, Reply)>,
}

impl Group {
    pub(super) fn events(&self) -> &[NewEvent] {
        &self.events
    }

    pub(super) fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    /// Where the log ends with these events after `head`.
    pub(super) fn end(&self, head: Position) -> Position {
        Position { seq: head.seq + i64::try_from(self.events.len()).unwrap_or(i64::MAX), ..head }
    }

    /// Each request as a group of its own.
    pub(super) fn apart(self) -> impl Iterator<Item = Self> {
        let mut events = self.events.into_iter();
        self.replies.into_iter().map(move |(count, reply)| Self {
            events: events.by_ref().take(count).collect(),
            replies: vec![(count, reply)],
        })
    }

    /// Answers every request: each gets its share of the places, or the one error of all.
    pub(super) fn answer(self, published: &Result<Vec<Published>, Publish>) {
        let mut answered = 0;
        for (count, reply) in self.replies {
            let answer = published.as_ref().map(|all| all[answered..answered + count].to_vec());
            answered += count;
            // Nobody waits any more when the client has left.
            let _ = reply.send(answer.map_err(Clone::clone));
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::events::system::{Health, HealthCheck};

    fn events(count: usize) -> Vec<NewEvent> {
        let payload = HealthCheck { component: "a".into(), status: Health::Healthy, latency_milliseconds: None };
        (0..count).map(|_| NewEvent::emit(Uuid::new_v4(), "a", Timestamp::UNIX_EPOCH, &payload)).collect()
    }

    /// An event of about so many bytes.
    fn large(bytes: usize) -> NewEvent {
        let payload = HealthCheck { component: "a".repeat(bytes), status: Health::Healthy, latency_milliseconds: None };
        NewEvent::emit(Uuid::new_v4(), "a", Timestamp::UNIX_EPOCH, &payload)
    }

    fn places(range: std::ops::Range<i64>) -> Vec<Published> {
        range.map(|seq| Published { position: Position { epoch: 1, seq }, duplicate: false }).collect()
    }

    #[test]
    fn every_request_of_a_group_gets_its_own_places() {
        let queue = Queue::default();
        let answers = [2, 1, 3].map(|count| queue.push(events(count)).expect("room"));
        let group = queue.take();
        assert_eq!(group.events().len(), 6);
        assert!(queue.take().is_empty());
        group.answer(&Ok(places(10..16)));
        let answers = answers.map(|mut answer| answer.try_recv().expect("answered").expect("published"));
        assert_eq!(answers, [places(10..12), places(12..13), places(13..16)]);
    }

    #[test]
    fn a_group_taken_apart_answers_each_request_by_itself() {
        let queue = Queue::default();
        let answers = [2, 1].map(|count| queue.push(events(count)).expect("room"));
        for (group, places) in queue.take().apart().zip([places(1..3), places(7..8)]) {
            assert_eq!(group.events().len(), places.len());
            group.answer(&Ok(places));
        }
        let answers = answers.map(|mut answer| answer.try_recv().expect("answered").expect("published"));
        assert_eq!(answers, [places(1..3), places(7..8)]);
    }

    #[test]
    fn a_group_ends_with_the_request_that_fills_it() {
        let queue = Queue::default();
        let waiting = [GROUP_EVENTS_MAX - 1, 2, 1].map(|count| queue.push(events(count)).expect("room"));
        assert_eq!(queue.take().events().len(), GROUP_EVENTS_MAX + 1);
        assert_eq!(queue.take().events().len(), 1);
        drop(waiting);
        let large = large(GROUP_BYTES_MAX / 2 + 1);
        let waiting = [1, 2, 3].map(|_| queue.push(vec![large.clone()]).expect("room"));
        assert_eq!((queue.take().events().len(), queue.take().events().len()), (2, 1));
        drop(waiting);
    }

    #[test]
    fn a_large_group_is_taken_once_so_many_events_wait() {
        let queue = Queue::default();
        let waiting = [2, 3].map(|count| queue.push(events(count)).expect("room"));
        assert!(queue.take_large(6).is_empty());
        let last = queue.push(events(1)).expect("room");
        assert_eq!(queue.take_large(6).events().len(), 6);
        assert!(queue.take_large(1).is_empty(), "what was taken does not count");
        drop((waiting, last));
    }

    #[test]
    fn a_full_queue_refuses_and_a_closed_one_stops() {
        let queue = Queue::default();
        let waiting: Vec<_> = (0..REQUESTS_MAX).map(|_| queue.push(Vec::new()).expect("room")).collect();
        assert!(matches!(queue.push(Vec::new()), Err(Publish::FillQueue)));
        queue.close();
        assert!(matches!(queue.push(Vec::new()), Err(Publish::Stop)));
        assert!(!queue.take().is_empty(), "what waits is still committed");
        drop(waiting);
    }

    #[test]
    fn a_queue_is_full_by_bytes_and_has_room_again_when_callers_leave() {
        let queue = Queue::default();
        let large = large(WAITING_BYTES_MAX / 4);
        let mut waiting: Vec<_> = (0..4).map(|_| queue.push(vec![large.clone()]).expect("room")).collect();
        assert!(matches!(queue.push(events(1)), Err(Publish::FillQueue)));
        waiting.pop();
        let last = queue.push(events(1)).expect("the one that left makes room");
        assert_eq!(queue.len().0, 4);
        waiting.clear();
        assert_eq!(queue.take().events().len(), 1, "for nobody else is waited");
        assert_eq!(queue.len(), (0, 0));
        drop(last);
    }
}
