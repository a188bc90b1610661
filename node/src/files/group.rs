//! Group commit: one thread writes, and one sync acknowledges everything that waited for it.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::store::StoreError;

/// Requests that may wait; the next caller blocks until one is taken.
const QUEUE_REQUESTS_MAX: usize = 256;

/// A thread that takes everything that waits, does it, and answers each.
#[derive(Debug)]
pub(crate) struct GroupCommit<T> {
    sender: Option<SyncSender<Request<T>>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Request<T> {
    work: T,
    answer: SyncSender<Result<(), StoreError>>,
}

impl<T: Send + 'static> GroupCommit<T> {
    /// Starts the thread. `commit` gets all work that waits, and returns one answer for each, in order.
    pub(crate) fn spawn(
        name: &str,
        commit: impl FnMut(Vec<T>) -> Vec<Result<(), StoreError>> + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE_REQUESTS_MAX);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&receiver, commit))?;
        Ok(Self {
            sender: Some(sender),
            thread: Some(thread),
        })
    }

    /// Hands work over and waits for its answer.
    pub(crate) fn commit(&self, work: T) -> Result<(), StoreError> {
        let (answer, answered) = sync_channel(1);
        let sender = self.sender.as_ref().ok_or(StoreError::Stopped)?;
        sender
            .send(Request { work, answer })
            .map_err(|_| StoreError::Stopped)?;
        answered.recv().map_err(|_| StoreError::Stopped)?
    }
}

impl<T> Drop for GroupCommit<T> {
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes ended in a panic");
        }
    }
}

fn run<T>(
    receiver: &Receiver<Request<T>>,
    mut commit: impl FnMut(Vec<T>) -> Vec<Result<(), StoreError>>,
) {
    while let Ok(first) = receiver.recv() {
        let mut requests = vec![first];
        while requests.len() < QUEUE_REQUESTS_MAX
            && let Ok(next) = receiver.try_recv()
        {
            requests.push(next);
        }
        let (work, answers): (Vec<_>, Vec<_>) = requests
            .into_iter()
            .map(|request| (request.work, request.answer))
            .unzip();
        for (answer, result) in answers.into_iter().zip(commit(work)) {
            // A caller that went away needs no answer.
            answer.send(result).unwrap_or_default();
        }
    }
}
