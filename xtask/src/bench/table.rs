//! The figures as a page of `docs/`. Pure but for reading what machine this is.

use super::{Figures, load};
use crate::run;
use anyhow::Result;
use serde::Serialize;
use std::fmt::Write as _;

/// What the figures were measured on; without it they say little.
#[derive(Serialize)]
pub(super) struct Machine {
    cores: usize,
    memory_gib: u64,
    kernel: String,
    /// The day, in UTC.
    date: String,
    /// The commit that was measured.
    commit: String,
}

impl Machine {
    /// This one, now.
    pub(super) fn here() -> Result<Self> {
        let root = crate::store::clone_root();
        let total = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kibibytes = total.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        Ok(Self {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_gib: kibibytes >> 20,
            kernel: run::text(&mut run::command("uname", ["-r"]))?,
            date: run::text(&mut run::command("date", ["-u", "+%F"]))?,
            commit: run::text(&mut run::command_in(&root, "git", ["rev-parse", "--short", "HEAD"]))?,
        })
    }

    /// In words.
    pub(super) fn words(&self) -> String {
        let Self { cores, memory_gib, kernel, date, commit } = self;
        format!("{cores} cores and {memory_gib} GiB of memory, Linux {kernel}, {date}, commit {commit}")
    }
}

/// The page, in Markdown.
pub(super) fn markdown(figures: &Figures) -> String {
    let Figures { machine, load_beside_cluster, load, nexus_local, cluster } = figures;
    let beside = if *load_beside_cluster { "a cluster of four nodes that was idle" } else { "no cluster" };
    let mut page = format!(
        "# Measured figures\n\n\
         Written by `cargo xtask bench`; measure them again with the same command. One run on {}. Nexus (release \
         build), the three stores and the load generator share the machine; beside the load there was {beside}.\n\n\
         | what | goal | measured |\n|---|---|---|\n",
        machine.words(),
    );
    let mut row = |what: &str, goal: &str, measured: &str| {
        writeln!(page, "| {what} | {goal} | {measured} |").expect("a string takes any text");
    };
    latency_row(&load.latency, &mut row);
    publish_rows(&load.publish_single, "≥ 10,000", &load.insert_single, &mut row);
    publish_rows(&load.publish_batch, "≥ 80,000", &load.insert_batch, &mut row);
    let load::Insert { connections, rows_per_transaction, rows_per_second } = &load.insert_batch_as_log;
    let what = format!("{connections} connections, {rows_per_transaction} rows a transaction");
    row(&format!("Inserts a second of rows as the log has them, {what}"), "", &format!("{rows_per_second:.0}"));
    let mebibytes = |bytes: Option<u64>| bytes.map_or("not measured".to_owned(), crate::output::size);
    row("Nexus at rest, local services", "≤ 60 MiB", &mebibytes(Some(nexus_local.at_rest_bytes)));
    row("Nexus after the load above", "", &mebibytes(Some(nexus_local.after_load_bytes)));
    if let Some(cluster) = cluster {
        row("Nexus at rest, in the cluster", "≤ 60 MiB", &mebibytes(cluster.nexus_bytes));
        row("Operator at rest, in the cluster", "≤ 30 MiB", &mebibytes(cluster.operator_bytes));
        let starts: Vec<String> = cluster.ready_seconds.iter().map(|seconds| format!("{seconds:.1} s")).collect();
        row("From apply to Ready, images present (each start)", "≤ 120 s", &starts.join(", "));
    }
    page.push_str(
        "\nLatency runs from the moment an event was due to be published until a client holds it, so a publisher \
         that is held up does not hide the wait it causes. A publish is durable when it is acknowledged: its \
         transaction is on disk. The bare inserts put a row of an event's size into a table with nothing but a \
         primary key, on the same Postgres right before the publishes. Rows as the log has them have its indexes and \
         the keys that make publishing idempotent: without any Nexus, Postgres takes so many. Memory is resident memory, shared \
         libraries included.\n",
    );
    page
}

fn latency_row(latency: &load::Latency, row: &mut impl FnMut(&str, &str, &str)) {
    let what = format!(
        "Publish to socket, {} events a second, {} clients, {} s: {} deliveries, {} missing",
        latency.events_per_second, latency.clients, latency.seconds, latency.deliveries, latency.missing
    );
    let measured = format!(
        "p50 {:.1} ms, p95 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        latency.p50_ms, latency.p95_ms, latency.p99_ms, latency.max_ms
    );
    row(&what, "p99 ≤ 20 ms", &measured);
}

fn publish_rows(publish: &load::Publish, goal: &str, insert: &load::Insert, row: &mut impl FnMut(&str, &str, &str)) {
    let what = match publish.events_per_request {
        1 => format!("Durable publishes a second, {} publishers, one event each", publish.publishers),
        events => format!("Durable publishes a second, {} publishers, batches of {events}", publish.publishers),
    };
    let share = 100.0 * publish.events_per_second / insert.rows_per_second;
    let request = &publish.request;
    let measured = format!(
        "{:.0} ({share:.0} % of bare inserts); a request takes p50 {:.1} ms, p99 {:.1} ms",
        publish.events_per_second, request.p50_ms, request.p99_ms
    );
    row(&what, goal, &measured);
    let what = match insert.rows_per_transaction {
        1 => format!("Bare inserts a second, {} connections, one row each", insert.connections),
        rows => format!("Bare inserts a second, {} connections, {rows} rows a transaction", insert.connections),
    };
    row(&what, "", &format!("{:.0}", insert.rows_per_second));
}
