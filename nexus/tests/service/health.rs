//! `/health`: what each pod tells of the log, and of who leads.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Instance, World, event, until};

async fn pod(world: &World, name: &str) -> Instance {
    world.nexus_with(|config| config.pod = Some(name.to_owned())).await
}

async fn health(instance: &Instance) -> Value {
    let answer = instance.client.get("/health").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.body
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pod_names_the_one_that_leads_and_the_next_one_when_that_has_gone() {
    let world = World::new().await;
    // A name that only just fits, and one of which the end is kept.
    let long = format!("{}-abcde", "nexus".repeat(12));
    let (one, two) = (pod(&world, "nexus-one").await, pod(&world, &long).await);
    let (first, second) = (health(&one).await, health(&two).await);
    assert_eq!((&first["pod"], &second["pod"]), (&json!("nexus-one"), &json!(long)));
    assert_eq!(first["sequencer"], json!({"leading": true, "leader": "nexus-one"}));
    assert_eq!(second["sequencer"], json!({"leading": false, "leader": "nexus-one"}));
    for dependency in ["postgres", "redis", "mongo"] {
        let latency = first[dependency]["latency_milliseconds"].as_f64();
        assert!(latency.is_some_and(|latency| latency > 0.0), "{dependency}: {first}");
    }
    one.nexus.stop(std::time::Duration::ZERO).await;
    // What it knows of itself, and what Postgres says, is not of one moment: it may lead and not be named yet.
    let told = until("the other to lead, and to be named", async || {
        let told = health(&two).await["sequencer"].clone();
        (told["leading"] == true && told["leader"] != Value::Null && told["leader"] != "nexus-one").then_some(told)
    });
    assert_eq!(told.await["leader"], long[long.len() - 47..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_its_place_is_told_with_its_age() {
    let world = World::new().await;
    let instance = pod(&world, "nexus-one").await;
    instance.client.publish(&event("one", "a")).await;
    assert_eq!(
        health(&instance).await["log"],
        json!({"head": 1, "applied": 1, "lag": 0, "waiting": 0, "waiting_milliseconds": 0, "refused": 0})
    );

    // Nobody can stamp, and an event has waited for an hour.
    let mut holder = world.postgres.begin().await.expect("begin");
    sqlx::query("SELECT FROM head FOR UPDATE").execute(&mut *holder).await.expect("the head can be held");
    let insert = "INSERT INTO outbox (key, type, subject, event, queued_at)
        VALUES ($1, 'health.check', 'system/a', '{}', now() - interval '1 hour'), ($2, 'health.check', 'system/a', '{}', now())";
    let insert = sqlx::query(insert).bind(Uuid::new_v4()).bind(Uuid::new_v4());
    insert.execute(&world.postgres).await.expect("it can be written past Nexus");
    let log = health(&instance).await["log"].clone();
    assert_eq!((&log["waiting"], &log["head"], &log["lag"]), (&json!(2), &json!(1), &json!(0)));
    let waits = log["waiting_milliseconds"].as_i64();
    assert!(waits.is_some_and(|milliseconds| (3_600_000..3_700_000).contains(&milliseconds)), "{log}");
    holder.rollback().await.expect("the head is free");
    until("both to be stamped", async || (health(&instance).await["log"]["head"] == 3).then_some(())).await;
    assert_eq!(health(&instance).await["log"]["waiting_milliseconds"], 0);
}
