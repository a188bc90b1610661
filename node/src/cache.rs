//! The cache's bound: what was fetched on demand is kept while there is room for it.
//!
//! A stored file is *cached* when a commit of a foreign repository that is not pinned names it as content
//! and nothing else needs it: no own or pinned repository, and no repository's metadata. Only such files
//! are evicted, the least recently used first, and never one that has a [`Room`] (it is on its way) or that
//! somebody reads.
//!
//! Smaller files stand in the log. They count too, and go all together where they and the others exceed the
//! bound: the log is written anew without them.
//!
//! While a push is under way nothing is evicted: its contents may be those of a cached file, and no head
//! names them yet. The bound may then be exceeded, as far as the disk has room, until the push has ended.

mod reach;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cairn_protocol::hash::{Blake3, RepositoryId};
use cairn_protocol::limits::FLAT_BYTES_MIN;
use cairn_protocol::name::RepoKind;
use cairn_protocol::record::Record;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use tokio_util::sync::CancellationToken;

use self::reach::Reaches;
use crate::repos::{Repo, RepoError, Repos};
use crate::staging::Staging;
use crate::store::{AllBut, Store, StoreError};

/// Part of the disk that stays free where no bound was set.
const FREE_PART: u64 = 10;
/// Bytes of the disk that a cache with a bound of its own leaves free: the store needs them for records.
const RESERVE_BYTES: u64 = 64 << 20;
/// Part of the bound that is freed at least, where anything is, and bytes that this is at most.
const SLACK_PART: u64 = 16;
const SLACK_BYTES_MAX: u64 = 256 << 20;
/// Time between two looks at the bound.
const LOOK_PAUSE: Duration = Duration::from_mins(1);

/// How much is cached, as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct CacheUse {
    /// Files that were fetched and could be evicted.
    pub files: u64,
    /// Their bytes on the disk.
    pub bytes: u64,
    /// Bytes that they may have; what other programs leave free on the disk is in it where no size was set.
    pub bound: u64,
}

/// The bound's keeper; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    repos: Repos,
    disk: Disk,
    bytes: Option<u64>,
    /// Files on their way; never held while anything waits.
    rooms: Mutex<HashMap<Blake3, Coming>>,
    /// What repositories reach, as far as it is remembered. Held by whoever evicts: one at a time.
    reaches: Mutex<Reaches>,
    /// What [`Cache::usage`] found last, and how things stood then: finding out reads the whole log.
    told: Mutex<Option<Told>>,
    /// Held for reading by a push, for writing while files are evicted.
    pushing: RwLock<()>,
    /// A head that is signed and not written yet: what it names, nothing in the log names.
    unsettled: Unsettled,
    /// Never evicted: nothing names it yet.
    staging: Staging,
    /// Bytes of the log when small files were last looked at.
    looked_at: Mutex<Option<u64>>,
}

/// A head that this node signed and that is not in the log yet.
pub(crate) type Unsettled = Arc<std::sync::Mutex<Option<Record>>>;

/// Generation, bytes of flat and of partial files; then files and bytes that are cached.
type Told = ((u64, u64, u64), (u64, u64));

#[derive(Debug, Clone, Copy)]
struct Coming {
    size: u64,
    holders: usize,
    /// Whether it is going to be cached content.
    cached: bool,
}

/// Where the size of the disk and its free bytes are asked.
#[derive(Debug)]
struct Disk {
    path: PathBuf,
    #[cfg(test)]
    told: Mutex<Option<(u64, u64)>>,
}

impl Disk {
    /// Bytes of the disk, and those that are free.
    fn size_and_free(&self) -> Result<(u64, u64), StoreError> {
        #[cfg(test)]
        if let Some(told) = *self.told.lock() {
            return Ok(told);
        }
        let stat = rustix::fs::statvfs(&self.path).map_err(|error| StoreError::Io {
            operation: "ask for free space at",
            path: self.path.clone(),
            source: error.into(),
        })?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok((bytes(stat.f_blocks), bytes(stat.f_bavail)))
    }
}

/// Room for one file on its way; it is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    cache: Arc<Inner>,
    hash: Blake3,
}

/// A file that is going to be fetched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// The repository that claims it; none for one that is to be healed.
    pub(crate) repository: Option<RepositoryId>,
    pub(crate) hash: Blake3,
    pub(crate) size: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut rooms = self.cache.rooms.lock();
        if let Some(coming) = rooms.get_mut(&self.hash) {
            coming.holders -= 1;
            if coming.holders == 0 {
                rooms.remove(&self.hash);
            }
        }
    }
}

/// A cached file.
#[derive(Debug)]
struct Cached {
    hash: Blake3,
    bytes: u64,
    /// When it was last read or written.
    used: u64,
}

/// What stands where, at one moment.
#[derive(Debug)]
struct Picture {
    cached: Vec<Cached>,
    used: u64,
    bound: u64,
}

impl Cache {
    pub(crate) fn new(
        store: Store,
        repos: Repos,
        data: PathBuf,
        bytes: Option<u64>,
        unsettled: Unsettled,
        staging: Staging,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                repos,
                disk: Disk {
                    path: data,
                    #[cfg(test)]
                    told: Mutex::new(None),
                },
                bytes,
                rooms: Mutex::default(),
                reaches: Mutex::default(),
                told: Mutex::default(),
                pushing: RwLock::default(),
                unsettled,
                staging,
                looked_at: Mutex::default(),
            }),
        }
    }

    /// Keeps eviction away while it is held: for a push, whose contents no head names yet.
    pub(crate) fn pushing(&self) -> RwLockReadGuard<'_, ()> {
        // Recursive, so that a waiting eviction holds up no second push: it never waits anyway.
        self.inner.pushing.read_recursive()
    }

    /// Makes room for files on their way, by evicting others where it must; none of them is evicted while
    /// its room is held. Blocking.
    ///
    /// [`StoreError::CacheFull`] where what is going to be cached does not fit, whatever is evicted.
    pub(crate) fn make_room(&self, wanted: &[Wanted]) -> Result<Vec<Room>, StoreError> {
        // Taken first, so that two files never count on the same room. Smaller ones go into the log, which
        // is not evicted from.
        let flat = wanted.iter().filter(|file| file.size >= FLAT_BYTES_MIN);
        let mut asked = 0_u64;
        let rooms: Vec<Room> = flat
            .map(|file| {
                let cached = !self.is_kept(file.repository.as_ref());
                asked += if cached { file.size } else { 0 };
                // Until somebody reads it, being fetched for somebody counts as its last use.
                self.inner.store.wanted(&file.hash);
                self.announce(file, cached)
            })
            .collect();
        if asked > 0 && !self.fits_surely()? {
            self.evict(Some(asked))?;
        }
        Ok(rooms)
    }

    /// Whether what a repository claims is no cache; what is asked for on nobody's behalf is to be healed.
    pub(crate) fn is_kept(&self, repository: Option<&RepositoryId>) -> bool {
        repository.is_none_or(|repository| self.inner.repos.is_kept(repository))
    }

    /// Whether some of what is stored may be private.
    pub(crate) fn has_private(&self) -> bool {
        self.inner.repos.has_private()
    }

    /// Evicts what exceeds the bound, as far as it can. Blocking.
    pub(crate) fn enforce(&self) {
        let done = match self.fits_surely() {
            Ok(true) => return,
            Ok(false) => self.evict(None),
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            tracing::warn!(%error, "the cache's bound was not looked at");
        }
    }

    /// Looks at the bound from time to time until `stop`.
    pub(crate) async fn watch(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_PAUSE) => {}
            }
            let cache = self.clone();
            let look = move || {
                cache.enforce();
                if let Err(error) = cache.shed() {
                    tracing::warn!(%error, "small files in the cache were not looked at");
                }
            };
            if let Err(error) = tokio::task::spawn_blocking(look).await {
                tracing::error!(%error, "the look at the cache's bound failed");
            }
        }
    }

    /// Evicts the small files where they and the others exceed the bound. Blocking: it reads the log, and
    /// waits for pushes under way.
    fn shed(&self) -> Result<(), RepoError> {
        let Inner { store, repos, .. } = &*self.inner;
        let log_bytes = store.stats().log_bytes;
        let most = store.flat_bytes().saturating_add(log_bytes);
        if self.fits_surely()? && self.inner.bytes.is_none_or(|bound| most <= bound) {
            return Ok(());
        }
        {
            // Not again for what was found before, whatever of it is somebody's.
            let bound = self.inner.bytes.unwrap_or(u64::MAX);
            let step = SLACK_BYTES_MAX.min(bound / SLACK_PART);
            let mut looked_at = self.inner.looked_at.lock();
            if let Some(then) = *looked_at
                && log_bytes < then.saturating_add(step)
            {
                *looked_at = Some(log_bytes.min(then));
                return Ok(());
            }
            *looked_at = Some(log_bytes);
        }
        let flats = self.picture(&mut self.inner.reaches.lock())?.used;
        let mut bytes = 0;
        for (hash, size) in crate::garbage::small_cached(store, repos)? {
            bytes += if store.contains(&hash)? { size } else { 0 };
        }
        if bytes == 0 || flats + bytes <= self.bound(flats + bytes)? {
            return Ok(());
        }
        // No push is under way while the store is held, and none begins.
        let alone = store.exclusive();
        // Not waited for: who is at it may wait for the store.
        let unsettled = self.inner.unsettled.try_lock();
        if !unsettled.is_ok_and(|head| head.is_none()) {
            return Ok(());
        }
        let mut small = crate::garbage::small_cached(store, repos)?;
        let staged = self.inner.staging.contents();
        small.retain(|hash, _| !staged.contains(hash));
        let swept = alone.sweep(&AllBut(small.into_keys().collect()), false)?;
        *self.inner.looked_at.lock() = Some(store.stats().log_bytes);
        tracing::info!(
            files = swept.blobs,
            bytes = swept.bytes,
            "evicted small files from the cache"
        );
        Ok(())
    }

    /// How much is cached, the small files left out. Blocking.
    pub(crate) fn usage(&self) -> Result<CacheUse, RepoError> {
        let inner = &self.inner;
        let partials = inner.store.partials();
        let state = (
            inner.repos.generation(),
            inner.store.flat_bytes(),
            partials.iter().map(|(_, _, bytes)| bytes).sum(),
        );
        if let Some((then, (files, used))) = *inner.told.lock()
            && then == state
        {
            let bound = self.bound(used)?;
            return Ok(CacheUse {
                files,
                bytes: used,
                bound,
            });
        }
        let picture = self.picture(&mut inner.reaches.lock())?;
        let files = picture.cached.len() as u64;
        *inner.told.lock() = Some((state, (files, picture.used)));
        Ok(CacheUse {
            files,
            bytes: picture.used,
            bound: picture.bound,
        })
    }

    /// Bytes that cached files may have, where they have `used` now.
    fn bound(&self, used: u64) -> Result<u64, StoreError> {
        let (size, free) = self.inner.disk.size_and_free()?;
        let most = used.saturating_add(free);
        Ok(match self.inner.bytes {
            None => most.saturating_sub(size / FREE_PART),
            Some(bytes) => bytes.min(most.saturating_sub(RESERVE_BYTES)),
        })
    }

    fn announce(&self, file: &Wanted, cached: bool) -> Room {
        let mut rooms = self.inner.rooms.lock();
        let coming = rooms.entry(file.hash).or_insert(Coming {
            size: file.size,
            holders: 0,
            cached,
        });
        coming.holders += 1;
        // Wanted by a kept repository too, it is content to be kept.
        coming.cached &= cached;
        Room {
            cache: Arc::clone(&self.inner),
            hash: file.hash,
        }
    }

    /// Bytes that files on their way still lack: of all, and of those that are going to be cached.
    fn coming(&self) -> (u64, u64) {
        let rooms = self.inner.rooms.lock().clone();
        if rooms.is_empty() {
            return (0, 0);
        }
        let here: HashMap<Blake3, u64> = self
            .inner
            .store
            .partials()
            .into_iter()
            .map(|(hash, _, bytes)| (hash, bytes))
            .collect();
        let mut sums = (0_u64, 0_u64);
        for (hash, coming) in rooms {
            let lacks = coming
                .size
                .saturating_sub(here.get(&hash).copied().unwrap_or(0));
            sums.0 = sums.0.saturating_add(lacks);
            if coming.cached {
                sums.1 = sums.1.saturating_add(lacks);
            }
        }
        sums
    }

    /// Whether everything is within the bound, as far as that can be told without knowing what is cached.
    fn fits_surely(&self) -> Result<bool, StoreError> {
        let (size, free) = self.inner.disk.size_and_free()?;
        let (coming, coming_cached) = self.coming();
        Ok(match self.inner.bytes {
            None => free.saturating_sub(coming) >= size / FREE_PART,
            Some(bound) => {
                let partial = |(_, _, bytes)| -> u64 { bytes };
                let partials: u64 = self.inner.store.partials().into_iter().map(partial).sum();
                let most = self.inner.store.flat_bytes().saturating_add(partials);
                most.saturating_add(coming_cached) <= bound
                    && free.saturating_sub(coming) >= RESERVE_BYTES
            }
        })
    }

    /// Evicts until everything fits that is here and on its way. For a file of `asked` bytes: or fails, and
    /// then evicts nothing.
    fn evict(&self, asked: Option<u64>) -> Result<(), StoreError> {
        let inner = &self.inner;
        let mut reaches = inner.reaches.lock();
        let generation = inner.repos.generation();
        let mut picture = match self.picture(&mut reaches) {
            Ok(picture) => picture,
            Err(RepoError::Store(error)) => return Err(error),
            Err(error) => {
                // Nothing is deleted while something reachable can't be read.
                tracing::warn!(%error, "nothing is evicted from the cache");
                return self.exceed(asked, 0);
            }
        };
        let (_, coming) = self.coming();
        let excess = (picture.used.saturating_add(coming)).saturating_sub(picture.bound);
        if excess == 0 {
            return Ok(());
        }
        let Some(_turn) = inner.pushing.try_write() else {
            return self.exceed(asked, picture.bound);
        };
        {
            let rooms = inner.rooms.lock();
            // Nobody stages one while the turn is held.
            let staged = inner.staging.contents();
            picture.cached.retain(|file| {
                !rooms.contains_key(&file.hash)
                    && !inner.store.is_read(&file.hash)
                    && !staged.contains(&file.hash)
            });
        }
        let evictable: u64 = picture.cached.iter().map(|file| file.bytes).sum();
        if let Some(size) = asked
            && evictable < excess
        {
            return Err(StoreError::CacheFull {
                size,
                bound: picture.bound,
            });
        }
        picture.cached.sort_by_key(|file| file.used);
        // Not less than this, so that many small files don't each ask for it again.
        let excess = excess.max(SLACK_BYTES_MAX.min(picture.bound / SLACK_PART));
        let mut freed = 0;
        let mut number = 0_u64;
        for file in picture.cached {
            // A head that came meanwhile may need what this picture shows as cached.
            if freed >= excess || inner.repos.generation() != generation {
                break;
            }
            freed += inner.store.evict(&file.hash)?;
            number += 1;
        }
        tracing::info!(files = number, bytes = freed, "evicted from the cache");
        Ok(())
    }

    /// Lets the bound be exceeded for now, as far as the disk has room.
    fn exceed(&self, asked: Option<u64>, bound: u64) -> Result<(), StoreError> {
        let Some(size) = asked else { return Ok(()) };
        let (_, free) = self.inner.disk.size_and_free()?;
        if free.saturating_sub(self.coming().0) >= RESERVE_BYTES {
            return Ok(());
        }
        Err(StoreError::CacheFull { size, bound })
    }

    /// Every cached file, and the bound that holds now.
    fn picture(&self, reaches: &mut Reaches) -> Result<Picture, RepoError> {
        let inner = &self.inner;
        let mut stored: HashMap<Blake3, (u64, u64)> = HashMap::new();
        inner.store.flats(&mut |hash, bytes| {
            stored.insert(hash, (bytes, inner.store.last_use(&hash)));
        })?;
        for (hash, _, bytes) in inner.store.partials() {
            stored.insert(hash, (bytes, inner.store.last_use(&hash)));
        }
        let repos: Vec<Repo> = RepoKind::ALL
            .into_iter()
            .flat_map(|kind| inner.repos.list(kind))
            .collect();
        let is_kept = |repo: &Repo| inner.repos.is_kept(&repo.id());
        let mut cached = reaches.cached(&inner.repos, &repos, &stored, &is_kept)?;
        let staged = inner.staging.contents();
        cached.retain(|hash| !staged.contains(hash));
        let cached: Vec<Cached> = cached
            .into_iter()
            .filter_map(|hash| {
                let (bytes, used) = *stored.get(&hash)?;
                Some(Cached { hash, bytes, used })
            })
            .collect();
        let used: u64 = cached.iter().map(|file| file.bytes).sum();
        Ok(Picture {
            cached,
            used,
            bound: self.bound(used)?,
        })
    }
}

#[cfg(test)]
mod tests;
