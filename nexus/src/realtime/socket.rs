//! The WebSocket front of a session: parses no command and decides nothing about events; it moves frames, keeps time and
//! closes. One task per connection, one timer, and no buffer while nothing is under way.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::close::Close;
use super::encode::{self, Encoding};
use super::engine_io::Packet;
use super::engine_io::polling::Upgraded;
use super::feed::{Due, Feed};
use super::metrics::StreamMetrics;
use super::session::Session;
use super::socket_io::client::Client;
use super::transport::Transport;
use super::wire::{self, Message, ReadMessage, Reader};
use crate::http::admission::Place;
use crate::unfinished::Share;

/// How long the closing handshake may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// The close code of a connection that has done its work (RFC 6455, section 7.4.1).
const CODE_NORMAL: u16 = 1000;

/// Bytes that one read takes from the network.
const READ_BYTES: usize = 64 * 1024;

/// While more bytes than this wait for the network, no further command is executed or read.
const WAITING_BYTES_MAX: usize = 64 * 1024;

/// The same of a client that has not shown a token: it is told that it has to.
const WAITING_BYTES_MAX_BEFORE: usize = 4 * 1024;

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
    LookAtRevocations,
    Drain,
    LookAtTheClock,
    Write,
    Read,
    Handle,
    Deliver(Due),
}

struct Connection {
    transport: Transport,
    reader: Reader,
    /// Messages that were read and not yet handled, and what came after them that is none.
    messages: VecDeque<Message>,
    unreadable: Option<ReadMessage>,
    /// The memory for them, and for the beginning of the next one.
    received: Share,
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
    /// Whether a push or an answer was sent since the last heartbeat.
    sent: bool,
    heartbeat_at: Instant,
}

/// Serves one connection to its end. `brought` came with the upgrade; `_place` is held until it ends. What a task is given
/// it has room for as long as it runs: the session comes in memory of its own, and goes from there into the connection.
pub async fn serve(transport: Transport, brought: Bytes, session: Box<Session>, _place: Place) {
    let metrics = session.state.metrics.stream.clone();
    let now = Instant::now();
    let mut connection = Connection {
        transport,
        reader: Reader::default(),
        messages: VecDeque::new(),
        unreadable: None,
        received: session.state.unfinished.strangers.share(),
        waiting: Vec::new(),
        waiting_since: None,
        heard_at: now,
        sent: false,
        heartbeat_at: now + session.limits.heartbeat,
        client: (session.encoding == Encoding::SocketIo).then(Client::default),
        leave_at: None,
        feed: Feed::new(*session),
    };
    connection.begin(&brought);
    // It holds the whole buffer of the request.
    drop(brought);
    let Err(end) = connection.run().await;
    let why = match end {
        // A client that has gone needs no handshake.
        End::Left => return metrics.waits(connection.waiting.len(), 0),
        End::Asked => None,
        End::Close(close) => {
            metrics.closed(close);
            if close == Close::Drain && connection.has_pushes() {
                connection.say_when_to_come_back();
            }
            Some(close)
        }
    };
    // In memory of its own, which a connection needs only at its end.
    let _ = Box::pin(timeout(CLOSE_DEADLINE, connection.close(why))).await;
}

impl Connection {
    /// Takes what came with the upgrade.
    fn begin(&mut self, brought: &Bytes) {
        if self.client.is_some() {
            Client::open(&self.feed.session, &self.transport, &mut self.waiting);
            self.metrics().waits(0, self.waiting.len());
        }
        let bytes_max = self.feed.session.limits.frame_bytes_max;
        self.unreadable = self.reader.read(&mut brought.to_vec(), bytes_max, &mut self.messages).err();
    }

    /// Goes on until the connection ends.
    async fn run(&mut self) -> Result<std::convert::Infallible, End> {
        self.hold_received()?;
        let mut timer = pin!(sleep_until(self.look_at()));
        loop {
            let turn = poll_fn(|context| self.turn(context, timer.as_mut())).await;
            match turn {
                Turn::LookAtRevocations if self.feed.session.is_revoked() => return Err(End::Close(Close::Revoked)),
                Turn::LookAtRevocations => {}
                Turn::Drain if self.has_pushes() => return Err(End::Close(Close::Drain)),
                Turn::Drain => {
                    let delay = Duration::from_millis(self.feed.session.limits.delay_of_return());
                    self.leave_at = Some(Instant::now() + delay);
                }
                Turn::LookAtTheClock => {
                    let heartbeat_at = self.heartbeat_at;
                    self.look_at_the_clock()?;
                    if self.heartbeat_at != heartbeat_at {
                        Box::pin(self.keep()).await;
                    }
                }
                Turn::Write => self.write_waiting()?,
                Turn::Read => {
                    self.read()?;
                    self.hold_received()?;
                }
                // In memory of its own, and only while it runs.
                Turn::Handle => Box::pin(self.handle()).await?,
                Turn::Deliver(Due::Inbox) => self.sent |= self.write(Feed::take)?,
                Turn::Deliver(Due::Log) => {
                    let mut out = Vec::new();
                    Box::pin(self.feed.read_log(&mut out)).await;
                    self.sent |= !out.is_empty();
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
    fn turn(&mut self, context: &mut Context<'_>, timer: Pin<&mut Sleep>) -> Poll<Turn> {
        self.feed.register(context.waker());
        if self.feed.session.may_be_revoked() {
            return Poll::Ready(Turn::LookAtRevocations);
        }
        if self.feed.is_draining() && self.leave_at.is_none() {
            return Poll::Ready(Turn::Drain);
        }
        if timer.poll(context).is_ready() {
            return Poll::Ready(Turn::LookAtTheClock);
        }
        if !self.waiting.is_empty() && self.transport.is_write_ready(context) {
            return Poll::Ready(Turn::Write);
        }
        let is_known = self.feed.session.identity.is_some();
        let keeps_up = self.waiting.len() <= if is_known { WAITING_BYTES_MAX } else { WAITING_BYTES_MAX_BEFORE };
        if keeps_up && (!self.messages.is_empty() || self.unreadable.is_some()) {
            return Poll::Ready(Turn::Handle);
        }
        if (keeps_up || self.transport.reads_to_write()) && self.transport.poll_read_ready(context).is_ready() {
            return Poll::Ready(Turn::Read);
        }
        // Nothing is made for a client that has not taken what there is: it waits in the log.
        match self.feed.due().filter(|_| self.waiting.is_empty()) {
            Some(due) => Poll::Ready(Turn::Deliver(due)),
            None => Poll::Pending,
        }
    }

    /// Whether the client speaks our own protocol, which has forms for what is no event.
    fn has_pushes(&self) -> bool {
        self.feed.session.encoding == Encoding::WebSocket
    }

    /// When the clock has to be looked at.
    fn look_at(&self) -> Instant {
        let deadline = self.feed.session.deadline();
        let slow = self.waiting_since.map(|since| since + self.feed.session.limits.send);
        [Some(deadline), slow, self.feed.retry_at(), self.leave_at, self.transport.until()]
            .into_iter()
            .flatten()
            .fold(self.heartbeat_at, Instant::min)
    }

    fn look_at_the_clock(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if let Some(why) = self.feed.session.is_over(now) {
            return Err(End::Close(why));
        }
        if self.leave_at.is_some_and(|at| now >= at) {
            return Err(End::Close(Close::Drain));
        }
        if self.waiting_since.is_some_and(|since| now >= since + self.feed.session.limits.send) {
            return Err(End::Close(Close::PeerSlow));
        }
        self.feed.look_at_the_clock(now);
        self.transport.look_at_the_clock(now);
        if now >= self.heartbeat_at {
            self.heartbeat_at = now + self.feed.session.limits.heartbeat;
            self.heartbeat(now)?;
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), End> {
        let bytes_max = self.feed.session.limits.frame_bytes_max;
        let stream = match &mut self.transport {
            Transport::Socket(stream) => stream,
            Transport::Polling(polling) => {
                self.heard_at = Instant::now();
                let read = polling.read(bytes_max, !self.waiting.is_empty(), &mut self.messages);
                if let Some(Upgraded { stream, reader, messages }) = read.map_err(End::Close)? {
                    self.reader = reader;
                    self.messages.extend(messages);
                    // The requests of before have nothing more to find.
                    self.transport = Transport::Socket(stream);
                }
                return Ok(());
            }
        };
        BROUGHT.with_borrow_mut(|brought| match stream.try_read(brought) {
            Ok(0) => Err(End::Left),
            Ok(count) => {
                self.heard_at = Instant::now();
                self.unreadable = self.reader.read(&mut brought[..count], bytes_max, &mut self.messages).err();
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(_gone) => Err(End::Left),
        })
    }

    /// Takes memory for what was read.
    fn hold_received(&mut self) -> Result<(), End> {
        let Session { state, identity, .. } = &self.feed.session;
        let memory = if identity.is_some() { &state.unfinished.callers } else { &state.unfinished.strangers };
        let bytes = self.reader.bytes() + wire::bytes_of(&self.messages) + self.transport.unfinished_bytes();
        let is_held = self.received.hold_of(memory, bytes);
        if is_held { Ok(()) } else { Err(End::Close(Close::Overload)) }
    }

    /// Handles one message, so that the client's next ones wait until its answer has gone and the clock was looked at.
    async fn handle(&mut self) -> Result<(), End> {
        tokio::task::consume_budget().await;
        let message = self.messages.pop_front();
        let handled = self.handle_message(message).await;
        if self.messages.is_empty() {
            // Given back: most connections never need it again.
            self.messages = VecDeque::new();
            self.transport.handled();
            self.hold_received()?;
        }
        handled
    }

    async fn handle_message(&mut self, message: Option<Message>) -> Result<(), End> {
        match message {
            // As a client that polls ends its session.
            Some(Message::Text(text)) if self.client.is_some() && Packet::read(&text) == Ok(Packet::Close) => {
                Err(End::Asked)
            }
            Some(Message::Text(text)) => self.execute(&text).await,
            Some(Message::Ping(payload)) => self.write(|_, out| wire::pong(&payload, out)).map(drop),
            Some(Message::Pong) => Ok(()),
            Some(Message::Close) => Err(End::Asked),
            None => Err(End::Close(match self.unreadable.take() {
                Some(ReadMessage::Binary) => Close::BinaryFrame,
                Some(ReadMessage::Text) => Close::InvalidText,
                Some(ReadMessage::TooLarge) => Close::FrameTooLarge,
                Some(ReadMessage::Protocol) | None => Close::UnreadableFrame,
            })),
        }
    }

    /// Commands of one connection run one after the other: the answer is the bound on them.
    async fn execute(&mut self, text: &str) -> Result<(), End> {
        self.sent = true;
        let mut out = Vec::new();
        let outcome = match &mut self.client {
            Some(client) => client.receive(&mut self.feed, text, &mut out).await,
            None => self.feed.execute(text, &mut out).await.map_or(Ok(()), Err),
        };
        self.put(&out)?;
        outcome.map_err(End::Close)
    }

    /// Keeps what could not be kept when it changed, for a client that may come back.
    async fn keep(&mut self) {
        if let Some(client) = &mut self.client {
            client.keep_again(&self.feed.session).await;
        }
    }

    fn heartbeat(&mut self, now: Instant) -> Result<(), End> {
        let period = self.feed.session.limits.heartbeat;
        if now.duration_since(self.heard_at) >= period * 2 {
            return Err(End::Close(Close::PeerSilent));
        }
        let idle = !std::mem::take(&mut self.sent) && self.feed.session.identity.is_some() && self.has_pushes();
        let unread = !self.waiting.is_empty();
        if self.client.is_some() {
            return self.write(|_, out| Client::ping(out)).map(drop);
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
        .map(drop)
    }

    /// Every client comes back at a time of its own, so that the other pods do not get all of them in one moment.
    fn say_when_to_come_back(&mut self) {
        let delay = self.feed.session.limits.delay_of_return();
        // After what waits: whoever reads it has everything up to this position.
        let before = self.waiting.len();
        wire::text_message(&encode::drain(delay, self.feed.position()), &mut self.waiting);
        self.metrics().waits(before, self.waiting.len());
    }

    /// Sends what waits and a close, and reads until the client has closed too: if something of it were left unread, the
    /// network would take back what we have just sent.
    async fn close(self, why: Option<Close>) {
        self.metrics().waits(self.waiting.len(), 0);
        // Nobody handles it any more.
        drop((self.reader, self.messages));
        let mut waiting = self.waiting;
        let mut stream = match self.transport {
            Transport::Socket(stream) => stream,
            Transport::Polling(polling) => return polling.close(&mut waiting, why.is_none()).await,
        };
        let (code, reason) = why.map_or((CODE_NORMAL, ""), |close| (close.code(), close.reason()));
        wire::close(code, reason, &mut waiting);
        if stream.write_all(&waiting).await.is_err() || stream.shutdown().await.is_err() {
            return;
        }
        let mut unread = [0; 1024];
        while let Ok(1..) = stream.read(&mut unread).await {}
    }

    /// Gives the network what is made of the feed; whether anything was.
    fn write(&mut self, make: impl FnOnce(&mut Feed, &mut Vec<u8>)) -> Result<bool, End> {
        ABOUT.with_borrow_mut(|out| {
            out.clear();
            make(&mut self.feed, out);
            let put = self.put(out).map(|()| !out.is_empty());
            out.shrink_to(READ_BYTES);
            put
        })
    }

    /// Gives the bytes to the network; what it does not take waits.
    fn put(&mut self, bytes: &[u8]) -> Result<(), End> {
        if bytes.is_empty() {
            return Ok(());
        }
        let offered = if self.waiting.is_empty() { self.transport.offer(bytes) } else { Ok(0) };
        let taken = offered.map_err(|_gone| End::Left)?;
        if taken < bytes.len() {
            let before = self.waiting.len();
            self.waiting.extend_from_slice(&bytes[taken..]);
            self.metrics().waits(before, self.waiting.len());
            self.waiting_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    fn write_waiting(&mut self) -> Result<(), End> {
        let taken = self.transport.offer(&self.waiting).map_err(|_gone| End::Left)?;
        self.metrics().waits(taken, 0);
        if taken > 0 {
            // It reads. Its pongs may stand behind commands that wait.
            self.heard_at = Instant::now();
        }
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

    fn metrics(&self) -> &StreamMetrics {
        &self.feed.session.state.metrics.stream
    }
}
