//! The ground that every service test stands on.

pub(crate) mod client;
pub(crate) mod consumers;
pub(crate) mod event_source;
pub(crate) mod events;
pub(crate) mod people;
pub(crate) mod polling;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod receiver;
pub(crate) mod socket;
pub(crate) mod socket_io;
pub(crate) mod world;

use std::time::{Duration, Instant};

pub(crate) use client::{Answer, Client, token};
pub(crate) use events::{event, large_event, valid_events};
pub(crate) use proxy::Proxy;
pub(crate) use world::{Instance, World, free_port};

/// No wait of a correct program comes near it, even on a loaded machine.
const DEADLINE: Duration = Duration::from_mins(1);
/// How often a value is looked at.
const LOOK_PERIOD: Duration = Duration::from_millis(20);

/// Waits until `look` finds a value.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(begun.elapsed() < DEADLINE, "waited in vain for: {what}");
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}

/// The value of a metric that has no labels.
pub(crate) async fn metric(client: &Client, name: &str) -> i64 {
    let text = client.get("/metrics").await.text;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in: {text}"))
}
