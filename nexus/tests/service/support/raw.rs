//! A client that keeps to no rule: it writes any bytes at any pace, and shows what comes back.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// No answer of a correct program comes near it, even on a loaded machine.
const DEADLINE: Duration = Duration::from_mins(1);

/// A network connection.
pub(crate) struct Raw {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// The head of a request for a WebSocket.
pub(crate) fn upgrade(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// A client's frame, masked with zeros.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = head(first, payload.len() as u64);
    frame.extend_from_slice(payload);
    frame
}

/// The head of a client's frame that announces so many bytes.
pub(crate) fn head(first: u8, payload_bytes: u64) -> Vec<u8> {
    let mut head = match (u8::try_from(payload_bytes), u16::try_from(payload_bytes)) {
        (Ok(length @ 0..=125), _) => vec![first, 0x80 | length],
        (_, Ok(length)) => [&[first, 0xfe][..], &length.to_be_bytes()].concat(),
        _ => [&[first, 0xff][..], &payload_bytes.to_be_bytes()].concat(),
    };
    head.extend([0; 4]);
    head
}

impl Raw {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the instance listens");
        stream.set_nodelay(true).expect("the option can be set");
        Self { stream, unread: Vec::new() }
    }

    /// Writes the bytes; whether the other side still takes them.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// The head of the next answer.
    pub(crate) async fn answer(&mut self) -> String {
        loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                let rest = self.unread.split_off(end + 4);
                let head = std::mem::replace(&mut self.unread, rest);
                return String::from_utf8(head).expect("a head is text").to_ascii_lowercase();
            }
            assert!(self.read().await, "closed instead of an answer: {:?}", String::from_utf8_lossy(&self.unread));
        }
    }

    /// The status of the next answer.
    pub(crate) async fn status(&mut self) -> u16 {
        let head = self.answer().await;
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{head}"))
    }

    /// What comes in chunks, after a head.
    pub(crate) async fn chunks(&mut self) -> String {
        loop {
            if let Some(end) = self.unread.windows(7).position(|end| end == b"\r\n0\r\n\r\n") {
                let rest = self.unread.split_off(end + 7);
                return String::from_utf8(std::mem::replace(&mut self.unread, rest)).expect("it is text");
            }
            assert!(self.read().await, "closed before the last chunk: {:?}", self.unread());
        }
    }

    /// All that comes until the other side closes.
    pub(crate) async fn rest(&mut self) -> String {
        while self.read().await {}
        self.unread()
    }

    /// The text of the next text frame, or the code of the close.
    pub(crate) async fn text(&mut self) -> Result<String, u16> {
        loop {
            match self.frame().await {
                Some((0x81, payload)) => return Ok(String::from_utf8(payload).expect("it is text")),
                Some((0x88, payload)) => {
                    let code = payload.first_chunk::<2>().map_or(1005, |code| u16::from_be_bytes(*code));
                    return Err(code);
                }
                Some(_) => {}
                None => return Err(1006),
            }
        }
    }

    async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let (head, length) = match *self.unread.as_slice() {
                [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
                [_, length @ 0..=125, ..] => (2, usize::from(length)),
                [_, 127, ..] => panic!("no answer here is so long"),
                _ => (2, usize::MAX - 2),
            };
            if self.unread.len() >= head + length {
                let rest = self.unread.split_off(head + length);
                let frame = std::mem::replace(&mut self.unread, rest);
                return Some((frame[0], frame[head..].to_vec()));
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// Writes a byte again and again, slowly, until the other side has had enough.
    pub(crate) async fn drip(&mut self, byte: u8) {
        let dripping = async {
            while self.send([byte]).await {
                // Room for all of an answer: the next byte may be answered with the end.
                self.unread.reserve(64 * 1024);
                let more = timeout(Duration::from_millis(100), self.stream.read_buf(&mut self.unread)).await;
                if matches!(more, Ok(Ok(0) | Err(_))) {
                    return;
                }
            }
        };
        timeout(DEADLINE, dripping).await.expect("it is ended");
    }

    /// Everything that came and was not looked at.
    pub(crate) fn unread(&self) -> String {
        String::from_utf8_lossy(&self.unread).into_owned()
    }

    async fn read(&mut self) -> bool {
        let read = timeout(DEADLINE, self.stream.read_buf(&mut self.unread)).await.expect("something or the end comes");
        matches!(read, Ok(1..))
    }
}
