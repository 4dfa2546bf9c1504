//! Placeholder crate root; each part fills it.
