//! Writing files of a repository into a folder of the user's.
//!
//! Each file is written under a temporary name and renamed, so that another program never sees half of one.
//! Bytes are shared with the store where the file system can (reflinks), never by hard links: what happens
//! to the copy must not happen to the store. Nothing is written through a symbolic link below the folder,
//! and nothing outside of it. One export at a time into one folder.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use cairn_protocol::hash::Blake3;
use cairn_protocol::path::RepoPath;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::store::{Content, StoreError};

/// Bytes that are copied or hashed in one step.
const STEP_BYTES: usize = 1 << 20;
const FOLDER: OFlags = OFlags::DIRECTORY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::RDONLY);

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    /// The system refused something.
    #[error("{operation} {path}")]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// No room for the copy.
    #[error("no space left on the device that holds {path}")]
    Full { path: PathBuf },
    /// A link stands where a folder of the repository goes.
    #[error("{path} is a symbolic link or no folder: nothing is written through it")]
    Link { path: PathBuf },
    /// A folder stands where a file goes.
    #[error("{path} is a folder, and a file goes there")]
    Folder { path: PathBuf },
    /// Another export is at work there.
    #[error("another pull is writing into {path}")]
    Busy { path: PathBuf },
    /// A path that can't be checked out everywhere.
    #[error(transparent)]
    Path(#[from] cairn_protocol::path::PathError),
    /// The content could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// It was there with these bytes.
    Kept,
    /// It was made, or took another's place.
    Made,
}

/// One file to write.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    pub(crate) path: &'a str,
    pub(crate) hash: &'a Blake3,
    pub(crate) size: u64,
    pub(crate) executable: bool,
}

/// A folder that is written to, locked.
#[derive(Debug)]
pub(crate) struct Export {
    folder: OwnedFd,
    path: PathBuf,
    /// The folder of the last file, kept open: files of one folder come one after the other.
    last: Option<(String, OwnedFd)>,
}

impl Export {
    /// Opens the folder, made where it is not there, and keeps other exports out.
    pub(crate) fn open(path: &Path) -> Result<Self, ExportError> {
        let failed = |operation, source| ExportError::Io {
            operation,
            path: path.to_owned(),
            source,
        };
        std::fs::create_dir_all(path).map_err(|error| failed("make folder", error))?;
        // The folder itself may be reached through links: the user named it.
        let folder = rustix::fs::open(path, FOLDER.difference(OFlags::NOFOLLOW), Mode::empty())
            .map_err(|error| failed("open folder", error.into()))?;
        match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => Err(ExportError::Busy {
                path: path.to_owned(),
            }),
            // File systems without locks are written to all the same.
            _ => Ok(Self {
                folder,
                path: path.to_owned(),
                last: None,
            }),
        }
    }

    /// Writes one file, unless it is there already. `step` is told bytes as they are read or written.
    pub(crate) fn write(
        &mut self,
        item: &Item<'_>,
        content: &Content,
        step: &mut dyn FnMut(u64),
    ) -> Result<Written, ExportError> {
        let checked: RepoPath = item.path.parse()?;
        let (folder, name) = match checked.as_str().rsplit_once('/') {
            Some((folder, name)) => (folder, name),
            None => ("", checked.as_str()),
        };
        let shown = self.path.join(checked.as_str());
        if self.last.as_ref().is_none_or(|(last, _)| last != folder) {
            self.last = Some((folder.to_owned(), self.descend(folder)?));
        }
        let (_, parent) = self
            .last
            .as_ref()
            .expect("invariant: set in the lines before");
        let mode = if item.executable { 0o777 } else { 0o666 };
        match same(parent, name, item, step) {
            Ok(Some(found)) => return keep(&found, item.executable, &shown),
            Ok(None) => {}
            Err(Errno::ISDIR) => return Err(ExportError::Folder { path: shown }),
            Err(error) => return Err(of(error.into(), "read", &shown)),
        }
        // The same at every try, so that what a killed pull left is overwritten by the next one.
        let temporary = format!(".{}.cairn-part", &item.hash.to_hex()[..32]);
        remove(parent, &temporary).map_err(|error| of(error.into(), "remove", &shown))?;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(parent, &temporary, flags, Mode::from_raw_mode(mode))
            .map_err(|error| of(error.into(), "make", &shown))?;
        let done = copy(content, &mut File::from(file), step)
            .map_err(|error| of(error, "write", &shown))
            .and_then(|()| {
                rustix::fs::renameat(parent, &temporary, parent, name).map_err(
                    |error| match error {
                        Errno::ISDIR => ExportError::Folder {
                            path: shown.clone(),
                        },
                        error => of(error.into(), "rename to", &shown),
                    },
                )
            });
        if done.is_err() {
            remove(parent, &temporary).unwrap_or_default();
        }
        done.map(|()| Written::Made)
    }

    /// Opens a folder below, making what is missing, following no link.
    fn descend(&self, below: &str) -> Result<OwnedFd, ExportError> {
        let mut path = self.path.clone();
        let mut current = rustix::fs::openat(&self.folder, ".", FOLDER, Mode::empty())
            .map_err(|error| of(error.into(), "open folder", &path))?;
        for component in below.split('/').filter(|component| !component.is_empty()) {
            path.push(component);
            match rustix::fs::mkdirat(&current, component, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(of(error.into(), "make folder", &path)),
            }
            current = match rustix::fs::openat(&current, component, FOLDER, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::LOOP | Errno::NOTDIR | Errno::MLINK) => {
                    return Err(ExportError::Link { path });
                }
                Err(error) => return Err(of(error.into(), "open folder", &path)),
            };
        }
        Ok(current)
    }
}

fn of(source: io::Error, operation: &'static str, path: &Path) -> ExportError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ExportError::Full { path },
        _ => ExportError::Io {
            operation,
            path,
            source,
        },
    }
}

fn remove(folder: &OwnedFd, name: &str) -> Result<(), Errno> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}

/// The file of that name, if it is a regular one with the wanted bytes.
fn same(
    folder: &OwnedFd,
    name: &str,
    item: &Item<'_>,
    step: &mut dyn FnMut(u64),
) -> Result<Option<File>, Errno> {
    // Not blocking: what stands there may be a pipe.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let found = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Ok(found) => found,
        Err(Errno::NOENT | Errno::LOOP | Errno::ACCESS | Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error),
    };
    let stat = rustix::fs::fstat(&found)?;
    match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
        rustix::fs::FileType::Directory => return Err(Errno::ISDIR),
        rustix::fs::FileType::RegularFile if u64::try_from(stat.st_size) == Ok(item.size) => {}
        _ => return Ok(None),
    }
    let mut file = File::from(found);
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; STEP_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                hasher.update(&buffer[..length]);
                step(length as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What can't be read is replaced.
            Err(_) => return Ok(None),
        }
    }
    let right = Blake3::from(hasher.finalize()) == *item.hash;
    Ok(right.then_some(file))
}

/// Leaves a file as it is, but for its executable bit.
fn keep(file: &File, executable: bool, shown: &Path) -> Result<Written, ExportError> {
    let failed = |error: Errno| of(error.into(), "set the mode of", shown);
    let mode = rustix::fs::fstat(file).map_err(failed)?.st_mode;
    if (mode & 0o100 != 0) != executable {
        // Executable by those who may read it.
        let bits = (mode & 0o444) >> 2;
        let mode = if executable {
            mode | bits
        } else {
            mode & !0o111
        };
        rustix::fs::fchmod(file, Mode::from_raw_mode(mode & 0o7777)).map_err(failed)?;
    }
    Ok(Written::Kept)
}

/// Copies content: shared blocks where the file system can, else inside the kernel, else through memory.
fn copy(content: &Content, to: &mut File, step: &mut dyn FnMut(u64)) -> io::Result<()> {
    let flat = match content {
        Content::Small(bytes) => {
            to.write_all(bytes)?;
            step(bytes.len() as u64);
            return Ok(());
        }
        Content::Flat(flat) => flat,
    };
    let _reading = flat.reading();
    if rustix::fs::ioctl_ficlone(&*to, &*flat.file).is_ok() {
        step(flat.size);
        return Ok(());
    }
    // By offsets: others read the same open file.
    let mut offset = 0;
    while offset < flat.size {
        let length = STEP_BYTES.min(usize::try_from(flat.size - offset).unwrap_or(STEP_BYTES));
        let mut from = offset;
        match rustix::fs::copy_file_range(&*flat.file, Some(&mut from), &*to, None, length) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(copied) => {
                offset += copied as u64;
                step(copied as u64);
            }
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM) => {
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let mut buffer = vec![0; if offset < flat.size { STEP_BYTES } else { 0 }];
    while offset < flat.size {
        let length = buffer
            .len()
            .min(usize::try_from(flat.size - offset).unwrap_or(buffer.len()));
        flat.file.read_exact_at(&mut buffer[..length], offset)?;
        to.write_all(&buffer[..length])?;
        offset += length as u64;
        step(length as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::sync::Arc;

    use super::*;
    use crate::store::FlatFile;

    fn flat(folder: &Path, bytes: &[u8]) -> Content {
        let path = folder.join("flat");
        std::fs::write(&path, bytes).unwrap();
        let file = Arc::new(File::open(&path).unwrap());
        Content::Flat(FlatFile::new(file, path, bytes.len() as u64))
    }

    fn write(
        export: &mut Export,
        path: &str,
        content: &Content,
        bytes: &[u8],
        executable: bool,
    ) -> Result<Written, ExportError> {
        let item = Item {
            path,
            hash: &Blake3::of(bytes),
            size: bytes.len() as u64,
            executable,
        };
        export.write(&item, content, &mut |_| ())
    }

    #[test]
    fn files_are_made_once_replaced_when_other_and_never_linked() {
        let scratch = tempfile::tempdir().unwrap();
        let to = scratch.path().join("deep/to");
        let bytes = vec![7; 3 << 20];
        let large = flat(scratch.path(), &bytes);
        let small = Content::Small(b"{}".as_slice().into());
        let mut export = Export::open(&to).unwrap();
        let large_at = to.join("a/b/model.bin");
        for expected in [Written::Made, Written::Kept] {
            let made = write(&mut export, "a/b/model.bin", &large, &bytes, false).unwrap();
            assert_eq!(made, expected);
            let made = write(&mut export, "run", &small, b"{}", true).unwrap();
            assert_eq!(made, expected);
        }
        assert_eq!(std::fs::read(&large_at).unwrap(), bytes);
        let stat = std::fs::metadata(&large_at).unwrap();
        assert_eq!((stat.nlink(), stat.mode() & 0o111), (1, 0));
        assert_ne!(
            stat.ino(),
            std::fs::metadata(scratch.path().join("flat"))
                .unwrap()
                .ino()
        );
        assert_ne!(std::fs::metadata(to.join("run")).unwrap().mode() & 0o100, 0);

        // Another content of the same size, another mode, a link: each becomes what it should be.
        let mut other = bytes.clone();
        other[5] = 0;
        std::fs::write(&large_at, other).unwrap();
        let made = write(&mut export, "a/b/model.bin", &large, &bytes, false).unwrap();
        assert_eq!(made, Written::Made);
        assert_eq!(std::fs::read(&large_at).unwrap(), bytes);
        std::fs::set_permissions(&large_at, std::fs::Permissions::from_mode(0o755)).unwrap();
        let made = write(&mut export, "a/b/model.bin", &large, &bytes, false).unwrap();
        assert_eq!(made, Written::Kept);
        assert_eq!(std::fs::metadata(&large_at).unwrap().mode() & 0o777, 0o644);
        let outside = scratch.path().join("outside");
        std::fs::write(&outside, b"{}").unwrap();
        std::fs::remove_file(to.join("run")).unwrap();
        symlink(&outside, to.join("run")).unwrap();
        std::fs::write(&outside, b"old").unwrap();
        assert_eq!(
            write(&mut export, "run", &small, b"{}", true).unwrap(),
            Written::Made
        );
        assert_eq!(std::fs::read(&outside).unwrap(), b"old");
        assert!(!to.join("run").is_symlink());
        let names: Vec<_> = std::fs::read_dir(to.join("a/b"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["model.bin"]);
    }

    #[test]
    fn nothing_is_written_outside_or_through_links_or_over_folders() {
        let scratch = tempfile::tempdir().unwrap();
        let (to, outside) = (scratch.path().join("to"), scratch.path().join("outside"));
        std::fs::create_dir(&outside).unwrap();
        let mut export = Export::open(&to).unwrap();
        let small = Content::Small(b"x".as_slice().into());
        symlink(&outside, to.join("link")).unwrap();
        let error = write(&mut export, "link/a", &small, b"x", false).unwrap_err();
        assert!(matches!(error, ExportError::Link { .. }), "{error}");
        for path in ["../a", "/a", "a/../../b", ".git/config", ""] {
            let error = write(&mut export, path, &small, b"x", false).unwrap_err();
            assert!(matches!(error, ExportError::Path(_)), "{path}: {error}");
        }
        std::fs::create_dir(to.join("folder")).unwrap();
        let error = write(&mut export, "folder", &small, b"x", false).unwrap_err();
        assert!(matches!(error, ExportError::Folder { .. }), "{error}");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        let error = Export::open(&to).unwrap_err();
        assert!(matches!(error, ExportError::Busy { .. }), "{error}");
        drop(export);
        Export::open(&to).unwrap();
    }
}
