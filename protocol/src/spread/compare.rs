//! Comparison of what two neighbours have: all together, then by namespace, then by rounds of negentropy
//! over each that differs.
//!
//! Either neighbour may begin one. Who answers keeps nothing in mind but how far the other's summaries
//! were answered; who asks goes through one namespace at a time.

use std::collections::VecDeque;
use std::time::Duration;

use super::exchange::{self, WANTS_MAX};
use super::message::{Message, Scope, Side, Total};
use super::peer::{Comparison, Step};
use super::{Action, PUSH_RECORDS_MAX, Reason, Spread};
use crate::hash::{NamespaceId, RecordId};
use crate::key::PublicKey;
use crate::limits::SUMMARY_SCOPES_MAX;

/// How long a neighbour may take for its next answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time after which a comparison that came to nothing is begun anew, unless it is due earlier.
const RETRY: Duration = Duration::from_secs(3);
/// Time after which to look again whether fewer comparisons are under way.
const CROWDED: Duration = Duration::from_millis(500);
/// Comparisons that this node has begun and not ended; further ones wait.
const COMPARISONS_MAX: usize = 16;
/// Namespaces of one comparison; the rest is found by the next.
const NAMESPACES_MAX: usize = 1 << 16;
/// Rounds over one namespace; the rest is found by the next comparison.
const ROUNDS_MAX: usize = 1_000;

/// Summaries on as many pages as they take, at least one.
fn pages(side: Side, scopes: &[Scope], more: bool) -> Vec<Vec<u8>> {
    let mut rest = scopes;
    let mut pages = Vec::new();
    loop {
        let (page, after) = rest.split_at(rest.len().min(SUMMARY_SCOPES_MAX));
        rest = after;
        let more = more || !rest.is_empty();
        pages.push(Message::Summary(side, page.to_vec(), more).encode());
        if rest.is_empty() {
            return pages;
        }
    }
}

fn malformed(error: &negentropy::Error) -> Reason {
    Reason::Malformed(format!("a round of comparison: {error}"))
}

impl Spread {
    /// Begins the comparison that is due, or gives up the one that came to nothing.
    pub(super) fn due_comparison(&mut self, now: Duration, key: PublicKey, out: &mut Vec<Action>) {
        let under_way = self.peers.values();
        let under_way = under_way.filter(|peer| peer.comparison.is_some()).count();
        let retry = self.jitter(RETRY.min(self.config.reconcile_every));
        let crowded = self.jitter(CROWDED);
        let Some(peer) = self.peers.get_mut(&key).filter(|peer| peer.greeted) else {
            return;
        };
        match &peer.comparison {
            Some(comparison) if comparison.until <= now => {
                peer.comparison = None;
                peer.compare_at = now + retry;
            }
            None if peer.compare_at <= now && under_way >= COMPARISONS_MAX => {
                peer.compare_at = now + crowded;
            }
            None if peer.compare_at <= now => {
                peer.again = false;
                peer.comparison = Some(Comparison {
                    step: Step::Total,
                    until: now + PATIENCE,
                    queue: VecDeque::new(),
                    offered: 0,
                });
                let total = Message::Total(Side::Asks, self.sets.total());
                out.push(Action::Send(key, total.encode()));
            }
            _ => {}
        }
    }

    /// A comparison is over, or the neighbour has begun one: the next is due in a while.
    ///
    /// Soon where something differed, since what was sent then may be lost; where that repeats (a
    /// neighbour refuses what this node takes), ever later.
    fn compared(&mut self, now: Duration, key: PublicKey, differed: bool, out: &mut Vec<Action>) {
        let every = self.config.reconcile_every;
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let soon = RETRY.saturating_mul(1 << peer.differed.min(16));
        peer.differed = if differed { peer.differed + 1 } else { 0 };
        peer.comparison = None;
        let next = now + self.jitter(if differed { soon.min(every) } else { every });
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.compare_at = next;
        }
        self.ask(now, key, out);
    }

    pub(super) fn total(
        &mut self,
        now: Duration,
        key: PublicKey,
        side: Side,
        theirs: Total,
        out: &mut Vec<Action>,
    ) -> Result<(), Reason> {
        let namespaces = self.sets.namespaces();
        let Some(peer) = self.peers.get_mut(&key) else {
            return Ok(());
        };
        if !peer.budget.work(now, namespaces)? {
            return Ok(());
        }
        let ours = self.sets.total();
        let step = peer.comparison.as_mut().map(|comparison| &comparison.step);
        let begun = matches!(step, Some(Step::Total));
        match side {
            Side::Asks => {
                peer.answered_to = None;
                let answer = Message::Total(Side::Answers, ours);
                out.push(Action::Send(key, answer.encode()));
                // Where both began one, the same rule on both sides says whose goes on.
                let yields = begun && theirs <= ours;
                if yields || peer.comparison.is_none() {
                    if theirs == ours {
                        out.push(Action::Agrees(key));
                    }
                    self.compared(now, key, theirs != ours, out);
                }
            }
            Side::Answers if begun && theirs == ours => {
                out.push(Action::Agrees(key));
                self.compared(now, key, false, out);
            }
            Side::Answers if begun => {
                if let Some(comparison) = &mut peer.comparison {
                    comparison.step = Step::Summary;
                    comparison.until = now + PATIENCE;
                }
                let scopes: Vec<Scope> = self.sets.scopes().collect();
                let pages = pages(Side::Asks, &scopes, false);
                out.extend(pages.into_iter().map(|page| Action::Send(key, page)));
            }
            Side::Answers => {}
        }
        Ok(())
    }

    pub(super) fn summary(
        &mut self,
        now: Duration,
        key: PublicKey,
        side: Side,
        theirs: &[Scope],
        more: bool,
        out: &mut Vec<Action>,
    ) -> Result<(), Reason> {
        let Some(peer) = self.peers.get_mut(&key) else {
            return Ok(());
        };
        if !peer.budget.ids(now, theirs.len())? {
            return Ok(());
        }
        match side {
            Side::Asks => {
                let above = peer.answered_to.take();
                let last = theirs.last().map(|scope| scope.namespace);
                let last = last.filter(|_| more);
                peer.answered_to = last;
                let ours = self.sets.scopes_between(above, last);
                if !peer.budget.work(now, ours.len())? {
                    return Ok(());
                }
                let differ = self.differing(theirs, &ours);
                let pages = pages(Side::Answers, &differ, more);
                out.extend(pages.into_iter().map(|page| Action::Send(key, page)));
            }
            Side::Answers => {
                let Some(comparison) = &mut peer.comparison else {
                    return Ok(());
                };
                if !matches!(comparison.step, Step::Summary) {
                    return Ok(());
                }
                comparison.until = now + PATIENCE;
                for scope in theirs {
                    if comparison.queue.len() < NAMESPACES_MAX
                        && self.sets.scope(scope.namespace) != *scope
                    {
                        comparison.queue.push_back(scope.namespace);
                    }
                }
                if !more {
                    self.next_namespace(now, key, out)?;
                }
            }
        }
        Ok(())
    }

    /// Our summaries of what differs, and of what only the neighbour has, by namespace.
    fn differing(&self, theirs: &[Scope], ours: &[Scope]) -> Vec<Scope> {
        let of = |scopes: &[Scope], namespace: NamespaceId| {
            let index = scopes.binary_search_by_key(&namespace, |scope| scope.namespace);
            index.ok().map(|index| scopes[index])
        };
        let differs = |scope: &&Scope| of(theirs, scope.namespace) != Some(**scope);
        let mut differing: Vec<Scope> = ours.iter().filter(differs).copied().collect();
        let only = theirs
            .iter()
            .filter(|scope| of(ours, scope.namespace).is_none());
        differing.extend(only.map(|scope| self.sets.scope(scope.namespace)));
        differing.sort_unstable_by_key(|scope| scope.namespace);
        differing
    }

    /// Begins with the next namespace that differs, or ends the comparison.
    fn next_namespace(
        &mut self,
        now: Duration,
        key: PublicKey,
        out: &mut Vec<Action>,
    ) -> Result<(), Reason> {
        let Some(peer) = self.peers.get_mut(&key) else {
            return Ok(());
        };
        let next = peer
            .comparison
            .as_mut()
            .and_then(|comparison| comparison.queue.pop_front());
        let Some(namespace) = next else {
            self.compared(now, key, true, out);
            return Ok(());
        };
        let round = self.sets.begin(&namespace);
        let round = round.map_err(|error| malformed(&error))?;
        if let Some(comparison) = &mut peer.comparison {
            comparison.step = Step::Round(namespace, 1);
            comparison.until = now + PATIENCE;
        }
        let round = Message::Reconcile(Side::Asks, namespace, round);
        out.push(Action::Send(key, round.encode()));
        Ok(())
    }

    pub(super) fn round(
        &mut self,
        now: Duration,
        key: PublicKey,
        side: Side,
        namespace: NamespaceId,
        round: &[u8],
        out: &mut Vec<Action>,
    ) -> Result<(), Reason> {
        let members = self.sets.count(&namespace);
        let Some(peer) = self.peers.get_mut(&key) else {
            return Ok(());
        };
        if !peer.budget.work(now, members)? {
            return Ok(());
        }
        if side == Side::Answers {
            return self.learn(now, key, namespace, round, out);
        }
        let answer = self.sets.answer(&namespace, round);
        let answer = answer.map_err(|error| malformed(&error))?;
        let answer = Message::Reconcile(Side::Answers, namespace, answer);
        out.push(Action::Send(key, answer.encode()));
        Ok(())
    }

    /// Takes the answer to a round in: what is here is offered, what is not is asked for.
    fn learn(
        &mut self,
        now: Duration,
        key: PublicKey,
        namespace: NamespaceId,
        round: &[u8],
        out: &mut Vec<Action>,
    ) -> Result<(), Reason> {
        let comparison = self
            .peers
            .get_mut(&key)
            .and_then(|peer| peer.comparison.as_mut());
        let Some(comparison) = comparison else {
            return Ok(());
        };
        let rounds = match comparison.step {
            Step::Round(of, rounds) if of == namespace => rounds,
            _ => return Ok(()),
        };
        comparison.step = Step::Round(namespace, rounds + 1);
        comparison.until = now + PATIENCE;
        let learnt = self.sets.learn(&namespace, round);
        let learnt = learnt.map_err(|error| malformed(&error))?;
        self.give(key, learnt.have, out);
        let room = self.want(now, key, learnt.need, out);
        match learnt.next {
            Some(next) if room && rounds < ROUNDS_MAX => {
                let next = Message::Reconcile(Side::Asks, namespace, next);
                out.push(Action::Send(key, next.encode()));
                Ok(())
            }
            _ => self.next_namespace(now, key, out),
        }
    }

    /// Sends what a neighbour lacks: at once where it is little and was not sent before, since it may
    /// have refused it; else only when it asks.
    fn give(&mut self, key: PublicKey, mut have: Vec<RecordId>, out: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let Some(comparison) = &mut peer.comparison else {
            return;
        };
        let room = WANTS_MAX - comparison.offered.min(WANTS_MAX);
        if have.len() > room {
            have.truncate(room);
            peer.again = true;
        }
        if have.is_empty() {
            return;
        }
        comparison.offered += have.len();
        let told = have.iter().any(|id| peer.has.contains(id));
        for id in &have {
            peer.has.insert(*id, ());
        }
        if told || have.len() > PUSH_RECORDS_MAX {
            exchange::offer(key, &have, out);
        } else {
            out.push(Action::SendRecords(key, have));
        }
    }
}
