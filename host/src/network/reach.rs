//! Whether anybody is at an address.

use std::time::Duration;

use tokio::net::TcpStream;

/// Whether a connection to `host:port` is accepted in time. Says nothing to whoever is there: it may be anybody. In the
/// simulator, where servers have no TCP connections, nobody is anywhere.
pub async fn accepts(address: &str, patience: Duration) -> bool {
    let connecting = TcpStream::connect(address);
    matches!(tokio::time::timeout(patience, connecting).await, Ok(Ok(_)))
}

#[cfg(all(test, feature = "server", not(madsim)))]
mod tests {
    use super::*;
    use crate::network::Listener;

    /// Catches a question that says yes whoever is there, or no whoever is there.
    #[tokio::test]
    async fn somebody_is_there_or_nobody() {
        let patience = Duration::from_secs(10);
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_address().to_string();
        assert!(accepts(&address, patience).await);
        drop(listener);
        assert!(!accepts(&address, patience).await);
        assert!(!accepts("no address", patience).await);
    }
}
