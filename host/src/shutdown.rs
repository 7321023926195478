//! How a process learns that it should stop.
//!
//! One [`ShutdownTrigger`], any number of [`Shutdown`] listeners. Dropping the trigger stops
//! everybody too, so that whoever owns it cannot forget.

use tokio::sync::watch;

/// Stops all listeners, when told to or when dropped.
#[derive(Debug)]
pub struct ShutdownTrigger {
    sender: watch::Sender<bool>,
}

impl ShutdownTrigger {
    /// Tells every listener to stop. Doing it twice is harmless.
    pub fn shut_down(&self) {
        self.sender.send_replace(true);
    }
}

/// A listener; cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown {
    receiver: watch::Receiver<bool>,
}

impl Shutdown {
    /// A trigger and its first listener.
    pub fn new() -> (ShutdownTrigger, Shutdown) {
        let (sender, receiver) = watch::channel(false);
        (ShutdownTrigger { sender }, Shutdown { receiver })
    }

    /// Returns when the trigger was pulled or dropped; at once if that has already happened.
    pub async fn wait(&self) {
        // An error says that the trigger is gone, which means the same.
        let _ = self.receiver.clone().wait_for(|stop| *stop).await;
    }

    /// Whether the trigger was pulled or dropped.
    pub fn is_shut_down(&self) -> bool {
        *self.receiver.borrow() || self.receiver.has_changed().is_err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a listener that only hears a trigger pulled after it began to wait.
    #[tokio::test]
    async fn a_late_listener_still_hears() {
        let (trigger, shutdown) = Shutdown::new();
        assert!(!shutdown.is_shut_down());
        trigger.shut_down();
        assert!(shutdown.is_shut_down());
        shutdown.clone().wait().await;
    }

    /// Catches tasks that outlive an owner which went away without a word.
    #[tokio::test]
    async fn dropping_the_trigger_stops_listeners() {
        let (trigger, shutdown) = Shutdown::new();
        drop(trigger);
        shutdown.wait().await;
        assert!(shutdown.is_shut_down());
    }
}
