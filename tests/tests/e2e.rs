//! The end-to-end tests of the whole line, on a real cluster. One module for each thing that must hold.
//! Run them with `cargo xtask test`; for one of them `cargo test -p azora-tests --test e2e NAME`.
mod examples;
mod promises;
mod publish;

mod chaos;
mod replicas;
mod wiped;

mod lifecycle;
mod operator_killed;
mod refusals;
mod steady;
