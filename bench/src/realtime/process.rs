//! What the kernel knows of the server: its memory and its CPU time.

use anyhow::{Context as _, Result};
use std::fs;

/// A running process.
pub(crate) struct Process(pub(crate) u32);

/// Ticks a second of the times in `/proc`. Source: `proc_pid_stat(5)`; Linux has 100 on every machine of ours.
const TICKS_PER_SECOND: f64 = 100.0;

impl Process {
    /// CPU time that it has used, of all its threads.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).context("read the server's CPU time")?;
        let fields: Vec<&str> = stat.rsplit_once(')').context("read the server's CPU time")?.1.split(' ').collect();
        // Fields 14 and 15 of the line, of which 3 is the first after the name.
        let ticks = |number: usize| fields.get(number - 2).and_then(|field| field.parse::<f64>().ok());
        Ok((ticks(14).context("no user time")? + ticks(15).context("no system time")?) / TICKS_PER_SECOND)
    }

    /// Memory that it holds.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).context("read the server's memory")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().context("read VmRSS")?;
        Ok(kibibytes * 1024)
    }
}
