//! A disk in memory that loses power.
//!
//! Models, each drawn from the seed of [`CrashDisk::crash`]: unsynced bytes of a file that are
//! lost, kept, kept up to some write with the next one torn, or kept in any order (by sector);
//! names that were not synced, lost from some point on in each directory. Synced bytes and names
//! always survive. Process death without power loss is simply dropping every handle: nothing is
//! lost then.
//!
//! A failed sync is modelled too, see [`CrashDisk::fail_next_sync`].
//!
//! So are sectors that cannot be read any more, see [`CrashDisk::make_unreadable`].
//!
//! Does not model by itself: bit rot and misdirected writes (see [`CrashDisk::flip_bit`] and
//! [`CrashDisk::overwrite`]), a bounded size.

mod directory;
mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::disk::{Disk, File};
use directory::Directory;
use file::{MemoryFile, OpenFile};

/// Free space reported.
const FREE_BYTES: u64 = 1 << 40;

type NodeId = u64;

enum Node {
    File(MemoryFile),
    Directory(Directory),
}

struct World {
    nodes: BTreeMap<NodeId, Node>,
    next_id: NodeId,
    /// Counts crashes: handles and locks of an earlier life are dead.
    life: u64,
    locks: BTreeMap<PathBuf, u64>,
    /// Files whose next sync fails.
    failing_syncs: Vec<NodeId>,
    /// With so many nodes those are forgotten that nobody can reach.
    collect_at: usize,
}

const ROOT: NodeId = 0;

/// Nodes up to which nothing is forgotten.
const NODES_MIN: usize = 64;

/// What a power cut did to what was not synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Writes that are there all the same.
    pub kept: u64,
    /// Writes of which nothing is left.
    pub writes: u64,
    /// Writes of which a part is left.
    pub torn: u64,
    /// New names that are gone.
    pub creates: u64,
    /// Names that are back.
    pub removes: u64,
    /// Names that are the old ones again.
    pub renames: u64,
}

/// The disk; clones are the same disk.
#[derive(Clone)]
pub struct CrashDisk {
    world: Arc<Mutex<World>>,
}

impl Default for CrashDisk {
    fn default() -> CrashDisk {
        CrashDisk::new()
    }
}

impl CrashDisk {
    /// An empty disk.
    pub fn new() -> CrashDisk {
        CrashDisk {
            world: Arc::new(Mutex::new(World::empty())),
        }
    }

    /// The power fails. Handles opened before are dead; what they wrote and did not sync fares as
    /// `seed` decides.
    pub fn crash(&self, seed: u64) -> Lost {
        let mut lost = Lost::default();
        let mut chance = Chance(seed.wrapping_mul(2).wrapping_add(1));
        let mut world = self.world();
        world.life += 1;
        world.locks.clear();
        for node in world.nodes.values_mut() {
            match node {
                Node::File(file) => file.crash(&mut chance, &mut lost),
                Node::Directory(directory) => directory.crash(&mut chance, &mut lost),
            }
        }
        lost
    }

    /// The next sync of a file fails, and after it the page cache lies, as Linux's does: what was
    /// not durable can still be read, later syncs say that all is well, and a power cut takes it.
    pub fn fail_next_sync(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        let id = world.find(path)?;
        world.failing_syncs.push(id);
        Ok(())
    }

    /// Flips one bit of a file, on the disk itself.
    pub fn flip_bit(&self, path: &Path, position: u64, bit: u32) -> io::Result<()> {
        let mut world = self.world();
        let id = world.find(path)?;
        world.file(id)?.flip_bit(position, bit)
    }

    /// Puts other bytes into a file, on the disk itself.
    pub fn overwrite(&self, path: &Path, position: u64, bytes: &[u8]) -> io::Result<()> {
        let mut world = self.world();
        let id = world.find(path)?;
        world.file(id)?.overwrite(position, bytes);
        Ok(())
    }

    /// The disk does not give back any more what stands in the sectors that hold these bytes: whoever reads there is told
    /// `EIO`, and so is whoever writes a part of such a page, until they were written anew. Power cuts change nothing about it.
    pub fn make_unreadable(&self, path: &Path, bytes: Range<u64>) -> io::Result<()> {
        let mut world = self.world();
        let id = world.find(path)?;
        world.file(id)?.make_unreadable(bytes);
        Ok(())
    }

    /// What stands in a file, whether or not the disk gives it back to who reads it.
    pub fn content(&self, path: &Path) -> io::Result<Bytes> {
        let mut world = self.world();
        let id = world.find(path)?;
        Ok(world.file(id)?.content())
    }

    /// Takes all bytes from a file, on the disk itself.
    pub fn empty(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        let id = world.find(path)?;
        world.file(id)?.empty();
        Ok(())
    }

    /// Forgets everything that it holds, as a new disk.
    pub fn discard(&self) {
        let mut world = self.world();
        let life = world.life + 1;
        *world = World::empty();
        world.life = life;
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }
}

/// A small generator of its own, so that a crash depends on nothing but its seed (splitmix64).
pub(super) struct Chance(u64);

impl Chance {
    /// A number below `bound`, which must not be 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

fn names(path: &Path) -> Vec<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_os_string()),
        _ => None,
    };
    path.components().filter_map(name).collect()
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl World {
    fn empty() -> World {
        World {
            nodes: BTreeMap::from([(ROOT, Node::Directory(Directory::default()))]),
            next_id: ROOT + 1,
            life: 0,
            locks: BTreeMap::new(),
            failing_syncs: Vec::new(),
            collect_at: NODES_MIN,
        }
    }

    /// Forgets what no directory names, or would name after a crash, and nobody has open.
    fn collect(&mut self) {
        let mut named = BTreeSet::from([ROOT]);
        let mut looked_at = vec![ROOT];
        while let Some(id) = looked_at.pop() {
            if let Some(Node::Directory(directory)) = self.nodes.get(&id) {
                looked_at.extend(directory.all_nodes().filter(|node| named.insert(*node)));
            }
        }
        self.nodes.retain(|id, node| {
            let is_open = matches!(node, Node::File(file) if file.is_open());
            is_open || named.contains(id)
        });
        self.collect_at = (2 * self.nodes.len()).max(NODES_MIN);
    }

    fn find(&self, path: &Path) -> io::Result<NodeId> {
        let mut id = ROOT;
        for name in names(path) {
            id = self.directory(id)?.get(&name).ok_or_else(not_found)?;
        }
        Ok(id)
    }

    /// The directory that holds `path`, and its name there.
    fn place(&self, path: &Path) -> io::Result<(NodeId, OsString)> {
        let mut names = names(path);
        let name = names.pop().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.find(&names.iter().collect::<PathBuf>())?, name))
    }

    fn directory(&self, id: NodeId) -> io::Result<&Directory> {
        match self.nodes.get(&id) {
            Some(Node::Directory(directory)) => Ok(directory),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn set_name(&mut self, dir: NodeId, name: OsString, node: Option<NodeId>) -> io::Result<()> {
        match self.nodes.get_mut(&dir) {
            Some(Node::Directory(directory)) => {
                directory.set(name, node);
                Ok(())
            }
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn file(&mut self, id: NodeId) -> io::Result<&mut MemoryFile> {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn add(&mut self, node: Node) -> NodeId {
        if self.nodes.len() >= self.collect_at {
            self.collect();
        }
        let id = self.next_id;
        self.next_id += 1;
        self.nodes.insert(id, node);
        id
    }
}

impl CrashDisk {
    fn handle(&self, node: NodeId) -> io::Result<Arc<dyn File>> {
        let mut world = self.world();
        Ok(Arc::new(OpenFile {
            life: world.life,
            _open: world.file(node)?.opened(),
            disk: self.clone(),
            node,
        }))
    }
}

impl Disk for CrashDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let node = {
            let mut world = self.world();
            let (dir, name) = world.place(path)?;
            match world.directory(dir)?.get(&name) {
                Some(node) => {
                    world.file(node)?.set_len(0);
                    node
                }
                None => {
                    let node = world.add(Node::File(MemoryFile::default()));
                    world.set_name(dir, name, Some(node))?;
                    node
                }
            }
        };
        self.handle(node)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let node = {
            let mut world = self.world();
            let node = world.find(path)?;
            world.file(node)?;
            node
        };
        self.handle(node)
    }

    fn exists(&self, path: &Path) -> bool {
        self.world().find(path).is_ok()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let world = self.world();
        let id = world.find(dir)?;
        Ok(world
            .directory(id)?
            .names()
            .map(|name| dir.join(name))
            .collect())
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.world();
        let mut id = ROOT;
        for name in names(dir) {
            id = match world.directory(id)?.get(&name) {
                Some(child) => child,
                None => {
                    let child = world.add(Node::Directory(Directory::default()));
                    world.set_name(id, name, Some(child))?;
                    child
                }
            };
        }
        world.directory(id).map(|_| ())
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.world();
        let id = world.find(dir)?;
        world.directory(id)?;
        let (parent, name) = world.place(dir)?;
        world.set_name(parent, name, None)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        let node = world.find(from)?;
        let (from_dir, from_name) = world.place(from)?;
        let (to_dir, to_name) = world.place(to)?;
        if from_dir == to_dir {
            match world.nodes.get_mut(&to_dir) {
                Some(Node::Directory(directory)) => directory.rename(from_name, to_name, node),
                _ => return Err(io::ErrorKind::NotADirectory.into()),
            }
            return Ok(());
        }
        // Across directories the two halves become durable one by one; the product does not rely on
        // more.
        world.set_name(to_dir, to_name, Some(node))?;
        world.set_name(from_dir, from_name, None)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        let node = world.find(from)?;
        world.file(node)?;
        let (dir, name) = world.place(to)?;
        if world.directory(dir)?.get(&name).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        world.set_name(dir, name, Some(node))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        let node = world.find(path)?;
        world.file(node)?;
        let (dir, name) = world.place(path)?;
        world.set_name(dir, name, None)
    }

    fn sync_dir(&self, dir: &Path) -> BoxFuture<'static, io::Result<()>> {
        let (disk, dir) = (self.clone(), dir.to_path_buf());
        async move {
            let mut world = disk.world();
            let id = world.find(&dir)?;
            match world.nodes.get_mut(&id) {
                Some(Node::Directory(directory)) => directory.sync(),
                _ => return Err(io::ErrorKind::NotADirectory.into()),
            }
            Ok(())
        }
        .boxed()
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        Ok(FREE_BYTES)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        if !self.exists(path) {
            self.create(path)?;
        }
        let mut world = self.world();
        let life = world.life;
        if world.locks.insert(path.to_path_buf(), life).is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Lock {
            disk: self.clone(),
            path: path.to_path_buf(),
            life,
        }))
    }
}

struct Lock {
    disk: CrashDisk,
    path: PathBuf,
    life: u64,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut world = self.disk.world();
        // A lock that survived a crash of the disk must not release its successor's.
        if world.locks.get(&self.path) == Some(&self.life) {
            world.locks.remove(&self.path);
        }
    }
}
