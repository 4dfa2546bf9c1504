//! The heads of requests, while they come: a network connection that counts what it brings of them. One that comes whole
//! with one read costs nothing and is never refused.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::unfinished::Share;

/// A network connection that ends when the pod has no memory left for the head that it brings.
#[derive(Debug)]
pub(in crate::http) struct Counted {
    stream: TcpStream,
    head: Arc<Head>,
}

/// What has come of the next request of one connection.
#[derive(Debug)]
pub(super) struct Head {
    share: Mutex<Share>,
    /// Bytes of the last read, which may have made it whole.
    last: AtomicUsize,
    /// Whether a request has come whole, and is under way. Who wants its body counts that.
    is_whole: AtomicBool,
}

/// A request whose head was whole; what comes after this is of the next one.
#[derive(Debug)]
pub(super) struct Whole(Arc<Head>);

impl Counted {
    pub(super) fn new(stream: TcpStream, share: Share) -> Self {
        let (last, is_whole) = (AtomicUsize::default(), AtomicBool::default());
        let head = Head { share: Mutex::new(share), last, is_whole };
        Self { stream, head: Arc::new(head) }
    }

    pub(super) fn head(&self) -> Arc<Head> {
        Arc::clone(&self.head)
    }

    /// The network connection, for one who counts otherwise.
    pub(in crate::http) fn into_inner(self) -> TcpStream {
        self.stream
    }
}

impl Head {
    /// The request has come.
    pub(super) fn whole(self: &Arc<Self>) -> Whole {
        self.is_whole.store(true, Ordering::Relaxed);
        self.last.store(0, Ordering::Relaxed);
        self.share().release();
        Whole(Arc::clone(self))
    }

    /// Whether there is memory for what was read before, if more is read: then it was no whole head.
    fn goes_on(&self) -> bool {
        let last = self.last.swap(0, Ordering::Relaxed);
        last == 0 || self.share().hold_more(last)
    }

    fn read(&self, bytes: usize) {
        if !self.is_whole.load(Ordering::Relaxed) {
            self.last.store(bytes, Ordering::Relaxed);
        }
    }

    fn share(&self) -> MutexGuard<'_, Share> {
        // Each change is a single one.
        self.share.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        self.0.is_whole.store(false, Ordering::Relaxed);
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.head.goes_on() {
            return Poll::Ready(Err(io::Error::other("this pod receives too much at once")));
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        self.head.read(into.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
