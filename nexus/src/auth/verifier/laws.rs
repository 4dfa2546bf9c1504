//! The laws of verifying tokens: whatever a client may send, only what the issuer has signed is accepted. `cargo test`
//! tries a few hundred tokens; `PROPTEST_CASES` asks for more.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures::executor::block_on;
use jsonwebtoken::crypto;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::super::jwks;
use super::*;
use crate::damage::{damaged, damaged_text, damages, some_damages};

const SHARED_KEY: &str = "a key for the laws, of more than 32 bytes";
/// In the year 2100.
const LATER: u64 = 4_102_444_800;

/// A verifier, the key of its issuer, and what is public of that key.
struct Party {
    verifier: Verifier,
    key: EncodingKey,
    algorithm: Algorithm,
    public: Vec<u8>,
}

impl Party {
    fn by_shared_key() -> Self {
        let (key, algorithm) = (EncodingKey::from_secret(SHARED_KEY.as_bytes()), Algorithm::HS256);
        Self::new(Keys::Shared(Box::new(DecodingKey::from_secret(SHARED_KEY.as_bytes()))), key, algorithm, Vec::new())
    }

    fn by_published_keys() -> Self {
        // PKCS #8 of an Ed25519 key is this header and 32 secret bytes (RFC 8410).
        let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        der.extend([7; 32]);
        let key = EncodingKey::from_ed_der(&der);
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::EdDSA).expect("the key has a public half");
        jwk.common.key_id = Some("one".to_owned());
        let public =
            serde_json::to_value(&jwk).expect("a key is JSON")["x"].as_str().expect("it is a point").to_owned();
        let set = serde_json::to_vec(&JwkSet { keys: vec![jwk] }).expect("keys are JSON");
        let keys = jwks::keys(&set).expect("it is a set");
        Self::new(Keys::Published(KeySet::fetched(keys)), key, Algorithm::EdDSA, public.into_bytes())
    }

    fn new(keys: Keys, key: EncodingKey, algorithm: Algorithm, public: Vec<u8>) -> Self {
        let verifier = Verifier {
            keys,
            issuer: None,
            audience: None,
            token_seconds_max: None,
            revocations: Revocations::default(),
        };
        Self { verifier, key, algorithm, public }
    }

    fn both() -> &'static [Self; 2] {
        static BOTH: LazyLock<[Party; 2]> = LazyLock::new(|| [Party::by_shared_key(), Party::by_published_keys()]);
        &BOTH
    }

    fn read(&self, token: &str) -> Option<Claims> {
        // Another law's thread may look for a key just now. None is ever fetched: that would need a runtime.
        block_on(self.verifier.read(token)).ok()
    }

    /// A token that the issuer signs, with any text as its claims.
    fn signed(&self, claims: &str) -> String {
        let header = Header { kid: Some("one".to_owned()), ..Header::new(self.algorithm) };
        let header = serde_json::to_string(&header).expect("a header is JSON");
        signed(&header, claims, |message| crypto::sign(message, &self.key, self.algorithm).expect("the key can sign"))
    }
}

fn signed(header: &str, claims: &str, sign: impl FnOnce(&[u8]) -> String) -> String {
    let message = format!("{}.{}", encoded(header), encoded(claims));
    let signature = sign(message.as_bytes());
    format!("{message}.{signature}")
}

fn encoded(text: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

fn claims() -> Value {
    json!({"sub": "tester", "exp": LATER, "scope": "admin"})
}

/// The header of a forger.
fn header() -> impl Strategy<Value = Value> {
    let algorithms = ["none", "None", "NONE", "", "HS256", "HS384", "HS512", "RS256", "ES256", "EdDSA", "PS256"];
    let algorithm =
        prop_oneof![4 => select(algorithms.to_vec()).prop_map(Value::from), 1 => "\\PC{0,9}".prop_map(Value::from)];
    let members = [
        ("kid", json!("one")),
        ("kid", json!("../../../../dev/null")),
        ("kid", json!("' OR 1=1")),
        ("jwk", json!({"kty": "oct", "k": "AAAA", "alg": "HS256"})),
        ("jku", json!("http://127.0.0.1:9/keys")),
        ("x5u", json!("http://127.0.0.1:9/keys")),
        ("crit", json!(["exp"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
    ];
    (algorithm, prop::collection::vec(select(members.to_vec()), 0..4)).prop_map(|(algorithm, members)| {
        let mut header = json!({"typ": "JWT", "alg": algorithm});
        for (name, value) in members {
            header[name] = value;
        }
        header
    })
}

/// How a forger signs.
#[derive(Clone, Debug)]
enum Signature {
    None,
    Noise(Vec<u8>),
    /// By a secret of the forger's own.
    OwnSecret(Algorithm, Vec<u8>),
    /// By what is public of the issuer's key, as if it were a secret.
    PublicKey(Algorithm),
}

fn signature() -> impl Strategy<Value = Signature> {
    let hmac = || select(vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512]);
    prop_oneof![
        Just(Signature::None),
        prop::collection::vec(any::<u8>(), 0..70).prop_map(Signature::Noise),
        (hmac(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(hmac, key)| Signature::OwnSecret(hmac, key)),
        hmac().prop_map(Signature::PublicKey),
    ]
}

proptest! {
    #[test]
    fn no_text_is_a_token(text in "\\PC{0,90}|[A-Za-z0-9_-]{0,60}(\\.[A-Za-z0-9_-]{0,60}){0,4}") {
        for party in Party::both() {
            prop_assert_eq!(party.read(&text), None);
        }
    }

    #[test]
    fn a_token_of_which_anything_was_changed_is_refused(damages in some_damages()) {
        for party in Party::both() {
            let token = party.signed(&claims().to_string());
            let changed = damaged_text(&token, &damages);
            prop_assert_eq!(party.read(&changed).is_some(), changed == token, "{}", changed);
        }
    }

    #[test]
    fn a_forged_token_is_refused_however_it_is_signed(header in header(), signature in signature()) {
        for party in Party::both() {
            let sign = |message: &[u8]| match &signature {
                Signature::None => String::new(),
                Signature::Noise(noise) => BASE64_URL_SAFE_NO_PAD.encode(noise),
                Signature::OwnSecret(hmac, key) => hmac_by(*hmac, key, message),
                Signature::PublicKey(hmac) => hmac_by(*hmac, &party.public, message),
            };
            let token = signed(&header.to_string(), &claims().to_string(), sign);
            prop_assert_eq!(party.read(&token), None, "{}", token);
        }
    }

    #[test]
    fn claims_that_the_issuer_has_signed_are_refused_or_name_somebody_for_a_time(damages in damages()) {
        for party in Party::both() {
            let text = damaged_text(&claims().to_string(), &damages);
            match party.read(&party.signed(&text)) {
                Some(claims) => {
                    prop_assert!(!claims.sub.is_empty() && !claims.sub.contains(char::is_control), "{}", text);
                    prop_assert!(claims.exp > 1_700_000_000, "{}", text);
                }
                None => prop_assert!(!damages.is_empty()),
            }
        }
    }

    #[test]
    fn a_damaged_key_set_is_refused_or_has_only_keys_of_an_issuer(damages in damages(), secret in any::<bool>()) {
        let point = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let mut set = json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "x": point, "kid": "a", "alg": "EdDSA"},
            {"kty": "EC", "crv": "P-256", "kid": "b", "use": "sig",
                "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
            {"kty": "RSA", "n": "sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri23bOdgWp4Dy1Wl", "e": "AQAB", "kid": "c"},
        ]});
        if secret {
            set["keys"][1] = json!({"kty": "oct", "k": "AAAA", "kid": "b", "alg": "HS256"});
        }
        if let Ok(keys) = jwks::keys(&damaged(set.to_string().as_bytes(), &damages)) {
            prop_assert!(keys.len() + usize::from(secret) <= 3);
            let allowed = [Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256];
            prop_assert!(keys.iter().all(|key| allowed.contains(&key.algorithm)));
        }
    }
}

fn hmac_by(algorithm: Algorithm, key: &[u8], message: &[u8]) -> String {
    crypto::sign(message, &EncodingKey::from_secret(key), algorithm).expect("a secret can sign")
}
