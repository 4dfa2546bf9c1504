//! Events to publish.

use serde_json::{Value, json};

const USER: &str = "0197d0a4-3a5c-7c3e-9d5b-6a1f0e2d4c3b";

/// A valid `health.check` of this id about this subject.
pub(crate) fn event(id: &str, subject: &str) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/tests", "type": "health.check", "subject": format!("system/{subject}"),
        "data": { "component": "tests", "status": "healthy" },
    })
}

/// An event of about four kilobytes, the only one of its subject: of several, who does not keep up gets the latest.
pub(crate) fn large_event(id: &str) -> Value {
    let mut event = event(id, id);
    for number in 0..16 {
        event[format!("padding{number}")] = json!("x".repeat(256));
    }
    event
}

/// One valid event of each type that may be published over the API, by callers with the scope `admin`.
pub(crate) fn valid_events() -> Vec<Value> {
    let money = json!({ "amount_minor": 1_250, "currency": "AZR" });
    let time = "2026-01-02T03:04:05Z";
    let of = |event_type: &str, subject: &str, data: Value| {
        json!({
            "specversion": "1.0", "id": event_type, "source": "/tests", "type": event_type, "subject": subject, "data": data,
        })
    };
    vec![
        of("course.enrolled", "course/1", json!({"user_id": USER, "course_id": "1", "enrolled_at": time})),
        of("lesson.completed", "lesson/1", json!({"user_id": USER, "course_id": "1", "lesson_id": "1"})),
        of(
            "assessment.submitted",
            "assessment/1",
            json!({"user_id": USER, "course_id": "1", "assessment_id": "1", "attempt": 1}),
        ),
        of(
            "certificate.issued",
            "certificate/1",
            json!({"user_id": USER, "course_id": "1", "certificate_id": "1", "issued_at": time}),
        ),
        of("wallet.created", "wallet/1", json!({"wallet_id": "1", "user_id": USER, "currency": "AZR"})),
        of(
            "transaction.completed",
            "wallet/1",
            json!({"transaction_id": "1", "from_wallet_id": "1", "to_wallet_id": "2", "money": money}),
        ),
        of("mining.reward", "wallet/1", json!({"wallet_id": "1", "money": money, "block_height": 7})),
        of(
            "ubi.distributed",
            "wallet/1",
            json!({"wallet_id": "1", "user_id": USER, "money": money, "period": "2026-01"}),
        ),
        of("job.posted", "job/1", json!({"job_id": "1", "employer_id": USER, "title": "Paint a fence"})),
        of("application.submitted", "job/1", json!({"application_id": "1", "job_id": "1", "applicant_id": USER})),
        of(
            "contract.signed",
            "contract/1",
            json!({
                "contract_id": "1", "job_id": "1", "employer_id": USER, "worker_id": USER, "total": money, "signed_at": time,
            }),
        ),
        of(
            "payment.released",
            "contract/1",
            json!({"payment_id": "1", "contract_id": "1", "to_wallet_id": "1", "money": money}),
        ),
        of(
            "system.alert",
            "system/disk",
            json!({"severity": "warning", "code": "disk-almost-full", "message": "90 %"}),
        ),
        of("health.check", "system/disk", json!({"component": "disk", "status": "degraded"})),
    ]
}
