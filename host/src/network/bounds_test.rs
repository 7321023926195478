//! Clients whose every byte is counted, at a server that answers what it read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use http_body::Frame;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::bounds::Patience;
use super::*;
use crate::Shutdown;

const MIB: usize = 1 << 20;

/// Reads requests to their end.
#[derive(Clone)]
struct Reads;

impl NamedService for Reads {
    const NAME: &'static str = "test.Reads";
}

impl Service<http::Request<Body>> for Reads {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        async move {
            let mut body = request.into_body();
            loop {
                let frame =
                    poll_fn(|context| http_body::Body::poll_frame(Pin::new(&mut body), context));
                match frame.await {
                    Some(Ok(_)) => {}
                    Some(Err(status)) => return Ok(status.into_http()),
                    None => return Ok(Status::new(Code::Ok, "").into_http()),
                }
            }
        }
        .boxed()
    }
}

/// One message, whole.
struct Whole(Option<Bytes>);

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }
}

async fn send(mut channel: Channel, bytes: usize) -> (i32, bool) {
    let mut message = vec![0];
    message.extend((bytes as u32).to_be_bytes());
    message.resize(message.len() + bytes, 7);
    let request = http::Request::post("http://server/test.Reads/Read")
        .header("content-type", "application/grpc")
        .body(Body::new(Whole(Some(message.into()))))
        .unwrap();
    poll_fn(|context| channel.poll_ready(context))
        .await
        .unwrap();
    let answer = channel.call(request).await.unwrap();
    let headers = answer.headers();
    let code = headers["grpc-status"].to_str().unwrap().parse().unwrap();
    (code, headers.contains_key("x-raftmq-unread"))
}

/// Catches uploads that wait and fill their connection's window, so that those they wait for do not arrive, and the client is
/// cut for what the server did.
#[tokio::test]
async fn uploads_of_one_connection_do_not_block_each_other() {
    let options = BoundsOptions {
        bytes_max: 64 << 20,
        request_bytes_max: 4 << 20,
        answer_bytes_max: 1 << 20,
    };
    let patience = Patience {
        alone: Duration::from_secs(3),
        pressed: Duration::from_millis(200),
    };
    let bounds = Bounds::with_patience(&options, patience);
    let options = ServerOptions {
        bounds: Some(bounds.clone()),
        ..ServerOptions::default()
    };
    let (_trigger, shutdown) = Shutdown::new();
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_address().to_string();
    let router = server(&options).add_service(Reads);
    tokio::spawn(serve(listener, router, options, shutdown));
    let channel = channel(&address, &ChannelOptions::default()).unwrap();
    let sends = (0..12).map(|_| send(channel.clone(), MIB));
    let answers = tokio::time::timeout(Duration::from_secs(10), join_all(sends)).await;
    let answers = answers.expect("they block each other");
    let stored = answers.iter().filter(|answer| answer.0 == 0).count();
    assert!(stored >= 6, "{answers:?}");
    for (code, is_unread) in answers {
        // Whoever cannot wait is told at once, and may try again.
        assert!(
            code == 0 || (code == Code::ResourceExhausted as i32 && is_unread),
            "{code}"
        );
    }
    assert_eq!(bounds.status().requests_cut, 0);
    let again = send(channel, 4 * MIB).await;
    assert_eq!(again, (0, false));
    // The last answer is known here a moment before the server has let go of its call.
    let given_back = async {
        while bounds.status().request_bytes > 0 {
            tokio::task::yield_now().await;
        }
    };
    let given_back = tokio::time::timeout(Duration::from_secs(10), given_back).await;
    assert!(given_back.is_ok(), "{:?}", bounds.status());
}
