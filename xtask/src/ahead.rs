//! Work that is begun before it is needed, beside what mostly waits.

use crate::output::Step;
use anyhow::Result;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often a person is told that the work goes on.
const TELL_PERIOD: Duration = Duration::from_secs(20);

/// A compile beside other work.
#[must_use]
#[derive(Default)]
pub struct Ahead(Option<Work>);

struct Work {
    title: &'static str,
    thread: JoinHandle<Result<()>>,
}

impl Ahead {
    /// Begins.
    pub fn begin(title: &'static str, work: impl FnOnce() -> Result<()> + Send + 'static) -> Self {
        Self(Some(Work { title, thread: thread::spawn(work) }))
    }

    /// Waits for its end. What went wrong is not told here: whoever needs what was to be made meets it again, and shows it.
    pub fn finish(self) {
        let Some(Work { title, thread }) = self.0.filter(|work| !work.thread.is_finished()) else { return };
        let step = Step::start(format!("{title}, begun at the start"));
        let mut told = Instant::now();
        while !thread.is_finished() {
            if told.elapsed() >= TELL_PERIOD {
                step.waiting("the compiler");
                told = Instant::now();
            }
            thread::sleep(Duration::from_millis(200));
        }
        step.done("");
    }
}
