//! Waiting for a value, with a deadline, and a failure that says what was seen last.
//! Must never be used to let time pass: every wait names the value it waits for, or the one that must not come.
use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;

/// How often a condition is looked at: often enough to lose no time, seldom enough to leave two cores their work.
const PERIOD: Duration = Duration::from_millis(200);
/// A single look that hangs (a half-dead server) must not eat the whole deadline.
const LOOK_SECONDS_MAX: u64 = 15;

/// What one look at the world found.
#[derive(Debug)]
pub enum Look<T> {
    /// The condition holds; this is the value it was waited for.
    Done(T),
    /// Not yet; what was seen instead.
    Not(String),
}

impl<T> Look<T> {
    /// Done with `value` when `holds`, else not yet, having seen `seen`.
    pub fn when(holds: bool, value: T, seen: impl FnOnce() -> String) -> Self {
        if holds { Self::Done(value) } else { Self::Not(seen()) }
    }
}

/// Looks again and again until the condition holds. An error of a look counts as "not yet": servers are down on purpose.
pub async fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Look<T>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + deadline;
    let mut seen = "nothing: no look ended".to_owned();
    while Instant::now() < end {
        let longest = Duration::from_secs(LOOK_SECONDS_MAX).min(end - Instant::now());
        match tokio::time::timeout(longest, look()).await {
            Ok(Ok(Look::Done(value))) => return Ok(value),
            Ok(Ok(Look::Not(found))) => seen = found,
            Ok(Err(error)) => seen = format!("{error:#}"),
            Err(_) => seen = format!("a look that took longer than {} s; before it: {seen}", longest.as_secs()),
        }
        tokio::time::sleep(PERIOD).await;
    }
    bail!("waited {} s for {what}; last seen: {seen}", deadline.as_secs())
}

/// Looks now and then for a whole span whether nothing happens. The first thing that does ends it, with what was seen.
/// The counterpart of [`wait_for`], for what must *not* come: there is no value that its absence could be waited for.
pub async fn stays(
    what: &str,
    span: Duration,
    period: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Look<()>>,
) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        if let Look::Not(seen) = look().await? {
            bail!("{what} did not last {} s; seen after {} s: {seen}", span.as_secs(), start.elapsed().as_secs());
        }
        if start.elapsed() >= span {
            return Ok(());
        }
        tokio::time::sleep(period.min(span.saturating_sub(start.elapsed()))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_in_vain_says_what_it_waited_for_and_what_it_saw_last() {
        let mut looks = 0;
        let failure = wait_for::<()>("rain", Duration::from_secs(1), async || {
            looks += 1;
            Ok(Look::Not(format!("sun, look {}", looks.min(2))))
        })
        .await
        .expect_err("it never rains");
        assert_eq!(failure.to_string(), "waited 1 s for rain; last seen: sun, look 2");
    }

    #[tokio::test]
    async fn an_error_of_a_look_is_no_end_of_the_wait() {
        let mut looks = 0;
        let value = wait_for("a second look", Duration::from_secs(5), async || {
            looks += 1;
            anyhow::ensure!(looks > 1, "the server is down");
            Ok(Look::Done(looks))
        })
        .await;
        assert_eq!(value.ok(), Some(2));
    }
}
