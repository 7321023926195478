//! One delivery in the user's hands, until it says what became of it.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::consumer::Delivery;
use crate::error::Error;
use crate::push_consumer::engine::{Engine, Failure, Work};

/// A delivery that its receiver has to settle, in one of four ways. Dropping it is the second of them.
///
/// Progress does not pass it before that.
pub struct PushDelivery {
    delivery: Delivery,
    engine: Arc<Engine>,
    /// Taken when it is settled.
    work: Option<Work>,
}

impl PushDelivery {
    /// What the engine hands out next; `None` when that will be nothing any more.
    pub(super) async fn next(engine: &Arc<Engine>) -> Result<Option<PushDelivery>, Error> {
        let next = engine.next().await?;
        Ok(next.map(|(delivery, work)| PushDelivery {
            delivery,
            engine: engine.clone(),
            work: Some(work),
        }))
    }

    /// Done with: it is not delivered to the group again (unless this process dies before its queue's next commit).
    pub fn ack(mut self) {
        if let Some(work) = self.work.take() {
            self.engine.done(work, &self.delivery);
        }
    }

    /// It failed: to be delivered again, after the group's back-off, or to go to the dead letters if this was the last
    /// attempt.
    pub fn retry_later(mut self) {
        self.fail(Failure::default());
    }

    /// It failed: to be delivered again, to whichever member has its queue then, after `delay` (30 days at most) and not
    /// before. In order, and when broadcasting, the consumer's own pause counts instead.
    pub fn retry_after(mut self, delay: Duration) {
        self.fail(Failure {
            delay: Some(delay),
            dead: false,
        });
    }

    /// It will never succeed: to go to the dead letters at once.
    pub fn dead_letter(mut self) {
        self.fail(Failure {
            delay: None,
            dead: true,
        });
    }

    pub(super) fn group(&self) -> &str {
        self.engine.shared().group.as_str()
    }

    fn fail(&mut self, failure: Failure) {
        if let Some(work) = self.work.take() {
            self.engine.failed(work, self.delivery.clone(), failure);
        }
    }
}

impl Deref for PushDelivery {
    type Target = Delivery;

    fn deref(&self) -> &Delivery {
        &self.delivery
    }
}

impl std::fmt::Debug for PushDelivery {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.delivery.fmt(formatter)
    }
}

impl Drop for PushDelivery {
    /// A receiver that panics, or forgets, has not done its work.
    fn drop(&mut self) {
        self.fail(Failure::default());
    }
}
