//! The platform's records: users and their profiles. A write is one transaction that changes
//! the record and appends its event to the outbox; everything else follows the log.

pub mod new_user;
pub mod user;

pub mod idempotency;
pub mod load;
pub mod write;

pub use new_user::NewUser;
pub use user::{Profile, User};
pub use write::{WriteRecord, Written};
