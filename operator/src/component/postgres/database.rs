//! What only Postgres itself can say, and what is done in it: the application's role and database. Every connection
//! goes through the Service, as an application's does.

use crate::answer::{Answer, Unanswered, Working, brief, within};
use crate::credentials::{Credentials, POSTGRES_APPLICATION, POSTGRES_SUPERUSER};
use crate::layer::Layer;
use crate::names::{self, APPLICATION_USER, Component, DATABASE, POSTGRES_PORT};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _};

/// A change inside Postgres that the plan asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Step {
    /// Make the application's role, or give it the password that the credentials say.
    CreateRole,
    /// Make the application's database, owned by its role.
    CreateDatabase,
}

/// Asks as the application does: one write and one read in its own database.
pub async fn observe(layer: &Layer, credentials: &Credentials) -> Answer<Step> {
    let password = credentials.get(POSTGRES_APPLICATION);
    match within(probe(layer, password)).await {
        Ok(version) => Answer::Works(Working { version, primary: String::new() }),
        Err(Unanswered::Refused(cause)) if is_lacking(&cause) => match within(lacking(layer, credentials)).await {
            Ok(step) => Answer::Lacks(step),
            Err(cause) => Answer::Unreachable { cause: brief(&cause) },
        },
        Err(cause) => Answer::Unreachable { cause: brief(&cause) },
    }
}

/// Carries one step out. Each may be repeated.
pub async fn carry_out(layer: &Layer, credentials: &Credentials, step: Step) -> Result<(), sqlx::Error> {
    let mut connection = connect(layer, "postgres", credentials.get(POSTGRES_SUPERUSER), "postgres").await?;
    match step {
        Step::CreateRole => {
            // A failed statement is logged with its text; this one carries a password.
            sqlx::query("SET log_min_error_statement = panic").execute(&mut connection).await?;
            let made = role_exists(&mut connection).await?;
            let verb = if made { "ALTER" } else { "CREATE" };
            // The password is 64 hexadecimal digits of our own making: nothing in it needs quoting.
            let password = credentials.get(POSTGRES_APPLICATION).replace('\'', "''");
            let statement = format!("{verb} ROLE {APPLICATION_USER} LOGIN PASSWORD '{password}'");
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
        }
        Step::CreateDatabase => {
            let statement = format!("CREATE DATABASE {DATABASE} OWNER {APPLICATION_USER}");
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
        }
    }
    connection.close().await
}

async fn connect(layer: &Layer, user: &str, password: &str, database: &str) -> Result<PgConnection, sqlx::Error> {
    PgConnectOptions::new_without_pgpass()
        .host(&names::host(layer, &names::of(layer, Component::Postgres)))
        .port(POSTGRES_PORT.unsigned_abs().try_into().unwrap_or(5432))
        .username(user)
        .password(password)
        .database(database)
        .ssl_mode(PgSslMode::Disable)
        .application_name("azora-operator")
        .disable_statement_logging()
        .connect()
        .await
}

async fn probe(layer: &Layer, password: &str) -> Result<String, sqlx::Error> {
    let mut connection = connect(layer, APPLICATION_USER, password, DATABASE).await?;
    let write = "INSERT INTO azora_operator.probe (single, written_at) VALUES (true, clock_timestamp()) \
                 ON CONFLICT (single) DO UPDATE SET written_at = excluded.written_at RETURNING written_at::text";
    let written: String = match sqlx::query(write).fetch_one(&mut connection).await {
        Ok(row) => row.try_get(0)?,
        Err(error) if code(&error).as_deref() == Some("42P01") => {
            // The probe's own table, in a schema of its own beside the application's.
            let make = "CREATE SCHEMA IF NOT EXISTS azora_operator; \
                        CREATE TABLE IF NOT EXISTS azora_operator.probe \
                        (single boolean PRIMARY KEY CHECK (single), written_at timestamptz NOT NULL)";
            sqlx::raw_sql(make).execute(&mut connection).await?;
            sqlx::query(write).fetch_one(&mut connection).await?.try_get(0)?
        }
        Err(error) => return Err(error),
    };
    let read = "SELECT written_at::text, current_setting('server_version') FROM azora_operator.probe";
    let row = sqlx::query(read).fetch_one(&mut connection).await?;
    let (read, version): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    connection.close().await?;
    if read < written {
        return Err(sqlx::Error::Protocol("a read did not see the write before it".to_owned()));
    }
    // "15.14 (Debian 15.14-0+deb12u1)": the packaging is of no use to a reader.
    Ok(version.split_whitespace().next().unwrap_or_default().to_owned())
}

/// What the application finds lacking, as the superuser sees it.
async fn lacking(layer: &Layer, credentials: &Credentials) -> Result<Step, sqlx::Error> {
    let mut connection = connect(layer, "postgres", credentials.get(POSTGRES_SUPERUSER), "postgres").await?;
    let role = role_exists(&mut connection).await?;
    let query = sqlx::query("SELECT 1 FROM pg_database WHERE datname = $1").bind(DATABASE);
    let database = query.fetch_optional(&mut connection).await?.is_some();
    connection.close().await?;
    // With both there, the application was refused for its password: the credentials were restored from elsewhere.
    Ok(if role && !database { Step::CreateDatabase } else { Step::CreateRole })
}

async fn role_exists(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let query = sqlx::query("SELECT 1 FROM pg_roles WHERE rolname = $1").bind(APPLICATION_USER);
    Ok(query.fetch_optional(connection).await?.is_some())
}

/// Whether Postgres refused the application because its role, password or database is not there (yet).
fn is_lacking(error: &sqlx::Error) -> bool {
    // invalid_authorization_specification, invalid_password, invalid_catalog_name
    matches!(code(error).as_deref(), Some("28000" | "28P01" | "3D000"))
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned))
}
