//! The sequencer: dense numbers whatever happens, and a new leader when the old one is gone.

use std::collections::BTreeSet;

use nexus::metrics::WakeUp;
use serde_json::{Value, json};

use crate::support::{Client, Instance, Proxy, World, event, metric, until};

/// Backend of the connection that holds the sequencer's lock.
pub(crate) async fn leader_backend(world: &World) -> i32 {
    const FIND: &str = "
        WITH key AS (SELECT hashtextextended(current_schema || '.sequencer', 0) AS value)
        SELECT pid FROM pg_locks, key WHERE locktype = 'advisory' AND granted AND objsubid = 1
        AND classid::bigint = (value >> 32) & 4294967295 AND objid::bigint = value & 4294967295";
    until("a sequencer to lead", async || sqlx::query_scalar(FIND).fetch_optional(&world.postgres).await.expect("ask"))
        .await
}

pub(crate) async fn terminate(world: &World, backend: i32) {
    let done: bool = sqlx::query_scalar("SELECT pg_terminate_backend($1)")
        .bind(backend)
        .fetch_one(&world.postgres)
        .await
        .expect("ask");
    assert!(done, "the leader's connection was there");
}

fn leaders(instances: &[Instance]) -> usize {
    instances.iter().filter(|instance| instance.nexus.state().wake.is_leading()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_dense_while_the_lead_changes_hands_under_load() {
    let world = World::new().await;
    let instances = [world.nexus().await, world.nexus().await];
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..6 {
        let client = instances[writer % 2].client.clone();
        writers.spawn(write_until_all_are_acknowledged(client, writer));
    }
    let mut killed = BTreeSet::new();
    while killed.len() < 4 {
        let backend = leader_backend(&world).await;
        // A connection that was just killed may still be listed.
        if killed.insert(backend) {
            terminate(&world, backend).await;
        }
    }
    let acknowledged: BTreeSet<String> = writers.join_all().await.into_iter().flatten().collect();
    assert_eq!(acknowledged.len(), 6 * 40, "every acknowledged event has a place of its own");
    let log = world.log().await;
    assert_eq!(log.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), (1..=240).collect::<Vec<_>>());
    assert_eq!(log.iter().map(|(_, outbox_id)| outbox_id).collect::<BTreeSet<_>>().len(), 240);
}

/// Repeats until acknowledged, as a client should: publishing is idempotent.
async fn write_until_all_are_acknowledged(client: Client, writer: usize) -> Vec<String> {
    let mut places = Vec::new();
    for number in 0..40 {
        let event = event(&format!("{writer}-{number}"), &format!("writer-{writer}"));
        places.push(acknowledged(&client, &event).await);
    }
    places
}

async fn acknowledged(client: &Client, event: &Value) -> String {
    loop {
        let answer = client.post("/v1/events", event).await;
        match (answer.status, answer.header("nexus-position")) {
            (200 | 201, Some(place)) => return place.to_owned(),
            (503, _) => {}
            _ => panic!("{}", answer.text),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_instance_leads_when_the_leader_stops() {
    let world = World::new().await;
    let one = world.nexus().await;
    until("the first to lead", async || one.nexus.state().wake.is_leading().then_some(())).await;
    let two = world.nexus().await;
    two.client.publish(&event("while-the-first-leads", "a")).await;
    assert!(!two.nexus.state().wake.is_leading());
    one.nexus.stop(std::time::Duration::ZERO).await;
    assert_eq!(two.client.publish(&event("after", "a")).await, "1.2");
    assert!(two.nexus.state().wake.is_leading());
}

#[tokio::test(flavor = "multi_thread")]
async fn at_most_one_leads() {
    let world = World::new().await;
    let instances = [world.nexus().await, world.nexus().await, world.nexus().await];
    for round in 0..30 {
        instances[round % 3].client.publish(&event(&format!("event-{round}"), "a")).await;
        assert_eq!(leaders(&instances), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_commits_late_is_not_skipped() {
    let world = World::new().await;
    let _nexus = world.nexus().await;
    let mut late = world.postgres.begin().await.expect("begin");
    let insert = "INSERT INTO outbox (key, type, subject, event)
        VALUES (gen_random_uuid(), 'health.check', 'system/a', '{\"id\":\"one\"}') RETURNING id";
    let late_id: i64 = sqlx::query_scalar(insert).fetch_one(&mut *late).await.expect("insert");
    let early_id: i64 = sqlx::query_scalar(insert).fetch_one(&world.postgres).await.expect("insert");
    assert!(early_id > late_id);
    until("the early event", async || (world.log().await == [(1, early_id)]).then_some(())).await;
    late.commit().await.expect("commit");
    // Its number is older, its place later.
    until("the late event", async || (world.log().await == [(1, early_id), (2, late_id)]).then_some(())).await;
}

/// Pods that listen for the notifications of Postgres.
async fn listeners(world: &World) -> i64 {
    let query = format!("LISTEN \"{}_log\"", world.config.database.schema);
    let count = "SELECT count(*) FROM pg_stat_activity WHERE query = $1";
    sqlx::query_scalar(count).bind(query).fetch_one(&world.postgres).await.expect("ask")
}

fn wake_ups(instance: &Instance, by: &'static str) -> u64 {
    instance.nexus.state().metrics.wake_ups.get_or_create(&WakeUp { by }).get()
}

/// Publishes at `from` until `by` has told `to` of a batch once more.
async fn until_told(to: &Instance, by: &'static str, from: &Instance) {
    let before = wake_ups(to, by);
    until("a wake-up", async || {
        from.client.publish(&event(&uuid::Uuid::new_v4().to_string(), "a")).await;
        (wake_ups(to, by) > before).then_some(())
    })
    .await;
    let head = from.nexus.state().tail.head();
    until("the batch to be read", async || (to.nexus.state().tail.head() >= head).then_some(())).await;
}

async fn until_listeners(world: &World, want: i64) {
    until("the listeners to change", async || (listeners(world).await == want).then_some(())).await;
}

/// One that leads, and another that Redis tells of what is stamped, through a network that can be taken away.
async fn leader_and_other(world: &World) -> (Instance, Proxy, Instance) {
    let leader = world.nexus().await;
    until("the first to lead", async || leader.nexus.state().wake.is_leading().then_some(())).await;
    let (proxy, redis_url) = Proxy::before(world.config.redis_url.expose()).await;
    let other = world.nexus_with(|config| config.redis_url = redis_url.as_str().into()).await;
    until_told(&other, "redis", &leader).await;
    (leader, proxy, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_redis_is_away_is_told_by_postgres_meanwhile() {
    let world = World::new().await;
    let (leader, proxy, other) = leader_and_other(&world).await;
    until_listeners(&world, 0).await;
    proxy.cut();
    until_listeners(&world, 1).await;
    until_told(&other, "postgres", &leader).await;
    proxy.mend();
    until_told(&other, "redis", &leader).await;
    until_listeners(&world, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_to_redis_that_leads_nowhere_is_replaced() {
    let world = World::new().await;
    let (leader, proxy, other) = leader_and_other(&world).await;
    proxy.freeze_connections();
    until_told(&other, "postgres", &leader).await;
    until_told(&other, "redis", &leader).await;
    until_listeners(&world, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_leaders_redis_is_away_the_others_are_told_by_postgres() {
    let world = World::new().await;
    let (proxy, redis_url) = Proxy::before(world.config.redis_url.expose()).await;
    let leader = world.nexus_with(|config| config.redis_url = redis_url.as_str().into()).await;
    until("the first to lead", async || leader.nexus.state().wake.is_leading().then_some(())).await;
    let other = world.nexus().await;
    until_told(&other, "redis", &leader).await;
    proxy.cut();
    until_told(&other, "postgres", &leader).await;
    assert_eq!(listeners(&world).await, 1, "the leader itself need not be told");
    proxy.mend();
    until_told(&other, "redis", &leader).await;
    until_listeners(&world, 0).await;
}

/// Until a statement of the sequencer waits for a lock that the test holds.
async fn until_the_sequencer_is_blocked(world: &World) {
    const BLOCKED: &str = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'";
    let leader = leader_backend(world).await;
    until("the sequencer to wait for the lock", async || {
        let blocked: i64 = sqlx::query_scalar(BLOCKED).bind(leader).fetch_one(&world.postgres).await.expect("ask");
        (blocked == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_stamping_transaction_waits_for_the_head() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    // Whoever holds the head keeps even the leader from stamping: the fence behind the lock.
    let mut fence = world.postgres.begin().await.expect("begin");
    sqlx::query("SELECT seq FROM head FOR UPDATE").execute(&mut *fence).await.expect("lock");
    let publish = tokio::spawn(async move { client.publish(&event("one", "a")).await });
    until_the_sequencer_is_blocked(&world).await;
    assert_eq!(world.log().await, []);
    fence.rollback().await.expect("release");
    assert_eq!(publish.await.expect("published"), "1.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_needs_no_outbox_to_publish() {
    let world = World::new().await;
    let leader = world.nexus().await;
    until("the first to lead", async || leader.nexus.state().wake.is_leading().then_some(())).await;
    let (leader, other) = (leader.client, world.nexus().await.client);
    for statement in [
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no outbox'; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT ON outbox EXECUTE FUNCTION refuse()",
    ] {
        sqlx::query(statement).execute(&world.postgres).await.expect("refuse the outbox");
    }
    assert_eq!(leader.publish(&event("one", "a")).await, "1.1");
    assert_eq!(other.post("/v1/events", &event("two", "a")).await.problem(), (503, "unavailable"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_has_the_epoch_of_the_log_and_not_of_what_the_pod_has_read() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    assert_eq!(client.publish(&event("before", "a")).await, "1.1");
    // As after the log was restored from a backup; the pod has not looked yet.
    sqlx::query("UPDATE head SET epoch = 2").execute(&world.postgres).await.expect("change the epoch");
    assert_eq!(client.publish(&event("after", "a")).await, "2.2");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_comes_after_everything_in_the_outbox() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let publish = |id: &'static str| {
        let client = client.clone();
        tokio::spawn(async move { client.publish(&event(id, "a")).await })
    };
    let mut fence = world.postgres.begin().await.expect("begin");
    sqlx::query("SELECT seq FROM head FOR UPDATE").execute(&mut *fence).await.expect("lock");
    let first = publish("first");
    until_the_sequencer_is_blocked(&world).await;
    // More than one batch, committed before the second publish begins.
    let fill = "INSERT INTO outbox (key, type, subject, event)
        SELECT gen_random_uuid(), 'health.check', 'system/a', '{\"id\":\"older\"}' FROM generate_series(1, 2500)";
    sqlx::query(fill).execute(&world.postgres).await.expect("fill the outbox");
    let second = publish("second");
    until("the second to wait in the pod, or on a slow machine both in the outbox", async || {
        let outbox = "SELECT count(*) FROM outbox";
        let outbox: i64 = sqlx::query_scalar(outbox).fetch_one(&world.postgres).await.expect("ask");
        let queued = client.get("/metrics").await.text.contains("\nnexus_publish_queue_requests 1\n");
        (queued || outbox == 2_502).then_some(())
    })
    .await;
    fence.rollback().await.expect("release");
    first.await.expect("published");
    let second = second.await.expect("published");
    until("the outbox to be stamped", async || (world.log().await.len() == 2_502).then_some(())).await;
    let newest = "SELECT max(seq) FROM log WHERE event ->> 'id' = 'older'";
    let newest: i64 = sqlx::query_scalar(newest).fetch_one(&world.postgres).await.expect("ask");
    let second: i64 = second.trim_start_matches("1.").parse().expect("a place");
    assert!(second > newest, "{second} is not behind {newest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_holds_the_key_of_one_event_does_not_hold_up_the_others() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    client.publish(&event("first", "a")).await;
    let leader = leader_backend(&world).await;
    // Someone publishes by SQL what is then published over HTTP too, and takes a long time to commit.
    let mut open = world.postgres.begin().await.expect("begin");
    let key = "INSERT INTO event_key (key, outbox_id) VALUES ($1, nextval('outbox_id'))";
    sqlx::query(key).bind(key_of("/tests", "held")).execute(&mut *open).await.expect("hold the key");
    let publisher = client.clone();
    let held = tokio::spawn(async move { acknowledged(&publisher, &event("held", "a")).await });
    until_the_sequencer_is_blocked(&world).await;
    for number in 0..20 {
        client.publish(&event(&format!("other-{number}"), "a")).await;
    }
    assert!(!held.is_finished(), "its key is still held");
    assert_eq!(leader_backend(&world).await, leader, "the lead is not lost over it");
    open.rollback().await.expect("release");
    assert_eq!(held.await.expect("published"), "1.22");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_held_does_not_hold_up_those_of_the_same_group() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let publish = |id: String| {
        let client = client.clone();
        tokio::spawn(async move { acknowledged(&client, &event(&id, "a")).await })
    };
    let mut open = world.postgres.begin().await.expect("begin");
    let key = "INSERT INTO event_key (key, outbox_id) VALUES ($1, nextval('outbox_id'))";
    sqlx::query(key).bind(key_of("/tests", "held")).execute(&mut *open).await.expect("hold the key");
    // While the log cannot grow, all of them gather.
    let mut fence = world.postgres.begin().await.expect("begin");
    sqlx::query("SELECT seq FROM head FOR UPDATE").execute(&mut *fence).await.expect("lock");
    let first = publish("first".to_owned());
    until_the_sequencer_is_blocked(&world).await;
    let held = publish("held".to_owned());
    let once = |id: String| {
        let client = client.clone();
        tokio::spawn(async move { client.publish(&event(&id, "a")).await })
    };
    let others: Vec<_> = (0..10).map(|number| once(format!("other-{number}"))).collect();
    until("all to wait in one group", async || {
        (metric(&client, "nexus_publish_queue_requests").await == 11).then_some(())
    })
    .await;
    fence.rollback().await.expect("release");
    first.await.expect("published");
    for other in others {
        other.await.expect("published at the first time");
    }
    assert!(!held.is_finished(), "its key is still held");
    open.rollback().await.expect("release");
    assert_eq!(held.await.expect("published"), "1.12");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_the_log_cannot_take_is_set_aside_and_holds_up_no_other() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    client.publish(&event("first", "a")).await;
    let leader = leader_backend(&world).await;
    // Every seventh hundred is told in a room whose name fits into no index.
    let fill = "INSERT INTO outbox (key, type, subject, event, audience)
        SELECT gen_random_uuid(), 'health.check', 'system/a', json_build_object('id', number::text), CASE
            WHEN number % 700 = 0
            THEN ARRAY[(SELECT string_agg(md5(number::text || part), '') FROM generate_series(1, 200) part)]
            ELSE '{}' END
        FROM generate_series(1, 2500) number";
    sqlx::query(fill).execute(&world.postgres).await.expect("fill the outbox");
    let meanwhile = client.publish(&event("meanwhile", "a")).await;
    assert_eq!(meanwhile, "1.2499", "it comes after what was committed before it");
    let log: Vec<String> = sqlx::query_scalar("SELECT event ->> 'id' FROM log ORDER BY seq")
        .fetch_all(&world.postgres)
        .await
        .expect("ask");
    let wanted: Vec<String> =
        (1..=2500).filter(|number| number % 700 != 0).map(|number: i64| number.to_string()).collect();
    assert_eq!((&log[0], &log[1..2498], &log[2498]), (&"first".to_owned(), &*wanted, &"meanwhile".to_owned()));
    assert_eq!(leader_backend(&world).await, leader, "the lead is not lost over it");

    let refused = "SELECT event ->> 'id', reason FROM outbox_refused ORDER BY id";
    let refused: Vec<(String, String)> = sqlx::query_as(refused).fetch_all(&world.postgres).await.expect("ask");
    assert_eq!(refused.iter().map(|(id, _)| &**id).collect::<Vec<_>>(), ["700", "1400", "2100"]);
    assert!(refused.iter().all(|(_, reason)| reason.starts_with("index row size")), "{refused:?}");
    assert_eq!(metric(&client, "nexus_refused_events_total").await, 3);
    let health = client.get("/health").await.body;
    assert_eq!((&health["status"], &health["log"]["refused"]), (&json!("degraded"), &json!(3)));

    // As docs/CLIENTS.md says, once what stood in the way is mended.
    for statement in [
        "UPDATE outbox_refused SET audience = '{}'",
        "WITH back AS (DELETE FROM outbox_refused RETURNING *)
            INSERT INTO outbox (id, key, type, subject, event, audience)
            SELECT id, key, type, subject, event, audience FROM back",
    ] {
        sqlx::query(statement).execute(&world.postgres).await.expect("they go back");
    }
    until("them to be stamped", async || (world.log().await.len() == 2502).then_some(())).await;
    assert_eq!(client.get("/health").await.body["status"], "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_the_outbox_is_bounded_by_its_bytes_too() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    client.publish(&event("first", "a")).await;
    let before = metric(&client, "nexus_stamped_batches_total").await;
    let fill = "INSERT INTO outbox (key, type, subject, event)
        SELECT gen_random_uuid(), 'health.check', 'system/a', json_build_object('id', number::text, 'data',
            -- Text of which Postgres keeps a hundredth.
            repeat(number::text || ' ', 57600 / (1 + length(number::text))))
        FROM generate_series(1, 300) number";
    sqlx::query(fill).execute(&world.postgres).await.expect("fill the outbox");
    client.publish(&event("after", "a")).await;
    let batches = metric(&client, "nexus_stamped_batches_total").await - before;
    assert!((3..=20).contains(&batches), "{batches} batches for 17 MB of text");
    let ids: Vec<String> = sqlx::query_scalar("SELECT event ->> 'id' FROM log WHERE seq > 1 ORDER BY seq")
        .fetch_all(&world.postgres)
        .await
        .expect("ask");
    let wanted: Vec<String> = (1..=300).map(|number| number.to_string()).chain(["after".to_owned()]).collect();
    assert_eq!(ids, wanted);
}

/// The key under which the log knows an event again.
pub(crate) fn key_of(source: &str, id: &str) -> uuid::Uuid {
    let event = nexus::events::CloudEvent {
        id: id.to_owned(),
        source: source.to_owned(),
        event_type: String::new(),
        subject: String::new(),
        time: jiff::Timestamp::UNIX_EPOCH,
        version: 1,
        data: Value::Null,
        extensions: std::collections::BTreeMap::new(),
    };
    nexus::log::NewEvent::accepted(event, nexus::events::Audience::default()).key()
}
