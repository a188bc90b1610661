//! A disk of which a test says how much of it is free.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::files::{FileError, Files, OpenFile, RealFiles, Stat};

/// The real files, on a device that has so many bytes free.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) free: AtomicU64,
}

impl Files for Disk {
    fn create(&self, path: &Path) -> Result<OpenFile, FileError> {
        RealFiles.create(path)
    }

    fn open_write(&self, path: &Path) -> Result<OpenFile, FileError> {
        RealFiles.open_write(path)
    }

    fn open_read(&self, path: &Path) -> Result<OpenFile, FileError> {
        RealFiles.open_read(path)
    }

    fn write_all_at(&self, file: &OpenFile, bytes: &[u8], offset: u64) -> Result<(), FileError> {
        RealFiles.write_all_at(file, bytes, offset)
    }

    fn write_all_vectored_at(
        &self,
        file: &OpenFile,
        parts: &[Bytes],
        offset: u64,
    ) -> Result<(), FileError> {
        RealFiles.write_all_vectored_at(file, parts, offset)
    }

    fn data_from(&self, file: &OpenFile, offset: u64) -> Result<Option<u64>, FileError> {
        RealFiles.data_from(file, offset)
    }

    fn read_at(&self, file: &OpenFile, buffer: &mut [u8], offset: u64) -> Result<usize, FileError> {
        RealFiles.read_at(file, buffer, offset)
    }

    fn truncate(&self, file: &OpenFile, len: u64) -> Result<(), FileError> {
        RealFiles.truncate(file, len)
    }

    fn sync(&self, file: &OpenFile) -> Result<(), FileError> {
        RealFiles.sync(file)
    }

    fn stat(&self, file: &OpenFile) -> Result<Stat, FileError> {
        RealFiles.stat(file)
    }

    fn stat_path(&self, path: &Path) -> Result<Option<Stat>, FileError> {
        RealFiles.stat_path(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        RealFiles.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<(), FileError> {
        RealFiles.remove(path)
    }

    fn create_dir(&self, path: &Path) -> Result<(), FileError> {
        RealFiles.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<(), FileError> {
        RealFiles.sync_dir(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<String>, FileError> {
        RealFiles.list(path)
    }

    fn begin_writeback(&self, file: &OpenFile, offset: u64, len: u64) {
        RealFiles.begin_writeback(file, offset, len);
    }

    fn free_bytes(&self, _: &Path) -> Result<u64, FileError> {
        Ok(self.free.load(Ordering::Acquire))
    }
}
