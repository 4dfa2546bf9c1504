//! Who sees which event: the same over every protocol, live, on replay and in history, as the log lets people in.

use serde_json::{Value, json};

use crate::support::client::{HS256_KEY, token_of};
use crate::support::event_source::EventSource;
use crate::support::people::{ANN, BOB, CAT, named, open, token_of_person};
use crate::support::socket::{Socket, ids};
use crate::support::{World, event, metric, socket_io, until};

fn wallet_of(person: &str, wallet: &str) -> Value {
    let data = json!({"wallet_id": wallet, "user_id": person, "currency": "AZR"});
    named(&format!("wallet {wallet}"), "wallet.created", &format!("wallet/{wallet}"), &data)
}

fn reward(id: &str, wallet: &str) -> Value {
    let money = json!({"amount_minor": 1, "currency": "AZR"});
    let data = json!({"wallet_id": wallet, "money": money, "block_height": 1});
    named(id, "mining.reward", &format!("wallet/{wallet}"), &data)
}

fn alert(id: &str) -> Value {
    let data = json!({"severity": "info", "code": "test", "message": "for everyone"});
    named(id, "system.alert", "system/test", &data)
}

/// What happens to two people, and who sees it.
fn story() -> Vec<(Value, &'static [&'static str])> {
    let money = json!({"amount_minor": 1, "currency": "AZR"});
    let transaction = json!({"transaction_id": "t", "from_wallet_id": "a", "to_wallet_id": "b", "money": money});
    let job = json!({"job_id": "j", "employer_id": BOB, "title": "Paint a fence"});
    let application = json!({"application_id": "p", "job_id": "j", "applicant_id": ANN});
    // The rooms are those of the data, whatever the subject.
    let elsewhere = reward("elsewhere", "c")["data"].take();
    vec![
        (reward("before", "a"), &[ANN]),
        (wallet_of(ANN, "a"), &[ANN]),
        (wallet_of(BOB, "b"), &[BOB]),
        (reward("reward a", "a"), &[ANN]),
        (reward("reward b", "b"), &[BOB]),
        (named("elsewhere", "mining.reward", "wallet/a", &elsewhere), &[]),
        (named("transaction", "transaction.completed", "wallet/a", &transaction), &[ANN, BOB]),
        (named("job", "job.posted", "job/j", &job), &[ANN, BOB, CAT]),
        (named("application", "application.submitted", "job/j", &application), &[ANN, BOB]),
        (event("health", "a"), &[]),
        (alert("end"), &[ANN, BOB, CAT]),
    ]
}

fn seen_by(person: &str, story: &[(Value, &'static [&'static str])]) -> Vec<String> {
    let seen = story.iter().filter(|(_, people)| people.contains(&person));
    seen.map(|(event, _)| event["id"].as_str().expect("an id").to_owned()).collect()
}

/// Events up to and with the one that ends the story.
async fn to_the_end(socket: &mut Socket) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.last().map(String::as_str) != Some("end") {
        seen.extend(ids(&socket.events(1).await).into_iter().map(str::to_owned));
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sees_what_it_is_let_into_live_and_no_more_one_by_one_and_in_one_batch() {
    for in_one_batch in [false, true] {
        let world = World::new().await;
        let (one, two) = (world.nexus().await, world.nexus().await);
        let mut people = Vec::new();
        for person in [ANN, BOB, CAT] {
            let mut socket = open(&two.client, person).await;
            socket.subscribe(&["**"], None).await;
            let own = two.client.with_token(Some(token_of_person(person)));
            people.push((person, socket, EventSource::open(&own, "", None).await));
        }
        let story = story();
        if in_one_batch {
            let batch: Vec<&Value> = story.iter().map(|(event, _)| event).collect();
            assert_eq!(one.client.post("/v1/events", &json!(batch)).await.status, 201);
        } else {
            for (event, _) in &story {
                one.client.publish(event).await;
            }
        }
        for (person, mut socket, mut stream) in people {
            let mut wanted = seen_by(person, &story);
            // It was told to a wallet in which nobody was then.
            wanted.retain(|id| id != "before");
            assert_eq!(to_the_end(&mut socket).await, wanted, "{person}, in one batch: {in_one_batch}");
            assert_eq!(stream.ids(wanted.len()).await.0, wanted);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_and_history_show_what_may_be_seen_now() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let story = story();
    for (event, _) in &story {
        instance.client.publish(event).await;
    }
    for person in [ANN, BOB, CAT] {
        let wanted = seen_by(person, &story);
        let mut socket = open(&instance.client, person).await;
        socket.subscribe(&["**"], Some("1.0")).await;
        assert_eq!(to_the_end(&mut socket).await, wanted, "{person}");
        let page = socket.command(json!({"command": "history"})).await;
        assert_eq!(ids(page["result"]["events"].as_array().expect("a page")), wanted);

        let own = instance.client.with_token(Some(token_of_person(person)));
        let page = own.history("").await.body;
        assert_eq!(ids(page["events"].as_array().expect("a page")), wanted);
        let mut stream = EventSource::open(&own, "after=1.0", None).await;
        assert_eq!(stream.ids(wanted.len()).await.0, wanted);
    }
    // What concerns one user: for readers of everything, and for oneself.
    let wanted: Vec<String> = seen_by(BOB, &story).into_iter().filter(|id| id != "end").collect();
    for (client, status) in [
        (instance.client.clone(), 200),
        (instance.client.with_token(Some(token_of_person(BOB))), 200),
        (instance.client.with_token(Some(token_of_person(ANN))), 403),
    ] {
        let page = client.get(&format!("/v1/events?user={BOB}")).await;
        assert_eq!(page.status, status, "{}", page.text);
        if status == 200 {
            assert_eq!(ids(page.body["events"].as_array().expect("a page")), wanted);
        }
    }
    // A page is full of what may be seen, and the next one goes on.
    let own = instance.client.with_token(Some(token_of_person(BOB)));
    let first = own.history("limit=2").await.body;
    assert_eq!(ids(first["events"].as_array().expect("a page")), ["wallet b", "reward b"]);
    let second = own.history(&format!("limit=2&after={}", first["next"].as_str().expect("there is more"))).await.body;
    assert_eq!(ids(second["events"].as_array().expect("a page")), ["transaction", "job"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn to_ask_for_the_subject_of_another_shows_only_what_concerns_oneself() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let mut socket = open(&instance.client, BOB).await;
    let subscribe = json!({"command": "subscribe", "types": ["**"], "subjects": ["wallet/a", "system/test"]});
    assert_eq!(socket.command(subscribe).await["result"]["subscription"], "s1");
    for (event, _) in &story() {
        instance.client.publish(event).await;
    }
    assert_eq!(to_the_end(&mut socket).await, ["transaction", "end"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_events_is_answered_with_those_of_a_room_that_it_was_let_into_meanwhile() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let own = instance.client.with_token(Some(token_of_person(ANN)));
    let waiting = tokio::spawn(async move { own.history("type=mining.*&wait=12").await.body });
    until("it to wait", async || (metric(&instance.client, "nexus_stream_connections").await == 1).then_some(())).await;
    for event in [reward("not hers", "b"), wallet_of(ANN, "a"), reward("hers", "a")] {
        instance.client.publish(&event).await;
    }
    let page = waiting.await.expect("it is answered");
    assert_eq!(ids(page["events"].as_array().expect("a page")), ["hers"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_sql_has_its_audience_too() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let mut socket = open(&instance.client, ANN).await;
    socket.subscribe(&["**"], None).await;
    let publish = "SELECT nexus_publish('/sql', $1, $2, $3, $4::text::json)";
    let empty = json!({"wallet_id": "", "user_id": BOB, "currency": "AZR"});
    for (id, event) in [
        ("of-bob", wallet_of(BOB, "b")),
        ("nobody's", named("", "wallet.created", "wallet/x", &empty)),
        ("opened", wallet_of(ANN, "a")),
        ("rewarded", reward("", "a")),
        ("end", alert("")),
    ] {
        let statement = sqlx::query(publish).bind(id).bind(event["type"].as_str()).bind(event["subject"].as_str());
        statement.bind(event["data"].to_string()).execute(&world.postgres).await.expect("it is published");
    }
    assert_eq!(to_the_end(&mut socket).await, ["opened", "rewarded", "end"]);

    let smuggled = json!({"wallet_id": "a\u{1f}user/b", "user_id": BOB, "currency": "AZR"}).to_string();
    let statement = sqlx::query(publish).bind("smuggled").bind("wallet.created").bind("wallet/a").bind(smuggled);
    let refused = statement.execute(&world.postgres).await.expect_err("it is refused").to_string();
    assert!(refused.contains("data has a control character"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_token_changes_what_is_seen_from_then_on() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let mut socket = open(&instance.client, ANN).await;
    socket.subscribe(&["**"], None).await;
    instance.client.publish(&event("hidden", "a")).await;
    instance.client.publish(&alert("begin")).await;
    assert_eq!(ids(&socket.events(1).await), ["begin"]);
    let all = token_of(HS256_KEY, ANN, "events:read", 3_600);
    for (token, id, seen) in [(all, "shown", &["shown"][..]), (token_of_person(ANN), "hidden again", &[])] {
        let refreshed = socket.command(json!({"command": "refresh", "token": token})).await;
        assert_eq!(refreshed["result"]["subject"], ANN);
        instance.client.publish(&event(id, "a")).await;
        // What is on its way when the next token comes is seen with that one.
        assert_eq!(ids(&socket.events(seen.len()).await), seen);
    }
    instance.client.publish(&alert("end")).await;
    assert_eq!(to_the_end(&mut socket).await, ["end"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_socket_io_that_was_away_sees_the_room_that_it_was_let_into_meanwhile() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await, world.nexus().await);
    let mut client = socket_io::Client::open(one.nexus.address()).await;
    let pid = client.connect(json!({"token": token_of_person(ANN)})).await["pid"].clone();
    client.command("subscribe", json!({"types": ["**"]})).await;
    drop(client);
    for event in [wallet_of(ANN, "a"), reward("hers", "a"), reward("not hers", "b"), alert("end")] {
        one.client.publish(&event).await;
    }
    let mut client = socket_io::Client::open(two.nexus.address()).await;
    let again = client.connect(json!({"token": token_of_person(ANN), "pid": pid})).await;
    assert_eq!(again["pid"], pid);
    for id in ["wallet a", "hers", "end"] {
        assert_eq!(client.event().await[1]["id"], id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_in_too_many_rooms_is_told_what_to_do() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let insert = "INSERT INTO membership SELECT $1, 'wallet/' || number FROM generate_series(1, 1000) AS number";
    sqlx::query(insert).bind(format!("user/{CAT}")).execute(&world.postgres).await.expect("they are let in");
    let mut socket = open(&instance.client, CAT).await;
    socket.subscribe(&["**"], None).await;
    let wallet = wallet_of(CAT, "one-too-many");
    instance.client.publish(&wallet).await;
    assert_eq!(socket.events(1).await[0]["id"], wallet["id"]);
    assert_eq!(socket.closed().await, 4409);

    let mut socket = open(&instance.client, CAT).await;
    let refused = socket.command(json!({"command": "subscribe", "types": ["**"]})).await;
    assert_eq!(refused["error"]["code"], "too_many_rooms", "{refused}");
    let own = instance.client.with_token(Some(token_of_person(CAT)));
    let refused = own.get("/v1/events").await;
    assert_eq!(refused.problem(), (403, "too_many_rooms"));
    assert_eq!(refused.body["detail"], "more than 1000; read with the scope events:read and choose subjects");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_let_in_while_history_is_read_misses_nothing_of_it() {
    for over_a_socket in [false, true] {
        let world = World::new().await;
        let client = world.nexus().await.client;
        client.publish(&alert("before")).await;
        let mut socket = open(&client, ANN).await;
        // The log cannot be read until the batch is there, the rights can.
        let mut batch = world.postgres.begin().await.expect("begin");
        sqlx::query("LOCK TABLE log IN ACCESS EXCLUSIVE MODE").execute(&mut *batch).await.expect("lock");
        let own = client.with_token(Some(token_of_person(ANN)));
        let reading = tokio::spawn(async move {
            if over_a_socket {
                socket.command(json!({"command": "history"})).await["result"].take()
            } else {
                own.history("").await.body
            }
        });
        until("the log to be asked for", async || {
            let waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'log'::regclass AND NOT granted
                AND mode = 'AccessShareLock'";
            let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&world.postgres).await.expect("ask");
            (waiting > 0).then_some(())
        })
        .await;
        for statement in [
            "INSERT INTO log (seq, outbox_id, key, type, subject, event, audience)
                SELECT seq, -seq, gen_random_uuid(), type, 'wallet/a', json_build_object('id', id), audience FROM (VALUES
                    (2, 'wallet.created', 'wallet', ARRAY['user/' || $1, 'wallet/a']),
                    (3, 'mining.reward', 'reward', ARRAY['wallet/a']),
                    (4, 'system.alert', 'alert', ARRAY['everyone'])
                ) AS batch (seq, type, id, audience)",
            "INSERT INTO membership SELECT 'user/' || $1, 'wallet/a'",
            "UPDATE head SET seq = 4 WHERE $1 <> ''",
        ] {
            sqlx::query(statement).bind(ANN).execute(&mut *batch).await.expect("the batch is written");
        }
        batch.commit().await.expect("commit");
        let page = reading.await.expect("it is read");
        let seen = ids(page["events"].as_array().expect("a page"));
        assert_eq!(seen, ["before", "wallet", "reward", "alert"], "over a socket: {over_a_socket}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_concerns_a_person_is_found_in_a_long_log_by_its_indexes() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    // The first event makes the partition that the others are put into.
    client.publish(&event("first", "a")).await;
    for statement in [
        "WITH filled AS (
            INSERT INTO log (seq, outbox_id, key, type, subject, event, audience)
            SELECT seq, -seq, gen_random_uuid(), 'ubi.distributed', 'wallet/' || seq % 1000,
                json_build_object('id', seq::text), ARRAY['user/' || seq % 2000, 'wallet/' || seq % 1000]
            FROM generate_series(2, 20000) seq RETURNING seq
        ) UPDATE head SET seq = (SELECT max(seq) FROM filled)",
        "INSERT INTO membership VALUES ('user/7', 'wallet/8')",
        "ANALYZE log",
    ] {
        sqlx::query(statement).execute(&world.postgres).await.expect("the log is filled");
    }
    let person = client.with_token(Some(token_of_person("7")));
    let wanted: Vec<String> =
        (2..=20_000).filter(|seq| seq % 2_000 == 7 || seq % 1_000 == 8).map(|seq: i64| seq.to_string()).collect();
    // Postgres counts late.
    until("both indexes to be used", async || {
        let page = person.history("limit=500").await.body;
        assert_eq!(ids(page["events"].as_array().expect("a page")), wanted);
        let used: Vec<i64> = sqlx::query_scalar(
            "SELECT idx_scan FROM pg_stat_user_indexes WHERE schemaname = current_schema
                AND relname LIKE 'log_1_%' AND (indexrelname LIKE '%subject%' OR indexrelname LIKE '%array_remove%')",
        )
        .fetch_all(&world.postgres)
        .await
        .expect("the statistics can be read");
        (used.len() == 2 && used.iter().all(|scans| *scans > 0)).then_some(())
    })
    .await;
}
