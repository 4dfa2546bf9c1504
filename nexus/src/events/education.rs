//! Events of education: courses, lessons, assessments, certificates.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::registry::{Domain, Payload};

/// A user took a place in a course.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CourseEnrolled {
    /// The learner.
    pub user_id: Uuid,
    /// The course.
    #[schemars(length(min = 1, max = 128))]
    pub course_id: String,
    /// When the place was taken.
    pub enrolled_at: Timestamp,
}

impl Payload for CourseEnrolled {
    const TYPE: &'static str = "course.enrolled";
    const DOMAIN: Domain = Domain::Education;
    const SUBJECT: &'static str = "course";
    const AUDIENCE: &'static [&'static str] = &["user/{user_id}", "course/{course_id}"];
    const LETS_IN: bool = true;
    const DESCRIPTION: &'static str = "A user took a place in a course.";
}

/// A user finished a lesson.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LessonCompleted {
    /// The learner.
    pub user_id: Uuid,
    /// The course that the lesson belongs to.
    #[schemars(length(min = 1, max = 128))]
    pub course_id: String,
    /// The lesson.
    #[schemars(length(min = 1, max = 128))]
    pub lesson_id: String,
    /// Time spent, in seconds.
    #[schemars(range(min = 0, max = 31_536_000))]
    pub duration_seconds: Option<i64>,
}

impl Payload for LessonCompleted {
    const TYPE: &'static str = "lesson.completed";
    const DOMAIN: Domain = Domain::Education;
    const SUBJECT: &'static str = "lesson";
    const PERSON: Option<&'static str> = Some("user_id");
    const AUDIENCE: &'static [&'static str] = &["user/{user_id}", "course/{course_id}"];
    const DESCRIPTION: &'static str = "A user finished a lesson.";
}

/// A user handed in an assessment.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssessmentSubmitted {
    /// The learner.
    pub user_id: Uuid,
    /// The course that the assessment belongs to.
    #[schemars(length(min = 1, max = 128))]
    pub course_id: String,
    /// The assessment.
    #[schemars(length(min = 1, max = 128))]
    pub assessment_id: String,
    /// Which attempt this is, from 1.
    #[schemars(range(min = 1, max = 1_000))]
    pub attempt: i32,
    /// Points reached, in thousandths of the possible ones; absent until it is marked.
    #[schemars(range(min = 0, max = 1_000))]
    pub score_permille: Option<i32>,
}

impl Payload for AssessmentSubmitted {
    const TYPE: &'static str = "assessment.submitted";
    const DOMAIN: Domain = Domain::Education;
    const SUBJECT: &'static str = "assessment";
    const AUDIENCE: &'static [&'static str] = &["user/{user_id}"];
    const DESCRIPTION: &'static str = "A user handed in an assessment.";
}

/// A certificate was issued to a user.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateIssued {
    /// The holder.
    pub user_id: Uuid,
    /// The course that was passed.
    #[schemars(length(min = 1, max = 128))]
    pub course_id: String,
    /// The certificate.
    #[schemars(length(min = 1, max = 128))]
    pub certificate_id: String,
    /// When it was issued.
    pub issued_at: Timestamp,
}

impl Payload for CertificateIssued {
    const TYPE: &'static str = "certificate.issued";
    const DOMAIN: Domain = Domain::Education;
    const SUBJECT: &'static str = "certificate";
    const AUDIENCE: &'static [&'static str] = &["user/{user_id}", "course/{course_id}"];
    const DESCRIPTION: &'static str = "A certificate was issued to a user.";
}
