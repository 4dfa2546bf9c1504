//! Publish-to-socket latency under a steady stream: from the moment an event was due to be published until
//! each client holds it. Due, not sent: a publisher that is held up would else hide the wait it causes.

use crate::percentiles::Percentiles;
use crate::socket::Socket;
use crate::target::Target;
use anyhow::{Context as _, Result, bail};
use futures::future::try_join_all;
use serde::Serialize;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Publishers that share the stream. One event in flight each: a publish may take 80 ms at 200 a second
/// before the stream falls behind.
const PUBLISHERS: u32 = 16;

/// Seconds of the same stream before anything counts: connections are opened and caches filled then.
const WARM_UP_SECONDS: u32 = 2;

/// Time for the last events to arrive. What is not there by then counts as missing.
const GRACE: Duration = Duration::from_secs(10);

/// What the events of this measurement are called.
const SERIES: &str = "latency";

/// The stream to measure under.
pub(crate) struct Load {
    pub(crate) clients: u32,
    pub(crate) rate: u32,
    pub(crate) seconds: u32,
}

/// What was measured.
#[derive(Serialize)]
pub(crate) struct Latency {
    clients: u32,
    events_per_second: u32,
    seconds: u32,
    /// Events times clients, as they arrived.
    deliveries: usize,
    /// Deliveries that never came.
    missing: usize,
    #[serde(flatten)]
    percentiles: Percentiles,
}

/// When each event is due.
#[derive(Clone, Copy)]
struct Schedule {
    start: Instant,
    interval: Duration,
    warm_up: u32,
    total: u32,
}

impl Schedule {
    fn due(&self, number: u32) -> Instant {
        self.start + self.interval * number
    }
}

/// Publishes at the rate while all clients listen.
pub(crate) async fn measure(target: &Target, load: &Load) -> Result<Latency> {
    let mut sockets = Vec::new();
    for _ in 0..load.clients {
        sockets.push(Socket::subscribed(target).await?);
    }
    let warm_up = load.rate * WARM_UP_SECONDS;
    let total = warm_up + load.rate * load.seconds;
    let start = Instant::now() + Duration::from_millis(100);
    let schedule = Schedule { start, interval: Duration::from_secs(1) / load.rate, warm_up, total };

    let listeners = sockets.into_iter().map(|socket| tokio::spawn(listen(socket, target.clone(), schedule)));
    let listeners: Vec<_> = listeners.collect();
    let publishers = (0..PUBLISHERS).map(|first| tokio::spawn(publish(target.clone(), schedule, first)));
    for publisher in try_join_all(publishers).await.context("join the publishers")? {
        publisher?;
    }
    let mut durations = Vec::new();
    for listener in try_join_all(listeners).await.context("join the listeners")? {
        durations.extend(listener?);
    }
    let expected = (total - warm_up) as usize * load.clients as usize;
    let deliveries = durations.len();
    Ok(Latency {
        clients: load.clients,
        events_per_second: load.rate,
        seconds: load.seconds,
        deliveries,
        missing: expected - deliveries,
        percentiles: Percentiles::of(durations).context("no event arrived at all")?,
    })
}

/// Publishes every sixteenth event, each when it is due.
async fn publish(target: Target, schedule: Schedule, first: u32) -> Result<()> {
    for number in (first..schedule.total).step_by(PUBLISHERS as usize) {
        let event = target.event(SERIES, number.into());
        sleep_until(schedule.due(number)).await;
        target.publish(&event).await?;
    }
    Ok(())
}

/// How late each event came, until all are there or the grace is over. Each counts once.
async fn listen(mut socket: Socket, target: Target, schedule: Schedule) -> Result<Vec<Duration>> {
    let deadline = schedule.due(schedule.total) + GRACE;
    let mut seen = vec![false; schedule.total as usize];
    let mut left = seen.len();
    let mut durations = Vec::with_capacity(seen.len());
    while left > 0 {
        let Ok(number) = timeout_at(deadline, socket.next(&target, SERIES)).await else { break };
        let number = number?;
        let arrived = Instant::now();
        match seen.get_mut(number as usize) {
            Some(place) if !*place => *place = true,
            _ => bail!("event {number} came twice, or was never sent"),
        }
        left -= 1;
        if number >= schedule.warm_up {
            durations.push(arrived.duration_since(schedule.due(number)));
        }
    }
    Ok(durations)
}
