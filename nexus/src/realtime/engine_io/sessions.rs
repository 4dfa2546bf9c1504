//! The sessions of this pod whose clients poll, by the secret that their requests carry. It begins with the pod that
//! holds the session, so that any other pod finds that. Pods say in Redis where they are and by which secret they know
//! each other; no client is told either.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use redis::AsyncTypedCommands as _;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::request::Refusal;
use crate::chain::Chain;
use crate::config::Secret;
use crate::http::AppState;
use crate::unfinished::Share;

/// Requests that wait until the task of their session looks at them. The protocol allows one poll, one push and one
/// upgrade at a time.
const WAITING_REQUESTS: usize = 4;

/// A request of a polling client, for the task of its session.
#[derive(Debug)]
pub(crate) enum Request {
    /// Answer once something is due.
    Poll(oneshot::Sender<Answer>),
    /// Take packets; the memory for them is held until then.
    Push(Vec<u8>, Share, oneshot::Sender<Answer>),
    /// Move to this WebSocket, on which the bytes came already.
    Upgrade(TcpStream, Bytes),
}

/// What a request is answered with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Packets.
    Payload(Vec<u8>),
    /// The packets were taken.
    Taken,
    /// More than a request may carry.
    TooLarge,
    /// It is refused.
    Refused(Refusal),
}

/// How long a pod is found that does not say any more where it is, in seconds.
const ANNOUNCED_SECONDS: u64 = 15;

/// Characters of a pod's name.
const POD_CHARACTERS: usize = 8;

/// The sessions of this pod; cheap to clone.
#[derive(Clone, Debug)]
pub struct Sessions {
    /// The name of this pod among the others, made up at start.
    pod: Arc<str>,
    /// What other pods show when they hand a request on to this one, made up at start too: 122 random bits.
    secret: Arc<Secret>,
    by_sid: Arc<Mutex<HashMap<Box<str>, mpsc::Sender<Request>>>>,
}

impl Default for Sessions {
    fn default() -> Self {
        let mut pod = Uuid::new_v4().simple().to_string();
        pod.truncate(POD_CHARACTERS);
        let secret = Secret::from(&*Uuid::new_v4().simple().to_string());
        Self { pod: pod.into(), secret: secret.into(), by_sid: Arc::default() }
    }
}

/// Another pod, as it has told the others.
#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) address: String,
    /// A pod of the version before says none.
    pub(crate) secret: Option<Secret>,
}

/// A session in the list, until this is dropped.
#[derive(Debug)]
pub(crate) struct Listed {
    sessions: Sessions,
    sid: Box<str>,
    requests: mpsc::Receiver<Request>,
}

impl Sessions {
    /// The name of this pod among the others, made up at start.
    pub(crate) fn pod(&self) -> &str {
        &self.pod
    }

    /// Lists a new session.
    pub(crate) fn open(&self) -> Listed {
        let (sender, requests) = mpsc::channel(WAITING_REQUESTS);
        let sid = format!("{}{}", self.pod, Uuid::new_v4().simple()).into_boxed_str();
        self.by_sid().insert(sid.clone(), sender);
        Listed { sessions: self.clone(), sid, requests }
    }

    /// The way to the session.
    pub(crate) fn get(&self, sid: &str) -> Option<mpsc::Sender<Request>> {
        self.by_sid().get(sid).cloned()
    }

    /// Whether this is the secret of this pod. Digests are compared, so the time that it takes tells nothing of it.
    pub(crate) fn is_secret(&self, shown: &[u8]) -> bool {
        Sha256::digest(shown) == Sha256::digest(self.secret.expose())
    }

    /// Tells the other pods at which address they find this one, until shutdown.
    pub(crate) async fn announce(self, address: String, state: AppState) {
        let pause = Duration::from_secs(ANNOUNCED_SECONDS / 3);
        let (at, by) = (address_key(&state, &self.pod), secret_key(&state, &self.pod));
        loop {
            let mut both = redis::pipe();
            both.set_ex(&at, &address, ANNOUNCED_SECONDS).set_ex(&by, self.secret.expose(), ANNOUNCED_SECONDS);
            if let Err(error) = both.exec_async(&mut state.redis.clone()).await {
                tracing::debug!(error = %Chain(&error), "the other pods cannot be told where this one is");
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = state.stopping.cancelled() => break,
            }
        }
        // The address may soon be another one's.
        let _ = state.redis.clone().del(&[at, by]).await;
    }

    /// The pod that holds the session, if that is another one. Only where pods have said they are: nobody can make this
    /// one call another address.
    pub(crate) async fn holder(&self, state: &AppState, sid: &str) -> Option<Holder> {
        let pod = sid.get(..POD_CHARACTERS).filter(|pod| pod.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        if *pod == *self.pod {
            return None;
        }
        match state.redis.clone().mget(&[address_key(state, pod), secret_key(state, pod)]).await {
            Ok(told) => {
                let mut told = told.into_iter();
                let address = told.next()??;
                Some(Holder { address, secret: told.next().flatten().as_deref().map(Secret::from) })
            }
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "another pod could not be looked up");
                None
            }
        }
    }

    fn by_sid(&self) -> MutexGuard<'_, HashMap<Box<str>, mpsc::Sender<Request>>> {
        self.by_sid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn address_key(state: &AppState, pod: &str) -> String {
    format!("{}pod:{pod}", state.config.redis_prefix)
}

/// Beside the address, which pods of the version before take as all that is there.
fn secret_key(state: &AppState, pod: &str) -> String {
    format!("{}pod:{pod}:secret", state.config.redis_prefix)
}

impl Listed {
    /// The secret by which the client's requests find the session.
    pub(crate) fn sid(&self) -> &str {
        &self.sid
    }

    /// What the client asks for.
    pub(super) fn requests(&mut self) -> &mut mpsc::Receiver<Request> {
        &mut self.requests
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.sessions.by_sid().remove(&self.sid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_knows_its_own_secret_and_no_other() {
        let (one, two) = (Sessions::default(), Sessions::default());
        let secret = one.secret.expose();
        assert!(one.is_secret(secret.as_bytes()) && one.clone().is_secret(secret.as_bytes()));
        for other in [two.secret.expose(), "", "1", &secret[1..], &one.pod] {
            assert!(!one.is_secret(other.as_bytes()), "{other}");
        }
    }
}
