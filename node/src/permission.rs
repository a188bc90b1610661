//! Who may do what: one pure function over who asks, what for, and which repository.
//!
//! Every way in asks here: hub API, files, LFS, lists and pages. What may not be read looks the same as what
//! does not exist.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use cairn_protocol::hash::RepositoryId;
use serde::{Deserialize, Serialize};

use crate::accounts::AccountId;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Whoever can open the node's socket or its folder.
    Operator,
    /// Nobody known.
    Anyone,
    /// The holder of a token.
    Account(Caller),
}

/// The holder of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Whose token it is.
    pub account: AccountId,
    /// Whether the account administers the node.
    pub is_admin: bool,
    /// What the token is for.
    pub scope: Scope,
}

/// What a token is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Whether it may change anything.
    pub writes: bool,
    /// Only these repositories (beside what everybody may read); all where absent.
    pub repositories: Option<BTreeSet<RepositoryId>>,
}

/// How far somebody's right to a repository goes; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// See it.
    Read,
    /// Move its refs.
    Write,
    /// Rename, delete, show or hide it, say who else may.
    Manage,
}

impl Access {
    const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Manage];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Manage => "manage",
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Access {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|access| access.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is none of read, write, manage"))
    }
}

/// A repository, or (with [`Access::Manage`] asked for) a namespace that one is to be made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// Its id; absent for one that is to be made.
    pub repository: Option<RepositoryId>,
    /// Whose namespace it is in; absent for the node's own and those of others.
    pub owner: Option<AccountId>,
    /// Whether this node is its home.
    pub is_home: bool,
    /// Whether only those may see it who were let in.
    pub is_private: bool,
    /// What whoever asks was let into.
    pub granted: Option<Access>,
}

/// What comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// Go on.
    Allowed,
    /// As if it did not exist.
    Hidden,
    /// Somebody known might.
    Unauthorized,
    /// The account may not.
    Forbidden,
    /// The account may, its token may not.
    TokenForbids,
    /// Only its home can change it, which is another node.
    Elsewhere,
}

/// Decides.
pub fn rule(who: &Who, wanted: Access, subject: &Subject) -> Ruling {
    let public = (!subject.is_private).then_some(Access::Read);
    let (held, token) = match who {
        Who::Operator => (Some(Access::Manage), Some(Access::Manage)),
        Who::Anyone => (public, Some(Access::Manage)),
        Who::Account(caller) => {
            let owns = caller.is_admin || subject.owner == Some(caller.account);
            let own = owns.then_some(Access::Manage);
            let in_scope = caller.scope.repositories.as_ref().is_none_or(|only| {
                subject
                    .repository
                    .is_some_and(|repository| only.contains(&repository))
            });
            let token = match (in_scope, caller.scope.writes) {
                (true, true) => Some(Access::Manage),
                (true, false) => Some(Access::Read),
                (false, _) => public,
            };
            (own.max(subject.granted).max(public), token)
        }
    };
    if held.min(token) < Some(Access::Read) {
        return Ruling::Hidden;
    }
    if held < Some(wanted) {
        return if matches!(who, Who::Anyone) {
            Ruling::Unauthorized
        } else {
            Ruling::Forbidden
        };
    }
    if token < Some(wanted) {
        return Ruling::TokenForbids;
    }
    if wanted > Access::Read && !subject.is_home {
        return Ruling::Elsewhere;
    }
    Ruling::Allowed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn account(number: u8) -> AccountId {
        AccountId::from_bytes([number; 16])
    }

    fn repository(number: u8) -> RepositoryId {
        RepositoryId::from_bytes([number; 32])
    }

    fn caller(number: u8, writes: bool, only: Option<u8>) -> Who {
        Who::Account(Caller {
            account: account(number),
            is_admin: number == 9,
            scope: Scope {
                writes,
                repositories: only.map(|only| [repository(only)].into()),
            },
        })
    }

    fn subject(is_private: bool, granted: Option<Access>) -> Subject {
        Subject {
            repository: Some(repository(1)),
            owner: Some(account(1)),
            is_home: true,
            is_private,
            granted,
        }
    }

    /// Every kind of caller against a public and a private repository: read, write, manage.
    #[test]
    fn the_table() {
        use Access::{Read, Write};
        use Ruling::{
            Allowed as A, Forbidden as F, Hidden as H, TokenForbids as T, Unauthorized as U,
        };
        let no = None;
        for (name, who, granted, public, private) in [
            ("operator", Who::Operator, no, [A, A, A], [A, A, A]),
            ("anonymous", Who::Anyone, no, [A, U, U], [H, H, H]),
            ("outsider", caller(2, true, None), no, [A, F, F], [H, H, H]),
            (
                "reader",
                caller(2, true, None),
                Some(Read),
                [A, F, F],
                [A, F, F],
            ),
            (
                "writer",
                caller(2, true, None),
                Some(Write),
                [A, A, F],
                [A, A, F],
            ),
            (
                "writer's read token",
                caller(2, false, None),
                Some(Write),
                [A, T, F],
                [A, T, F],
            ),
            ("owner", caller(1, true, None), no, [A, A, A], [A, A, A]),
            (
                "owner's read token",
                caller(1, false, None),
                no,
                [A, T, T],
                [A, T, T],
            ),
            (
                "owner's token for it",
                caller(1, true, Some(1)),
                no,
                [A, A, A],
                [A, A, A],
            ),
            (
                "owner's token for another",
                caller(1, true, Some(2)),
                no,
                [A, T, T],
                [H, H, H],
            ),
            ("admin", caller(9, true, None), no, [A, A, A], [A, A, A]),
        ] {
            for (is_private, expected) in [(false, public), (true, private)] {
                let subject = subject(is_private, granted);
                let ruled = Access::ALL.map(|wanted| rule(&who, wanted, &subject));
                assert_eq!(ruled, expected, "{name}, private: {is_private}");
            }
        }
    }

    fn access() -> impl Strategy<Value = Access> {
        prop::sample::select(&Access::ALL[..])
    }

    fn who() -> impl Strategy<Value = Who> {
        prop_oneof![
            Just(Who::Operator),
            Just(Who::Anyone),
            (
                prop::sample::select(&[1, 2, 9][..]),
                any::<bool>(),
                prop::option::of(1..3_u8)
            )
                .prop_map(|(number, writes, only)| caller(number, writes, only)),
        ]
    }

    proptest! {
        /// More is never allowed to who may not do less, and what is hidden is hidden for everything.
        #[test]
        fn rights_are_ordered(
            who in who(), is_private: bool, is_home: bool, granted in prop::option::of(access()),
        ) {
            let subject = Subject { is_home, ..subject(is_private, granted) };
            let ruled = Access::ALL.map(|wanted| rule(&who, wanted, &subject));
            for pair in ruled.windows(2) {
                prop_assert!(pair[1] != Ruling::Allowed || pair[0] == Ruling::Allowed);
                prop_assert_eq!(pair[0] == Ruling::Hidden, pair[1] == Ruling::Hidden);
            }
            prop_assert!(is_private || ruled[0] == Ruling::Allowed);
            prop_assert!(is_home || ruled[1] != Ruling::Allowed);
        }
    }
}
