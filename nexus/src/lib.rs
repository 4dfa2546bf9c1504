//! Nexus: the records, the event bus, the caches and the real-time connections of an Azora data layer.
//! A write is one Postgres transaction; everything else follows the log by position.

pub mod config;
pub mod position;

mod chain;

pub mod event_types;
pub mod events;
pub mod log;
pub mod store;

pub mod auth;
pub mod logging;
pub mod metrics;
pub mod problem;
pub mod traces;

pub mod consumers;
pub mod realtime;
pub mod records;
pub mod sync;
pub mod throttle;
pub mod typescript;
pub mod unfinished;
pub mod webhooks;

pub mod command;
pub mod http;
pub mod serve;

#[cfg(test)]
mod damage;
