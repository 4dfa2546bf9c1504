//! The checker. Random publishers, followers by every way in, and random faults of pods, stores, networks and clocks; then what
//! each follower was given is compared with the log, filtered by what it may see: equal, in order, nothing twice.
//!
//! `cargo xtask chaos` runs it, for as long and with the seed that it is told; `cargo xtask test` runs it for some minutes. A
//! seed repeats the events, the faults and their order, not what the processors make of them.
#![allow(clippy::print_stdout, reason = "the seed, and what happened, are for people")]

mod check;
mod faults;
mod followers;
mod pods;
mod publishers;
mod stores;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use check::{Recorded, Seen};
use faults::Fault;
use followers::{Follower, Way};
use pods::{Clock, PODS, Pod};
use stores::{Ground, Postgres, Redis, until};

/// How often followers are looked at.
const LOOK_PERIOD: Duration = Duration::from_millis(100);
/// How long faults strike, in seconds, when `AZORA_CHAOS_SECONDS` does not say.
const SECONDS: u64 = 120;
/// Publishers over HTTP; one more publishes by SQL.
const PUBLISHERS: usize = 3;
/// Longest that a fault stands, in milliseconds: longer than the time-outs of Nexus' clients of its stores.
const FAULT_MS: u64 = 6_000;
/// Longest rest after a fault, in milliseconds.
const REST_MS: u64 = 2_500;
/// Once all is mended, followers are waited for as long as any of them was given something in this time.
const STALLED: Duration = Duration::from_mins(1);

/// What runs here, in the hands of who lets it fail.
struct World {
    postgres: Postgres,
    redis: Redis,
    pods: Vec<Pod>,
    clock: Clock,
    field: Arc<Field>,
    ground: Ground,
}

/// What publishers and followers know of it.
struct Field {
    pods: Vec<SocketAddr>,
    http: reqwest::Client,
    postgres: Mutex<String>,
    open: AtomicBool,
}

impl Field {
    /// Whether publishers are to go on.
    fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    fn any_pod(&self, rng: &mut StdRng) -> SocketAddr {
        self.pods[rng.random_range(0..self.pods.len())]
    }

    fn postgres_url(&self) -> String {
        self.postgres.lock().expect("nobody has panicked").clone()
    }
}

/// A generator of one's own.
fn chance(rng: &mut StdRng) -> StdRng {
    StdRng::seed_from_u64(rng.random())
}

impl World {
    async fn start(rng: &mut StdRng) -> Result<Self> {
        let ground = Ground::new()?;
        let clock = Clock::find()?;
        let postgres = Postgres::start(&ground).await?;
        let redis = Redis::start(&ground).await?;
        pods::migrate(&ground, &postgres).await?;
        let mongo = std::env::var("AZORA_TEST_MONGO_URL").context("AZORA_TEST_MONGO_URL is not set")?;
        let mongo = mongo.replacen("/?", &format!("/chaos_{}?", Uuid::new_v4().simple()), 1);
        let mut pods = Vec::new();
        for number in 0..PODS {
            let mut pod = Pod::new(number, (&postgres, &redis), &mongo).await?;
            pod.start(&clock, rng)?;
            pods.push(pod);
        }
        let field = Field {
            pods: pods.iter().map(|pod| pod.address).collect(),
            http: reqwest::Client::new(),
            postgres: Mutex::new(postgres.url()),
            open: AtomicBool::new(true),
        };
        let world = Self { postgres, redis, pods, clock, field: Arc::new(field), ground };
        world.until_ready().await?;
        Ok(world)
    }

    async fn until_ready(&self) -> Result<()> {
        for (number, pod) in self.pods.iter().enumerate() {
            until(&format!("pod {number} to be ready"), async || pod.is_ready().await.then_some(())).await?;
        }
        Ok(())
    }

    /// Tells everybody where the primary is, and closes what leads to the old one.
    fn lead_to_primary(&self) {
        *self.field.postgres.lock().expect("nobody has panicked") = self.postgres.url();
        for pod in &self.pods {
            pod.postgres.lead_to(&self.postgres.address());
        }
    }

    async fn log(&self) -> Result<Vec<Recorded>> {
        let mut connection = self.postgres.connect().await?;
        let rows: Vec<(i32, i64, String, String, Value)> = sqlx::query_as(
            "SELECT epoch, log.seq, type, subject, event::jsonb FROM nexus.log CROSS JOIN nexus.head ORDER BY log.seq",
        )
        .fetch_all(&mut connection)
        .await
        .context("read the log")?;
        let recorded = |(epoch, seq, event_type, subject, event): (i32, i64, String, String, Value)| {
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            let seen = Seen { position: format!("{epoch}.{seq}"), subject, id: text("id") };
            Recorded { seen, event_type, source: text("source"), data: event["data"].clone() }
        };
        Ok(rows.into_iter().map(recorded).collect())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_every_follower_is_given_the_log_that_it_may_see_exactly() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let seed: u64 = number("AZORA_CHAOS_SEED").unwrap_or_else(rand::random);
    let seconds = number("AZORA_CHAOS_SECONDS").unwrap_or(SECONDS);
    println!("seed {seed}, {seconds} s; `cargo xtask chaos --seed {seed} --seconds {seconds}` repeats it");
    let faults = run(seed, Duration::from_secs(seconds)).await.expect("the ground holds");
    assert!(faults.is_empty(), "seed {seed}:\n{}", faults.join("\n"));
}

/// What was wrong.
async fn run(seed: u64, duration: Duration) -> Result<Vec<String>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::start(&mut rng).await?;
    let field = Arc::clone(&world.field);
    publishers::put(&field, &Value::Array(publishers::first_events()), &mut rng).await?;
    let followers = followers::all();
    let mut following = follow(&field, &followers, &mut rng).await?;
    let mut publishing = JoinSet::new();
    for number in 0..PUBLISHERS {
        publishing.spawn(publishers::publish(Arc::clone(&field), number, chance(&mut rng)));
    }
    publishing.spawn(publishers::publish_by_sql(Arc::clone(&field), chance(&mut rng)));

    let struck = strike(&mut world, duration, &mut rng).await?;
    let mended = Instant::now();
    let passed = |what: &str| println!("{:6.1} s after the last fault: {what}", mended.elapsed().as_secs_f64());
    field.open.store(false, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    while let Some(published) = publishing.join_next().await {
        acknowledged.extend(published.context("a publisher panicked")??);
    }
    passed("the publishers have done");
    world.until_ready().await?;
    passed("all pods are ready");
    let log = world.log().await?;
    let (mut given, mut since, mut left) = (0, Instant::now(), followers.clone());
    while since.elapsed() < STALLED && !left.is_empty() {
        for done in left.extract_if(.., |follower| follower.is_done(&log)) {
            passed(&format!("{} has everything", done.name));
        }
        let before = given;
        given = followers.iter().map(|follower| follower.given()).sum();
        if given > before {
            since = Instant::now();
        }
        sleep(LOOK_PERIOD).await;
    }
    following.shutdown().await;
    println!("{struck} faults, {} events, {} of them acknowledged to publishers", log.len(), acknowledged.len());
    for follower in &followers {
        println!("{}", follower.tale());
    }
    let mut faults = check::faults_of_log(&log, &acknowledged);
    faults.extend(followers.iter().flat_map(|follower| follower.faults(&log)));
    Ok(faults)
}

async fn follow(field: &Arc<Field>, followers: &[Arc<Follower>], rng: &mut StdRng) -> Result<JoinSet<()>> {
    let mut following = JoinSet::new();
    for follower in followers {
        let times = match follower.way {
            Way::Worker => {
                followers::make_consumer(follower, field, rng).await?;
                2
            }
            Way::Receiver => {
                followers::make_webhook(follower, field, rng).await?;
                0
            }
            _ => 1,
        };
        for _ in 0..times {
            following.spawn(Arc::clone(follower).follow(Arc::clone(field), chance(rng)));
        }
    }
    Ok(following)
}

/// Lets one or two faults at a time strike, and mends them; how many there were.
async fn strike(world: &mut World, duration: Duration, rng: &mut StdRng) -> Result<u32> {
    let begun = Instant::now();
    let mut struck = 0;
    while begun.elapsed() < duration {
        let mut faults = vec![Fault::any(rng)];
        let another = Fault::any(rng);
        if rng.random_bool(0.5) && another.goes_with(faults[0]) {
            faults.push(another);
        }
        let standing = Duration::from_millis(rng.random_range(0..FAULT_MS));
        for fault in &faults {
            println!("{:6.1} s: {fault}", begun.elapsed().as_secs_f64());
            fault.strike(world).await.with_context(|| format!("{fault}"))?;
            struck += 1;
        }
        sleep(standing).await;
        for fault in &faults {
            fault.mend(world, rng).await.with_context(|| format!("mend: {fault}"))?;
        }
        sleep(Duration::from_millis(rng.random_range(0..REST_MS))).await;
    }
    Ok(struck)
}
