//! One read of a file for all of its digests, and for its copy: each on a thread of its own.

use std::io::Read;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use cairn_protocol::hash::Sha256;
use sha2::Digest as _;

use super::{Digests, StoreError};
use crate::files::{Files, OpenFile};
use cairn_protocol::git::BlobHasher;
use cairn_protocol::piece::PieceHasher;

/// Bytes of a buffer: what BLAKE3 needs for full speed, and still small enough for the caches.
const BUFFER_BYTES: usize = 256 << 10;
/// Buffers of one intake, which bound its memory; reading waits for a free one.
const BUFFERS: usize = 16;
/// Below this, threads cost more than they save.
const THREADS_BYTES_MIN: u64 = 1 << 20;
/// Bytes after which the disk is told to begin writing.
const WRITEBACK_BYTES: u64 = 8 << 20;

/// What came out of reading a file.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) digests: Digests,
    /// The piece list, where the file has more than one piece.
    pub(super) pieces: Option<Vec<u8>>,
}

/// Where the bytes go as they are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copy<'a> {
    pub(super) files: &'a dyn Files,
    pub(super) file: &'a OpenFile,
    /// Where the first of them goes.
    pub(super) offset: u64,
}

/// Digests of bytes in memory.
pub(super) fn digest(bytes: &[u8], git: bool) -> Result<Taken, StoreError> {
    let mut hashers = Hashers::new(bytes.len() as u64, git);
    hashers.blake3.update(bytes);
    hashers.others.update(bytes);
    hashers.finish(bytes.len() as u64)
}

/// Reads exactly `size` bytes from a source, hashing and copying them.
///
/// `progress` is told the bytes read so far. [`StoreError::Changed`] where there are fewer or more.
pub(super) fn take(
    source: &mut dyn Read,
    size: u64,
    git: bool,
    copy: Option<Copy<'_>>,
    progress: &mut dyn FnMut(u64),
) -> Result<Taken, StoreError> {
    let mut source = Source {
        bytes: source,
        size,
        read: 0,
    };
    let mut hashers = Hashers::new(size, git);
    feed(&mut hashers, &mut source, copy, progress)?;
    hashers.finish(size)
}

/// Reads what was announced, and nothing more; hashes and copies it.
fn feed(
    hashers: &mut Hashers,
    source: &mut Source<'_>,
    copy: Option<Copy<'_>>,
    progress: &mut dyn FnMut(u64),
) -> Result<(), StoreError> {
    if source.size < THREADS_BYTES_MIN {
        let mut buffer = Vec::new();
        while source.read < source.size {
            let read = source.read;
            source.fill(&mut buffer)?;
            if let Some(copy) = copy {
                copy.files
                    .write_all_at(copy.file, &buffer, copy.offset + read)?;
            }
            hashers.blake3.update(&buffer);
            hashers.others.update(&buffer);
        }
        progress(source.size);
    } else {
        let Hashers { blake3, others } = hashers;
        std::thread::scope(|scope| {
            let (recycle, free) = sync_channel(BUFFERS);
            let (to_blake3, for_blake3) = sync_channel::<Arc<Vec<u8>>>(BUFFERS);
            let (to_others, for_others) = sync_channel::<Arc<Vec<u8>>>(BUFFERS);
            let (one, two) = (recycle.clone(), recycle.clone());
            scope.spawn(move || each(&for_blake3, &one, |bytes| blake3.update(bytes)));
            scope.spawn(move || each(&for_others, &two, |bytes| others.update(bytes)));
            pump(
                source,
                copy,
                &[to_blake3, to_others],
                (&recycle, &free),
                progress,
            )
        })?;
    }
    source.must_end()
}

/// Hashes a file that comes in parts, as long as each begins where the one before ended.
#[derive(Debug)]
pub(crate) struct Running {
    hashers: Hashers,
    hashed: u64,
}

impl Running {
    pub(crate) fn new() -> Self {
        Self {
            hashers: Hashers::new(0, false),
            hashed: 0,
        }
    }

    /// Bytes so far, from the beginning of the file.
    pub(crate) fn hashed(&self) -> u64 {
        self.hashed
    }

    /// Reads exactly so many bytes from a source, hashing them and writing them where they belong.
    ///
    /// After an error it is of no use any more.
    pub(crate) fn take(
        &mut self,
        source: &mut dyn Read,
        size: u64,
        files: &dyn Files,
        file: &OpenFile,
    ) -> Result<(), StoreError> {
        let mut source = Source {
            bytes: source,
            size,
            read: 0,
        };
        let copy = Copy {
            files,
            file,
            offset: self.hashed,
        };
        feed(&mut self.hashers, &mut source, Some(copy), &mut |_| {})?;
        self.hashed += size;
        Ok(())
    }

    /// BLAKE3 of the bytes so far.
    #[cfg(test)]
    pub(crate) fn blake3(self) -> cairn_protocol::hash::Blake3 {
        self.finish().unwrap().digests.blake3
    }

    pub(super) fn finish(self) -> Result<Taken, StoreError> {
        self.hashers.finish(self.hashed)
    }
}

/// Hashes what comes, and gives each buffer back that nobody else uses any more.
fn each(
    buffers: &Receiver<Arc<Vec<u8>>>,
    recycle: &SyncSender<Vec<u8>>,
    mut update: impl FnMut(&[u8]),
) {
    for buffer in buffers {
        update(&buffer);
        give_back(buffer, recycle);
    }
}

fn give_back(buffer: Arc<Vec<u8>>, recycle: &SyncSender<Vec<u8>>) {
    if let Some(buffer) = Arc::into_inner(buffer) {
        // Fails only when the intake has ended.
        recycle.send(buffer).unwrap_or_default();
    }
}

fn pump(
    source: &mut Source<'_>,
    copy: Option<Copy<'_>>,
    hashers: &[SyncSender<Arc<Vec<u8>>>; 2],
    (recycle, free): (&SyncSender<Vec<u8>>, &Receiver<Vec<u8>>),
    progress: &mut dyn FnMut(u64),
) -> Result<(), StoreError> {
    let mut buffers = 0;
    let mut written_back = 0;
    while source.read < source.size {
        let mut buffer = match free.try_recv() {
            Ok(buffer) => buffer,
            Err(_) if buffers < BUFFERS => {
                buffers += 1;
                Vec::new()
            }
            Err(_) => free.recv().map_err(|_| StoreError::Stopped)?,
        };
        let offset = source.read;
        source.fill(&mut buffer)?;
        let buffer = Arc::new(buffer);
        for hasher in hashers {
            hasher
                .send(Arc::clone(&buffer))
                .map_err(|_| StoreError::Stopped)?;
        }
        if let Some(copy) = copy {
            copy.files
                .write_all_at(copy.file, &buffer, copy.offset + offset)?;
            if source.read - written_back >= WRITEBACK_BYTES {
                let from = copy.offset + written_back;
                copy.files
                    .begin_writeback(copy.file, from, source.read - written_back);
                written_back = source.read;
            }
        }
        give_back(buffer, recycle);
        progress(source.read);
    }
    Ok(())
}

/// A source of which so many bytes were announced.
struct Source<'a> {
    bytes: &'a mut dyn Read,
    size: u64,
    read: u64,
}

impl Source<'_> {
    /// Reads the next bytes, as many as a buffer holds or as there are left.
    fn fill(&mut self, buffer: &mut Vec<u8>) -> Result<(), StoreError> {
        let left = usize::try_from(self.size - self.read).unwrap_or(usize::MAX);
        buffer.resize(left.min(BUFFER_BYTES), 0);
        let mut done = 0;
        while done < buffer.len() {
            match self.bytes.read(&mut buffer[done..]) {
                Ok(0) => {
                    let found = self.read + done as u64;
                    return Err(StoreError::Changed {
                        expected: self.size,
                        found,
                    });
                }
                Ok(count) => done += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StoreError::Source(error)),
            }
        }
        self.read += done as u64;
        Ok(())
    }

    fn must_end(&mut self) -> Result<(), StoreError> {
        let mut more = [0];
        loop {
            match self.bytes.read(&mut more) {
                Ok(0) => return Ok(()),
                Ok(_) => {
                    return Err(StoreError::Changed {
                        expected: self.size,
                        found: self.size + 1,
                    });
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StoreError::Source(error)),
            }
        }
    }
}

/// All hashers of one file.
#[derive(Debug)]
struct Hashers {
    blake3: PieceHasher,
    others: Others,
}

/// The hashes that other programs know a file by.
#[derive(Debug)]
struct Others {
    sha256: sha2::Sha256,
    git: Option<BlobHasher>,
}

impl Hashers {
    fn new(size: u64, git: bool) -> Self {
        let others = Others {
            sha256: sha2::Sha256::new(),
            git: git.then(|| BlobHasher::new(size)),
        };
        Self {
            blake3: PieceHasher::new(),
            others,
        }
    }

    fn finish(self, size: u64) -> Result<Taken, StoreError> {
        let (blake3, pieces) = self.blake3.finish();
        let sha256 = Sha256::from_bytes(self.others.sha256.finalize().into());
        let git = self.others.git.map(BlobHasher::finish).transpose();
        let git = git.map_err(|_| StoreError::Collision)?;
        Ok(Taken {
            digests: Digests {
                blake3,
                sha256,
                git,
                size,
            },
            pieces,
        })
    }
}

impl Others {
    fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(git) = &mut self.git {
            git.update(bytes);
        }
    }
}
