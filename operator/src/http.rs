//! The one HTTP request that the operator makes: does a path answer, and with which status. A whole client for it
//! would be a second HTTP stack in a process that is to stay below 30 MiB.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Why a path did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ask {
    /// No connection, or it broke.
    #[error("{0}")]
    Exchange(#[source] std::io::Error),
    /// What came back is no HTTP.
    #[error("the answer is no HTTP")]
    ReadStatus,
}

/// The status with which `http://host:port/path` answers.
pub(crate) async fn get(host: &str, port: u16, path: &str) -> Result<u16, Ask> {
    let mut stream = TcpStream::connect((host, port)).await.map_err(Ask::Exchange)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: azora-operator\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(Ask::Exchange)?;
    // "HTTP/1.1 200": the status stands in the first twelve bytes.
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.map_err(Ask::Exchange)?;
    status(&head).ok_or(Ask::ReadStatus)
}

fn status(head: &[u8; 12]) -> Option<u16> {
    let digits = head.strip_prefix(b"HTTP/1.")?.get(2..)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::status;

    #[test]
    fn the_status_is_read_from_the_first_line() {
        assert_eq!(status(b"HTTP/1.1 200"), Some(200));
        assert_eq!(status(b"HTTP/1.0 503"), Some(503));
        assert_eq!(status(b"SSH-2.0-Open"), None);
    }
}
