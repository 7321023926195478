//! The contract of [`Disk`] and [`File`], as far as it can be seen without a power cut. Every disk
//! passes it.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::{Disk, File};

/// Runs the whole contract in the directory `root`, which must be empty or not exist yet.
pub async fn disk_contract(disk: Arc<dyn Disk>, root: &Path) {
    directories(&*disk, &root.join("directories")).await;
    names(&*disk, &root.join("names")).await;
    bytes(&*disk, &root.join("bytes")).await;
    lengths(&*disk, &root.join("lengths")).await;
    many_buffers(&*disk, &root.join("buffers")).await;
    locks(&*disk, &root.join("locks"));
}

fn kind<T>(result: std::io::Result<T>) -> ErrorKind {
    result.err().expect("must fail").kind()
}

fn read(file: &Arc<dyn File>) -> Vec<u8> {
    let mut buffer = vec![0; file.len().unwrap() as usize + 1];
    let count = file.read_at(0, &mut buffer).unwrap();
    buffer.truncate(count);
    buffer
}

async fn directories(disk: &dyn Disk, root: &Path) {
    assert!(!disk.exists(root));
    assert_eq!(kind(disk.list(root)), ErrorKind::NotFound);
    assert_eq!(kind(disk.remove_dir_all(root)), ErrorKind::NotFound);
    assert!(disk.sync_dir(root).await.is_err());
    disk.create_dir_all(&root.join("b/c")).unwrap();
    disk.create_dir_all(&root.join("b/c")).unwrap();
    disk.create(&root.join("a")).unwrap();
    disk.create(&root.join("b/d")).unwrap();
    assert_eq!(
        disk.list(root).unwrap(),
        [root.join("a"), root.join("b")],
        "sorted, not recursive"
    );
    disk.sync_dir(root).await.unwrap();
    disk.rename(&root.join("b"), &root.join("z")).unwrap();
    assert!(disk.exists(&root.join("z/d")) && !disk.exists(&root.join("b")));
    disk.remove_dir_all(&root.join("z")).unwrap();
    assert_eq!(disk.list(root).unwrap(), [root.join("a")]);
    assert!(disk.free_bytes(root).unwrap() > 0);
    assert!(disk.create(&root.join("nowhere/a")).is_err());
}

async fn names(disk: &dyn Disk, root: &Path) {
    disk.create_dir_all(root).unwrap();
    let (a, b, c) = (root.join("a"), root.join("b"), root.join("c"));
    assert_eq!(kind(disk.open(&a)), ErrorKind::NotFound);
    assert_eq!(kind(disk.remove(&a)), ErrorKind::NotFound);
    assert_eq!(kind(disk.rename(&a, &b)), ErrorKind::NotFound);
    let file = disk.create(&a).unwrap();
    file.write_at(0, &[Bytes::from_static(b"one")]).unwrap();
    disk.create(&b)
        .unwrap()
        .write_at(0, &[Bytes::from_static(b"two")])
        .unwrap();
    disk.rename(&a, &b).unwrap();
    assert!(!disk.exists(&a));
    assert_eq!(
        read(&disk.open(&b).unwrap()),
        b"one",
        "a rename replaces its target"
    );
    file.write_at(3, &[Bytes::from_static(b"!")]).unwrap();
    assert_eq!(
        read(&disk.open(&b).unwrap()),
        b"one!",
        "open files follow a rename"
    );
    disk.link(&b, &c).unwrap();
    assert_eq!(kind(disk.link(&b, &c)), ErrorKind::AlreadyExists);
    disk.remove(&b).unwrap();
    assert_eq!(
        read(&disk.open(&c).unwrap()),
        b"one!",
        "a link keeps the file"
    );
    disk.remove(&c).unwrap();
    assert_eq!(read(&file), b"one!", "an open file outlives its name");
    disk.create(&a)
        .unwrap()
        .write_at(0, &[Bytes::from_static(b"x")])
        .unwrap();
    assert_eq!(read(&disk.create(&a).unwrap()), b"", "create empties");
    disk.sync_dir(root).await.unwrap();
}

async fn bytes(disk: &dyn Disk, root: &Path) {
    disk.create_dir_all(root).unwrap();
    let file = disk.create(&root.join("file")).unwrap();
    assert!(file.is_empty().unwrap());
    let piece = |text: &'static str| Bytes::from_static(text.as_bytes());
    file.write_at(2, &[piece("cd"), Bytes::new(), piece("ef")])
        .unwrap();
    assert_eq!(read(&file), b"\0\0cdef", "a gap reads as zeros");
    file.clone()
        .write_and_sync(0, vec![piece("a"), piece("b")])
        .await
        .unwrap();
    assert_eq!(read(&file), b"abcdef");
    let mut buffer = [0; 4];
    assert_eq!(file.read_at(4, &mut buffer).unwrap(), 2, "short at the end");
    assert_eq!(&buffer[..2], b"ef");
    assert_eq!(file.read_at(6, &mut buffer).unwrap(), 0);
    assert_eq!(file.read_at(600, &mut buffer).unwrap(), 0);
    assert_eq!(
        read(&disk.open(&root.join("file")).unwrap()),
        b"abcdef",
        "handles share the file"
    );
    file.write_at(0, &[]).unwrap();
    file.clone().write_and_sync(0, Vec::new()).await.unwrap();
    file.clone().sync().await.unwrap();
    assert_eq!(read(&file), b"abcdef");
}

async fn lengths(disk: &dyn Disk, root: &Path) {
    disk.create_dir_all(root).unwrap();
    let file = disk.create(&root.join("file")).unwrap();
    file.write_at(0, &[Bytes::from_static(b"abc")]).unwrap();
    file.preallocate(8).unwrap();
    assert_eq!(read(&file), b"abc\0\0\0\0\0");
    file.preallocate(2).unwrap();
    assert_eq!(file.len().unwrap(), 8, "preallocating never cuts");
    file.set_len(2).unwrap();
    assert_eq!(read(&file), b"ab");
    file.set_len(4).unwrap();
    assert_eq!(read(&file), b"ab\0\0", "what was cut does not come back");
    file.sync().await.unwrap();
}

/// More buffers than one system call takes.
async fn many_buffers(disk: &dyn Disk, root: &Path) {
    disk.create_dir_all(root).unwrap();
    let file = disk.create(&root.join("file")).unwrap();
    let buffers: Vec<Bytes> = (0..3_000_u32)
        .map(|number| Bytes::from(number.to_be_bytes().to_vec()))
        .collect();
    file.clone()
        .write_and_sync(1, buffers.clone())
        .await
        .unwrap();
    assert_eq!(read(&file)[1..], buffers.concat());
}

fn locks(disk: &dyn Disk, root: &Path) {
    disk.create_dir_all(root).unwrap();
    let path = root.join("lock");
    let held = disk.lock(&path).unwrap();
    assert_eq!(kind(disk.lock(&path)), ErrorKind::WouldBlock);
    drop(held);
    let held = disk.lock(&path).unwrap();
    drop(held);
    assert!(disk.exists(&path), "the lock's file stays");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CrashDisk, Fault, FaultyDisk, Operation};
    use crate::{OsDisk, disk::Disk};

    #[tokio::test]
    async fn the_operating_system_keeps_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        disk_contract(Arc::new(OsDisk::new()), dir.path()).await;
    }

    #[tokio::test]
    async fn the_crashing_disk_keeps_the_contract() {
        disk_contract(Arc::new(CrashDisk::new()), Path::new("/data")).await;
    }

    #[tokio::test]
    async fn the_faulty_disk_keeps_the_contract_while_it_has_no_faults() {
        disk_contract(
            Arc::new(FaultyDisk::new(Arc::new(CrashDisk::new()))),
            Path::new("/data"),
        )
        .await;
    }

    /// Catches a crash that takes what was synced, or that never takes anything.
    #[tokio::test]
    async fn a_crash_keeps_what_was_synced_and_only_sometimes_the_rest() {
        let (mut kept, mut lost, mut torn) = (0, 0, 0);
        for seed in 0..200 {
            let disk = CrashDisk::new();
            let root = Path::new("/data");
            disk.create_dir_all(root).unwrap();
            disk.sync_dir(Path::new("/")).await.unwrap();
            let file = disk.create(&root.join("file")).unwrap();
            disk.sync_dir(root).await.unwrap();
            file.clone()
                .write_and_sync(0, vec![Bytes::from(vec![1; 2000])])
                .await
                .unwrap();
            file.write_at(2000, &[Bytes::from(vec![2; 2000])]).unwrap();
            disk.create(&root.join("unsynced")).unwrap();
            disk.crash(seed);
            assert!(file.len().is_err(), "handles die with the machine");
            let bytes = read(&disk.open(&root.join("file")).unwrap());
            assert_eq!(bytes[..2000], [1; 2000]);
            match bytes[2000..].iter().filter(|byte| **byte == 2).count() {
                0 => lost += 1,
                2000 => kept += 1,
                _ => torn += 1,
            }
        }
        assert!(
            kept > 10 && lost > 10 && torn > 10,
            "kept {kept}, lost {lost}, torn {torn}"
        );
    }

    /// Catches names that survive although nobody synced their directory, and half-done renames.
    #[tokio::test]
    async fn a_crash_takes_unsynced_names_and_never_half_a_rename() {
        let (mut kept, mut lost) = (0, 0);
        for seed in 0..200 {
            let disk = CrashDisk::new();
            disk.create(Path::new("/old")).unwrap();
            disk.sync_dir(Path::new("/")).await.unwrap();
            disk.rename(Path::new("/old"), Path::new("/new")).unwrap();
            disk.crash(seed);
            match (
                disk.exists(Path::new("/old")),
                disk.exists(Path::new("/new")),
            ) {
                (true, false) => lost += 1,
                (false, true) => kept += 1,
                other => panic!("half a rename: {other:?}"),
            }
        }
        assert!(kept > 10 && lost > 10, "kept {kept}, lost {lost}");
    }

    /// Catches sectors that can be read again although nobody wrote there, also after a power cut or under another name; and
    /// ones that stay unreadable after they were written.
    #[tokio::test]
    async fn what_the_disk_does_not_give_back_stays_so_until_it_is_written() {
        let (path, moved) = (Path::new("/file"), Path::new("/moved"));
        for seed in 0..50 {
            let disk = CrashDisk::new();
            let file = disk.create(path).unwrap();
            let bytes = Bytes::from(vec![1; 8192]);
            let written = file.clone().write_and_sync(0, vec![bytes.clone()]).await;
            written.unwrap();
            disk.make_unreadable(path, 600..1100).unwrap();
            let fails = |disk: &CrashDisk, path: &Path, position: u64| {
                let read = disk.open(path).unwrap().read_at(position, &mut [0; 512]);
                read.is_err_and(|error| crate::is_media_error(&error))
            };
            let lost =
                |disk: &CrashDisk, path| [0, 1, 512, 1024, 1536].map(|at| fails(disk, path, at));
            assert_eq!(lost(&disk, path), [false, true, true, true, false]);
            assert_eq!(disk.content(path).unwrap(), bytes);
            disk.rename(path, moved).unwrap();
            disk.sync_dir(Path::new("/")).await.unwrap();
            let part = file.write_at(512, &[bytes.slice(..1024)]);
            assert!(part.is_err_and(|error| crate::is_media_error(&error)));
            // In memory, and perhaps lost again.
            file.write_at(0, &[bytes.slice(..4096)]).unwrap();
            assert_eq!(lost(&disk, moved), [false; 5]);
            disk.crash(seed);
            let file = disk.open(moved).unwrap();
            let written = file.write_and_sync(0, vec![bytes]).await;
            written.unwrap();
            disk.crash(seed);
            assert_eq!(lost(&disk, moved), [false; 5]);
        }
    }

    /// Catches bytes that a disk has lost and that a power cut brings back, because they had been written and not yet synced.
    #[tokio::test]
    async fn what_a_disk_lost_does_not_come_back() {
        let path = Path::new("/file");
        for seed in 0..50 {
            let disk = CrashDisk::new();
            let file = disk.create(path).unwrap();
            disk.sync_dir(Path::new("/")).await.unwrap();
            file.write_at(0, &[Bytes::from(vec![1; 4096])]).unwrap();
            disk.overwrite(path, 0, &[0; 4096]).unwrap();
            disk.crash(seed);
            let left = disk.content(path).unwrap();
            assert!(left.iter().all(|byte| *byte == 0), "seed {seed}");
        }
    }

    /// Catches faults that hit the wrong operation or do not end.
    #[tokio::test]
    async fn faults_hit_what_they_name() {
        let disk = FaultyDisk::new(Arc::new(CrashDisk::new()));
        disk.inject(Fault::once(Operation::Sync, "log", ErrorKind::Other).after(1));
        let (log, other) = (
            disk.create(Path::new("/log")).unwrap(),
            disk.create(Path::new("/x")).unwrap(),
        );
        other.sync().await.unwrap();
        log.clone().sync().await.unwrap();
        assert!(log.clone().sync().await.is_err());
        log.clone().sync().await.unwrap();
        disk.stop_after(1);
        log.write_at(0, &[Bytes::from_static(b"a")]).unwrap();
        assert!(log.write_at(0, &[Bytes::from_static(b"a")]).is_err());
        assert!(disk.open(Path::new("/log")).is_err());
        disk.heal();
        assert_eq!(disk.counts().bytes_written, 2);
    }
}
