//! Addresses and identities: multiaddresses that mean something to us, and peer ids as node keys.

use std::net::IpAddr;

use cairn_protocol::key::PublicKey;
use libp2p::identity::{KeyType, PublicKey as PeerKey, ed25519};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use super::SwarmError;

/// Code of a multihash that is its content, which the peer id of an Ed25519 key is.
const IDENTITY_CODE: u64 = 0;

/// The node key that a peer id stands for.
pub(super) fn key_of(peer: &PeerId) -> Option<PublicKey> {
    let hash = peer.as_ref();
    let key = (hash.code() == IDENTITY_CODE).then(|| PeerKey::try_decode_protobuf(hash.digest()));
    let key = key?.ok().filter(|key| key.key_type() == KeyType::Ed25519)?;
    Some(PublicKey::Ed25519(key.try_into_ed25519().ok()?.to_bytes()))
}

/// The peer id of a node key.
pub(super) fn peer_of(key: &PublicKey) -> Option<PeerId> {
    let PublicKey::Ed25519(bytes) = key else {
        return None;
    };
    let key = ed25519::PublicKey::try_from_bytes(bytes).ok()?;
    Some(PeerKey::from(key).to_peer_id())
}

/// A place to dial or to listen on: a host, a carrier, a port, and who is expected there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) quic: bool,
    pub(super) peer: Option<PeerId>,
}

/// A host, by address or by a name that a user gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    Ip(IpAddr),
    /// A name, and the family that its address must be of.
    Name(String, Option<Family>),
}

/// Of IP addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Place {
    /// Reads a multiaddress that a user gave.
    pub(super) fn parse(text: &str) -> Result<Self, SwarmError> {
        let refuse = |reason: String| SwarmError::Address {
            address: text.to_owned(),
            reason,
        };
        let address: Multiaddr = text.parse().map_err(|error| {
            refuse(format!(
                "{error}; expected for example /ip4/192.0.2.1/tcp/22477"
            ))
        })?;
        Self::of(&address).ok_or_else(|| {
            refuse(
                "expected /ip4, /ip6, /dns, /dns4 or /dns6, then /tcp/PORT or /udp/PORT/quic-v1, \
                 then perhaps /p2p/PEER"
                    .to_owned(),
            )
        })
    }

    /// Understands a multiaddress, if it is one of TCP or QUIC without further layers.
    pub(super) fn of(address: &Multiaddr) -> Option<Self> {
        let mut parts = address.iter();
        let host = match parts.next()? {
            Protocol::Ip4(ip) => Host::Ip(ip.into()),
            Protocol::Ip6(ip) => Host::Ip(ip.into()),
            Protocol::Dns(name) => Host::Name(name.into_owned(), None),
            Protocol::Dns4(name) => Host::Name(name.into_owned(), Some(Family::V4)),
            Protocol::Dns6(name) => Host::Name(name.into_owned(), Some(Family::V6)),
            _ => return None,
        };
        let (port, quic) = match parts.next()? {
            Protocol::Tcp(port) => (port, false),
            Protocol::Udp(port) if parts.next()? == Protocol::QuicV1 => (port, true),
            _ => return None,
        };
        let peer = match parts.next() {
            None => None,
            Some(Protocol::P2p(peer)) => Some(peer),
            Some(_) => return None,
        };
        parts.next().is_none().then_some(Self {
            host,
            port,
            quic,
            peer,
        })
    }

    /// The multiaddress at an IP address, without the peer.
    pub(super) fn at(&self, ip: IpAddr) -> Multiaddr {
        multiaddress(ip, self.port, self.quic)
    }

    /// The IP address, where it is known without asking.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        match self.host {
            Host::Ip(ip) => Some(ip),
            Host::Name(..) => None,
        }
    }
}

/// A multiaddress of TCP or QUIC.
pub(super) fn multiaddress(ip: IpAddr, port: u16, quic: bool) -> Multiaddr {
    let address = Multiaddr::from(ip);
    if quic {
        address.with(Protocol::Udp(port)).with(Protocol::QuicV1)
    } else {
        address.with(Protocol::Tcp(port))
    }
}

/// The IP address of a connection's far end.
pub(super) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip).to_canonical()),
        _ => None,
    })
}

/// How far an address reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Host,
    Site,
    World,
}

fn reach(ip: IpAddr) -> Option<Reach> {
    let refused = match ip {
        IpAddr::V4(ip) => {
            ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() || ip.octets()[0] == 0
        }
        // A link's addresses need its name beside them, which a multiaddress of TCP doesn't carry.
        IpAddr::V6(ip) => ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local(),
    };
    if refused {
        return None;
    }
    Some(if ip.is_loopback() {
        Reach::Host
    } else if match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    } {
        Reach::Site
    } else {
        Reach::World
    })
}

/// Whether others can dial this address of ours.
pub(super) fn is_dialable(address: &Multiaddr) -> bool {
    Place::of(address)
        .and_then(|place| place.ip())
        .and_then(reach)
        .is_some()
}

/// What a peer that is reached at `seen` says of its addresses, as far as it makes sense: no names, no
/// layers that we don't speak, and none that reaches less far than the peer is away.
pub(super) fn sensible(claimed: &[Multiaddr], seen: IpAddr, max: usize) -> Vec<Multiaddr> {
    let Some(distance) = reach(seen) else {
        return Vec::new();
    };
    let mut sensible = Vec::new();
    for address in claimed {
        let Some(place) = Place::of(address).filter(|place| place.port != 0) else {
            continue;
        };
        let Some(ip) = place.ip() else { continue };
        if reach(ip).is_none_or(|reach| reach < distance) {
            continue;
        }
        let address = place.at(ip);
        if !sensible.contains(&address) {
            sensible.push(address);
        }
        if sensible.len() == max {
            break;
        }
    }
    sensible
}

#[cfg(test)]
mod tests {
    use cairn_protocol::key::SecretKey;

    use super::*;

    #[test]
    fn keys_and_peer_ids_are_the_same_thing() {
        let key = SecretKey::from_seed([3; 32]).public();
        let peer = peer_of(&key).unwrap();
        assert_eq!(key_of(&peer), Some(key));
        assert_eq!(key_of(&PeerId::random()), None, "a random hash is no key");
        let p256: PublicKey = format!("p256:02{}", "ab".repeat(32)).parse().unwrap();
        assert_eq!(peer_of(&p256), None);
    }

    #[test]
    fn only_addresses_that_can_be_dialled_are_places() {
        let peer = peer_of(&SecretKey::from_seed([3; 32]).public()).unwrap();
        for good in [
            "/ip4/127.0.0.1/tcp/1".to_owned(),
            "/ip6/::1/udp/1/quic-v1".to_owned(),
            format!("/dns/example.org/tcp/22477/p2p/{peer}"),
        ] {
            assert!(Place::parse(&good).is_ok(), "{good}");
        }
        for bad in [
            "127.0.0.1:1",
            "/ip4/127.0.0.1",
            "/ip4/127.0.0.1/udp/1",
            "/ip4/127.0.0.1/tcp/1/ws",
            "/dnsaddr/example.org",
            "/ip4/300.0.0.1/tcp/1",
            "",
        ] {
            let error = Place::parse(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }

    #[test]
    fn a_peers_claims_reach_as_far_as_it_is_away() {
        let claimed: Vec<Multiaddr> = [
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/192.168.1.2/tcp/1",
            "/ip4/203.0.113.9/udp/1/quic-v1",
            "/ip4/203.0.113.9/udp/1/quic-v1",
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/224.0.0.251/tcp/1",
            "/ip4/203.0.113.9/tcp/0",
            "/ip6/fe80::1/tcp/1",
            "/dns/example.org/tcp/1",
        ]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
        let count = |seen: &str| sensible(&claimed, seen.parse().unwrap(), 16).len();
        assert_eq!(count("127.0.0.1"), 3);
        assert_eq!(count("192.168.1.7"), 2);
        assert_eq!(count("203.0.113.9"), 1);
        assert_eq!(count("0.0.0.0"), 0);
        assert_eq!(sensible(&claimed, "127.0.0.1".parse().unwrap(), 2).len(), 2);
    }
}
