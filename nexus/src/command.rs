//! The commands of the binary: `serve`, `migrate`, `schema`, `token`. The only module that prints.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

use crate::auth::{Claims, sign};
use crate::chain::Chain;
use crate::config::{Config, DatabaseConfig, Secret};
use crate::event_types::EventTypes;
use crate::http::{asyncapi, event_types, openapi, routes};
use crate::logging::{self, LogFormat};
use crate::serve::Nexus;
use crate::{store, typescript};

/// The event bus and sync manager of the Azora data layer.
#[derive(Debug, Parser)]
#[command(name = "nexus", version)]
pub struct Command {
    #[command(flatten)]
    log: LogArguments,
    #[command(subcommand)]
    action: Action,
}

#[derive(Args, Debug)]
struct LogArguments {
    /// What is logged, as `info` or `nexus=debug,info`.
    #[arg(long, env = "NEXUS_LOG", default_value = "info", global = true)]
    log: String,
    /// How log lines look.
    #[arg(long, env = "NEXUS_LOG_FORMAT", value_enum, default_value = "json", global = true)]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Serves the API until SIGTERM.
    Serve(Box<Config>),
    /// Brings the database to this build's version.
    Migrate(MigrateArguments),
    /// Prints a generated document.
    Schema {
        /// Which one.
        #[arg(value_enum)]
        document: Document,
        #[command(flatten)]
        event_types: EventTypes,
    },
    /// Prints a token for development, signed with the shared key.
    Token(TokenArguments),
}

#[derive(Args, Debug)]
struct MigrateArguments {
    #[command(flatten)]
    database: DatabaseConfig,
    #[command(flatten)]
    event_types: EventTypes,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Document {
    Openapi,
    Asyncapi,
    EventTypes,
    Typescript,
}

#[derive(Args, Debug)]
struct TokenArguments {
    /// Who calls.
    #[arg(long)]
    subject: String,
    /// What the caller may do, separated by spaces.
    #[arg(long)]
    scope: String,
    /// How long the token is valid, in seconds.
    #[arg(long, default_value_t = 3_600)]
    ttl_seconds: u64,
    /// Shared HS256 key.
    #[arg(long, env = "NEXUS_AUTH_HS256_KEY", hide_env_values = true)]
    auth_hs256_key: String,
    /// The `iss` claim, when Nexus asks for one.
    #[arg(long, env = "NEXUS_AUTH_ISSUER")]
    auth_issuer: Option<String>,
    /// The `aud` claim, when Nexus asks for one.
    #[arg(long, env = "NEXUS_AUTH_AUDIENCE")]
    auth_audience: Option<String>,
}

/// Runs a command to its end.
pub fn run(command: Command) -> ExitCode {
    let outcome = logging::start(&command.log.log, command.log.log_format)
        .map_err(anyhow::Error::from)
        .and_then(|()| act(command.action));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %Chain(error.as_ref()), "the command failed");
            ExitCode::FAILURE
        }
    }
}

fn act(action: Action) -> anyhow::Result<()> {
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime");
    match action {
        Action::Serve(config) => runtime()?.block_on(serve(*config)),
        Action::Migrate(arguments) => runtime()?.block_on(migrate(&arguments)),
        Action::Schema { document, event_types } => print_document(document, &event_types),
        Action::Token(arguments) => print_line(&token(&arguments)?),
    }
}

async fn migrate(MigrateArguments { database, event_types }: &MigrateArguments) -> anyhow::Result<()> {
    let registry = event_types.registry().context("read the event types of the deployment")?;
    store::postgres::migrate(database, &registry).await.context("migrate")
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let drain = Duration::from_secs(config.limits.drain_seconds);
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let nexus = Nexus::start(config).await?;
    // A person at a terminal does not want to wait for the drain.
    let drain = tokio::select! {
        _ = terminate.recv() => drain,
        _ = interrupt.recv() => Duration::ZERO,
    };
    nexus.stop(drain).await;
    Ok(())
}

fn token(arguments: &TokenArguments) -> anyhow::Result<String> {
    let now = u64::try_from(Timestamp::now().as_second()).context("read the clock")?;
    let claims = Claims {
        sub: arguments.subject.clone(),
        exp: now + arguments.ttl_seconds,
        scope: arguments.scope.clone(),
        iat: Some(now),
        jti: Some(Uuid::new_v4().to_string()),
        iss: arguments.auth_issuer.clone(),
        aud: arguments.auth_audience.clone(),
    };
    sign(&Secret::from(arguments.auth_hs256_key.as_str()), &claims).context("sign a token")
}

fn print_document(document: Document, event_types: &EventTypes) -> anyhow::Result<()> {
    let registry = event_types.registry().context("read the event types of the deployment")?;
    let document = match document {
        Document::Openapi => openapi::document(routes().operations(), &registry),
        Document::Asyncapi => asyncapi::document(&registry),
        Document::EventTypes => event_types::document(&registry),
        Document::Typescript => return print_line(typescript::document(&registry).trim_end()),
    };
    print_line(&serde_json::to_string_pretty(&document).context("write the document")?)
}

fn print_line(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{text}").context("write to standard output")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;

    /// The objects of a data layer that sets everything.
    const OBJECTS: &str = include_str!("../../operator/tests/golden/nexus-settings/want.yaml");

    #[test]
    fn every_setting_that_the_operator_gives_is_read() {
        let command = Command::command();
        let serve = command.find_subcommand("serve").expect("a command");
        let read = command.get_arguments().chain(serve.get_arguments()).filter_map(|argument| argument.get_env());
        let read: BTreeSet<&str> = read.filter_map(|name| name.to_str()).collect();
        let names = OBJECTS.lines().filter_map(|line| line.trim().strip_prefix("- name: "));
        let given: BTreeSet<&str> =
            names.filter(|name| name.starts_with("NEXUS_") || name.starts_with("OTEL_")).collect();
        assert!(given.contains("NEXUS_PROXIES"), "{given:?}");
        assert_eq!(given.difference(&read).collect::<Vec<_>>(), Vec::<&&str>::new());
    }
}
