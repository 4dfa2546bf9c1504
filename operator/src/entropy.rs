//! Randomness as plain data: drawn once at the edge, so that everything below can be pure and repeatable.

use sha2::{Digest as _, Sha256};

/// 256 random bits, from which a plan derives what it has to make up.
#[derive(Clone)]
pub struct Entropy([u8; 32]);

impl Entropy {
    /// From bits that the caller drew.
    pub fn new(bits: [u8; 32]) -> Self {
        Self(bits)
    }

    /// From the operating system.
    pub fn draw() -> Self {
        Self(rand::random())
    }

    /// A secret of 64 hexadecimal digits for `purpose`. Different purposes tell nothing of each other.
    pub fn secret(&self, purpose: &str) -> String {
        use std::fmt::Write as _;
        let digest = Sha256::new().chain_update(self.0).chain_update(purpose.as_bytes()).finalize();
        digest.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

impl std::fmt::Debug for Entropy {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Entropy(…)")
    }
}
