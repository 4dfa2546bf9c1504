//! Server-sent events: the front for clients that only listen. What it sends is made when the HTTP connection can take
//! it, so a client that does not read costs what is on its way and no more.

use std::convert::Infallible;
use std::future::poll_fn;
use std::task::Poll;

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use tokio::time::{Instant, sleep_until};

use super::close::Close;
use super::encode;
use super::feed::{Due, Feed};
use super::session::Session;
use crate::http::admission::Place;

/// A stream of one subscription.
struct EventStream {
    feed: Feed,
    heartbeat_at: Instant,
    ended: bool,
    _place: Place,
}

/// The body that carries what the session has begun with.
pub fn body(session: Session, place: Place) -> Body {
    // The first heartbeat at once: it opens the stream, and tells where it begins.
    let events = EventStream { feed: Feed::new(session), heartbeat_at: Instant::now(), ended: false, _place: place };
    Body::from_stream(stream::unfold(events, |mut events| async move {
        let bytes = events.next().await?;
        Some((Ok::<_, Infallible>(bytes), events))
    }))
}

impl EventStream {
    /// The next bytes; nothing when the stream is over.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        while out.is_empty() {
            if self.ended {
                return None;
            }
            self.make(&mut out).await;
        }
        Some(Bytes::from(out))
    }

    async fn make(&mut self, out: &mut Vec<u8>) {
        let now = Instant::now();
        self.feed.look_at_the_clock(now);
        if self.feed.session.may_be_revoked() && self.feed.session.is_revoked() {
            self.close(Close::Revoked, out);
        } else if self.feed.is_draining() {
            let delay = self.feed.session.limits.delay_of_return();
            encode::server_sent_retry(delay, out);
            self.ended = true;
        } else if let Some(why) = self.feed.session.is_over(now) {
            self.close(why, out);
        } else if let Some(due) = self.feed.due() {
            match due {
                Due::Inbox => self.feed.take(out),
                Due::Log => self.feed.read_log(out).await,
            }
        } else if now >= self.heartbeat_at {
            self.heartbeat_at = now + self.feed.session.limits.heartbeat;
            self.feed.catch_up_with_inbox(out);
            encode::server_sent_heartbeat(self.feed.position(), out);
        } else {
            self.rest().await;
        }
    }

    fn close(&mut self, why: Close, out: &mut Vec<u8>) {
        encode::server_sent_close(why, self.feed.position(), out);
        self.feed.session.state.metrics.stream.closed(why);
        self.ended = true;
    }

    /// Waits until something is due, or the clock has to be looked at.
    async fn rest(&self) {
        let deadline = self.feed.session.deadline();
        let until = [self.feed.retry_at()].into_iter().flatten().fold(deadline.min(self.heartbeat_at), Instant::min);
        let woken = poll_fn(|context| {
            self.feed.register(context.waker());
            let session = &self.feed.session;
            let concerned = session.may_be_revoked() || self.feed.is_draining() || self.feed.due().is_some();
            if concerned { Poll::Ready(()) } else { Poll::Pending }
        });
        tokio::select! {
            () = woken => {}
            () = sleep_until(until) => {}
        }
    }
}
