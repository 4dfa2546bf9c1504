//! `/v1/users`: writes are made once, checked by field, and told by an event with their position.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::client::{HS256_KEY, token_of};
use crate::support::{Answer, Client, World, token};

fn ada() -> Value {
    json!({"email": "Ada@example.org", "display_name": "Ada", "profile": {"languages": ["en"]}})
}

async fn with_key(client: &Client, path: &str, body: &Value, key: &str) -> Answer {
    client.send(client.request(Method::POST, path).json(body).header("idempotency-key", key)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_user_is_read_back_and_told_by_an_event() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let registered = client.post("/v1/users", &ada()).await;
    assert_eq!(registered.status, 201, "{}", registered.text);
    let id = registered.body["id"].as_str().expect("a user has an id").to_owned();
    assert_eq!(registered.header("location"), Some(format!("/v1/users/{id}").as_str()));
    assert_eq!(registered.header("nexus-position"), Some("1.1"));
    let created_at = registered.body["created_at"].clone();
    let user = json!({
        "id": id, "email": "Ada@example.org", "display_name": "Ada", "version": 1,
        "created_at": created_at, "updated_at": created_at, "last_login_at": null,
    });
    assert_eq!(registered.body, user);
    let read = client.get(&format!("/v1/users/{id}")).await;
    assert_eq!((read.status, &read.body), (200, &user));

    let login = client.post(&format!("/v1/users/{id}/logins"), &Value::Null).await;
    assert_eq!((login.status, login.header("nexus-position")), (200, Some("1.2")));
    assert_eq!((&login.body["version"], &login.body["last_login_at"]), (&json!(2), &login.body["updated_at"]));
    let history = client.history("").await.body;
    let told: Vec<_> = history["events"]
        .as_array()
        .expect("events")
        .iter()
        .map(|event| (&event["type"], &event["subject"], &event["data"]))
        .collect();
    let subject = json!(format!("user/{id}"));
    let wanted = [
        (json!("user.registered"), json!({"user_id": id, "version": 1, "registered_at": created_at})),
        (json!("user.login"), json!({"user_id": id, "version": 2, "logged_in_at": login.body["last_login_at"]})),
    ];
    assert_eq!(told, wanted.iter().map(|(kind, data)| (kind, &subject, data)).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_users_are_refused_by_field_and_leave_nothing() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let answer = client.post("/v1/users", &json!({"email": "ada", "admin": true})).await;
    assert_eq!(answer.problem(), (422, "invalid_document"));
    assert_eq!(answer.violations(), ["/email", "/display_name", "/admin"]);
    let nul = json!({"email": "a@b.org", "display_name": "Ada", "profile": {"a": "\u{0}"}});
    assert_eq!(client.post("/v1/users", &nul).await.violations(), ["/profile/a"]);
    let nobody = "/v1/users/00000000-0000-0000-0000-000000000007";
    assert_eq!(client.get(nobody).await.problem(), (404, "not_found"));
    assert_eq!(client.get(&format!("{nobody}/profile")).await.problem(), (404, "not_found"));
    assert_eq!(client.post(&format!("{nobody}/logins"), &Value::Null).await.problem(), (404, "not_found"));
    assert_eq!(client.get("/v1/users/ada").await.problem(), (400, "invalid_parameter"));
    assert!(world.log().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_belongs_to_one_user_however_it_is_written() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await.client, world.nexus().await.client);
    assert_eq!(one.post("/v1/users", &ada()).await.status, 201);
    let again = json!({"email": "aDA@EXAMPLE.org", "display_name": "Another"});
    assert_eq!(two.post("/v1/users", &again).await.problem(), (409, "email_taken"));
    assert_eq!(world.log().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_write_with_its_key_has_one_effect_and_one_answer() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await.client, world.nexus().await.client);
    let user = ada();
    let mut requests = tokio::task::JoinSet::new();
    for client in [&one, &two, &one, &two] {
        let (client, user) = (client.clone(), user.clone());
        requests.spawn(async move { with_key(&client, "/v1/users", &user, "first").await });
    }
    let answers = requests.join_all().await;
    for answer in &answers {
        assert_eq!((answer.status, answer.header("nexus-position")), (201, Some("1.1")), "{}", answer.text);
        assert_eq!(answer.text, answers[0].text);
        assert_eq!(answer.header("location"), answers[0].header("location"));
    }
    let mut other = ada();
    other["display_name"] = json!("Another");
    assert_eq!(with_key(&one, "/v1/users", &other, "first").await.problem(), (409, "idempotency_key_reused"));
    let stranger = one.with_token(Some(token_of(HS256_KEY, "another caller", "users:write", 60)));
    assert_eq!(with_key(&stranger, "/v1/users", &ada(), "first").await.problem(), (409, "email_taken"));
    assert_eq!(with_key(&one, "/v1/users", &ada(), &"x".repeat(129)).await.problem(), (400, "invalid_parameter"));

    let logins = format!("/v1/users/{}/logins", answers[0].body["id"].as_str().expect("a user has an id"));
    for _ in 0..2 {
        let login = with_key(&two, &logins, &Value::Null, "login").await;
        assert_eq!((&login.body["version"], login.header("nexus-position")), (&json!(2), Some("1.2")));
    }
    assert_eq!(world.log().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_may_read_himself_and_only_some_may_read_others() {
    let world = World::new().await;
    let client = world.nexus().await.client;
    let registered = client.post("/v1/users", &ada()).await;
    let id = registered.body["id"].as_str().expect("a user has an id");
    let read = async |token: Option<String>, path: &str| {
        client.with_token(token).get(&format!("/v1/users/{id}{path}")).await.status
    };
    for path in ["", "/profile"] {
        assert_eq!(read(None, path).await, 401);
        assert_eq!(read(Some(token_of(HS256_KEY, id, "", 60)), path).await, 200);
        assert_eq!(read(Some(token("events:read users:write")), path).await, 403);
        assert_eq!(read(Some(token("users:read")), path).await, 200);
    }
    let own = client.with_token(Some(token_of(HS256_KEY, id, "users:read", 60)));
    assert_eq!(own.post(&format!("/v1/users/{id}/logins"), &Value::Null).await.problem(), (403, "scope_missing"));
    assert_eq!(own.post("/v1/users", &ada()).await.problem(), (403, "scope_missing"));
}
