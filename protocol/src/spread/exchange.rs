//! Records between neighbours: sent, asked for, offered.
//!
//! Large amounts go only to who asks for them, a window at a time, so that a newcomer takes in what it
//! can and no faster.

use std::collections::VecDeque;
use std::collections::btree_map::Entry;
use std::time::Duration;

use super::message::Message;
use super::{Action, Reason, Spread};
use crate::envelope::Envelope;
use crate::hash::RecordId;
use crate::key::PublicKey;
use crate::limits::{FRAME_RECORDS_MAX, WANT_IDS_MAX};
use crate::record::{Record, RecordError};

/// Records that are asked for at once of one neighbour.
const WINDOW_RECORDS: usize = 512;
/// Records to be asked for of one neighbour; what is more, the next comparison finds again.
pub(super) const WANTS_MAX: usize = 1 << 16;
/// The same of all neighbours together: each has its part of it.
const WANTS_ALL_MAX: usize = 1 << 20;
/// Records that the caller has to answer for; what is more is not taken, and asked for again.
const TAKING_MAX: usize = 4_096;
/// Bytes of the same.
const TAKING_BYTES_MAX: usize = 32 << 20;
/// How long a neighbour may send none of what it was asked for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait where all that a neighbour has was asked of others.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Offers records, in this order.
pub(super) fn offer(key: PublicKey, ids: &[RecordId], out: &mut Vec<Action>) {
    for page in ids.chunks(WANT_IDS_MAX) {
        out.push(Action::Send(key, Message::Offer(page.to_vec()).encode()));
    }
}

/// Whether an envelope may be one that a later version understands: not the sender's fault.
///
/// Its id depends on its payload alone, so no other envelope of that id is understood either.
const fn is_foreign(error: &RecordError) -> bool {
    matches!(
        error,
        RecordError::PayloadType(_)
            | RecordError::Version(_)
            | RecordError::Type(_)
            | RecordError::Critical(_)
    )
}

impl Spread {
    /// A neighbour sent envelopes.
    pub(super) fn records(
        &mut self,
        now: Duration,
        key: PublicKey,
        envelopes: &[Vec<u8>],
        out: &mut Vec<Action>,
    ) -> Result<(), Reason> {
        if let Some(peer) = self.peers.get_mut(&key)
            // Answers to what was asked for come at the speed at which it is asked for.
            && peer.asked.is_empty()
            && !peer.budget.frame(now, 0)?
        {
            return Ok(());
        }
        for bytes in envelopes {
            self.record(now, key, bytes, out)?;
        }
        self.ask(now, key, out);
        Ok(())
    }

    fn record(
        &mut self,
        now: Duration,
        key: PublicKey,
        bytes: &[u8],
        out: &mut Vec<Action>,
    ) -> Result<(), Reason> {
        let forged = |error: RecordError| Reason::Forged(describe(&error));
        let Some(peer) = self.peers.get_mut(&key) else {
            return Ok(());
        };
        let id = Envelope::parse(bytes)
            .map_err(|error| forged(error.into()))?
            .id();
        let asked = peer.asked.remove(&id);
        if asked {
            self.asked.remove(&id);
            peer.asked_until = now + PATIENCE;
        } else if !peer.budget.record(now, bytes.len())? {
            return Ok(());
        }
        peer.has.insert(id, ());
        let waits = !asked && self.waits(now, &id);
        if waits || self.is_settled(&id) {
            return Ok(());
        }
        if self.is_busy(1) {
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.again = true;
            }
            return Ok(());
        }
        match Record::parse(bytes) {
            Ok(record) => {
                self.taking.insert(id, bytes.len());
                self.taking_bytes += bytes.len();
                out.push(Action::Take(key, Box::new(record)));
            }
            Err(error) if is_foreign(&error) => self.refused.insert(id, ()),
            Err(error) => return Err(forged(error)),
        }
        Ok(())
    }

    /// Whether a record is here, on its way in, or refused for good.
    fn is_settled(&self, id: &RecordId) -> bool {
        self.sets.contains(id) || self.taking.contains_key(id) || self.refused.contains(id)
    }

    /// Whether a record was found to wait for another not long ago.
    fn waits(&self, now: Duration, id: &RecordId) -> bool {
        let since = self.waiting.get(id);
        since.is_some_and(|since| now.saturating_sub(*since) < self.config.reconcile_every)
    }

    /// Whether the caller has that part of what it may have to do.
    fn is_busy(&self, part: usize) -> bool {
        self.taking.len() >= TAKING_MAX / part || self.taking_bytes >= TAKING_BYTES_MAX / part
    }

    /// The caller has answered for a record.
    pub(super) fn answered(&mut self, now: Duration, id: &RecordId, out: &mut Vec<Action>) {
        if let Some(bytes) = self.taking.remove(id) {
            self.taking_bytes -= bytes;
        }
        if self.busy && !self.is_busy(2) {
            self.busy = false;
            let keys: Vec<PublicKey> = self.peers.keys().copied().collect();
            for key in keys {
                self.ask(now, key, out);
            }
        }
    }

    /// A neighbour asks for records: it gets those that are here.
    pub(super) fn wanted(
        &mut self,
        now: Duration,
        key: PublicKey,
        ids: Vec<RecordId>,
        out: &mut Vec<Action>,
    ) -> Result<(), Reason> {
        let Some(peer) = self.peers.get_mut(&key) else {
            return Ok(());
        };
        if !peer.budget.ids(now, ids.len())? {
            return Ok(());
        }
        let here = self.sets.in_order(ids);
        for id in &here {
            peer.has.insert(*id, ());
        }
        for page in here.chunks(FRAME_RECORDS_MAX) {
            out.push(Action::SendRecords(key, page.to_vec()));
        }
        Ok(())
    }

    /// A neighbour has these records and could send them.
    pub(super) fn offered(
        &mut self,
        now: Duration,
        key: PublicKey,
        ids: Vec<RecordId>,
        out: &mut Vec<Action>,
    ) -> Result<(), Reason> {
        let Some(peer) = self.peers.get_mut(&key) else {
            return Ok(());
        };
        if peer.budget.ids(now, ids.len())? {
            self.want(now, key, ids, out);
        }
        Ok(())
    }

    /// Puts what a neighbour has among what it is asked for; says whether there was room.
    pub(super) fn want(
        &mut self,
        now: Duration,
        key: PublicKey,
        ids: Vec<RecordId>,
        out: &mut Vec<Action>,
    ) -> bool {
        let new = ids.into_iter();
        let new: Vec<RecordId> = new
            .filter(|id| !self.is_settled(id) && !self.waits(now, id))
            .collect();
        let part = WANTS_MAX.min(WANTS_ALL_MAX / self.peers.len().max(1));
        let Some(peer) = self.peers.get_mut(&key) else {
            return false;
        };
        let room = part.saturating_sub(peer.wants.len());
        let fits = new.len() <= room;
        for id in new.into_iter().take(room) {
            peer.has.insert(id, ());
            peer.wants.push_back(id);
        }
        peer.again |= !fits;
        self.ask(now, key, out);
        fits
    }

    /// Asks a neighbour for the next window of what it has, if it has sent the last one.
    pub(super) fn ask(&mut self, now: Duration, key: PublicKey, out: &mut Vec<Action>) {
        let busy = self.is_busy(2);
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        if !peer.asked.is_empty() || peer.ask_at.is_some_and(|at| at > now) {
            return;
        }
        if busy && !peer.wants.is_empty() {
            // All are asked once there is less to do; no time brings that nearer.
            peer.ask_at = None;
            self.busy = true;
            return;
        }
        let mut wants = std::mem::take(&mut peer.wants);
        let (window, elsewhere) = self.window(now, key, &mut wants);
        for id in elsewhere.into_iter().rev() {
            wants.push_front(id);
        }
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        peer.wants = wants;
        let idle = window.is_empty();
        peer.ask_at = (idle && !peer.wants.is_empty()).then_some(now + ASK_AGAIN);
        if !idle {
            peer.asked = window.iter().copied().collect();
            peer.asked_until = now + PATIENCE;
            out.push(Action::Send(key, Message::Want(window).encode()));
        } else if peer.wants.is_empty() && peer.comparison.is_none() && peer.again {
            peer.again = false;
            peer.compare_at = now;
        }
    }

    /// Takes the next records to ask for off the queue; the second are asked of others already.
    fn window(
        &mut self,
        now: Duration,
        key: PublicKey,
        wants: &mut VecDeque<RecordId>,
    ) -> (Vec<RecordId>, Vec<RecordId>) {
        let (mut window, mut elsewhere) = (Vec::new(), Vec::new());
        while window.len() < WINDOW_RECORDS
            && let Some(id) = wants.pop_front()
        {
            if self.is_settled(&id) || self.waits(now, &id) {
                continue;
            }
            match self.asked.entry(id) {
                Entry::Vacant(entry) => {
                    entry.insert((key, now));
                    window.push(id);
                }
                Entry::Occupied(entry) if entry.get().0 == key => {}
                // Who sends one record now and then must not hold the others back.
                Entry::Occupied(mut entry) if entry.get().1 + PATIENCE <= now => {
                    entry.insert((key, now));
                    window.push(id);
                }
                Entry::Occupied(_) => elsewhere.push(id),
            }
        }
        (window, elsewhere)
    }

    /// A neighbour will not send a record that it was asked for; another may have been asked since.
    pub(super) fn asked_in_vain(&mut self, id: &RecordId, key: &PublicKey) {
        if self.asked.get(id).is_some_and(|(of, _)| of == key) {
            self.asked.remove(id);
        }
    }

    /// Gives up what was asked for in vain, and asks for what is next.
    pub(super) fn due_asking(&mut self, now: Duration, key: PublicKey, out: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let in_vain = !peer.asked.is_empty() && peer.asked_until <= now;
        let is_due = peer.ask_at.is_some_and(|at| at <= now);
        if in_vain {
            for id in std::mem::take(&mut peer.asked) {
                self.asked_in_vain(&id, &key);
            }
        }
        if in_vain || is_due {
            self.ask(now, key, out);
        }
    }
}

/// An error with its cause.
fn describe(error: &RecordError) -> String {
    use std::error::Error as _;
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
