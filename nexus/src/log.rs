//! The log: one dense order of all events, and the ways in and out of it.
//! Writers append to the outbox or publish to the sequencer, the sequencer stamps, every follower reads by position.

pub mod append;
pub mod event;
pub mod publisher;
mod queue;
pub(crate) mod sql;

mod ahead;
mod epoch;
pub mod partitions;
pub mod retention;
pub mod sequencer;
mod stamp;
pub mod wake;

mod pages;
pub mod read;
mod ring;
pub mod standing;
pub mod tail;
mod versions;

pub use append::{AppendEvents, Appended, append, append_all};
pub use event::{Entry, NewEvent};
pub use publisher::{Publish, Published, Publisher};
pub use read::{Batch, ReadLog};
pub use tail::Tail;
pub use versions::{FindVersion, Versions};
pub use wake::Wake;
