//! Durable consumers: each event is handed out until it is acknowledged, by any pod, whatever becomes of one.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::consumers::{Consumer, ids, leases};
use crate::support::{World, event, until, valid_events};

fn all() -> Value {
    json!({"types": ["**"]})
}

/// Events of these ids, each about the subject that its id begins with.
async fn publish(client: &crate::support::Client, ids: &[&str]) {
    let events: Vec<Value> = ids.iter().map(|id| event(id, &id[..1])).collect();
    client.publish(&json!(events)).await;
}

/// How many statements about deliveries wait for a lock.
async fn waiting(world: &World) -> i64 {
    let waiting = "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted AND pid IN (
        SELECT pid FROM pg_locks WHERE relation IN ('delivery'::regclass, 'consumer'::regclass))";
    sqlx::query_scalar(waiting).fetch_one(&world.postgres).await.expect("ask")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_comes_no_more_and_everything_else_does() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    publish(&client, &["before"]).await;
    let consumer = Consumer::new(&client, "one", json!({"types": ["health.*"], "subjects": ["system/a"]})).await;
    publish(&client, &["a1", "b1", "a2", "a3"]).await;

    let leased = consumer.lease(2).await;
    assert_eq!(ids(&leased), ["a1", "a2"]);
    assert_eq!((&leased[0]["attempt"], &leased[0]["event"]["position"]), (&json!(1), &json!("1.2")));
    assert_eq!(leased[0]["event"]["data"], event("a1", "a")["data"]);
    let rest = consumer.lease(10).await;
    assert_eq!(ids(&rest), ["a3"], "what is leased is nobody else's");
    assert_eq!(consumer.acknowledge(&leased).await, json!({"done": 2, "dead_letters": 0, "lost": []}));
    assert_eq!(consumer.acknowledge(&leased[..1]).await["lost"], json!([leased[0]["lease"]]));
    assert_eq!(consumer.counts().await, (1, 0));
    consumer.give_back(&rest).await;
    let again = until("the wait of a second to be over", async || {
        Some(consumer.lease(10).await).filter(|leased| !leased.is_empty())
    });
    let again = again.await;
    assert_eq!((ids(&again), &again[0]["attempt"]), (vec!["a3"], &json!(2)));
    consumer.acknowledge(&again).await;
    assert_eq!((consumer.lease(10).await, consumer.counts().await), (vec![], (0, 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_begins_where_it_says_and_goes_on_from_where_it_stands() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    publish(&client, &["a1", "a2", "a3"]).await;
    let consumer = Consumer::new(&client, "old", json!({"types": ["**"], "after": "1.1"})).await;
    assert_eq!(ids(&consumer.lease(10).await), ["a2", "a3"]);
    let changed = json!({"types": ["**"], "after": "1.0", "lease_seconds": 60, "retry_seconds": [7], "ordered": true});
    let answer = crate::support::consumers::put(&client, "old", &changed).await;
    let wanted = json!({
        "name": "old", "owner": "tester", "sees": "everything", "types": ["**"], "subjects": null, "versions": {},
        "ordered": true, "lease_seconds": 60, "retry_seconds": [7], "position": "1.3", "head": "1.3", "pending": 2, "dead_letters": 0,
    });
    assert_eq!((answer.status, answer.body), (200, wanted));
    let listed = client.get("/v1/consumers").await.body;
    assert_eq!((&listed["consumers"][0]["name"], &listed["consumers"][1]), (&json!("old"), &json!(null)));
    assert_eq!(consumer.delete("").await.status, 204);
    assert_eq!(consumer.get("").await.problem(), (404, "not_found"));
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM delivery").fetch_one(&world.postgres).await.expect("ask");
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pods_never_lease_the_same_event_and_miss_none() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await.client, world.nexus().await.client);
    let at_one = Consumer::new(&one, "both", all()).await;
    let mut takers = JoinSet::new();
    for client in [&one, &two, &one, &two] {
        let consumer = at_one.through(client);
        takers.spawn(async move {
            let mut taken = Vec::new();
            loop {
                let leased = consumer.lease_with(json!({"count": 7, "wait_seconds": 2})).await;
                if leased.is_empty() {
                    return taken;
                }
                taken.extend(leased);
            }
        });
    }
    for batch in 0..20 {
        let events: Vec<Value> = (0..20).map(|number| event(&format!("{batch}-{number}"), "a")).collect();
        one.publish(&json!(events)).await;
    }
    let taken: Vec<Value> = takers.join_all().await.concat();
    let mut places: Vec<i64> = taken
        .iter()
        .map(|delivery| delivery["event"]["position"].as_str().and_then(|place| place.strip_prefix("1.")))
        .map(|seq| seq.and_then(|seq| seq.parse().ok()).expect("a position"))
        .collect();
    places.sort_unstable();
    assert_eq!(places, (1..=400).collect::<Vec<i64>>());
    assert!(taken.iter().all(|delivery| delivery["attempt"] == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stopped_pod_had_handed_out_is_handed_out_by_another() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await, world.nexus().await);
    let settings = json!({"types": ["**"], "lease_seconds": 1, "retry_seconds": [0, 0]});
    let consumer = Consumer::new(&one.client, "survivor", settings).await;
    publish(&one.client, &["a1"]).await;
    let lost = consumer.lease(1).await;
    assert_eq!(ids(&lost), ["a1"]);
    one.nexus.stop(Duration::ZERO).await;
    publish(&two.client, &["a2"]).await;
    let consumer = consumer.through(&two.client);
    let mut seen = Vec::new();
    until("both events", async || {
        seen.extend(consumer.lease_with(json!({"lease_seconds": 60})).await);
        (seen.len() == 2).then_some(())
    })
    .await;
    seen.sort_by_key(|delivery| delivery["event"]["id"].to_string());
    assert_eq!((ids(&seen), &seen[0]["attempt"], &seen[1]["attempt"]), (vec!["a1", "a2"], &json!(2), &json!(1)));
    // The lease that was lost settles nothing any more.
    assert_eq!(consumer.acknowledge(&lost).await, json!({"done": 0, "dead_letters": 0, "lost": [lost[0]["lease"]]}));
    assert_eq!(consumer.acknowledge(&seen).await["done"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_extended_lasts_and_one_that_has_ended_may_still_be_acknowledged() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let settings = json!({"types": ["**"], "lease_seconds": 1, "retry_seconds": [600]});
    let consumer = Consumer::new(&client, "slow", settings).await;
    publish(&client, &["a1", "b1"]).await;
    let leased = consumer.lease(2).await;
    let extended = json!({"leases": leases(&leased[..1]), "lease_seconds": 600});
    assert_eq!(consumer.settle("extend", extended).await["done"], 1);
    let left = "SELECT seq, extract(epoch FROM leased_until - now())::float8 FROM delivery ORDER BY seq";
    until("the other lease to end", async || {
        let left: Vec<(i64, f64)> = sqlx::query_as(left).fetch_all(&world.postgres).await.expect("ask");
        assert!(left[0].1 > 500.0, "{left:?}");
        (left[1].1 < 0.0).then_some(())
    })
    .await;
    assert_eq!(consumer.acknowledge(&leased).await, json!({"done": 2, "dead_letters": 0, "lost": []}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_another_has_taken_over_is_good_for_nothing() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let settings = json!({"types": ["**"], "lease_seconds": 1, "retry_seconds": [0]});
    let consumer = Consumer::new(&client, "taken-over", settings).await;
    publish(&client, &["a1"]).await;
    let first = consumer.lease(1).await;
    let second = until("the lease to end", async || {
        Some(consumer.lease_with(json!({"lease_seconds": 600})).await).filter(|leased| !leased.is_empty())
    })
    .await;
    for (action, more) in [("ack", json!({})), ("nack", json!({})), ("extend", json!({"lease_seconds": 1}))] {
        let mut body = more;
        body["leases"] = json!(leases(&first));
        let answer = consumer.settle(action, body).await;
        assert_eq!((&answer["done"], &answer["lost"]), (&json!(0), &json!([first[0]["lease"]])), "{action}");
    }
    assert_eq!((consumer.lease(1).await, consumer.counts().await), (vec![], (1, 0)));
    assert_eq!(consumer.acknowledge(&second).await["done"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_while_another_takes_it_over_stays_with_the_other() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let consumer = Consumer::new(&client, "overtaken", all()).await;
    publish(&client, &["a1"]).await;
    let leased = consumer.lease(1).await;
    let mut other = world.postgres.begin().await.expect("it begins");
    let take = "UPDATE delivery SET lease = gen_random_uuid(), attempts = 2";
    sqlx::query(take).execute(&mut *other).await.expect("it is taken over");
    let (late, held) = (consumer.through(&client), leased.clone());
    let late = tokio::spawn(async move { late.acknowledge(&held).await });
    until("the acknowledgement to wait", async || (waiting(&world).await == 1).then_some(())).await;
    other.commit().await.expect("it is taken over");
    let lost = json!({"done": 0, "dead_letters": 0, "lost": [leased[0]["lease"]]});
    assert_eq!(late.await.expect("it is answered"), lost);
    assert_eq!(consumer.counts().await, (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_order_an_event_waits_for_the_one_before_it_of_its_subject_only() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let settings = json!({"types": ["**"], "ordered": true, "retry_seconds": [0, 0]});
    let consumer = Consumer::new(&client, "ordered", settings).await;
    publish(&client, &["a1", "a2", "b1", "a3", "b2"]).await;
    let first = consumer.lease(10).await;
    assert_eq!(ids(&first), ["a1", "b1"]);
    assert!(consumer.lease(10).await.is_empty());
    consumer.acknowledge(&first[1..]).await;
    consumer.give_back(&first[..1]).await;
    let second = consumer.lease(10).await;
    assert_eq!(ids(&second), ["a1", "b2"], "a failed event keeps its place");
    consumer.acknowledge(&second[1..]).await;
    consumer.give_back(&second[..1]).await;
    let third = consumer.lease(10).await;
    assert_eq!((ids(&third), &third[0]["attempt"]), (vec!["a1"], &json!(3)));
    assert_eq!(consumer.give_back(&third).await, json!({"done": 1, "dead_letters": 1, "lost": []}));
    let freed = consumer.lease(10).await;
    assert_eq!(ids(&freed), ["a2"], "a dead letter blocks nothing");
    // One that comes back waits until the later one of its subject is done.
    assert_eq!(consumer.settle("redrive", json!({})).await["count"], 1);
    assert!(consumer.lease(10).await.is_empty());
    consumer.acknowledge(&freed).await;
    assert_eq!(ids(&consumer.lease(10).await), ["a1"]);
}

/// An ordered consumer of which the first event of a subject is a dead letter, and the second waits.
async fn with_a_dead_letter(client: &crate::support::Client) -> Consumer {
    let consumer =
        Consumer::new(client, "redriven", json!({"types": ["**"], "ordered": true, "retry_seconds": []})).await;
    publish(client, &["a1", "a2"]).await;
    assert_eq!(consumer.give_back(&consumer.lease(1).await).await["dead_letters"], 1);
    consumer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_comes_back_beside_a_lease_does_not_go_out_with_the_next_of_its_subject() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let consumer = with_a_dead_letter(&client).await;
    // Whoever leases the second event stops between having looked and having written.
    let stop = "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM pg_advisory_xact_lock_shared(hashtext(current_schema())); RETURN NEW; END $$;
        CREATE TRIGGER stop BEFORE UPDATE ON delivery FOR EACH ROW WHEN (NEW.seq = 2 AND NEW.lease IS NOT NULL)
            EXECUTE FUNCTION stop();";
    sqlx::raw_sql(stop).execute(&world.postgres).await.expect("it is made");
    let mut stopping = world.postgres.begin().await.expect("it begins");
    let hold = "SELECT pg_advisory_xact_lock(hashtext(current_schema()))";
    sqlx::query(hold).execute(&mut *stopping).await.expect("it is held");
    let takers = [consumer.through(&client), consumer.through(&client)];
    let [one, two] = takers.map(|taker| async move { taker.lease_with(json!({"lease_seconds": 600})).await });
    let one = tokio::spawn(one);
    until("the first to be stopped", async || (waiting(&world).await == 1).then_some(())).await;
    assert_eq!(consumer.settle("redrive", json!({})).await["count"], 1);
    let two = tokio::spawn(two);
    until("the second to lease or to wait", async || (two.is_finished() || waiting(&world).await == 2).then_some(()))
        .await;
    stopping.rollback().await.expect("it goes on");
    let leased = [one.await.expect("it is answered"), two.await.expect("it is answered")].concat();
    // Which of the two it is, the first may have been stopped for too long to decide.
    assert_eq!(leased.len(), 1, "{leased:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_has_ended_is_not_extended_beside_another_of_its_subject() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let consumer = with_a_dead_letter(&client).await;
    let later = consumer.lease_with(json!({"lease_seconds": 600})).await;
    assert_eq!(consumer.settle("redrive", json!({})).await["count"], 1);
    let ended = "UPDATE delivery SET leased_until = now() WHERE lease IS NOT NULL";
    sqlx::query(ended).execute(&world.postgres).await.expect("time passes");
    let extend = async |leased: &[Value]| {
        consumer.settle("extend", json!({"leases": leases(leased), "lease_seconds": 600})).await["done"].clone()
    };
    assert_eq!(extend(&later).await, 1, "nobody else has one of its subject");
    assert!(consumer.lease(10).await.is_empty());
    sqlx::query(ended).execute(&world.postgres).await.expect("time passes");
    let first = consumer.lease(10).await;
    assert_eq!((ids(&later), ids(&first)), (vec!["a2"], vec!["a1"]));
    assert_eq!((extend(&later).await, extend(&first).await), (json!(0), json!(1)));
    // What was handled is handled.
    assert_eq!(consumer.acknowledge(&later).await["done"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_each_failure_the_wait_is_the_next_one_give_or_take_a_fifth() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let consumer = Consumer::new(&client, "patient", json!({"types": ["**"], "retry_seconds": [100, 1000]})).await;
    publish(&client, &["a1"]).await;
    let wait = async || {
        let due = "SELECT extract(epoch FROM due_at - now())::float8 FROM delivery";
        sqlx::query_scalar::<_, f64>(due).fetch_one(&world.postgres).await.expect("it waits")
    };
    for (attempt, wanted) in [(1, 75.0..=120.0), (2, 775.0..=1_200.0)] {
        let leased = consumer.lease(1).await;
        assert_eq!(leased[0]["attempt"], attempt);
        // Whoever vanishes now is waited for as well.
        let (least, most) = (30.0 + wanted.start() - 5.0, 30.0 + wanted.end());
        assert!((least..=most).contains(&wait().await), "{}", wait().await);
        consumer.give_back(&leased).await;
        assert!(wanted.contains(&wait().await), "{}", wait().await);
        assert!(consumer.lease(1).await.is_empty());
        sqlx::query("UPDATE delivery SET due_at = now()").execute(&world.postgres).await.expect("time passes");
    }
    let leased = consumer.lease(1).await;
    let asked = json!({"leases": leases(&leased), "delay_seconds": 9_000});
    assert_eq!(consumer.settle("nack", asked).await["dead_letters"], 1, "the third attempt is the last");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_says_itself_when_to_try_again() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let consumer = Consumer::new(&client, "asking", json!({"types": ["**"], "retry_seconds": [1]})).await;
    publish(&client, &["a1"]).await;
    let leased = consumer.lease(1).await;
    consumer.settle("nack", json!({"leases": leases(&leased), "delay_seconds": 9_000})).await;
    let due = "SELECT extract(epoch FROM due_at - now())::float8 FROM delivery";
    let wait: f64 = sqlx::query_scalar(due).fetch_one(&world.postgres).await.expect("it waits");
    assert!((8_900.0..=9_000.0).contains(&wait), "{wait}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_redriven_and_deleted() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let settings = json!({"types": ["**"], "retry_seconds": [], "lease_seconds": 1});
    let consumer = Consumer::new(&client, "failing", settings).await;
    publish(&client, &["a1", "b1", "c1"]).await;
    let leased = consumer.lease(10).await;
    assert_eq!(consumer.give_back(&leased[..2]).await["dead_letters"], 2);
    // The third one's lease ends without a word.
    until("the last to be given up", async || (consumer.counts().await == (0, 3)).then_some(())).await;
    let page = consumer.get("/dead-letters").await.body;
    let told =
        |letter: &Value| json!([letter["event"]["id"], letter["position"], letter["attempts"], letter["last_error"]]);
    let letters: Vec<Value> = page["dead_letters"].as_array().expect("letters").iter().map(told).collect();
    let wanted = [
        json!(["a1", "1.1", 1, "a test"]),
        json!(["b1", "1.2", 1, "a test"]),
        json!(["c1", "1.3", 1, "the lease ended"]),
    ];
    assert_eq!((letters, &page["next"]), (wanted.to_vec(), &json!(null)));
    assert_eq!(consumer.get("/dead-letters?after=1.2").await.body["dead_letters"][0]["position"], "1.3");

    // Whoever was only slow may still say that it is done.
    assert_eq!(consumer.acknowledge(&leased[2..]).await["done"], 1);
    assert_eq!(consumer.settle("redrive", json!({"positions": ["1.2", "1.9"]})).await["count"], 1);
    assert_eq!(ids(&consumer.lease(10).await), ["b1"]);
    assert_eq!(consumer.delete("/dead-letters?position=1.7").await.body["count"], 0);
    assert_eq!(consumer.delete("/dead-letters").await.body["count"], 1);
    assert_eq!(consumer.counts().await.1, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_answered_as_soon_as_there_is_an_event_on_whichever_pod() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await.client, world.nexus().await.client);
    let consumer = Consumer::new(&one, "waiting", json!({"types": ["health.*"]})).await;
    let waiting = consumer.through(&two);
    let waiting = tokio::spawn(async move { waiting.lease_with(json!({"wait_seconds": 12})).await });
    until("it to wait", async || (crate::support::metric(&two, "nexus_stream_connections").await == 1).then_some(()))
        .await;
    publish(&one, &["a1"]).await;
    assert_eq!(ids(&waiting.await.expect("it is answered")), ["a1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_finds_in_the_log_what_it_matches_also_types_that_this_pod_does_not_know() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let patterns = ["**", "*.*", "wallet.*", "**.created", "job.posted", "*.completed", "**.*.**"];
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let mut consumers = Vec::new();
    for (name, pattern) in names.into_iter().zip(patterns) {
        consumers.push(Consumer::new(&client, name, json!({"types": [pattern]})).await);
    }
    client.publish(&json!(valid_events())).await;
    // As a newer pod would write it.
    let insert = "INSERT INTO outbox (key, type, subject, event)
        VALUES (gen_random_uuid(), 'wallet.closed', 'wallet/1', '{\"id\": \"wallet.closed\", \"type\": \"wallet.closed\"}')";
    sqlx::query(insert).execute(&world.postgres).await.expect("it is written");
    let mut types: Vec<String> = valid_events().iter().map(|event| event["type"].to_string()).collect();
    types.push("\"wallet.closed\"".to_owned());
    until("everything to be stamped", async || (world.log().await.len() == types.len()).then_some(())).await;
    for (consumer, pattern) in consumers.iter().zip(patterns) {
        let pattern: nexus::events::Pattern = pattern.parse().expect("a pattern");
        let wanted: Vec<&str> =
            types.iter().map(|name| name.trim_matches('"')).filter(|name| pattern.matches(name)).collect();
        assert_eq!(ids(&consumer.lease(100).await), wanted, "{pattern}");
    }
}
