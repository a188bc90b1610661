//! A way to the file system that remembers every change, and can refuse one.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use cairn_node::files::{FileError, Files, OpenFile, RealFiles, Stat};

/// A change of the disk; paths are below the recorder's root, files are numbered as they are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    Create {
        file: usize,
        path: PathBuf,
    },
    Write {
        file: usize,
        offset: u64,
        bytes: Vec<u8>,
    },
    Truncate {
        file: usize,
        len: u64,
    },
    Sync {
        file: usize,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    CreateDir {
        path: PathBuf,
    },
    SyncDir {
        path: PathBuf,
    },
}

impl Call {
    /// The same write, with only its first bytes.
    pub(crate) fn cut(&self, len: usize) -> Self {
        match self {
            Self::Write {
                file,
                offset,
                bytes,
            } => Self::Write {
                file: *file,
                offset: *offset,
                bytes: bytes[..len].to_vec(),
            },
            other => other.clone(),
        }
    }

    /// One line for a message.
    pub(crate) fn summary(&self) -> String {
        match self {
            Self::Write {
                file,
                offset,
                bytes,
            } => {
                format!("write {} bytes at {offset} of file {file}", bytes.len())
            }
            other => format!("{other:?}"),
        }
    }
}

/// Which syncs are done.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Syncs {
    /// All that are asked for.
    Kept,
    /// All but those of the files and folders that this says yes to: a control that must lose something.
    Without(fn(&Path) -> bool),
    /// None, and nothing is recorded: for checking what is left, quickly.
    Unrecorded,
}

/// How the disk refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// One call fails with an input/output error.
    Io,
    /// One call finds the disk full.
    Full,
    /// From one call on the disk is full: nothing can be made or written, but removed.
    StaysFull,
}

/// [`RealFiles`] below a folder, with a memory.
#[derive(Debug)]
pub(crate) struct Recorder {
    root: PathBuf,
    syncs: Syncs,
    fault: Option<(usize, Fault)>,
    /// Files seem never to change: what rot looks like.
    rots: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<Call>,
    /// Calls of any kind, also those that only read.
    made: usize,
    failed: Option<String>,
    dead: bool,
    inodes: HashMap<u64, usize>,
    files: usize,
    stats: HashMap<u64, Stat>,
}

impl Recorder {
    /// Records what happens below `root`; with a fault, refuses the call of that number.
    pub(crate) fn new(root: &Path, syncs: Syncs, fault: Option<(usize, Fault)>) -> Self {
        Self {
            root: root.to_owned(),
            syncs,
            fault,
            rots: false,
            state: Mutex::default(),
        }
    }

    /// A disk whose bytes change without their files' times: [`Files::stat`] answers what it did at first.
    pub(crate) fn rotting(root: &Path) -> Self {
        Self {
            rots: true,
            ..Self::new(root, Syncs::Unrecorded, None)
        }
    }

    fn seen_at_first(&self, state: &mut State, stat: Stat) -> Stat {
        if self.rots {
            *state.stats.entry(stat.inode).or_insert(stat)
        } else {
            stat
        }
    }

    /// Changes recorded so far.
    pub(crate) fn recorded(&self) -> usize {
        self.lock().calls.len()
    }

    /// Takes the record.
    pub(crate) fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.lock().calls)
    }

    /// The call that was refused, where it came to that.
    pub(crate) fn failed_call(&self) -> Option<String> {
        self.lock().failed.clone()
    }

    /// Whether a sync failed, so that the process would have ended.
    pub(crate) fn is_dead(&self) -> bool {
        self.lock().dead
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Begins a call: whether it is to be refused, and how.
    fn begin(
        &self,
        operation: &'static str,
        path: &Path,
        grows: bool,
    ) -> (MutexGuard<'_, State>, Option<FileError>) {
        let mut state = self.lock();
        let number = state.made;
        state.made += 1;
        let refused = |code| {
            Some(FileError::new(
                operation,
                path,
                io::Error::from_raw_os_error(code),
            ))
        };
        let (eio, enospc) = (5, 28);
        if state.dead {
            return (state, refused(eio));
        }
        let error = match self.fault {
            Some((at, Fault::Io)) if at == number => refused(eio),
            Some((at, Fault::Full)) if at == number => refused(enospc),
            Some((at, Fault::StaysFull)) if at <= number && grows => refused(enospc),
            _ => None,
        };
        if error.is_some() && state.failed.is_none() {
            state.failed = Some(format!("{operation} {}", self.relative(path).display()));
        }
        (state, error)
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap_or(path).to_owned()
    }

    fn record(&self, state: &mut State, call: Call) {
        if !matches!(self.syncs, Syncs::Unrecorded) {
            state.calls.push(call);
        }
    }

    fn keeps_sync_of(&self, path: &Path) -> bool {
        !matches!(self.syncs, Syncs::Without(is_left_out) if is_left_out(path))
    }

    fn number(state: &mut State, file: &OpenFile, made: bool) -> usize {
        let inode = file.file().metadata().unwrap().ino();
        // A number of the system's is used again when a file is gone; ours are not.
        if made || !state.inodes.contains_key(&inode) {
            state.inodes.insert(inode, state.files);
            state.files += 1;
        }
        state.inodes[&inode]
    }
}

impl Files for Recorder {
    fn create(&self, path: &Path) -> Result<OpenFile, FileError> {
        let (mut state, error) = self.begin("create", path, true);
        error.map_or(Ok(()), Err)?;
        let file = RealFiles.create(path)?;
        let number = Self::number(&mut state, &file, true);
        self.record(
            &mut state,
            Call::Create {
                file: number,
                path: self.relative(path),
            },
        );
        Ok(file)
    }

    fn open_write(&self, path: &Path) -> Result<OpenFile, FileError> {
        let (_state, error) = self.begin("open", path, false);
        error.map_or(Ok(()), Err)?;
        RealFiles.open_write(path)
    }

    fn open_read(&self, path: &Path) -> Result<OpenFile, FileError> {
        let (_state, error) = self.begin("open", path, false);
        error.map_or(Ok(()), Err)?;
        RealFiles.open_read(path)
    }

    fn write_all_at(&self, file: &OpenFile, bytes: &[u8], offset: u64) -> Result<(), FileError> {
        let (mut state, error) = self.begin("write", file.path(), true);
        let number = Self::number(&mut state, file, false);
        // A refused write may have written some of it, unless the process is gone.
        let len = match error {
            Some(_) if state.dead => 0,
            Some(_) => bytes.len() / 2,
            None => bytes.len(),
        };
        RealFiles.write_all_at(file, &bytes[..len], offset)?;
        if len > 0 {
            let bytes = bytes[..len].to_vec();
            self.record(
                &mut state,
                Call::Write {
                    file: number,
                    offset,
                    bytes,
                },
            );
        }
        error.map_or(Ok(()), Err)
    }

    fn write_all_vectored_at(
        &self,
        file: &OpenFile,
        parts: &[Bytes],
        offset: u64,
    ) -> Result<(), FileError> {
        self.write_all_at(file, &parts.concat(), offset)
    }

    fn data_from(&self, file: &OpenFile, offset: u64) -> Result<Option<u64>, FileError> {
        let (_state, error) = self.begin("look for bytes in", file.path(), false);
        error.map_or(Ok(()), Err)?;
        RealFiles.data_from(file, offset)
    }

    fn read_at(&self, file: &OpenFile, buffer: &mut [u8], offset: u64) -> Result<usize, FileError> {
        let (_state, error) = self.begin("read", file.path(), false);
        error.map_or(Ok(()), Err)?;
        RealFiles.read_at(file, buffer, offset)
    }

    fn truncate(&self, file: &OpenFile, len: u64) -> Result<(), FileError> {
        let (mut state, error) = self.begin("truncate", file.path(), false);
        error.map_or(Ok(()), Err)?;
        RealFiles.truncate(file, len)?;
        let number = Self::number(&mut state, file, false);
        self.record(&mut state, Call::Truncate { file: number, len });
        Ok(())
    }

    fn sync(&self, file: &OpenFile) -> Result<(), FileError> {
        let (mut state, error) = self.begin("sync", file.path(), false);
        error.map_or(Ok(()), Err)?;
        // What the disk really holds does not matter here: the images are made from the record.
        if self.keeps_sync_of(file.path()) {
            let number = Self::number(&mut state, file, false);
            self.record(&mut state, Call::Sync { file: number });
        }
        Ok(())
    }

    fn begin_writeback(&self, _file: &OpenFile, _offset: u64, _len: u64) {}

    fn stat(&self, file: &OpenFile) -> Result<Stat, FileError> {
        let (mut state, error) = self.begin("stat", file.path(), false);
        error.map_or(Ok(()), Err)?;
        Ok(self.seen_at_first(&mut state, RealFiles.stat(file)?))
    }

    fn stat_path(&self, path: &Path) -> Result<Option<Stat>, FileError> {
        let (mut state, error) = self.begin("stat", path, false);
        error.map_or(Ok(()), Err)?;
        Ok(RealFiles
            .stat_path(path)?
            .map(|stat| self.seen_at_first(&mut state, stat)))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        let (mut state, error) = self.begin("rename", from, true);
        error.map_or(Ok(()), Err)?;
        RealFiles.rename(from, to)?;
        let call = Call::Rename {
            from: self.relative(from),
            to: self.relative(to),
        };
        self.record(&mut state, call);
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<(), FileError> {
        let (mut state, error) = self.begin("remove", path, false);
        error.map_or(Ok(()), Err)?;
        RealFiles.remove(path)?;
        self.record(
            &mut state,
            Call::Remove {
                path: self.relative(path),
            },
        );
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> Result<(), FileError> {
        let (mut state, error) = self.begin("create folder", path, true);
        error.map_or(Ok(()), Err)?;
        RealFiles.create_dir(path)?;
        self.record(
            &mut state,
            Call::CreateDir {
                path: self.relative(path),
            },
        );
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> Result<(), FileError> {
        let (mut state, error) = self.begin("sync folder", path, false);
        error.map_or(Ok(()), Err)?;
        if self.keeps_sync_of(path) {
            self.record(
                &mut state,
                Call::SyncDir {
                    path: self.relative(path),
                },
            );
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> Result<Vec<String>, FileError> {
        let (_state, error) = self.begin("list", path, false);
        error.map_or(Ok(()), Err)?;
        RealFiles.list(path)
    }

    fn free_bytes(&self, path: &Path) -> Result<u64, FileError> {
        let (_state, error) = self.begin("ask for free space at", path, false);
        error.map_or(Ok(()), Err)?;
        RealFiles.free_bytes(path)
    }

    fn failed_sync(&self, _error: &FileError) {
        self.lock().dead = true;
    }
}
