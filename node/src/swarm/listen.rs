//! Where a node listens: what it was told, or the default port of all interfaces.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libp2p::core::transport::ListenerId;
use libp2p::swarm::NetworkBehaviour;
use libp2p::{Multiaddr, Swarm};

use super::SwarmError;
use super::address::{Place, multiaddress};

/// Port of TCP and UDP that is listened on where nothing else is said.
pub(crate) const DEFAULT_PORT: u16 = 22_477;

/// What is listened on.
#[derive(Debug, Default)]
pub(super) struct Listening {
    /// Listeners that have no address yet, and how they were asked for.
    pub(super) pending: Vec<(ListenerId, String)>,
    /// IP addresses as asked for.
    pub(super) ips: Vec<IpAddr>,
}

/// Begins to listen on what a user named, or on the defaults where that is nothing.
pub(super) fn begin<B: NetworkBehaviour>(
    swarm: &mut Swarm<B>,
    addresses: &[String],
) -> Result<Listening, SwarmError> {
    if addresses.is_empty() {
        return begin_default(swarm);
    }
    let mut listening = Listening::default();
    for text in addresses {
        let place = Place::parse(text)?;
        let Some(ip) = place.ip() else {
            return Err(SwarmError::Address {
                address: text.clone(),
                reason: "only an IP address can be listened on".to_owned(),
            });
        };
        let listener = listen(swarm, ip, place.port, place.quic);
        let listener = listener.map_err(|error| refused(text, &error))?;
        listening.add(listener, text.clone(), ip);
    }
    Ok(listening)
}

fn begin_default<B: NetworkBehaviour>(swarm: &mut Swarm<B>) -> Result<Listening, SwarmError> {
    let mut listening = Listening::default();
    let mut failure = None;
    for ip in [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Ipv6Addr::UNSPECIFIED.into(),
    ] {
        for quic in [false, true] {
            let text = multiaddress(ip, DEFAULT_PORT, quic).to_string();
            let listener = listen(swarm, ip, DEFAULT_PORT, quic).or_else(|error| {
                tracing::debug!(address = text, %error, "the default port is not to be had");
                listen(swarm, ip, 0, quic)
            });
            match listener {
                Ok(listener) => listening.add(listener, text, ip),
                Err(error) => {
                    tracing::info!(address = text, %error, "not listened on");
                    failure = Some(refused(&text, &error));
                }
            }
        }
    }
    match failure {
        Some(failure) if listening.pending.is_empty() => Err(failure),
        _ => Ok(listening),
    }
}

impl Listening {
    fn add(&mut self, listener: ListenerId, text: String, ip: IpAddr) {
        self.pending.push((listener, text));
        if !self.ips.contains(&ip) {
            self.ips.push(ip);
        }
    }
}

/// The error of an address that can't be listened on.
pub(super) fn refused(address: &str, error: &io::Error) -> SwarmError {
    SwarmError::Listen {
        address: address.to_owned(),
        reason: error.to_string(),
    }
}

fn listen<B: NetworkBehaviour>(
    swarm: &mut Swarm<B>,
    ip: IpAddr,
    port: u16,
    quic: bool,
) -> io::Result<ListenerId> {
    if port != 0 && !quic {
        check_free(SocketAddr::new(ip, port))?;
    }
    let address: Multiaddr = multiaddress(ip, port, quic);
    swarm.listen_on(address).map_err(io::Error::other)
}

/// Fails where a port is listened on already: libp2p's own listener shares a port with any other of the same
/// user, and the system would hand each connection to either.
fn check_free(address: SocketAddr) -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket, sockopt};
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket(family, SocketType::STREAM, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    listen(&socket, 1)?;
    Ok(())
}
