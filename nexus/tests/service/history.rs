//! `GET /v1/events`: by type, subject and position, page by page, with nothing skipped and every gap stated.

use nexus::log::Batch;
use serde_json::{Value, json};

use crate::support::socket::Socket;
use crate::support::{World, event, metric, until, valid_events};

fn ids(page: &Value) -> Vec<&str> {
    page["events"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
        .filter_map(|event| event["id"].as_str())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_selected_by_pattern_and_subject() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    assert_eq!(client.post("/v1/events", &json!(valid_events())).await.status, 201);
    let finance = client.history("type=*.created,mining.**").await.body;
    assert_eq!(ids(&finance), ["wallet.created", "mining.reward"]);
    let contract = client.history("subject=contract/1").await.body;
    assert_eq!(ids(&contract), ["contract.signed", "payment.released"]);
    let both = client.history("type=payment.*&subject=contract/1").await.body;
    assert_eq!(ids(&both), ["payment.released"]);
    assert_eq!(ids(&client.history("type=nothing.*").await.body), Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_selected_by_the_time_of_the_log() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    for id in ["one", "two", "three"] {
        client.publish(&event(id, "a")).await;
    }
    // A clock that the test sets: an hour between each.
    let shift = "UPDATE log SET recorded_at = '2026-01-02T00:00:00Z'::timestamptz + seq * interval '1 hour'";
    sqlx::query(shift).execute(&world.postgres).await.expect("the times can be set");
    for (query, wanted) in [
        ("since=2026-01-02T02:00:00Z", &["two", "three"][..]),
        ("until=2026-01-02T02:00:00Z", &["one"]),
        ("since=2026-01-02T03:00:00%2B01:00&until=2026-01-02T03:00:00Z", &["two"]),
        ("since=2026-01-02T02:00:00.000001Z&limit=1", &["three"]),
        ("since=2026-01-03T00:00:00Z", &[]),
    ] {
        assert_eq!(ids(&client.history(query).await.body), wanted, "{query}");
    }
    for name in ["since", "until"] {
        let refused = client.get(&format!("/v1/events?{name}=yesterday")).await;
        assert_eq!(refused.problem(), (400, "invalid_parameter"));
        assert_eq!(refused.body["detail"], format!("{name} must be an RFC 3339 timestamp"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_lead_through_the_whole_history_once() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let batch: Vec<Value> = (1..=25).map(|number| event(&format!("{number}"), "a")).collect();
    client.publish(&json!(batch)).await;
    let (mut seen, mut query, mut pages) = (Vec::new(), "limit=10".to_owned(), 0);
    loop {
        let page = client.history(&query).await.body;
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        pages += 1;
        match page["next"].as_str() {
            Some(next) => query = format!("limit=10&after={next}"),
            None => break,
        }
    }
    assert_eq!((seen, pages), ((1..=25).map(|number| number.to_string()).collect(), 3));
}

/// Logs so many events of 60,000 bytes after the first one.
async fn fill_with_large_events(world: &World, count: i64) {
    const FILL: &str = "WITH filled AS (
            INSERT INTO log (seq, outbox_id, key, type, subject, event)
            SELECT 1 + n, -1 - n, gen_random_uuid(), 'health.check', 'system/a',
                json_build_object('id', n::text, 'data', repeat('x', 60000)) FROM generate_series(1, $1) n RETURNING seq
        ) UPDATE head SET seq = (SELECT max(seq) FROM filled)";
    sqlx::query(FILL).bind(count).execute(&world.postgres).await.expect("the log is filled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_large_events_ends_early_and_says_where_it_goes_on() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let mut socket = Socket::open(instance.nexus.address()).await;
    instance.client.publish(&event("0", "a")).await;
    fill_with_large_events(&world, 40).await;
    for over_socket in [false, true] {
        let (mut seen, mut sizes, mut after) = (Vec::new(), Vec::new(), "1.0".to_owned());
        loop {
            let page = if over_socket {
                socket.command(json!({"command": "history", "after": after, "limit": 500})).await["result"].take()
            } else {
                instance.client.history(&format!("after={after}&limit=500")).await.body
            };
            seen.extend(ids(&page).into_iter().map(str::to_owned));
            sizes.push(ids(&page).len());
            match page["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(seen, (0..=40).map(|number| number.to_string()).collect::<Vec<_>>());
        // Half a megabyte each. The last one is as full, and nothing follows it.
        assert_eq!(sizes, [9, 8, 8, 8, 8], "over the socket: {over_socket}");
    }
    let page = instance.client.history("after=1.20&limit=3").await.body;
    assert_eq!((ids(&page), &page["next"]), (vec!["20", "21", "22"], &json!("1.23")));
}

#[tokio::test(flavor = "multi_thread")]
async fn large_events_after_a_position_are_read_a_few_at_a_time() {
    let world = World::new().await;
    let instance = world.nexus().await;
    instance.client.publish(&event("0", "a")).await;
    fill_with_large_events(&world, 299).await;
    let tail = &instance.nexus.state().tail;
    until("all to be followed", async || (tail.head() == 300).then_some(())).await;
    let forgotten = 300 - i64::try_from(tail.ring_entries()).expect("few");
    assert!(forgotten > 100, "all but {forgotten} are in memory");
    let (mut seen, mut most) = (0, 0);
    while seen < forgotten {
        let Batch::Entries(entries) = tail.read_after(seen, 500).await.expect("it can be read") else {
            panic!("nothing was dropped")
        };
        let numbers: Vec<i64> = entries.iter().map(|entry| entry.seq).collect();
        assert_eq!(numbers, (seen + 1..).take(entries.len()).collect::<Vec<_>>());
        seen = *numbers.last().expect("something follows");
        most = most.max(entries.iter().map(|entry| entry.encoded.len()).sum());
    }
    assert!((1..=2 * 1024 * 1024).contains(&most), "{most} bytes at a time");
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_postgres_cannot_hold_breaks_no_choice_by_attributes() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let mut refused = event("refused", "a");
    refused["data"]["component"] = json!("a\u{0}b");
    let refused = client.post("/v1/events", &refused).await;
    assert_eq!((refused.status, refused.violations()), (422, vec!["/data"]));

    client.publish(&event("first", "a")).await;
    // As it may have been logged before it was refused.
    let insert = r#"WITH old AS (
            INSERT INTO log (seq, outbox_id, key, type, subject, event)
            SELECT seq, -seq, gen_random_uuid(), 'health.check', 'system/a', event::json FROM (VALUES
                (2, '{"id":"nul","tenant":"7","data":{"component":"a\u0000b"}}'),
                (3, '{"id":"half","tenant":"8","data":{"component":"a\ud800b"}}')
            ) AS old (seq, event) RETURNING seq
        ) UPDATE head SET seq = (SELECT max(seq) FROM old)"#;
    sqlx::query(insert).execute(&world.postgres).await.expect("they are there");
    for (query, wanted) in [("attributes=id=first", "first"), ("attributes=tenant=7", "nul")] {
        let page = client.history(query).await;
        assert_eq!((page.status, ids(&page.body)), (200, vec![wanted]), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_chooses_by_attributes_and_waits_for_them() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let of = |id: &str, tenant: Value, source: &str| {
        let mut event = event(id, "a");
        (event["tenant"], event["source"]) = (tenant, json!(source));
        event
    };
    let all = [
        of("one", json!("7"), "/mint"),
        of("two", json!(7), "/mint"),
        of("three", json!("8"), "/mint"),
        of("four", json!("7"), "/other"),
        event("five", "a"),
    ];
    client.publish(&json!(all)).await;
    for (query, wanted) in [
        ("attributes=tenant=7", vec!["one", "two", "four"]),
        ("attributes=tenant=7,source=/mint", vec!["one", "two"]),
        ("attributes=tenant=7&limit=1&after=1.1", vec!["two"]),
        ("attributes=region=a", vec![]),
    ] {
        assert_eq!(ids(&client.history(query).await.body), wanted, "{query}");
    }
    let waiting = client.clone();
    let waiting = tokio::spawn(async move { waiting.history("attributes=tenant=9&after=1.5&wait=12").await.body });
    until("it to wait", async || (metric(&client, "nexus_stream_connections").await == 1).then_some(())).await;
    client.publish(&json!([of("six", json!("8"), "/mint"), of("seven", json!("9"), "/mint")])).await;
    assert_eq!(ids(&waiting.await.expect("it is answered")), ["seven"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_resumes_after_its_position() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let position = client.publish(&event("one", "a")).await;
    assert_eq!(
        client.history(&format!("after={position}")).await.body,
        json!({"events": [], "next": null, "head": "1.1"})
    );
    client.publish(&event("two", "a")).await;
    let page = client.history(&format!("after={position}")).await.body;
    assert_eq!((ids(&page), &page["head"]), (vec!["two"], &json!("1.2")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_the_log_never_had_is_refused() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    client.publish(&event("one", "a")).await;
    for unknown in ["1.2", "2.1", "0.0"] {
        let answer = client.get(&format!("/v1/events?after={unknown}")).await;
        assert_eq!(answer.problem(), (409, "position_unknown"), "{unknown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_query_is_told_which_part() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    for (query, name) in [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=x", "limit"),
        ("after=yesterday", "after"),
        ("type=a..b", "type"),
        ("attributes=tenant", "attributes"),
        ("attributes=Tenant=7", "attributes"),
        ("attributes=tenant=%00", "attributes"),
        ("sort=up", "query"),
    ] {
        let answer = client.get(&format!("/v1/events?{query}")).await;
        assert_eq!(answer.problem(), (400, "invalid_parameter"), "{query}");
        assert!(answer.body["detail"].as_str().is_some_and(|detail| detail.starts_with(name)), "{}", answer.text);
    }
}
