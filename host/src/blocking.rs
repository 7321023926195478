//! Work that blocks its thread: file reads, table lookups, checksums of whole segments.
//!
//! Never call this while holding a lock that an async task may wait for.

/// Runs `work` where blocking is allowed and returns what it returned. A panic inside `work`
/// continues in the caller.
#[cfg(not(madsim))]
pub async fn run<T, F>(work: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is being torn down and this task with it: nobody will look at the result.
        Err(_) => std::future::pending().await,
    }
}

/// Runs `work` at once: the simulator has one thread and no real disk to wait for.
#[cfg(madsim)]
pub async fn run<T, F>(work: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    work()
}
