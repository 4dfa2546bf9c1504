//! Real-time connections: one session core, independent of the transport, under thin fronts.
//!
//! A session takes commands in and gives frames out. It follows the log like every other
//! follower: it holds a position per subscription, is woken when the head moves, and reads
//! what it is missing. Nothing is queued for a client beyond the stretch that is being sent,
//! so a slow client costs no memory: it streams from the log at its own pace, skips nothing,
//! and is live again when it has caught up.
//!
//! One task per connection, never one per event.

pub mod limits;

pub mod close;
pub mod command;
pub mod encode;
pub mod subscription;

mod delivery;
mod history;
mod requests;
pub mod session;

mod metrics;
pub mod socket;

pub use limits::Limits;
pub use metrics::StreamMetrics;
