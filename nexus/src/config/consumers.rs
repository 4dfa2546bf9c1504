//! Bounds on durable consumers.

use clap::Args;

/// Bounds on durable consumers.
#[derive(Args, Clone, Debug)]
#[group(id = "consumers")]
pub struct ConsumersConfig {
    /// Events that may wait for one consumer or webhook outside of the log. With so many, no more are taken from the log
    /// until some are done; the log keeps the others for as long as it keeps anything.
    #[arg(long = "consumer-pending-max", env = "NEXUS_CONSUMER_PENDING_MAX", default_value_t = 1_000, value_parser = clap::value_parser!(i64).range(1..))]
    pub pending_max: i64,
    /// Dead letters of one consumer or webhook. With so many, no more events are taken from the log for it.
    #[arg(long = "consumer-dead-letters-max", env = "NEXUS_CONSUMER_DEAD_LETTERS_MAX", default_value_t = 10_000, value_parser = clap::value_parser!(i64).range(1..))]
    pub dead_letters_max: i64,
    /// Waits after each failed attempt, in seconds, for consumers that name none: one attempt more than there are waits.
    #[arg(id = "consumer_retry_seconds", long = "consumer-retry-seconds", env = "NEXUS_CONSUMER_RETRY_SECONDS", value_delimiter = ',', default_value = "1,2,4,8,16,32,64,128,256", value_parser = clap::value_parser!(i32).range(0..=RETRY_SECONDS_MAX))]
    pub retry_seconds: Vec<i32>,
    /// Consumers of one owner.
    #[arg(
        id = "consumers_per_owner_max",
        long = "consumers-per-owner-max",
        env = "NEXUS_CONSUMERS_PER_OWNER_MAX",
        default_value_t = 100
    )]
    pub per_owner_max: i64,
}

/// Longest wait after a failed attempt: a week, longer than any schedule in the field.
pub const RETRY_SECONDS_MAX: i64 = 604_800;
