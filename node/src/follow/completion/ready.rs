//! Repositories that can be completed now, by the peer that sent their newest record, in turn: who sends
//! many that nobody can complete makes its own wait, and not those of others.

use std::collections::{HashMap, VecDeque};

use cairn_protocol::hash::RepositoryId;
use cairn_protocol::key::PublicKey;

/// Who sent a repository's newest record; nobody, where that was before the start.
pub(super) type Source = Option<PublicKey>;

/// They wait here, each at most once as long as the caller takes care.
#[derive(Debug, Default)]
pub(super) struct Ready {
    queues: HashMap<Source, VecDeque<RepositoryId>>,
    /// Those that have a queue; the first is next.
    turns: VecDeque<Source>,
}

impl Ready {
    pub(super) fn push(&mut self, source: Source, repository: RepositoryId) {
        let queue = self.queues.entry(source).or_default();
        if queue.is_empty() {
            self.turns.push_back(source);
        }
        queue.push_back(repository);
    }

    /// The next one, of the source whose turn it is.
    pub(super) fn pop(&mut self) -> Option<RepositoryId> {
        let source = self.turns.pop_front()?;
        let queue = self.queues.get_mut(&source)?;
        let repository = queue.pop_front()?;
        if queue.is_empty() {
            self.queues.remove(&source);
        } else {
            self.turns.push_back(source);
        }
        Some(repository)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use cairn_protocol::key::SecretKey;

    use super::*;

    #[test]
    fn sources_take_turns_and_each_keeps_its_order() {
        let repository = |byte| RepositoryId::from_bytes([byte; 32]);
        let source = |byte| Some(SecretKey::from_seed([byte; 32]).public());
        let mut ready = Ready::default();
        for byte in 0..5 {
            ready.push(source(1), repository(byte));
        }
        ready.push(source(2), repository(10));
        ready.push(None, repository(20));
        ready.push(source(2), repository(11));
        let mut popped = Vec::new();
        while let Some(repository) = ready.pop() {
            popped.push(repository.as_bytes()[0]);
        }
        assert_eq!(popped, [0, 10, 20, 1, 11, 2, 3, 4]);
        assert!(ready.is_empty());
    }
}
