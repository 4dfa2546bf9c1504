//! The WebSocket front of a session: parses no command and decides nothing about events; it moves frames, keeps time and
//! closes. One task per connection, one timer, and no buffer while nothing is under way.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::close::Close;
use super::encode::{self, Encoding};
use super::feed::{Due, Feed};
use super::metrics::Counted;
use super::session::Session;
use super::socket_io::client::Client;
use super::wire::{self, Message, ReadMessage, Reader};

/// How long the closing handshake may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// The close code of a connection that has done its work (RFC 6455, section 7.4.1).
const CODE_NORMAL: u16 = 1000;

/// Bytes that one read takes from the network.
const READ_BYTES: usize = 64 * 1024;

/// While more bytes than this wait for the network, no further command is read.
const WAITING_BYTES_MAX: usize = 64 * 1024;

thread_local! {
    /// What one read brought. Shared by all connections of a thread, for none keeps anything in it.
    static BROUGHT: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
    /// What is about to be written, likewise.
    static ABOUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Why a connection ends.
enum End {
    /// The client has left, or the network has.
    Left,
    /// The client closes, and waits for our answer.
    Asked,
    /// The server closes it.
    Close(Close),
}

/// What a connection does next.
enum Turn {
    Drain,
    LookAtTheClock,
    Write,
    Read,
    Deliver(Due),
}

struct Connection {
    stream: TcpStream,
    reader: Reader,
    feed: Feed,
    /// What a client of Socket.IO is to us beside its session; none for a client of our own protocol.
    client: Option<Client>,
    /// When a client that cannot be told when to come back is let go, so that not all of them come back at once.
    leave_at: Option<Instant>,
    /// What the network has not taken yet, and since when it takes nothing.
    waiting: Vec<u8>,
    waiting_since: Option<Instant>,
    /// When the client was last heard of.
    heard_at: Instant,
    /// When anything was last sent.
    sent_at: Instant,
    heartbeat_at: Instant,
}

/// Serves one connection to its end. `brought` came with the upgrade; `_place` is held until it ends.
pub async fn serve(stream: TcpStream, brought: Bytes, session: Session, _place: Counted) {
    let metrics = session.state.metrics.stream.clone();
    let now = Instant::now();
    let mut connection = Connection {
        stream,
        reader: Reader::default(),
        waiting: Vec::new(),
        waiting_since: None,
        heard_at: now,
        sent_at: now,
        heartbeat_at: now + session.limits.heartbeat,
        client: (session.encoding == Encoding::SocketIo).then(Client::default),
        leave_at: None,
        feed: Feed::new(session),
    };
    let end = match connection.begin(brought).await {
        Ok(()) => {
            let Err(end) = connection.run().await;
            end
        }
        Err(end) => end,
    };
    let (code, reason) = match end {
        // A client that has gone needs no handshake.
        End::Left => return,
        End::Asked => (CODE_NORMAL, ""),
        End::Close(close) => {
            metrics.closed(close);
            if close == Close::Drain && connection.client.is_none() {
                connection.say_when_to_come_back();
            }
            (close.code(), close.reason())
        }
    };
    // In memory of its own, which a connection needs only at its end.
    let _ = Box::pin(timeout(CLOSE_DEADLINE, connection.close(code, reason))).await;
}

impl Connection {
    /// Takes what came with the upgrade, and lets go of the buffer that it lies in.
    async fn begin(&mut self, brought: Bytes) -> Result<(), End> {
        let mut bytes = brought.to_vec();
        drop(brought);
        if self.client.is_some() {
            self.write(|feed, out| Client::open(&feed.session, out))?;
        }
        let mut messages = Vec::new();
        let outcome = self.reader.read(&mut bytes, self.feed.session.limits.frame_bytes_max, &mut messages);
        Box::pin(self.handle(messages, outcome)).await
    }

    /// Goes on until the connection ends.
    async fn run(&mut self) -> Result<std::convert::Infallible, End> {
        let mut timer = pin!(sleep_until(self.look_at()));
        loop {
            let turn = poll_fn(|context| self.turn(context, timer.as_mut())).await;
            match turn {
                Turn::Drain if self.client.is_none() => return Err(End::Close(Close::Drain)),
                Turn::Drain => {
                    let delay = Duration::from_millis(self.feed.session.limits.delay_of_return());
                    self.leave_at = Some(Instant::now() + delay);
                }
                Turn::LookAtTheClock => self.look_at_the_clock()?,
                Turn::Write => self.write_waiting()?,
                // In memory of its own, and only while it runs.
                Turn::Read => Box::pin(self.read()).await?,
                Turn::Deliver(Due::Inbox) => self.write(Feed::take)?,
                Turn::Deliver(Due::Log) => {
                    let mut out = Vec::new();
                    Box::pin(self.feed.read_log(&mut out)).await;
                    self.put(&out)?;
                }
            }
            let look_at = self.look_at();
            // A time that has moved away is found out when the timer ends.
            if look_at < timer.deadline() || matches!(turn, Turn::LookAtTheClock) {
                timer.as_mut().reset(look_at);
            }
        }
    }

    /// In order of precedence: what ends the connection, what was begun, what the client wants, then deliveries, of
    /// which there may always be more.
    fn turn(&self, context: &mut Context<'_>, timer: Pin<&mut Sleep>) -> Poll<Turn> {
        self.feed.register(context.waker());
        if self.feed.is_draining() && self.leave_at.is_none() {
            return Poll::Ready(Turn::Drain);
        }
        if timer.poll(context).is_ready() {
            return Poll::Ready(Turn::LookAtTheClock);
        }
        if !self.waiting.is_empty() && self.stream.poll_write_ready(context).is_ready() {
            return Poll::Ready(Turn::Write);
        }
        if self.waiting.len() <= WAITING_BYTES_MAX && self.stream.poll_read_ready(context).is_ready() {
            return Poll::Ready(Turn::Read);
        }
        // Nothing is made for a client that has not taken what there is: it waits in the log.
        match self.feed.due().filter(|_| self.waiting.is_empty()) {
            Some(due) => Poll::Ready(Turn::Deliver(due)),
            None => Poll::Pending,
        }
    }

    /// When the clock has to be looked at.
    fn look_at(&self) -> Instant {
        let (deadline, _) = self.feed.session.deadline();
        let slow = self.waiting_since.map(|since| since + self.feed.session.limits.send);
        [Some(deadline), slow, self.feed.retry_at(), self.leave_at]
            .into_iter()
            .flatten()
            .fold(self.heartbeat_at, Instant::min)
    }

    fn look_at_the_clock(&mut self) -> Result<(), End> {
        let now = Instant::now();
        let (deadline, late) = self.feed.session.deadline();
        if now >= deadline {
            return Err(End::Close(late));
        }
        if self.leave_at.is_some_and(|at| now >= at) {
            return Err(End::Close(Close::Drain));
        }
        if self.waiting_since.is_some_and(|since| now >= since + self.feed.session.limits.send) {
            return Err(End::Close(Close::PeerSlow));
        }
        self.feed.look_at_the_clock(now);
        if now >= self.heartbeat_at {
            self.heartbeat_at = now + self.feed.session.limits.heartbeat;
            self.heartbeat(now)?;
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<(), End> {
        let mut messages = Vec::new();
        let bytes_max = self.feed.session.limits.frame_bytes_max;
        let outcome = BROUGHT.with_borrow_mut(|brought| match self.stream.try_read(brought) {
            Ok(0) => Err(End::Left),
            Ok(count) => Ok(self.reader.read(&mut brought[..count], bytes_max, &mut messages)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Ok(())),
            Err(_gone) => Err(End::Left),
        })?;
        self.handle(messages, outcome).await
    }

    async fn handle(&mut self, messages: Vec<Message>, outcome: Result<(), ReadMessage>) -> Result<(), End> {
        self.heard_at = Instant::now();
        for message in messages {
            match message {
                Message::Text(text) => self.execute(&text).await?,
                Message::Ping(payload) => self.write(|_, out| wire::pong(&payload, out))?,
                Message::Pong => {}
                Message::Close => return Err(End::Asked),
            }
        }
        outcome.map_err(|error| {
            End::Close(match error {
                ReadMessage::Protocol => Close::UnreadableFrame,
                ReadMessage::Binary => Close::BinaryFrame,
                ReadMessage::Text => Close::InvalidText,
                ReadMessage::TooLarge => Close::FrameTooLarge,
            })
        })
    }

    /// Commands of one connection run one after the other: the answer is the bound on them.
    async fn execute(&mut self, text: &str) -> Result<(), End> {
        let mut out = Vec::new();
        let outcome = match &mut self.client {
            Some(client) => client.receive(&mut self.feed, text, &mut out).await,
            None => self.feed.execute(text, &mut out).await.map_or(Ok(()), Err),
        };
        self.put(&out)?;
        outcome.map_err(End::Close)
    }

    fn heartbeat(&mut self, now: Instant) -> Result<(), End> {
        let period = self.feed.session.limits.heartbeat;
        if now.duration_since(self.heard_at) >= period * 2 {
            return Err(End::Close(Close::PeerSilent));
        }
        let idle = now.duration_since(self.sent_at) >= period && self.feed.session.identity.is_some();
        let unread = !self.waiting.is_empty();
        if self.client.is_some() {
            return self.write(|_, out| Client::ping(out));
        }
        self.write(|feed, out| {
            if !unread {
                // The position moves with what others get, too.
                feed.catch_up_with_inbox(out);
            }
            if idle {
                wire::text_message(&encode::heartbeat(feed.position()), out);
            }
            wire::ping(out);
        })
    }

    /// Every client comes back at a time of its own, so that the other pods do not get all of them in one moment.
    fn say_when_to_come_back(&mut self) {
        let delay = self.feed.session.limits.delay_of_return();
        // After what waits: whoever reads it has everything up to this position.
        wire::text_message(&encode::drain(delay, self.feed.position()), &mut self.waiting);
    }

    /// Sends what waits and a close, and reads until the client has closed too: if something of it were left unread, the
    /// network would take back what we have just sent.
    async fn close(&mut self, code: u16, reason: &str) {
        wire::close(code, reason, &mut self.waiting);
        let waiting = std::mem::take(&mut self.waiting);
        if self.stream.write_all(&waiting).await.is_err() || self.stream.shutdown().await.is_err() {
            return;
        }
        let mut unread = [0; 1024];
        while let Ok(1..) = self.stream.read(&mut unread).await {}
    }

    /// Gives the network what is made of the feed.
    fn write(&mut self, make: impl FnOnce(&mut Feed, &mut Vec<u8>)) -> Result<(), End> {
        ABOUT.with_borrow_mut(|out| {
            out.clear();
            make(&mut self.feed, out);
            self.put(out)
        })
    }

    /// Gives the bytes to the network; what it does not take waits.
    fn put(&mut self, bytes: &[u8]) -> Result<(), End> {
        if bytes.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        self.sent_at = now;
        let taken = if self.waiting.is_empty() { self.offer(bytes)? } else { 0 };
        if taken < bytes.len() {
            self.waiting.extend_from_slice(&bytes[taken..]);
            self.waiting_since.get_or_insert(now);
        }
        Ok(())
    }

    fn write_waiting(&mut self) -> Result<(), End> {
        let taken = self.offer(&self.waiting)?;
        if taken == self.waiting.len() {
            // Given back: most connections never need it again.
            self.waiting = Vec::new();
            self.waiting_since = None;
        } else if taken > 0 {
            self.waiting.drain(..taken);
            self.waiting_since = Some(Instant::now());
        }
        Ok(())
    }

    /// How much of the bytes the network takes now.
    fn offer(&self, bytes: &[u8]) -> Result<usize, End> {
        match self.stream.try_write(bytes) {
            Ok(count) => Ok(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(_gone) => Err(End::Left),
        }
    }
}
