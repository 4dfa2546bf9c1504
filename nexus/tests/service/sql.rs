//! `nexus_publish`: events of someone's own transaction, by SQL.

use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use crate::support::event_source::EventSource;
use crate::support::socket::Socket;
use crate::support::{World, event, until};

#[tokio::test(flavor = "multi_thread")]
async fn line_breaks_in_the_data_do_not_break_an_event_stream() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let mut stream = EventSource::open(&instance.client, "", None).await;
    let publish = "SELECT nexus_publish('/tests', 'lines', 'health.check', 'system/a', $1::text::json)";
    let data = "{\r\n  \"component\": \"tests\",\n  \"status\": \"healthy\"\n}";
    sqlx::query(publish).bind(data).execute(&world.postgres).await.expect("it is published");
    let event = stream.event().await.data.expect("it has data");
    assert_eq!(event["data"], json!({"component": "tests", "status": "healthy"}));
}

/// What is given to the function, by default a `health.check` that is valid.
struct Given {
    source: &'static str,
    id: String,
    event_type: &'static str,
    subject: String,
    data: Value,
}

impl Given {
    fn valid(id: &str) -> Self {
        Self {
            source: "/tests",
            id: id.to_owned(),
            event_type: "health.check",
            subject: "system/a".to_owned(),
            data: json!({"component": "tests", "status": "healthy"}),
        }
    }

    /// Whether the event is new, or why it is refused.
    async fn publish(&self, connection: &mut PgConnection) -> Result<bool, String> {
        let publish = "SELECT nexus_publish($1, $2, $3, $4, $5::text::json, '2026-01-02T03:04:05.5+01:00')";
        let publish = sqlx::query_scalar(publish).bind(self.source).bind(&self.id).bind(self.event_type);
        let published = publish.bind(&self.subject).bind(self.data.to_string()).fetch_one(connection).await;
        published.map_err(|error| error.as_database_error().expect("the database refuses it").message().to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_transaction_is_carried_like_all_others_once_that_commits() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let client = instance.client;
    let mut socket = Socket::open(instance.nexus.address()).await;
    socket.subscribe(&["health.check"], None).await;
    let mut transaction = world.postgres.begin().await.expect("begin");
    assert_eq!(Given::valid("sql").publish(&mut transaction).await, Ok(true));
    // Whatever is committed meanwhile comes first.
    client.publish(&event("http", "a")).await;
    transaction.commit().await.expect("commit");

    let events = socket.events(2).await;
    let mut wanted = event("sql", "a");
    wanted["datacontenttype"] = json!("application/json");
    wanted["time"] = json!("2026-01-02T02:04:05.500000Z");
    wanted["position"] = json!("1.2");
    assert_eq!((&events[0]["id"], &events[1]), (&json!("http"), &wanted));
    assert_eq!(client.history("after=1.1").await.body["events"], json!([wanted]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_a_transaction_goes_on_in_its_events_and_in_no_other() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let world = World::new().await;
    let client = world.nexus().await.client;
    let mut connection = world.postgres.acquire().await.expect("a connection");
    let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
    let quote = format!("{PARENT}\",\"source\":\"/forged");
    for (id, parent) in [("traced", PARENT), ("zero", zero), ("quote", &quote), ("empty", "")] {
        let mut transaction = connection.begin().await.expect("begin");
        let set = sqlx::query("SELECT set_config('nexus.traceparent', $1, true)").bind(parent);
        set.execute(&mut *transaction).await.expect("it is set");
        assert_eq!(Given::valid(id).publish(&mut transaction).await, Ok(true), "{parent}");
        transaction.commit().await.expect("commit");
    }
    assert_eq!(Given::valid("after").publish(&mut connection).await, Ok(true));
    until("all to be stamped", async || (world.log().await.len() == 5).then_some(())).await;
    let events = client.history("").await.body["events"].clone();
    let events = events.as_array().expect("an array");
    let seen: Vec<Value> = events.iter().map(|event| json!([event["id"], event["traceparent"]])).collect();
    let wanted = json!([["traced", PARENT], ["zero", null], ["quote", null], ["empty", null], ["after", null]]);
    assert_eq!(json!(seen), wanted);
    assert!(events.iter().all(|event| event["source"] == "/tests"), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_may_repeat_what_was_published_by_sql_and_what_was_published_over_the_api() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let mut connection = world.postgres.acquire().await.expect("a connection");
    client.publish(&event("http", "a")).await;
    for (id, place) in [("sql", 2), ("more", 3)] {
        assert_eq!(Given::valid(id).publish(&mut connection).await, Ok(true));
        until("it to be stamped", async || (world.log().await.len() == place).then_some(())).await;
    }
    let batch = ["more", "new", "http", "sql"].map(|id| event(id, "a"));
    let results = client.post("/v1/events", &json!(batch)).await.body["results"].clone();
    let seen: Vec<Value> =
        (0..4).map(|index| json!([results[index]["position"], results[index]["duplicate"]])).collect();
    assert_eq!(json!(seen), json!([["1.3", true], ["1.4", false], ["1.1", true], ["1.2", true]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_transaction_that_is_rolled_back_never_was() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let mut transaction = world.postgres.begin().await.expect("begin");
    assert_eq!(Given::valid("one").publish(&mut transaction).await, Ok(true));
    transaction.rollback().await.expect("roll back");
    let answer = client.post("/v1/events", &event("one", "a")).await;
    assert_eq!((answer.status, answer.header("nexus-position")), (201, Some("1.1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn source_and_id_count_once_by_sql_and_over_http() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let mut connection = world.postgres.acquire().await.expect("connect");
    assert_eq!(Given::valid("by-sql").publish(&mut connection).await, Ok(true));
    assert_eq!(Given::valid("by-sql").publish(&mut connection).await, Ok(false));
    until("the event to be stamped", async || (world.log().await.len() == 1).then_some(())).await;
    let again = client.post("/v1/events", &event("by-sql", "a")).await;
    assert_eq!((again.status, &again.body["position"]), (200, &json!("1.1")));
    client.publish(&event("by-http", "a")).await;
    assert_eq!(Given::valid("by-http").publish(&mut connection).await, Ok(false));
    assert_eq!(world.log().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_would_refuse_is_refused_with_the_name_of_the_argument() {
    let world = World::new().await;
    let mut connection = world.postgres.acquire().await.expect("connect");
    let valid = || Given::valid("one");
    let plain = |name: &str| format!("{name} must have 1 to 256 bytes and no control characters");
    let large = json!({"component": "x".repeat(65_536)});
    for (given, wanted) in [
        (Given { source: "", ..valid() }, plain("source")),
        (Given { source: "/a b", ..valid() }, "source must be a URI reference".to_owned()),
        (Given { id: "a\nb".to_owned(), ..valid() }, plain("id")),
        (Given { id: "a\u{85}b".to_owned(), ..valid() }, plain("id")),
        (Given { id: "x".repeat(257), ..valid() }, plain("id")),
        (Given { event_type: "no.such", ..valid() }, "type is not a registered event type".to_owned()),
        (Given { subject: "wallet/1".to_owned(), ..valid() }, "subject must have the form system/{id}".to_owned()),
        (Given { subject: "system/a b".to_owned(), ..valid() }, "subject must have the form system/{id}".to_owned()),
        (Given { subject: "system/".to_owned(), ..valid() }, "subject must have the form system/{id}".to_owned()),
        (Given { data: json!([]), ..valid() }, "data must be a JSON object".to_owned()),
        (Given { data: large, ..valid() }, "the event has more than 65536 bytes".to_owned()),
        (
            Given { data: json!({"component": "a\u{0}b"}), ..valid() },
            "data must hold only text and numbers that Postgres can read: unsupported Unicode escape sequence"
                .to_owned(),
        ),
        (
            Given {
                event_type: "mining.reward",
                subject: "wallet/1".to_owned(),
                data: json!({"wallet_id": "w".repeat(506)}),
                ..valid()
            },
            "data has more than 512 bytes in a field that names the audience: {\"wallet/{wallet_id}\"}".to_owned(),
        ),
    ] {
        assert_eq!(given.publish(&mut connection).await, Err(wanted));
    }
    assert_eq!(valid().publish(&mut connection).await, Ok(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_needs_the_right_to_publish_and_no_other() {
    let world = World::new().await;
    let mut connection = world.postgres.acquire().await.expect("connect");
    // Roles are of the whole server, which other tests share.
    let role = format!("writer_{}", uuid::Uuid::new_v4().simple());
    let schema: String =
        sqlx::query_scalar("SELECT current_schema()::text").fetch_one(&mut *connection).await.expect("a schema");
    run(&mut connection, format!("CREATE ROLE {role}")).await;
    run(&mut connection, format!("GRANT USAGE ON SCHEMA {schema} TO {role}")).await;
    run(&mut connection, format!("SET ROLE {role}")).await;
    let refused = Given::valid("one").publish(&mut connection).await;
    assert_eq!(refused, Err("permission denied for function nexus_publish".to_owned()));

    run(&mut connection, "RESET ROLE".to_owned()).await;
    run(&mut connection, format!("GRANT EXECUTE ON FUNCTION nexus_publish TO {role}")).await;
    run(&mut connection, format!("SET ROLE {role}")).await;
    // It would take the place of the real one, if the caller's tables came first.
    let columns = "id bigint, key uuid, type text, subject text, event json";
    run(&mut connection, format!("CREATE TEMPORARY TABLE outbox ({columns})")).await;
    assert_eq!(Given::valid("one").publish(&mut connection).await, Ok(true));
    let around: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pg_temp.outbox").fetch_one(&mut *connection).await.expect("read");
    assert_eq!(around, 0);

    run(&mut connection, "RESET ROLE".to_owned()).await;
    run(&mut connection, format!("DROP OWNED BY {role}")).await;
    run(&mut connection, format!("DROP ROLE {role}")).await;
}

async fn run(connection: &mut PgConnection, statement: String) {
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(connection).await.expect("the owner may do this");
}
