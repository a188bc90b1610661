//! What a name leads to.

use crate::hash::RepositoryId;
use crate::json::{Object, Value};
use crate::name::{RepoKind, RepoName};

use super::RecordError;
use super::members::Members;

/// A names record: one chain for each namespace, kind and folded name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Names of different kinds are apart.
    pub kind: RepoKind,
    /// In folded form.
    pub name: RepoName,
    /// Absent where the name was released.
    pub target: Option<NamesTarget>,
}

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamesTarget {
    /// A repository of the same namespace.
    Repository(RepositoryId),
    /// Another folded name of the same namespace and kind.
    Redirect(RepoName),
}

impl Names {
    pub(super) const MEMBERS: &[&str] = &["kind", "name", "target"];

    pub(super) fn decode(members: &Members<'_>) -> Result<Self, RecordError> {
        let name = folded(members, "name")?;
        let target = match members.value("target")? {
            Value::Null => None,
            _ => Some(NamesTarget::decode(&members.members("target")?)?),
        };
        if target == Some(NamesTarget::Redirect(name.clone())) {
            return Err(members.wrong("target", "leads back to the name itself"));
        }
        Ok(Self {
            kind: members.parsed("kind")?,
            name,
            target,
        })
    }

    pub(super) fn encode(&self, payload: &mut Object) {
        payload.set("kind", self.kind.as_str());
        payload.set("name", self.name.as_str());
        payload.set("target", self.target.as_ref().map(NamesTarget::encode));
    }
}

impl NamesTarget {
    fn decode(members: &Members<'_>) -> Result<Self, RecordError> {
        if members.absent("redirect").is_ok() {
            return members.parsed("repository").map(Self::Repository);
        }
        members.absent("repository")?;
        folded(members, "redirect").map(Self::Redirect)
    }

    fn encode(&self) -> Value {
        let mut object = Object::new();
        match self {
            Self::Repository(id) => object.set("repository", id.to_hex()),
            Self::Redirect(name) => object.set("redirect", name.as_str()),
        }
        object.into()
    }
}

fn folded(members: &Members<'_>, member: &str) -> Result<RepoName, RecordError> {
    let name: RepoName = members.parsed(member)?;
    if name.folded() == name {
        Ok(name)
    } else {
        Err(members.wrong(member, "is not in lower case"))
    }
}
