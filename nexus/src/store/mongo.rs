//! `MongoDB`: the client, with deadlines; it connects in the background and comes back by itself.

use std::time::Duration;

use mongodb::options::ClientOptions;
use mongodb::{Client, Database};

use crate::config::Secret;

/// How long an operation waits for a primary: followers try again, readers have the database to go to.
const SELECTION_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a new connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Most connections; the documents are written by one follower and read by few.
const CONNECTIONS_MAX: u32 = 8;
/// The database when the URL names none.
const DATABASE: &str = "azora";

/// Why the client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PrepareMongo {
    /// The URL is not one of `MongoDB`.
    #[error("read the MongoDB URL")]
    ReadUrl(#[source] mongodb::error::Error),
}

/// The database that the URL names.
pub async fn database(url: &Secret) -> Result<Database, PrepareMongo> {
    let mut options = ClientOptions::parse(url.expose()).await.map_err(PrepareMongo::ReadUrl)?;
    options.app_name = Some("nexus".to_owned());
    options.server_selection_timeout = Some(SELECTION_TIMEOUT);
    options.connect_timeout = Some(CONNECT_TIMEOUT);
    options.max_pool_size = Some(CONNECTIONS_MAX);
    let client = Client::with_options(options).map_err(PrepareMongo::ReadUrl)?;
    Ok(client.default_database().unwrap_or_else(|| client.database(DATABASE)))
}
