//! Who calls: tokens, their claims and scopes. A token's content is trusted only after its signature.

pub mod access;
pub mod caller;
pub mod claims;
mod jwks;
pub mod revocations;
pub mod verifier;

pub use access::Access;
pub use caller::{
    Admin, Caller, ConsumersWrite, EventsRead, EventsReadOwn, EventsWrite, EventsWriteOwn, Scope, UsersRead,
    UsersWrite, WebhooksWrite,
};
pub use claims::Claims;
pub use jwks::FetchKeys;
pub use revocations::Revocations;
pub use verifier::{PrepareVerifier, Verifier, VerifyToken, sign};
