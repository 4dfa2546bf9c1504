//! The clients of the field, unmodified, from the npm registry: they reach Nexus as they reach any other server.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nexus::config::Config;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{Instance, World, free_port, token};

/// No script of a correct program comes near it, even on a loaded machine.
const DEADLINE: Duration = Duration::from_mins(2);

/// Where the packages are.
fn packages() -> String {
    let clients = std::env::var("AZORA_TEST_NPM_CLIENTS");
    clients.expect("AZORA_TEST_NPM_CLIENTS is not set; run the tests through `cargo xtask test`")
}

/// Runs a script of `tests/clients` on two pods.
async fn run(script: &str, arguments: &[&str]) {
    let world = World::new().await;
    let pods = [world.pod().await, world.pod().await];
    run_on(&pods, script, arguments, &[]).await;
}

async fn run_on([one, two]: &[Instance; 2], script: &str, arguments: &[&str], environment: &[(&str, String)]) {
    let mut node = Command::new("node");
    node.arg(source(script)).args(arguments);
    node.env("AZORA_TEST_NPM_CLIENTS", packages())
        .env("PODS", format!("{},{}", one.nexus.address(), two.nexus.address()))
        .env("TOKEN", token("events:read events:write"))
        .envs(environment.iter().map(|(name, value)| (name, value)));
    succeeds(node).await;
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

async fn succeeds(mut node: Command) {
    node.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(DEADLINE, node.output()).await.expect("the script ends").expect("node runs");
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(output.status.success(), "{node:?}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn socket_io_client_over_websocket_is_recovered_on_another_pod() {
    for client in ["socket.io-client", "socket.io-client-4.6", "socket.io-client-4.0"] {
        run("socket_io.mjs", &[client, "websocket"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn socket_io_client_that_polls_is_answered_by_every_pod_and_recovered() {
    for client in ["socket.io-client", "socket.io-client-4.6", "socket.io-client-4.0"] {
        run("socket_io.mjs", &[client, "polling"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn socket_io_client_moves_from_polling_to_a_websocket() {
    for client in ["socket.io-client", "socket.io-client-4.6", "socket.io-client-4.0"] {
        run("socket_io.mjs", &[client, "polling", "websocket"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ws_answers_pings_and_resumes() {
    run("ws.mjs", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn event_source_goes_on_by_itself() {
    run("event_source.mjs", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_chromium_is_served_if_its_origin_is_listed_and_only_then() {
    let world = World::new().await;
    let port = free_port();
    let listed = |config: &mut Config| config.allowed_origins = vec![format!("http://127.0.0.1:{port}")];
    let pods = [world.nexus_with(listed).await, world.nexus_with(listed).await];
    run_on(&pods, "chromium.mjs", &[], &[("PAGE_PORT", port.to_string())]).await;
}

/// Lines of the sample that are marked as wrong must be: a mark on a right one is an error too.
#[tokio::test]
async fn the_compiler_of_typescript_takes_events_as_the_types_say_and_no_others() {
    let mut node = Command::new("node");
    node.arg(Path::new(&packages()).join("node_modules/typescript/bin/tsc"))
        .args(["--strict", "--noEmit", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler"])
        .arg(source("events.ts"));
    succeeds(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_of_asyncapi_is_as_its_specification_says() {
    let specification = Path::new(&packages()).join("node_modules/@asyncapi/specs/schemas/3.0.0.json");
    let specification = std::fs::read(specification).expect("the specification is installed");
    let specification: Value = serde_json::from_slice(&specification).expect("the specification is JSON");
    let validator = jsonschema::validator_for(&specification).expect("the specification is a schema");
    let world = World::new().await;
    let answer = world.nexus().await.client.with_token(None).get("/asyncapi.json").await;
    let errors: Vec<String> =
        validator.iter_errors(&answer.body).map(|error| format!("{} {error}", error.instance_path())).collect();
    assert_eq!((answer.status, errors), (200, Vec::<String>::new()));
    let mut wrong = answer.body;
    wrong["operations"]["stream.push"]["action"] = "shout".into();
    assert!(!validator.is_valid(&wrong), "the specification refuses nothing");
}
