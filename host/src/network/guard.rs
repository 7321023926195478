//! Services on a port that is open to everybody, which only those reach who proved that they hold the cluster's secret.
//!
//! A guard stands before a whole service, so that no method of it can be forgotten. Everybody else is answered before
//! anything of the request's body is read, and as if there were no such service: a stranger is told nothing.

#[cfg(not(madsim))]
pub use real::Guarded;

/// `service`, for those only who proved that they hold the cluster's secret.
#[cfg(not(madsim))]
pub fn guarded<S>(service: S) -> Guarded<S> {
    Guarded::new(service)
}

/// `service`: in the simulator every connection counts as proven.
#[cfg(madsim)]
pub fn guarded<S>(service: S) -> S {
    service
}

#[cfg(not(madsim))]
mod real {
    use std::convert::Infallible;
    use std::task::{Context, Poll};

    use futures::future::{Either, Ready, ready};
    use tonic::Status;
    use tonic::codegen::{Service, http};
    use tonic::server::NamedService;

    use crate::network::connection::ConnectionInfo;

    /// A service with a guard before it.
    #[derive(Clone, Debug)]
    pub struct Guarded<S> {
        service: S,
    }

    impl<S> Guarded<S> {
        pub(super) fn new(service: S) -> Guarded<S> {
            Guarded { service }
        }
    }

    impl<S: NamedService> NamedService for Guarded<S> {
        const NAME: &'static str = S::NAME;
    }

    impl<S, B, A> Service<http::Request<B>> for Guarded<S>
    where
        S: Service<http::Request<B>, Response = http::Response<A>, Error = Infallible>,
        A: Default,
    {
        type Response = http::Response<A>;
        type Error = Infallible;
        type Future = Either<S::Future, Ready<Result<http::Response<A>, Infallible>>>;

        fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            self.service.poll_ready(context)
        }

        fn call(&mut self, request: http::Request<B>) -> Self::Future {
            let connection = request.extensions().get::<ConnectionInfo>();
            if connection.is_some_and(ConnectionInfo::is_proven) {
                return Either::Left(self.service.call(request));
            }
            // Word for word what tonic says of a service that it does not have.
            let mut unknown = Status::unimplemented("").into_http();
            let nothing = http::HeaderValue::from_static("0");
            unknown
                .headers_mut()
                .insert(http::header::CONTENT_LENGTH, nothing);
            Either::Right(ready(Ok(unknown)))
        }
    }
}
