//! A steady stream of publishes that repeats each event until it is acknowledged, as a service with an outbox does.
//! Must never publish a later event before the earlier one is acknowledged: then its own order is the expected one.
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinHandle;

use crate::event;
use crate::nexus::{Nexus, Published};
use crate::wait::{Look, wait_for};

/// Twenty events a second: some are always under way when something dies.
const PERIOD: Duration = Duration::from_millis(50);
/// Wallets that the events are about, in turn.
const WALLETS: usize = 4;

/// A stream that runs until it is stopped or dropped.
pub struct Stream {
    acknowledged: Arc<Mutex<Vec<Published>>>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Stream {
    /// Starts publishing events of `source`.
    pub fn start(nexus: Nexus, source: &'static str) -> Self {
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(publish(nexus, source, Arc::clone(&acknowledged), Arc::clone(&stop)));
        Self { acknowledged, stop, task }
    }

    /// What has been acknowledged so far, in order.
    pub fn acknowledged(&self) -> Vec<Published> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `count` more events are acknowledged.
    pub async fn flows(&self, count: usize, deadline: Duration) -> anyhow::Result<()> {
        let goal = self.acknowledged().len() + count;
        wait_for("the stream of publishes to flow", deadline, async || {
            let now = self.acknowledged().len();
            Ok(Look::when(now >= goal, (), || format!("{now} of {goal} events acknowledged")))
        })
        .await
    }

    /// Ends the stream after the event that is under way, and returns everything acknowledged.
    pub async fn stop(mut self) -> anyhow::Result<Vec<Published>> {
        self.stop.store(true, Ordering::Relaxed);
        (&mut self.task).await.context("end the stream of publishes")?;
        Ok(self.acknowledged())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn publish(nexus: Nexus, source: &str, acknowledged: Arc<Mutex<Vec<Published>>>, stop: Arc<AtomicBool>) {
    let mut beat = tokio::time::interval(PERIOD);
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let id = format!("stream-{number:06}");
        let event = event::mining_reward(source, &id, &(number % WALLETS).to_string(), number);
        let published = loop {
            beat.tick().await;
            // Whatever went wrong, nobody knows whether the event is in the log: the same id makes repeating it safe.
            if let Ok(published) = nexus.publish(&event).await {
                break published;
            }
        };
        acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(published);
        number += 1;
    }
}
