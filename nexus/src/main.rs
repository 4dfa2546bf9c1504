//! nexus
fn main() {}
