//! The WebSocket front of a session: parses nothing and decides nothing about events; it
//! moves frames, keeps time and closes. One task, and one stretch in memory, per connection.

use std::future::ready;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures::SinkExt;
use rand::RngExt;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

use super::close::Close;
use super::delivery::{Content, Push, Stretch};
use super::encode;
use super::session::Session;
use crate::chain::Chain;
use crate::position::Position;

/// How long the closing handshake may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// Pause before the log is read again after it could not be.
const RETRY: Duration = Duration::from_secs(1);

/// Why a connection ends.
enum End {
    /// The client has left, or the network has.
    Left,
    /// The server closes it.
    Close(Close),
}

struct Connection {
    socket: WebSocket,
    session: Session,
    /// When the client was last heard of.
    heard_at: Instant,
    /// When anything was last sent.
    sent_at: Instant,
    /// While a stretch is being sent: the position before it.
    sending_after: Option<Position>,
    caught_up: bool,
    live: bool,
    retry_at: Option<Instant>,
}

/// Serves one connection to its end.
pub async fn serve(socket: WebSocket, session: Session) {
    let now = Instant::now();
    let mut connection = Connection {
        socket,
        session,
        heard_at: now,
        sent_at: now,
        sending_after: None,
        caught_up: true,
        live: true,
        retry_at: None,
    };
    let metrics = connection.session.state.metrics.stream.clone();
    let _counted = metrics.count_connection();
    if let Err(End::Close(close)) = connection.run().await {
        metrics.closed(close);
        // A client that has gone by now needs no handshake.
        let _ = timeout(CLOSE_DEADLINE, connection.close(close)).await;
    }
}

impl Connection {
    async fn run(&mut self) -> Result<std::convert::Infallible, End> {
        let draining = self.session.state.draining.clone();
        let mut moved = self.session.state.tail.subscribe();
        let period = self.session.limits.heartbeat;
        let mut heartbeat = interval_at(Instant::now() + period, period);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (deadline, late) = self.session.deadline();
            let retry_at = self.retry_at;
            // In order of precedence: what ends the connection, what the client wants, then
            // deliveries, of which there may always be more.
            tokio::select! {
                biased;
                () = draining.cancelled() => return Err(End::Close(Close::Drain)),
                () = sleep_until(deadline) => return Err(End::Close(late)),
                received = self.socket.recv() => self.receive(received).await?,
                _ = heartbeat.tick() => self.heartbeat().await?,
                () = pause(retry_at), if retry_at.is_some() => self.retry_at = None,
                Ok(()) = moved.changed(), if self.caught_up => self.caught_up = false,
                () = ready(()), if !self.caught_up && retry_at.is_none() => self.deliver().await?,
            }
        }
    }

    async fn receive(&mut self, received: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        self.heard_at = Instant::now();
        match received {
            Some(Ok(Message::Text(text))) if text.len() > self.session.limits.frame_bytes_max => {
                Err(End::Close(Close::FrameTooLarge))
            }
            Some(Ok(Message::Text(text))) => self.execute(&text).await,
            Some(Ok(Message::Binary(_))) => Err(End::Close(Close::BinaryFrame)),
            // The WebSocket layer answers pings by itself.
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
            Some(Ok(Message::Close(_))) | None => Err(End::Left),
            Some(Err(_)) => Err(End::Close(Close::UnreadableFrame)),
        }
    }

    /// Commands of one connection run one after the other: the answer is the bound on them.
    async fn execute(&mut self, text: &str) -> Result<(), End> {
        let reply = self.session.execute(text).await;
        self.feed(reply.frame).await?;
        self.flush().await?;
        // A subscription may have been added that has something to read.
        self.caught_up = false;
        self.live = self.session.position() >= self.session.state.tail.position();
        match reply.close {
            Some(close) => Err(End::Close(close)),
            None => Ok(()),
        }
    }

    /// Sends the next stretch of the log, at the pace of the client.
    async fn deliver(&mut self) -> Result<(), End> {
        self.sending_after = Some(self.session.position());
        let Stretch { pushes, caught_up } = match self.session.next_stretch(self.live).await {
            Ok(stretch) => stretch,
            Err(error) => {
                // Nothing is skipped: the same stretch is read again.
                tracing::warn!(error = %Chain(&error), "a connection cannot read the log");
                self.retry_at = Some(Instant::now() + RETRY);
                return Ok(());
            }
        };
        let contents: Vec<Content> = pushes.iter().map(|push| push.content).collect();
        for Push { frame, .. } in pushes {
            self.feed(frame).await?;
        }
        self.flush().await?;
        self.sending_after = None;
        self.caught_up = caught_up;
        self.live |= caught_up;
        self.session.state.metrics.stream.sent(&contents);
        Ok(())
    }

    async fn heartbeat(&mut self) -> Result<(), End> {
        let period = self.session.limits.heartbeat;
        if self.heard_at.elapsed() >= period * 2 {
            return Err(End::Close(Close::PeerSilent));
        }
        let idle = self.sent_at.elapsed() >= period;
        if idle && self.session.identity.is_some() {
            self.feed(encode::heartbeat(self.session.position())).await?;
        }
        self.send(Message::Ping(axum::body::Bytes::new())).await?;
        self.flush().await
    }

    /// Everything up to here has reached the socket.
    fn position(&self) -> Position {
        self.sending_after.unwrap_or_else(|| self.session.position())
    }

    async fn close(&mut self, close: Close) {
        if close == Close::Drain {
            let window = u64::try_from(self.session.limits.drain.as_millis()).unwrap_or(u64::MAX);
            // Spread, so that the other pods do not get all of them in one moment.
            let delay = rand::rng().random_range(0..=window);
            let _ = self.socket.feed(text(encode::drain(delay, self.position()))).await;
        }
        let frame = CloseFrame { code: close.code(), reason: Utf8Bytes::from_static(close.reason()) };
        let _ = self.socket.send(Message::Close(Some(frame))).await;
        while let Some(Ok(_)) = self.socket.recv().await {}
    }

    async fn feed(&mut self, frame: String) -> Result<(), End> {
        self.sent_at = Instant::now();
        self.send(text(frame)).await
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        let (deadline, late) = self.session.deadline();
        let draining = self.session.state.draining.clone();
        let sent = timeout(self.session.limits.send, self.socket.feed(message));
        tokio::select! {
            // First, so that a frame which the socket takes at once costs no timer.
            biased;
            sent = sent => judge(sent),
            () = sleep_until(deadline) => Err(End::Close(late)),
            () = draining.cancelled() => Err(End::Close(Close::Drain)),
        }
    }

    async fn flush(&mut self) -> Result<(), End> {
        let (deadline, late) = self.session.deadline();
        let draining = self.session.state.draining.clone();
        let flushed = timeout(self.session.limits.send, self.socket.flush());
        tokio::select! {
            biased;
            flushed = flushed => judge(flushed),
            () = sleep_until(deadline) => Err(End::Close(late)),
            () = draining.cancelled() => Err(End::Close(Close::Drain)),
        }
    }
}

fn judge(sent: Result<Result<(), axum::Error>, tokio::time::error::Elapsed>) -> Result<(), End> {
    match sent {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_gone)) => Err(End::Left),
        Err(_late) => Err(End::Close(Close::PeerSlow)),
    }
}

async fn pause(until: Option<Instant>) {
    if let Some(until) = until {
        sleep_until(until).await;
    }
}

fn text(frame: String) -> Message {
    Message::Text(Utf8Bytes::from(frame))
}
