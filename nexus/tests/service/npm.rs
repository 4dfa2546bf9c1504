//! The clients of the field, unmodified, from the npm registry: they reach Nexus as they reach any other server.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nexus::config::Config;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{Instance, World, free_port, token};

/// No script of a correct program comes near it, even on a loaded machine.
const DEADLINE: Duration = Duration::from_mins(2);

/// Runs a script of `tests/clients` on two pods.
async fn run(script: &str, arguments: &[&str]) {
    let world = World::new().await;
    let pods = [world.pod().await, world.pod().await];
    run_on(&pods, script, arguments, &[]).await;
}

async fn run_on([one, two]: &[Instance; 2], script: &str, arguments: &[&str], environment: &[(&str, String)]) {
    let clients = std::env::var("AZORA_TEST_NPM_CLIENTS");
    let clients = clients.expect("AZORA_TEST_NPM_CLIENTS is not set; run the tests through `cargo xtask test`");
    let mut node = Command::new("node");
    node.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script)).args(arguments);
    node.env("AZORA_TEST_NPM_CLIENTS", clients)
        .env("PODS", format!("{},{}", one.nexus.address(), two.nexus.address()))
        .env("TOKEN", token("events:read events:write"))
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(DEADLINE, node.output()).await.expect("the script ends").expect("node runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} {arguments:?}: {}\n{said}", String::from_utf8_lossy(&output.stdout));
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
