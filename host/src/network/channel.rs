//! Client connections.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint, Uri};

use super::tls::secure;
use super::{ChannelOptions, NetworkError};

/// A channel to `host:port`. Connects on first use and again after a failure; the first call
/// reports what went wrong.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the seam that others must ask"
)]
pub fn channel(address: &str, options: &ChannelOptions) -> Result<Channel, NetworkError> {
    let invalid = || NetworkError::Address {
        address: address.to_string(),
    };
    // Who proves secures the connection itself: the proof runs inside TLS.
    let scheme = match (&options.tls, &options.secret) {
        (Some(_), None) => "https",
        _ => "http",
    };
    let uri: Uri = format!("{scheme}://{address}")
        .parse()
        .map_err(|_| invalid())?;
    if uri.port_u16().is_none() || uri.path() != "/" {
        return Err(invalid());
    }
    let endpoint = Endpoint::from(uri)
        .connect_timeout(Duration::from_millis(options.connect_timeout_ms))
        .http2_keep_alive_interval(Duration::from_millis(options.keepalive_interval_ms))
        .keep_alive_timeout(Duration::from_millis(options.keepalive_timeout_ms))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(options.stream_window_bytes)
        .initial_connection_window_size(options.connection_window_bytes)
        .tcp_nodelay(true);
    #[cfg(not(madsim))]
    let endpoint = endpoint.max_frame_size(super::FRAME_BYTES_MAX);
    #[cfg(not(madsim))]
    if let Some(secret) = &options.secret {
        let host = endpoint.uri().host().unwrap_or_default().to_owned();
        let connector = super::connector::Connector::new(address, &host, secret, options)?;
        return Ok(endpoint.connect_with_connector_lazy(connector));
    }
    let endpoint = match &options.tls {
        Some(tls) => secure(endpoint, tls)?,
        None => endpoint,
    };
    Ok(endpoint.connect_lazy())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches addresses that would only fail at the first call, with a puzzling message.
    #[tokio::test]
    async fn an_address_must_be_host_and_port() {
        let options = ChannelOptions::default();
        for address in ["127.0.0.1:8081", "broker-1:8081", "[::1]:8081"] {
            assert!(channel(address, &options).is_ok(), "{address}");
        }
        for address in [
            "",
            "broker",
            "broker:",
            "http://broker:1",
            "broker:8081/x",
            "broker:port",
        ] {
            assert!(channel(address, &options).is_err(), "{address}");
        }
    }
}
