//! Calls that the leader answers: serve here, or forward, until the caller's deadline.
//!
//! Every such call goes through `lead`, so that a change of leader is waited out in one place. What was
//! not done is tried again; what may have been done is tried again where that makes no difference (sends
//! are told apart by their ids). Every answer names the leader, when one is known.

mod consumer_group;

use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use host::network::{AnswerBudget, AnswerHold};
use proto::place::{self, Life, StartAt};
use proto::v2::{Code, QueryRouteRequest};
use tokio::time::{Instant, timeout};
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status};

use crate::clients::Process;
use crate::grpc::status::{self, CallError, Refusal};
use crate::leadership::Standing;
use crate::service::Service;
use crate::view::Topic;

/// Kept back from the caller's deadline, so that the answer arrives before the caller gives up.
const ANSWER_RESERVE: Duration = Duration::from_millis(100);

/// Pause before a call is tried again, so that a broken connection does not make a loop spin.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Longest time a caller may ask for.
const DEADLINE_MAX: Duration = Duration::from_secs(600);

/// Longest client id that is accepted, in bytes.
const CLIENT_ID_BYTES_MAX: usize = 1_024;

/// What a call carries beside its message.
pub(crate) struct Context {
    /// When the answer must be on its way.
    pub(crate) deadline: Instant,
    /// What the client sent along.
    pub(crate) metadata: MetadataMap,
    /// What the answer says beside its message.
    remarks: Mutex<Vec<(&'static str, String)>>,
    /// What a large answer takes its bytes from.
    budget: AnswerBudget,
    /// What it took.
    hold: Mutex<AnswerHold>,
}

impl Context {
    /// Of a call that was just received.
    fn of(
        metadata: MetadataMap,
        extensions: &Extensions,
        service: &Service,
        patience: Duration,
    ) -> Context {
        let unasked =
            Duration::from_millis(service.config.request_timeout_ms) + patience.min(DEADLINE_MAX);
        let wait = gateway::deadline(&metadata).unwrap_or(unasked);
        // A caller in a hurry still leaves most of its time for the work.
        let reserve = ANSWER_RESERVE.min(wait / 4);
        let deadline = Instant::now() + (wait - reserve).min(DEADLINE_MAX);
        Context {
            deadline,
            metadata,
            remarks: Mutex::default(),
            budget: AnswerBudget::of(extensions),
            hold: Mutex::default(),
        }
    }

    /// Says something beside the answer's message.
    pub(crate) fn remark(&self, header: &'static str, value: impl ToString) {
        self.remarks().push((header, value.to_string()));
    }

    fn remarks(&self) -> std::sync::MutexGuard<'_, Vec<(&'static str, String)>> {
        self.remarks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts what was remarked into an answer's metadata.
    fn take_remarks(&self, metadata: &mut MetadataMap) {
        for (header, value) in self.remarks().drain(..) {
            if let Ok(value) = value.parse() {
                metadata.insert(header, value);
            }
        }
    }

    /// Waits until the largest answer may be made; what it turns out not to need is to be given back. Who does not read what
    /// was answered before waits in vain.
    pub(crate) async fn room(&self, service: &Service) -> Result<AnswerHold, Refusal> {
        let bytes = service.config.answer_bytes_max();
        let patience = self.left().saturating_sub(ANSWER_RESERVE);
        timeout(patience, self.budget.take(bytes))
            .await
            .map_err(|_| {
                status::too_many_requests("too many bytes of answers have not been read yet")
            })
    }

    /// Waits until a route of so many queues may be made; none if there was no room in time.
    pub(crate) async fn route_room(
        &self,
        request: &QueryRouteRequest,
        queues: u64,
    ) -> Option<AnswerHold> {
        gateway::route_room(request, &self.budget, queues).await
    }

    /// Has the answer bring along what it took.
    pub(crate) fn keep(&self, hold: AnswerHold) {
        *self.hold.lock().unwrap_or_else(PoisonError::into_inner) = hold;
    }

    /// What the answer brings along.
    fn take_hold(&self) -> AnswerHold {
        std::mem::take(&mut *self.hold.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What a header of the call says, if it is there.
    pub(crate) fn header<T: FromStr>(&self, header: &'static str) -> Result<Option<T>, Refusal> {
        let Some(value) = self.metadata.get(header) else {
            return Ok(None);
        };
        let read = value.to_str().ok().and_then(|text| text.parse().ok());
        read.map(Some).ok_or_else(|| {
            let reason = format!("header {header} is not understood: {value:?}");
            Refusal::new(Code::BadRequest, reason)
        })
    }

    /// Checks that the caller means this topic and not one that had its name before. Who does not say means the present one.
    pub(crate) async fn means(&self, service: &Service, topic: &Topic) -> Result<(), CallError> {
        match self.header::<Life>(place::LIFE)? {
            Some(life) if life != topic.life() => {
                // Who leads no more may be behind the caller.
                service.confirm_leadership(self.left()).await?;
                Err(status::other_life(&topic.name).into())
            }
            _ => Ok(()),
        }
    }

    /// Checks that a broker group is the one that the caller means. Another one may have everything of the same name.
    fn is_for(&self, group: &str) -> Result<(), Refusal> {
        match gateway::meant_group(&self.metadata) {
            Some(meant) if meant != group => Err(status::not_available(format!(
                "the call is for broker group {meant:?}, and this is a broker of {group:?}"
            ))),
            _ => Ok(()),
        }
    }

    /// Where the caller's group starts, should this call make it.
    pub(crate) fn consume_from(&self) -> Result<StartAt, Refusal> {
        let wish = self.header(place::CONSUME_FROM)?;
        Ok(wish.unwrap_or(StartAt::Earliest))
    }

    /// Time until the deadline.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Who calls.
    pub(crate) fn client_id(&self) -> Result<&str, Refusal> {
        let id = self
            .metadata
            .get(gateway::CLIENT_ID)
            .and_then(|value| value.to_str().ok());
        id.filter(|id| !id.is_empty() && id.len() <= CLIENT_ID_BYTES_MAX)
            .ok_or_else(status::client_id_required)
    }

    /// Which process that is, if it says so.
    pub(crate) fn process(&self) -> Option<Process> {
        let number = |name| {
            let value = self.metadata.get(name)?.to_str().ok()?;
            value.parse::<u64>().ok()
        };
        Some(Process {
            incarnation: number(gateway::INCARNATION)?,
            beat_interval: Duration::from_millis(number(gateway::BEAT_INTERVAL_MS).unwrap_or(0)),
        })
    }
}

/// What a call that may have been carried out leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It only reads: there is nothing that may have been done.
    None,
    /// Doing it twice is the same as doing it once, so it is tried again.
    Repeatable,
    /// Doing it twice has another answer, so the caller is told that the outcome is unknown.
    Once,
}

/// A request that the leader of the group answers.
pub(crate) trait LeaderCall: Clone + Send + Sync + 'static {
    /// What the caller gets.
    type Answer: Send;

    /// Whether the caller must say who it is. False only for operators' calls.
    const FROM_CLIENT: bool = true;

    /// What becomes of it when nobody knows whether it was carried out.
    const EFFECT: Effect;

    /// How long the answer may be waited for on purpose, beside the time that it takes.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    /// Answers, while this broker leads.
    fn serve(
        &self,
        service: &Arc<Service>,
        context: &Context,
    ) -> impl Future<Output = Result<Self::Answer, CallError>> + Send;

    /// Has the broker at `address` answer.
    fn forward(
        request: Request<Self>,
        service: &Service,
        address: &str,
    ) -> impl Future<Output = Result<Response<Self::Answer>, Status>> + Send;

    /// The answer that says only no.
    fn refused(refusal: Refusal) -> Self::Answer;

    /// Puts into the answer's metadata what does not fit into the answer.
    fn describe(_: &Self::Answer, _: &mut MetadataMap) {}

    /// Whether an answer says that nothing was done, for reasons that lie in the moment.
    fn denies(_: &Self::Answer) -> bool {
        false
    }
}

/// Answers a call as the leader, or has the leader answer it.
pub(crate) async fn lead<C: LeaderCall>(
    service: &Arc<Service>,
    request: Request<C>,
) -> Result<Response<C::Answer>, Status> {
    let (metadata, extensions, call) = request.into_parts();
    let context = Context::of(metadata, &extensions, service, call.patience());
    if C::FROM_CLIENT
        && let Err(refusal) = context.client_id()
    {
        return Ok(answered(service, C::refused(refusal)));
    }
    if let Err(refusal) = context.is_for(&service.config.group) {
        // Who leads here is no answer to who leads there.
        return Ok(Response::new(C::refused(refusal)));
    }
    let mut maybe_done = None;
    loop {
        let standing = tokio::select! {
            biased;
            standing = service.leadership.standing(context.deadline) => standing,
            // A replica that has ended hears of no leader any more: its caller finds another broker at once.
            () = service.shutdown.wait() => Standing::Unavailable,
        };
        let tried = tokio::select! {
            biased;
            tried = attempt(service, &context, &call, &standing) => tried?,
            () = service.leadership.changed_from(&standing), if C::EFFECT != Effect::Once => {
                Err(CallError::Unknown("the leader changed meanwhile".to_owned()))
            }
        };
        let (reason, again) = match tried {
            // After an attempt that may have done it, nobody can say that it was not done.
            Ok(response) if maybe_done.is_some() && C::denies(response.get_ref()) => {
                ("refused when it was tried again".to_owned(), false)
            }
            Ok(response) => return Ok(response),
            Err(CallError::Refused(refusal)) if maybe_done.is_none() => {
                return Ok(answered(service, C::refused(refusal)));
            }
            Err(CallError::Refused(refusal)) => (refusal.reason, false),
            Err(CallError::Moved(reason)) => (reason, standing != Standing::Unavailable),
            Err(CallError::Unknown(reason)) => {
                maybe_done = (C::EFFECT != Effect::None).then(|| reason.clone());
                (reason, C::EFFECT != Effect::Once)
            }
        };
        if !again || context.left() <= RETRY_PAUSE || service.shutdown.is_shut_down() {
            let refusal = given_up(maybe_done, reason);
            return Ok(answered(service, C::refused(refusal)));
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// One attempt, here or at the leader. Outside, an error of gRPC that the leader answered with.
async fn attempt<C: LeaderCall>(
    service: &Arc<Service>,
    context: &Context,
    call: &C,
    standing: &Standing,
) -> Result<Result<Response<C::Answer>, CallError>, Status> {
    match standing {
        Standing::Serving => match timeout(context.left(), call.serve(service, context)).await {
            Ok(served) => Ok(served.map(|answer| {
                let mut metadata = MetadataMap::new();
                C::describe(&answer, &mut metadata);
                name_leader(service, &mut metadata);
                context.take_remarks(&mut metadata);
                let mut extensions = Extensions::default();
                context.take_hold().attach(&mut extensions);
                Response::from_parts(metadata, answer, extensions)
            })),
            Err(_) => Ok(Err(CallError::Unknown("no answer in time".to_owned()))),
        },
        Standing::Forward(address) => forward(service, context, call, address).await,
        Standing::Unavailable => Ok(Err(CallError::Moved(
            "no leader of the broker group is known".to_owned(),
        ))),
    }
}

/// An answer of this broker, with the leader's address in its metadata.
pub(crate) fn answered<A>(service: &Service, answer: A) -> Response<A> {
    let mut response = Response::new(answer);
    name_leader(service, response.metadata_mut());
    response
}

/// Puts the leader's address into an answer's metadata.
pub(crate) fn name_leader(service: &Service, metadata: &mut MetadataMap) {
    service
        .leadership
        .with_leader_address(|address| gateway::set_leader(metadata, address));
}

/// The leader's response; inside, the failure to reach it.
async fn forward<C: LeaderCall>(
    service: &Service,
    context: &Context,
    call: &C,
    address: &str,
) -> Result<Result<Response<C::Answer>, CallError>, Status> {
    let mut request = Request::from_parts(
        context.metadata.clone(),
        Extensions::default(),
        call.clone(),
    );
    request.set_timeout(context.left());
    match C::forward(request, service, address).await {
        Ok(mut response) => {
            if response.metadata().get(gateway::LEADER).is_none() {
                name_leader(service, response.metadata_mut());
            }
            Ok(Ok(response))
        }
        Err(status) if gateway::is_unreachable(&status) => {
            Ok(Err(CallError::Unknown(status.message().to_owned())))
        }
        Err(status) => Err(status),
    }
}

fn given_up(maybe_done: Option<String>, reason: String) -> Refusal {
    match maybe_done {
        Some(unknown) => status::outcome_unknown(unknown),
        None => status::not_available(reason),
    }
}
