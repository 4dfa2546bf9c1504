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
const PUBLISHERS: u64 = 16;

/// Seconds of the same stream before anything counts: connections are opened and caches filled then.
const WARM_UP_SECONDS: u64 = 2;

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
    rate: u64,
    warm_up: u64,
    total: u64,
}

impl Schedule {
    fn due(&self, number: u64) -> Instant {
        self.start
            + Duration::from_secs_f64(1.0 / self.rate_f64())
                .mul_f64(f64::from(u32::try_from(number).unwrap_or(u32::MAX)))
    }

    fn rate_f64(&self) -> f64 {
        f64::from(u32::try_from(self.rate).unwrap_or(u32::MAX))
    }
}

/// Publishes at the rate while all clients listen.
pub(crate) async fn measure(target: &Target, load: &Load) -> Result<Latency> {
    let mut sockets = Vec::new();
    for _ in 0..load.clients {
        sockets.push(Socket::subscribed(target).await?);
    }
    let rate = u64::from(load.rate);
    let warm_up = rate * WARM_UP_SECONDS;
    let total = warm_up + rate * u64::from(load.seconds);
    let schedule = Schedule { start: Instant::now() + Duration::from_millis(100), rate, warm_up, total };

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
    let expected = usize::try_from(total - warm_up).unwrap_or(usize::MAX) * load.clients as usize;
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
async fn publish(target: Target, schedule: Schedule, first: u64) -> Result<()> {
    for number in (first..schedule.total).step_by(usize::try_from(PUBLISHERS).unwrap_or(1)) {
        let event = target.event(SERIES, number);
        sleep_until(schedule.due(number)).await;
        target.publish(&event).await?;
    }
    Ok(())
}

/// How late each event came, until all are there or the grace is over. Each counts once.
async fn listen(mut socket: Socket, target: Target, schedule: Schedule) -> Result<Vec<Duration>> {
    let deadline = schedule.due(schedule.total) + GRACE;
    let mut seen = vec![false; usize::try_from(schedule.total).context("count the events")?];
    let mut left = seen.len();
    let mut durations = Vec::with_capacity(seen.len());
    while left > 0 {
        let Ok(number) = timeout_at(deadline, socket.next(&target, SERIES)).await else { break };
        let number = number?;
        let arrived = Instant::now();
        let place = usize::try_from(number).ok().and_then(|number| seen.get_mut(number));
        match place {
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
