//! Every client of a pod that is killed comes to the other one at once, behind by some events.

use super::Arguments;
use super::follower::Follower;
use crate::realtime::client::address_of_run;
use crate::target::{Event, Target};
use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// The subject that all follow.
const SUBJECT: &str = "wallet/killed";
/// Begins the ids of its events.
const SERIES: &str = "killed";
/// Events that all have before the pod is killed.
const EVENTS_BEFORE: u32 = 20;
/// Connections that are being opened at a time before the pod is killed.
const OPENING: usize = 64;
/// Clients of one address: fewer than it has ports.
const OF_ONE_ADDRESS: u32 = 20_000;
/// After a connection was refused.
const RETRY: Duration = Duration::from_millis(200);

/// How they came back.
#[derive(Serialize)]
pub(super) struct Figures {
    clients: u32,
    events_behind: u32,
    /// From the moment at which all connect anew until half, 99 of 100 and all of them have everything.
    p50_seconds: f64,
    p99_seconds: f64,
    all_seconds: f64,
    /// Over all clients.
    lost: u64,
    twice: u64,
    /// Connections that had to be tried again.
    retries: u64,
}

pub(super) async fn measure(target: &Target, arguments: &Arguments) -> Result<Figures> {
    let clients = arguments.killed_clients;
    let other = target.at(&arguments.other_url)?;
    let goal = EVENTS_BEFORE + arguments.missed_events;
    let [opened, had, lost_their_pod, again, all_are_back] =
        [(); 5].map(|()| Arc::new(Barrier::new(clients as usize + 1)));
    let places = Arc::new(Semaphore::new(OPENING));
    let mut running = JoinSet::new();
    for number in 0..clients {
        let (target, other, places) = (target.clone(), other.clone(), Arc::clone(&places));
        let barriers = [&opened, &had, &lost_their_pod, &again, &all_are_back].map(Arc::clone);
        running.spawn(async move { one(number, goal, [&target, &other], &places, barriers).await });
    }
    opened.wait().await;
    publish(&other, 0..EVENTS_BEFORE).await?;
    had.wait().await;
    let killed = Command::new("kill").args(["-KILL", &arguments.process.to_string()]).status().context("kill Nexus")?;
    ensure!(killed.success(), "Nexus could not be killed");
    lost_their_pod.wait().await;
    publish(&other, EVENTS_BEFORE..goal).await?;
    again.wait().await;
    all_are_back.wait().await;
    let mut took = Vec::new();
    let (mut lost, mut twice, mut retries) = (0, 0, 0);
    while let Some(one) = running.join_next().await {
        let one = one??;
        took.push(one.took.as_secs_f64());
        lost += one.follower.lost + u64::from(goal - one.follower.next);
        twice += one.follower.twice;
        retries += one.retries;
    }
    took.sort_by(f64::total_cmp);
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
    Ok(Figures {
        clients,
        events_behind: arguments.missed_events,
        p50_seconds: at(50),
        p99_seconds: at(99),
        all_seconds: at(100),
        lost,
        twice,
        retries,
    })
}

struct One {
    follower: Follower,
    took: Duration,
    retries: u64,
}

async fn one(
    number: u32,
    goal: u32,
    [target, other]: [&Target; 2],
    places: &Semaphore,
    [opened, had, lost_their_pod, again, all_are_back]: [Arc<Barrier>; 5],
) -> Result<One> {
    let address = 10 + u8::try_from(number / OF_ONE_ADDRESS).unwrap_or(0);
    let source = address_of_run(address);
    let mut follower = Follower::new(SUBJECT, SERIES);
    let place = places.acquire().await?;
    let mut client = follower.connect(target, source, None).await?;
    follower.begin(&mut client).await?;
    drop(place);
    opened.wait().await;
    follower.read_to(EVENTS_BEFORE, &mut client).await.context("read before the pod is killed")?;
    had.wait().await;
    // Until the network says that there is no pod any more.
    let _ = follower.read_to(u32::MAX, &mut client).await;
    drop(client);
    lost_their_pod.wait().await;
    again.wait().await;
    let begun = Instant::now();
    let mut retries = 0;
    let mut _open = None;
    while follower.next < goal {
        let caught_up = async {
            let mut client = follower.connect(other, source, None).await?;
            follower.read_to(goal, &mut client).await.context("read")?;
            anyhow::Ok(client)
        };
        if let Ok(client) = caught_up.await {
            _open = Some(client);
        } else {
            retries += 1;
            sleep(RETRY).await;
        }
    }
    let took = begun.elapsed();
    // Whoever has everything stays while the others come.
    all_are_back.wait().await;
    Ok(One { follower, took, retries })
}

async fn publish(target: &Target, numbers: std::ops::Range<u32>) -> Result<()> {
    let event = |number: u32| Event { subject: SUBJECT.to_owned(), ..target.event(SERIES, number.into()) };
    target.publish_batch(&numbers.map(event).collect::<Vec<_>>()).await
}
