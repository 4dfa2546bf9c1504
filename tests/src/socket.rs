//! A WebSocket client that follows the log: it writes down what it receives and, when the connection breaks, comes
//! back with its last position. Must never mend what it was given: doubles, gaps and disorder are for the test to see.
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::event::Position;
use crate::nexus::Nexus;
use crate::wait::{Look, wait_for};

/// A connection that is not made by then goes to a pod that is gone.
const CONNECT: Duration = Duration::from_secs(3);
/// A polite client does not hammer a server that is down.
const RECONNECT_AFTER: Duration = Duration::from_millis(200);
/// How soon a subscription must be in place on a server that runs.
const SUBSCRIBED: Duration = Duration::from_mins(1);

/// What to follow, and how patiently.
#[derive(Clone, Debug)]
pub struct Follow {
    /// Patterns of event types.
    pub types: Vec<String>,
    /// Where to start; from now on when absent.
    pub after: Option<Position>,
    /// A connection on which nothing comes for so long counts as broken. Must be above the server's heartbeat period of
    /// 25 s, unless the test keeps events coming.
    pub silence_max: Duration,
}

/// One event as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The subscription that the server named.
    pub subscription: String,
    /// The event's place in the log.
    pub position: Position,
    /// The event's id.
    pub id: String,
}

/// Everything that a client has seen.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Events in the order in which they came.
    pub deliveries: Vec<Delivery>,
    /// Gaps that the server stated, as sent.
    pub gaps: Vec<String>,
    /// How often a subscription was made.
    pub subscriptions: usize,
    /// Why connections ended, each with how often in a row.
    pub faults: Vec<(String, usize)>,
    /// Where the next subscription starts.
    resume: Option<Position>,
}

impl Record {
    /// A server that is down for a while gives one reason many times; one line is enough for it.
    fn note_fault(&mut self, fault: String) {
        match self.faults.last_mut() {
            Some((last, count)) if *last == fault => *count += 1,
            _ => self.faults.push((fault, 1)),
        }
    }
}

/// A client that runs until it is dropped.
pub struct Follower {
    record: Arc<Mutex<Record>>,
    task: JoinHandle<()>,
}

impl Follower {
    /// Starts following and returns when the first subscription is in place.
    pub async fn start(nexus: &Nexus, follow: Follow) -> anyhow::Result<Self> {
        let record = Arc::new(Mutex::new(Record { resume: follow.after, ..Record::default() }));
        let task = tokio::spawn(keep_following(nexus.address, nexus.token.clone(), follow, Arc::clone(&record)));
        let follower = Self { record, task };
        wait_for("the first subscription of a WebSocket client", SUBSCRIBED, async || {
            let record = follower.record();
            Ok(Look::when(record.subscriptions > 0, (), || format!("{:?}", record.faults)))
        })
        .await?;
        Ok(follower)
    }

    /// What was seen so far.
    pub fn record(&self) -> Record {
        locked(&self.record).clone()
    }

    /// Waits until the event with `id` has come.
    pub async fn received(&self, id: &str, deadline: Duration) -> anyhow::Result<Delivery> {
        wait_for(&format!("event {id} on a WebSocket"), deadline, async || {
            let record = self.record();
            let found = record.deliveries.iter().find(|delivery| delivery.id == id).cloned();
            Ok(match found {
                Some(delivery) => Look::Done(delivery),
                None => Look::Not(format!(
                    "{} events, the last {:?}; faults {:?}",
                    record.deliveries.len(),
                    record.deliveries.last(),
                    record.faults
                )),
            })
        })
        .await
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A push or an answer, with the fields that a follower needs.
#[derive(Debug, Deserialize)]
struct Frame {
    push: Option<String>,
    result: Option<Subscribed>,
    error: Option<Value>,
    subscription: Option<String>,
    event: Option<Pushed>,
}

#[derive(Debug, Deserialize)]
struct Subscribed {
    position: Position,
}

#[derive(Debug, Deserialize)]
struct Pushed {
    id: String,
    position: Position,
}

async fn keep_following(address: SocketAddr, token: String, follow: Follow, record: Arc<Mutex<Record>>) {
    loop {
        let fault = match session(address, &token, &follow, &record).await {
            Ok(()) => "the server closed the connection".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        locked(&record).note_fault(fault);
        tokio::time::sleep(RECONNECT_AFTER).await;
    }
}

/// One connection, from the upgrade to its end.
async fn session(addr: SocketAddr, token: &str, follow: &Follow, record: &Mutex<Record>) -> anyhow::Result<()> {
    let mut socket = tokio::time::timeout(CONNECT, connect(addr, token)).await.context("connect in time")??;
    let mut subscribe = json!({"id": 1, "command": "subscribe", "types": follow.types});
    if let Some(position) = locked(record).resume {
        subscribe["after"] = json!(position.to_string());
    }
    socket.send(Message::text(subscribe.to_string())).await.context("send the subscription")?;
    loop {
        let next = tokio::time::timeout(follow.silence_max, socket.next()).await.context("hear from the server")?;
        match next.transpose().context("receive a frame")? {
            Some(Message::Text(text)) => note(&text, record)?,
            // tungstenite answers pings by itself.
            Some(Message::Ping(_) | Message::Pong(_)) => {}
            Some(Message::Close(_)) | None => return Ok(()),
            Some(other) => bail!("the server sent {other:?}, which the protocol does not know"),
        }
    }
}

async fn connect(address: SocketAddr, token: &str) -> anyhow::Result<WebSocketStream<MaybeTlsStream<TcpStream>>> {
    let mut request = format!("ws://{address}/v1/stream").into_client_request().context("build the upgrade")?;
    let value = format!("Bearer {token}").parse().context("put the token into a header")?;
    request.headers_mut().insert("Authorization", value);
    Ok(connect_async(request).await.context("open a WebSocket")?.0)
}

/// Writes one frame down.
fn note(text: &str, record: &Mutex<Record>) -> anyhow::Result<()> {
    let frame: Frame = serde_json::from_str(text).with_context(|| format!("understand the frame {text}"))?;
    let mut record = locked(record);
    if let Some(error) = frame.error {
        bail!("the server refused the subscription: {error}");
    }
    if let Some(subscribed) = frame.result {
        record.subscriptions += 1;
        record.resume = record.resume.or(Some(subscribed.position));
    }
    match (frame.push.as_deref(), frame.subscription, frame.event) {
        (Some("event"), Some(subscription), Some(event)) => {
            record.resume = Some(event.position);
            record.deliveries.push(Delivery { subscription, position: event.position, id: event.id });
        }
        (Some("gap"), ..) => record.gaps.push(text.to_owned()),
        (Some("event"), ..) => bail!("an event without its subscription or itself: {text}"),
        _ => {}
    }
    Ok(())
}

/// A follower's panic must not hide what it saw before.
fn locked(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}
