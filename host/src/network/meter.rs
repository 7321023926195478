//! Counts each call's request while it arrives, and its answer until it was taken.
//!
//! Stands around all services of a port, so that none can be forgotten. A request's bytes are taken from the budget when
//! its length is known, before anything is decoded or room for it is made; until then the transport's small window is
//! all that it can fill. An answer that took its bytes before it was made brings them along; what others say takes its bytes
//! before it leaves, and where it comes into being by being asked for, before that. Each piece that leaves carries its part,
//! and gives it back when the transport lets go of it. What servers pass on says whose it is. Must never look into a message.

mod arriving;
mod framing;
mod leaving;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::{BoxFuture, Either};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};

use self::arriving::Arriving;
use self::leaving::Leaving;
use super::UNREAD;
use super::account::Account;
use super::answer_budget::{AnswerBudget, Attached, OnDemand};
use super::bounds::Kind;
use super::connection::ConnectionInfo;

/// In a call that a server passes on: the address of the client whose it is. Of a client it is not believed.
const ORIGIN: &str = "x-raftmq-origin";

/// Refuses a request of which nothing was read, for now.
fn unread(reason: &str) -> Status {
    let mut status = Status::resource_exhausted(reason);
    let yes = tonic::metadata::MetadataValue::from_static("1");
    status.metadata_mut().insert(UNREAD, yes);
    status
}

/// Puts a meter around services.
#[derive(Clone, Copy, Debug)]
pub struct MeterLayer;

impl<S> tower_layer::Layer<S> for MeterLayer {
    type Service = Metered<S>;

    fn layer(&self, service: S) -> Metered<S> {
        Metered { service }
    }
}

/// Services with a meter around them.
#[derive(Clone, Debug)]
pub struct Metered<S> {
    service: S,
}

impl<S> Service<http::Request<Body>> for Metered<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Either<
        Either<S::Future, Ready<Result<Self::Response, Infallible>>>,
        BoxFuture<'static, Result<Self::Response, Infallible>>,
    >;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Some(info) = request.extensions().get::<ConnectionInfo>() else {
            return Either::Left(Either::Left(self.service.call(request)));
        };
        let account = info.account().clone();
        let Some(call) = account.begin() else {
            let refusal = unread("too many calls are being answered: try again later");
            return Either::Left(Either::Right(ready(Ok(refusal.into_http()))));
        };
        let (mut head, mut body) = request.into_parts();
        if account.shares().is_some() {
            body = Body::new(Arriving::new(body, call.clone()));
        }
        if let Some(budget) = budget(&account, &mut head.headers) {
            head.extensions.insert(budget);
        }
        let answer = self.service.call(http::Request::from_parts(head, body));
        Either::Right(
            async move {
                let (mut head, body) = answer.await?.into_parts();
                let held = head.extensions.remove::<Attached>();
                let held = held.and_then(Attached::detach);
                let is_on_demand = head.extensions.remove::<OnDemand>().is_some();
                let body = Body::new(Leaving::new(body, call, held, is_on_demand));
                Ok(http::Response::from_parts(head, body))
            }
            .boxed(),
        )
    }
}

/// What the answer to a call may take: of its own connection's part, or, if a server passes it on, of its client's.
fn budget(account: &Account, headers: &mut http::HeaderMap) -> Option<AnswerBudget> {
    if let Some(shares) = account.shares() {
        let address = account.peer.ip().to_string();
        if let Ok(address) = http::HeaderValue::from_maybe_shared(bytes::Bytes::from(address)) {
            headers.insert(ORIGIN, address);
        }
        return Some(AnswerBudget::new(shares.of(Kind::Answers).clone()));
    }
    let address = headers.get(ORIGIN)?.to_str().ok()?;
    let address: IpAddr = address.parse().ok()?;
    Some(AnswerBudget::new(account.forwarded(address)?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;

    use super::*;
    use crate::network::{Bounds, BoundsOptions};

    const MIB: u64 = 1 << 20;

    /// Catches a client that has its answers made out of another's part, and a server whose clients share one part.
    #[tokio::test]
    async fn whose_an_answer_is_a_server_says_and_a_client_does_not() {
        let bounds = Bounds::new(&BoundsOptions {
            bytes_max: 64 * MIB,
            request_bytes_max: MIB,
            answer_bytes_max: MIB,
        });
        let account = || Arc::new(Account::new(([10, 0, 0, 9], 1).into(), Some(&bounds)));
        let named = |address: &'static str| {
            let value = http::HeaderValue::from_static(address);
            http::HeaderMap::from_iter([(http::HeaderName::from_static(ORIGIN), value)])
        };
        let full = |budget: &AnswerBudget| {
            let takes = std::iter::from_fn(|| budget.take(MIB).now_or_never());
            takes.take(100).collect::<Vec<_>>()
        };
        let stranger = account();
        let mut headers = named("10.0.0.1");
        let own = budget(&stranger, &mut headers).unwrap();
        assert_eq!(headers[ORIGIN], "10.0.0.9");
        let _full = full(&own);

        let server = account();
        server.set_proven(true);
        let of = |address| budget(&server, &mut named(address));
        // One call has a connection's part at most, all calls of a client together its address's.
        let one_each = |address| {
            let takes = std::iter::from_fn(|| of(address).unwrap().take(MIB).now_or_never());
            takes.take(100).collect::<Vec<_>>()
        };
        let first = one_each("10.0.0.1");
        assert!(!first.is_empty() && first.len() < 100);
        let others = one_each("10.0.0.2");
        assert_eq!(others.len(), first.len(), "they share a part");
        assert!(of("10.0.0.1").unwrap().take(MIB).now_or_never().is_none());
        assert!(of("nobody").is_none());
        assert!(budget(&server, &mut http::HeaderMap::new()).is_none());
    }
}
