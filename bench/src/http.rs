//! HTTP/1.1 as publishers speak it, as light as can be, so that the generator leaves the cores to the server. It knows
//! answers with a `Content-Length`, and no other.

use anyhow::{Context as _, Result, ensure};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Bytes that one read takes: more than the answer to a single event.
const READ_BYTES: usize = 4 * 1024;

/// Connections to one server, each used by one request at a time and kept for the next.
pub(crate) struct Connections {
    address: SocketAddr,
    idle: Mutex<Vec<TcpStream>>,
}

/// What a server says.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Connections {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, idle: Mutex::default() }
    }

    /// Sends a request, head and body, and reads the answer to its end.
    pub(crate) async fn ask(&self, request: &[u8]) -> Result<Answer> {
        let idle = self.idle().pop();
        if let Some(stream) = idle
            && let Ok(answer) = self.ask_over(stream, request).await
        {
            return Ok(answer);
        }
        // The server may have closed a connection that was not used for long.
        let stream = TcpStream::connect(self.address).await.context("connect")?;
        stream.set_nodelay(true).context("set up a connection")?;
        self.ask_over(stream, request).await
    }

    async fn ask_over(&self, mut stream: TcpStream, request: &[u8]) -> Result<Answer> {
        stream.write_all(request).await.context("send a request")?;
        let mut came = Vec::with_capacity(READ_BYTES);
        let answer = loop {
            ensure!(
                stream.read_buf(&mut came).await.context("read an answer")? > 0,
                "the server closed the connection"
            );
            if let Some(answer) = answer(&came)? {
                break answer;
            }
        };
        self.idle().push(stream);
        Ok(answer)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<TcpStream>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer, once all of it has come.
fn answer(came: &[u8]) -> Result<Option<Answer>> {
    let Some(end) = came.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = str::from_utf8(&came[..end]).context("the head of an answer is no text")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("an answer has no status")?;
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let (_, length) = length.with_context(|| format!("an answer with status {status} does not say how long it is"))?;
    let length: usize = length.trim().parse().context("the length of an answer is no number")?;
    let body = came[end + 4..].get(..length);
    Ok(body.map(|body| Answer { status, body: String::from_utf8_lossy(body).into_owned() }))
}
