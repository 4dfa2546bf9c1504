//! Clients that open a subscription and read nothing of it, while events come: what they cost the server, and whether they
//! have everything once they read.

use super::Arguments;
use super::follower::Follower;
use crate::realtime::client::{Client, address_of_run};
use crate::realtime::process::Process;
use crate::target::{Event, Target};
use anyhow::Result;
use serde::Serialize;
use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// Subjects, each followed by as many clients: what one of them does not read is far more than a network holds.
const SUBJECTS: u32 = 10;
/// The network holds no more for a client, in bytes; the kernel doubles it.
const RECEIVE_BYTES: u32 = 4_096;
/// How often what is due is published.
const TICK: Duration = Duration::from_millis(20);
/// Most events of one request.
const BATCH_EVENTS_MAX: u32 = 1_000;
/// How often the memory is read.
const LOOK: Duration = Duration::from_secs(1);

/// What they cost, and what they got.
#[derive(Serialize)]
pub(super) struct Figures {
    clients: u32,
    events_per_second: f64,
    seconds: f64,
    /// With all clients connected, before anything was published.
    resident_bytes_before: u64,
    /// The most in each sixth of the time.
    resident_bytes: Vec<u64>,
    /// From when they began to read until the last had everything.
    read_seconds: f64,
    deliveries: u64,
    lost: u64,
    twice: u64,
}

pub(super) async fn measure(target: &Target, arguments: &Arguments) -> Result<Figures> {
    let server = Process(arguments.process);
    let source = address_of_run(9);
    let mut clients = Vec::new();
    for number in 0..arguments.stalled_clients {
        let subject = number % SUBJECTS;
        let mut follower = Follower::new(&format!("wallet/stalled-{subject}"), &format!("stalled{subject}"));
        let mut client = follower.connect(target, source, Some(RECEIVE_BYTES)).await?;
        follower.begin(&mut client).await?;
        clients.push((follower, client));
    }
    let resident_bytes_before = server.resident_bytes()?;
    let mut looks = Vec::new();
    let begun = Instant::now();
    let published = {
        let mut publishing = pin!(publish(target, arguments));
        loop {
            match timeout(LOOK, publishing.as_mut()).await {
                Ok(published) => break published?,
                Err(_) => looks.push(server.resident_bytes()?),
            }
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let mut reading = JoinSet::new();
    let goal = published / SUBJECTS;
    for (follower, client) in clients {
        reading.spawn(read(target.clone(), source, follower, client, goal));
    }
    let (mut deliveries, mut lost, mut twice) = (0, 0, 0);
    while let Some(follower) = reading.join_next().await {
        let follower = follower?;
        deliveries += u64::from(follower.next) - follower.lost;
        lost += follower.lost;
        twice += follower.twice;
    }
    Ok(Figures {
        clients: arguments.stalled_clients,
        events_per_second: f64::from(published) / seconds,
        seconds,
        resident_bytes_before,
        resident_bytes: looks
            .chunks(looks.len().div_ceil(6).max(1))
            .filter_map(|part| part.iter().max().copied())
            .collect(),
        read_seconds: begun.elapsed().as_secs_f64(),
        deliveries,
        lost,
        twice,
    })
}

/// Reads everything, over as many connections as it takes: a server does not keep one for ever that takes nothing.
async fn read(target: Target, source: IpAddr, mut follower: Follower, client: Client, goal: u32) -> Follower {
    let mut client = Some(client);
    while follower.next < goal {
        let opened = match client.take() {
            Some(open) => Ok(open),
            None => follower.connect(&target, source, None).await,
        };
        match opened {
            // Where it ended does not matter: the next connection goes on there.
            Ok(mut open) => drop(follower.read_to(goal, &mut open).await),
            Err(_) => sleep(LOOK).await,
        }
    }
    follower
}

/// Publishes at a steady rate, one request after the other, so that each subject has its events in their order; how many.
async fn publish(target: &Target, arguments: &Arguments) -> Result<u32> {
    let rate = arguments.stalled_rate;
    let total = rate * arguments.stalled_seconds / SUBJECTS * SUBJECTS;
    let begun = Instant::now();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut sent = 0;
    while sent < total {
        ticks.tick().await;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A small positive number.
        let due = ((begun.elapsed().as_secs_f64() * f64::from(rate)) as u32).clamp(sent, total);
        let until = due.min(sent + BATCH_EVENTS_MAX);
        if until > sent {
            target.publish_batch(&(sent..until).map(|number| event(target, number)).collect::<Vec<_>>()).await?;
        }
        sent = until;
    }
    Ok(total)
}

/// The event `number` of all; each subject counts its own.
fn event(target: &Target, number: u32) -> Event {
    let subject = number % SUBJECTS;
    let event = target.event(&format!("stalled{subject}"), (number / SUBJECTS).into());
    Event { subject: format!("wallet/stalled-{subject}"), ..event }
}
