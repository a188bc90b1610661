//! The QUIC endpoint: what it binds, what it never does, and how much memory a connection may take.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use cairn_protocol::key::{PublicKey, SecretKey};
use cairn_protocol::transfer;
use iroh::endpoint::{
    AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, PortmapperConfig, QuicTransportConfig,
    VarInt, presets,
};
use iroh::{Endpoint, EndpointId, RelayMode};

use tokio::net::TcpListener;

use super::{TransferError, http};

/// A connection without a sign of life is given up after this.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Streams that one connection may have open at once; the peer waits with more.
const STREAMS_MAX: u32 = 64;
/// Bytes of one stream that a peer may send ahead of what is read. Not more: noq breaks a connection off
/// whose stream has over 1,024 gaps, which so many bytes can't have, were every second packet lost.
/// More than two pieces: see `get`.
const STREAM_WINDOW_BYTES: u32 = (2 << 20) + (128 << 10);
/// Bytes of all streams of one connection that a peer may send ahead of what is read.
const CONNECTION_WINDOW_BYTES: u32 = 10 << 20;
/// Bytes of one connection that are sent and not acknowledged.
const SEND_WINDOW_BYTES: u64 = 4 << 20;
/// Largest datagram that is tried: what Ethernet carries over IPv4. The endpoint takes no larger ones.
const DATAGRAM_BYTES_MAX: u16 = 1472;

/// Packets that the other end may take before it acknowledges them: each acknowledgement costs both ends.
const PACKETS_PER_ACK: u32 = 10;

/// How often a free port is looked for.
const PORT_ATTEMPTS: u32 = 8;
/// How often binding is tried: a port that was free may be taken by then.
const BIND_ATTEMPTS: u32 = 3;

/// Binds, each address over UDP and TCP; no relay, no name service, no address look-up, no port mapping.
pub(super) async fn bind(
    addresses: &[SocketAddr],
    key: &SecretKey,
) -> Result<(Endpoint, Vec<TcpListener>), TransferError> {
    let mut attempts = BIND_ATTEMPTS;
    loop {
        attempts -= 1;
        match try_bind(addresses, key).await {
            Err(error) if attempts > 0 => tracing::debug!(%error, "binding is tried again"),
            ended => return ended,
        }
    }
}

async fn try_bind(
    addresses: &[SocketAddr],
    key: &SecretKey,
) -> Result<(Endpoint, Vec<TcpListener>), TransferError> {
    let failed = |error: String| TransferError::Unreachable(format!("bind: {error}"));
    let mut builder = Endpoint::builder(presets::Minimal)
        .secret_key(iroh::SecretKey::from_bytes(&key.seed()))
        .relay_mode(RelayMode::Disabled)
        .clear_address_lookup()
        .portmapper_config(PortmapperConfig::Disabled)
        .net_report_config(iroh::NetReportConfig::minimal())
        .transport_config(transport())
        .alpns(vec![iroh_blobs::ALPN.to_vec(), transfer::ALPN.to_vec()])
        .clear_ip_transports();
    let any = [SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))];
    let mut listeners = Vec::new();
    for address in if addresses.is_empty() {
        &any
    } else {
        addresses
    } {
        let mut address = *address;
        match listen(address) {
            Ok((free, listener)) => {
                address = free;
                listeners.push(listener);
            }
            Err(error) => {
                tracing::warn!(%address, %error, "contents go over QUIC alone");
                address.set_port(0);
            }
        }
        builder = builder
            .bind_addr(address)
            .map_err(|error| failed(format!("{address}: {error}")))?;
    }
    let endpoint = builder.bind().await;
    let endpoint = endpoint.map_err(|error| failed(format!("{error:#}")))?;
    Ok((endpoint, listeners))
}

/// Listens on a TCP port whose number is free for UDP as well: this one, or any where it is taken.
fn listen(mut address: SocketAddr) -> std::io::Result<(SocketAddr, TcpListener)> {
    let mut attempts = PORT_ATTEMPTS;
    loop {
        attempts -= 1;
        let listening = http::listen(address).and_then(|listener| {
            let free = SocketAddr::new(address.ip(), listener.local_addr()?.port());
            std::net::UdpSocket::bind(free)?;
            Ok((free, listener))
        });
        match listening {
            Err(error) if attempts > 0 => {
                if address.port() != 0 {
                    tracing::info!(%address, %error, "the port for contents is taken: it is a free one now");
                }
                address.set_port(0);
            }
            ended => return ended,
        }
    }
}

fn transport() -> QuicTransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(DATAGRAM_BYTES_MAX);
    let mut acknowledge = AckFrequencyConfig::default();
    acknowledge.ack_eliciting_threshold(VarInt::from_u32(PACKETS_PER_ACK));
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).expect("invariant: 30 s fit a variable integer");
    QuicTransportConfig::builder()
        .max_idle_timeout(Some(idle))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .mtu_discovery_config(Some(mtu))
        .ack_frequency_config(Some(acknowledge))
        .build()
}

/// A node's key as iroh has it; `None` for a key that no node can have.
pub(super) fn endpoint_id(key: &PublicKey) -> Option<EndpointId> {
    match key {
        PublicKey::Ed25519(bytes) => EndpointId::from_bytes(bytes).ok(),
        PublicKey::P256(_) => None,
    }
}

/// The node's key of a connection's other end.
pub(super) fn public_key(id: EndpointId) -> PublicKey {
    PublicKey::Ed25519(*id.as_bytes())
}
