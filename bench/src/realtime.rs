//! What many connections cost: memory, opening, fan-out, and events on topics of their own. The server's CPU seconds are
//! read beside the clock, for generator and server share the cores.

pub(crate) mod client;
mod crowd;
mod meter;
pub(crate) mod process;

use crate::percentiles::Percentiles;
use crate::target::{Api, Event, Target};
use anyhow::{Context as _, Result};
use crowd::{Crowd, Interest, Protocol};
use meter::Meter;
use process::Process;
use serde::Serialize;
use sqlx::{Connection as _, PgConnection};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// What is measured, and how large.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The process of Nexus, whose memory and CPU time are read.
    #[arg(long)]
    process: u32,
    /// What the clients speak.
    #[arg(long, value_enum, default_value_t = Protocol::WebSocket)]
    protocol: Protocol,
    /// The Postgres under that Nexus, which knows when each event was logged. Other servers have none.
    #[arg(long, env = "NEXUS_DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Connections that are open at a time in all but the fan-out.
    #[arg(long, default_value_t = 10_000)]
    clients: u32,
    /// Subscribers of the one topic of the fan-out.
    #[arg(long, default_value_t = 1_000)]
    subscribers: u32,
    /// Events a second of the fan-out, each a run of its own.
    #[arg(long, value_delimiter = ',', default_value = "40,190,460")]
    rates: Vec<u32>,
    /// Events a second on topics of their own.
    #[arg(long, default_value_t = 2_000)]
    own_rate: u32,
    /// How long each run lasts.
    #[arg(long, default_value_t = 15)]
    seconds: u32,
}

/// How many clients of Socket.IO, and on whom.
#[derive(clap::Args)]
pub(crate) struct SocketIoArguments {
    /// The process of Nexus, whose memory and CPU time are read.
    #[arg(long)]
    process: u32,
    /// Connections that are open at a time.
    #[arg(long, default_value_t = 10_000)]
    clients: u32,
}

/// All that one run measured.
#[derive(Serialize)]
pub(crate) struct Figures {
    idle: Idle,
    fan_out: Vec<Flow>,
    one_to_all: OneToAll,
    own_topics: OwnTopics,
}

/// Events of which each has one receiver.
#[derive(Serialize)]
struct OwnTopics {
    #[serde(flatten)]
    flow: Flow,
    /// From the beginning of the transaction that logged the event, which is before its commit, to its receiver. None of
    /// a server that logs none.
    from_commit: Option<Percentiles>,
}

/// Connections that are open and get nothing: authenticated, three subscriptions each.
#[derive(Serialize)]
pub(crate) struct Idle {
    clients: u32,
    opened_per_second: f64,
    server_cpu_ms_per_client: f64,
    resident_bytes_per_client: f64,
}

/// A steady flow of events.
#[derive(Serialize)]
struct Flow {
    clients: u32,
    events_per_second: u32,
    deliveries_per_second: f64,
    missing: u64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    server_cpu_seconds_per_million: f64,
}

/// One event for everybody.
#[derive(Serialize)]
struct OneToAll {
    clients: u32,
    events: u32,
    /// Until the last client has it.
    median_ms: f64,
    max_ms: f64,
}

/// How often batches are sent: each carries what has become due since the last.
const BATCH_TICK: Duration = Duration::from_millis(10);

/// How often single events are sent. As fine as the timer: a flow, not a crowd every now and then.
const TICK: Duration = Duration::from_millis(1);

/// How long stragglers are waited for.
const STRAGGLERS: Duration = Duration::from_secs(10);

/// Events to everybody.
const TO_ALL: u32 = 21;

/// Publishers of single events at a time.
const PUBLISHERS: usize = 32;

/// Measures everything.
pub(crate) async fn measure(target: &Target, arguments: &Arguments) -> Result<Figures> {
    let server = Process(arguments.process);
    let target = &target.by(match arguments.protocol {
        Protocol::WebSocket | Protocol::SocketIo => Api::CloudEvents,
        Protocol::Centrifugo => Api::Centrifugo,
    });
    let mut fan_out = Vec::new();
    let (idle, one_to_all, own_topics) = {
        let (idle, crowd) = idle(target, &server, arguments.clients, arguments.protocol).await?;
        eprintln!("idle: {}", serde_json::to_string(&idle)?);
        let meter = Arc::clone(&crowd.meter);
        let own = flow(target, &meter, &server, arguments.own_rate, 1, arguments, Kind::Singles).await?;
        let from_commit = match &arguments.database_url {
            Some(url) => Some(from_commit(&meter, url).await.context("compare with the times of the log")?),
            None => None,
        };
        let own = OwnTopics { flow: Flow { clients: arguments.clients, ..own }, from_commit };
        eprintln!("own topics: {}", serde_json::to_string(&own)?);
        let to_all = to_all(target, &crowd.meter, arguments.clients).await?;
        eprintln!("one to all: {}", serde_json::to_string(&to_all)?);
        (idle, to_all, own)
    };
    for (number, rate) in arguments.rates.iter().enumerate() {
        let meter = Arc::new(Meter::new(format!("fan{number}")));
        let source = 3 + u8::try_from(number).unwrap_or(0);
        let source = (source, arguments.protocol);
        let crowd = Crowd::open(target, &meter, arguments.subscribers, source, Interest::Shared).await?;
        let flow = flow(target, &crowd.meter, &server, *rate, arguments.subscribers, arguments, Kind::Batches).await?;
        eprintln!("fan-out: {}", serde_json::to_string(&flow)?);
        fan_out.push(flow);
    }
    Ok(Figures { idle, fan_out, one_to_all, own_topics })
}

/// Measures idle clients of Socket.IO: on a Nexus that has had no others, for what those have given back stays with it.
pub(crate) async fn measure_socket_io(target: &Target, arguments: &SocketIoArguments) -> Result<Idle> {
    let (idle, _crowd) = idle(target, &Process(arguments.process), arguments.clients, Protocol::SocketIo).await?;
    Ok(idle)
}

/// Opens clients; what that took, and what they cost once they are idle.
async fn idle(target: &Target, server: &Process, clients: u32, protocol: Protocol) -> Result<(Idle, Crowd)> {
    let before = server.resident_bytes()?;
    let cpu = server.cpu_seconds()?;
    let meter = Arc::new(Meter::new("own"));
    let begun = Instant::now();
    let crowd = Crowd::open(target, &meter, clients, (2, protocol), Interest::Own).await.context("open clients")?;
    let took = begun.elapsed().as_secs_f64();
    let cpu = server.cpu_seconds()? - cpu;
    sleep(Duration::from_secs(3)).await;
    let count = f64::from(clients);
    let idle = Idle {
        clients,
        opened_per_second: count / took,
        server_cpu_ms_per_client: cpu * 1_000.0 / count,
        #[allow(clippy::cast_precision_loss)] // Far below the precision of a float.
        resident_bytes_per_client: (server.resident_bytes()? as f64 - before as f64) / count,
    };
    Ok((idle, crowd))
}

/// How events are published.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// One request per event.
    Singles,
    /// One request per tick.
    Batches,
}

async fn flow(
    target: &Target,
    meter: &Arc<Meter>,
    server: &Process,
    rate: u32,
    receivers: u32,
    arguments: &Arguments,
    kind: Kind,
) -> Result<Flow> {
    meter.reset();
    let cpu = server.cpu_seconds()?;
    let begun = Instant::now();
    let events = publish(target, meter, rate, arguments, kind).await?;
    let want = u64::from(events) * u64::from(receivers);
    meter.until(want, STRAGGLERS).await;
    let elapsed = begun.elapsed().as_secs_f64();
    let cpu = server.cpu_seconds()? - cpu;
    let arrived = meter.deliveries();
    #[allow(clippy::cast_precision_loss)]
    let deliveries = arrived as f64;
    Ok(Flow {
        clients: receivers,
        events_per_second: rate,
        deliveries_per_second: deliveries / elapsed,
        missing: want.saturating_sub(arrived),
        p50_ms: meter.percentile(50),
        p99_ms: meter.percentile(99),
        max_ms: meter.percentile(100),
        server_cpu_seconds_per_million: cpu / deliveries * 1e6,
    })
}

/// How long after the beginning of its transaction each event had its receiver.
async fn from_commit(meter: &Meter, database_url: &str) -> Result<Percentiles> {
    const LOGGED: &str = "SELECT event ->> 'id', extract(epoch FROM recorded_at)::float8 FROM nexus.log
        WHERE starts_with(event ->> 'id', $1)";
    let mut connection = PgConnection::connect(database_url).await.context("connect to Postgres")?;
    let begin = format!("{}-", meter.series);
    let logged: Vec<(String, f64)> =
        sqlx::query_as(LOGGED).bind(&begin).fetch_all(&mut connection).await.context("read the times of the log")?;
    let took = logged.into_iter().filter_map(|(id, logged)| {
        let arrived = meter.arrival(id.strip_prefix(&begin)?.parse().ok()?)?;
        Some(Duration::from_secs_f64((arrived - logged).max(0.0)))
    });
    Percentiles::of(took.collect()).context("no event has arrived")
}

/// Publishes at a steady rate; how many events.
async fn publish(target: &Target, meter: &Arc<Meter>, rate: u32, arguments: &Arguments, kind: Kind) -> Result<u32> {
    let begun = Instant::now();
    let mut ticks = interval(if kind == Kind::Singles { TICK } else { BATCH_TICK });
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let places = Arc::new(tokio::sync::Semaphore::new(PUBLISHERS));
    let mut sending = tokio::task::JoinSet::new();
    let mut sent = 0_u32;
    while begun.elapsed() < Duration::from_secs(arguments.seconds.into()) {
        ticks.tick().await;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A small positive number.
        let due = (begun.elapsed().as_secs_f64() * f64::from(rate)) as u32;
        let numbers = sent..due.max(sent);
        sent = numbers.end;
        let groups: Vec<std::ops::Range<u32>> = match kind {
            Kind::Singles => numbers.map(|number| number..number + 1).collect(),
            Kind::Batches => vec![numbers],
        };
        for group in groups.into_iter().filter(|group| !group.is_empty()) {
            // When it is due, not when a place is free: a server that is slow is not spared.
            group.clone().for_each(|number| meter.sent(number));
            let place = Arc::clone(&places).acquire_owned().await?;
            let (target, meter) = (target.clone(), Arc::clone(meter));
            let clients = arguments.clients;
            sending.spawn(async move {
                let events: Vec<Event> =
                    group.map(|number| crowd::event(&target, &meter.series, number, clients)).collect();
                let published = match &*events {
                    [event] => target.publish(event).await,
                    events => target.publish_batch(events).await,
                };
                drop(place);
                published
            });
        }
    }
    while let Some(published) = sending.join_next().await {
        published??;
    }
    Ok(sent)
}

async fn to_all(target: &Target, meter: &Meter, clients: u32) -> Result<OneToAll> {
    let mut took = Vec::new();
    for number in 0..TO_ALL {
        meter.reset();
        meter.sent(number);
        target.publish(&crowd::event_to_all(target, &meter.series, number)).await?;
        timeout(STRAGGLERS, meter.until(clients.into(), STRAGGLERS)).await?;
        took.push(meter.percentile(100));
        sleep(Duration::from_millis(200)).await;
    }
    took.sort_by(f64::total_cmp);
    Ok(OneToAll { clients, events: TO_ALL, median_ms: took[took.len() / 2], max_ms: took[took.len() - 1] })
}
