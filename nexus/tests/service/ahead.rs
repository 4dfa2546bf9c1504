//! Large groups, of which one is written while the one before commits: their places are dense and in order, whatever comes
//! in between.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use sqlx::{Postgres, Transaction};
use tokio::task::{JoinHandle, JoinSet};
use uuid::Uuid;

use crate::sequencer::{key_of, leader_backend, terminate};
use crate::support::{Client, World, event, metric, until};

/// Events of a batch that is large enough to be written ahead.
const LARGE: usize = 100;

fn ids(name: &str) -> Vec<String> {
    (0..LARGE).map(|number| format!("{name}-{number}")).collect()
}

/// Publishes a batch, as often as it takes, and answers the place of each event.
async fn acknowledged(client: Client, ids: Vec<String>) -> Vec<(String, String)> {
    let events: Vec<Value> = ids.iter().map(|id| event(id, "a")).collect();
    loop {
        let answer = client.post("/v1/events", &json!(events)).await;
        match answer.status {
            200 | 201 => {
                let results = answer.body["results"].as_array().expect("one for each").iter();
                let places = results.map(|one| one["position"].as_str().expect("a position").to_owned());
                return places.zip(ids).collect();
            }
            503 => {}
            _ => panic!("{}", answer.text),
        }
    }
}

/// What the log holds, by place.
async fn log(world: &World) -> Vec<(String, String)> {
    let all = "SELECT epoch || '.' || log.seq, event ->> 'id' FROM log CROSS JOIN head ORDER BY log.seq";
    let log: Vec<(String, String)> = sqlx::query_as(all).fetch_all(&world.postgres).await.expect("ask");
    let dense = (1..=log.len()).map(|seq| format!("1.{seq}"));
    assert!(dense.eq(log.iter().map(|(place, _)| place.clone())), "{log:?}");
    log
}

/// Two batches under way: the first waits for a key that a transaction holds, the second is written and waits for the first.
struct TwoUnderWay {
    holds_the_key: Transaction<'static, Postgres>,
    first: JoinHandle<Vec<(String, String)>>,
    second: JoinHandle<Vec<(String, String)>>,
    /// The connection that the second was written over.
    backend: i32,
}

impl TwoUnderWay {
    /// The sequencer waits for a key no longer than a second. What comes too late for that is done again.
    async fn new(world: &World, client: &Client) -> Self {
        // It knows where the log ends by what it has stamped.
        client.publish(&event(&Uuid::new_v4().to_string(), "a")).await;
        let leader = leader_backend(world).await;
        loop {
            let [one, two] = ["first", "second"].map(|name| ids(&format!("{name}-{}", Uuid::new_v4())));
            let mut holds_the_key = world.postgres.begin().await.expect("begin");
            let hold = "INSERT INTO event_key (key, outbox_id) VALUES ($1, nextval('outbox_id'))";
            let key = key_of("/tests", &one[LARGE / 2]);
            sqlx::query(hold).bind(key).execute(&mut *holds_the_key).await.expect("hold the key");
            let first = tokio::spawn(acknowledged(client.clone(), one));
            until("the first to wait", async || waits_for_a_lock(world, leader).await.then_some(())).await;
            let second = tokio::spawn(acknowledged(client.clone(), two));
            let backend = until("the second to be written, or the first to give up", async || {
                let written = writer(world, leader).await;
                (written.is_some() || !waits_for_a_lock(world, leader).await).then_some(written)
            });
            if let Some(backend) = backend.await {
                return Self { holds_the_key, first, second, backend };
            }
            holds_the_key.rollback().await.expect("release");
            first.await.expect("published");
            second.await.expect("published");
        }
    }
}

async fn waits_for_a_lock(world: &World, backend: i32) -> bool {
    let asked = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock')";
    sqlx::query_scalar(asked).bind(backend).fetch_one(&world.postgres).await.expect("ask")
}

/// Who beside the leader has written to the log and waits to be told to go on.
async fn writer(world: &World, leader: i32) -> Option<i32> {
    let asked = "SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE relation = 'log'::regclass
        AND mode = 'RowExclusiveLock' AND state = 'idle in transaction' AND pid <> $1";
    sqlx::query_scalar(asked).bind(leader).fetch_optional(&world.postgres).await.expect("ask")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_ahead_follows_what_was_before_it() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let under_way = TwoUnderWay::new(&world, &client).await;
    let before = log(&world).await;
    under_way.holds_the_key.rollback().await.expect("release");
    let (first, second) = (under_way.first.await.expect("published"), under_way.second.await.expect("published"));
    assert_eq!(log(&world).await, [before, first, second].concat());
    assert!(metric(&client, "nexus_ahead_batches_total").await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_outbox_comes_before_what_was_written_ahead() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let under_way = TwoUnderWay::new(&world, &client).await;
    let before = log(&world).await;
    let insert = "INSERT INTO outbox (key, type, subject, event)
        VALUES (gen_random_uuid(), 'health.check', 'system/a', '{\"id\":\"meanwhile\"}')";
    sqlx::query(insert).execute(&world.postgres).await.expect("insert");
    under_way.holds_the_key.rollback().await.expect("release");
    let (first, second) = (under_way.first.await.expect("published"), under_way.second.await.expect("published"));
    let meanwhile = (format!("1.{}", before.len() + 1), "meanwhile".to_owned());
    assert_eq!(log(&world).await, [before, vec![meanwhile], first, second].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_connection_is_lost_is_stamped_all_the_same() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    for lost_is_the_leader in [false, true] {
        let leader = leader_backend(&world).await;
        let under_way = TwoUnderWay::new(&world, &client).await;
        let before = log(&world).await;
        terminate(&world, if lost_is_the_leader { leader } else { under_way.backend }).await;
        under_way.holds_the_key.rollback().await.expect("release");
        let (first, second) = (under_way.first.await.expect("published"), under_way.second.await.expect("published"));
        let mut stamped = [first, second].concat();
        // Each by itself is in its order; which of them was told first to come back may be first.
        stamped.sort_by_key(|(place, _)| place.split_once('.').and_then(|(_, seq)| seq.parse::<i64>().ok()));
        assert_eq!(log(&world).await, [before, stamped].concat());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_groups_are_stamped_once_while_the_lead_changes_hands() {
    let world = World::new().await;
    let instances = [world.nexus().await, world.nexus().await];
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let client = instances[writer % 2].client.clone();
        writers.spawn(async move {
            let mut places = Vec::new();
            for batch in 0..12 {
                places.extend(acknowledged(client.clone(), ids(&format!("{writer}-{batch}"))).await);
                // At times what was there before, of oneself or of another.
                places.extend(acknowledged(client.clone(), ids(&format!("{}-{}", batch % 8, batch / 2))).await);
            }
            places
        });
    }
    let mut killed = BTreeSet::new();
    while killed.len() < 3 {
        let backend = leader_backend(&world).await;
        if killed.insert(backend) {
            terminate(&world, backend).await;
        }
    }
    let places: BTreeMap<String, String> = writers.join_all().await.into_iter().flatten().collect();
    let log = log(&world).await;
    assert_eq!(log.len(), 8 * 12 * LARGE, "each is there once");
    assert_eq!(places.into_iter().collect::<BTreeSet<_>>(), log.into_iter().collect());
}
