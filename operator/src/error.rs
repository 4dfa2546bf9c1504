//! Why a visit failed. Each variant is what was tried; the cause stays in `source`.

use crate::component::{mongo, postgres};

type KubeError = Box<kube::Error>;

/// Why a visit failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The resource could not be read.
    #[error("cannot read the data layer {name}")]
    ReadLayer {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        cause: KubeError,
    },
    /// Our objects of a kind could not be listed.
    #[error("cannot list objects of kind {kind}")]
    ListObjects {
        /// The kind.
        kind: String,
        /// Why.
        #[source]
        cause: KubeError,
    },
    /// The credentials could not be read.
    #[error("cannot read the Secret {name}")]
    ReadCredentials {
        /// The Secret's name.
        name: String,
        /// Why.
        #[source]
        cause: KubeError,
    },
    /// The user's event types could not be read.
    #[error("cannot read the ConfigMap {name}")]
    ReadEventTypes {
        /// The ConfigMap's name.
        name: String,
        /// Why.
        #[source]
        cause: KubeError,
    },
    /// The credentials could not be stored.
    #[error("cannot store the Secret {name}")]
    StoreCredentials {
        /// The Secret's name.
        name: String,
        /// Why.
        #[source]
        cause: KubeError,
    },
    /// An object was not accepted.
    #[error("cannot apply {kind} {name}")]
    ApplyObject {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        cause: KubeError,
    },
    /// An object could not be removed.
    #[error("cannot delete {kind} {name}")]
    DeleteObject {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        cause: KubeError,
    },
    /// The finalizer could not be set or taken off.
    #[error("cannot change the finalizers of the data layer")]
    ChangeFinalizers {
        /// Why.
        #[source]
        cause: KubeError,
    },
    /// A change inside Postgres failed.
    #[error("cannot carry out {step:?} in Postgres")]
    ChangePostgres {
        /// What was tried.
        step: postgres::database::Step,
        /// Why.
        #[source]
        cause: sqlx::Error,
    },
    /// A change inside `MongoDB` failed.
    #[error("cannot carry out {step:?} in MongoDB")]
    ChangeMongo {
        /// What was tried.
        step: mongo::database::Step,
        /// Why.
        #[source]
        cause: Box<mongodb::error::Error>,
    },
    /// The status could not be published.
    #[error("cannot publish the status")]
    PublishStatus {
        /// Why.
        #[source]
        cause: KubeError,
    },
}

impl Error {
    /// The same word in the metric, the Event and the condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::ReadLayer { .. } => "ReadLayer",
            Self::ListObjects { .. } => "ListObjects",
            Self::ReadCredentials { .. } => "ReadCredentials",
            Self::ReadEventTypes { .. } => "ReadEventTypes",
            Self::StoreCredentials { .. } => "StoreCredentials",
            Self::ApplyObject { .. } => "ApplyObject",
            Self::DeleteObject { .. } => "DeleteObject",
            Self::ChangeFinalizers { .. } => "ChangeFinalizers",
            Self::ChangePostgres { .. } => "ChangePostgres",
            Self::ChangeMongo { .. } => "ChangeMongo",
            Self::PublishStatus { .. } => "PublishStatus",
        }
    }

    /// The error with its causes, on one line.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// An error with its causes, on one line: the log's JSON form would keep only the outermost.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
