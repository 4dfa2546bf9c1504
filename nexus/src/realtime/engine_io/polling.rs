//! HTTP requests as the transport of a session: what is due goes out with the answer to a poll, what the client sends
//! comes with a push. In between the client may move to a WebSocket.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};

use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::payload::{self, Limits, ReadPayload};
use super::request::Refusal;
use super::sessions::{Answer, Listed, Request};
use super::upgrade::{Action, Event, Upgrade};
use super::{PROBE, Packet};
use crate::realtime::close::Close;
use crate::realtime::wire::{self, Message, Reader};

/// Packets of one push.
const PACKETS_MAX: usize = 64;

/// How long the client may take to try a WebSocket out: the reference server's deadline.
const UPGRADE_DEADLINE: std::time::Duration = std::time::Duration::from_secs(10);

/// How long a session that has ended takes pushes that the client sent before it knew: a slow network's way there and back.
const LINGER: std::time::Duration = std::time::Duration::from_secs(1);

/// Bytes that one read takes from a WebSocket that is tried out: it brings a few.
const READ_BYTES: usize = 4 * 1024;

/// The requests of one client.
#[derive(Debug)]
pub struct Polling {
    listed: Listed,
    received: Option<Request>,
    /// The poll that waits until something is due.
    poll: Option<oneshot::Sender<Answer>>,
    /// The push whose packets are not handled yet.
    push: Option<oneshot::Sender<Answer>>,
    upgrade: Upgrade,
    probe: Option<Probe>,
}

/// A WebSocket that is tried out.
#[derive(Debug)]
struct Probe {
    stream: TcpStream,
    reader: Reader,
    messages: VecDeque<Message>,
    until: Instant,
}

/// The WebSocket that is the transport from now on, and what it has brought.
#[derive(Debug)]
pub(in crate::realtime) struct Upgraded {
    pub(in crate::realtime) stream: TcpStream,
    pub(in crate::realtime) reader: Reader,
    pub(in crate::realtime) messages: VecDeque<Message>,
}

impl Polling {
    pub(in crate::realtime) fn new(listed: Listed) -> Self {
        Self { listed, received: None, poll: None, push: None, upgrade: Upgrade::Polling, probe: None }
    }

    /// The secret of the session.
    pub(in crate::realtime) fn sid(&self) -> &str {
        self.listed.sid()
    }

    /// Whether there is something to `read`.
    pub(in crate::realtime) fn poll_read_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.received.is_none()
            && let Poll::Ready(request) = self.listed.requests().poll_recv(context)
        {
            self.received = request;
        }
        let probed = self.probe.as_ref().is_some_and(|probe| probe.stream.poll_read_ready(context).is_ready());
        if probed || self.received.is_some() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Whether a poll waits.
    pub(in crate::realtime) fn is_write_ready(&self) -> bool {
        self.poll.as_ref().is_some_and(|poll| !poll.is_closed())
    }

    /// What the WebSocket that is tried out has brought and nobody has handled, in bytes.
    pub(in crate::realtime) fn unfinished_bytes(&self) -> usize {
        self.probe.as_ref().map_or(0, |probe| probe.reader.bytes() + wire::bytes_of(&probe.messages))
    }

    /// Answers the poll with the packets in these WebSocket messages; whether there was a poll that took them.
    pub(in crate::realtime) fn offer(&mut self, messages: &[u8]) -> bool {
        let Some(poll) = self.poll.take() else { return false };
        let mut body = Vec::with_capacity(messages.len());
        payload::append(wire::texts(messages), &mut body);
        poll.send(Answer::Payload(body)).is_ok()
    }

    /// When the WebSocket that is tried out is given up.
    pub(in crate::realtime) fn until(&self) -> Option<Instant> {
        self.probe.as_ref().map(|probe| probe.until)
    }

    pub(in crate::realtime) fn look_at_the_clock(&mut self, now: Instant) {
        if self.until().is_some_and(|until| now >= until) {
            self.fail();
        }
    }

    /// Reads what has come. `unsent` says that packets wait for a poll. Answers the WebSocket that takes over.
    pub(in crate::realtime) fn read(
        &mut self,
        bytes_max: usize,
        unsent: bool,
        into: &mut VecDeque<Message>,
    ) -> Result<Option<Upgraded>, Close> {
        match self.received.take() {
            Some(Request::Poll(reply)) => self.receive_poll(reply, unsent)?,
            Some(Request::Push(body, _share, reply)) => self.receive_push(&body, reply, bytes_max, into)?,
            Some(Request::Upgrade(stream, brought)) => {
                let (upgrade, action) = self.upgrade.after(Event::Connect);
                self.upgrade = upgrade;
                // Another one is dropped, and so closed.
                if action == Action::AwaitProbe {
                    let mut probe = Probe {
                        stream,
                        reader: Reader::default(),
                        messages: VecDeque::new(),
                        until: Instant::now() + UPGRADE_DEADLINE,
                    };
                    let read = probe.reader.read(&mut brought.to_vec(), bytes_max, &mut probe.messages);
                    self.probe = Some(probe);
                    if read.is_err() {
                        self.fail();
                    }
                }
            }
            None => self.read_probe(bytes_max),
        }
        Ok(self.go_on_with_probe(unsent))
    }

    fn receive_poll(&mut self, reply: oneshot::Sender<Answer>, unsent: bool) -> Result<(), Close> {
        if self.is_write_ready() {
            // Two at a time are against the protocol.
            let _ = reply.send(Answer::Refused(Refusal::Request));
            return Err(Close::InvalidPacket);
        }
        let (_, action) = self.upgrade.after(Event::Poll);
        self.poll = Some(reply);
        if action == Action::EndPoll && !unsent {
            self.end_poll();
        }
        Ok(())
    }

    fn receive_push(
        &mut self,
        body: &[u8],
        reply: oneshot::Sender<Answer>,
        bytes_max: usize,
        into: &mut VecDeque<Message>,
    ) -> Result<(), Close> {
        let packets = match payload::read(body, Limits { bytes_max, packets_max: PACKETS_MAX }) {
            _ if self.push.is_some() => None,
            Ok(packets) => Some(packets),
            Err(ReadPayload::TooLarge | ReadPayload::TooMany) => {
                let _ = reply.send(Answer::TooLarge);
                return Ok(());
            }
            Err(ReadPayload::Text | ReadPayload::Packet(_)) => None,
        };
        let Some(packets) = packets else {
            let _ = reply.send(Answer::Refused(Refusal::Request));
            return Err(Close::InvalidPacket);
        };
        for packet in packets {
            let closes = Packet::read(packet) == Ok(Packet::Close);
            into.push_back(if closes { Message::Close } else { Message::Text(packet.to_owned()) });
        }
        self.push = Some(reply);
        Ok(())
    }

    /// The packets of the push are handled.
    pub(in crate::realtime) fn handled(&mut self) {
        if let Some(reply) = self.push.take() {
            let _ = reply.send(Answer::Taken);
        }
    }

    fn read_probe(&mut self, bytes_max: usize) {
        let Some(probe) = &mut self.probe else { return };
        let mut brought = [0; READ_BYTES];
        let read = match probe.stream.try_read(&mut brought) {
            Ok(0) => false,
            Ok(count) => probe.reader.read(&mut brought[..count], bytes_max, &mut probe.messages).is_ok(),
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        };
        if !read {
            self.fail();
        }
    }

    /// Handles what the WebSocket that is tried out has said.
    fn go_on_with_probe(&mut self, unsent: bool) -> Option<Upgraded> {
        while let Some(probe) = &mut self.probe {
            let message = probe.messages.pop_front()?;
            let packet = match &message {
                Message::Text(text) => Packet::read(text).ok(),
                Message::Ping(_) | Message::Pong | Message::Close => None,
            };
            let (upgrade, action) = self.upgrade.after(packet.map_or(Event::Fail, Event::Packet));
            self.upgrade = upgrade;
            match action {
                Action::AnswerProbe => {
                    let mut answer = Vec::new();
                    wire::text_message(&format!("3{PROBE}"), &mut answer);
                    // A few bytes on a connection that has carried nothing: they fit, or it is broken.
                    if !probe.stream.try_write(&answer).is_ok_and(|written| written == answer.len()) {
                        self.fail();
                    } else if !unsent {
                        self.end_poll();
                    }
                }
                Action::Switch => {
                    self.end_poll();
                    let Probe { stream, reader, messages, .. } = self.probe.take()?;
                    return Some(Upgraded { stream, reader, messages });
                }
                _ => self.fail(),
            }
        }
        None
    }

    /// Polling goes on; the WebSocket is dropped, and so closed.
    fn fail(&mut self) {
        self.upgrade = Upgrade::Polling;
        self.probe = None;
    }

    /// Lets the poll end with nothing in it.
    fn end_poll(&mut self) {
        self.answer_poll(Packet::Noop);
    }

    fn answer_poll(&mut self, packet: Packet<'_>) {
        if let Some(poll) = self.poll.take() {
            let mut body = Vec::new();
            packet.append(&mut body);
            let _ = poll.send(Answer::Payload(body));
        }
    }

    /// Ends the session. The poll that waits, or the next one, carries the last messages; a client that has asked for the
    /// end is told nothing more.
    pub(in crate::realtime) async fn close(mut self, messages: &mut Vec<u8>, asked: bool) {
        self.handled();
        if asked {
            return self.end_poll();
        }
        wire::text_message("1", messages);
        while !self.offer(messages) {
            self.poll = Some(self.next_poll().await);
        }
        // Who polls again has read it.
        if let Ok(poll) = timeout(LINGER, self.next_poll()).await {
            let _ = poll.send(Answer::Refused(Refusal::Session));
        }
    }

    /// The next poll, while pushes are taken and come to nothing. The refusal of one would end the client's session before
    /// it has read why that ends.
    async fn next_poll(&mut self) -> oneshot::Sender<Answer> {
        loop {
            poll_fn(|context| self.poll_read_ready(context)).await;
            match self.received.take() {
                Some(Request::Poll(reply)) => return reply,
                Some(Request::Push(_, _, reply)) => drop(reply.send(Answer::Taken)),
                Some(Request::Upgrade(..)) | None => self.fail(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::super::sessions::Sessions;
    use super::*;
    use crate::unfinished::Share;

    fn session() -> (Polling, mpsc::Sender<Request>) {
        let sessions = Sessions::default();
        let polling = Polling::new(sessions.open());
        let requests = sessions.get(polling.sid()).expect("it is listed");
        (polling, requests)
    }

    async fn read(polling: &mut Polling, unsent: bool) -> (Vec<Message>, Result<(), Close>) {
        let mut messages = VecDeque::new();
        poll_fn(|context| polling.poll_read_ready(context)).await;
        let read = polling.read(1_000, unsent, &mut messages).map(|upgraded| assert!(upgraded.is_none()));
        (messages.into(), read)
    }

    async fn send_poll(polling: &mut Polling, requests: &mpsc::Sender<Request>) -> oneshot::Receiver<Answer> {
        let (reply, answer) = oneshot::channel();
        requests.send(Request::Poll(reply)).await.expect("the session lives");
        assert_eq!(read(polling, false).await, (Vec::new(), Ok(())));
        answer
    }

    fn payload(text: &str) -> Answer {
        Answer::Payload(text.as_bytes().to_vec())
    }

    #[tokio::test]
    async fn the_end_is_told_to_the_poll_that_waits() {
        for (asked, last) in [(true, "6"), (false, "4hello\x1e1")] {
            let (mut polling, requests) = session();
            let mut answer = send_poll(&mut polling, &requests).await;
            let (reply, mut pushed) = oneshot::channel();
            requests.send(Request::Push("3\x1e1".into(), Share::default(), reply)).await.expect("the session lives");
            let messages = vec![Message::Text("3".to_owned()), Message::Close];
            assert_eq!(read(&mut polling, false).await, (messages, Ok(())));
            let mut waiting = Vec::new();
            wire::text_message("4hello", &mut waiting);
            polling.close(&mut waiting, asked).await;
            assert_eq!((answer.try_recv(), pushed.try_recv()), (Ok(payload(last)), Ok(Answer::Taken)));
            assert!(requests.is_closed(), "nobody finds the session any more");
        }
    }

    #[tokio::test]
    async fn the_end_waits_for_the_next_poll() {
        let (polling, requests) = session();
        let (reply, answer) = oneshot::channel();
        let end = tokio::spawn(async move { polling.close(&mut Vec::new(), false).await });
        tokio::task::yield_now().await;
        requests.send(Request::Poll(reply)).await.expect("the session is still found");
        assert_eq!(answer.await, Ok(Answer::Payload(b"1".to_vec())));
        end.await.expect("it has ended");
        assert!(requests.is_closed());
    }

    #[tokio::test]
    async fn what_a_client_sends_before_it_knows_of_the_end_is_no_error() {
        let (mut polling, requests) = session();
        let answer = send_poll(&mut polling, &requests).await;
        let end = tokio::spawn(async move { polling.close(&mut Vec::new(), false).await });
        assert_eq!(answer.await, Ok(payload("1")));
        let (reply, pushed) = oneshot::channel();
        requests
            .send(Request::Push("bYmluYXJ5".into(), Share::default(), reply))
            .await
            .expect("the session is still found");
        assert_eq!(pushed.await, Ok(Answer::Taken));
        let (reply, polled) = oneshot::channel();
        requests.send(Request::Poll(reply)).await.expect("the session is still found");
        assert_eq!(polled.await, Ok(Answer::Refused(Refusal::Session)));
        end.await.expect("it has ended");
        assert!(requests.is_closed());
    }

    #[tokio::test]
    async fn what_is_due_stays_due_when_the_poll_has_gone() {
        let (mut polling, requests) = session();
        let mut waiting = Vec::new();
        wire::text_message("4hello", &mut waiting);
        assert!(!polling.offer(&waiting), "there is none");
        drop(send_poll(&mut polling, &requests).await);
        assert!(!polling.is_write_ready() && !polling.offer(&waiting));
        let mut answer = send_poll(&mut polling, &requests).await;
        assert!(polling.is_write_ready() && polling.offer(&waiting));
        assert_eq!(answer.try_recv(), Ok(payload("4hello")));
    }

    #[tokio::test]
    async fn a_second_push_before_the_first_is_handled_ends_the_session() {
        let (mut polling, requests) = session();
        let mut answers = Vec::new();
        for want in [Ok(()), Err(Close::InvalidPacket)] {
            let (reply, answer) = oneshot::channel();
            requests.send(Request::Push("3".into(), Share::default(), reply)).await.expect("the session lives");
            assert_eq!(read(&mut polling, false).await.1, want);
            answers.push(answer);
        }
        polling.close(&mut Vec::new(), true).await;
        let answers = answers.iter_mut().map(|answer| answer.try_recv().expect("answered"));
        assert_eq!(answers.collect::<Vec<_>>(), [Answer::Taken, Answer::Refused(Refusal::Request)]);
    }
}
