//! The progress of a consumer that keeps it by itself: in memory, and in a file if the user names one.
//!
//! The file is text and replaced whole: written beside, synced, renamed. One consumer at a time; another is refused. A
//! replacement that was begun goes on to its end, whoever waits for it: two at once would spoil each other's work.
//!
//! ```text
//! raftmq progress 2 of group billing
//! since 1764460800000
//! orders 0 1234 3-19367d0c8a2
//! orders 1 1229 3-19367d0c8a2
//! ```
//!
//! Behind the topic, the queue and the offset: the life of the topic that the offset means (`?` if it was not told).
//! `since`: when the consumer was there for the first time, in milliseconds of the servers' log; 0 before it met any.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use host::{Disk, blocking};
use proto::place::Life;

use crate::consumer::delivery::TopicQueue;
use crate::consumer::holdings::Due;
use crate::error::Error;

/// Stands for a life that was not told.
const UNTOLD: &str = "?";

/// A larger file is none of ours.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// See the module's text.
pub(crate) struct ProgressFile {
    group: String,
    offsets: Mutex<Offsets>,
    /// Taken when the consumer is closed.
    file: Mutex<Option<Arc<Place>>>,
    /// Held by whoever replaces the file.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Offsets {
    kept: Kept,
    /// Grows with each change.
    version: u64,
    /// The version that is in the file.
    saved: u64,
}

/// What the file says.
#[derive(Debug, Default)]
struct Kept {
    since_ms: Option<u64>,
    of_queues: BTreeMap<TopicQueue, (u64, Option<Life>)>,
}

/// Where the file is, and the right to write it.
struct Place {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    _lock: Box<dyn Send + Sync>,
}

impl ProgressFile {
    /// Progress that goes with the process.
    pub(crate) fn in_memory(group: &str) -> ProgressFile {
        ProgressFile {
            group: group.to_owned(),
            offsets: Mutex::default(),
            file: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// Progress as a file has it, or none yet if there is no such file.
    pub(crate) async fn open(
        group: &str,
        disk: Arc<dyn Disk>,
        path: PathBuf,
    ) -> Result<ProgressFile, Error> {
        let (opening, named) = (disk.clone(), path.clone());
        let opened = blocking::run(move || {
            let lock = opening.lock(&beside(&named, "lock"))?;
            Ok((lock, read(&*opening, &named)?))
        });
        let opened: io::Result<(Box<dyn Send + Sync>, Option<String>)> = opened.await;
        let (lock, text) = opened.map_err(|error| failed("open", &path, &error.to_string()))?;
        let kept = match text {
            Some(text) => {
                parse(group, &text).map_err(|reason| failed("understand", &path, &reason))?
            }
            None => Kept::default(),
        };
        let offsets = Offsets {
            kept,
            ..Offsets::default()
        };
        let place = Place {
            disk,
            path,
            _lock: lock,
        };
        Ok(ProgressFile {
            group: group.to_owned(),
            offsets: Mutex::new(offsets),
            file: Mutex::new(Some(Arc::new(place))),
            writing: tokio::sync::Mutex::default(),
        })
    }

    pub(super) fn offset(&self, queue: &TopicQueue) -> Option<u64> {
        self.place(queue).map(|(offset, _)| offset)
    }

    /// An offset, and the life of the topic that it means.
    pub(super) fn place(&self, queue: &TopicQueue) -> Option<(u64, Option<Life>)> {
        self.offsets().kept.of_queues.get(queue).copied()
    }

    pub(super) fn forget(&self, queue: &TopicQueue) {
        let mut offsets = self.offsets();
        if offsets.kept.of_queues.remove(queue).is_some() {
            offsets.version += 1;
        }
    }

    /// When the consumer was there for the first time.
    pub(super) fn since_ms(&self) -> Option<u64> {
        self.offsets().kept.since_ms
    }

    /// It is there for the first time.
    pub(super) fn born(&self, since_ms: u64) {
        let mut offsets = self.offsets();
        if offsets.kept.since_ms.is_none() {
            offsets.kept.since_ms = Some(since_ms);
            offsets.version += 1;
        }
    }

    /// Progress never goes back: what comes late and is older is none. In another life of the topic it begins anew.
    pub(super) fn set(&self, due: &Due) {
        let mut offsets = self.offsets();
        let known = offsets.kept.of_queues.get(&due.queue);
        let life = due.queue.life();
        if known.is_none_or(|(known, of)| *of != life || *known < due.offset) {
            let place = (due.offset, life);
            offsets.kept.of_queues.insert(due.queue.clone(), place);
            offsets.version += 1;
        }
    }

    /// Writes the file, if there is one and there is something new. On the disk when it returns. Whoever stops waiting for
    /// it does not stop it.
    pub(super) async fn save(self: &Arc<Self>) -> Result<(), Error> {
        let Some(place) = self.file().clone() else {
            return Ok(());
        };
        let (this, at) = (self.clone(), place.clone());
        let written = tokio::spawn(async move { this.write(&at).await }).await;
        let written = written.unwrap_or_else(|error| Err(error.into()));
        written.map_err(|error| failed("write", &place.path, &error.to_string()))
    }

    async fn write(&self, place: &Place) -> io::Result<()> {
        let _writing = self.writing.lock().await;
        let (text, version) = {
            let offsets = self.offsets();
            if offsets.saved == offsets.version {
                return Ok(());
            }
            (text(&self.group, &offsets.kept), offsets.version)
        };
        replace(&place.disk, &place.path, text).await?;
        self.offsets().saved = version;
        Ok(())
    }

    /// Writes no more, and lets another consumer have the file.
    pub(super) fn close(&self) {
        self.file().take();
    }

    fn file(&self) -> MutexGuard<'_, Option<Arc<Place>>> {
        self.file
            .lock()
            .expect("nothing panics while the file's place is locked")
    }

    fn offsets(&self) -> MutexGuard<'_, Offsets> {
        self.offsets
            .lock()
            .expect("nothing panics while the offsets are locked")
    }
}

fn text(group: &str, kept: &Kept) -> String {
    let since_ms = kept.since_ms.unwrap_or(0);
    let mut text = format!("{}\nsince {since_ms}\n", header(group));
    for (TopicQueue { topic, queue, .. }, (offset, life)) in &kept.of_queues {
        let life = life.map_or_else(|| UNTOLD.to_owned(), |life| life.to_string());
        writeln!(text, "{topic} {queue} {offset} {life}").expect("text takes any text");
    }
    text
}

fn header(group: &str) -> String {
    format!("raftmq progress 2 of group {group}")
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

fn failed(verb: &'static str, path: &Path, reason: &str) -> Error {
    Error::ProgressFile {
        verb,
        path: path.display().to_string(),
        reason: reason.to_owned(),
    }
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<String>> {
    let file = match disk.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let length = file.len()?;
    if length > FILE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it has {length} bytes"),
        ));
    }
    let mut content = vec![0; length as usize];
    let read = file.read_at(0, &mut content)?;
    content.truncate(read);
    String::from_utf8(content)
        .map(Some)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

async fn replace(disk: &Arc<dyn Disk>, path: &Path, text: String) -> io::Result<()> {
    let fresh = beside(path, "new");
    let (making, name) = (disk.clone(), fresh.clone());
    let file = blocking::run(move || making.create(&name)).await?;
    file.write_and_sync(0, vec![Bytes::from(text)]).await?;
    let (renaming, from, to) = (disk.clone(), fresh, path.to_owned());
    blocking::run(move || renaming.rename(&from, &to)).await?;
    match path.parent().filter(|parent| *parent != Path::new("")) {
        Some(parent) => disk.sync_dir(parent).await,
        None => disk.sync_dir(Path::new(".")).await,
    }
}

/// What a file's text states, or what is wrong with it.
fn parse(group: &str, text: &str) -> Result<Kept, String> {
    let mut lines = text.lines();
    let (first, expected) = (lines.next().unwrap_or_default(), header(group));
    if first != expected {
        return Err(format!(
            "it begins with {first:?} and not with {expected:?}"
        ));
    }
    let second = lines.next().unwrap_or_default();
    let since = second
        .strip_prefix("since ")
        .and_then(|since| since.parse().ok());
    let since_ms: u64 = since.ok_or_else(|| format!("its line {second:?} is no beginning"))?;
    let line = |line: &str| {
        let mut words = line.split(' ');
        let topic = words.next().filter(|topic| !topic.is_empty())?;
        let queue = TopicQueue::new(topic, words.next()?.parse().ok()?);
        let offset = words.next()?.parse().ok()?;
        let life = match words.next()? {
            UNTOLD => None,
            life => Some(life.parse().ok()?),
        };
        words.next().is_none().then_some((queue, (offset, life)))
    };
    let of_queues = lines
        .map(|text| line(text).ok_or_else(|| format!("its line {text:?} is no offset")))
        .collect::<Result<_, String>>()?;
    Ok(Kept {
        since_ms: Some(since_ms).filter(|since_ms| *since_ms > 0),
        of_queues,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use host::OsDisk;
    use host::testing::{Fault, FaultyDisk, Operation};

    use super::*;

    fn due(queue: u32, offset: u64) -> Due {
        Due {
            queue: TopicQueue::new("orders", queue),
            offset,
        }
    }

    async fn open(group: &str, path: &Path) -> Result<Arc<ProgressFile>, Error> {
        let disk = Arc::new(OsDisk::new());
        let file = ProgressFile::open(group, disk, path.to_owned()).await?;
        Ok(Arc::new(file))
    }

    /// Catches progress that is lost, or mixed up, with the process.
    #[tokio::test]
    async fn progress_outlives_the_consumer() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("progress");
        let file = open("billing", &path).await.expect("opens");
        assert_eq!(file.offset(&due(0, 0).queue), None);
        for due in [due(0, 7), due(1, 5), due(0, 9), due(0, 8)] {
            file.set(&due);
        }
        file.save().await.expect("saves");
        drop(file);
        let file = open("billing", &path).await.expect("opens");
        assert_eq!(file.offset(&due(0, 0).queue), Some(9), "8 came late");
        assert_eq!(file.offset(&due(1, 0).queue), Some(5));
        file.set(&due(1, 6));
        file.save().await.expect("saves over what is there");
        drop(file);
        let file = open("billing", &path).await.expect("opens");
        assert_eq!(file.offset(&due(1, 0).queue), Some(6));
    }

    /// Catches two consumers that overwrite each other's progress, and a file of another group or no file of ours, that
    /// is taken for the start of everything.
    #[tokio::test]
    async fn what_is_not_ours_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("progress");
        let file = open("billing", &path).await.expect("opens");
        file.set(&due(0, 7));
        file.save().await.expect("saves");
        assert!(open("billing", &path).await.is_err(), "it is in use");
        drop(file);
        let error = open("audit", &path).await.err().expect("another group's");
        assert!(error.to_string().contains("billing"), "{error}");
        for text in [
            "",
            "orders 0 7\n",
            "raftmq progress 2 of group g\norders 0 7 1-2\n",
            "raftmq progress 2 of group g\nsince 5\norders 0 7\n",
        ] {
            assert!(parse("g", text).is_err(), "{text:?}");
        }
        assert!(
            parse(
                "g",
                "raftmq progress 2 of group g\nsince 5\norders 0 7 1-2\n"
            )
            .is_ok()
        );
    }

    /// Catches a replacement that ends half-way with the wait for it: what it still does would meet the next one's work.
    #[tokio::test]
    async fn a_replacement_goes_on_without_whoever_began_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("progress");
        let file = open("billing", &path).await.expect("opens");
        file.set(&due(0, 7));
        let mut save = Box::pin(file.save());
        assert!(futures::poll!(save.as_mut()).is_pending());
        drop(save);
        let written = async {
            while !path.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let written = tokio::time::timeout(Duration::from_secs(10), written).await;
        written.expect("the file is written all the same");
        for offset in 8..50 {
            file.set(&due(0, offset));
            let mut save = Box::pin(file.save());
            let _ = futures::poll!(save.as_mut());
        }
        file.save().await.expect("saves");
        let text = read(&OsDisk::new(), &path).expect("is there");
        assert_eq!(
            text.as_deref(),
            Some("raftmq progress 2 of group billing\nsince 0\norders 0 49 ?\n")
        );
    }

    /// Catches a write that failed and is taken for done: progress that was committed would be gone with the process.
    #[tokio::test]
    async fn what_was_not_written_is_written_later() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("progress");
        let disk = FaultyDisk::new(Arc::new(OsDisk::new()));
        let opened = ProgressFile::open("billing", Arc::new(disk.clone()), path.clone()).await;
        let file = Arc::new(opened.expect("opens"));
        file.set(&due(0, 7));
        disk.inject(Fault::once(
            Operation::Rename,
            "progress",
            io::ErrorKind::Other,
        ));
        assert!(file.save().await.is_err());
        file.save().await.expect("nothing new, but not written yet");
        assert!(path.exists());
    }
}
