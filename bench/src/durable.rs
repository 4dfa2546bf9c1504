//! Durable publishes a second: as many as a number of publishers get through, each sending the next when the
//! last was acknowledged.

use crate::percentiles::Percentiles;
use crate::target::{Event, Target};
use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// What was measured.
#[derive(Serialize)]
pub(crate) struct Rate {
    publishers: u32,
    events_per_request: u32,
    events_per_second: f64,
    /// How long a request took.
    request: Percentiles,
}

/// One event in each request.
pub(crate) async fn singles(target: &Target, publishers: u32, seconds: u32) -> Result<Rate> {
    measure(target, "single", publishers, 1, seconds).await.context("measure single publishes")
}

/// Many events in each request.
pub(crate) async fn batches(target: &Target, publishers: u32, events: u32, seconds: u32) -> Result<Rate> {
    measure(target, "batch", publishers, events, seconds).await.context("measure batches")
}

async fn measure(target: &Target, series: &'static str, publishers: u32, events: u32, seconds: u32) -> Result<Rate> {
    let counter = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let until = started + Duration::from_secs(seconds.into());
    let tasks = (0..publishers).map(|_| {
        let (target, counter) = (target.clone(), Arc::clone(&counter));
        tokio::spawn(async move {
            let mut durations = Vec::new();
            while Instant::now() < until {
                let first = counter.fetch_add(events.into(), Ordering::Relaxed);
                let events: Vec<Event> =
                    (first..first + u64::from(events)).map(|number| target.event(series, number)).collect();
                let sent = Instant::now();
                match &*events {
                    [event] => target.publish(event).await?,
                    events => target.publish_batch(events).await?,
                }
                durations.push(sent.elapsed());
            }
            anyhow::Ok(durations)
        })
    });
    let mut durations = Vec::new();
    for task in try_join_all(tasks).await.context("join the publishers")? {
        durations.extend(task?);
    }
    let acknowledged = f64::from(u32::try_from(durations.len()).context("count the requests")?) * f64::from(events);
    Ok(Rate {
        publishers,
        events_per_request: events,
        events_per_second: acknowledged / started.elapsed().as_secs_f64(),
        request: Percentiles::of(durations).context("no request was answered")?,
    })
}
