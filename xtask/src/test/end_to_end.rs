//! What the end-to-end tests need: a cluster with the operator in it and the images on its nodes.
//! The demo of `up` is no part of it; where it is there, the tests leave it alone.

use crate::ahead::Ahead;
use crate::cluster;
use crate::engine::Engine;
use crate::{chart, images, store, tools};
use anyhow::Result;

/// Makes sure that all is there, and returns what the tests read from their environment.
/// Each part takes what is there already, so this costs seconds where nothing has changed.
pub(super) fn prepare(context: Option<&str>) -> Result<((), Vec<(String, String)>)> {
    // What `up` does at the same time would be done twice, or undone.
    let _lock = store::lock("up")?;
    let engine = Engine::ready()?;
    let cluster = match context {
        Some(name) => cluster::named(name)?,
        None => cluster::ensure(&engine)?,
    };
    tools::helm()?;
    let images = images::build_all(&engine, Ahead::default())?;
    cluster.load(&images)?;
    chart::install(&cluster, &images)?;
    Ok(((), vec![("AZORA_TEST_CONTEXT".to_owned(), cluster.context().to_owned())]))
}
