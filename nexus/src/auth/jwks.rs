//! The issuer's published keys: kept, renewed in time, and fetched again for an unknown key, but not at a caller's will.
//! A key that is not known yet is never taken for one that does not exist.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm};
use jsonwebtoken::{Algorithm, DecodingKey};
use tokio::sync::{Mutex, MutexGuard};

use crate::chain::Chain;

/// Keys older than this are fetched again, so that a withdrawn key stops working.
const FRESH_FOR: Duration = Duration::from_mins(10);
/// Least time between two fetches, whatever key ids tokens name: a caller cannot make us flood the issuer.
const FETCH_INTERVAL_MIN: Duration = Duration::from_secs(10);
/// How long a fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// Largest key set that is read, in bytes.
const SET_BYTES_MAX: usize = 256 * 1024;

/// Why the keys could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchKeys {
    /// The issuer did not answer, or not with a key set.
    #[error("fetch the issuer's key set")]
    GetSet(#[source] reqwest::Error),
    /// The answer is larger than any key set.
    #[error("the issuer's key set has more than {SET_BYTES_MAX} bytes")]
    LimitSet,
    /// The answer is no key set.
    #[error("read the issuer's key set")]
    ReadSet(#[source] serde_json::Error),
    /// The set was asked for a moment ago, and is not asked for again yet.
    #[error("the issuer's key set was asked for a moment ago")]
    Wait,
}

/// One key with the algorithm that it is for.
#[derive(Debug)]
pub(super) struct IssuerKey {
    id: Option<String>,
    pub(super) key: DecodingKey,
    pub(super) algorithm: Algorithm,
}

#[derive(Debug)]
pub(super) struct KeySet {
    url: String,
    client: reqwest::Client,
    known: RwLock<Known>,
    /// Held during a fetch: whoever needs an unknown key waits for it, whoever has a known one does not.
    fetching: Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    keys: Vec<Arc<IssuerKey>>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
}

impl KeySet {
    pub(super) fn new(url: &str) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder().timeout(FETCH_TIMEOUT).build()?;
        Ok(Self { url: url.to_owned(), client, known: RwLock::default(), fetching: Mutex::default() })
    }

    /// The key with this id; without an id the only key of the set. There is none only if the set was fetched for this.
    pub(super) async fn find(&self, id: Option<&str>) -> Result<Option<Arc<IssuerKey>>, FetchKeys> {
        if let Some(key) = self.look(|known| known.find(id)) {
            if self.look(Known::is_outdated)
                && let Ok(alone) = self.fetching.try_lock()
            {
                self.renew(&alone).await;
                return Ok(self.look(|known| known.find(id)));
            }
            return Ok(Some(key));
        }
        let alone = self.fetching.lock().await;
        // Another caller may have fetched it meanwhile.
        if let Some(key) = self.look(|known| known.find(id)) {
            return Ok(Some(key));
        }
        if !self.look(Known::may_fetch) {
            // The issuer may have published the key since: only a fetch of now can say that it is none.
            return Err(FetchKeys::Wait);
        }
        self.fetch_into(&alone).await?;
        Ok(self.look(|known| known.find(id)))
    }

    /// The issuer may be away: keys that were good a moment ago still are.
    async fn renew(&self, alone: &MutexGuard<'_, ()>) {
        if !self.look(Known::may_fetch) {
            return;
        }
        if let Err(error) = self.fetch_into(alone).await {
            tracing::warn!(error = %Chain(&error), "the issuer's keys were not renewed");
        }
    }

    async fn fetch_into(&self, _alone: &MutexGuard<'_, ()>) -> Result<(), FetchKeys> {
        self.change(|known| known.tried = Some(Instant::now()));
        let keys = self.fetch().await?;
        self.change(|known| {
            known.keys = keys;
            known.fetched = Some(Instant::now());
        });
        Ok(())
    }

    fn look<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.known.write().unwrap_or_else(PoisonError::into_inner));
    }

    async fn fetch(&self) -> Result<Vec<Arc<IssuerKey>>, FetchKeys> {
        let answer = self.client.get(&self.url).send().await.map_err(FetchKeys::GetSet)?;
        let mut answer = answer.error_for_status().map_err(FetchKeys::GetSet)?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(FetchKeys::GetSet)? {
            body.extend_from_slice(&chunk);
            if body.len() > SET_BYTES_MAX {
                return Err(FetchKeys::LimitSet);
            }
        }
        keys(&body)
    }
}

#[cfg(test)]
impl KeySet {
    /// Keys that need not be fetched again however long the test takes.
    pub(super) fn fetched(keys: Vec<Arc<IssuerKey>>) -> Self {
        let later = Some(Instant::now() + Duration::from_hours(24));
        let known = Known { keys, fetched: later, tried: later };
        Self { known: RwLock::new(known), ..Self::new("http://127.0.0.1:9").expect("a client can be made") }
    }
}

/// The keys of a set that can be used.
pub(super) fn keys(set: &[u8]) -> Result<Vec<Arc<IssuerKey>>, FetchKeys> {
    let set: JwkSet = serde_json::from_slice(set).map_err(FetchKeys::ReadSet)?;
    Ok(set.keys.iter().filter_map(usable).map(Arc::new).collect())
}

impl Known {
    fn is_outdated(&self) -> bool {
        self.fetched.is_none_or(|fetched| fetched.elapsed() > FRESH_FOR)
    }

    fn may_fetch(&self) -> bool {
        self.tried.is_none_or(|tried| tried.elapsed() > FETCH_INTERVAL_MIN)
    }

    fn find(&self, id: Option<&str>) -> Option<Arc<IssuerKey>> {
        match (id, self.keys.as_slice()) {
            (None, [only]) => Some(Arc::clone(only)),
            (None, _) => None,
            (Some(id), keys) => keys.iter().find(|key| key.id.as_deref() == Some(id)).cloned(),
        }
    }
}

/// Only keys for the three algorithms that we take; a shared secret in a public set is never one.
fn usable(jwk: &Jwk) -> Option<IssuerKey> {
    let algorithm = match (&jwk.algorithm, jwk.common.key_algorithm) {
        (AlgorithmParameters::RSA(_), None | Some(KeyAlgorithm::RS256)) => Algorithm::RS256,
        (AlgorithmParameters::EllipticCurve(curve), None | Some(KeyAlgorithm::ES256))
            if curve.curve == EllipticCurve::P256 =>
        {
            Algorithm::ES256
        }
        (AlgorithmParameters::OctetKeyPair(pair), None | Some(KeyAlgorithm::EdDSA))
            if pair.curve == EllipticCurve::Ed25519 =>
        {
            Algorithm::EdDSA
        }
        _ => return None,
    };
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some(IssuerKey { id: jwk.common.key_id.clone(), key, algorithm })
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use serde_json::{Value, json};
    use tokio::net::TcpListener;
    use tokio::sync::watch;

    use super::*;

    /// An issuer, and what knows its keys.
    struct Issuer {
        ids: watch::Sender<Vec<&'static str>>,
        set: KeySet,
    }

    impl Issuer {
        async fn start(ids: &[&'static str]) -> Self {
            let (ids, published) = watch::channel(ids.to_vec());
            let answer =
                get(async move || json!({"keys": published.borrow().iter().map(jwk).collect::<Value>()}).to_string());
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
            let url = format!("http://{}", listener.local_addr().expect("a listener has an address"));
            tokio::spawn(async move { axum::serve(listener, axum::Router::new().route("/", answer)).await });
            Self { ids, set: KeySet::new(&url).expect("a client can be made") }
        }

        fn publish(&self, ids: &[&'static str]) {
            self.ids.send_replace(ids.to_vec());
        }

        /// So much time passes for what is known.
        fn pass(&self, time: Duration) {
            let before =
                |instant: Option<Instant>| instant.map(|instant| instant.checked_sub(time).expect("it was then"));
            self.set.change(|known| (known.fetched, known.tried) = (before(known.fetched), before(known.tried)));
        }

        /// Whether there is such a key; nothing if that cannot be said yet.
        async fn has(&self, id: &str) -> Option<bool> {
            match self.set.find(Some(id)).await {
                Ok(key) => Some(key.is_some()),
                Err(FetchKeys::Wait) => None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn jwk(id: &&'static str) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
    }

    const PAUSE: Duration = FETCH_INTERVAL_MIN.saturating_add(Duration::from_millis(1));

    #[tokio::test]
    async fn a_new_key_is_known_after_the_pause_and_is_no_false_one_before() {
        let issuer = Issuer::start(&["first"]).await;
        assert_eq!(issuer.has("first").await, Some(true));
        issuer.publish(&["first", "second"]);
        assert_eq!(issuer.has("second").await, None);
        issuer.pass(PAUSE);
        assert_eq!(issuer.has("second").await, Some(true));
        // What it does not publish is none, once it was asked for that.
        assert_eq!(issuer.has("third").await, None);
        issuer.pass(PAUSE);
        assert_eq!((issuer.has("third").await, issuer.has("first").await), (Some(false), Some(true)));
    }

    #[tokio::test]
    async fn a_withdrawn_key_counts_until_the_keys_are_renewed_and_no_longer() {
        let issuer = Issuer::start(&["first", "second"]).await;
        assert_eq!(issuer.has("first").await, Some(true));
        issuer.publish(&["second"]);
        issuer.pass(FRESH_FOR.saturating_sub(PAUSE));
        assert_eq!(issuer.has("first").await, Some(true));
        issuer.pass(PAUSE * 2);
        assert_eq!((issuer.has("first").await, issuer.has("second").await), (Some(false), Some(true)));
        issuer.pass(PAUSE);
        assert_eq!(issuer.has("first").await, Some(false));
    }

    #[tokio::test]
    async fn keys_that_cannot_be_renewed_go_on() {
        let issuer = Issuer::start(&["first"]).await;
        assert_eq!(issuer.has("first").await, Some(true));
        let away = KeySet {
            known: std::mem::take(&mut *issuer.set.known.write().expect("nobody panicked")).into(),
            ..KeySet::fetched(Vec::new())
        };
        let issuer = Issuer { set: away, ..issuer };
        issuer.pass(FRESH_FOR + PAUSE);
        assert_eq!(issuer.has("first").await, Some(true));
        assert_eq!(issuer.has("second").await, None, "it was asked for a moment ago");
    }
}
