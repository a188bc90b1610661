//! What a gateway has a node count, and asks of it.

use std::net::IpAddr;

use cairn_protocol::hash::{Blake3, RepositoryId};

use super::{Node, now_s};
use crate::counters::{self, Downloads, Reader};
use crate::permission::Who;

impl Node {
    /// Whoever downloads: an account, or, for strangers, an address and what their program calls itself.
    pub fn reader(&self, who: &Who, address: Option<IpAddr>, program: &[u8]) -> Reader {
        match who {
            Who::Account(caller) => self.inner.counters.account(&caller.account),
            Who::Operator | Who::Anyone => self.inner.counters.stranger(address, program),
        }
    }

    /// Takes note of a request of a download; however many there are of one, it is counted once.
    pub fn count_download(&self, repository: &RepositoryId, reader: Reader) {
        self.inner.counters.download(repository, reader, now_s());
    }

    /// How often a repository was downloaded through this node.
    pub fn downloads(&self, repository: &RepositoryId) -> Downloads {
        self.inner.counters.downloads(repository, now_s())
    }

    /// The first of the days (since the Unix epoch) that [`Downloads::recent`] is about.
    pub fn downloads_first_day(&self) -> u64 {
        counters::first_day(now_s())
    }

    /// How often a repository was downloaded from a day on, as far back as days are kept: that is one day
    /// more than [`Downloads::recent`] is about, so that for a day of yesterday's the answer only rises.
    pub fn downloads_since(&self, repository: &RepositoryId, first_day: u64) -> u64 {
        self.inner.counters.downloads_since(repository, first_day)
    }

    /// When a token was last used, in seconds since the Unix epoch, to a minute.
    pub fn last_use(&self, token: &Blake3) -> Option<u64> {
        self.inner.counters.last_use(token)
    }

    /// Writes what was counted, where that is due; to be called often. Blocking.
    pub fn keep_counts(&self) {
        self.write_counts(false);
    }

    /// Writes what is in memory alone, before the process ends. Blocking.
    pub fn close(&self) {
        self.write_counts(true);
    }

    fn write_counts(&self, is_last: bool) {
        let (repos, accounts) = (&self.inner.repos, &self.inner.accounts);
        self.inner.counters.write(
            is_last,
            |repository| !repos.is_gone(repository),
            |token| accounts.has_token(token),
        );
    }
}
