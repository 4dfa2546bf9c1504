//! Bounds on webhooks, and where they may deliver to.

use clap::Args;
use ipnet::IpNet;

use super::consumers::RETRY_SECONDS_MAX;

/// Bounds on webhooks, and where they may deliver to.
#[derive(Args, Clone, Debug)]
#[group(id = "webhooks")]
pub struct WebhooksConfig {
    /// Networks that webhooks may reach although they are not public, such as `10.1.0.0/16`, separated by commas. The
    /// address that is connected to counts, whatever name led to it.
    #[arg(long = "webhook-allow-network", env = "NEXUS_WEBHOOK_ALLOW_NETWORKS", value_delimiter = ',')]
    pub allow_networks: Vec<IpNet>,
    /// Whether webhooks may be delivered without TLS: everybody on the way can read them then.
    #[arg(long = "webhook-allow-http", env = "NEXUS_WEBHOOK_ALLOW_HTTP")]
    pub allow_http: bool,
    /// Waits after each failed attempt, in seconds, each a fifth more or less; one attempt more than there are waits. The
    /// default is the example of Standard Webhooks: ten attempts in three days.
    #[arg(id = "webhook_retry_seconds", long = "webhook-retry-seconds", env = "NEXUS_WEBHOOK_RETRY_SECONDS", value_delimiter = ',', default_value = "5,300,1800,7200,18000,36000,50400,72000,86400", value_parser = clap::value_parser!(i32).range(0..=RETRY_SECONDS_MAX))]
    pub retry_seconds: Vec<i32>,
    /// Time for one attempt, in seconds, from the look-up of the name to the end of the answer.
    #[arg(long = "webhook-attempt-seconds", env = "NEXUS_WEBHOOK_ATTEMPT_SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub attempt_seconds: u64,
    /// How long every attempt must have failed until a webhook is disabled, in seconds. The default of five days is longer
    /// than the schedule of one event.
    #[arg(
        long = "webhook-disable-seconds",
        env = "NEXUS_WEBHOOK_DISABLE_SECONDS",
        default_value_t = 432_000,
        value_parser = clap::value_parser!(u64).range(..=31_536_000)
    )]
    pub disable_seconds: u64,
    /// How long the secret before signs as well after a rotation, in seconds.
    #[arg(
        long = "webhook-secret-overlap-seconds",
        env = "NEXUS_WEBHOOK_SECRET_OVERLAP_SECONDS",
        default_value_t = 86_400,
        value_parser = clap::value_parser!(u64).range(..=31_536_000)
    )]
    pub secret_overlap_seconds: u64,
    /// Attempts of this pod at the same time.
    #[arg(long = "webhook-attempts-max", env = "NEXUS_WEBHOOK_ATTEMPTS_MAX", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub attempts_max: u16,
    /// Attempts for one webhook at the same time, of all pods together.
    #[arg(
        long = "webhook-attempts-per-webhook-max",
        env = "NEXUS_WEBHOOK_ATTEMPTS_PER_WEBHOOK_MAX",
        default_value_t = 8,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub attempts_per_webhook_max: u16,
    /// Webhooks of one owner.
    #[arg(
        id = "webhooks_per_owner_max",
        long = "webhooks-per-owner-max",
        env = "NEXUS_WEBHOOKS_PER_OWNER_MAX",
        default_value_t = 50
    )]
    pub per_owner_max: i64,
}
