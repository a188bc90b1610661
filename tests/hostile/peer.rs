//! The metadata plane of a peer that sends whatever a test tells it to.

use std::time::Duration;

use cairn_protocol::limits::FRAME_BYTES_MAX;
use cairn_protocol::spread::message::{Hello, Message, PROTOCOL, VERSION};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, identify, identity, noise, tcp, yamux};
use tokio::sync::mpsc;

use super::node::{Node, PATIENCE};

#[derive(libp2p::swarm::NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    stream: libp2p_stream::Behaviour,
}

/// A connection to the node under test; what it sends is read and kept.
pub(crate) struct Peer {
    pub(crate) id: String,
    stream: libp2p::Stream,
    heard: mpsc::Receiver<Message>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What an honest peer says first.
pub(crate) fn hello(blob_ports: Vec<u16>) -> Hello {
    Hello {
        versions: (VERSION, VERSION),
        format: 1,
        agent: "hostile/0".to_owned(),
        blob_ports,
        unknown: Vec::new(),
    }
}

impl Peer {
    /// Connects under the key of that seed, and says hello.
    pub(crate) async fn meet(node: &Node, seed: [u8; 32], blob_ports: Vec<u16>) -> Self {
        let mut peer = Self::connect(node, seed, PROTOCOL).await;
        peer.say(&Message::Hello(hello(blob_ports))).await;
        peer
    }

    /// Connects, and opens a stream of that protocol.
    pub(crate) async fn connect(node: &Node, seed: [u8; 32], protocol: &'static str) -> Self {
        let mut swarm = swarm(seed);
        let id = swarm.local_peer_id().to_string();
        let address: Multiaddr = node.address.parse().unwrap();
        let at = peer_of(&address);
        let mut control = swarm.behaviour().stream.new_control();
        let mut incoming = control.accept(StreamProtocol::new(protocol)).unwrap();
        swarm.dial(address).unwrap();
        let (tell, heard) = mpsc::channel(1024);
        let task = tokio::spawn(async move {
            let reading = async move {
                while let Some((_, stream)) = incoming.next().await {
                    read(stream, &tell).await;
                }
            };
            let driving = async move {
                while let Some(event) = swarm.next().await {
                    if let SwarmEvent::OutgoingConnectionError { error, .. } = event {
                        eprintln!("hostile peer: {error}");
                    }
                }
            };
            futures::future::join(reading, driving).await;
        });
        let open = async {
            loop {
                let open = control.open_stream(at, StreamProtocol::new(protocol));
                // This library's own streams get lost now and then while a connection is made.
                match tokio::time::timeout(Duration::from_secs(5), open).await {
                    Ok(Ok(stream)) => return stream,
                    other => {
                        eprintln!("hostile peer: {:?}", other.map(|opened| opened.map(drop)));
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        };
        let stream = tokio::time::timeout(PATIENCE, open).await.unwrap();
        Self {
            id,
            stream,
            heard,
            task,
        }
    }

    /// Sends a message; false once the node has closed the stream.
    pub(crate) async fn say(&mut self, message: &Message) -> bool {
        self.frame(&message.encode()).await
    }

    /// Sends a frame with any content.
    pub(crate) async fn frame(&mut self, content: &[u8]) -> bool {
        let len = u32::try_from(content.len()).unwrap();
        self.raw(&len.to_le_bytes()).await && self.raw(content).await
    }

    /// Sends bytes as they are.
    pub(crate) async fn raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// The next message for which `wanted` has something.
    pub(crate) async fn hear<T>(&mut self, mut wanted: impl FnMut(Message) -> Option<T>) -> T {
        let next = async {
            loop {
                let message = self.heard.recv().await.expect("the node closed the stream");
                if let Some(found) = wanted(message) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.unwrap()
    }
}

fn swarm(seed: [u8; 32]) -> Swarm<Behaviour> {
    libp2p::SwarmBuilder::with_existing_identity(keypair(seed))
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|key| Behaviour {
            identify: identify::Behaviour::new(identify::Config::new(
                "/cairn/id/1".to_owned(),
                key.public(),
            )),
            stream: libp2p_stream::Behaviour::new(),
        })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE * 10))
        .build()
}

fn keypair(seed: [u8; 32]) -> identity::Keypair {
    identity::Keypair::ed25519_from_bytes(seed).unwrap()
}

fn peer_of(address: &Multiaddr) -> PeerId {
    let last = address.iter().last();
    let Some(libp2p::multiaddr::Protocol::P2p(peer)) = last else {
        panic!("{address} names no peer");
    };
    peer
}

/// Reads frames until the stream ends; what nobody takes is thrown away.
async fn read(mut stream: libp2p::Stream, tell: &mpsc::Sender<Message>) {
    loop {
        let mut len = [0; 4];
        if stream.read_exact(&mut len).await.is_err() {
            return;
        }
        let len = u32::from_le_bytes(len) as usize;
        assert!(
            len > 0 && len <= FRAME_BYTES_MAX,
            "the node sent {len} bytes"
        );
        let mut frame = vec![0; len];
        if stream.read_exact(&mut frame).await.is_err() {
            return;
        }
        drop(tell.try_send(Message::decode(&frame).expect("the node sends what it reads itself")));
    }
}
