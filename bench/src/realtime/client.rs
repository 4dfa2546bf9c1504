//! One WebSocket client, as light as can be: it shares its buffer with all others of its thread and reads of an event
//! no more than its number, so that the generator leaves the cores to the server.

use super::meter::Meter;
use crate::target::Target;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

const READ_BYTES: usize = 64 * 1024;

/// How long an answer to a subscription of Socket.IO is waited for before it is asked for again.
const SUBSCRIBED_AGAIN: Duration = Duration::from_secs(1);

thread_local! {
    static BROUGHT: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// An address of this machine for so many clients as have ports, of this run alone: a port of another run that has just
/// ended may not be taken for a minute, and looking for a free one takes the time of opening.
pub(crate) fn address_of_run(number: u8) -> IpAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, high, low, number))
}

/// A client whose subscriptions stand.
pub(crate) struct Client {
    stream: TcpStream,
    /// The beginning of a frame.
    rest: Vec<u8>,
    /// Whether a frame may carry several messages, a line each.
    lines: bool,
}

impl Client {
    /// Opens a connection and waits until all subscriptions stand.
    pub(super) async fn open(target: &Target, source: IpAddr, subscriptions: &[Value]) -> Result<Self> {
        let mut client = Self::connect(target, source, None).await?;
        let mut commands = Vec::new();
        for (number, subscription) in subscriptions.iter().enumerate() {
            let mut command = subscription.clone();
            command["id"] = Value::from(number);
            command["command"] = Value::from("subscribe");
            masked(0x81, command.to_string().as_bytes(), &mut commands);
        }
        client.stream.write_all(&commands).await.context("subscribe")?;
        let mut confirmed = 0;
        while confirmed < subscriptions.len() {
            let frames = client.read().await.context("read the answers to subscribe")?;
            for (_, payload) in frames {
                let text = String::from_utf8_lossy(&payload);
                ensure!(text.contains("\"result\""), "a subscription was refused: {text}");
                confirmed += 1;
            }
        }
        Ok(client)
    }

    /// Opens a connection of Socket.IO, connects, and waits until all subscriptions stand.
    pub(super) async fn open_socket_io(target: &Target, source: IpAddr, subscriptions: &[Value]) -> Result<Self> {
        let mut client = Self::upgrade(target, source, None, "/socket.io/?EIO=4&transport=websocket").await?;
        client.packet("0").await.context("read the handshake")?;
        client.send(0x81, format!("40{}", json!({ "token": target.token() })).as_bytes()).await.context("connect")?;
        client.packet("40").await.context("read the answer to connect")?;
        for (number, subscription) in subscriptions.iter().enumerate() {
            let command = format!("42{number}{}", json!(["subscribe", subscription]));
            let begin = format!("43{number}[");
            let answer = loop {
                client.send(0x81, command.as_bytes()).await.context("subscribe")?;
                // A server may confirm the connection before it hears of events.
                if let Ok(answer) = timeout(SUBSCRIBED_AGAIN, client.packet(&begin)).await {
                    break answer.context("read the answer to subscribe")?;
                }
            };
            ensure!(answer.contains("\"result\""), "a subscription was refused: {answer}");
        }
        Ok(client)
    }

    /// Opens a connection of Centrifugo, connects, and waits until all subscriptions stand: a channel for each.
    pub(super) async fn open_centrifugo(target: &Target, source: IpAddr, subscriptions: &[Value]) -> Result<Self> {
        let mut client = Self::upgrade(target, source, None, "/connection/websocket").await?;
        client.lines = true;
        let mut commands = vec![json!({ "id": 1, "connect": { "token": target.token() } }).to_string()];
        for (number, subscription) in subscriptions.iter().enumerate() {
            let names = subscription.get("subjects").unwrap_or(&subscription["types"]);
            commands.push(json!({ "id": number + 2, "subscribe": { "channel": names[0] } }).to_string());
        }
        for command in commands {
            client.send(0x81, command.as_bytes()).await.context("send a command")?;
            let answer = client.packet("{").await.context("read the answer to a command")?;
            ensure!(answer.contains("\"id\"") && !answer.contains("\"error\""), "{command} was answered {answer}");
        }
        Ok(client)
    }

    /// The next packet that begins like this. It answers pings, and passes over all others.
    async fn packet(&mut self, begin: &str) -> Result<String> {
        let mut found = None;
        while found.is_none() {
            for (_, payload) in self.read().await? {
                let packet = String::from_utf8_lossy(&payload).into_owned();
                match &*packet {
                    "2" => self.send(0x81, b"3").await?,
                    _ if packet.starts_with(begin) => found = Some(packet),
                    _ => {}
                }
            }
        }
        found.context("no packet came")
    }

    /// Opens a connection; the network holds so little for it as is said.
    pub(crate) async fn connect(target: &Target, source: IpAddr, receive_bytes: Option<u32>) -> Result<Self> {
        Self::upgrade(target, source, receive_bytes, "/v1/stream").await
    }

    async fn upgrade(target: &Target, source: IpAddr, receive_bytes: Option<u32>, path: &str) -> Result<Self> {
        let socket = TcpSocket::new_v4().context("make a socket")?;
        if let Some(bytes) = receive_bytes {
            socket.set_recv_buffer_size(bytes).context("set up a socket")?;
        }
        socket.bind(SocketAddr::new(source, 0)).context("bind a socket")?;
        let mut stream = socket.connect(target.address()).await.context("connect")?;
        stream.set_nodelay(true).context("set up a socket")?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: {}\r\n\r\n",
            target.authorization()
        );
        stream.write_all(request.as_bytes()).await.context("ask for the upgrade")?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.context("read the answer to the upgrade")?);
        }
        ensure!(answer.starts_with(b"HTTP/1.1 101"), "the upgrade was refused: {}", String::from_utf8_lossy(&answer));
        Ok(Self { stream, rest: Vec::new(), lines: false })
    }

    /// Sends one frame: its first byte, and what it carries.
    pub(crate) async fn send(&mut self, first: u8, payload: &[u8]) -> io::Result<()> {
        let mut frame = Vec::new();
        masked(first, payload, &mut frame);
        self.stream.write_all(&frame).await
    }

    /// Tells the meter of every event of its series, until the server closes.
    pub(super) async fn listen(mut self, meter: Arc<Meter>) {
        let begin = format!("\"id\":\"{}-", meter.series);
        let (lines, mut answers) = (self.lines, Vec::new());
        let listen = |first, payload: &[u8], answers: &mut Vec<u8>| match (first, payload) {
            (0x89, _) => masked(0x8a, payload, answers),
            (_, b"2") => masked(0x81, b"3", answers),
            (_, b"{}") => masked(0x81, b"{}", answers),
            _ if lines => {
                let numbers = payload.split(|byte| *byte == b'\n').map(|line| number(line, begin.as_bytes()));
                numbers.flatten().for_each(|number| meter.arrived(number));
            }
            _ => number(payload, begin.as_bytes()).into_iter().for_each(|number| meter.arrived(number)),
        };
        while self.frames(|first, payload| listen(first, payload, &mut answers)).await.is_ok() {
            if !answers.is_empty() && self.stream.write_all(&std::mem::take(&mut answers)).await.is_err() {
                return;
            }
        }
    }

    /// The frames that came: the first byte and the payload of each.
    pub(crate) async fn read(&mut self) -> io::Result<Vec<(u8, Vec<u8>)>> {
        let mut frames = Vec::new();
        self.frames(|first, payload| frames.push((first, payload.to_vec()))).await?;
        Ok(frames)
    }

    /// Waits until something comes, and hands over the frames that are whole, where they lie.
    async fn frames(&mut self, mut each: impl FnMut(u8, &[u8])) -> io::Result<()> {
        loop {
            self.stream.readable().await?;
            let outcome: io::Result<_> = BROUGHT.with_borrow_mut(|brought| {
                let count = self.stream.try_read(brought)?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                if self.rest.is_empty() {
                    let used = whole_frames(&brought[..count], &mut each);
                    self.rest.extend_from_slice(&brought[used..count]);
                    return Ok(());
                }
                self.rest.extend_from_slice(&brought[..count]);
                let used = whole_frames(&self.rest, &mut each);
                self.rest.drain(..used);
                if self.rest.is_empty() {
                    self.rest = Vec::new();
                }
                Ok(())
            });
            match outcome {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
        }
    }
}

/// Hands over the whole frames at the beginning of `bytes`; how many bytes they have.
fn whole_frames(bytes: &[u8], each: &mut impl FnMut(u8, &[u8])) -> usize {
    let mut used = 0;
    while let Some((head, payload)) = frame(&bytes[used..]) {
        let begin = used + head;
        each(bytes[used], &bytes[begin..begin + payload]);
        used = begin + payload;
    }
    used
}

/// Bytes of the head and of the payload of a server's frame, if all of it is there.
fn frame(bytes: &[u8]) -> Option<(usize, usize)> {
    let (head, payload) = match bytes.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        length => (2, usize::from(*length)),
    };
    (bytes.len() >= head + payload).then_some((head, payload))
}

/// A client's frame. The mask is zero: nothing between these two could be confused by it.
fn masked(first: u8, payload: &[u8], into: &mut Vec<u8>) {
    into.push(first);
    match u16::try_from(payload.len()) {
        Ok(length @ 0..=125) => into.push(0x80 | length.to_be_bytes()[1]),
        Ok(length) => {
            into.push(0x80 + 126);
            into.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => unreachable!("commands and pongs are short"),
    }
    into.extend_from_slice(&[0; 4]);
    into.extend_from_slice(payload);
}

/// The number of the event, if it is of our series.
pub(crate) fn number(payload: &[u8], begin: &[u8]) -> Option<u32> {
    let at = payload.windows(begin.len()).position(|window| window == begin)? + begin.len();
    let digits = payload[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0_u32, |number, digit| number.wrapping_mul(10).wrapping_add(u32::from(digit - b'0'))))
}
