//! What the end-to-end tests stand on: a cluster, a namespace per test, clients of each store, and waiting for values.
//! Must never know what a test asserts, and never sleep but inside [`wait`].
pub mod cluster;
pub mod trial;
pub mod wait;

pub mod layer;

pub mod exec;
pub mod node_port;
pub mod stores;

pub mod event;
pub mod nexus;
pub mod socket;
pub mod stream;

pub mod crash;
pub mod dump;
