//! A client of the event stream, as plain as `curl`.

use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::Client;

/// No answer of a correct program comes near it, even on a loaded machine.
const DEADLINE: Duration = Duration::from_mins(1);

/// An open event stream.
pub(crate) struct EventSource {
    response: reqwest::Response,
    unread: String,
}

/// One block of the stream.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Block {
    pub(crate) name: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) data: Option<Value>,
    pub(crate) retry: Option<u64>,
}

impl EventSource {
    /// Opens a stream, after the event `last` if one is named; the answer is expected to be a stream.
    pub(crate) async fn open(client: &Client, query: &str, last: Option<&str>) -> Self {
        let mut request = client.request(reqwest::Method::GET, &format!("/v1/stream/sse?{query}"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.expect("the instance answers");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, unread: String::new() }
    }

    /// The next block; nothing when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Block> {
        loop {
            if let Some(end) = self.unread.find("\n\n") {
                let block = read(&self.unread[..end]);
                self.unread.drain(..end + 2);
                return Some(block);
            }
            let chunk =
                timeout(DEADLINE, self.response.chunk()).await.expect("something comes").expect("the stream is sound");
            self.unread.push_str(str::from_utf8(&chunk?).expect("a chunk ends with a block"));
        }
    }

    /// The next block with data.
    pub(crate) async fn event(&mut self) -> Block {
        loop {
            let block = self.next().await.expect("the stream goes on");
            if block.data.is_some() {
                return block;
            }
        }
    }

    /// Ids of the next events, and the position of the last.
    pub(crate) async fn ids(&mut self, count: usize) -> (Vec<String>, String) {
        let (mut ids, mut position) = (Vec::new(), String::new());
        for _ in 0..count {
            let event = self.event().await;
            let data = event.data.expect("it has data");
            assert_eq!(event.id.as_deref(), data["position"].as_str(), "{data}");
            ids.push(data["id"].as_str().expect("an event has an id").to_owned());
            position = event.id.expect("an event has a position");
        }
        (ids, position)
    }
}

fn read(text: &str) -> Block {
    let mut block = Block::default();
    for line in text.lines() {
        match line.split_once(": ").expect("a field and its value") {
            ("event", name) => block.name = Some(name.to_owned()),
            ("id", id) => block.id = Some(id.to_owned()),
            ("data", data) => block.data = Some(serde_json::from_str(data).expect("JSON")),
            ("retry", milliseconds) => block.retry = Some(milliseconds.parse().expect("a number")),
            (field, _) => panic!("no such field: {field}"),
        }
    }
    block
}
