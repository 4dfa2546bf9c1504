//! What the end-to-end tests need: a cluster with the operator in it and the images on its nodes.
//! The demo of `up` is no part of it; where it is there, the tests leave it alone.

use crate::ahead::Ahead;
use crate::cluster;
use crate::engine::{Engine, Weight};
use crate::{chart, images, store, tools};
use anyhow::Result;

/// A cluster that the tests can begin on.
pub(super) struct Prepared {
    engine: Engine,
    context: String,
}

/// Makes sure that all is there, beside other tests, which wait with deadlines. Each part takes what is there already,
/// so this costs seconds where nothing has changed.
pub(super) fn prepare(context: Option<&str>) -> Result<Prepared> {
    // What `up` does at the same time would be done twice, or undone.
    let _lock = store::lock("up")?;
    let engine = Engine::ready()?;
    engine.weigh_containers(Weight::One);
    let cluster = match context {
        Some(name) => cluster::named(name)?,
        None => cluster::ensure(&engine)?,
    };
    tools::helm()?;
    let images = images::build_all(&engine, Ahead::default())?;
    cluster.load(&images)?;
    chart::install(&cluster, &images)?;
    Ok(Prepared { engine, context: cluster.context().to_owned() })
}

impl Prepared {
    /// Lets the cluster come first from now on, and returns what its tests read from their environment.
    pub(super) fn begin(self) -> ((), Vec<(String, String)>) {
        self.engine.weigh_containers(Weight::Many);
        ((), vec![("AZORA_TEST_CONTEXT".to_owned(), self.context)])
    }
}
