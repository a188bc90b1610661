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
use cairn_protocol::limits::CLOSURE_HASHES_MAX;
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
    /// Nothing after the first half, and no end either.
    Stall,
    /// Nothing, as who has not got it.
    Nothing,
}

/// What it tells in the transfer protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tale {
    /// The truth.
    Truth,
    /// Nothing at all, without ever ending.
    Silence,
    /// A piece list of another file of the same size.
    OtherList,
    /// Of everything that it is asked for: that it has it whole.
    HasAll,
    /// Before what is behind a head: these.
    Hints(Vec<Blake3>),
    /// The same short page of what is behind a head for ever.
    EndlessHints,
    /// This full page of what is behind a head, for ever.
    EndlessFullHints(Vec<Blake3>),
}

/// An endpoint that serves blobs.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    blobs: Arc<BTreeMap<Blake3, Bytes>>,
    closures: Arc<BTreeMap<Blake3, Vec<Blake3>>>,
    manner: Manner,
    tale: Tale,
    served: Arc<AtomicU64>,
    asked: Arc<AtomicU64>,
}

/// It runs as long as this lives.
pub(crate) struct Serving {
    _router: Router,
    pub(crate) port: u16,
    served: Arc<AtomicU64>,
    asked: Arc<AtomicU64>,
}

impl Serving {
    /// Requests of any kind so far.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

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
            tale: Tale::Truth,
            served: Arc::default(),
            asked: Arc::default(),
        }
    }

    /// The same, telling something else.
    pub(crate) fn telling(self, tale: Tale) -> Self {
        Self { tale, ..self }
    }

    /// The same, with other blobs to serve.
    pub(crate) fn with(mut self, others: impl IntoIterator<Item = Bytes>) -> Self {
        let mut blobs = (*self.blobs).clone();
        blobs.extend(others.into_iter().map(|bytes| (Blake3::of(&bytes), bytes)));
        self.blobs = Arc::new(blobs);
        self
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
        let (served, asked) = (Arc::clone(&self.served), Arc::clone(&self.asked));
        let router = Router::builder(endpoint)
            .accept(iroh_blobs::ALPN, Bytewise(self.clone()))
            .accept(transfer::ALPN, Questions(self))
            .spawn();
        Serving {
            _router: router,
            port,
            served,
            asked,
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
            Manner::Nothing => Err(Stop),
            Manner::Stall => {
                write(send, &encoded[..encoded.len() / 2]).await?;
                std::future::pending().await
            }
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
                    None if self.tale == Tale::HasAll => Held::Whole(9_000_000),
                    None => Held::Absent,
                });
                Answer::Held(held.collect())
            }
            transfer::Request::List(hash) => {
                let list = self.blobs.get(hash).and_then(|bytes| {
                    let mut hasher = PieceHasher::new();
                    if self.tale == Tale::OtherList {
                        hasher.update(&vec![1; bytes.len()]);
                    } else {
                        hasher.update(bytes);
                    }
                    hasher.finish().1
                });
                Answer::List(list)
            }
            transfer::Request::Closure { refs, skip } => {
                let all = self.closures.get(refs).cloned().unwrap_or_default();
                match &self.tale {
                    Tale::EndlessHints => return Answer::Closure(all, true),
                    Tale::EndlessFullHints(page) => return Answer::Closure(page.clone(), true),
                    _ => {}
                }
                let hints = match &self.tale {
                    Tale::Hints(hints) => hints.clone(),
                    _ => Vec::new(),
                };
                let all = hints.into_iter().chain(all);
                let rest = all.skip(usize::try_from(*skip).unwrap());
                let some: Vec<_> = rest.take(CLOSURE_HASHES_MAX).collect();
                let more = some.len() == CLOSURE_HASHES_MAX;
                Answer::Closure(some, more)
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
            server.asked.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                if server.tale == Tale::Silence {
                    std::future::pending::<()>().await;
                }
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
            server.asked.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                if server.tale == Tale::Silence {
                    std::future::pending::<()>().await;
                }
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
