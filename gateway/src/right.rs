//! Links that carry their own right: a MAC over what may be done, by whom, to what, and until when.
//!
//! Clients send uploads to the links that they were given, without their token. The seal is keyed BLAKE3 with
//! a key that follows from the node's, so that links outlive a restart; they are never logged.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cairn_node::Node;
use cairn_node::accounts::AccountId;
use cairn_protocol::hash::{RepositoryId, Sha256};

use crate::error::ApiError;

/// Seconds for which a link is good.
pub(crate) const RIGHT_S: u64 = 6 * 60 * 60;
/// Bytes of a seal.
const SEAL_BYTES: usize = 32;

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Send a whole file.
    Put = 1,
    /// Send a part of a file.
    PutPart = 2,
    /// Say that all parts were sent.
    Complete = 3,
}

/// A right to do one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Right {
    pub(crate) deed: Deed,
    pub(crate) sha256: Sha256,
    pub(crate) size: u64,
    /// Which part of the file, from 1; 0 for the whole.
    pub(crate) part: u32,
    pub(crate) repository: RepositoryId,
    pub(crate) account: AccountId,
    /// Seconds since the Unix epoch.
    pub(crate) end: u64,
}

impl Right {
    /// The right as a query of its link.
    pub(crate) fn seal(&self, node: &Node) -> String {
        let text = URL_SAFE_NO_PAD.encode(self.mac(node).as_bytes());
        format!(
            "?size={}&part={}&repository={}&account={}&end={}&seal={text}",
            self.size, self.part, self.repository, self.account, self.end
        )
    }

    /// Reads the right to something from its link's query.
    ///
    /// # Errors
    /// 403 where the seal is not ours, is of something else, or its time is over.
    pub(crate) fn open(
        node: &Node,
        deed: Deed,
        sha256: Sha256,
        query: &crate::url::Pairs,
        now_s: u64,
    ) -> Result<Self, ApiError> {
        let refused = || ApiError::forbidden("This link is not valid, or its time is over");
        fn member<T: std::str::FromStr>(query: &crate::url::Pairs, name: &str) -> Option<T> {
            query.first(name)?.parse().ok()
        }
        let read = || {
            Some(Self {
                deed,
                sha256,
                size: member(query, "size")?,
                part: member(query, "part")?,
                repository: member(query, "repository")?,
                account: member(query, "account")?,
                end: member(query, "end")?,
            })
        };
        let right = read().ok_or_else(refused)?;
        let seal = query
            .first("seal")
            .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
            .and_then(|bytes| <[u8; SEAL_BYTES]>::try_from(bytes).ok())
            .ok_or_else(refused)?;
        // `blake3::Hash` compares in constant time.
        if right.mac(node) != blake3::Hash::from_bytes(seal) || right.end <= now_s {
            return Err(refused());
        }
        Ok(right)
    }

    fn mac(&self, node: &Node) -> blake3::Hash {
        let mut mac = blake3::Hasher::new_keyed(&node.link_key());
        mac.update(&[self.deed as u8]);
        mac.update(self.sha256.as_bytes());
        mac.update(&self.size.to_le_bytes());
        mac.update(&self.part.to_le_bytes());
        mac.update(self.repository.as_bytes());
        mac.update(self.account.as_bytes());
        mac.update(&self.end.to_le_bytes());
        mac.finalize()
    }
}
