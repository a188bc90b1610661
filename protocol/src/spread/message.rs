//! The frames that neighbours exchange, byte by byte: see `docs/spread.md`.

use crate::format::FormatError;
use crate::hash::{NamespaceId, RecordId};

/// Version of the frames that this code speaks.
pub const VERSION: u16 = 1;
/// Name of the protocol on a libp2p stream.
pub const PROTOCOL: &str = "/cairn/spread/1";

/// The first frame in each direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Lowest and highest version that the sender speaks.
    pub versions: (u16, u16),
    /// Version of the sender's data format, to be shown.
    pub format: u32,
    /// The program and its version, to be shown: `cairn/0.1.0`.
    pub agent: String,
    /// UDP ports at which the sender's blobs are served, at the address that it is reached at.
    pub blob_ports: Vec<u16>,
    /// Numbered fields that this version doesn't know, carried as they came.
    pub unknown: Vec<(u16, Vec<u8>)>,
}

/// A frame's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Who the sender is.
    Hello(Hello),
    /// Envelopes of records: pushed, or asked for.
    Records(Vec<Vec<u8>>),
    /// What the sender has of each namespace, a page of it; whether more pages follow.
    Summary(Vec<Scope>, bool),
    /// A round of negentropy over one namespace.
    Reconcile(NamespaceId, Vec<u8>),
    /// Ask for records by id.
    Want(Vec<RecordId>),
}

/// What one side has of a namespace, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// The namespace.
    pub namespace: NamespaceId,
    /// Records.
    pub count: u64,
    /// Of all their ids.
    pub fingerprint: [u8; 16],
}

impl Message {
    /// The one byte form of a frame's content, without its length.
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }

    /// Reads exactly what [`Self::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let _ = bytes;
        todo!()
    }
}

/// Packs envelopes into as few frames as their limit allows.
pub fn pack(envelopes: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let _ = envelopes.into_iter().count();
    todo!()
}
