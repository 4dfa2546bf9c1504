//! The Azora operator: turns an `AzoraDataLayer` into running Postgres, `MongoDB`, Redis and Nexus.
//! A library so that tests use the same types; `main` only parses arguments and calls.

pub mod answer;
pub mod api;
pub mod component;
pub mod context;
pub mod controller;
pub mod credentials;
pub mod endpoints;
pub mod entropy;
pub mod error;
mod http;
pub mod layer;
pub mod lease;
pub mod metrics;
pub mod names;
pub mod reconcile;
pub mod settings;
