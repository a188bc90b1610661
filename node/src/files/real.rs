//! The file system itself.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use bytes::Bytes;
use rustix::fs::{Advice, SeekFrom};
use rustix::io::Errno;

use super::{FileError, Files, OpenFile, Stat};

/// Parts that one call to the system may have (`IOV_MAX`); more go in further calls.
const PARTS_MAX: usize = 1024;

/// [`Files`] on the file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFiles;

impl Files for RealFiles {
    fn create(&self, path: &Path) -> Result<OpenFile, FileError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(|source| FileError::new("create", path, source))?;
        Ok(OpenFile::new(file, path))
    }

    fn open_write(&self, path: &Path) -> Result<OpenFile, FileError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|source| FileError::new("open", path, source))?;
        Ok(OpenFile::new(file, path))
    }

    fn open_read(&self, path: &Path) -> Result<OpenFile, FileError> {
        let file = File::open(path).map_err(|source| FileError::new("open", path, source))?;
        Ok(OpenFile::new(file, path))
    }

    fn write_all_at(&self, file: &OpenFile, bytes: &[u8], offset: u64) -> Result<(), FileError> {
        file.file()
            .write_all_at(bytes, offset)
            .map_err(|source| FileError::new("write", file.path(), source))
    }

    fn write_all_vectored_at(
        &self,
        file: &OpenFile,
        parts: &[Bytes],
        mut offset: u64,
    ) -> Result<(), FileError> {
        let refused = |source| FileError::new("write", file.path(), source);
        for some in parts.chunks(PARTS_MAX) {
            let mut slices: Vec<IoSlice<'_>> = some.iter().map(|part| IoSlice::new(part)).collect();
            let mut left = &mut slices[..];
            // Parts without bytes go, so that nothing left means nothing to write.
            IoSlice::advance_slices(&mut left, 0);
            while !left.is_empty() {
                match rustix::io::pwritev(file.file(), left, offset) {
                    Ok(0) => return Err(refused(io::ErrorKind::WriteZero.into())),
                    Ok(count) => {
                        offset += count as u64;
                        IoSlice::advance_slices(&mut left, count);
                    }
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(refused(error.into())),
                }
            }
        }
        Ok(())
    }

    fn data_from(&self, file: &OpenFile, offset: u64) -> Result<Option<u64>, FileError> {
        // Moves the file's position, which nothing here relies on.
        match rustix::fs::seek(file.file(), SeekFrom::Data(offset)) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NXIO) => Ok(None),
            Err(Errno::INVAL) => Ok(Some(offset)),
            Err(error) => Err(FileError::new(
                "look for bytes in",
                file.path(),
                error.into(),
            )),
        }
    }

    fn read_at(&self, file: &OpenFile, buffer: &mut [u8], offset: u64) -> Result<usize, FileError> {
        super::read_full_at(file.file(), buffer, offset)
            .map_err(|source| FileError::new("read", file.path(), source))
    }

    fn truncate(&self, file: &OpenFile, len: u64) -> Result<(), FileError> {
        file.file()
            .set_len(len)
            .map_err(|source| FileError::new("truncate", file.path(), source))
    }

    fn sync(&self, file: &OpenFile) -> Result<(), FileError> {
        file.file()
            .sync_data()
            .map_err(|source| FileError::new("sync", file.path(), source))
    }

    fn begin_writeback(&self, file: &OpenFile, offset: u64, len: u64) {
        // For dirty pages this advice starts their writeback and keeps them cached; it is only a hint,
        // so that a refusal costs nothing but time.
        if let Some(len) = NonZeroU64::new(len)
            && let Err(error) =
                rustix::fs::fadvise(file.file(), offset, Some(len), Advice::DontNeed)
        {
            tracing::trace!(path = %file.path().display(), %error, "writeback was not begun");
        }
    }

    fn stat(&self, file: &OpenFile) -> Result<Stat, FileError> {
        let metadata = file
            .file()
            .metadata()
            .map_err(|source| FileError::new("stat", file.path(), source))?;
        Ok(stat_of(&metadata))
    }

    fn stat_path(&self, path: &Path) -> Result<Option<Stat>, FileError> {
        match fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(stat_of(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FileError::new("stat", path, source)),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        fs::rename(from, to).map_err(|source| FileError::new("rename", from, source))
    }

    fn remove(&self, path: &Path) -> Result<(), FileError> {
        fs::remove_file(path).map_err(|source| FileError::new("remove", path, source))
    }

    fn create_dir(&self, path: &Path) -> Result<(), FileError> {
        match fs::create_dir(path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                Err(FileError::new("create folder", path, source))
            }
            _ => Ok(()),
        }
    }

    fn sync_dir(&self, path: &Path) -> Result<(), FileError> {
        File::open(path)
            .and_then(|dir| dir.sync_all())
            .map_err(|source| FileError::new("sync folder", path, source))
    }

    fn list(&self, path: &Path) -> Result<Vec<String>, FileError> {
        let fail = |source| FileError::new("list", path, source);
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(source) => match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => return Ok(Vec::new()),
                _ => return Err(fail(source)),
            },
        };
        let mut names = Vec::new();
        for entry in entries {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry.map_err(fail)?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn free_bytes(&self, path: &Path) -> Result<u64, FileError> {
        let stat = rustix::fs::statvfs(path)
            .map_err(|error| FileError::new("ask for free space at", path, error.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

fn stat_of(metadata: &fs::Metadata) -> Stat {
    let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000) + rest;
    Stat {
        inode: metadata.ino(),
        size: metadata.size(),
        modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
    }
}
