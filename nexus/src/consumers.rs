//! Durable consumers: what the log holds is handed to each at least once, by whichever pod is asked.
//! Nothing here is kept in a pod: a consumer is a row, and what it has not acknowledged are rows.
//!
//! An entry of the log becomes a delivery (`fill`), a delivery is leased, and then acknowledged, or leased again, or a
//! dead letter (`lease`, `dead_letters`). Webhooks are consumers for which Nexus leases and acknowledges itself.

pub mod store;

pub mod fill;
pub mod lease;

pub mod dead_letters;
pub mod delivery;

pub mod follow;
pub mod metrics;

mod types;

pub use delivery::{Content, Delivery};
pub use metrics::DeliveryMetrics;
pub use store::{Consumer, Standing};
