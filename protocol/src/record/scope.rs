//! Where a key may publish: repositories, and refs in them.

use crate::hash::RepositoryId;

use super::change::check_ref_pattern;
use super::members::Members;
use super::{RecordError, ref_matches};

/// Repositories or ref patterns of one scope; more are refused.
const SCOPE_MAX: usize = 256;

/// Reads `repositories`: ids, none twice, or null for all.
pub(super) fn repositories(
    members: &Members<'_>,
) -> Result<Option<Vec<RepositoryId>>, RecordError> {
    members.parsed_list_or_null("repositories", 1..=SCOPE_MAX)
}

/// Reads `refs`: patterns, none twice, or null for all.
pub(super) fn refs(members: &Members<'_>) -> Result<Option<Vec<String>>, RecordError> {
    let refs: Option<Vec<String>> = members.parsed_list_or_null("refs", 1..=SCOPE_MAX)?;
    for pattern in refs.iter().flatten() {
        check_ref_pattern(pattern)
            .map_err(|error| members.wrong("refs", format!("does not read: {error}")))?;
    }
    Ok(refs)
}

/// Whether a ref of a repository is within both.
pub(super) fn covers(
    repositories: Option<&[RepositoryId]>,
    refs: Option<&[String]>,
    repository: &RepositoryId,
    reference: &str,
) -> bool {
    let in_refs = |patterns: &[String]| {
        let mut patterns = patterns.iter();
        patterns.any(|pattern| ref_matches(pattern, reference))
    };
    repositories.is_none_or(|ids| ids.contains(repository)) && refs.is_none_or(in_refs)
}
