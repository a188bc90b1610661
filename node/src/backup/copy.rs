//! Copies of files and folders, each durable before the next counts on it.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use cairn_protocol::hash::Blake3;

use super::BackupError;

/// Bytes that are hashed and written at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// Opens a file for writing that nobody else may read; makes it where it is missing.
pub(super) fn open_new(path: &Path) -> Result<File, BackupError> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(BackupError::io("open", path))
}

/// Makes a folder that nobody else may read, and the ones above it.
pub(super) fn made_durably(folder: &Path) -> Result<(), BackupError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(BackupError::io("create", folder))?;
    folder.parent().map_or(Ok(()), sync)
}

/// Makes the names in a folder durable.
pub(super) fn sync(folder: &Path) -> Result<(), BackupError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(BackupError::io("sync", folder))
}

/// Copies a file as far as it goes now; its bytes are durable on return, its name is with [`sync`].
pub(super) fn copy_file(from: &Path, to: &Path) -> Result<u64, BackupError> {
    let source = File::open(from).map_err(BackupError::io("read", from))?;
    let len = source
        .metadata()
        .map_err(BackupError::io("read", from))?
        .len();
    let mut target = open_new(to)?;
    target
        .set_len(0)
        .and_then(|()| io::copy(&mut source.take(len), &mut target))
        .and_then(|copied| target.sync_all().map(|()| copied))
        .map_err(BackupError::io("write", to))
}

/// Copies all files of a folder and of those in it; bytes copied. Nothing where it is missing.
///
/// In the order of their names, so that of numbered segments none is missing before another; a file that goes
/// meanwhile is left out.
pub(super) fn copy_folder(from: &Path, to: &Path) -> Result<u64, BackupError> {
    let mut names = match fs::read_dir(from) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(BackupError::io("read", from))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(BackupError::io("read", from)(error)),
    };
    names.sort_unstable();
    made_durably(to)?;
    let mut copied = 0;
    for name in names {
        let (source, target) = (from.join(&name), to.join(&name));
        let is_folder = match fs::symlink_metadata(&source) {
            Ok(metadata) => metadata.is_dir(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(BackupError::io("read", &source)(error)),
        };
        let done = if is_folder {
            copy_folder(&source, &target)
        } else if source
            .extension()
            .is_some_and(|extension| extension == "new" || extension == "tmp")
        {
            // Not in its place yet.
            Ok(0)
        } else {
            copy_file(&source, &target)
        };
        match done {
            Err(BackupError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            done => copied += done?,
        }
    }
    sync(to)?;
    Ok(copied)
}

/// Where the content of a hash stands in a data folder or backup.
pub(super) fn blob_path(root: &Path, hash: &Blake3) -> PathBuf {
    let name = hash.to_hex();
    root.join("blobs").join(&name[..2]).join(name)
}

/// Copies a content and its piece list, unless it is there in its full size; bytes copied. Nothing where the
/// source is missing, or with `verify` is not what its name says.
pub(super) fn copy_blob(
    from: &Path,
    to: &Path,
    hash: &Blake3,
    size: u64,
    verify: bool,
) -> Result<Option<u64>, BackupError> {
    let (source, target) = (blob_path(from, hash), blob_path(to, hash));
    if fs::metadata(&target).is_ok_and(|metadata| metadata.len() == size) {
        return Ok(Some(0));
    }
    let mut file = match File::open(&source) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(BackupError::io("read", &source)(error)),
    };
    let folder = target
        .parent()
        .expect("invariant: a blob stands in a folder");
    made_durably(folder)?;
    let pieces = source.with_extension("pieces");
    if pieces.exists() {
        copy_file(&pieces, &target.with_extension("pieces"))?;
    }
    let temporary = target.with_extension("tmp");
    let copied = if verify {
        let mut out = open_new(&temporary)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut copied = 0;
        out.set_len(0)
            .map_err(BackupError::io("write", &temporary))?;
        loop {
            let read = file
                .read(&mut buffer)
                .map_err(BackupError::io("read", &source))?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            out.write_all(&buffer[..read])
                .map_err(BackupError::io("write", &temporary))?;
            copied += read as u64;
        }
        out.sync_all()
            .map_err(BackupError::io("write", &temporary))?;
        if Blake3::from_bytes(*hasher.finalize().as_bytes()) != *hash {
            fs::remove_file(&temporary).map_err(BackupError::io("remove", &temporary))?;
            return Ok(None);
        }
        copied
    } else {
        copy_file(&source, &temporary)?
    };
    fs::rename(&temporary, &target).map_err(BackupError::io("write", &target))?;
    sync(folder)?;
    Ok(Some(copied))
}

/// Removes the contents that are not among these.
pub(super) fn remove_other_blobs(backup: &Path, kept: &HashSet<Blake3>) -> Result<(), BackupError> {
    let root = backup.join("blobs");
    for folder in fs::read_dir(&root).into_iter().flatten().flatten() {
        let folder = folder.path();
        let entries = fs::read_dir(&folder).map_err(BackupError::io("read", &folder))?;
        for entry in entries.flatten() {
            let path = entry.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let hash = stem.and_then(|stem| stem.parse::<Blake3>().ok());
            if !hash.is_some_and(|hash| kept.contains(&hash)) {
                fs::remove_file(&path).map_err(BackupError::io("remove", &path))?;
            }
        }
    }
    Ok(())
}
