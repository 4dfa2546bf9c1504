//! Log lines: how they are written, and which. The choice can be changed while the program runs, for one process.

use std::io;
use std::sync::OnceLock;

use clap::ValueEnum;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt};

/// Form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object.
    Json,
    /// Text for people.
    Text,
}

/// Why log lines cannot be chosen so.
#[derive(Debug, thiserror::Error)]
pub enum ChooseLines {
    /// The filter cannot be read.
    #[error("read the log filter")]
    ReadFilter(#[source] tracing_subscriber::filter::ParseError),
    /// This process writes no log lines, or others choose them.
    #[error("this process does not choose its log lines")]
    FindLog,
}

static FILTER: OnceLock<Handle<EnvFilter, Registry>> = OnceLock::new();

/// Writes the lines that `filter` chooses to standard error, from now on. Does nothing when lines are written already.
pub fn start(filter: &str, format: LogFormat) -> Result<(), ChooseLines> {
    let filter = EnvFilter::try_new(filter).map_err(ChooseLines::ReadFilter)?;
    let (filter, handle) = reload::Layer::new(filter);
    // Standard output carries documents and tokens.
    let layer = fmt::layer().with_writer(io::stderr);
    let subscriber = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Json => subscriber.with(layer.json().flatten_event(true)).try_init(),
        LogFormat::Text => subscriber.with(layer).try_init(),
    };
    if started.is_ok() {
        // The first one to start is the only one.
        let _ = FILTER.set(handle);
    }
    Ok(())
}

/// The filter that chooses the lines.
pub fn filter() -> Result<String, ChooseLines> {
    let current = FILTER.get().and_then(|handle| handle.with_current(ToString::to_string).ok());
    current.ok_or(ChooseLines::FindLog)
}

/// Chooses other lines from now on.
pub fn set_filter(filter: &str) -> Result<(), ChooseLines> {
    let filter = EnvFilter::try_new(filter).map_err(ChooseLines::ReadFilter)?;
    let handle = FILTER.get().ok_or(ChooseLines::FindLog)?;
    handle.reload(filter).map_err(|_| ChooseLines::FindLog)
}
