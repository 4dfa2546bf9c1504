//! What may be published: the sixteen event types, their schemas, and the `CloudEvents` envelope around them.
//! Pure: no client, no clock, no environment.

pub mod audience;
pub mod registry;

pub mod cloud_event;
pub mod pattern;

pub mod education;
pub mod finance;
pub mod marketplace;
pub mod system;

pub use audience::Audience;
pub use cloud_event::{CloudEvent, Violation};
pub use pattern::Pattern;
pub use registry::{Definition, Domain, Payload, Publisher, Registry};

#[cfg(test)]
mod laws;
