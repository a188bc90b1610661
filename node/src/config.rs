//! What a node is told at start.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Settings of a node, already checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder that holds everything the node keeps.
    pub data: PathBuf,
    /// Bare one-segment ids of older code, and other short names: `gpt2` → `namespace/name`.
    pub aliases: BTreeMap<String, String>,
    /// Local name of this node's own namespace, so that `push DIR mymodel` and `local/mymodel` work.
    pub namespace_alias: String,
    /// Name written as the author of commits made here.
    pub author_name: Option<String>,
    /// Mail address written as the author's of commits made here.
    pub author_email: Option<String>,
    /// Bytes of memory that sled may use as its cache (its process-wide use is several times that).
    pub view_cache_bytes: u64,
    /// How to speak to other nodes; not at all where absent.
    pub network: Option<NetworkConfig>,
    /// Bytes of content that was fetched on demand and is kept; by default as much as leaves a tenth of the
    /// disk free. The least recently used goes first.
    pub cache_bytes: Option<u64>,
}

/// How a node speaks to others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Multiaddresses to listen on; where empty, the default ports of all interfaces, or free ones where
    /// those are taken.
    pub listen: Vec<String>,
    /// Multiaddresses of peers to keep connected to.
    pub peers: Vec<String>,
    /// Whether to find peers on the local network by mDNS.
    pub mdns: bool,
    /// Bytes of content a second that are sent to all peers together, at most.
    pub upload_rate: Option<u64>,
    /// Bytes of content a second that are taken from all peers together, at most.
    pub download_rate: Option<u64>,
}

impl Config {
    /// Defaults for a data folder.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            aliases: BTreeMap::new(),
            namespace_alias: "local".to_owned(),
            author_name: None,
            author_email: None,
            view_cache_bytes: 16 << 20,
            network: None,
            cache_bytes: None,
        }
    }
}

/// Says what is wrong with the text of a multiaddress that is to be listened on or dialled.
///
/// # Errors
/// A sentence for people.
pub fn check_address(text: &str) -> Result<(), String> {
    use libp2p::multiaddr::Protocol;

    let example = "such as /ip4/192.0.2.7/tcp/22477";
    let address: libp2p::Multiaddr = text
        .parse()
        .map_err(|error| format!("it is no multiaddress ({example}): {error}"))?;
    let mut parts = address.iter();
    let host = parts.next();
    let named = matches!(
        host,
        Some(
            Protocol::Ip4(_)
                | Protocol::Ip6(_)
                | Protocol::Dns(_)
                | Protocol::Dns4(_)
                | Protocol::Dns6(_)
        )
    );
    if !named {
        return Err(format!("it begins with no host ({example})"));
    }
    match (parts.next(), parts.next()) {
        (Some(Protocol::Tcp(_)), None | Some(Protocol::P2p(_)))
        | (Some(Protocol::Udp(_)), Some(Protocol::QuicV1)) => Ok(()),
        _ => Err(format!(
            "it has neither tcp and a port nor udp, a port and quic-v1 behind the host ({example})"
        )),
    }
}
