//! The data plane of a peer that serves what a test gives it, as badly as the test wants.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bao_tree::ChunkRanges;
use bao_tree::io::outboard::PreOrderMemOutboard;
use bytes::Bytes;
use cairn_protocol::hash::Blake3;
use cairn_protocol::piece::PieceHasher;
use cairn_protocol::transfer::{self, Answer, Held};
use iroh::endpoint::{Connection, SendStream, presets};
use iroh::protocol::{AcceptError, ProtocolHandler, Router};
use iroh::{Endpoint, RelayMode, SecretKey};
use iroh_blobs::protocol::Request;
use iroh_blobs::store::IROH_BLOCK_SIZE;

use super::forge::Forged;

/// How it serves contents of more than 64 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As it should.
    Honest,
    /// With a bit flipped at that offset.
    Wrong(usize),
    /// Half of what was asked for, then the end.
    Half,
    /// A byte a second after the first half.
    Drip,
}

/// An endpoint that serves blobs.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    blobs: Arc<BTreeMap<Blake3, Bytes>>,
    closures: Arc<BTreeMap<Blake3, Vec<Blake3>>>,
    manner: Manner,
    served: Arc<AtomicU64>,
}

/// It runs as long as this lives.
pub(crate) struct Serving {
    _router: Router,
    pub(crate) port: u16,
    served: Arc<AtomicU64>,
}

impl Serving {
    /// Requests for contents so far.
    pub(crate) fn served(&self) -> u64 {
        self.served.load(Ordering::SeqCst)
    }
}

impl Server {
    pub(crate) fn new(forged: &[&Forged], manner: Manner) -> Self {
        let blobs = forged.iter().flat_map(|forged| forged.blobs.clone());
        let closures = forged
            .iter()
            .map(|forged| (forged.refs, forged.metadata[1..].to_vec()));
        Self {
            blobs: Arc::new(blobs.collect()),
            closures: Arc::new(closures.collect()),
            manner,
            served: Arc::default(),
        }
    }

    /// Begins to serve on loopback under the key of that seed.
    pub(crate) async fn serve(self, seed: [u8; 32]) -> Serving {
        let endpoint = Endpoint::builder(presets::Minimal)
            .secret_key(SecretKey::from_bytes(&seed))
            .relay_mode(RelayMode::Disabled)
            .clear_ip_transports()
            .bind_addr(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .unwrap()
            .bind()
            .await
            .unwrap();
        let port = endpoint.bound_sockets()[0].port();
        let served = Arc::clone(&self.served);
        let router = Router::builder(endpoint)
            .accept(iroh_blobs::ALPN, Bytewise(self.clone()))
            .accept(transfer::ALPN, Questions(self))
            .spawn();
        Serving {
            _router: router,
            port,
            served,
        }
    }

    async fn answer(&self, request: Request, send: &mut SendStream) -> Result<(), Stop> {
        match request {
            Request::Get(request) => {
                let ranges = request.ranges.iter_non_empty_infinite().next();
                let (_, ranges) = ranges.ok_or(Stop)?;
                self.blob(&request.hash, ranges, send).await
            }
            Request::GetMany(request) => {
                for (hash, (_, ranges)) in request
                    .hashes
                    .iter()
                    .zip(request.ranges.iter_non_empty_infinite())
                {
                    self.blob(hash, ranges, send).await?;
                }
                Ok(())
            }
            _ => Err(Stop),
        }
    }

    async fn blob(
        &self,
        hash: &iroh_blobs::Hash,
        ranges: &ChunkRanges,
        send: &mut SendStream,
    ) -> Result<(), Stop> {
        let bytes = self.blobs.get(&Blake3::from_bytes(*hash.as_bytes()));
        let bytes = bytes.ok_or(Stop)?;
        let outboard = PreOrderMemOutboard::create(bytes, IROH_BLOCK_SIZE);
        let content = bytes.len() >= 64 << 10;
        let mut shown = bytes.to_vec();
        if let (true, Manner::Wrong(at)) = (content, self.manner) {
            shown[at] ^= 1;
        }
        let mut encoded = (bytes.len() as u64).to_le_bytes().to_vec();
        bao_tree::io::sync::encode_ranges(&*shown, &outboard, ranges, &mut encoded).unwrap();
        if !content {
            return write(send, &encoded).await;
        }
        self.served.fetch_add(1, Ordering::SeqCst);
        match self.manner {
            Manner::Honest | Manner::Wrong(_) => write(send, &encoded).await,
            Manner::Half => {
                write(send, &encoded[..encoded.len() / 2]).await?;
                Err(Stop)
            }
            Manner::Drip => {
                let (first, rest) = encoded.split_at(encoded.len() / 2);
                write(send, first).await?;
                for byte in rest {
                    write(send, &[*byte]).await?;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Ok(())
            }
        }
    }

    fn tell(&self, request: &transfer::Request) -> Answer {
        match request {
            transfer::Request::Lookup(hashes) => {
                let held = hashes.iter().map(|hash| match self.blobs.get(hash) {
                    Some(bytes) => Held::Whole(bytes.len() as u64),
                    None => Held::Absent,
                });
                Answer::Held(held.collect())
            }
            transfer::Request::List(hash) => {
                let list = self.blobs.get(hash).and_then(|bytes| {
                    let mut hasher = PieceHasher::new();
                    hasher.update(bytes);
                    hasher.finish().1
                });
                Answer::List(list)
            }
            transfer::Request::Closure { refs, skip } => {
                let all = self.closures.get(refs).cloned().unwrap_or_default();
                let rest = all.into_iter().skip(usize::try_from(*skip).unwrap());
                Answer::Closure(rest.collect(), false)
            }
        }
    }
}

/// The stream is over.
#[derive(Debug)]
struct Stop;

async fn write(send: &mut SendStream, bytes: &[u8]) -> Result<(), Stop> {
    send.write_all(bytes).await.map_err(|_| Stop)
}

#[derive(Debug, Clone)]
struct Bytewise(Server);

impl ProtocolHandler for Bytewise {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        while let Ok((mut send, mut receive)) = connection.accept_bi().await {
            let server = self.0.clone();
            tokio::spawn(async move {
                if let Ok((request, _)) = Request::read_async(&mut receive).await {
                    drop(server.answer(request, &mut send).await);
                    drop(send.finish());
                    drop(send.stopped().await);
                }
            });
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
struct Questions(Server);

impl ProtocolHandler for Questions {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        while let Ok((mut send, mut receive)) = connection.accept_bi().await {
            let server = self.0.clone();
            tokio::spawn(async move {
                let Ok(request) = receive.read_to_end(1 << 20).await else {
                    return;
                };
                let request = transfer::Request::decode(&request).unwrap();
                let answer = server.tell(&request).encode();
                drop(write(&mut send, &answer).await);
                drop(send.finish());
                drop(send.stopped().await);
            });
        }
        Ok(())
    }
}
