//! Signatures of Standard Webhooks 1.0: HMAC-SHA256 over `id.timestamp.body`, and the secrets for it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// By this a secret is known for what it is.
const PREFIX: &str = "whsec_";
/// Sizes that the specification allows, in bytes.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret that signs. It is shown once, to whoever made it.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(Vec<u8>);

/// A text that is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a secret is whsec_ and the base64 of 24 to 64 bytes")]
pub struct ParseSecret;

impl SigningSecret {
    /// A new one, of as many bytes as the digest has.
    pub fn generate() -> Self {
        Self(rand::random::<[u8; 32]>().to_vec())
    }

    /// The secret that these bytes are.
    pub fn of_bytes(bytes: Vec<u8>) -> Result<Self, ParseSecret> {
        if BYTES.contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(ParseSecret) }
    }

    /// The secret that somebody else has made.
    pub fn parse(text: &str) -> Result<Self, ParseSecret> {
        let encoded = text.strip_prefix(PREFIX).ok_or(ParseSecret)?;
        Self::of_bytes(STANDARD.decode(encoded).map_err(|_| ParseSecret)?)
    }

    /// The text that is shown once.
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&self.0))
    }

    /// The bytes, for the table.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The signature of a message that is sent at `timestamp`, in seconds since 1970.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of HMAC has any length");
        for part in [id.as_bytes(), b".", timestamp.to_string().as_bytes(), b".", body] {
            mac.update(part);
        }
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_the_specification() {
        let secret = SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_survives_its_text_and_is_never_printed() {
        let secret = SigningSecret::generate();
        assert_eq!(SigningSecret::parse(&secret.expose()).as_ref(), Ok(&secret));
        assert_ne!(SigningSecret::generate(), secret);
        assert_eq!(format!("{secret:?}"), "[secret]");
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        let of = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
        for (text, valid) in [
            (of(23), false),
            (of(24), true),
            (of(64), true),
            (of(65), false),
            (of(32)[6..].to_owned(), false),
            ("whsec_%%%".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(SigningSecret::parse(&text).is_ok(), valid, "{text}");
        }
    }
}
