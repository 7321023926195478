//! Counts each call's request while it arrives, and its answer until it was taken.
//!
//! Stands around all services of a port, so that none can be forgotten. A request's bytes are taken from the budget when
//! its length is known, before anything is decoded or room for it is made; until then the transport's small window is
//! all that it can fill. An answer that took its bytes before it was made brings them along; each piece that leaves carries its part,
//! and gives it back when the transport lets go of it. Must never look into a message.

mod arriving;
mod framing;
mod leaving;

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::{BoxFuture, Either};
use tonic::body::Body;
use tonic::codegen::{Service, http};

use self::arriving::Arriving;
use self::leaving::Leaving;
use super::answer_budget::{AnswerBudget, Attached};
use super::connection::ConnectionInfo;

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
    type Future = Either<S::Future, BoxFuture<'static, Result<Self::Response, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Some(info) = request.extensions().get::<ConnectionInfo>() else {
            return Either::Left(self.service.call(request));
        };
        let account = info.account().clone();
        let call = account.begin();
        let is_counted = account.shares().is_some();
        let (mut head, mut body) = request.into_parts();
        if is_counted {
            body = Body::new(Arriving::new(body, call.clone()));
            head.extensions.insert(AnswerBudget::new(account));
        }
        let answer = self.service.call(http::Request::from_parts(head, body));
        Either::Right(
            async move {
                let (mut head, body) = answer.await?.into_parts();
                let held = head.extensions.remove::<Attached>();
                let held = held.and_then(Attached::detach);
                let body = Body::new(Leaving::new(body, call, held, is_counted));
                Ok(http::Response::from_parts(head, body))
            }
            .boxed(),
        )
    }
}
