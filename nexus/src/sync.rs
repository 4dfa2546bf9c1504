//! The sync manager: reads through two caches, and the followers that keep caches and
//! documents at the log.
//!
//! A read asks the pod's memory, then Redis, then Postgres. Every value carries `as_of`, the
//! head of the log in the snapshot it was read in, and is judged when it is served (`view`):
//!
//! - **The bound.** No cached answer misses a write that was committed more than
//!   [`STALENESS_MAX`] (2 s) before it was given, on any pod. Normally a change is applied
//!   within milliseconds of its commit; the bound is what holds when wake-ups are lost, the
//!   sequencer stands still or Postgres is away. A pod that cannot confirm that it is at the
//!   head serves nothing from its caches and reads the database.
//! - **A slow reader cannot put back a stale value.** What it read has an `as_of` before the
//!   change; every pod that has applied the change refuses it, wherever it was stored. In
//!   Redis a marker with the change's position refuses it too, which saves the others a read.
//! - **`FLUSHALL` loses nothing.** Values are read again. Markers are gone, so a slow reader
//!   may then store a stale value in Redis; pods still refuse to serve it, because they know
//!   the change from the log and not from Redis. A pod that starts then reads back the end
//!   of the log first, and refuses values from before the part that it has read.
//! - **Forgetting is safe.** The memory of changes is bounded; what is forgotten raises a
//!   floor below which values are refused (`changes`).

mod changes;
mod confirmation;
mod view;

#[cfg(test)]
mod interleavings;

mod metrics;
mod value;

mod cache;
mod follower;
mod shared;

pub mod documents;

pub use cache::{Cache, ReadValue, Reading};
pub use metrics::SyncMetrics;
pub use value::{Loaded, Tier};
pub use view::STALENESS_MAX;
