//! The Socket.IO side of a connection: its packets in and out, and how a client that was away is known again, on any
//! pod. The commands are those of `/v1/stream`; each is an event of its name with one object, answered by the ack.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use redis::AsyncTypedCommands as _;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::auth::Auth;
use super::encode;
use super::offset::Offset;
use super::{Body, Event, MAIN, Packet};
use crate::chain::Chain;
use crate::log::Entry;
use crate::position::Position;
use crate::realtime::close::Close;
use crate::realtime::command::Command;
use crate::realtime::engine_io::{self, Handshake, MESSAGE};
use crate::realtime::feed::Feed;
use crate::realtime::session::{READ, Refusal, Session};
use crate::realtime::subscription::{Asked, Filter, Subscription};
use crate::realtime::transport::Transport;
use crate::realtime::wire::{text_head, text_message};

/// A client of this protocol.
#[derive(Debug, Default)]
pub(in crate::realtime) struct Client {
    /// The secret by which the client is known again; none before it has connected.
    pid: Option<Box<str>>,
    /// Where each subscription began, by its number.
    began: Vec<(u64, Position)>,
    /// Whether what is kept is not what the client follows, or may end before the client does.
    unkept: bool,
}

/// What is kept of a client in Redis while it may come back.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// Whose it is: a secret that was found out is of no use with another token.
    subject: String,
    /// How many subscriptions were made, so that no number is given twice.
    made: u64,
    subscriptions: Vec<KeptSubscription>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptSubscription {
    #[serde(flatten)]
    asked: Asked,
    #[serde(default)]
    versions: BTreeMap<String, u16>,
    number: u64,
    /// Where it began, for a client that has got no event since.
    began: Position,
}

impl Client {
    /// Appends what opens the session.
    pub(in crate::realtime) fn open(session: &Session, transport: &Transport, out: &mut Vec<u8>) {
        let heartbeat_ms = u32::try_from(session.limits.heartbeat.as_millis()).unwrap_or(u32::MAX);
        let own = secret();
        let (sid, upgrades): (&str, &[&str]) = match transport {
            Transport::Socket(_) => (&own, &[]),
            Transport::Polling(polling) => (polling.sid(), &["websocket"]),
        };
        let handshake = Handshake {
            sid,
            upgrades,
            ping_interval_ms: heartbeat_ms,
            ping_timeout_ms: heartbeat_ms,
            payload_bytes_max: session.limits.frame_bytes_max,
        };
        message(out, |out| handshake.append(out));
    }

    /// Appends the sign of life that asks for one.
    pub(in crate::realtime) fn ping(out: &mut Vec<u8>) {
        message(out, |out| engine_io::Packet::Ping("").append(out));
    }

    /// Takes one text message; appends what it leads to.
    pub(in crate::realtime) async fn receive(
        &mut self,
        feed: &mut Feed,
        text: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), Close> {
        match engine_io::Packet::read(text).map_err(|_| Close::InvalidPacket)? {
            engine_io::Packet::Message(data) => {
                match Packet::read(data) {
                    Ok(packet) => self.take(feed, packet, out).await,
                    Err(refused) => {
                        // The protocol has nothing but the end for it; a person who looks for the reason finds it.
                        let told = json!({ "error": { "code": "invalid_packet", "message": refused.to_string() } });
                        push(br#""error""#, told.to_string().as_bytes(), None, out);
                        Err(Close::InvalidPacket)
                    }
                }
            }
            engine_io::Packet::Ping(_) => Err(Close::InvalidPacket),
            // A pong is a sign of life, as everything is; the others mean nothing on a WebSocket.
            _ => Ok(()),
        }
    }

    async fn take(&mut self, feed: &mut Feed, packet: Packet<'_>, out: &mut Vec<u8>) -> Result<(), Close> {
        match packet.body {
            Body::Connect(_) if packet.namespace != MAIN => {
                packet_message(out, |out| encode::connect_error(packet.namespace, "Invalid namespace", None, out));
                Ok(())
            }
            // What is under way to a namespace that was refused.
            _ if packet.namespace != MAIN => Ok(()),
            Body::Connect(auth) if self.pid.is_none() => {
                self.connect(feed, auth, out).await;
                Ok(())
            }
            Body::Event(event) if self.pid.is_some() => self.execute(feed, event, out).await,
            Body::Ack(..) if self.pid.is_some() => Ok(()),
            Body::Disconnect => {
                self.disconnect(feed).await;
                Ok(())
            }
            Body::Connect(_) | Body::Event(_) | Body::Ack(..) => Err(Close::InvalidPacket),
        }
    }

    /// The token counts also when the client is known again: what is replayed is what it may see now.
    async fn connect(&mut self, feed: &mut Feed, auth: Auth, out: &mut Vec<u8>) {
        let session = &mut feed.session;
        let identified = match (session.admit().await, auth.token, &session.identity) {
            (Err(throttled), ..) => Err(throttled.into()),
            (Ok(()), Some(token), _) => session.authenticate(&token).await.map(drop),
            (Ok(()), None, Some(_)) => Ok(()),
            (Ok(()), None, None) => Err(Refusal::new("token_missing", "connect with `auth: { token }`")),
        };
        if let Err(refusal) = identified {
            let (message, mut data) = (refusal.message.clone(), refusal.told());
            if let Some(data) = data.as_object_mut() {
                data.remove("message");
            }
            return packet_message(out, |out| encode::connect_error(MAIN, &message, Some(&data), out));
        }
        let recovered = match &auth.pid {
            Some(pid) => self.recover(session, pid, auth.offset.as_deref()).await,
            None => false,
        };
        let pid = auth.pid.filter(|_| recovered).unwrap_or_else(secret);
        packet_message(out, |out| encode::connect(MAIN, &secret(), Some(&pid), out));
        self.pid = Some(pid.into_boxed_str());
        if recovered {
            feed.follow();
        }
    }

    /// Executes a command, and answers if the client asks for it; a refusal is told in any case.
    async fn execute(&mut self, feed: &mut Feed, event: Event<'_>, out: &mut Vec<u8>) -> Result<(), Close> {
        let outcome = match command(&event) {
            Ok(command) => feed.command(command, out).await,
            Err(message) => Err(feed.session.refuse("malformed_command", message).await),
        };
        if matches!(&*event.name, "subscribe" | "unsubscribe" | "join" | "leave" | "refresh") && outcome.is_ok() {
            self.keep(&feed.session).await;
            if self.unkept {
                Self::tell_unkept(&mut feed.session, out);
            }
        }
        let close = outcome.as_ref().err().and_then(|refusal| refusal.close);
        let answer = match outcome {
            Ok(result) => json!({ "result": result }),
            Err(refusal) => json!({ "error": refusal.told() }),
        };
        match event.id {
            Some(id) => packet_message(out, |out| encode::ack(MAIN, id, &[answer.to_string().as_bytes()], out)),
            None if answer.get("error").is_some() => {
                let told = json!({ "command": event.name, "error": answer["error"] });
                push(br#""error""#, told.to_string().as_bytes(), None, out);
            }
            None => {}
        }
        close.map_or(Ok(()), Err)
    }

    /// Keeps what the client follows, so that any pod can go on. Without Redis the client is simply not known again.
    async fn keep(&mut self, session: &Session) {
        let (Some(pid), Some(identity)) = (&self.pid, &session.identity) else { return };
        self.began.retain(|(number, _)| session.subscriptions.iter().any(|one| one.number == *number));
        for subscription in &session.subscriptions {
            if !self.began.iter().any(|(number, _)| *number == subscription.number) {
                self.began.push((subscription.number, subscription.position));
            }
        }
        let began = |number: u64| self.began.iter().find(|(one, _)| *one == number).map(|(_, began)| *began);
        let subscriptions = session.subscriptions.iter().map(|subscription| KeptSubscription {
            number: subscription.number,
            asked: subscription.filter.asked(),
            versions: subscription.filter.versions().asked(),
            began: began(subscription.number).unwrap_or(subscription.position),
        });
        let kept = Kept {
            subject: identity.claims.sub.clone(),
            made: session.subscriptions_made,
            subscriptions: subscriptions.collect(),
        };
        let text = serde_json::to_string(&kept).expect("text and numbers");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        // After its end the token opens nothing any more.
        let seconds = identity.claims.exp.saturating_sub(now).clamp(1, KEPT_SECONDS_MAX);
        let (mut redis, key) = (session.state.redis.clone(), key(session, pid));
        let mut kept = redis.set_ex(&key, &text, seconds).await;
        if kept.is_err() {
            // One answer that comes late, or a connection that has just ended, is no reason to alarm the client.
            kept = redis.set_ex(&key, &text, seconds).await;
        }
        self.unkept = kept.is_err();
        if let Err(error) = kept {
            tracing::debug!(error = %Chain(&error), "a client of Socket.IO could not be kept");
        }
    }

    /// Keeps what could not be kept before; asked at each heartbeat.
    pub(in crate::realtime) async fn keep_again(&mut self, session: &Session) {
        if self.unkept {
            self.keep(session).await;
        }
    }

    /// What Redis has of the client is older than what it follows now. The offset that comes with this names a subscription
    /// later than all that are kept: whoever hands it back is not taken for one that can go on with those.
    fn tell_unkept(session: &mut Session, out: &mut Vec<u8>) {
        session.subscriptions_made += 1;
        let offset = Offset::of(&session.subscriptions, session.subscriptions_made, session.position());
        let told = json!({ "message": "until Redis is back, this connection is not recovered when it is lost" });
        push(br#""not_kept""#, told.to_string().as_bytes(), Some(&offset.to_string()), out);
    }

    /// Goes on with the subscriptions that the client had; whether it could. What the log has dropped meanwhile is told as a
    /// gap, by the session.
    async fn recover(&mut self, session: &mut Session, pid: &str, offset: Option<&str>) -> bool {
        let Some(kept) = kept(session, pid).await else { return false };
        let subject = session.identity.as_ref().map(|identity| &*identity.claims.sub);
        if subject != Some(&*kept.subject) || session.claims(READ).is_err() {
            return false;
        }
        let Ok(offset) = offset.map(str::parse::<Offset>).transpose() else { return false };
        if offset.as_ref().is_some_and(|offset| offset.newest() > kept.made) {
            return false;
        }
        let mut starts = Vec::with_capacity(kept.subscriptions.len());
        let mut subscriptions = Vec::with_capacity(kept.subscriptions.len());
        for KeptSubscription { number, asked, versions, began } in kept.subscriptions {
            let Ok(filter) = Filter::read(&session.state.registry, asked) else { return false };
            let Ok(filter) = filter.in_versions(&versions) else { return false };
            // An offset of before the subscription was made says nothing about it.
            let after = offset.as_ref().and_then(|offset| offset.place(number)).unwrap_or(began);
            let Ok(position) = session.begin_at(Some(after)).await else { return false };
            subscriptions.push(Subscription { number, filter, position });
            starts.push((number, began));
        }
        if session.look_up_access().await.is_err() {
            return false;
        }
        let mut rooms = subscriptions.iter().filter_map(|subscription| subscription.filter.room());
        if !rooms.all(|room| session.access.is_in(room)) {
            return false;
        }
        self.began = starts;
        // For as long as the token that it has now.
        self.unkept = true;
        session.resume(subscriptions, kept.made);
        true
    }

    /// The client has left of its own will: it does not come back as the same.
    async fn disconnect(&mut self, feed: &mut Feed) {
        let Some(pid) = self.pid.take() else { return };
        self.unkept = false;
        let made = feed.session.subscriptions_made;
        feed.session.resume(Vec::new(), made);
        feed.follow();
        let mut redis = feed.session.state.redis.clone();
        if let Err(error) = redis.del(key(&feed.session, &pid)).await {
            tracing::debug!(error = %Chain(&error), "a client of Socket.IO could not be forgotten");
        }
    }
}

/// Longest that a client is kept after it was last heard of: the log forgets sooner or later what it would have missed.
const KEPT_SECONDS_MAX: u64 = 86_400;

async fn kept(session: &Session, pid: &str) -> Option<Kept> {
    let mut redis = session.state.redis.clone();
    // What a client calls its pid goes into the name of a key.
    let pid = Uuid::try_parse(pid).ok()?.simple().to_string();
    match redis.get(key(session, &pid)).await {
        Ok(text) => serde_json::from_str(&text?).ok(),
        Err(error) => {
            tracing::debug!(error = %Chain(&error), "a client of Socket.IO could not be looked up");
            None
        }
    }
}

fn key(session: &Session, pid: &str) -> String {
    format!("{}socket-io:{pid}", session.state.config.redis_prefix)
}

/// 122 random bits.
fn secret() -> String {
    Uuid::new_v4().simple().to_string()
}

/// The command that an event means.
fn command(event: &Event<'_>) -> Result<Command, String> {
    let members = match &*event.arguments {
        [] => serde_json::Map::new(),
        [members] => serde_json::from_str(members.get()).map_err(|_| "the argument is an object".to_owned())?,
        _ => return Err("a command has one argument, an object".to_owned()),
    };
    Command::parse(&event.name, members)
}

/// Appends an event of the log, whose JSON is `text`, under the name of its type.
pub(in crate::realtime) fn event(entry: &Entry, text: &[u8], offset: &Offset, out: &mut Vec<u8>) {
    // A type has no character that JSON escapes.
    let name = format!("\"{}\"", entry.event_type);
    push(name.as_bytes(), text, Some(&offset.to_string()), out);
}

/// Appends that the events after `from` up to `to` are gone. Without an offset: the next event has one.
pub(in crate::realtime) fn gap(subscription: &str, from: Position, to: Position, out: &mut Vec<u8>) {
    let told = json!({ "subscription": subscription, "from": from, "to": to });
    push(br#""gap""#, told.to_string().as_bytes(), None, out);
}

/// Appends an event for the client as the WebSocket message that it goes out in. `name` and `argument` are JSON; a client
/// takes any text at the end for an offset.
fn push(name: &[u8], argument: &[u8], offset: Option<&str>, out: &mut Vec<u8>) {
    let event = encode::Event { namespace: MAIN, arguments: &[name, argument], offset };
    text_head(1 + event.bytes(), out);
    out.push(MESSAGE);
    event.append(out);
}

/// Appends a text message.
fn message(out: &mut Vec<u8>, append: impl FnOnce(&mut Vec<u8>)) {
    let mut packet = Vec::new();
    append(&mut packet);
    text_message(str::from_utf8(&packet).expect("packets are text"), out);
}

fn packet_message(out: &mut Vec<u8>, append: impl FnOnce(&mut Vec<u8>)) {
    message(out, |out| {
        out.push(MESSAGE);
        append(out);
    });
}
