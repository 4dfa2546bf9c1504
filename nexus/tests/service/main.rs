//! Service tests: the real Nexus on a free port over real Postgres, Redis and `MongoDB`.
//! Each test has a schema, a Redis prefix and a Mongo database of its own. Run by `cargo xtask services -- cargo test
//! -p azora-nexus --features service-tests`.
#![cfg(feature = "service-tests")]

mod support;

mod access;
mod ahead;
mod audience;
mod caches;
mod chaos;
mod cloudevents_socket;
mod consumers;
mod consumers_bounds;
mod curl;
mod documents;
mod event_stream;
mod event_types;
mod health;
mod history;
mod hostile;
mod log_filter;
mod npm;
mod outage;
mod polling;
mod publish;
mod retention;
mod revocation;
mod rooms;
mod sequencer;
mod socket_io;
mod sql;
mod stream;
mod stream_bounds;
mod throttle;
mod traces;
mod users;
mod validation;
mod webhooks;
mod webhooks_bounds;
mod webhooks_places;
