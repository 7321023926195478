//! Calls to servers, each with as many attempts as its deadline allows: whom to ask, for how long, and what its error is.
//!
//! Never decides what a message or an offset means.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;
use tonic::{Response, Status};

use crate::answer::{self, Answer, Attempt};
use crate::broker_table::ROUTES;
use crate::connection::{Call, Connection};
use crate::deadline;
use crate::error::Error;
use crate::lookout::PATIENCE;
use crate::pursuit::{Next, Pursuit};

/// Further attempts after a refusal that is neither final nor passing.
const REFUSALS_MAX: u32 = 2;
/// How long one server is asked for a route before the next one is asked as well.
const ASK_NEXT_AFTER: Duration = Duration::from_millis(200);
/// Servers that are asked for a route at the same time.
const ASKED_MAX: usize = 3;

impl Connection {
    /// A call to one address and nobody else: one attempt.
    pub(crate) async fn call_at<R, F>(
        &self,
        call: Call,
        address: &str,
        attempt: F,
    ) -> Result<R, Error>
    where
        R: Answer,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let (outcome, _) = self
            .attempt(&call.group, address, call.timeout, attempt)
            .await;
        let mut pursuit = Pursuit::new(call.group.clone(), 0);
        match outcome {
            Attempt::Answered(answer) => Ok(answer),
            failure => {
                pursuit.after(&failure, false, &self.brokers, address);
                Err(call.failed(&failure, address, &pursuit))
            }
        }
    }

    /// A call with as many attempts as its deadline allows. `attempt` is given the address and the time for the attempt.
    pub(crate) async fn call<R, F>(
        &self,
        call: Call,
        mut attempt: impl FnMut(Arc<str>, Duration) -> F,
    ) -> Result<R, Error>
    where
        R: Answer,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let deadline = deadline::after(call.timeout);
        let mut pursuit = Pursuit::new(call.group.clone(), REFUSALS_MAX).once(call.once);
        loop {
            let address = pursuit.address(&self.brokers);
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = self.attempt_timeout.min(left);
            let (address, (outcome, redirected)) = if &*call.group == ROUTES {
                let addresses = pursuit.addresses(&self.brokers, ASKED_MAX);
                self.ask_in_turn(&addresses, timeout, &mut attempt).await
            } else {
                let request = attempt(address.clone(), timeout);
                let outcome = tokio::select! {
                    biased;
                    outcome = self.attempt(&call.group, &address, timeout, request) => outcome,
                    // What must not be repeated is waited for.
                    () = self.overtaken(&call.group, &address, PATIENCE), if !call.once => {
                        (answer::overtaken(), true)
                    }
                };
                (address.clone(), outcome)
            };
            if let Attempt::Answered(answer) = outcome {
                return Ok(answer);
            }
            let next = pursuit.after(&outcome, redirected, &self.brokers, &address);
            match next {
                Next::Again(wait) if Instant::now() + wait < deadline => {
                    tokio::time::sleep(wait).await;
                }
                _ => return Err(call.failed(&outcome, &address, &pursuit)),
            }
        }
    }
}

impl Connection {
    /// Asks for a route, which anybody may answer: whoever takes long is not waited for alone. The first answer counts, or
    /// what came of the first address if nobody answers.
    async fn ask_in_turn<R, F>(
        &self,
        addresses: &[Arc<str>],
        timeout: Duration,
        attempt: &mut impl FnMut(Arc<str>, Duration) -> F,
    ) -> (Arc<str>, (Attempt<R>, bool))
    where
        R: Answer,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let mut waiting = addresses.iter();
        let mut asked = FuturesUnordered::new();
        let mut first_failure = None;
        loop {
            let next = waiting.next();
            if let Some(address) = next {
                let request = attempt(address.clone(), timeout);
                asked.push(async move {
                    let outcome = self.attempt(ROUTES, address, timeout, request).await;
                    (address.clone(), outcome)
                });
            }
            let patience = tokio::time::sleep(ASK_NEXT_AFTER);
            tokio::select! {
                biased;
                Some((address, outcome)) = asked.next() => match outcome.0 {
                    Attempt::Answered(_) => return (address, outcome),
                    _ => first_failure = first_failure.or(Some((address, outcome))),
                },
                () = patience, if waiting.len() > 0 => {}
                else => {}
            }
            if asked.is_empty()
                && waiting.len() == 0
                && let Some(failure) = first_failure
            {
                return failure;
            }
        }
    }
}

impl Call {
    fn failed<R>(&self, outcome: &Attempt<R>, address: &str, pursuit: &Pursuit) -> Error {
        let (operation, subject) = (self.operation, self.subject.clone());
        let address = address.to_owned();
        let (code, reason) = match outcome {
            Attempt::Refused(refusal) => (Some(refusal.code), refusal.reason.clone()),
            Attempt::Lost { reason, .. } => (None, reason.clone()),
            Attempt::Answered(_) => unreachable!("an answer is no failure"),
        };
        if self.changes && pursuit.maybe_done {
            return Error::OutcomeUnknown {
                operation,
                subject,
                address,
                reason,
                message_id: None,
            };
        }
        match code {
            Some(code) => Error::Refused {
                operation,
                subject,
                address,
                code,
                reason,
            },
            None => Error::TimedOut {
                operation,
                subject,
                address,
                reason,
            },
        }
    }
}
