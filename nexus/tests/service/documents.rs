//! The profiles in `MongoDB`: they follow the log, and come back by themselves when they are lost.

use mongodb::bson::{Document, doc};
use mongodb::{Client as MongoClient, Database};
use nexus::config::Secret;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Instance, Proxy, World, until};

async fn database(world: &World) -> Database {
    let client = MongoClient::with_uri_str(world.config.mongo_url.expose()).await.expect("the URL is one of MongoDB");
    client.default_database().expect("the URL names a database")
}

async fn register(instance: &Instance, name: &str) -> String {
    let user = json!({
        "email": format!("{name}@example.org"), "display_name": name, "profile": {"$not": "an operator"},
    });
    let refused = instance.client.post("/v1/users", &user).await;
    assert_eq!(refused.violations(), ["/profile/$not"]);
    let user = json!({
        "email": format!("{name}@example.org"), "display_name": format!("${name}"), "profile": {"likes": ["$$ROOT"]},
    });
    let answer = instance.client.post("/v1/users", &user).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.body["id"].as_str().expect("a user has an id").to_owned()
}

/// Waits for the document of this user in this version.
async fn document(database: &Database, id: &str, version: i64) -> Document {
    until("the document to follow", async || {
        let wanted = doc! { "_id": id, "profile.version": version };
        database.collection::<Document>("profiles").find_one(wanted).await.expect("MongoDB answers")
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_follows_its_user_into_a_document() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await, world.nexus().await);
    let database = database(&world).await;
    let id = register(&one, "ada").await;
    let found = document(&database, &id, 1).await;
    let profile = found.get_document("profile").expect("a document holds a profile");
    assert_eq!(profile.get_str("display_name").ok(), Some("$ada"));
    assert_eq!(profile.get_document("attributes").ok(), Some(&doc! { "likes": ["$$ROOT"] }));

    let login = two.client.post(&format!("/v1/users/{id}/logins"), &Value::Null).await;
    let position = login.header("nexus-position").expect("a write has a position");
    for instance in [&one, &two] {
        let request = instance.client.request(Method::GET, &format!("/v1/users/{id}/profile"));
        let answer = instance.client.send(request.header("nexus-min-position", position)).await;
        assert_eq!((answer.status, &answer.body["version"]), (200, &json!(2)), "{}", answer.text);
    }
    document(&database, &id, 2).await;
    let answer = one.client.get(&format!("/v1/users/{id}/profile")).await;
    assert_eq!(answer.body["user_id"], json!(id));
    assert_eq!(answer.body["last_login_at"], login.body["last_login_at"]);
    assert_eq!(answer.header("nexus-as-of"), answer.body["position"].as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_leads_nowhere_does_not_stop_the_documents() {
    let world = World::new().await;
    let (proxy, url) = Proxy::before(world.config.database.url.expose()).await;
    let one = world.nexus_with(|config| config.database.url = url.as_str().into()).await;
    let database = database(&world).await;
    let id = register(&one, "ada").await;
    document(&database, &id, 1).await;
    // The follower's read waits for this lock, a login does not.
    let mut lock = world.postgres.begin().await.expect("begin");
    sqlx::query("LOCK TABLE profiles").execute(&mut *lock).await.expect("lock");
    assert_eq!(one.client.post(&format!("/v1/users/{id}/logins"), &Value::Null).await.status, 200);
    let blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'profiles'::regclass";
    until("the follower to wait for the lock", async || {
        let blocked: i64 = sqlx::query_scalar(blocked).fetch_one(&world.postgres).await.expect("ask");
        (blocked == 1).then_some(())
    })
    .await;
    proxy.freeze_connections();
    lock.rollback().await.expect("release");
    document(&database, &id, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_collections_are_rebuilt_though_the_log_has_forgotten() {
    let world = World::new().await;
    let (one, two) = (world.nexus().await, world.nexus().await);
    let database = database(&world).await;
    let mut users = Vec::new();
    for number in 0..7 {
        users.push(register(&one, &format!("user-{number}")).await);
    }
    for id in &users {
        document(&database, id, 1).await;
    }
    // The log does not hold the registrations any more; the records do.
    sqlx::query("DELETE FROM log").execute(&world.postgres).await.expect("the log can be cut");
    database.drop().await.expect("MongoDB drops the database");
    let login = two.client.post(&format!("/v1/users/{}/logins", users[0]), &Value::Null).await;
    assert_eq!(login.status, 200, "{}", login.text);
    document(&database, &users[0], 2).await;
    for id in &users[1..] {
        document(&database, id, 1).await;
    }
    until("the collection to be at the head", async || {
        let position = doc! { "_id": "position", "position": { "epoch": 1, "seq": 8_i64 } };
        database.collection::<Document>("profiles").find_one(position).await.expect("MongoDB answers")
    })
    .await;
}

/// A Nexus whose network to MongoDB can be taken away.
async fn before_mongodb(world: &World) -> (Proxy, Instance) {
    let (proxy, mongo_url) = Proxy::before(world.config.mongo_url.expose()).await;
    // The driver of a replica set goes to the addresses that its members name, past the proxy.
    let (mongo_url, _) = mongo_url.split_once("replicaSet=").expect("the services' mongod is a replica set");
    let mongo_url = format!("{mongo_url}directConnection=true");
    let instance = world.nexus_with(|config| config.mongo_url = Secret::from(mongo_url.as_str())).await;
    (proxy, instance)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_mongodb_that_leads_nowhere_is_given_up() {
    let world = World::new().await;
    let (proxy, one) = before_mongodb(&world).await;
    let database = database(&world).await;
    let id = register(&one, "ada").await;
    document(&database, &id, 1).await;
    proxy.freeze_connections();
    assert_eq!(one.client.post(&format!("/v1/users/{id}/logins"), &Value::Null).await.status, 200);
    document(&database, &id, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_mongodb_profiles_come_from_the_records_and_catch_up_later() {
    let world = World::new().await;
    let (proxy, one) = before_mongodb(&world).await;
    let database = database(&world).await;
    let id = register(&one, "ada").await;
    document(&database, &id, 1).await;
    proxy.cut();
    let login = one.client.post(&format!("/v1/users/{id}/logins"), &Value::Null).await;
    assert_eq!(login.status, 200, "a write needs no MongoDB: {}", login.text);
    let answer = one.client.get(&format!("/v1/users/{id}/profile")).await;
    assert_eq!((answer.status, &answer.body["version"]), (200, &json!(2)), "{}", answer.text);
    document(&database, &id, 1).await;
    proxy.mend();
    document(&database, &id, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_reading_never_replaces_a_newer_document() {
    let world = World::new().await;
    let one = world.nexus().await;
    let database = database(&world).await;
    let id = register(&one, "ada").await;
    document(&database, &id, 1).await;
    let profiles = database.collection::<Document>("profiles");
    // As if another applier had read the record later than this one will.
    let newer = doc! { "$set": { "position.seq": 1_000_i64, "profile.version": 99_i64 } };
    profiles.update_one(doc! { "_id": &id }, newer).await.expect("MongoDB answers");
    let other = register(&one, "grace").await;
    one.client.post(&format!("/v1/users/{id}/logins"), &Value::Null).await;
    one.client.post(&format!("/v1/users/{other}/logins"), &Value::Null).await;
    document(&database, &other, 2).await;
    document(&database, &id, 99).await;
}
