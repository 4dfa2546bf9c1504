//! The caches: which tier answers, and that none of them answers with what it should not.

use std::sync::Arc;
use std::time::Instant;

use nexus::records::{load, user};
use nexus::sync::STALENESS_MAX;
use reqwest::Method;
use serde_json::Value;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::support::{Answer, Instance, Proxy, World, until};

async fn register(instance: &Instance, name: &str) -> (Uuid, String) {
    let user = serde_json::json!({"email": format!("{name}@example.org"), "display_name": name});
    let answer = instance.client.post("/v1/users", &user).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let id = answer.body["id"].as_str().and_then(|id| id.parse().ok()).expect("a user has an id");
    (id, answer.header("nexus-position").expect("a write has a position").to_owned())
}

async fn log_in(instance: &Instance, id: Uuid) -> (i64, String) {
    let answer = instance.client.post(&format!("/v1/users/{id}/logins"), &Value::Null).await;
    let position = answer.header("nexus-position").expect("a write has a position").to_owned();
    (version(&answer), position)
}

async fn read(instance: &Instance, id: Uuid) -> Answer {
    let answer = instance.client.get(&format!("/v1/users/{id}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer
}

async fn read_at_least(instance: &Instance, path: &str, position: &str) -> Answer {
    let request = instance.client.request(Method::GET, path).header("nexus-min-position", position);
    instance.client.send(request).await
}

fn version(answer: &Answer) -> i64 {
    answer.body["version"].as_i64().unwrap_or_else(|| panic!("{}", answer.text))
}

fn tier(answer: &Answer) -> &str {
    answer.header("nexus-cache").expect("a cached read names its tier")
}

/// Reads until the tier answers: a pod that has just started serves nothing from its caches
/// before it has confirmed that it is at the head.
async fn read_from(instance: &Instance, id: Uuid, wanted: &str) -> Answer {
    until(wanted, async || Some(read(instance, id).await).filter(|answer| tier(answer) == wanted)).await
}

/// What `FLUSHALL` does to this data layer; the other tests share the server.
async fn empty_redis(world: &World) {
    let client = redis::Client::open(world.config.redis_url.expose()).expect("the URL is one of Redis");
    let mut connection = client.get_multiplexed_async_connection().await.expect("Redis answers");
    let pattern = format!("{}*", world.config.redis_prefix);
    let keys: Vec<String> =
        redis::cmd("KEYS").arg(pattern).query_async(&mut connection).await.expect("the keys are listed");
    if !keys.is_empty() {
        let _: i64 = redis::cmd("DEL").arg(keys).query_async(&mut connection).await.expect("the keys are removed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_goes_through_the_tiers_and_tells_which_one_answered() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await, world.nexus().await);
    let (id, position) = register(&one, "ada").await;
    let local = read_from(&one, id, "l1").await;
    assert_eq!(local.header("nexus-as-of"), Some(position.as_str()));
    assert!(local.header("age").is_some_and(|age| age.parse::<u64>().is_ok()));
    let shared = read_from(&two, id, "l2").await;
    assert_eq!(shared.body, local.body);
    assert_eq!(read_from(&two, id, "l1").await.body, local.body);
    let nobody = format!("/v1/users/{}", Uuid::nil());
    assert_eq!(one.client.get(&nobody).await.status, 404);
    let metrics = one.client.get("/metrics").await.text;
    assert!(metrics.contains(r#"nexus_cache_reads_total{tier="l1"}"#), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_at_one_instance_is_never_read_stale_at_the_other_beyond_the_bound() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await, world.nexus().await);
    let (id, _) = register(&one, "ada").await;
    for _ in 0..40 {
        // The other instance holds the value in its memory when the write comes.
        read_from(&two, id, "l1").await;
        let (written, position) = log_in(&one, id).await;
        let committed = Instant::now();
        let own = read_at_least(&two, &format!("/v1/users/{id}"), &position).await;
        assert_eq!(version(&own), written, "read-your-writes on the other instance");
        loop {
            let asked = committed.elapsed();
            let answer = read(&two, id).await;
            if version(&answer) == written {
                break;
            }
            assert!(asked <= STALENESS_MAX, "stale {asked:?} after the write");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_cannot_put_back_a_stale_value_even_into_an_emptied_redis() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await, world.nexus().await);
    let (id, _) = register(&one, "ada").await;
    read_from(&one, id, "l1").await;
    for empties in [false, true] {
        let (_, position) = log_in(&one, id).await;
        let slow = SlowReader::begin(&one, id, &position).await;
        let (written, position) = log_in(&two, id).await;
        for instance in [&one, &two] {
            let answer = read_at_least(instance, &format!("/v1/users/{id}"), &position).await;
            assert_eq!(version(&answer), written);
        }
        if empties {
            empty_redis(&world).await;
        }
        slow.finish().await;
        // The stale value may lie in memory and in Redis by now; it is served from neither.
        for instance in [&one, &two, &world.nexus().await] {
            for _ in 0..5 {
                assert_eq!(version(&read(instance, id).await), written, "emptied: {empties}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_reads_are_answered_and_still_never_stale() {
    let world = World::new().await;
    let (proxy, redis_url) = Proxy::before(world.config.redis_url.expose()).await;
    let redis_url = nexus::config::Secret::from(redis_url.as_str());
    let one = world.nexus_with(|config| config.redis_url = redis_url.clone()).await;
    let two = world.nexus_with(|config| config.redis_url = redis_url).await;
    let (id, _) = register(&one, "ada").await;
    read_from(&two, id, "l1").await;
    proxy.cut();
    for _ in 0..5 {
        let (written, position) = log_in(&one, id).await;
        let own = read_at_least(&two, &format!("/v1/users/{id}"), &position).await;
        assert_eq!((own.status, version(&own)), (200, written));
        assert_eq!(tier(&read_from(&two, id, "l1").await), "l1");
    }
    proxy.mend();
    let (written, position) = log_in(&one, id).await;
    let own = read_at_least(&two, &format!("/v1/users/{id}"), &position).await;
    assert_eq!(version(&own), written);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_sequencer_stands_still_a_committed_write_is_not_hidden_beyond_the_bound() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await, world.nexus().await);
    let (id, _) = register(&one, "ada").await;
    read_from(&two, id, "l1").await;
    // Nothing can be stamped while the head is locked; a short lock, so that no statement times out.
    let mut stuck = world.postgres.begin().await.expect("a transaction begins");
    sqlx::query("SELECT seq FROM head FOR UPDATE").execute(&mut *stuck).await.expect("the head can be locked");
    let (client, path) = (one.client.clone(), format!("/v1/users/{id}/logins"));
    let login = tokio::spawn(async move { client.post(&path, &Value::Null).await });
    until("the write to be committed", async || {
        let version: i64 = sqlx::query_scalar("SELECT version FROM users").fetch_one(&world.postgres).await.ok()?;
        (version == 2).then_some(())
    })
    .await;
    let committed = Instant::now();
    loop {
        let asked = committed.elapsed();
        let answer = read(&two, id).await;
        if version(&answer) == 2 {
            assert_eq!(tier(&answer), "miss");
            break;
        }
        assert!(asked <= STALENESS_MAX, "stale {asked:?} after the commit");
    }
    stuck.rollback().await.expect("the head is released");
    let login = login.await.expect("no panic");
    assert_eq!((login.status, version(&login)), (200, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_the_log_has_not_reached_is_refused() {
    let world = World::new().await;
    let one = world.nexus().await;
    let (id, position) = register(&one, "ada").await;
    let path = format!("/v1/users/{id}");
    assert_eq!(read_at_least(&one, &path, &position).await.status, 200);
    for unknown in ["1.9", "2.1", "0.1"] {
        let answer = read_at_least(&one, &path, unknown).await;
        assert_eq!(answer.problem(), (409, "position_unknown"), "{unknown}");
    }
    assert_eq!(read_at_least(&one, &path, "yesterday").await.problem(), (400, "invalid_parameter"));
}

/// A reader who has read the database and is slow to put it into the caches.
struct SlowReader {
    release: Arc<Notify>,
    reading: tokio::task::JoinHandle<()>,
}

impl SlowReader {
    /// Begins when the instance has applied `after`: then no cache holds the user, and the
    /// reader has to read the database.
    async fn begin(instance: &Instance, id: Uuid, after: &str) -> Self {
        let nobody = read_at_least(instance, &format!("/v1/users/{}", Uuid::nil()), after).await;
        assert_eq!(nobody.status, 404);
        let (loaded, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (cache, pool) = (instance.nexus.state().cache.clone(), instance.nexus.state().postgres.clone());
        let (has_loaded, may_go) = (Arc::clone(&loaded), Arc::clone(&release));
        let reading = tokio::spawn(async move {
            let load = || async {
                let value = load::user(&pool, id).await;
                has_loaded.notify_one();
                may_go.notified().await;
                value
            };
            cache.read(&user::subject(id), None, load).await.expect("the database answers");
        });
        loaded.notified().await;
        Self { release, reading }
    }

    async fn finish(self) {
        self.release.notify_one();
        self.reading.await.expect("the reader does not fail");
    }
}
