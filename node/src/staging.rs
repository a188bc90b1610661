//! What accounts sent and no commit names yet.
//!
//! The bytes are content like any other, complete and durable; what is kept here is who sent them, for a day
//! (28 where they came as xorbs), as the journal has it: a hash alone is no right to bytes that somebody else sent. What is staged is not
//! collected and not evicted.

mod chains;
mod parts;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cairn_protocol::hash::{Blake3, Sha256};
use cairn_protocol::xet::XetHash;
use parking_lot::RwLock;

pub(crate) use self::parts::{Part, Parts, make_durably};

use crate::accounts::AccountId;
use crate::journal::{Entry, Journal};
use crate::store::{Digests, StoreError};

/// Seconds for which what was sent waits for its commit.
const STAGED_S: u64 = 24 * 60 * 60;
/// The same of what was sent as xorbs: clients remember those, and refer to them again.
const STAGED_XET_S: u64 = 28 * STAGED_S;
/// Files of one account that wait for their commit; further ones are refused.
const STAGED_MAX: usize = 100_000;

/// Bytes that an account sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Staged {
    /// Content id.
    pub(crate) blake3: Blake3,
    /// Bytes.
    pub(crate) size: u64,
    /// What xet calls them, where they came that way.
    pub(crate) xet: Option<XetHash>,
    /// Seconds since the Unix epoch until which they wait.
    pub(crate) end: u64,
}

/// All that is staged; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Staging {
    accounts: Arc<RwLock<HashMap<AccountId, HashMap<Sha256, Staged>>>>,
    /// Held to let go of something: meanwhile nothing is added, so that the journal and memory have one order.
    turn: Arc<RwLock<()>>,
}

impl Staging {
    /// Takes over what a journal entry says; whether it was about staging.
    pub(crate) fn take(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Staged {
                account,
                sha256,
                blake3,
                size,
                xet,
                end,
            } => {
                let (blake3, size, xet, end) = (*blake3, *size, *xet, *end);
                let staged = Staged {
                    blake3,
                    size,
                    xet,
                    end,
                };
                let mut accounts = self.accounts.write();
                accounts
                    .entry(*account)
                    .or_default()
                    .insert(*sha256, staged);
            }
            Entry::Unstaged { account, sha256 } => {
                let mut accounts = self.accounts.write();
                if let Some(sent) = accounts.get_mut(account) {
                    sent.remove(sha256);
                    if sent.is_empty() {
                        accounts.remove(account);
                    }
                }
            }
            _ => return false,
        }
        true
    }

    /// Whether an account may send one more file.
    pub(crate) fn has_room(&self, account: &AccountId) -> bool {
        let accounts = self.accounts.read();
        accounts
            .get(account)
            .is_none_or(|sent| sent.len() < STAGED_MAX)
    }

    /// Notes that an account sent bytes that are stored; durable on return.
    pub(crate) fn add(
        &self,
        journal: &Journal,
        account: AccountId,
        digests: &Digests,
        xet: Option<XetHash>,
        now_s: u64,
    ) -> Result<(), StoreError> {
        let wait = if xet.is_some() {
            STAGED_XET_S
        } else {
            STAGED_S
        };
        let entry = Entry::Staged {
            account,
            sha256: digests.sha256,
            blake3: digests.blake3,
            size: digests.size,
            xet,
            end: now_s + wait,
        };
        let _turn = self.turn.read();
        journal.append(entry.clone())?;
        self.take(&entry);
        Ok(())
    }

    /// Bytes that an account sent, while they wait.
    pub(crate) fn find(&self, account: &AccountId, sha256: &Sha256, now_s: u64) -> Option<Staged> {
        let accounts = self.accounts.read();
        let staged = *accounts.get(account)?.get(sha256)?;
        (staged.end > now_s).then_some(staged)
    }

    /// Whether an account sent a content that waits.
    pub(crate) fn has(&self, account: &AccountId, content: &Blake3, now_s: u64) -> bool {
        let accounts = self.accounts.read();
        let sent = accounts.get(account).into_iter().flat_map(HashMap::values);
        sent.filter(|staged| staged.end > now_s)
            .any(|staged| staged.blake3 == *content)
    }

    /// Every content that is staged.
    pub(crate) fn contents(&self) -> HashSet<Blake3> {
        let accounts = self.accounts.read();
        let all = accounts.values().flat_map(HashMap::values);
        all.map(|staged| staged.blake3).collect()
    }

    /// Lets go of what no commit came for.
    pub(crate) fn expire(&self, journal: &Journal, now_s: u64) -> Result<(), StoreError> {
        let over: Vec<Entry> = {
            let accounts = self.accounts.read();
            let each = accounts.iter().flat_map(|(account, sent)| {
                let over = sent.iter().filter(|(_, staged)| staged.end <= now_s);
                over.map(|(sha256, _)| Entry::Unstaged {
                    account: *account,
                    sha256: *sha256,
                })
            });
            each.collect()
        };
        for entry in over {
            let Entry::Unstaged { account, sha256 } = &entry else {
                continue;
            };
            // It may have been sent again meanwhile.
            let _turn = self.turn.write();
            let is_over = self
                .accounts
                .read()
                .get(account)
                .is_some_and(|sent| sent.get(sha256).is_some_and(|staged| staged.end <= now_s));
            if is_over {
                journal.append(entry.clone())?;
                self.take(&entry);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::RealFiles;

    #[test]
    fn what_was_sent_is_the_senders_for_a_day_and_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Journal::open(Arc::new(RealFiles), &dir.path().join("journal")).unwrap();
        let account = |number| AccountId::from_bytes([number; 16]);
        let digests = Digests {
            blake3: Blake3::of(b"x"),
            sha256: Sha256::from_bytes([7; 32]),
            git: None,
            size: 1,
        };
        let (journal, _) = open();
        let staging = Staging::default();
        staging
            .add(&journal, account(1), &digests, None, 100)
            .unwrap();
        drop(journal);

        let (journal, entries) = open();
        let staging = Staging::default();
        assert!(entries.iter().all(|entry| staging.take(entry)));
        let find = |number, now| staging.find(&account(number), &digests.sha256, now);
        assert_eq!(find(1, 100 + STAGED_S - 1).unwrap().blake3, digests.blake3);
        assert_eq!(find(1, 100 + STAGED_S), None);
        assert_eq!(find(2, 100), None);

        staging.expire(&journal, 100 + STAGED_S - 1).unwrap();
        assert_eq!(staging.contents(), HashSet::from([digests.blake3]));
        staging.expire(&journal, 100 + STAGED_S).unwrap();
        assert!(staging.contents().is_empty());
        drop(journal);
        let again = Staging::default();
        open().1.iter().for_each(|entry| assert!(again.take(entry)));
        assert!(again.contents().is_empty());
    }
}
