//! Retention: at least the promised events stay, and who asks for older ones is told of the gap.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Postgres, Transaction};

use crate::support::{Client, Instance, World, event, until};

async fn publish_many(client: &Client, from: usize, count: usize) {
    let events: Vec<Value> = (from..from + count).map(|number| event(&format!("event-{number}"), "a")).collect();
    for batch in events.chunks(500) {
        client.publish(&json!(batch)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_events_go_and_at_least_a_thousand_stay() {
    let world = World::new().await;
    let client = world.nexus_with(|config| config.limits.retention_events_min = 1_000).await.client;
    publish_many(&client, 0, 3_500).await;
    let oldest = until("two partitions to go", async || {
        let oldest: i64 = sqlx::query_scalar("SELECT min(seq) FROM log").fetch_one(&world.postgres).await.expect("ask");
        (oldest > 2_000).then_some(oldest)
    });
    assert_eq!(oldest.await, 2_001);
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM log").fetch_one(&world.postgres).await.expect("ask");
    assert_eq!(kept, 1_500);
    until("the idempotency keys to follow", async || (count(&world, "event_key").await == 1_500).then_some(())).await;
    let ahead: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_inherits WHERE inhparent = 'log'::regclass")
        .fetch_one(&world.postgres)
        .await
        .expect("ask");
    assert!((3..=4).contains(&ahead), "old partitions are gone and one is made ahead: {ahead}");

    let page = client.history("after=1.10&limit=1").await.body;
    assert_eq!(page["gap"], json!({"from": "1.10", "to": "1.2000"}));
    assert_eq!(page["events"][0]["position"], "1.2001");
    let whole = client.history("limit=1").await.body;
    assert_eq!((whole.get("gap"), &whole["events"][0]["position"]), (None, &json!("1.2001")));
}

async fn oldest(world: &World) -> i64 {
    sqlx::query_scalar("SELECT min(seq) FROM log").fetch_one(&world.postgres).await.expect("ask")
}

/// Makes the entries up to `seq` a day old.
async fn age(world: &World, seq: i64) {
    let age = "UPDATE log SET recorded_at = recorded_at - interval '1 day' WHERE seq <= $1";
    sqlx::query(age).bind(seq).execute(&world.postgres).await.expect("the entries can be aged");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_goes_before_its_number_makes_it_go_and_a_thousand_stay() {
    let world = World::new().await;
    let start = async || {
        let change = |config: &mut nexus::config::Config| {
            config.limits.retention_events_min = 4_000;
            config.limits.retention_hours_max = Some(23);
        };
        world.nexus_with(change).await
    };
    // A pod looks through the log when it starts.
    let again = async |instance: Instance| {
        instance.nexus.stop(Duration::ZERO).await;
        start().await
    };
    let mut instance = start().await;
    publish_many(&instance.client, 0, 3_500).await;
    // All but the last entry of the second partition.
    age(&world, 1_999).await;
    instance = again(instance).await;
    until("the first partition to go", async || (oldest(&world).await == 1_001).then_some(())).await;
    let gap = instance.client.history("after=1.10&limit=1").await.body["gap"].clone();
    assert_eq!(gap, json!({"from": "1.10", "to": "1.1000"}));

    age(&world, 3_500).await;
    instance = again(instance).await;
    until("the second partition to go", async || (oldest(&world).await == 2_001).then_some(())).await;
    // As soon as a thousand are left behind it, the third one goes too.
    publish_many(&instance.client, 3_500, 499).await;
    instance = again(instance).await;
    assert_eq!(instance.client.history("limit=1").await.body["events"][0]["position"], "1.2001");
    publish_many(&instance.client, 3_999, 1).await;
    let _last = again(instance).await;
    until("the third partition to go", async || (oldest(&world).await == 3_001).then_some(())).await;
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM log").fetch_one(&world.postgres).await.expect("ask");
    assert_eq!(kept, 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_is_told_of_the_gap() {
    let world = World::new().await;
    let instance = world.nexus_with(|config| config.limits.retention_events_min = 1_000).await;
    publish_many(&instance.client, 0, 2_500).await;
    until("a partition to go", async || {
        let oldest: i64 = sqlx::query_scalar("SELECT min(seq) FROM log").fetch_one(&world.postgres).await.expect("ask");
        (oldest > 1_000).then_some(())
    })
    .await;
    // A new instance has not the dropped events in memory.
    let follower = world.nexus().await;
    let batch = follower.nexus.state().tail.read_after(5, 10).await.expect("the log can be read");
    assert!(matches!(batch, nexus::log::Batch::Gap { oldest: 1_001 }), "{batch:?}");
}

/// Pages are read while partitions go: each states exactly what it can no longer give.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_read_while_retention_drops_states_all_that_is_gone() {
    let world = World::new().await;
    let client = world.nexus_with(|config| config.limits.retention_events_min = 1_000).await.client;
    publish_many(&client, 0, 1).await;
    let reads = until("all expired partitions to be gone", async || {
        let mut gone = String::new();
        // Back to back, so that some fall beside a drop.
        for _ in 0..20 {
            let page = client.history("after=1.0&limit=1").await.body;
            gone = page["gap"]["to"].as_str().unwrap_or("1.0").to_owned();
            let next = gone.strip_prefix("1.").and_then(|seq| seq.parse::<i64>().ok()).expect("a position") + 1;
            assert_eq!(page["events"][0]["position"], format!("1.{next}"), "{page}");
        }
        (gone == "1.9000").then_some(())
    });
    tokio::join!(reads, publish_many(&client, 1, 10_000));
}

async fn count(world: &World, of: &'static str) -> i64 {
    let count = AssertSqlSafe(format!("SELECT count(*) FROM {of}"));
    sqlx::query_scalar(count).fetch_one(&world.postgres).await.expect("ask")
}

async fn run(world: &World, statements: &'static str) {
    sqlx::raw_sql(statements).execute(&world.postgres).await.expect("the statements are right");
}

/// Puts this many events into the log, in one partition of as many entries.
async fn fill_partition(world: &World, entries: i64) {
    const FILL: &str = "WITH filled AS (
            INSERT INTO log (seq, outbox_id, key, type, subject, event)
            SELECT seq, -seq, md5(seq::text)::uuid, 'health.check', 'system/a', '{\"data\":{}}'
            FROM generate_series(1, $1) AS seq RETURNING seq, key
        ), keyed AS (INSERT INTO event_key (key, outbox_id) SELECT key, -seq FROM filled)
        UPDATE head SET seq = $1";
    let mut connection = world.postgres.acquire().await.expect("connect");
    nexus::log::partitions::make_ahead(&mut connection, entries).await.expect("the partition can be made");
    sqlx::query(FILL).bind(entries).execute(&mut *connection).await.expect("the log can be filled");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_a_large_partition_go_in_statements_that_end_in_time() {
    let world = World::new().await;
    fill_partition(&world, 12_000).await;
    // Stands for the server's bound on a statement.
    run(
        &world,
        "CREATE FUNCTION refuse_many() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF (SELECT count(*) FROM gone) > 5000 THEN RAISE query_canceled; END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER refuse_many AFTER DELETE ON event_key REFERENCING OLD TABLE AS gone
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_many()",
    )
    .await;
    let client = world.nexus_with(|config| config.limits.retention_events_min = 1_000).await.client;
    publish_many(&client, 0, 1_000).await;
    until("the partition to go", async || (oldest(&world).await == 12_001).then_some(())).await;
    until("its keys to go", async || (count(&world, "event_key").await == 1_000).then_some(())).await;
}

/// A transaction that has read the log and not ended.
async fn reader(world: &World) -> Transaction<'static, Postgres> {
    let mut reader = world.postgres.begin().await.expect("begin");
    sqlx::query("SELECT min(seq) FROM log").execute(&mut *reader).await.expect("read");
    reader
}

async fn until_retention_waits(world: &World) {
    let waiting = "pg_locks JOIN pg_database ON pg_database.oid = database WHERE datname = current_database()
        AND relation = 'log'::regclass AND mode = 'AccessExclusiveLock' AND NOT granted";
    until("retention to wait for a reader", async || (count(world, waiting).await > 0).then_some(())).await;
}

/// Tables that were taken out of the log and not dropped yet.
async fn detached(world: &World) -> i64 {
    let detached = "pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'
        AND relname LIKE 'log\\_%' AND NOT relispartition";
    count(world, detached).await
}

async fn until_one_partition_is_gone(world: &World) {
    until("a partition to go", async || (oldest(world).await == 1_001).then_some(())).await;
    until("its keys to go", async || (detached(world).await == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_known_again_as_long_as_it_can_be_read() {
    let world = World::new().await;
    let client = world.nexus_with(|config| config.limits.retention_events_min = 1_000).await.client;
    let reader = reader(&world).await;
    publish_many(&client, 0, 2_500).await;
    until_retention_waits(&world).await;
    assert_eq!(client.publish(&event("event-0", "a")).await, "1.1");
    reader.rollback().await.expect("the reader ends");
    until_one_partition_is_gone(&world).await;
    assert_eq!(client.publish(&event("event-0", "a")).await, "1.2501");
    assert_eq!((count(&world, "log").await, count(&world, "event_key").await), (1_501, 1_501));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_an_event_that_was_published_again_stays() {
    let world = World::new().await;
    let client = world.nexus_with(|config| config.limits.retention_events_min = 1_000).await.client;
    let reader = reader(&world).await;
    publish_many(&client, 0, 2_500).await;
    // Pods of the version before delete keys while their entries can still be read.
    run(&world, "DELETE FROM event_key USING log WHERE event_key.key = log.key AND seq = 1").await;
    assert_eq!(client.publish(&event("event-0", "a")).await, "1.2501");
    reader.rollback().await.expect("the reader ends");
    until_one_partition_is_gone(&world).await;
    assert_eq!(client.publish(&event("event-0", "a")).await, "1.2501");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_pod_has_left_another_one_takes_up() {
    let world = World::new().await;
    fill_partition(&world, 12_000).await;
    run(
        &world,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE query_canceled; END $$;
        CREATE TRIGGER refuse BEFORE DELETE ON event_key FOR EACH ROW WHEN (OLD.outbox_id = -12000)
        EXECUTE FUNCTION refuse()",
    )
    .await;
    let start = async || world.nexus_with(|config| config.limits.retention_events_min = 1_000).await;
    let first = start().await;
    publish_many(&first.client, 0, 1_000).await;
    until("all keys but the last to go", async || (count(&world, "event_key").await == 3_000).then_some(())).await;
    assert_eq!(oldest(&world).await, 12_001);
    first.nexus.stop(Duration::ZERO).await;
    assert_eq!(count(&world, "log_10001_12001_gone").await, 12_000);
    run(&world, "DROP TRIGGER refuse ON event_key").await;
    let _second = start().await;
    until("the rest to go", async || (detached(&world).await == 0).then_some(())).await;
    assert_eq!((count(&world, "log").await, count(&world, "event_key").await), (1_000, 1_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_partition_is_vacuumed_retention_keeps_nobody_from_the_log() {
    let world = World::new().await;
    let client = world.nexus_with(|config| config.limits.retention_events_min = 1_000).await.client;
    publish_many(&client, 0, 1).await;
    let mut vacuum = world.postgres.begin().await.expect("begin");
    let lock = "LOCK TABLE log_1_1001 IN SHARE UPDATE EXCLUSIVE MODE";
    sqlx::query(lock).execute(&mut *vacuum).await.expect("the partition can be locked");
    publish_many(&client, 1, 2_499).await;
    let locks = "SELECT coalesce(max(held.mode), 'none') FROM pg_locks AS waiting LEFT JOIN pg_locks AS held
        ON held.pid = waiting.pid AND held.relation = 'log'::regclass AND held.granted AND held.mode LIKE '%Exclusive%'
        WHERE waiting.relation = 'log_1_1001'::regclass AND NOT waiting.granted HAVING count(*) > 0";
    let held = until("retention to wait for the vacuum", async || {
        sqlx::query_scalar::<_, String>(locks).fetch_optional(&world.postgres).await.expect("ask")
    });
    assert_eq!(held.await, "none");
    vacuum.rollback().await.expect("the vacuum ends");
    until_one_partition_is_gone(&world).await;
}

/// Few events, so that the partition in use takes all of them.
async fn sparse_world() -> (World, Instance) {
    let world = World::new().await;
    let instance = start_sparse(&world).await;
    publish_many(&instance.client, 0, 3_000).await;
    (world, instance)
}

async fn start_sparse(world: &World) -> Instance {
    world.nexus_with(|config| config.limits.retention_hours_max = Some(20)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_goes_also_when_its_partition_is_far_from_full() {
    let (world, mut instance) = sparse_world().await;
    let again = async |instance: Instance| {
        instance.nexus.stop(Duration::ZERO).await;
        start_sparse(&world).await
    };
    // Two days old, one day old, and new.
    age(&world, 1_500).await;
    age(&world, 1_800).await;
    instance = again(instance).await;
    until("all that is too old to go", async || (oldest(&world).await == 1_801).then_some(())).await;
    assert_eq!((count(&world, "log").await, count(&world, "event_key").await), (1_200, 1_200));
    let page = instance.client.history("after=1.10&limit=1").await.body;
    assert_eq!(
        (&page["gap"], &page["events"][0]["position"]),
        (&json!({"from": "1.10", "to": "1.1800"}), &json!("1.1801"))
    );
    assert_eq!(instance.client.publish(&event("event-1800", "a")).await, "1.1801");

    // The newest thousand stay, however old they are.
    age(&world, 3_000).await;
    age(&world, 3_000).await;
    instance = again(instance).await;
    until("all but a thousand to go", async || (oldest(&world).await == 2_001).then_some(())).await;
    assert_eq!((count(&world, "log").await, count(&world, "event_key").await), (1_000, 1_000));
    assert_eq!(instance.client.publish(&event("event-1800", "a")).await, "1.3001");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_transaction_has_seen_in_the_log_stays_until_it_ends() {
    let (world, instance) = sparse_world().await;
    instance.nexus.stop(Duration::ZERO).await;
    age(&world, 1_500).await;
    age(&world, 1_500).await;
    // A consumer looks where the log goes on, and then takes what is there.
    let mut consumer = reader(&world).await;
    let _instance = start_sparse(&world).await;
    until("retention to wait for it", async || {
        let waiting = "pg_locks WHERE relation = 'log_1_25001'::regclass AND NOT granted";
        (count(&world, waiting).await > 0).then_some(())
    })
    .await;
    let taken: i64 = sqlx::query_scalar("SELECT count(*) FROM log").fetch_one(&mut *consumer).await.expect("read");
    assert_eq!(taken, 3_000);
    consumer.rollback().await.expect("the consumer ends");
    until("all that is too old to go", async || (oldest(&world).await == 1_501).then_some(())).await;
}
