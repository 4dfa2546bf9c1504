//! The clients of Postgres, Redis and `MongoDB`. All connect lazily: a store that is away never stops the process.

pub(crate) mod circuit;
mod migrations;
pub mod mongo;
pub mod postgres;
pub mod redis;
