//! How a result came about: whose time stamps, and which socket.

use std::sync::Arc;

use mplane::message::BuildError;
use mplane::primitive::Value;
use mplane::registry::{Element, Registries};

use crate::ping::Summary;
use crate::socket::SocketKind;

/// The elements that say how a result came about.
#[derive(Clone)]
pub(super) struct Metadata {
    timestamp_source: Arc<Element>,
    socket_kind: Arc<Element>,
}

impl Metadata {
    /// Finds the elements, for statements of a registry.
    pub(super) fn new(
        registry: &str,
        registries: &Registries,
    ) -> Result<Self, BuildError> {
        let element = |name| {
            registries.element(registry, name).map(Arc::clone).map_err(BuildError::from)
        };
        Ok(Self {
            timestamp_source: element("timestamp.source")?,
            socket_kind: element("socket.kind")?,
        })
    }

    /// Says how the result of a run came about. Nobody took stamps where nothing came back.
    pub(super) fn of(
        &self,
        summary: &Summary,
        socket: SocketKind,
    ) -> Vec<(Arc<Element>, Option<Value>)> {
        let stamps = match (summary.kernel_stamped, summary.user_stamped) {
            (0, 0) => None,
            (_, 0) => Some("kernel"),
            (0, _) => Some("user"),
            _ => Some("mixed"),
        };
        let text = |text: &str| Value::String(text.into());
        vec![
            (Arc::clone(&self.timestamp_source), stamps.map(text)),
            (Arc::clone(&self.socket_kind), Some(text(&socket.to_string()))),
        ]
    }
}
