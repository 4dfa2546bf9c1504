//! Connections of a token that is revoked, at the Nexus that is asked for it and at the other one: when each is ended.

use super::Arguments;
use crate::percentiles::Percentiles;
use crate::realtime::client::{Client, address_of_run};
use crate::target::Target;
use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use std::net::IpAddr;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// What a connection is closed with whose token was revoked.
const REVOKED: u16 = 4_410;
/// Longer than any revocation takes: a connection that is open by then is a failure, and not slow.
const PATIENCE: Duration = Duration::from_secs(30);

/// No shorter than the period in which a Nexus looks for what was revoked at another.
const PERIOD: Duration = Duration::from_secs(1);

/// How long it took, from the request on.
#[derive(Serialize)]
pub(super) struct Figures {
    tokens: usize,
    /// Of all tokens, half of them at each Nexus.
    connections: u32,
    /// Until Nexus answered that it is revoked.
    answered: Percentiles,
    /// Until the connections at the Nexus that was asked were closed.
    closed: Percentiles,
    /// Until those at the other one were.
    closed_elsewhere: Percentiles,
}

pub(super) async fn measure(target: &Target, arguments: &Arguments) -> Result<Figures> {
    let tokens = &arguments.revoked_tokens;
    let each = arguments.revoked_clients / 2;
    let admin = target.as_caller(&arguments.admin_token);
    let (mut answered, mut closed, mut closed_elsewhere) = (Vec::new(), Vec::new(), Vec::new());
    for (number, token) in tokens.iter().enumerate() {
        let here = target.as_caller(token);
        let elsewhere = here.at(&arguments.other_url)?;
        let mut open = Vec::new();
        for _ in 0..each {
            for (target, elsewhere) in [(&here, false), (&elsewhere, true)] {
                open.push((connect(target, address_of_run(8)).await?, elsewhere));
            }
        }
        // Each at another moment of the period in which a Nexus looks for what was revoked.
        sleep(PERIOD * u32::try_from(number).unwrap_or(0) / u32::try_from(tokens.len()).unwrap_or(1)).await;
        let begun = Instant::now();
        let mut ending = JoinSet::new();
        for (client, elsewhere) in open {
            ending.spawn(async move {
                timeout(PATIENCE, ended(client)).await.context("wait for a connection to be closed")??;
                anyhow::Ok((begun.elapsed(), elsewhere))
            });
        }
        admin.revoke(&format!("revoked-{number}")).await?;
        answered.push(begun.elapsed());
        while let Some(ended) = ending.join_next().await {
            let (after, elsewhere) = ended??;
            if elsewhere { &mut closed_elsewhere } else { &mut closed }.push(after);
        }
    }
    let of = |durations| Percentiles::of(durations).context("nothing was revoked");
    Ok(Figures {
        tokens: tokens.len(),
        connections: each * 2 * u32::try_from(tokens.len()).context("count the tokens")?,
        answered: of(answered)?,
        closed: of(closed)?,
        closed_elsewhere: of(closed_elsewhere)?,
    })
}

/// A connection that follows something.
async fn connect(target: &Target, source: IpAddr) -> Result<Client> {
    let mut client = Client::connect(target, source, None).await?;
    client.send(0x81, br#"{"id":1,"command":"subscribe","types":["mining.reward"]}"#).await.context("subscribe")?;
    let answer = client.read().await.context("read the answer to subscribe")?;
    let subscribed = answer.iter().any(|(_, payload)| String::from_utf8_lossy(payload).contains("\"result\""));
    ensure!(subscribed, "a subscription was refused");
    Ok(client)
}

/// Reads until the connection is closed because of the revocation.
async fn ended(mut client: Client) -> Result<()> {
    loop {
        for (first, payload) in client.read().await.context("read until the connection is closed")? {
            match (first, payload.first_chunk()) {
                (0x88, Some(code)) => {
                    let code = u16::from_be_bytes(*code);
                    ensure!(code == REVOKED, "a connection was closed with {code}");
                    return Ok(());
                }
                (0x89, _) => client.send(0x8a, &payload).await.context("answer a ping")?,
                _ => {}
            }
        }
    }
}
