//! What becomes of clients that were away: those that never read, and ten thousand whose pod is killed. Each counts what
//! it gets, so that nothing is lost or told twice unseen. And how soon connections end whose token is revoked.

mod follower;
mod killed;
mod revoked;
mod stalled;

use crate::target::Target;
use anyhow::Result;
use serde::Serialize;

/// What is measured, and how large.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The process of Nexus, whose memory is read, and which is killed in the end.
    #[arg(long)]
    process: u32,
    /// Another Nexus on the same data layer, such as `http://127.0.0.1:4002`.
    #[arg(long)]
    other_url: String,
    /// Clients that never read.
    #[arg(long, default_value_t = 1_000)]
    stalled_clients: u32,
    /// Events a second that they do not read.
    #[arg(long, default_value_t = 5_000)]
    stalled_rate: u32,
    /// For how long, in seconds.
    #[arg(long, default_value_t = 60)]
    stalled_seconds: u32,
    /// Clients of the Nexus that is killed.
    #[arg(long, default_value_t = 10_000)]
    killed_clients: u32,
    /// Events that each of them misses.
    #[arg(long, default_value_t = 100)]
    missed_events: u32,
    /// Connections of each token that is revoked, half of them at the other Nexus.
    #[arg(long, default_value_t = 100)]
    revoked_clients: u32,
    /// Tokens to revoke, one after the other: of the subjects `revoked-0`, `revoked-1` and so on.
    #[arg(long, env = "NEXUS_BENCH_REVOKED_TOKENS", hide_env_values = true, value_delimiter = ',')]
    revoked_tokens: Vec<String>,
    /// Token of who may revoke them.
    #[arg(long, env = "NEXUS_BENCH_ADMIN_TOKEN", hide_env_values = true)]
    admin_token: String,
}

/// All that one run measured.
#[derive(Serialize)]
pub(crate) struct Figures {
    stalled: stalled::Figures,
    revoked: revoked::Figures,
    killed: killed::Figures,
}

/// Measures everything.
pub(crate) async fn measure(target: &Target, arguments: &Arguments) -> Result<Figures> {
    let stalled = stalled::measure(target, arguments).await?;
    eprintln!("stalled: {}", serde_json::to_string(&stalled)?);
    let revoked = revoked::measure(target, arguments).await?;
    eprintln!("revoked: {}", serde_json::to_string(&revoked)?);
    let killed = killed::measure(target, arguments).await?;
    Ok(Figures { stalled, revoked, killed })
}
