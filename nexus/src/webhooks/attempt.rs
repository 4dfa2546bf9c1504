//! One attempt to deliver one message: what is sent, and what the answer means. It follows no redirect, uses no proxy,
//! and believes nothing in the answer but its status and how long to wait.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode, Url};
use tokio::time::{Instant, timeout_at};

use super::address::{Guard, RefuseAddress};
use super::message::Message;
use super::store::Webhook;
use crate::chain::Chain;
use crate::config::WebhooksConfig;

/// How much of an answer is read, so that its connection can be used again.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Longest wait that a receiver may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(12);
/// Longest text of a failure that is kept, in characters.
const REASON_CHARACTERS_MAX: usize = 300;

/// What came of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The receiver has it.
    Delivered {
        /// The status, 200 to 299.
        status: u16,
    },
    /// The receiver wants nothing any more (410).
    Gone,
    /// It did not arrive.
    Failed {
        /// The status, when there was an answer.
        status: Option<u16>,
        /// Why, for the owner of the webhook.
        reason: String,
        /// How long the receiver asked to wait.
        retry_after: Option<Duration>,
    },
}

/// The way to the receivers; cheap to clone. It connects to nothing that the settings do not allow.
#[derive(Clone, Debug)]
pub struct Receivers {
    client: reqwest::Client,
    guard: Guard,
}

impl Receivers {
    /// The way that the settings allow.
    pub fn new(config: &WebhooksConfig) -> Result<Self, reqwest::Error> {
        let guard = Guard::new(&config.allow_networks);
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            .dns_resolver(guard.clone())
            .https_only(!config.allow_http)
            .user_agent(concat!("azora-nexus/", env!("CARGO_PKG_VERSION")))
            // Sooner than most receivers end it.
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(2)
            .build()?;
        Ok(Self { client, guard })
    }

    /// Refuses a URL that leads where nothing may be delivered, as far as it can be known without looking it up.
    pub fn check(&self, url: &Url) -> Result<(), RefuseAddress> {
        self.guard.check_literal(url)
    }

    /// Sends the message once, within `deadline`.
    pub(crate) async fn attempt(&self, webhook: &Webhook, message: &Message, deadline: Duration) -> Outcome {
        let url = match Url::parse(&webhook.url) {
            Ok(url) => url,
            Err(error) => return failed(error.to_string()),
        };
        // Also of a webhook that was made when the settings allowed more.
        if let Err(refused) = self.check(&url) {
            return failed(refused.to_string());
        }
        let now = Timestamp::now();
        let request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, "application/cloudevents+json")
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", now.as_second())
            .header("webhook-signature", webhook.sign(message, now))
            .body(message.body.clone());
        let end = Instant::now() + deadline;
        match timeout_at(end, request.send()).await {
            Ok(Ok(mut response)) => {
                let outcome = judge(response.status(), response.headers(), now);
                let _ = timeout_at(end, read_to_the_end(&mut response)).await;
                outcome
            }
            // The URL may hold a secret.
            Ok(Err(error)) => failed(told(&error.without_url())),
            Err(_) => failed(format!("no answer within {} s", deadline.as_secs())),
        }
    }
}

fn failed(reason: String) -> Outcome {
    Outcome::Failed { status: None, reason, retry_after: None }
}

fn told(error: &reqwest::Error) -> String {
    Chain(error).to_string().chars().take(REASON_CHARACTERS_MAX).collect()
}

fn judge(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Outcome {
    match status {
        status if status.is_success() => Outcome::Delivered { status: status.as_u16() },
        StatusCode::GONE => Outcome::Gone,
        status => Outcome::Failed {
            status: Some(status.as_u16()),
            reason: format!("the receiver answered {}", status.as_u16()),
            retry_after: headers.get(RETRY_AFTER).and_then(|value| wait(value.to_str().ok()?, now)),
        },
    }
}

/// The wait of a `Retry-After`, in seconds or until a date (RFC 9110, section 10.2.3), within its bound.
fn wait(value: &str, now: Timestamp) -> Option<Duration> {
    let wait = if let Ok(seconds) = value.trim().parse() {
        Duration::from_secs(seconds)
    } else {
        let until = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
        Duration::try_from(until.duration_since(now)).ok()?
    };
    Some(Duration::from_secs(wait.min(RETRY_AFTER_MAX).as_secs()))
}

/// An answer that goes on is cut off.
async fn read_to_the_end(response: &mut Response) {
    let mut bytes = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes += chunk.len();
        if bytes > ANSWER_BYTES_MAX {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_of_success_is_one() {
        let judged = |status: u16| judge(StatusCode::from_u16(status).expect("a status"), &HeaderMap::new(), now());
        for status in [200, 201, 204, 299] {
            assert_eq!(judged(status), Outcome::Delivered { status });
        }
        assert_eq!(judged(410), Outcome::Gone);
        for status in [301, 302, 307, 400, 401, 404, 429, 500, 503] {
            let reason = format!("the receiver answered {status}");
            assert_eq!(judged(status), Outcome::Failed { status: Some(status), reason, retry_after: None });
        }
    }

    #[test]
    fn a_wait_is_a_number_or_a_date_and_has_a_bound() {
        let seconds = |text| wait(text, now()).map(|wait| wait.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds("99999999999"), Some(43_200));
        assert_eq!(seconds("Thu, 01 Jan 1970 00:02:00 GMT"), Some(120));
        assert_eq!(seconds("Fri, 01 Jan 2100 00:00:00 GMT"), Some(43_200));
        for none in ["", "-1", "soon", "1.5"] {
            assert_eq!(seconds(none), None, "{none}");
        }
        assert_eq!(wait("Thu, 01 Jan 1970 00:00:00 GMT", Timestamp::from_second(60).expect("a time")), None);
    }

    fn now() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }
}
