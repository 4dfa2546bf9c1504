//! A receiver of webhooks on this machine, and callers that make webhooks for it.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::stream;
use hmac::{Hmac, KeyInit, Mac};
use nexus::config::Config;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;

use super::client::{Answer, Client};
use super::until;

/// What the receiver got.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    headers: HeaderMap,
    body: Bytes,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_else(|| panic!("no {name}: {self:?}"))
    }

    pub(crate) fn event(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// The event's own id.
    pub(crate) fn id(&self) -> String {
        self.event()["id"].as_str().expect("an id").to_owned()
    }

    /// How many of the signatures are of this secret, as a receiver finds out.
    pub(crate) fn signatures_of(&self, secret: &Value) -> usize {
        let secret = secret.as_str().and_then(|secret| secret.strip_prefix("whsec_")).expect("a secret");
        let key = STANDARD.decode(secret).expect("base64");
        let signed =
            [self.header("webhook-id").as_bytes(), self.header("webhook-timestamp").as_bytes(), &self.body].join(&b'.');
        let wanted = Hmac::<Sha256>::new_from_slice(&key).expect("a key").chain_update(signed).finalize();
        let wanted = format!("v1,{}", STANDARD.encode(wanted.into_bytes()));
        self.header("webhook-signature").split(' ').filter(|signature| *signature == wanted).count()
    }
}

/// A request that is counted until it is answered, or given up.
struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How the receiver answers.
pub(crate) enum Reply {
    Status(u16),
    /// With a header.
    With(u16, &'static str, String),
    /// With a body that never ends.
    Endless,
    /// Not at all.
    Never,
}

/// A receiver of webhooks.
pub(crate) struct Receiver {
    pub(crate) port: u16,
    got: Arc<Mutex<Vec<Got>>>,
    most_at_once: Arc<AtomicUsize>,
}

impl Receiver {
    /// One that accepts everything.
    pub(crate) async fn accepting() -> Self {
        Self::start(|_, _| Reply::Status(204)).await
    }

    /// One that answers as the function says, which is told what came and how much has come before.
    pub(crate) async fn start(reply: impl Fn(&Got, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("a listener has an address").port();
        let (got, most_at_once) = (Arc::<Mutex<Vec<Got>>>::default(), Arc::new(AtomicUsize::new(0)));
        let (log, most, at_once) = (Arc::clone(&got), Arc::clone(&most_at_once), Arc::new(AtomicUsize::new(0)));
        let reply = Arc::new(reply);
        let receive = async move |headers: HeaderMap, body: Bytes| {
            let under_way = UnderWay(Arc::clone(&at_once));
            most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let got = Got { headers, body };
            let reply = {
                let mut log = log.lock().expect("nobody has panicked");
                let reply = reply(&got, log.len());
                log.push(got);
                reply
            };
            let answer = answer(reply).await;
            drop(under_way);
            answer
        };
        let receive = move |headers: HeaderMap, body: Bytes| {
            let receive = receive.clone();
            async move { receive(headers, body).await }
        };
        let router = Router::new().fallback(receive);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { port, got, most_at_once }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/events", self.port)
    }

    /// Everything that has come.
    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().expect("nobody has panicked").clone()
    }

    /// Waits until so much has come.
    pub(crate) async fn until(&self, count: usize) -> Vec<Got> {
        until("the receiver to get it", async || Some(self.got()).filter(|got| got.len() >= count)).await
    }

    /// Ids of the events that have come.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.got().iter().map(Got::id).collect()
    }

    /// The most that was under way at the same time.
    pub(crate) fn most_at_once(&self) -> usize {
        self.most_at_once.load(Ordering::SeqCst)
    }
}

async fn answer(reply: Reply) -> Response<Body> {
    let response = |status: u16| Response::builder().status(status);
    match reply {
        Reply::Status(status) => response(status).body(Body::empty()),
        Reply::With(status, name, value) => response(status).header(name, value).body(Body::empty()),
        Reply::Endless => {
            let chunk = || Ok::<_, Infallible>(Bytes::from(vec![b'x'; 4_096]));
            response(200).body(Body::from_stream(stream::repeat_with(chunk)))
        }
        Reply::Never => std::future::pending().await,
    }
    .expect("the answer is one of HTTP")
}

/// Lets webhooks reach this machine.
pub(crate) fn allow_loopback(config: &mut Config) {
    config.webhooks.allow_networks = vec!["127.0.0.0/8".parse().expect("a network")];
    config.webhooks.allow_http = true;
}

/// A webhook of one test.
pub(crate) struct Webhook {
    pub(crate) client: Client,
    pub(crate) path: String,
    /// As it was shown once.
    pub(crate) secret: Value,
}

impl Webhook {
    /// A webhook for everything, to this URL, with these settings besides.
    pub(crate) async fn new(client: &Client, url: &str, settings: Value) -> Self {
        let answer = make(client, url, settings).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        let path = answer.header("location").expect("it has a place").to_owned();
        Self { client: client.clone(), path, secret: answer.body["secret"].clone() }
    }

    pub(crate) async fn get(&self, rest: &str) -> Answer {
        self.client.get(&format!("{}{rest}", self.path)).await
    }

    pub(crate) async fn post(&self, action: &str, body: Value) -> Answer {
        self.client.post(&format!("{}/{action}", self.path), &body).await
    }

    pub(crate) async fn change(&self, change: Value) -> Answer {
        self.client.send(self.client.request(Method::PATCH, &self.path).json(&change)).await
    }

    pub(crate) async fn delete(&self, rest: &str) -> Answer {
        self.client.send(self.client.request(Method::DELETE, &format!("{}{rest}", self.path))).await
    }

    /// Waits until it is shown like this.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        until(what, async || Some(self.get("").await.body).filter(&is_so)).await
    }
}

pub(crate) async fn make(client: &Client, url: &str, settings: Value) -> Answer {
    let mut webhook = json!({"url": url, "types": ["**"]});
    for (name, value) in settings.as_object().expect("settings are an object") {
        webhook[name] = value.clone();
    }
    client.post("/v1/webhooks", &webhook).await
}
