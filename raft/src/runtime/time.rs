//! Timers and instants for openraft.
//!
//! The simulator's sleep adds a timer on every poll, so a sleep registers only when its waker changed.

use std::fmt;
use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// A point of the runtime's monotonic time.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub(crate) struct Moment(pub(super) tokio::time::Instant);

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, duration: Duration) {
        self.0 += duration;
    }
}

/// Simulated time starts at zero and openraft subtracts timeouts from `now` early in a run: where
/// there is no earlier instant, the moment stays where it is.
impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.checked_sub(duration).unwrap_or(self.0))
    }
}

impl Sub<Self> for Moment {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }
}

impl SubAssign<Duration> for Moment {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl openraft_rt::Instant for Moment {
    fn now() -> Self {
        Self(tokio::time::Instant::now())
    }
}

/// A sleep that registers once per waker.
pub(crate) struct Sleep {
    inner: Pin<Box<tokio::time::Sleep>>,
    #[cfg(madsim)]
    registered: Option<std::task::Waker>,
}

impl Sleep {
    pub(super) fn new(sleep: tokio::time::Sleep) -> Self {
        Self {
            inner: Box::pin(sleep),
            #[cfg(madsim)]
            registered: None,
        }
    }
}

impl Future for Sleep {
    type Output = ();

    #[cfg(not(madsim))]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.inner.as_mut().poll(context)
    }

    #[cfg(madsim)]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.inner.is_elapsed() {
            return Poll::Ready(());
        }
        if let Some(waker) = &self.registered
            && waker.will_wake(context.waker())
        {
            return Poll::Pending;
        }
        self.registered = Some(context.waker().clone());
        self.inner.as_mut().poll(context)
    }
}

/// The deadline passed before the future was ready.
#[derive(Debug)]
pub(crate) struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("deadline has elapsed")
    }
}

/// A future with a deadline. The simulator's own cannot be named, hence this one.
pub(crate) struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Sleep,
}

impl<F> Timeout<F> {
    pub(super) fn new(future: F, sleep: Sleep) -> Self {
        Self {
            future: Box::pin(future),
            sleep,
        }
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(value) = self.future.as_mut().poll(context) {
            return Poll::Ready(Ok(value));
        }
        Pin::new(&mut self.sleep)
            .poll(context)
            .map(|()| Err(Elapsed))
    }
}
