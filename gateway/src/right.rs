//! Links that carry their own right: a MAC over what may be done, by whom, to what, and until when.
//!
//! Clients send uploads to the links that they were given, without their token. The seal is keyed BLAKE3 with
//! a key that follows from the node's, so that links outlive a restart; they are never logged.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cairn_node::Node;
use cairn_node::accounts::AccountId;
use cairn_node::permission::{Caller, Scope, Who};
use cairn_protocol::hash::RepositoryId;

use crate::auth::Client;
use crate::error::ApiError;
use crate::gateway::Gateway;

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
    /// Read files through xet.
    XetRead = 4,
    /// Send xorbs and shards, and read.
    XetWrite = 5,
    /// Read one run of a file through xet.
    XetRun = 6,
}

impl Deed {
    fn from_number(number: u8) -> Option<Self> {
        let all = [Self::XetRead, Self::XetWrite];
        all.into_iter().find(|deed| *deed as u8 == number)
    }
}

/// A right to do one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Right {
    pub(crate) deed: Deed,
    /// SHA-256 or xet hash of the file; zeros where it is about none.
    pub(crate) object: [u8; 32],
    pub(crate) size: u64,
    /// Which part of the file, from 1, or which run; 0 for the whole.
    pub(crate) part: u32,
    pub(crate) repository: RepositoryId,
    /// Nobody's where everybody may.
    pub(crate) account: Option<AccountId>,
    /// Seconds since the Unix epoch.
    pub(crate) end: u64,
}

impl Right {
    /// A right to the xet store.
    pub(crate) const fn to_store(
        deed: Deed,
        repository: RepositoryId,
        account: Option<AccountId>,
        end: u64,
    ) -> Self {
        Self {
            deed,
            object: [0; 32],
            size: 0,
            part: 0,
            repository,
            account,
            end,
        }
    }

    /// A right to the xet store as a token.
    pub(crate) fn token(&self, node: &Node) -> String {
        let account = self.account_text();
        let (deed, seal) = (self.deed as u8, self.seal_text(node));
        format!("{deed}.{}.{account}.{}.{seal}", self.repository, self.end)
    }

    /// Reads a token; nothing where it is none of ours, or its time is over.
    pub(crate) fn of_token(node: &Node, token: &str, now_s: u64) -> Option<Self> {
        let mut parts = token.splitn(5, '.');
        let deed = Deed::from_number(parts.next()?.parse().ok()?)?;
        let repository = parts.next()?.parse().ok()?;
        let account = account_of(parts.next()?)?;
        let end = parts.next()?.parse().ok()?;
        let right = Self::to_store(deed, repository, account, end);
        (right.is_sealed(node, parts.next()?) && end > now_s).then_some(right)
    }

    /// The right as a query of its link.
    pub(crate) fn seal(&self, node: &Node) -> String {
        format!(
            "?size={}&part={}&repository={}&account={}&end={}&seal={}",
            self.size,
            self.part,
            self.repository,
            self.account_text(),
            self.end,
            self.seal_text(node)
        )
    }

    /// Reads the right to something from its link's query.
    ///
    /// # Errors
    /// 403 where the seal is not ours, is of something else, or its time is over.
    pub(crate) fn open(
        node: &Node,
        deed: Deed,
        object: [u8; 32],
        query: &crate::url::Pairs,
        now_s: u64,
    ) -> Result<Self, ApiError> {
        let refused = || ApiError::forbidden("This link is not valid, or its time is over");
        let read = || {
            Some(Self {
                deed,
                object,
                size: member(query, "size")?,
                part: member(query, "part")?,
                repository: member(query, "repository")?,
                account: account_of(query.first("account")?)?,
                end: member(query, "end")?,
            })
        };
        let right = read().ok_or_else(refused)?;
        let seal = query.first("seal").unwrap_or_default();
        if !right.is_sealed(node, seal) || right.end <= now_s {
            return Err(refused());
        }
        Ok(right)
    }

    /// Whoever it was made for, as they would be now with a token of their own.
    ///
    /// # Errors
    /// 403 where the account is gone or disabled.
    pub(crate) fn holder(&self, gateway: &Gateway, writes: bool) -> Result<Client, ApiError> {
        let Some(id) = self.account else {
            return Ok(Client::known(Who::Anyone));
        };
        let account = gateway.node().accounts().by_id(&id);
        let account = account
            .filter(|account| !account.is_disabled)
            .ok_or_else(|| ApiError::forbidden("The account of this link is disabled"))?;
        let who = Who::Account(Caller {
            account: id,
            is_admin: account.is_admin,
            scope: Scope {
                writes,
                repositories: Some([self.repository].into()),
            },
        });
        Ok(Client::known(who))
    }

    fn account_text(&self) -> String {
        self.account
            .map_or_else(|| "-".to_owned(), |account| account.to_string())
    }

    fn seal_text(&self, node: &Node) -> String {
        URL_SAFE_NO_PAD.encode(self.mac(node).as_bytes())
    }

    fn is_sealed(&self, node: &Node, seal: &str) -> bool {
        let seal = URL_SAFE_NO_PAD.decode(seal).ok();
        let seal = seal.and_then(|bytes| <[u8; SEAL_BYTES]>::try_from(bytes).ok());
        // `blake3::Hash` compares in constant time.
        seal.is_some_and(|seal| self.mac(node) == blake3::Hash::from_bytes(seal))
    }

    fn mac(&self, node: &Node) -> blake3::Hash {
        let mut mac = blake3::Hasher::new_keyed(&node.link_key());
        mac.update(&[self.deed as u8]);
        mac.update(&self.object);
        mac.update(&self.size.to_le_bytes());
        mac.update(&self.part.to_le_bytes());
        mac.update(self.repository.as_bytes());
        mac.update(&[u8::from(self.account.is_some())]);
        mac.update(
            self.account
                .unwrap_or(AccountId::from_bytes([0; 16]))
                .as_bytes(),
        );
        mac.update(&self.end.to_le_bytes());
        mac.finalize()
    }
}

/// A number of a link's query.
fn member<T: std::str::FromStr>(query: &crate::url::Pairs, name: &str) -> Option<T> {
    query.first(name)?.parse().ok()
}

/// An account in a link or token: `-` is nobody's.
#[allow(clippy::option_option, reason = "nobody's, or not readable")]
fn account_of(text: &str) -> Option<Option<AccountId>> {
    match text {
        "-" => Some(None),
        text => text.parse().ok().map(Some),
    }
}
