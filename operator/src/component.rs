//! The parts of a data layer, each in one shape: `desired` (pure) gives its objects, `observe` asks the running
//! thing, `health` (pure) judges. This file holds what their pods have in common.

pub mod binding;
pub mod mongo;
pub mod network;
pub mod nexus;
pub mod pod;
pub mod postgres;
pub mod redis;

use crate::layer::Layer;
use crate::names::{self, Component};
use kube::api::ObjectMeta;

/// Metadata of an object of a component: its name, namespace, labels and owner.
pub(crate) fn metadata(layer: &Layer, component: Component, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(layer.namespace.clone()),
        labels: Some(names::labels(layer, component)),
        owner_references: Some(vec![layer.owner()]),
        ..ObjectMeta::default()
    }
}
