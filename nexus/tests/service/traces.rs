//! Traces: from a request on one pod to the frame on another, and nothing of it where nobody asked for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use nexus::config::{Config, TraceSampler};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Told;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::event_source::EventSource;
use crate::support::socket::Socket;
use crate::support::{Client, Instance, World, event, large_event, until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// A span as the collector got it.
#[derive(Clone, Debug)]
struct Span {
    pod: String,
    name: String,
    trace: String,
    id: String,
    parent: String,
    begun: u64,
    ended: u64,
    told: BTreeMap<String, String>,
}

/// A collector that keeps what it gets.
struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    async fn start() -> Self {
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let kept = Arc::clone(&spans);
        let take = post(move |body: Bytes| async move {
            let request = ExportTraceServiceRequest::decode(body).expect("it is what OTLP says");
            kept.lock().expect("no panic").extend(read(request));
            StatusCode::OK
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("a listener has an address"));
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().route("/v1/traces", take)).await });
        Self { url, spans }
    }

    /// What it has got of a trace.
    fn of(&self, trace: &str) -> Vec<Span> {
        self.spans.lock().expect("no panic").iter().filter(|span| span.trace == trace).cloned().collect()
    }

    /// The span of this name, once it has come.
    async fn span(&self, trace: &str, name: &str) -> Span {
        until(name, async || self.of(trace).into_iter().find(|span| span.name == name)).await
    }

    /// A pod that sends its traces here.
    async fn pod(&self, world: &World, name: &str, change: impl FnOnce(&mut Config)) -> Instance {
        let url = self.url.clone();
        let change = |config: &mut Config| {
            config.pod = Some(name.to_owned());
            config.traces.endpoint = Some(url);
            change(config);
        };
        world.nexus_with(change).await
    }
}

fn read(request: ExportTraceServiceRequest) -> Vec<Span> {
    let mut spans = Vec::new();
    for of_pod in request.resource_spans {
        let resource = told(&of_pod.resource.expect("a pod says who it is").attributes);
        assert_eq!(resource["service.name"], "nexus");
        for span in of_pod.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.push(Span {
                pod: resource["service.instance.id"].clone(),
                name: span.name,
                trace: hexadecimal(&span.trace_id),
                id: hexadecimal(&span.span_id),
                parent: hexadecimal(&span.parent_span_id),
                begun: span.start_time_unix_nano,
                ended: span.end_time_unix_nano,
                told: told(&span.attributes),
            });
        }
    }
    spans
}

fn told(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref().and_then(|value| value.value.clone()) {
        Some(Told::StringValue(text)) => text,
        Some(Told::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), text(attribute))).collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

/// Publishes as a caller who is traced.
async fn publish(client: &Client, event: &Value, traceparent: &str) {
    let request = client.request(reqwest::Method::POST, "/v1/events").header("traceparent", traceparent).json(event);
    let answer = client.send(request).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
}

/// What the log says of the trace of each event.
async fn marks(client: &Client) -> Vec<Value> {
    let page = client.history("").await.body;
    page["events"].as_array().expect("events").iter().map(|event| event["traceparent"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_a_request_to_the_frame_on_another_pod() {
    let (world, collector) = (World::new().await, Collector::start().await);
    let one = collector.pod(&world, "one", |_| {}).await;
    let two = collector.pod(&world, "two", |_| {}).await;
    let mut sockets = Vec::new();
    for _ in 0..5 {
        let mut socket = Socket::open(two.nexus.address()).await;
        socket.subscribe(&["health.*"], None).await;
        sockets.push(socket);
    }
    let mut stream = EventSource::open(&two.client, "", None).await;
    publish(&one.client, &event("traced", "a"), &format!("00-{TRACE}-{SPAN}-01")).await;
    for socket in &mut sockets {
        assert_eq!(socket.events(1).await[0]["id"], "traced");
    }
    stream.ids(1).await;

    let request = collector.span(TRACE, "POST /v1/events").await;
    assert_eq!((&*request.pod, &*request.parent), ("one", SPAN));
    assert_eq!((&*request.told["http.route"], &*request.told["http.response.status_code"]), ("/v1/events", "201"));
    assert_eq!(marks(&two.client).await, [format!("00-{TRACE}-{}-01", request.id)]);
    for (name, pod) in [("append", "one"), ("stamp", "one"), ("deliver", "two")] {
        let step = collector.span(TRACE, name).await;
        assert_eq!((&*step.pod, &step.parent), (pod, &request.id), "{name}");
        assert!(request.begun <= step.begun && step.begun <= step.ended, "{request:?} {step:?}");
        if name != "append" {
            assert_eq!((&*step.told["nexus.log.seq"], &*step.told["nexus.event.type"]), ("1", "health.check"));
        }
    }
    // What is stopped sends everything first: nothing more is to come.
    one.nexus.stop(std::time::Duration::ZERO).await;
    two.nexus.stop(std::time::Duration::ZERO).await;
    let mut names: Vec<String> = collector.of(TRACE).into_iter().map(|span| span.name).collect();
    names.sort();
    assert_eq!(names, ["POST /v1/events", "append", "deliver", "stamp"], "one for all receivers of a pod");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_that_begins_here_marks_what_is_published_by_every_door() {
    let (world, collector) = (World::new().await, Collector::start().await);
    let one = collector.pod(&world, "one", |_| {}).await;
    one.client.publish(&event("by HTTP", "a")).await;
    let mut socket = Socket::open(one.nexus.address()).await;
    socket.subscribe(&["**"], None).await;
    socket.command(json!({"command": "publish", "event": event("by WebSocket", "a")})).await;
    let user = json!({"email": "ann@example.org", "display_name": "Ann"});
    assert_eq!(one.client.post("/v1/users", &user).await.status, 201);
    socket.events(2).await;
    let marks = marks(&one.client).await;
    for (mark, name) in marks.iter().zip(["POST /v1/events", "publish", "POST /v1/users"]) {
        let parts: Vec<&str> = mark.as_str().unwrap_or_else(|| panic!("{marks:?}")).split('-').collect();
        let root = collector.span(parts[1], name).await;
        assert_eq!((&*root.id, &*root.parent, parts[3]), (parts[2], "", "01"));
        collector.span(parts[1], "append").await;
        collector.span(parts[1], "stamp").await;
    }
    assert_eq!(marks.len(), 3);
    // An event that brings its own goes on in that, and one that is as large as it may be is not too large for a mark.
    let mut own = event("own", "a");
    own["traceparent"] = json!(format!("00-{TRACE}-{SPAN}-01"));
    one.client.publish(&own).await;
    let deliver = collector.span(TRACE, "deliver").await;
    assert_eq!(deliver.parent, SPAN);
    let mut largest = large_event("largest");
    largest["data"]["component"] = json!("tests");
    one.client.publish(&largest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sampled_is_handed_on_and_leaves_no_span() {
    let (world, collector) = (World::new().await, Collector::start().await);
    let one = collector.pod(&world, "one", |config| config.traces.sampler = TraceSampler::ParentbasedAlwaysOff).await;
    let mut socket = Socket::open(one.nexus.address()).await;
    socket.subscribe(&["**"], None).await;
    let other = TRACE.replace('4', "5");
    publish(&one.client, &event("unsampled", "a"), &format!("00-{TRACE}-{SPAN}-00")).await;
    publish(&one.client, &event("nonsense", "a"), "00-nonsense").await;
    one.client.publish(&event("untraced", "a")).await;
    publish(&one.client, &event("sampled", "a"), &format!("00-{other}-{SPAN}-01")).await;
    socket.events(4).await;
    let request = collector.span(&other, "POST /v1/events").await;
    let unsampled = format!("00-{TRACE}-{SPAN}-00");
    let sampled = format!("00-{other}-{}-01", request.id);
    assert_eq!(marks(&one.client).await, [json!(unsampled), Value::Null, Value::Null, json!(sampled)]);
    one.nexus.stop(std::time::Duration::ZERO).await;
    let spans = collector.spans.lock().expect("no panic").clone();
    assert!(spans.iter().all(|span| span.trace == other), "{spans:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_events_stay_as_they_came() {
    let world = World::new().await;
    let one = world.nexus().await;
    publish(&one.client, &event("one", "a"), &format!("00-{TRACE}-{SPAN}-01")).await;
    let stored: String =
        sqlx::query_scalar("SELECT event::text FROM log").fetch_one(&world.postgres).await.expect("it is there");
    assert!(!stored.contains("traceparent"), "{stored}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_nothing_and_holds_nothing_up() {
    let world = World::new().await;
    let one = world.nexus_with(|config| config.traces.endpoint = Some("http://127.0.0.1:9".to_owned())).await;
    let mut socket = Socket::open(one.nexus.address()).await;
    socket.subscribe(&["**"], None).await;
    // More than the queue holds.
    for batch in 0..30 {
        let ids: Vec<String> = (0..100).map(|number| format!("{batch}-{number}")).collect();
        let events: Vec<Value> = ids.iter().map(|id| event(id, id)).collect();
        one.client.publish(&json!(events)).await;
    }
    assert_eq!(socket.events(3_000).await.len(), 3_000);
    let begun = std::time::Instant::now();
    one.nexus.stop(std::time::Duration::ZERO).await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(30), "the collector was waited for");
}
