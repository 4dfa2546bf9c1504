//! Event types that have changed: every version is taken, and each reader is given the one that it asks for. Event types
//! of a deployment: they are in all like those of the build.

use std::path::PathBuf;

use nexus::events::{Definition, Domain, Earlier, Payload, Registry};
use nexus::serve::Nexus;
use nexus::store::postgres::migrate;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::client::{HS256_KEY, token, token_of};
use crate::support::consumers::{self, Consumer};
use crate::support::event_source::EventSource;
use crate::support::receiver::{Got, Receiver, Webhook};
use crate::support::socket::Socket;
use crate::support::{World, event, socket_io, until};

/// A parcel was sent.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ParcelSent {
    parcel_id: String,
    recipient_id: String,
    grams: i64,
}

impl Payload for ParcelSent {
    const TYPE: &'static str = "parcel.sent";
    const EARLIER: &'static [Earlier] = &[
        Earlier {
            released: r#"{"audience": ["user/{to}"],
                "schema": {"type": "object", "additionalProperties": false, "required": ["parcel_id", "to"],
                "properties": {"parcel_id": {"type": "string"}, "to": {"type": "string"}}}}"#,
            upcast: |data| {
                if let Some(to) = data.remove("to") {
                    data.insert("recipient_id".to_owned(), to);
                }
            },
        },
        Earlier {
            released: r#"{"audience": ["user/{recipient_id}"],
                "schema": {"type": "object", "required": ["parcel_id", "recipient_id"]}}"#,
            upcast: |data| {
                data.insert("grams".to_owned(), json!(0));
            },
        },
    ];
    const DOMAIN: Domain = Domain::Marketplace;
    const SUBJECT: &'static str = "parcel";
    const AUDIENCE: &'static [&'static str] = &["user/{recipient_id}"];
    const DESCRIPTION: &'static str = "A parcel was sent.";
}

fn registry() -> Registry {
    Registry::built_in().with(Definition::of::<ParcelSent>())
}

/// An event of this version; of the first one, without saying so.
fn parcel(id: &str, version: u16, data: &Value) -> Value {
    let mut event = json!({
        "specversion": "1.0", "id": id, "source": "/tests", "type": "parcel.sent", "subject": "parcel/p", "data": data,
    });
    if version > 1 {
        event["dataschema"] = json!(format!("/v1/event-types/parcel.sent/versions/{version}"));
    }
    event
}

/// The same parcel in each version.
fn data(version: u16) -> Value {
    match version {
        1 => json!({"parcel_id": "p", "to": "u"}),
        2 => json!({"parcel_id": "p", "recipient_id": "u"}),
        _ => json!({"parcel_id": "p", "recipient_id": "u", "grams": 0}),
    }
}

/// The versions of events, each with the data of just that version.
fn versions<'a>(events: impl IntoIterator<Item = &'a Value>) -> Vec<u16> {
    let version = |event: &Value| {
        let version = match event["dataschema"].as_str() {
            None => 1,
            Some(named) => named.rsplit('/').next().and_then(|number| number.parse().ok()).expect("a version"),
        };
        assert_eq!(event["data"], data(version), "{event}");
        version
    };
    events.into_iter().map(version).collect()
}

fn history(page: &Value) -> Vec<u16> {
    versions(page["events"].as_array().expect("a page has events"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reader_is_given_events_in_the_version_that_it_asks_for() {
    let world = World::new().await;
    let (one, two) = (world.nexus_of(registry()).await, world.nexus_of(registry()).await);
    let mut live = Socket::open(two.nexus.address()).await;
    live.subscribe(&["parcel.*"], None).await;
    for (id, version) in [("a", 1), ("b", 2), ("c", 3)] {
        one.client.publish(&parcel(id, version, &data(version))).await;
    }
    // Live, and on the pod that did not stamp them: the current version of each.
    assert_eq!(versions(&live.events(3).await), [3, 3, 3]);
    for (asked, given) in [(None, [3, 3, 3]), (Some(1), [1, 2, 3]), (Some(2), [2, 2, 3]), (Some(3), [3, 3, 3])] {
        let query = asked.map(|version| format!("versions=parcel.sent:{version}")).unwrap_or_default();
        for instance in [&one, &two] {
            assert_eq!(history(&instance.client.history(&query).await.body), given, "{query}");
        }
        let mut stream = EventSource::open(&two.client, &format!("after=1.0&{query}"), None).await;
        let mut streamed = Vec::new();
        for _ in 0..3 {
            streamed.push(stream.event().await.data.expect("it has data"));
        }
        assert_eq!(versions(&streamed), given, "{query} of the event stream");
        let mut socket = Socket::open(one.nexus.address()).await;
        let wanted = asked.map_or(json!({}), |version| json!({"parcel.sent": version}));
        let subscribe = json!({"command": "subscribe", "types": ["parcel.*"], "after": "1.0", "versions": wanted});
        assert_eq!(socket.command(subscribe).await["error"], Value::Null);
        assert_eq!(versions(&socket.events(3).await), given, "{query} of a socket");
        let page = socket.command(json!({"command": "history", "versions": wanted})).await;
        assert_eq!(history(&page["result"]), given, "{query} of its history");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_and_webhooks_are_given_events_in_the_version_that_they_ask_for() {
    let world = World::new().await;
    let client = world.nexus_of(registry()).await.client;
    for (id, version) in [("a", 1), ("b", 2), ("c", 3)] {
        client.publish(&parcel(id, version, &data(version))).await;
    }
    let asked = [
        ("current", json!({}), [3, 3, 3]),
        ("second", json!({"parcel.sent": 2}), [2, 2, 3]),
        ("first", json!({"parcel.sent": 1}), [1, 2, 3]),
    ];
    for (name, asked, given) in asked {
        let settings = json!({"types": ["parcel.*"], "versions": asked, "after": "1.0", "retry_seconds": []});
        let consumer = Consumer::new(&client, name, settings.clone()).await;
        assert_eq!(consumer.get("").await.body["versions"], asked);
        let leased = consumer.lease(3).await;
        assert_eq!(versions(leased.iter().map(|leased| &leased["event"])), given, "{asked} of a consumer");
        consumer.give_back(&leased).await;
        let dead = consumer.get("/dead-letters").await.body;
        let dead = dead["dead_letters"].as_array().expect("a list");
        assert_eq!(versions(dead.iter().map(|letter| &letter["event"])), given, "{asked} of its dead letters");

        let receiver = Receiver::accepting().await;
        let webhook = Webhook::new(&client, &receiver.url(), settings).await;
        let events: Vec<Value> = receiver.until(3).await.iter().map(Got::event).collect();
        assert_eq!(versions(&events), given, "{asked} of a webhook");
        // What is changed otherwise leaves the versions as they are.
        assert_eq!(webhook.change(json!({"description": "one"})).await.body["versions"], asked);
        let changed = webhook.change(json!({"versions": {"parcel.sent": 2}})).await;
        assert_eq!(changed.body["versions"], json!({"parcel.sent": 2}), "{}", changed.text);
        assert_eq!(webhook.change(json!({"versions": {"parcel.sent": 4}})).await.violations(), ["/versions"]);
    }
    let settings = json!({"types": ["parcel.*"], "versions": {"parcel.lost": 1}});
    assert_eq!(consumers::put(&client, "wrong", &settings).await.violations(), ["/versions"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_socket_io_that_is_recovered_goes_on_in_the_version_that_it_asked_for() {
    let world = World::new().await;
    let (one, two) = (world.nexus_of(registry()).await, world.nexus_of(registry()).await);
    let mut client = socket_io::Client::open(one.nexus.address()).await;
    let pid = client.connect(json!({"token": token("events:read")})).await["pid"].clone();
    client.command("subscribe", json!({"types": ["parcel.*"], "versions": {"parcel.sent": 2}})).await;
    one.client.publish(&parcel("a", 1, &data(1))).await;
    let came = client.event().await;
    assert_eq!(versions([&came[1]]), [2]);
    drop(client);
    one.client.publish(&parcel("b", 1, &data(1))).await;

    let mut client = socket_io::Client::open(two.nexus.address()).await;
    let again = json!({"token": token("events:read"), "pid": pid, "offset": came[2]});
    assert_eq!(client.connect(again).await["pid"], pid, "this is what makes it recovered");
    let came = client.event().await;
    assert_eq!((&came[1]["id"], versions([&came[1]])), (&json!("b"), vec![2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_is_taken_by_its_own_schema_for_the_same_people() {
    let world = World::new().await;
    let client = world.nexus_of(registry()).await.client;
    let wrong = client.post("/v1/events", &parcel("wrong", 3, &data(1))).await;
    assert_eq!(wrong.violations(), ["/data/recipient_id", "/data/grams", "/data/to"]);
    let unknown = client.post("/v1/events", &parcel("unknown", 4, &data(3))).await;
    assert_eq!((unknown.problem(), unknown.violations()), ((422, "invalid_document"), vec!["/dataschema"]));
    client.publish(&parcel("first", 1, &data(1))).await;
    // The rule names a field that the first version had under another name.
    let recipient = client.with_token(Some(token_of(HS256_KEY, "u", "events:read:own", 60)));
    assert_eq!(history(&recipient.history("").await.body), [3]);

    let listed = client.get("/v1/event-types").await.body;
    let types = listed["types"].as_array().expect("types");
    let parcel = types.iter().find(|one| one["type"] == "parcel.sent").expect("it is listed");
    let last = json!({"version": 3, "dataschema": "/v1/event-types/parcel.sent/versions/3"});
    assert_eq!((&parcel["version"], parcel["versions"].as_array().map(Vec::len)), (&json!(3), Some(3)));
    assert_eq!(parcel["versions"][2], last);
    let schema = client.get("/v1/event-types/parcel.sent/versions/1").await;
    assert_eq!(schema.header("content-type"), Some("application/schema+json"));
    assert_eq!(schema.body["required"], json!(["parcel_id", "to"]));
    assert_eq!(client.get("/v1/event-types/parcel.sent/versions/4").await.problem(), (404, "not_found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn by_sql_too_every_version_is_published_for_the_same_people() {
    let world = World::new().await;
    migrate(&world.config.database, &registry()).await.expect("the types are registered");
    let client = world.nexus_of(registry()).await.client;
    let publish = async |version: u16, id: &str| {
        let publish = "SELECT nexus_publish_version($1, '/tests', $2, 'parcel.sent', 'parcel/p', $3::text::json)";
        let publish = sqlx::query_scalar::<_, bool>(publish).bind(i32::from(version)).bind(id);
        let published = publish.bind(data(version.min(3)).to_string()).fetch_one(&world.postgres).await;
        published.map_err(|error| error.as_database_error().expect("the database refuses it").message().to_owned())
    };
    for (version, id) in [(1, "a"), (2, "b"), (3, "c")] {
        assert_eq!(publish(version, id).await, Ok(true));
    }
    // The one without a version is of the first.
    let first = "SELECT nexus_publish('/tests', 'd', 'parcel.sent', 'parcel/p', $1::text::json)";
    sqlx::query(first).bind(data(1).to_string()).execute(&world.postgres).await.expect("it is published");
    for version in [0, 4] {
        assert_eq!(publish(version, "e").await, Err("the event type has no such version".to_owned()));
    }
    assert_eq!(publish(3, "a").await, Ok(false), "it is the same event, whatever its version");
    until("all to be stamped", async || (world.log().await.len() == 4).then_some(())).await;
    assert_eq!(history(&client.history("versions=parcel.sent:1").await.body), [1, 2, 3, 1]);
    let recipient = client.with_token(Some(token_of(HS256_KEY, "u", "events:read:own", 60)));
    assert_eq!(history(&recipient.history("").await.body), [3, 3, 3, 3]);
    // As it would have been written over the API.
    let mut wanted = parcel("b", 2, &data(2));
    let page = client.history("after=1.1&limit=1&versions=parcel.sent:2").await.body;
    (wanted["time"], wanted["position"]) = (page["events"][0]["time"].clone(), json!("1.2"));
    wanted["datacontenttype"] = json!("application/json");
    assert_eq!(page["events"], json!([wanted]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_version_cannot_be_asked_for() {
    let world = World::new().await;
    let instance = world.nexus_of(registry()).await;
    for query in ["parcel.sent:4", "parcel.sent:0", "parcel.lost:1", "parcel.sent", "parcel.sent:1,parcel.sent:2"] {
        let answer = instance.client.get(&format!("/v1/events?versions={query}")).await;
        assert_eq!(answer.problem(), (400, "invalid_parameter"), "{query}");
    }
    let mut socket = Socket::open(instance.nexus.address()).await;
    let answer = socket.command(json!({"command": "subscribe", "types": ["**"], "versions": {"parcel.sent": 4}})).await;
    assert_eq!(answer["error"]["code"], "invalid_parameter");
}

/// While a newer build rolls out, the pods of the older one know neither the type nor its versions.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_does_not_know_a_type_carries_its_events_as_they_are() {
    let world = World::new().await;
    let (new, old) = (world.nexus_of(registry()).await, world.nexus().await);
    let mut live = Socket::open(old.nexus.address()).await;
    live.subscribe(&["**"], None).await;
    new.client.publish(&parcel("a", 1, &data(1))).await;
    old.client.publish(&event("b", "a")).await;
    new.client.publish(&parcel("c", 2, &data(2))).await;
    let came = live.events(3).await;
    assert_eq!(versions([&came[0], &came[2]]), [1, 2]);
    for query in ["", "type=**", "type=health.*,**"] {
        let page = old.client.history(query).await.body;
        assert_eq!(page["events"], json!(came), "{query}");
    }
    let page = live.command(json!({"command": "history", "types": ["**"]})).await;
    assert_eq!(page["result"]["events"], json!(came));
    // Whoever comes back to the new pod has missed nothing and is given the current version.
    assert_eq!(history(&new.client.history("type=parcel.sent").await.body), [3, 3]);
}

/// A folder of one type, gone with this.
struct Folder(PathBuf);

impl Folder {
    fn with(document: &Value) -> Self {
        let folder = std::env::temp_dir().join(format!("nexus-types-{}", Uuid::new_v4()));
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(folder.join("order.json"), document.to_string()).expect("a file");
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn order_placed() -> Value {
    json!({
        "type": "order.placed", "version": 1, "description": "An order was placed.", "domain": "shop",
        "subject": "order/{id}", "publisher": "service", "audience": ["user/{user_id}", "order/{order_id}"],
        "lets_in": true,
        "schema": {
            "type": "object", "additionalProperties": false, "required": ["user_id", "order_id"],
            "properties": {"user_id": {"type": "string"}, "order_id": {"type": "string"}, "note": {"type": "string"}},
        },
    })
}

fn order(id: &str, data: &Value) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/shop", "type": "order.placed", "subject": "order/1", "data": data,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_of_the_deployment_is_published_told_and_described_like_all_others() {
    let folder = Folder::with(&order_placed());
    let mut world = World::new().await;
    world.config.event_types.folder = Some(folder.0.clone());
    let registry = world.config.event_types.registry().expect("the folder is right");
    migrate(&world.config.database, &registry).await.expect("the types are registered");
    let instance = world.nexus().await;
    let client = &instance.client;
    let mut live = Socket::open(instance.nexus.address()).await;
    live.subscribe(&["order.*"], None).await;

    let wrong = client.post("/v1/events", &order("wrong", &json!({"user_id": "u", "amount": 1}))).await;
    assert_eq!(wrong.violations(), ["/data/order_id", "/data/amount"]);
    client.publish(&order("http", &json!({"user_id": "u", "order_id": "o"}))).await;
    let publish = "SELECT nexus_publish('/shop', 'sql', 'order.placed', 'order/2', $1::text::json)";
    let data = json!({"user_id": "v", "order_id": "o"});
    sqlx::query(publish).bind(data.to_string()).execute(&world.postgres).await.expect("SQL knows the type");
    let ids: Vec<Value> = live.events(2).await.into_iter().map(|event| event["id"].clone()).collect();
    assert_eq!(ids, ["http", "sql"]);
    // Each was let into the order's room by the event that names it.
    let own = |sub| client.with_token(Some(token_of(HS256_KEY, sub, "events:read:own", 60)));
    for (person, seen) in [("u", 2), ("v", 2), ("w", 0)] {
        let page = own(person).history("type=order.placed").await.body;
        assert_eq!(page["events"].as_array().map(Vec::len), Some(seen), "{person}");
    }

    let listed = client.get("/v1/event-types").await.body["types"][16].take();
    assert_eq!((&listed["type"], &listed["domain"]), (&json!("order.placed"), &json!("shop")));
    for (document, place) in [
        ("/openapi.json", "/components/schemas/order.placed"),
        ("/asyncapi.json", "/components/schemas/order.placed"),
        ("/v1/event-types/order.placed/versions/1", ""),
    ] {
        let described = client.get(document).await.body;
        assert_eq!(described.pointer(place), Some(&order_placed()["schema"]), "{document}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nexus_does_not_start_with_a_folder_that_it_would_have_to_read_in_part() {
    let mut document = order_placed();
    document["audience"] = json!(["order/{number}"]);
    let folder = Folder::with(&document);
    let mut world = World::new().await;
    world.config.event_types.folder = Some(folder.0.clone());
    let refused = Nexus::start(world.config.clone()).await.map(drop).map_err(anyhow::Error::from);
    let told = format!("{:#}", refused.expect_err("a file is wrong"));
    let file = folder.0.join("order.json");
    let want =
        format!("read the event types of the deployment: {}: has a wrong `audience`: it must name", file.display());
    assert!(told.starts_with(&want), "{told}");
}
