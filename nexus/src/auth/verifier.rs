//! Verifies tokens by a shared key or by the issuer's published keys. The algorithms are ours to choose, not the token's.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};

use super::claims::Claims;
use super::jwks::{FetchKeys, KeySet};
use super::revocations::Revocations;
use crate::config::{AuthConfig, Secret};

/// Shorter keys can be guessed (RFC 7518, section 3.2).
const HS256_KEY_BYTES_MIN: usize = 32;
/// How far the issuer's clock may differ from ours.
pub(super) const LEEWAY_SECONDS: u64 = 10;

/// Why no verifier can be made from the settings.
#[derive(Debug, thiserror::Error)]
pub enum PrepareVerifier {
    /// Neither way or both ways are set.
    #[error("set exactly one of NEXUS_AUTH_HS256_KEY and NEXUS_AUTH_JWKS_URL")]
    ChooseKeys,
    /// The shared key is too short.
    #[error("NEXUS_AUTH_HS256_KEY must have at least {HS256_KEY_BYTES_MIN} bytes")]
    CheckKeyLength,
    /// The client for the issuer's keys could not be made.
    #[error("prepare the client for the issuer's keys")]
    BuildClient(#[source] reqwest::Error),
    /// The token could not be signed.
    #[error("sign the token")]
    SignToken(#[source] jsonwebtoken::errors::Error),
}

/// Why a token is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum VerifyToken {
    /// The token is past its end.
    #[error("the token has expired")]
    Expired,
    /// What was revoked was not read yet.
    #[error("the revocations were not read yet")]
    AwaitRevocations,
    /// It was ended before its time.
    #[error("the token was revoked")]
    Revoked,
    /// Anything else; what exactly is no business of the caller's.
    #[error("the token is not valid")]
    Refuse,
    /// The issuer's keys are not known and cannot be had now.
    #[error("the issuer's keys cannot be fetched")]
    FetchKeys(#[source] FetchKeys),
}

/// Verifies tokens.
#[derive(Debug)]
pub struct Verifier {
    keys: Keys,
    issuer: Option<String>,
    audience: Option<String>,
    token_seconds_max: Option<u32>,
    revocations: Revocations,
}

#[derive(Debug)]
enum Keys {
    Shared(Box<DecodingKey>),
    Published(KeySet),
}

impl Verifier {
    /// A verifier by the settings.
    pub fn new(config: &AuthConfig) -> Result<Self, PrepareVerifier> {
        let keys = match (&config.hs256_key, &config.jwks_url) {
            (Some(key), None) => Keys::Shared(Box::new(DecodingKey::from_secret(checked(key)?))),
            (None, Some(url)) => Keys::Published(KeySet::new(url).map_err(PrepareVerifier::BuildClient)?),
            _ => return Err(PrepareVerifier::ChooseKeys),
        };
        Ok(Self {
            keys,
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            token_seconds_max: config.token_seconds_max,
            revocations: Revocations::of_tokens(config.token_seconds_max),
        })
    }

    /// What was revoked.
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// The claims of a token that is signed by the right key, in time, meant for us, and not revoked.
    pub async fn verify(&self, token: &str) -> Result<Claims, VerifyToken> {
        let claims = self.read(token).await?;
        self.check(&claims)?;
        Ok(claims)
    }

    /// Refuses a token that was good, if it was revoked since.
    pub fn check(&self, claims: &Claims) -> Result<(), VerifyToken> {
        if !self.revocations.is_loaded() {
            return Err(VerifyToken::AwaitRevocations);
        }
        if self.revocations.concern(claims) { Err(VerifyToken::Revoked) } else { Ok(()) }
    }

    async fn read(&self, token: &str) -> Result<Claims, VerifyToken> {
        match &self.keys {
            Keys::Shared(key) => self.decode(token, key, Algorithm::HS256),
            Keys::Published(set) => {
                // The header is not trusted: it only names which of the issuer's keys to try.
                let header = decode_header(token).map_err(|_| VerifyToken::Refuse)?;
                let key = set.find(header.kid.as_deref()).await.map_err(VerifyToken::FetchKeys)?;
                let key = key.ok_or(VerifyToken::Refuse)?;
                self.decode(token, &key.key, key.algorithm)
            }
        }
    }

    fn decode(&self, token: &str, key: &DecodingKey, algorithm: Algorithm) -> Result<Claims, VerifyToken> {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        let mut required = vec!["exp", "sub"];
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        match &self.audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                required.push("aud");
            }
            None => validation.validate_aud = false,
        }
        validation.set_required_spec_claims(&required);
        match decode::<Claims>(token, key, &validation) {
            Ok(token) if is_name(&token.claims.sub) && self.allows_life(&token.claims) => Ok(token.claims),
            Err(error) if matches!(error.kind(), ErrorKind::ExpiredSignature) => Err(VerifyToken::Expired),
            Ok(_) | Err(_) => Err(VerifyToken::Refuse),
        }
    }

    /// Whether the token lives no longer than one may, if that is bounded: one that outlived its revocation would count
    /// again.
    fn allows_life(&self, claims: &Claims) -> bool {
        self.token_seconds_max.is_none_or(|seconds_max| {
            claims.iat.is_some_and(|issued| claims.exp.saturating_sub(issued) <= u64::from(seconds_max))
        })
    }
}

/// Whether it may name somebody. It becomes a part of a room's name, and no room has a control character.
fn is_name(subject: &str) -> bool {
    !subject.is_empty() && !subject.contains(char::is_control)
}

/// Signs a token with the shared key, for development.
pub fn sign(key: &Secret, claims: &Claims) -> Result<String, PrepareVerifier> {
    let key = EncodingKey::from_secret(checked(key)?);
    encode(&Header::new(Algorithm::HS256), claims, &key).map_err(PrepareVerifier::SignToken)
}

fn checked(key: &Secret) -> Result<&[u8], PrepareVerifier> {
    let bytes = key.expose().as_bytes();
    if bytes.len() >= HS256_KEY_BYTES_MIN { Ok(bytes) } else { Err(PrepareVerifier::CheckKeyLength) }
}

#[cfg(test)]
mod laws;
