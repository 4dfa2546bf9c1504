//! The insert rate of the same Postgres, committed one by one or by the hundred: bare, a row as large as an event into a
//! table with nothing but a primary key; and rows as the log has them, with its indexes and the keys that make publishing
//! idempotent. What a durable publish costs is read against the one, what could be won at all against the other.

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use serde::Serialize;
use sqlx::postgres::{PgPool, PgPoolOptions};
use std::time::Duration;
use tokio::time::Instant;

/// A row's text: as long as an event of the generator.
const EVENT_BYTES: usize = 300;

/// Makes the tables. That of the log is where Nexus has it by default.
const CREATE: [&str; 5] = [
    "CREATE TABLE public.bench_insert (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, event json NOT NULL)",
    "CREATE TABLE public.bench_log (LIKE nexus.log INCLUDING DEFAULTS INCLUDING INDEXES)",
    "CREATE TABLE public.bench_key (LIKE nexus.event_key INCLUDING INDEXES)",
    "CREATE SEQUENCE public.bench_seq",
    "ALTER SEQUENCE public.bench_seq OWNED BY public.bench_log.seq",
];
const DROP: &str = "DROP TABLE IF EXISTS public.bench_insert, public.bench_log, public.bench_key";

const INSERT: &str = "INSERT INTO public.bench_insert (event) SELECT unnest($1::text[])::json";
const INSERT_AS_LOG: &str = "
WITH given AS MATERIALIZED (
    SELECT nextval('public.bench_seq') AS seq, gen_random_uuid() AS key, 'wallet/bench-' || number AS subject, event
    FROM unnest($1::text[]) WITH ORDINALITY AS row (event, number)
), keyed AS (
    INSERT INTO public.bench_key (key, outbox_id) SELECT key, -seq FROM given ORDER BY key
)
INSERT INTO public.bench_log (seq, outbox_id, key, type, subject, event, audience)
SELECT seq, -seq, key, 'mining.reward', subject, event::json, ARRAY[subject] FROM given";

/// The tables, made for the run and dropped after it.
pub(crate) struct Table {
    pool: PgPool,
}

/// What was measured.
#[derive(Serialize)]
pub(crate) struct Rate {
    connections: u32,
    rows_per_transaction: u32,
    rows_per_second: f64,
}

impl Table {
    pub(crate) async fn create(url: &str, connections: u32) -> Result<Self> {
        let pool = PgPoolOptions::new().max_connections(connections).connect(url).await;
        let pool = pool.context("connect to Postgres")?;
        for statement in [DROP].into_iter().chain(CREATE) {
            sqlx::query(statement).execute(&pool).await.context("create the tables for inserts")?;
        }
        Ok(Self { pool })
    }

    /// One row in each transaction.
    pub(crate) async fn singles(&self, connections: u32, seconds: u32) -> Result<Rate> {
        self.measure(INSERT, connections, 1, seconds).await.context("measure bare inserts")
    }

    /// Many rows in each transaction.
    pub(crate) async fn batches(&self, connections: u32, rows: u32, seconds: u32) -> Result<Rate> {
        self.measure(INSERT, connections, rows, seconds).await.context("measure bare inserts in batches")
    }

    /// The same of rows as the log has them.
    pub(crate) async fn batches_as_log(&self, connections: u32, rows: u32, seconds: u32) -> Result<Rate> {
        let measured = self.measure(INSERT_AS_LOG, connections, rows, seconds).await;
        measured.context("measure inserts of rows as the log has them")
    }

    pub(crate) async fn drop(self) -> Result<()> {
        sqlx::query(DROP).execute(&self.pool).await.context("drop the tables")?;
        self.pool.close().await;
        Ok(())
    }

    async fn measure(&self, insert: &'static str, connections: u32, rows: u32, seconds: u32) -> Result<Rate> {
        let event = serde_json::Value::String("e".repeat(EVENT_BYTES)).to_string();
        let started = Instant::now();
        let until = started + Duration::from_secs(seconds.into());
        let tasks = (0..connections).map(|_| {
            let pool = self.pool.clone();
            let events = vec![event.clone(); rows as usize];
            tokio::spawn(async move {
                let mut connection = pool.acquire().await.context("take a connection")?;
                let mut transactions = 0_u32;
                while Instant::now() < until {
                    sqlx::query(insert).bind(&events).execute(&mut *connection).await.context("insert")?;
                    transactions += 1;
                }
                anyhow::Ok(transactions)
            })
        });
        let mut transactions = 0;
        for task in try_join_all(tasks).await.context("join the connections")? {
            transactions += task?;
        }
        let rows_per_second = f64::from(transactions) * f64::from(rows) / started.elapsed().as_secs_f64();
        Ok(Rate { connections, rows_per_transaction: rows, rows_per_second })
    }
}
