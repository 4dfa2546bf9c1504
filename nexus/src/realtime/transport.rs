//! What carries a connection: the WebSocket that it is, or the requests of a client that polls.

use std::io;
use std::task::{Context, Poll};

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::engine_io::polling::Polling;
use super::engine_io::sessions::Listed;

/// The way to one client.
#[derive(Debug)]
pub enum Transport {
    /// A WebSocket; frames go over it as they are.
    Socket(TcpStream),
    /// Long polls of Engine.IO.
    Polling(Box<Polling>),
}

impl Transport {
    /// The requests of a client that polls.
    pub(crate) fn polling(listed: Listed) -> Self {
        Self::Polling(Box::new(Polling::new(listed)))
    }

    pub(super) fn poll_read_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Socket(stream) => stream.poll_read_ready(context).map(drop),
            Self::Polling(polling) => polling.poll_read_ready(context),
        }
    }

    /// Whether something can be written now. A client that polls makes itself heard when it can take something.
    pub(super) fn is_write_ready(&self, context: &mut Context<'_>) -> bool {
        match self {
            Self::Socket(stream) => stream.poll_write_ready(context).is_ready(),
            Self::Polling(polling) => polling.is_write_ready(),
        }
    }

    /// How many of the bytes, which are whole frames for a client that polls, the client's side takes now.
    pub(super) fn offer(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Socket(stream) => match stream.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
                written => written,
            },
            Self::Polling(polling) => Ok(if polling.offer(bytes) { bytes.len() } else { 0 }),
        }
    }

    /// Whether commands may be read even while much waits to be sent: a poll is what takes it.
    pub(super) fn reads_to_write(&self) -> bool {
        matches!(self, Self::Polling(_))
    }

    /// What it keeps of what the client has sent, in bytes.
    pub(super) fn unfinished_bytes(&self) -> usize {
        match self {
            Self::Socket(_) => 0,
            Self::Polling(polling) => polling.unfinished_bytes(),
        }
    }

    /// When the clock has to be looked at.
    pub(super) fn until(&self) -> Option<Instant> {
        match self {
            Self::Socket(_) => None,
            Self::Polling(polling) => polling.until(),
        }
    }

    pub(super) fn look_at_the_clock(&mut self, now: Instant) {
        if let Self::Polling(polling) = self {
            polling.look_at_the_clock(now);
        }
    }

    /// The messages that were read are handled.
    pub(super) fn handled(&mut self) {
        if let Self::Polling(polling) = self {
            polling.handled();
        }
    }
}
