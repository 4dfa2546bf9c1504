//! Rooms: joined by right, left, and who is there, over all pods and transports.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{HS256_KEY, token_of};
use crate::support::event_source::EventSource;
use crate::support::people::{ANN, BOB, CAT, as_person, enrolled, lesson, named, open};
use crate::support::proxy::Proxy;
use crate::support::socket::{Opening, Socket, ids};
use crate::support::{Client, World, event, people, socket_io, token, until};

fn code(answer: &Value) -> &str {
    answer["error"]["code"].as_str().unwrap_or_else(|| panic!("no refusal: {answer}"))
}

async fn join(socket: &mut Socket, room: &str) -> Value {
    socket.command(json!({"command": "join", "room": room})).await
}

async fn leave(socket: &mut Socket, room: &str) -> Value {
    socket.command(json!({"command": "leave", "room": room})).await
}

/// Waits until this is who is there.
async fn until_present(client: &Client, room: &str, list: &[&str]) {
    let want = json!({"room": room, "people": list.len(), "list": list, "complete": true});
    let path = format!("/v1/presence?room={room}");
    until("these people to be present", async || (client.get(&path).await.body == want).then_some(())).await;
}

async fn presence(client: &Client, room: &str) -> Value {
    let answer = client.get(&format!("/v1/presence?room={room}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.body
}

#[tokio::test(flavor = "multi_thread")]
async fn one_joins_a_room_by_right_and_hears_what_is_told_there_until_one_leaves() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await, world.nexus().await);
    let mut reader = Socket::open(two.nexus.address()).await;
    reader.subscribe(&["**"], None).await;
    one.client.publish(&enrolled(ANN, "c1")).await;
    // Else it could be the first that she hears in the room.
    reader.events(1).await;
    let mut ann = open(&two.client, ANN).await;
    let mut bob = open(&two.client, BOB).await;
    assert_eq!(code(&join(&mut bob, "course/c1").await), "room_refused");
    assert_eq!(code(&join(&mut ann, &format!("user/{BOB}")).await), "room_refused");
    assert_eq!(code(&join(&mut ann, "").await), "invalid_parameter");
    // Where she is let in the pod of the socket may know a moment later.
    let joined = until("the room to be open", async || {
        let answer = join(&mut ann, "course/c1").await;
        answer.get("result").is_some().then_some(answer)
    })
    .await;
    assert_eq!(joined["result"]["subscription"], "s1");
    assert_eq!(join(&mut ann, "course/c1").await["result"]["subscription"], "s1", "she is there once");

    one.client.publish(&lesson("of her own, elsewhere", ANN, "c2")).await;
    one.client.publish(&lesson("of another, there", BOB, "c1")).await;
    assert_eq!(ids(&ann.events(1).await), ["of another, there"]);

    assert_eq!(leave(&mut ann, "course/c1").await["result"], json!({}));
    assert_eq!(code(&leave(&mut ann, "course/c1").await), "room_unknown");
    ann.subscribe(&["lesson.*"], None).await;
    one.client.publish(&lesson("of another, again", BOB, "c3")).await;
    one.client.publish(&lesson("of her own", ANN, "c4")).await;
    assert_eq!(ids(&ann.events(1).await), ["of her own"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_of_a_room_is_resumed_and_narrowed_like_every_other() {
    let world = World::new().await;
    let instance = world.nexus().await;
    instance.client.publish(&enrolled(ANN, "c1")).await;
    instance.client.publish(&lesson("first", BOB, "c1")).await;
    instance.client.publish(&lesson("elsewhere", ANN, "c2")).await;
    let mut ann = open(&instance.client, ANN).await;
    let command = json!({"command": "subscribe", "types": ["lesson.*"], "room": "course/c1", "after": "1.0"});
    assert_eq!(ann.command(command).await["result"]["subscription"], "s1");
    instance.client.publish(&enrolled(BOB, "c1")).await;
    instance.client.publish(&lesson("second", BOB, "c1")).await;
    assert_eq!(ids(&ann.events(2).await), ["first", "second"]);

    let client = as_person(&instance.client, ANN);
    let mut stream = EventSource::open(&client, "type=lesson.*&room=course/c1&after=1.0", None).await;
    assert_eq!(stream.ids(2).await.0, ["first", "second"]);
    let refused = client.get("/v1/stream/sse?room=course/c9").await;
    assert_eq!(refused.problem(), (403, "room_refused"));

    // Who may see everything is in every room, also in one of which nobody has heard.
    let mut reader = Socket::open(instance.nexus.address()).await;
    assert!(join(&mut reader, "job/j9").await.get("result").is_some());
    let data = json!({"job_id": "j8", "employer_id": BOB, "title": "Paint"});
    instance.client.publish(&named("another job", "job.posted", "job/j8", &data)).await;
    let data = json!({"application_id": "1", "job_id": "j9", "applicant_id": ANN});
    instance.client.publish(&named("an application", "application.submitted", "job/j9", &data)).await;
    assert_eq!(ids(&reader.events(1).await), ["an application"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_socket_io_is_in_its_rooms_again_on_the_other_pod() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await, world.nexus().await);
    one.client.publish(&enrolled(ANN, "c1")).await;
    let auth = json!({"token": people::token_of_person(ANN)});
    let mut client = socket_io::Client::open(one.nexus.address()).await;
    let pid = client.connect(auth.clone()).await["pid"].clone();
    let joined = client.command("join", json!({"room": "course/c1"})).await;
    assert_eq!(joined["result"]["room"], "course/c1", "{joined}");
    until_present(&two.client, "course/c1", &[ANN]).await;
    drop(client);
    until_present(&two.client, "course/c1", &[]).await;
    one.client.publish(&lesson("elsewhere", ANN, "c2")).await;
    one.client.publish(&lesson("missed", BOB, "c1")).await;

    let mut client = socket_io::Client::open(two.nexus.address()).await;
    let again = json!({"token": people::token_of_person(ANN), "pid": pid});
    assert_eq!(client.connect(again).await["pid"], pid, "it is recovered");
    assert_eq!(client.event().await[1]["id"], "missed");
    until_present(&one.client, "course/c1", &[ANN]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_people_all_are_counted_and_a_hundred_are_named() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await, world.nexus().await);
    let mut sockets = Vec::new();
    for number in 0..103 {
        let instance = if number % 2 == 0 { &one } else { &two };
        let reader = token_of(HS256_KEY, &format!("reader-{number}"), "events:read", 600);
        let opening = Opening { token: Some(reader), ..Opening::default() };
        let mut socket = opening.open(instance.nexus.address()).await.expect("the token is good");
        assert!(join(&mut socket, "course/c1").await.get("result").is_some());
        sockets.push(socket);
    }
    let present = until("all to be counted", async || {
        let present = presence(&one.client, "course/c1").await;
        (present["people"] == 103).then_some(present)
    })
    .await;
    let named = present["list"].as_array().expect("a list");
    assert_eq!((named.len(), &present["complete"]), (100, &json!(false)));
    assert!(named.iter().all(|name| name.as_str().is_some_and(|name| name.starts_with("reader-"))), "{named:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_counts_people_over_all_pods_once_each() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await, world.nexus().await);
    for person in [ANN, BOB] {
        one.client.publish(&enrolled(person, "c1")).await;
    }
    let (mut here, mut there) = (open(&one.client, ANN).await, open(&two.client, ANN).await);
    let mut bob = open(&two.client, BOB).await;
    for socket in [&mut here, &mut there, &mut bob] {
        until("the room to be open", async || join(socket, "course/c1").await.get("result").map(drop)).await;
    }
    until_present(&one.client, "course/c1", &[ANN, BOB]).await;
    // Who asks on a socket, having just come, finds itself.
    let asked = bob.command(json!({"command": "presence", "room": "course/c1"})).await;
    assert_eq!(asked["result"], json!({"room": "course/c1", "people": 2, "list": [ANN, BOB], "complete": true}));

    drop(here);
    leave(&mut bob, "course/c1").await;
    until_present(&one.client, "course/c1", &[ANN]).await;
    drop(there);
    until_present(&one.client, "course/c1", &[]).await;

    // Each is in the room of one's own with the first connection.
    assert_eq!(presence(&one.client, &format!("user/{BOB}")).await["people"], 1);
    assert_eq!(presence(&one.client, &format!("user/{CAT}")).await["people"], 0);
    let refused = as_person(&one.client, CAT).get("/v1/presence?room=course/c1").await;
    assert_eq!(refused.problem(), (403, "room_refused"));
    let refused = bob.command(json!({"command": "presence", "room": format!("user/{ANN}")})).await;
    assert_eq!(code(&refused), "room_refused");

    // In the room of everyone nobody is shown to people.
    assert!(join(&mut bob, "everyone").await.get("result").is_some());
    let asked = bob.command(json!({"command": "presence", "room": "everyone"})).await;
    assert_eq!(asked["result"], json!({"room": "everyone", "people": 1, "list": [], "complete": false}));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_on_a_pod_that_stops_is_there_no_more_and_redis_may_forget() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await, world.nexus().await);
    let mut sockets = Vec::new();
    for instance in [&one, &two] {
        let mut socket = Socket::open(instance.nexus.address()).await;
        join(&mut socket, "course/c1").await;
        sockets.push(socket);
    }
    until_present(&one.client, "course/c1", &["tester"]).await;
    two.nexus.stop(Duration::ZERO).await;
    until_present(&one.client, "course/c1", &["tester"]).await;

    // What it forgets it is told again, however much changes meanwhile.
    let mut restless = Vec::new();
    for _ in 0..3 {
        let mut socket = Socket::open(one.nexus.address()).await;
        restless.push(tokio::spawn(async move {
            loop {
                join(&mut socket, "course/c2").await;
                leave(&mut socket, "course/c2").await;
            }
        }));
    }
    let redis = redis::Client::open(world.config.redis_url.expose()).expect("a URL of Redis");
    let mut redis = redis.get_multiplexed_async_connection().await.expect("Redis answers");
    let kind = ["people", "pods"].map(|kind| format!("{}presence:{kind}:course/c1", world.config.redis_prefix));
    let forgotten: i64 = redis::cmd("DEL").arg(&kind).query_async(&mut redis).await.expect("forgotten");
    assert_eq!(forgotten, 2);
    assert_eq!(presence(&one.client, "course/c1").await["people"], 0);
    until_present(&one.client, "course/c1", &["tester"]).await;
    restless.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_on_a_pod_of_which_nothing_is_heard_is_there_no_more_until_it_is_heard_of() {
    let world = World::new().await;
    let one = world.nexus().await;
    let (redis, url) = Proxy::before(world.config.redis_url.expose()).await;
    let two = world.nexus_with(|config| config.redis_url = url.as_str().into()).await;
    one.client.publish(&enrolled(ANN, "c1")).await;
    let mut ann = open(&two.client, ANN).await;
    until("the room to be open", async || join(&mut ann, "course/c1").await.get("result").map(drop)).await;
    until_present(&one.client, "course/c1", &[ANN]).await;
    // Nobody says that she has left: as when the pod is killed.
    redis.cut();
    until_present(&one.client, "course/c1", &[]).await;
    redis.mend();
    until_present(&one.client, "course/c1", &[ANN]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_has_so_many_connections_over_all_pods_and_those_that_are_open_feel_nothing() {
    let world = World::new().await;
    let few = |config: &mut nexus::config::Config| config.throttle.person_connections_max = 2;
    let (one, two) = (world.nexus_with(few).await, world.nexus_with(few).await);
    let mut first = open(&one.client, ANN).await;
    first.subscribe(&["**"], None).await;
    let second = open(&two.client, ANN).await;
    let opening = Opening { token: Some(people::token_of_person(ANN)), ..Opening::default() };
    assert_eq!(opening.open(two.nexus.address()).await.err(), Some(429));
    let refused = as_person(&one.client, ANN).get("/v1/stream/sse").await;
    assert_eq!(refused.problem(), (429, "too_many_connections"));

    let mut late = Opening::default().open(one.nexus.address()).await.expect("a place");
    let answer = late.command(json!({"command": "connect", "token": people::token_of_person(ANN)})).await;
    assert_eq!(code(&answer), "too_many_connections");
    assert_eq!(late.closed().await, 4420);
    let mut polite = socket_io::Client::open(one.nexus.address()).await;
    polite.send(&format!("40{}", json!({"token": people::token_of_person(ANN)}))).await;
    let socket_io::Next::Packet(refused) = polite.next().await else { panic!("it is told") };
    assert!(refused.starts_with("44") && refused.contains("too_many_connections"), "{refused}");

    // Another person, and a service, are counted apart.
    drop(open(&one.client, BOB).await);
    drop(Socket::open(one.nexus.address()).await);
    one.client.publish(&lesson("still there", ANN, "c1")).await;
    assert_eq!(ids(&first.events(1).await), ["still there"]);
    drop(second);
    until("a place to be free", async || opening.open(two.nexus.address()).await.ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_chosen_by_its_attributes_on_every_transport() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let of = |id: &str, source: &str, tenant: Option<&str>| {
        let mut event = event(id, "a");
        event["source"] = json!(source);
        if let Some(tenant) = tenant {
            event["tenant"] = json!(tenant);
        }
        event
    };
    let mut socket = Socket::open(instance.nexus.address()).await;
    let asked = json!({"source": "/mint", "tenant": "7"});
    let subscribe = |attributes: Value| json!({"command": "subscribe", "types": ["**"], "attributes": attributes});
    assert!(socket.command(subscribe(asked.clone())).await.get("result").is_some());
    let mut io = socket_io::Client::open(instance.nexus.address()).await;
    io.connect(json!({"token": token("events:read")})).await;
    io.command("subscribe", json!({"types": ["**"], "attributes": asked})).await;
    let mut stream = EventSource::open(&instance.client, "attributes=source=/mint,tenant=7", None).await;
    for (id, source, tenant) in
        [("a", "/mint", None), ("b", "/mint", Some("8")), ("c", "/min", Some("7")), ("d", "/mint", Some("7"))]
    {
        instance.client.publish(&of(id, source, tenant)).await;
    }
    assert_eq!(ids(&socket.events(1).await), ["d"]);
    assert_eq!(io.event().await[1]["id"], "d");
    assert_eq!(stream.ids(1).await.0, ["d"]);

    for wrong in [json!({"type": "a"}), json!({"Source": "a"}), json!({"source": ""}), json!({"source": 1})] {
        let refused = socket.command(subscribe(wrong.clone())).await;
        assert!(["invalid_parameter", "malformed_frame"].contains(&code(&refused)), "{wrong}: {refused}");
    }
    for wrong in ["attributes=source", "attributes=type=a"] {
        let refused = instance.client.get(&format!("/v1/stream/sse?{wrong}")).await;
        assert_eq!(refused.problem(), (400, "invalid_parameter"), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_says_of_oneself_what_the_registry_allows_and_nothing_else() {
    let world = World::new().await;
    let instance = world.nexus().await;
    instance.client.publish(&enrolled(ANN, "c1")).await;
    let ann = as_person(&instance.client, ANN);
    let said = |id: &str, person: &str, course: &str| {
        let mut said = lesson(id, person, course);
        said["source"] = json!(format!("/users/{ANN}"));
        said
    };
    let mut listener = Socket::open(instance.nexus.address()).await;
    listener.subscribe(&["lesson.*"], None).await;
    assert_eq!(ann.publish(&said("over HTTP", ANN, "c1")).await, "1.2");
    let mut socket = open(&instance.client, ANN).await;
    let published = socket.command(json!({"command": "publish", "event": said("over a socket", ANN, "c1")})).await;
    assert_eq!(published["result"]["position"], "1.3");
    assert_eq!(ids(&listener.events(2).await), ["over HTTP", "over a socket"]);

    for (wrong, paths) in [
        (said("1", BOB, "c1"), &["/data/user_id", "/data"][..]),
        (lesson("2", ANN, "c1"), &["/source"]),
        (said("3", ANN, "c2"), &["/data"]),
    ] {
        let refused = ann.post("/v1/events", &wrong).await;
        assert_eq!(refused.problem(), (422, "invalid_document"), "{}", refused.text);
        assert_eq!(refused.violations(), paths);
    }
    let refused = ann.post("/v1/events", &event("4", "a")).await;
    assert_eq!(refused.problem(), (403, "scope_missing"), "of what only services say");
    let refused = socket.command(json!({"command": "publish", "event": enrolled(ANN, "c2")})).await;
    assert_eq!(code(&refused), "scope_missing", "one lets nobody in, oneself neither");
    assert_eq!(instance.client.history("").await.body["head"], "1.3");
}
