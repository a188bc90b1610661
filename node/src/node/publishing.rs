//! What a gateway asks of a node on behalf of accounts: uploads, commits, repositories.
//!
//! Whether somebody may is asked with [`Node::rule`], before; nothing here asks again.

use std::io::Read;

use cairn_protocol::hash::{Blake3, NamespaceId, Sha256};
use cairn_protocol::name::{NamespaceName, RepoKind, RepoName};
use cairn_protocol::path::RepoPath;
use cairn_protocol::xet::XetHash;

use super::{Inner, Node, now_s};
use crate::access;
use crate::accounts::{self, Account, AccountError, AccountId, Accounts, NewToken};
use crate::permission::{self, Access, Ruling, Scope, Subject, Who};
use crate::publish::{
    self, Committed, Contents, Draft, NewRepository, PublishError, Publisher, RefMove, Stored,
};
use crate::repos::{Reach, Repo, RepoError};
use crate::staging::Part;
use crate::store::{Digests, Lease, StoreError};

/// Why something can't be uploaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UploadError {
    /// Too much of it waits for commits already.
    #[error("too many uploads wait for their commit: commit some of them first")]
    Full,
    /// The bytes or the store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The repository could not be read.
    #[error(transparent)]
    Repo(#[from] RepoError),
}

impl Node {
    /// Who publishes through this node.
    pub fn accounts(&self) -> &Accounts {
        &self.inner.accounts
    }

    /// Who a token lets in; nobody where it is none of this node's. Notes that it was used.
    pub fn identify(&self, token: &str) -> Option<(Who, accounts::Token)> {
        let now_s = now_s();
        let (caller, token) = self.inner.accounts.identify(token, now_s)?;
        self.inner.counters.used(&token.hash, now_s);
        Some((Who::Account(caller), token))
    }

    /// Whether somebody may.
    pub fn rule(&self, who: &Who, wanted: Access, repo: &Repo) -> Ruling {
        let namespace = repo.namespace_id();
        let owner = self.inner.accounts.by_namespace(&namespace);
        let subject = Subject {
            repository: Some(repo.id()),
            owner: owner.map(|account| account.id),
            is_home: wanted == Access::Read || self.inner.is_home(&namespace),
            is_private: repo.is_private(),
            granted: self.inner.accounts.granted(&repo.id(), who),
        };
        permission::rule(who, wanted, &subject)
    }

    /// Whether somebody may see a repository.
    pub fn may_read(&self, who: &Who, repo: &Repo) -> bool {
        !repo.is_private() || self.rule(who, Access::Read, repo) == Ruling::Allowed
    }

    /// Whether somebody may make repositories in a namespace, given by its name here; `None` where no such
    /// namespace is this node's.
    pub fn rule_namespace(&self, who: &Who, namespace: &NamespaceName) -> Option<Ruling> {
        let id = *self.inner.repos.namespaces_of(namespace).first()?;
        let owner = self.inner.accounts.by_namespace(&id);
        let subject = Subject {
            repository: None,
            owner: owner.map(|account| account.id),
            is_home: self.inner.is_home(&id),
            is_private: false,
            granted: None,
        };
        Some(permission::rule(who, Access::Manage, &subject))
    }

    /// Makes a repository, published by an account.
    pub fn create_repository(
        &self,
        account: &AccountId,
        namespace: &NamespaceName,
        kind: RepoKind,
        name: RepoName,
        is_private: bool,
        files: Vec<(RepoPath, Stored)>,
    ) -> Result<Repo, PublishError> {
        let inner = &self.inner;
        let namespace = self.namespace_for(namespace, is_private)?;
        let new = NewRepository {
            namespace,
            kind,
            name,
            files,
        };
        let (id, _) = publish::create(inner, &self.publisher(account)?, &new)?;
        let gone =
            || RepoError::NotFound(format!("{}/{}", NamespaceName::Hash(namespace), new.name));
        Ok(inner.repos.get(&id).ok_or_else(gone)?)
    }

    /// Makes a repository that begins where another one stands, published by an account.
    pub fn duplicate_repository(
        &self,
        account: &AccountId,
        repo: &Repo,
        namespace: &NamespaceName,
        name: &RepoName,
        is_private: bool,
    ) -> Result<Repo, PublishError> {
        let inner = &self.inner;
        let namespace = self.namespace_for(namespace, is_private)?;
        let publisher = self.publisher(account)?;
        let id = publish::duplicate(inner, &publisher, repo, namespace, name)?;
        let gone = || RepoError::NotFound(format!("{}/{name}", NamespaceName::Hash(namespace)));
        Ok(inner.repos.get(&id).ok_or_else(gone)?)
    }

    /// The namespace that a new repository goes into.
    fn namespace_for(
        &self,
        namespace: &NamespaceName,
        is_private: bool,
    ) -> Result<NamespaceId, PublishError> {
        let inner = &self.inner;
        let all = inner.repos.namespaces_of(namespace);
        let first = *all
            .first()
            .ok_or_else(|| PublishError::Elsewhere(namespace.to_string()))?;
        match (is_private, inner.accounts.by_namespace(&first)) {
            (false, Some(owner)) => Ok(owner.namespace),
            (false, None) => Ok(first),
            (true, Some(owner)) => accounts::private_namespace(inner, &owner)
                .map_err(|error| PublishError::Invalid(error.to_string())),
            (true, None) => Err(PublishError::Invalid(
                "private repositories are an account's: choose an account's namespace".to_owned(),
            )),
        }
    }

    /// Makes a commit; returns when the head is durable, signed, and seen by the next read.
    pub fn commit(
        &self,
        account: &AccountId,
        repo: &Repo,
        draft: &Draft,
    ) -> Result<Committed, PublishError> {
        publish::commit(&self.inner, &self.publisher(account)?, repo, draft)
    }

    /// Shows a repository to everybody, or hides it; returns it under its new id: what was signed for one is
    /// not valid for the other.
    pub fn set_visibility(
        &self,
        account: &AccountId,
        repo: &Repo,
        is_private: bool,
    ) -> Result<Repo, PublishError> {
        let inner = &self.inner;
        let owner = inner.accounts.by_namespace(&repo.namespace_id());
        let owner = owner.ok_or_else(|| {
            PublishError::Invalid(
                "private repositories are an account's: this one is in no account's namespace"
                    .to_owned(),
            )
        })?;
        let namespace = if is_private {
            accounts::private_namespace(inner, &owner)
                .map_err(|error| PublishError::Invalid(error.to_string()))?
        } else {
            owner.namespace
        };
        let shown = self.transplant(account, repo, namespace, repo.name())?;
        if is_private {
            // What only it reached is nobody else's from now on.
            if let Some(network) = &inner.network {
                network.follower.relate_anew();
            }
        }
        Ok(shown)
    }

    /// Moves a repository to another namespace, with those who were let in.
    fn transplant(
        &self,
        account: &AccountId,
        repo: &Repo,
        namespace: NamespaceId,
        name: &RepoName,
    ) -> Result<Repo, PublishError> {
        let inner = &self.inner;
        let publisher = self.publisher(account)?;
        let id = publish::transplant(inner, &publisher, repo, namespace, name, |id| {
            accounts::let_in_alike(inner, &repo.id(), *id)
                .map_err(|error| PublishError::Invalid(error.to_string()))?;
            inner.counters.moved(&repo.id(), *id);
            Ok(())
        })?;
        let gone = || RepoError::NotFound(repo.shown_name().to_owned());
        Ok(inner.repos.get(&id).ok_or_else(gone)?)
    }

    /// Deletes a repository.
    pub fn delete_repository(&self, account: &AccountId, repo: &Repo) -> Result<(), PublishError> {
        publish::delete(&self.inner, &self.publisher(account)?, repo)?;
        if let Some(network) = &self.inner.network {
            network.follower.relate_anew();
        }
        Ok(())
    }

    /// Gives a repository another name, in its namespace or in another one; the old one leads to it from now on,
    /// in another one on this node alone. It stays as public or private as it is.
    pub fn move_repository(
        &self,
        account: &AccountId,
        repo: &Repo,
        namespace: &NamespaceName,
        name: &RepoName,
    ) -> Result<(), PublishError> {
        let namespace = self.namespace_for(namespace, repo.is_private())?;
        if namespace == repo.namespace_id() {
            return publish::rename(&self.inner, &self.publisher(account)?, repo, name);
        }
        self.transplant(account, repo, namespace, name)?;
        Ok(())
    }

    /// Makes, moves or deletes a branch or tag, given by its full name.
    pub fn move_ref(
        &self,
        account: &AccountId,
        repo: &Repo,
        reference: &str,
        wanted: &RefMove,
    ) -> Result<(), PublishError> {
        let publisher = self.publisher(account)?;
        publish::move_ref(&self.inner, &publisher, repo, reference, wanted)
    }

    /// Makes one commit of a ref's whole history.
    pub fn squash(
        &self,
        account: &AccountId,
        repo: &Repo,
        reference: &str,
        summary: &str,
    ) -> Result<Committed, PublishError> {
        let publisher = self.publisher(account)?;
        publish::squash(&self.inner, &publisher, repo, reference, summary)
    }

    fn publisher(&self, account: &AccountId) -> Result<Publisher, PublishError> {
        let found = self.inner.accounts.by_id(account);
        let gone = || PublishError::Invalid("the account is gone".to_owned());
        self.inner.publisher(&found.ok_or_else(gone)?)
    }

    /// Keeps what is stored from being collected while a commit is put together.
    pub fn lease(&self) -> Lease {
        self.inner.store.lease()
    }

    /// Stores a file for a commit that is put together under a lease; with `git` as a git blob.
    pub fn store_file(
        &self,
        source: &mut dyn Read,
        size: u64,
        git: bool,
    ) -> Result<Stored, StoreError> {
        let digests = self.inner.store.import(source, size, git, &mut |_| {})?;
        let git = digests.git.filter(|_| git);
        Ok(Stored::of(&Digests { git, ..digests }, false))
    }

    /// Stores bytes that an account sends, if they are what it promised; durable on return, and kept for a day
    /// for its commit.
    pub fn upload(
        &self,
        account: &AccountId,
        source: &mut dyn Read,
        size: u64,
        sha256: &Sha256,
    ) -> Result<Stored, UploadError> {
        let inner = &self.inner;
        if !inner.staging.has_room(account) {
            return Err(UploadError::Full);
        }
        let _lease = inner.store.lease();
        let agrees = |digests: &Digests| digests.sha256 == *sha256;
        let digests = inner
            .store
            .import_if(source, size, false, &agrees, &mut |_| {})?;
        inner
            .staging
            .add(&inner.journal, *account, &digests, None, now_s())?;
        Ok(Stored::of(
            &Digests {
                git: None,
                ..digests
            },
            false,
        ))
    }

    /// Keeps one part (from 1) of a file that an account sends, which begins at an offset; durable on return.
    pub fn put_part(
        &self,
        account: &AccountId,
        sha256: &Sha256,
        number: u32,
        range: std::ops::Range<u64>,
        source: &mut dyn Read,
    ) -> Result<(), StoreError> {
        let part = Part {
            account,
            sha256,
            number,
            offset: range.start,
            length: range.end - range.start,
        };
        self.inner.parts.put(&part, source)
    }

    /// Makes one file of so many parts, as [`Node::upload`] does of bytes.
    pub fn join_parts(
        &self,
        account: &AccountId,
        sha256: &Sha256,
        size: u64,
        count: u64,
    ) -> Result<Stored, UploadError> {
        let inner = &self.inner;
        // Completed before, and asked for again: the answer was lost.
        if let Some(staged) = inner.staging.find(account, sha256, now_s())
            && staged.size == size
            && inner.store.contains(&staged.blake3)?
        {
            return Ok(sent(sha256, staged.blake3, size));
        }
        if !inner.staging.has_room(account) {
            return Err(UploadError::Full);
        }
        let _lease = inner.store.lease();
        let agrees = |digests: &Digests| digests.sha256 == *sha256;
        let digests = inner
            .parts
            .take(account, sha256, size, count, |path, hashed| {
                let digests = inner.store.adopt(path, size, hashed, &agrees)?;
                inner.stage(account, &digests, None)?;
                Ok(digests)
            })?;
        Ok(sent(sha256, digests.blake3, size))
    }

    /// Lets go of uploads that no commit came for within a day. Blocking.
    pub fn expire_uploads(&self) {
        let inner = &self.inner;
        if let Err(error) = inner.staging.expire(&inner.journal, now_s()) {
            tracing::warn!(%error, "uploads without a commit were not let go of");
        }
        inner.parts.expire(std::time::SystemTime::now());
        inner.sent_xorbs.expire(std::time::SystemTime::now());
    }

    /// Contents of small files that are stored together, for a commit under a lease.
    pub fn contents(&self) -> Contents {
        Contents::new(&self.inner.store)
    }

    /// Lets an account name contents of a repository, which it may read, in its commits elsewhere; returns those
    /// that the repository does not have.
    pub fn stage_from(
        &self,
        account: &AccountId,
        repo: &Repo,
        contents: &[Sha256],
    ) -> Result<Vec<Sha256>, UploadError> {
        let inner = &self.inner;
        let (mut missing, mut reach) = (Vec::new(), Reach::new(repo));
        for sha256 in contents {
            let found = match inner.store.by_sha256(sha256)? {
                Some(digests) if reach.has(&digests.blake3)? => digests,
                _ => {
                    missing.push(*sha256);
                    continue;
                }
            };
            if !inner.staging.has_room(account) {
                return Err(UploadError::Full);
            }
            let xet = self.xet_of(&found.blake3)?;
            inner.stage(account, &found, xet)?;
        }
        Ok(missing)
    }

    /// As [`Node::uploaded`], and kept for the account's commits from now on.
    pub fn keep_uploaded(
        &self,
        account: &AccountId,
        who: &Who,
        reach: &mut Reach<'_>,
        sha256: &Sha256,
    ) -> Result<Option<Stored>, UploadError> {
        let inner = &self.inner;
        let found = self.uploaded(who, reach, sha256)?;
        if let Some(stored) = &found
            && inner.staging.find(account, sha256, now_s()).is_none()
            && inner.staging.has_room(account)
        {
            let digests = Digests {
                blake3: stored.blake3,
                sha256: stored.sha256,
                git: None,
                size: stored.size,
            };
            inner.stage(account, &digests, stored.xet)?;
        }
        Ok(found)
    }

    /// The content with that SHA-256, if the account sent it, or may read a repository that has it: nobody
    /// gets at a content by its hash alone.
    pub fn uploaded(
        &self,
        who: &Who,
        reach: &mut Reach<'_>,
        sha256: &Sha256,
    ) -> Result<Option<Stored>, RepoError> {
        let inner = &self.inner;
        if let Who::Account(caller) = who
            && let Some(staged) = inner.staging.find(&caller.account, sha256, now_s())
            && inner.store.contains(&staged.blake3)?
        {
            let xet = staged.xet;
            return Ok(Some(Stored {
                xet,
                ..sent(sha256, staged.blake3, staged.size)
            }));
        }
        let Some(digests) = inner.store.by_sha256(sha256)? else {
            return Ok(None);
        };
        let reached = inner.access.is_public(&access::prefix(&digests.blake3))
            || (self.may_read(who, reach.repo()) && reach.has(&digests.blake3)?);
        if !reached {
            return Ok(None);
        }
        Ok(Some(Stored {
            xet: self.xet_of(&digests.blake3)?,
            ..sent(sha256, digests.blake3, digests.size)
        }))
    }

    /// Follows from the node's key: what links that carry their own right are sealed with.
    pub fn link_key(&self) -> [u8; 32] {
        let seed = self.inner.keys.node.seed();
        blake3::derive_key("cairn links that carry a right 1", &seed)
    }

    /// Makes an account.
    pub fn create_account(&self, name: &str, is_admin: bool) -> Result<Account, AccountError> {
        accounts::create(&self.inner, name, is_admin)
    }

    /// Makes a token of an account.
    pub fn create_token(
        &self,
        account: &Account,
        name: &str,
        scope: Scope,
        end: Option<u64>,
    ) -> Result<NewToken, AccountError> {
        accounts::create_token(&self.inner, account, name, scope, end)
    }

    /// Takes a token no more, given by its id, the beginning of one, or its name.
    pub fn revoke_token(&self, account: &Account, which: &str) -> Result<Blake3, AccountError> {
        accounts::revoke_token(&self.inner, account, which)
    }

    /// Takes an account's tokens, or takes them no more.
    pub fn set_account_disabled(
        &self,
        account: &Account,
        disabled: bool,
    ) -> Result<(), AccountError> {
        accounts::set_disabled(&self.inner, account, disabled)
    }

    /// Lets an account into a repository, or (with nothing) out of it.
    pub fn let_in(
        &self,
        repo: &Repo,
        account: &Account,
        access: Option<Access>,
    ) -> Result<(), AccountError> {
        // Whoever is let in or out while a repository moves is so where it moves to, or is told.
        let _turn = publish::turn(&self.inner);
        if self.inner.repos.get(&repo.id()).is_none() {
            let gone = format!(
                "{} was moved or deleted just now: look where it is, and ask again",
                repo.shown_name()
            );
            return Err(AccountError::Invalid(gone));
        }
        accounts::let_in(&self.inner, repo.id(), account, access)
    }
}

impl Inner {
    /// Notes that an account sent, or was told of, bytes that are stored; durable on return, and kept from then on.
    pub(crate) fn stage(
        &self,
        account: &AccountId,
        digests: &Digests,
        xet: Option<XetHash>,
    ) -> Result<(), StoreError> {
        // It may have been a file in the cache, which was evicted since it was found to be here.
        let _whole = self.cache.pushing();
        if !self.store.contains(&digests.blake3)? {
            return Err(StoreError::Absent {
                hash: digests.blake3,
            });
        }
        self.staging
            .add(&self.journal, *account, digests, xet, now_s())
    }
}

/// A file that was sent as LFS.
fn sent(sha256: &Sha256, blake3: Blake3, size: u64) -> Stored {
    Stored {
        size,
        blake3,
        sha256: *sha256,
        git: None,
        xet: None,
        executable: false,
    }
}
