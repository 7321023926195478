//! What a task may do beside waiting for something: let others run.

use std::task::Poll;

/// Lets every task that is ready run before this one goes on.
///
/// Unlike tokio's own, which first has the runtime look for input, this one wakes itself: in a
/// simulation nothing else might ever do it.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    /// Catches a yield that returns at once, and one that is never woken.
    #[test]
    fn others_run_first() {
        let order = Cell::new(Vec::new());
        let note = |what| order.set([order.take(), vec![what]].concat());
        futures::executor::block_on(async {
            let yields = async {
                super::yield_now().await;
                note("yielded");
            };
            let other = async { note("other") };
            futures::join!(yields, other);
        });
        assert_eq!(order.take(), ["other", "yielded"]);
    }
}
