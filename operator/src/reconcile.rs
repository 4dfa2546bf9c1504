//! One visit: observe, plan, apply, status. Only `observe` reads the cluster; only `apply` and the publishing of the
//! status write; `plan` and `status` are pure.

pub mod apply;
pub mod objects;
pub mod observe;
pub mod plan;
pub mod publish;
pub mod removal;
pub mod status;
