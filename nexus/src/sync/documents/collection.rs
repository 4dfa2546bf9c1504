//! The collection of profiles: what is stored, and the few operations on it.

use std::time::{Duration, Instant};

use mongodb::bson::{Bson, DateTime, Document, deserialize_from_bson, doc, serialize_to_bson};
use mongodb::error::{Error as MongoError, ErrorKind, WriteFailure};
use mongodb::options::ReturnDocument;
use mongodb::{Collection, Database};
use uuid::Uuid;

use crate::chain::Chain;
use crate::position::Position;
use crate::records::Profile;
use crate::store::circuit::Circuit;

/// Name of the collection.
const PROFILES: &str = "profiles";

/// Id of the document with the collection's position. No profile has it: their ids are UUIDs.
const POSITION_ID: &str = "position";

/// How long a lease lasts without being renewed, in seconds. Longer than a slow page of a
/// rebuild, short enough that a killed pod is soon followed by another.
const LEASE_SECONDS: i64 = 5;

/// How long a reader waits for `MongoDB` before it asks Postgres.
const READ_DEADLINE: Duration = Duration::from_millis(250);

/// `MongoDB` refuses a second document with one id.
const DUPLICATE_KEY: i32 = 11_000;

/// A profile, and the position it was read at.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileAt {
    /// The profile.
    pub profile: Profile,
    /// It holds every change up to here.
    pub as_of: Position,
}

/// Why the documents could not be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessDocuments {
    /// `MongoDB` did not do it.
    #[error("execute a command of MongoDB")]
    ExecuteCommand(#[source] MongoError),
    /// A profile could not be turned into a document, or back.
    #[error("convert a profile")]
    ConvertProfile(#[source] mongodb::bson::error::Error),
    /// The answer does not look as it should.
    #[error("read the answer of MongoDB")]
    ReadAnswer,
    /// The records could not be read.
    #[error("load records for documents")]
    LoadRecords(#[source] sqlx::Error),
    /// The log could not be read.
    #[error("read the log for documents")]
    ReadLog(#[source] crate::log::ReadLog),
}

/// Who may apply, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lease {
    /// Another pod has it.
    Elsewhere,
    /// This pod has it, and the collection has applied this position.
    Held(Position),
    /// This pod has it, and the collection has to be rebuilt.
    HeldEmpty,
}

/// The profiles in `MongoDB`; cheap to clone.
#[derive(Clone, Debug)]
pub struct Profiles {
    database: Database,
    circuit: std::sync::Arc<Circuit>,
}

impl Profiles {
    /// The collection in this database.
    pub fn new(database: Database) -> Self {
        Self { database, circuit: std::sync::Arc::default() }
    }

    /// The profile, if it is there and `MongoDB` answers in time. `as_of` is the later of
    /// the profile's own position and the collection's.
    pub async fn get(&self, id: Uuid) -> Option<ProfileAt> {
        if !self.circuit.allows(Instant::now()) {
            return None;
        }
        match tokio::time::timeout(READ_DEADLINE, self.find(id)).await {
            Ok(Ok(found)) => {
                self.circuit.succeeded();
                found
            }
            Ok(Err(error)) => {
                if self.circuit.failed(Instant::now()) {
                    tracing::warn!(error = %Chain(&error), "profiles are read from Postgres");
                }
                None
            }
            Err(_late) => {
                if self.circuit.failed(Instant::now()) {
                    tracing::warn!(reason = "no answer within the deadline", "profiles are read from Postgres");
                }
                None
            }
        }
    }

    async fn find(&self, id: Uuid) -> Result<Option<ProfileAt>, AccessDocuments> {
        let ids = doc! { "_id": { "$in": [id.to_string(), POSITION_ID] } };
        let mut found = self.collection().find(ids).await.map_err(AccessDocuments::ExecuteCommand)?;
        let (mut profile, mut collection) = (None, None);
        while found.advance().await.map_err(AccessDocuments::ExecuteCommand)? {
            let document = found.deserialize_current().map_err(AccessDocuments::ExecuteCommand)?;
            if document.get_str("_id").is_ok_and(|id| id == POSITION_ID) {
                collection = position_in(&document);
            } else {
                profile = Some(document);
            }
        }
        let (Some(mut document), Some(collection)) = (profile, collection) else {
            return Ok(None);
        };
        let own = position_in(&document).ok_or(AccessDocuments::ReadAnswer)?;
        let profile = document.remove("profile").ok_or(AccessDocuments::ReadAnswer)?;
        let profile = deserialize_from_bson(profile).map_err(AccessDocuments::ConvertProfile)?;
        Ok(Some(ProfileAt { profile, as_of: own.max(collection) }))
    }

    /// Takes or renews the lease for `owner`.
    pub(super) async fn lease(&self, owner: Uuid) -> Result<Lease, AccessDocuments> {
        let free = doc! { "_id": POSITION_ID, "$expr": { "$or": [
            { "$eq": ["$owner", owner.to_string()] },
            { "$lt": ["$leased_until", "$$NOW"] },
        ] } };
        let until = doc! { "$dateAdd": { "startDate": "$$NOW", "unit": "second", "amount": LEASE_SECONDS } };
        let take = vec![doc! { "$set": { "owner": owner.to_string(), "leased_until": until } }];
        let taken = self
            .collection()
            .find_one_and_update(free, take)
            .return_document(ReturnDocument::After)
            .await
            .map_err(AccessDocuments::ExecuteCommand)?;
        match taken {
            Some(document) => Ok(position_in(&document).map_or(Lease::HeldEmpty, Lease::Held)),
            None => self.found(owner).await,
        }
    }

    /// Makes the position's document, if there is none: a new collection, or a dropped one.
    async fn found(&self, owner: Uuid) -> Result<Lease, AccessDocuments> {
        let empty = doc! { "_id": POSITION_ID, "owner": owner.to_string(), "leased_until": DateTime::now() };
        match self.collection().insert_one(empty).await {
            Ok(_) => Ok(Lease::HeldEmpty),
            // It is there, so the lease is another pod's.
            Err(error) if is_duplicate_key(&error) => Ok(Lease::Elsewhere),
            Err(error) => Err(AccessDocuments::ExecuteCommand(error)),
        }
    }

    /// Notes that the collection has applied `position`. Returns whether `owner` still had
    /// the lease and the position was there to be moved, or was to be made.
    pub(super) async fn advance(
        &self,
        owner: Uuid,
        from: Option<Position>,
        position: Position,
    ) -> Result<bool, AccessDocuments> {
        let from = from.map_or(Bson::Null, position_of);
        // In a filter, null stands for a missing position.
        let mine = doc! { "_id": POSITION_ID, "owner": owner.to_string(), "position": from };
        let set = doc! { "$set": { "position": position_of(position) } };
        let moved = self.collection().update_one(mine, set).await.map_err(AccessDocuments::ExecuteCommand)?;
        Ok(moved.matched_count == 1)
    }

    /// Replaces each profile, unless the one that is there was read later.
    pub(super) async fn replace(&self, profiles: &[Profile], as_of: Position) -> Result<(), AccessDocuments> {
        if profiles.is_empty() {
            return Ok(());
        }
        let updates = profiles.iter().map(|profile| replacement(profile, as_of)).collect::<Result<Vec<_>, _>>()?;
        let command = doc! { "update": PROFILES, "updates": updates, "ordered": false };
        let answer = self.database.run_command(command).await.map_err(AccessDocuments::ExecuteCommand)?;
        // A write that failed inside the command is in its answer and not an error of it.
        if answer.contains_key("writeErrors") { Err(AccessDocuments::ReadAnswer) } else { Ok(()) }
    }

    fn collection(&self) -> Collection<Document> {
        self.database.collection(PROFILES)
    }
}

fn replacement(profile: &Profile, as_of: Position) -> Result<Document, AccessDocuments> {
    let id = profile.user_id.to_string();
    let body = serialize_to_bson(profile).map_err(AccessDocuments::ConvertProfile)?;
    let document = doc! { "_id": &id, "position": position_of(as_of), "profile": body };
    // A missing position compares as less than every number, so a new document is written.
    let older = doc! { "$or": [
        { "$lt": ["$position.epoch", as_of.epoch] },
        { "$and": [
            { "$eq": ["$position.epoch", as_of.epoch] },
            { "$lt": ["$position.seq", as_of.seq] },
        ] },
    ] };
    // `$literal`: what people wrote is never read as an expression.
    let choose = doc! { "$cond": { "if": older, "then": { "$literal": document }, "else": "$$ROOT" } };
    Ok(doc! { "q": { "_id": id }, "u": [ { "$replaceWith": choose } ], "upsert": true })
}

fn position_of(position: Position) -> Bson {
    Bson::Document(doc! { "epoch": position.epoch, "seq": position.seq })
}

fn position_in(document: &Document) -> Option<Position> {
    let position = document.get_document("position").ok()?;
    Some(Position { epoch: position.get_i32("epoch").ok()?, seq: position.get_i64("seq").ok()? })
}

fn is_duplicate_key(error: &MongoError) -> bool {
    match &*error.kind {
        ErrorKind::Command(error) => error.code == DUPLICATE_KEY,
        ErrorKind::Write(WriteFailure::WriteError(error)) => error.code == DUPLICATE_KEY,
        _ => false,
    }
}
