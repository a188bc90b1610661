//! The one seam between what must survive a crash and the disk.
//!
//! Segments, flat files and journal reach the disk only through [`Files`], so that a test can record
//! every call, make any one of them fail, leave out the syncs, and rebuild what a power cut would have
//! left. [`RealFiles`] is the file system. The sled views do not pass here: they may vanish at any time.

pub(crate) mod frames;
pub(crate) mod group;
pub(crate) mod segments;

mod real;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

pub use real::RealFiles;

/// A file operation that the system refused.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {path}")]
pub struct FileError {
    /// What was tried, as a verb: `write`, `rename`.
    pub operation: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// The system's error.
    pub source: io::Error,
}

impl FileError {
    /// Names an error of the system.
    pub fn new(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self {
            operation,
            path: path.to_owned(),
            source,
        }
    }

    /// Whether the device, or the owner's quota on it, is full.
    pub fn is_full(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }

    /// Whether the file was not there.
    pub fn is_absent(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// An open file that remembers the path it was opened at, for messages; cheap to clone.
#[derive(Debug, Clone)]
pub struct OpenFile {
    file: Arc<File>,
    path: Arc<Path>,
}

impl OpenFile {
    /// Wraps a file that was opened at a path.
    pub fn new(file: File, path: &Path) -> Self {
        Self {
            file: Arc::new(file),
            path: path.into(),
        }
    }

    /// The same file under the name that it was given since.
    pub(crate) fn renamed(&self, path: &Path) -> Self {
        Self {
            file: Arc::clone(&self.file),
            path: path.into(),
        }
    }

    /// The file itself.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// The file itself, without its path.
    pub(crate) fn into_file(self) -> Arc<File> {
        self.file
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What the system says of a file; any change of its bytes changes one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Inode number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Last change of the bytes, nanoseconds since the Unix epoch.
    pub modified_ns: i64,
    /// Last change of the inode, nanoseconds since the Unix epoch.
    pub changed_ns: i64,
}

/// Every operation on the disk of log, flat files and journal.
///
/// Nothing written is safe before [`Files::sync`] of its file, and no new name before
/// [`Files::sync_dir`] of its folder.
pub trait Files: Send + Sync + std::fmt::Debug {
    /// Makes a file that must not exist yet, for reading and writing.
    fn create(&self, path: &Path) -> Result<OpenFile, FileError>;

    /// Opens an existing file for reading and writing.
    fn open_write(&self, path: &Path) -> Result<OpenFile, FileError>;

    /// Opens an existing file for reading.
    fn open_read(&self, path: &Path) -> Result<OpenFile, FileError>;

    /// Writes all bytes at an offset.
    fn write_all_at(&self, file: &OpenFile, bytes: &[u8], offset: u64) -> Result<(), FileError>;

    /// Writes all parts at an offset, one behind the other, without making one buffer of them.
    fn write_all_vectored_at(
        &self,
        file: &OpenFile,
        parts: &[Bytes],
        offset: u64,
    ) -> Result<(), FileError>;

    /// Where, from an offset on, bytes stand that were ever written; nothing where a hole follows to the end.
    ///
    /// A system that does not know of holes answers the offset itself.
    fn data_from(&self, file: &OpenFile, offset: u64) -> Result<Option<u64>, FileError>;

    /// Reads up to `buffer.len()` bytes at an offset; fewer only at the end of the file.
    fn read_at(&self, file: &OpenFile, buffer: &mut [u8], offset: u64) -> Result<usize, FileError>;

    /// Cuts or extends a file to a length in bytes.
    fn truncate(&self, file: &OpenFile, len: u64) -> Result<(), FileError>;

    /// Makes a file's bytes and length durable.
    fn sync(&self, file: &OpenFile) -> Result<(), FileError>;

    /// Asks the system to begin writing a range out, so that a later sync has less to wait for.
    fn begin_writeback(&self, file: &OpenFile, offset: u64, len: u64);

    /// What the system says of an open file.
    fn stat(&self, file: &OpenFile) -> Result<Stat, FileError>;

    /// What the system says of a path, `None` where nothing stands there.
    fn stat_path(&self, path: &Path) -> Result<Option<Stat>, FileError>;

    /// Gives a file another name, replacing what stood there.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> Result<(), FileError>;

    /// Makes a folder; that it already exists is no error.
    fn create_dir(&self, path: &Path) -> Result<(), FileError>;

    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> Result<(), FileError>;

    /// File names in a folder, sorted; none where there is no such folder.
    fn list(&self, path: &Path) -> Result<Vec<String>, FileError>;

    /// Bytes that can still be written to the device that holds a path.
    fn free_bytes(&self, path: &Path) -> Result<u64, FileError>;

    /// Called after a failed [`Files::sync`] or [`Files::sync_dir`]; ends the process.
    ///
    /// The system may have dropped the unwritten pages and marked them clean, so no later sync can be
    /// believed: only a restart, which reads what the disk really holds, can. A test that wants to go on
    /// overrides this; the caller then gets the error and refuses further writes.
    fn failed_sync(&self, error: &FileError) {
        tracing::error!(
            path = %error.path.display(),
            source = %error.source,
            "a sync failed: what was written cannot be trusted any more, ending the process"
        );
        std::process::abort();
    }
}

/// Syncs a file, and ends the process where that fails.
pub(crate) fn sync_or_end(files: &dyn Files, file: &OpenFile) -> Result<(), FileError> {
    files
        .sync(file)
        .inspect_err(|error| files.failed_sync(error))
}

/// Syncs a folder, and ends the process where that fails.
pub(crate) fn sync_dir_or_end(files: &dyn Files, path: &Path) -> Result<(), FileError> {
    files
        .sync_dir(path)
        .inspect_err(|error| files.failed_sync(error))
}

/// Reads as many bytes as the buffer holds, or to the end of the file.
pub(crate) fn read_full_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
