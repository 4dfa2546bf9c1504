//! `curl`, as the words of `docs/CLIENTS.md` use it: publishing, history, server-sent events, long-poll, refusals.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::support::{Instance, World, event, token};

/// No answer of a correct program comes near it, even on a loaded machine.
const DEADLINE: Duration = Duration::from_mins(1);

/// `curl` with a token on its way to a path, with these arguments, and what it sends.
async fn curl(instance: &Instance, path: &str, arguments: &[&str], sends: &[u8]) -> Child {
    let mut curl = Command::new("curl");
    curl.args(["-sSN", "-w", "\n%{http_code}\n", "--oauth2-bearer", &token("admin")])
        .args(arguments)
        .arg(format!("http://{}{path}", instance.nexus.address()));
    curl.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = curl.spawn().expect("curl is installed");
    let mut stdin = child.stdin.take().expect("it is piped");
    // One that is refused before it has sent everything closes its side.
    let _ = stdin.write_all(sends).await;
    child
}

/// Status and document of the answer.
async fn answer(child: Child) -> (u16, Value) {
    let output = timeout(DEADLINE, child.wait_with_output()).await.expect("it is answered").expect("curl runs");
    assert!(output.status.success(), "{}", output.status);
    let text = String::from_utf8(output.stdout).expect("it is text");
    let (document, status) = text.trim_end().rsplit_once('\n').expect("a status stands in the last line");
    (status.parse().expect("a status"), serde_json::from_str(document).expect("a document"))
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_publishes_reads_waits_and_follows() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let publish = ["-H", "Content-Type: application/cloudevents+json", "--data-binary", "@-"];
    let published = curl(&instance, "/v1/events", &publish, event("first", "a").to_string().as_bytes()).await;
    let (status, receipt) = answer(published).await;
    assert_eq!((status, &receipt["position"]), (201, &json!("1.1")), "{receipt}");
    let (status, page) = answer(curl(&instance, "/v1/events?type=health.*", &[], b"").await).await;
    assert_eq!((status, &page["events"][0]["id"]), (200, &json!("first")), "{page}");

    let waiting = curl(&instance, "/v1/events?after=1.1&wait=12", &[], b"").await;
    let mut stream = curl(&instance, "/v1/stream/sse?type=health.*&after=1.0", &[], b"").await;
    let mut lines = BufReader::new(stream.stdout.take().expect("it is piped")).lines();
    let mut ids = Vec::new();
    while ids.len() < 2 {
        let line = timeout(DEADLINE, lines.next_line()).await.expect("a line comes").expect("it can be read");
        let line = line.expect("the stream goes on");
        if let Some(data) = line.strip_prefix("data: ").filter(|data| data.contains("\"specversion\"")) {
            ids.push(serde_json::from_str::<Value>(data).expect("an event")["id"].clone());
            if ids.len() == 1 {
                instance.client.publish(&event("second", "a")).await;
            }
        }
    }
    assert_eq!(ids, ["first", "second"]);
    let (status, page) = answer(waiting).await;
    assert_eq!((status, &page["events"][0]["id"]), (200, &json!("second")), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_hears_why_it_is_refused_however_much_it_sends() {
    let world = World::new().await;
    let instance = world.nexus().await;
    let large = vec![b' '; 2 * 1024 * 1024];
    let json = "Content-Type: application/json";
    for (headers, status, code) in [
        // curl expects a word before it sends so much, unless it is told not to.
        (vec!["-H", json], 413, "body_too_large"),
        (vec!["-H", json, "-H", "Expect:"], 413, "body_too_large"),
        (vec!["-H", json, "-H", "Expect:", "-H", "Transfer-Encoding: chunked"], 413, "body_too_large"),
        (vec!["-H", "Content-Type: text/plain", "-H", "Expect:"], 413, "body_too_large"),
        (vec!["-H", json, "-H", "Expect:", "--oauth2-bearer", "none"], 401, "token_invalid"),
    ] {
        let arguments = [headers.as_slice(), &["--data-binary", "@-"]].concat();
        let refused = curl(&instance, "/v1/events", &arguments, &large).await;
        let (got, problem) = answer(refused).await;
        assert_eq!((got, &problem["code"]), (status, &json!(code)), "{headers:?} {problem}");
    }
}
