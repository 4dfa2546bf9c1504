//! Real-time connections: one session core, independent of the transport, under thin fronts.
//!
//! A session takes commands in and gives frames out, and holds a position per subscription.
//! While it is live, the hub brings it the entries that it may want, into an inbox that is
//! bounded. A session that is behind, because its client was away or takes too little, reads
//! the log at the client's pace, skips nothing, and is live again when it has caught up.
//!
//! One task per connection, never one per event.

pub mod limits;

pub mod close;
pub mod command;
pub mod encode;
pub mod engine_io;
pub mod socket_io;
pub mod subscription;

mod delivery;
mod feed;
mod history;
mod requests;
pub(crate) mod rooms;
pub mod session;

mod hub;
mod inbox;
pub mod presence;

pub mod event_stream;
mod metrics;
pub mod socket;
pub mod transport;
mod wire;

pub use engine_io::sessions::Sessions;
pub use hub::Hub;
pub use limits::Limits;
pub use metrics::{Counted, StreamMetrics};
pub use presence::Presence;
