//! Events to publish, and positions in the log. Must never be random: a test that failed is repeated with the same data.
use std::fmt;
use std::str::FromStr;

use anyhow::Context as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// A place in the log. Clients treat it as opaque; a test that proves an order has to look inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Changes when the log is restored.
    pub epoch: i32,
    /// Dense number of the event in the log.
    pub seq: i64,
}

impl fmt::Display for Position {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.epoch, self.seq)
    }
}

impl FromStr for Position {
    type Err = anyhow::Error;

    fn from_str(token: &str) -> anyhow::Result<Self> {
        let (epoch, seq) = token.split_once('.').with_context(|| format!("{token} is no position"))?;
        let epoch = epoch.parse().with_context(|| format!("{token} is no position"))?;
        Ok(Self { epoch, seq: seq.parse().with_context(|| format!("{token} is no position"))? })
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Somebody who is in every sample; the events only name them.
const PERSON: &str = "0198a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b";
/// When everything in the samples happened.
const TIME: &str = "2026-01-02T03:04:05Z";

/// An event of a registered type, in structured JSON.
#[allow(clippy::needless_pass_by_value)] // Callers write the data where they pass it.
pub fn event(source: &str, id: &str, event_type: &str, subject: &str, data: Value) -> Value {
    json!({
        "specversion": "1.0",
        "id": id,
        "source": source,
        "type": event_type,
        "subject": subject,
        "data": data,
    })
}

/// A wallet was opened.
pub fn wallet_created(source: &str, id: &str, wallet: &str) -> Value {
    let data = json!({"wallet_id": wallet, "user_id": PERSON, "currency": "AZR"});
    event(source, id, "wallet.created", &format!("wallet/{wallet}"), data)
}

/// A wallet was credited; the block height tells one from the other.
pub fn mining_reward(source: &str, id: &str, wallet: &str, block_height: usize) -> Value {
    let data = json!({"wallet_id": wallet, "money": money(), "block_height": block_height});
    event(source, id, "mining.reward", &format!("wallet/{wallet}"), data)
}

/// One event of every type that may be published over the API; Nexus itself emits the two about users.
pub fn one_of_each(source: &str) -> Vec<Value> {
    let person = PERSON;
    [
        ("course.enrolled", "course/1", json!({"user_id": person, "course_id": "1", "enrolled_at": TIME})),
        ("lesson.completed", "lesson/1", json!({"user_id": person, "course_id": "1", "lesson_id": "1"})),
        (
            "assessment.submitted",
            "assessment/1",
            json!({"user_id": person, "course_id": "1", "assessment_id": "1", "attempt": 1, "score_permille": 870}),
        ),
        (
            "certificate.issued",
            "certificate/1",
            json!({"user_id": person, "course_id": "1", "certificate_id": "1", "issued_at": TIME}),
        ),
        ("wallet.created", "wallet/1", json!({"wallet_id": "1", "user_id": person, "currency": "AZR"})),
        (
            "transaction.completed",
            "wallet/1",
            json!({"transaction_id": "1", "from_wallet_id": "1", "to_wallet_id": "2", "money": money()}),
        ),
        ("mining.reward", "wallet/1", json!({"wallet_id": "1", "money": money(), "block_height": 7})),
        (
            "ubi.distributed",
            "wallet/1",
            json!({"wallet_id": "1", "user_id": person, "money": money(), "period": "2026-01"}),
        ),
        (
            "job.posted",
            "job/1",
            json!({"job_id": "1", "employer_id": person, "title": "Mend a roof", "budget": money()}),
        ),
        ("application.submitted", "job/1", json!({"application_id": "1", "job_id": "1", "applicant_id": person})),
        (
            "contract.signed",
            "contract/1",
            json!({"contract_id": "1", "job_id": "1", "employer_id": person, "worker_id": person, "total": money(),
                "signed_at": TIME}),
        ),
        (
            "payment.released",
            "contract/1",
            json!({"payment_id": "1", "contract_id": "1", "to_wallet_id": "1", "money": money()}),
        ),
        ("system.alert", "system/disk", json!({"severity": "warning", "code": "disk-almost-full", "message": "90 %"})),
        ("health.check", "system/mint", json!({"component": "mint", "status": "healthy", "latency_milliseconds": 3})),
    ]
    .into_iter()
    .map(|(event_type, subject, data)| event(source, event_type, event_type, subject, data))
    .collect()
}

fn money() -> Value {
    json!({"amount_minor": 1250, "currency": "AZR"})
}
