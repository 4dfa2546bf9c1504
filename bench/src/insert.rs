//! The bare insert rate of the same Postgres: a row as large as an event into a table with nothing but a
//! primary key, committed one by one or by the hundred. What a durable publish costs is read against it.

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use serde::Serialize;
use sqlx::postgres::{PgPool, PgPoolOptions};
use std::time::Duration;
use tokio::time::Instant;

/// A row's text: as long as an event of the generator.
const EVENT_BYTES: usize = 300;

/// The table, made for the run and dropped after it.
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
        for statement in [
            "DROP TABLE IF EXISTS public.bench_insert",
            "CREATE TABLE public.bench_insert (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, event json NOT NULL)",
        ] {
            sqlx::query(statement).execute(&pool).await.context("create the table for bare inserts")?;
        }
        Ok(Self { pool })
    }

    /// One row in each transaction.
    pub(crate) async fn singles(&self, connections: u32, seconds: u32) -> Result<Rate> {
        self.measure(connections, 1, seconds).await.context("measure bare inserts")
    }

    /// Many rows in each transaction.
    pub(crate) async fn batches(&self, connections: u32, rows: u32, seconds: u32) -> Result<Rate> {
        self.measure(connections, rows, seconds).await.context("measure bare inserts in batches")
    }

    pub(crate) async fn drop(self) -> Result<()> {
        sqlx::query("DROP TABLE public.bench_insert").execute(&self.pool).await.context("drop the table")?;
        self.pool.close().await;
        Ok(())
    }

    async fn measure(&self, connections: u32, rows: u32, seconds: u32) -> Result<Rate> {
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
                    sqlx::query("INSERT INTO public.bench_insert (event) SELECT unnest($1::text[])::json")
                        .bind(&events)
                        .execute(&mut *connection)
                        .await
                        .context("insert")?;
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
