//! Documents in `MongoDB` that follow the log: the profiles.
//!
//! The collection keeps its own position, in a document beside the profiles, so neither can
//! be lost without the other. Where the position is missing (dropped, restored from
//! nothing, never made), is of another epoch, or lies before what retention has kept, the
//! collection is rebuilt from the records in Postgres: page by page, each page with the head
//! of its own snapshot, then following from the head of the first page.
//!
//! A change is applied by reading the record as it is now, not by replaying the event: the
//! record is the truth, the event tells which one to look at. Each profile carries the
//! position it was read at, and is replaced only by one read later. So any number of
//! appliers, in any order, and a repeated stretch of the log end in the same documents. A
//! lease in the position's document keeps it to one applier at a time, which saves work and
//! is not what correctness rests on.

mod collection;
mod follower;

pub use collection::{AccessDocuments, ProfileAt, Profiles};
pub use follower::follow;
