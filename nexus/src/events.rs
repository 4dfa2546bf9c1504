//! What may be published: the sixteen event types, their schemas, and the `CloudEvents` envelope around them.
//! Pure: no client, no clock, no environment.

pub mod audience;
pub mod registry;
pub mod version;

pub mod choice;

pub mod any;
pub mod cloud_event;
pub mod deployment;
pub(crate) mod own;
pub mod pattern;

pub mod education;
pub mod finance;
pub mod marketplace;
pub mod system;

#[cfg(test)]
mod compatibility;
#[cfg(test)]
pub(crate) mod parcel;

pub use any::{AnyEvent, AnyNewEvent};
pub use audience::Audience;
pub use choice::Choice;
pub use cloud_event::{CloudEvent, Violation};
pub use pattern::Pattern;
pub use registry::{Definition, Domain, Payload, Publisher, Registry};
pub use version::{Earlier, Version};

#[cfg(test)]
mod laws;
