//! A database that is away, at start or later, never stops Nexus; it comes back by itself.

use crate::support::{Instance, Proxy, World, event, until};

async fn until_status(instance: &Instance, path: &str, status: u16) {
    until("the probe to change", async || (instance.client.get(path).await.status == status).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nexus_starts_without_postgres_and_is_ready_when_it_comes() {
    let world = World::new().await;
    let (proxy, url) = Proxy::before(world.config.database.url.expose()).await;
    proxy.cut();
    let instance = world.unready_nexus_with(|config| config.database.url = url.as_str().into()).await;
    assert_eq!(instance.client.get("/readyz").await.problem(), (503, "unavailable"));
    assert_eq!(instance.client.get("/livez").await.status, 200);
    proxy.mend();
    until_status(&instance, "/readyz", 200).await;
    assert_eq!(instance.client.publish(&event("one", "a")).await, "1.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_postgres_goes_and_comes() {
    let world = World::new().await;
    let (proxy, url) = Proxy::before(world.config.database.url.expose()).await;
    let instance = world.nexus_with(|config| config.database.url = url.as_str().into()).await;
    let mut acknowledged = vec![instance.client.publish(&event("before", "a")).await];
    for round in 0..3 {
        proxy.cut();
        let refused = instance.client.post("/v1/events", &event(&format!("round-{round}"), "a")).await;
        assert_eq!(refused.problem(), (503, "unavailable"));
        assert_eq!(refused.header("retry-after"), Some("1"));
        until_status(&instance, "/readyz", 503).await;
        assert_eq!(instance.client.get("/livez").await.status, 200);
        proxy.mend();
        until_status(&instance, "/readyz", 200).await;
        acknowledged.push(instance.client.publish(&event(&format!("round-{round}"), "a")).await);
    }
    assert_eq!(acknowledged, ["1.1", "1.2", "1.3", "1.4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_lead_nowhere_are_replaced() {
    let world = World::new().await;
    let (proxy, url) = Proxy::before(world.config.database.url.expose()).await;
    let instance = world
        .nexus_with(|config| {
            config.database.url = url.as_str().into();
            config.database.connections_max = 3;
        })
        .await;
    instance.client.publish(&event("before", "a")).await;
    // More often than the pool has connections: none of them keeps its place.
    for round in 0..3 {
        proxy.freeze_connections();
        let place = until("a publish to get through", async || {
            let answer = instance.client.post("/v1/events", &event(&format!("round-{round}"), "a")).await;
            answer.header("nexus-position").map(str::to_owned)
        });
        assert_eq!(place.await, format!("1.{}", round + 2));
        until_status(&instance, "/readyz", 200).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_and_mongo_nexus_is_degraded_and_publishes() {
    let world = World::new().await;
    let (redis, redis_url) = Proxy::before(world.config.redis_url.expose()).await;
    redis.cut();
    let one = world.nexus().await;
    let two = world
        .nexus_with(|config| {
            config.redis_url = redis_url.as_str().into();
            // Nothing listens there.
            config.mongo_url = "mongodb://127.0.0.1:9/azora?serverSelectionTimeoutMS=200".into();
        })
        .await;
    let health = two.client.get("/health").await;
    assert_eq!((health.status, health.body["status"].as_str()), (200, Some("degraded")), "{}", health.text);
    assert_eq!(health.body["postgres"]["reachable"], true);
    assert_eq!(
        (&health.body["redis"]["reachable"], &health.body["mongo"]["reachable"]),
        (&false.into(), &false.into())
    );
    // The second's wake-ups reach the leader only by its period, the leader's reach the second by Postgres.
    for number in 1..=5 {
        assert_eq!(two.client.publish(&event(&format!("event-{number}"), "a")).await, format!("1.{number}"));
    }
    redis.mend();
    until("Redis to be back", async || {
        let health = two.client.get("/health").await.body;
        (health["redis"]["reachable"] == true).then_some(())
    })
    .await;
    let health = one.client.get("/health").await.body;
    assert_eq!(health["status"], "ready", "{health}");
    assert_eq!((&health["log"]["waiting"], &health["log"]["head"]), (&0.into(), &5.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_redis_that_leads_nowhere_is_replaced() {
    let world = World::new().await;
    let (redis, url) = Proxy::before(world.config.redis_url.expose()).await;
    let instance = world.nexus_with(|config| config.redis_url = url.as_str().into()).await;
    let reachable = async || instance.client.get("/health").await.body["redis"]["reachable"] == true;
    for _ in 0..2 {
        until("Redis to answer", async || reachable().await.then_some(())).await;
        redis.freeze_connections();
        until("Redis to be missed", async || (!reachable().await).then_some(())).await;
    }
    until("Redis to answer", async || reachable().await.then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_that_refuses_the_password_is_used_as_soon_as_it_takes_it() {
    let world = World::new().await;
    let (url, user) = (world.config.redis_url.expose(), world.config.database.schema.as_str());
    let (_, address) = url.rsplit_once('@').expect("the services' Redis has a password");
    let with_password = format!("redis://{user}:secret@{address}");
    let instance = world.nexus_with(|config| config.redis_url = with_password.as_str().into()).await;
    let reachable = async || instance.client.get("/health").await.body["redis"]["reachable"] == true;
    until("Redis to refuse", async || (!reachable().await).then_some(())).await;
    let client = redis::Client::open(url).expect("an address");
    let mut redis = client.get_multiplexed_async_connection().await.expect("Redis answers");
    let mut made = redis::cmd("ACL");
    made.arg(&["SETUSER", user, "on", ">secret", "~*", "&*", "+@all"]);
    made.exec_async(&mut redis).await.expect("made");
    until("Redis to answer", async || reachable().await.then_some(())).await;
    redis::cmd("ACL").arg(&["DELUSER", user]).exec_async(&mut redis).await.expect("removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_instance_is_not_ready_and_ends() {
    let world = World::new().await;
    let Instance { nexus, client } = world.nexus().await;
    client.publish(&event("one", "a")).await;
    let state = nexus.state().clone();
    state.draining.cancel();
    assert_eq!(client.get("/readyz").await.problem(), (503, "unavailable"));
    assert_eq!(client.publish(&event("two", "a")).await, "1.2", "requests are served while it drains");
    nexus.stop(std::time::Duration::ZERO).await;
    assert!(state.tasks.is_empty(), "every background task has ended");
    assert!(client.http.get(format!("{}/livez", client.base)).send().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_counted() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    client.publish(&event("one", "a")).await;
    client.publish(&event("one", "a")).await;
    client.get("/nowhere").await;
    let text = client.get("/metrics").await.text;
    for line in [
        "nexus_published_events_total 1",
        "nexus_duplicate_events_total 1",
        "nexus_stamped_events_total 1",
        "nexus_log_head 1",
        "nexus_sequencer_leading 1",
        r#"nexus_http_requests_total{method="POST",route="/v1/events",status="201"} 1"#,
        r#"nexus_http_requests_total{method="GET",route="unmatched",status="404"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
}

#[test]
fn a_command_that_fails_logs_every_cause() {
    // Nothing listens on port 1.
    let migrate = ["migrate", "--database-url", "postgres://nexus@127.0.0.1:1/nexus", "--log-format", "json"];
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_nexus")).args(migrate).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8(output.stderr).expect("text");
    let line: serde_json::Value = serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
    let causes =
        "migrate: connect to the database: error communicating with database: Connection refused (os error 111)";
    assert_eq!(line["error"], causes);
}
