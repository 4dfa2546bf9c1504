//! Many clients at once, and the events that they are sent.

use super::client::{Client, address_of_run};
use super::meter::Meter;
use crate::target::{Event, Target};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections that are being opened at a time.
const OPENING: usize = 64;

/// How long a server may take to open one of them.
const OPENED: Duration = Duration::from_mins(1);

/// Open clients; they are closed when this is dropped.
pub(super) struct Crowd {
    pub(super) meter: Arc<Meter>,
    _clients: JoinSet<()>,
}

/// Who posts the job that all clients hear of.
const EMPLOYER: &str = "0197d0a4-3a5c-7c3e-9d5b-6a1f0e2d4c3b";

/// What a client subscribes to.
#[derive(Clone, Copy)]
pub(super) enum Interest {
    /// Three subscriptions: to a subject of its own, to what goes to all, and to a type that never comes.
    Own,
    /// The one topic.
    Shared,
}

/// What a client speaks.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum Protocol {
    /// That of `/v1/stream`.
    WebSocket,
    /// Socket.IO over a WebSocket.
    SocketIo,
    /// The JSON protocol of Centrifugo.
    Centrifugo,
}

impl Crowd {
    /// Opens so many clients from the address `source` of this run, and waits until all have subscribed.
    pub(super) async fn open(
        target: &Target,
        meter: &Arc<Meter>,
        count: u32,
        (source, protocol): (u8, Protocol),
        interest: Interest,
    ) -> Result<Self> {
        let places = Arc::new(Semaphore::new(OPENING));
        let mut opening = JoinSet::new();
        for number in 0..count {
            let place = Arc::clone(&places).acquire_owned().await?;
            let target = target.clone();
            opening.spawn(async move {
                let source = address_of_run(source);
                let subscriptions = subscriptions(interest, number);
                let client = async {
                    match protocol {
                        Protocol::WebSocket => Client::open(&target, source, &subscriptions).await,
                        Protocol::SocketIo => Client::open_socket_io(&target, source, &subscriptions).await,
                        Protocol::Centrifugo => Client::open_centrifugo(&target, source, &subscriptions).await,
                    }
                };
                let client = timeout(OPENED, client).await.with_context(|| format!("client {number} is not open"));
                drop(place);
                client?
            });
        }
        let mut clients = JoinSet::new();
        while let Some(client) = opening.join_next().await {
            clients.spawn(client??.listen(Arc::clone(meter)));
        }
        Ok(Self { meter: Arc::clone(meter), _clients: clients })
    }
}

fn subscriptions(interest: Interest, number: u32) -> Vec<Value> {
    match interest {
        Interest::Own => vec![
            json!({ "types": ["mining.reward"], "subjects": [subject(number)] }),
            json!({ "types": ["job.posted"], "subjects": ["job/all"] }),
            json!({ "types": ["lesson.completed"], "subjects": [format!("lesson/own-{number}")] }),
        ],
        Interest::Shared => vec![json!({ "types": ["mining.reward"] })],
    }
}

fn subject(number: u32) -> String {
    format!("wallet/own-{number}")
}

/// The event `number`, on the subject of one of `clients`.
pub(super) fn event(target: &Target, series: &str, number: u32, clients: u32) -> Event {
    // Neighbours in time are not neighbours in number.
    let client = u64::from(number) * 7_919 % u64::from(clients.max(1));
    Event { subject: format!("wallet/own-{client}"), ..target.event(series, number.into()) }
}

/// The event `number`, for every client.
pub(super) fn event_to_all(target: &Target, series: &str, number: u32) -> Event {
    let event = target.event(series, number.into());
    Event {
        source: format!("{}/all", event.source).into(),
        r#type: "job.posted",
        subject: "job/all".to_owned(),
        data: json!({ "job_id": "all", "employer_id": EMPLOYER, "title": "Paint a fence" }).to_string(),
        ..event
    }
}
