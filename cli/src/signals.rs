//! What asks this process to stop: SIGTERM, SIGINT, or the end of the process that started it.

use host::shutdown::Shutdown;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// Waits for SIGTERM or SIGINT; says which.
///
/// # Errors
///
/// If the system refuses a handler.
pub async fn stop_requested() -> Result<&'static str, Failure> {
    let refused = |error| Failure::during("waiting for signals", error);
    let mut terminate = signal(SignalKind::terminate()).map_err(refused)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(refused)?;
    Ok(tokio::select! {
        biased;
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

/// A shutdown that is pulled by SIGTERM, by SIGINT and, if asked for, by the end of standard input.
pub fn shutdown(until_stdin_closes: bool) -> Shutdown {
    let (trigger, shutdown) = Shutdown::new();
    tokio::spawn(async move {
        let reason = tokio::select! {
            biased;
            reason = stop_requested() => reason.unwrap_or("no signal handler"),
            () = stdin_closed(), if until_stdin_closes => "the parent process is gone",
        };
        tracing::info!(reason, "shutting down");
        trigger.shut_down();
    });
    shutdown
}

/// Returns when the other end of standard input is gone. What arrives before that is ignored.
async fn stdin_closed() {
    let mut input = tokio::io::stdin();
    let mut buffer = [0; 64];
    loop {
        match input.read(&mut buffer).await {
            Ok(0) => return,
            Ok(_) => {}
            // Reading fails when this process's own runtime ends, which says nothing of the parent.
            Err(_) => std::future::pending().await,
        }
    }
}
