//! Webhooks: events pushed to addresses that callers name, signed as Standard Webhooks 1.0 says. Nothing is ever sent to
//! an address that is not public, unless the settings allow it.
//!
//! A webhook is a consumer with an order per subject. Every pod takes what is due (`push`), tries it (`attempt`), and
//! settles it; a pod that vanishes in between leaves a lease that ends. No webhook takes the places of the others (`places`).

pub mod store;

pub mod push;

mod places;

mod attempt;
pub mod message;

pub mod address;
pub mod signature;

pub(crate) use attempt::Outcome;
pub use attempt::Receivers;
pub use message::Message;
pub use signature::SigningSecret;
pub use store::Webhook;
