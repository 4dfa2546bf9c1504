//! The sessions of this pod whose clients poll, by the secret that their requests carry. It begins with the pod that
//! holds the session, so that any other pod finds that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use redis::AsyncTypedCommands as _;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::request::Refusal;
use crate::chain::Chain;
use crate::http::AppState;

/// Requests that wait until the task of their session looks at them. The protocol allows one poll, one push and one
/// upgrade at a time.
const WAITING_REQUESTS: usize = 4;

/// A request of a polling client, for the task of its session.
#[derive(Debug)]
pub(crate) enum Request {
    /// Answer once something is due.
    Poll(oneshot::Sender<Answer>),
    /// Take packets.
    Push(Bytes, oneshot::Sender<Answer>),
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
    by_sid: Arc<Mutex<HashMap<Box<str>, mpsc::Sender<Request>>>>,
}

impl Default for Sessions {
    fn default() -> Self {
        let mut pod = Uuid::new_v4().simple().to_string();
        pod.truncate(POD_CHARACTERS);
        Self { pod: pod.into(), by_sid: Arc::default() }
    }
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

    /// Tells the other pods at which address they find this one, until shutdown.
    pub(crate) async fn announce(self, address: String, state: AppState) {
        let pause = Duration::from_secs(ANNOUNCED_SECONDS / 3);
        loop {
            let mut redis = state.redis.clone();
            if let Err(error) = redis.set_ex(key(&state, &self.pod), &address, ANNOUNCED_SECONDS).await {
                tracing::debug!(error = %Chain(&error), "the other pods cannot be told where this one is");
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = state.stopping.cancelled() => break,
            }
        }
        // The address may soon be another one's.
        let _ = state.redis.clone().del(key(&state, &self.pod)).await;
    }

    /// The address of the pod that holds the session, if that is another one. Only where pods have said they are: nobody
    /// can make this one call another address.
    pub(crate) async fn holder(&self, state: &AppState, sid: &str) -> Option<String> {
        let pod = sid.get(..POD_CHARACTERS).filter(|pod| pod.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        if *pod == *self.pod {
            return None;
        }
        match state.redis.clone().get(key(state, pod)).await {
            Ok(address) => address,
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

fn key(state: &AppState, pod: &str) -> String {
    format!("{}pod:{pod}", state.config.redis_prefix)
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
