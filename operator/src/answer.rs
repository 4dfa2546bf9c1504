//! What a component says of itself when it is asked. Not being able to ask is an answer too, never an error.

use std::time::Duration;

/// How long one question may take. Longer than a slow answer of a store under load, shorter than a visit's patience.
const QUESTION: Duration = Duration::from_secs(5);

/// The answer of one component; `S` is what it may turn out to lack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<S> {
    /// No pod is ready to be asked.
    NotAsked,
    /// It was asked and did not answer as it should.
    Unreachable {
        /// Why, in a few words.
        cause: String,
    },
    /// It runs, but something that the operator makes in it is not there.
    Lacks(S),
    /// A write and a read succeeded.
    Works(Working),
}

/// What a working component tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Working {
    /// Its version.
    pub version: String,
    /// Which of its pods takes writes, where only the component knows.
    pub primary: String,
}

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered<E: std::error::Error + 'static> {
    /// The component said no, or the connection broke.
    #[error("{0}")]
    Refused(#[source] E),
    /// It took too long.
    #[error("no answer within {} s", QUESTION.as_secs())]
    Late,
}

/// Asks with a bound on the time.
pub async fn within<T, E: std::error::Error + 'static>(
    question: impl Future<Output = Result<T, E>>,
) -> Result<T, Unanswered<E>> {
    match tokio::time::timeout(QUESTION, question).await {
        Ok(answer) => answer.map_err(Unanswered::Refused),
        Err(_) => Err(Unanswered::Late),
    }
}

/// An error in at most 160 characters on one line: it goes into a condition, which must not change without cause,
/// so what differs from try to try (ports, addresses in brackets) is of no use there.
pub fn brief(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    let line = text.split('\n').next().unwrap_or_default();
    line.chars().take(160).collect()
}
