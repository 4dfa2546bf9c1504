//! A body that is passed on as it is, and of which somebody learns when it ends.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

/// A body, and what is done with the rest of it when nobody wants it any more: it was read to its end, or given up.
pub(super) struct Lent<F: FnOnce(Body) + Unpin> {
    body: Body,
    at_end: Option<F>,
}

impl<F: FnOnce(Body) + Unpin> Lent<F> {
    pub(super) fn new(body: Body, at_end: F) -> Self {
        Self { body, at_end: Some(at_end) }
    }
}

impl<F: FnOnce(Body) + Unpin> Drop for Lent<F> {
    fn drop(&mut self) {
        if let Some(at_end) = self.at_end.take() {
            at_end(mem::take(&mut self.body));
        }
    }
}

impl<F: FnOnce(Body) + Unpin> HttpBody for Lent<F> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
