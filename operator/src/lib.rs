//! The Azora operator: turns an `AzoraDataLayer` into running Postgres, `MongoDB`, Redis and Nexus.
//! A library so that tests use the same types; `main` only parses arguments and calls.

pub mod api;
pub mod layer;
pub mod settings;
