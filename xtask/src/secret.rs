//! Random words for keys and passwords of what runs on this machine only.

use anyhow::{Context as _, Result};
use std::fs::File;
use std::io::Read as _;

/// A random word: 32 hexadecimal digits, from 128 bits of the kernel's randomness.
pub fn word() -> Result<String> {
    let mut bytes = [0_u8; 16];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("read /dev/urandom")?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_word_is_long_enough_for_a_signing_key_and_never_the_same() {
        let (one, other) = (super::word().expect("randomness"), super::word().expect("randomness"));
        assert_eq!(one.len(), 32, "HS256 wants at least 32 bytes");
        assert_ne!(one, other);
    }
}
