//! openraft's runtime on the workspace's tokio: the real one, or the simulator behind the same name.
//!
//! Only openraft calls this. It must never touch a thread, an operating system clock or a source of
//! randomness of its own: under the simulator everything here is a function of the seed.

mod channel;
mod random;
mod time;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use openraft_rt::{AsyncRuntime, OptionalSend};
use tokio::task::{JoinError, JoinHandle};

use channel::{MpscChannel, OneshotChannel, TaskMutex, WatchChannel};
use random::Random;
use time::{Elapsed, Moment, Sleep, Timeout};

/// The runtime's generator: seeded by the operating system, or by the simulation.
pub(crate) fn random() -> Random {
    Random
}

/// The runtime that every openraft task of this process runs on.
pub(crate) struct Runtime {
    #[cfg(not(madsim))]
    inner: tokio::runtime::Runtime,
    #[cfg(madsim)]
    inner: madsim::runtime::Runtime,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Runtime")
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = JoinError;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = Moment;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = Random;
    type Mpsc = MpscChannel;
    type Watch = WatchChannel;
    type Oneshot = OneshotChannel;
    type Mutex<T: OptionalSend + 'static> = TaskMutex<T>;

    fn spawn<T>(future: T) -> JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        tokio::task::spawn(future)
    }

    fn sleep(duration: Duration) -> Sleep {
        Sleep::new(tokio::time::sleep(duration))
    }

    fn sleep_until(deadline: Moment) -> Sleep {
        Sleep::new(tokio::time::sleep_until(deadline.0))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Timeout<F> {
        Timeout::new(future, Self::sleep(duration))
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Moment,
        future: F,
    ) -> Timeout<F> {
        Timeout::new(future, Self::sleep_until(deadline))
    }

    fn is_panic(error: &JoinError) -> bool {
        error.is_panic()
    }

    fn thread_rng() -> Random {
        Random
    }

    #[cfg(not(madsim))]
    fn new(threads: usize) -> Self {
        let inner = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()
            .expect("the operating system grants the threads of a runtime");
        Self { inner }
    }

    #[cfg(madsim)]
    fn new(_threads: usize) -> Self {
        Self {
            inner: madsim::runtime::Runtime::new(),
        }
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.inner.block_on(future)
    }

    /// Off the async threads; in the simulator, which has no threads, inline in a task of its own.
    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, std::io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        #[cfg(not(madsim))]
        let handle = tokio::task::spawn_blocking(work);
        #[cfg(madsim)]
        let handle = tokio::task::spawn(async move { work() });
        async move { handle.await.map_err(std::io::Error::other) }
    }
}

#[cfg(test)]
mod tests {
    use super::Runtime;

    /// Catches a channel, timer or lock that does not behave as openraft assumes.
    #[test]
    fn passes_openrafts_runtime_suite() {
        openraft_rt::testing::Suite::<Runtime>::test_all();
    }
}
