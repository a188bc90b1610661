//! Peers that lie, stop, crawl, or send what nobody asked for.

use bao_tree::{ChunkNum, ChunkRanges};
use cairn_protocol::transfer;
use cairn_protocol::transfer::Answer;
use iroh::endpoint::{Connection, ReadError, SendStream, VarInt, presets};
use iroh::{Endpoint, EndpointAddr, EndpointId, RelayMode};
use iroh_blobs::Hash;
use iroh_blobs::protocol::{ERR_LIMIT, ERR_PERMISSION, GetRequest, Request};

use super::stock::as_ours;
use super::*;
use crate::blobs::wire::READ_TIMEOUT;

/// Whether an error is the expected one.
type Is = fn(&TransferError) -> bool;

/// What a peer does with the stream of every request.
#[derive(Debug, Clone)]
enum Deed {
    /// Sends this, and ends.
    Send(Vec<u8>),
    /// Sends this, and breaks off with a code.
    Reset(Vec<u8>, u32),
    /// Sends this, and then nothing.
    Stall(Vec<u8>),
    /// Sends this, and then a byte now and then.
    Crawl(Vec<u8>),
    /// Sends this, and closes the connection.
    Close(Vec<u8>),
}

async fn bind(alpns: &[&[u8]]) -> Endpoint {
    Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .alpns(alpns.iter().map(|alpn| alpn.to_vec()).collect())
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")
        .unwrap()
        .bind()
        .await
        .unwrap()
}

/// A peer that does the same on every stream; lives as long as what is returned.
async fn peer(deed: Deed) -> (Endpoint, PublicKey, DropGuard) {
    let endpoint = bind(&[iroh_blobs::ALPN, transfer::ALPN]).await;
    let key = PublicKey::Ed25519(*endpoint.id().as_bytes());
    let stop = CancellationToken::new();
    let accepting = endpoint.clone();
    let stopped = stop.clone();
    tokio::spawn(stopped.run_until_cancelled_owned(async move {
        while let Some(incoming) = accepting.accept().await {
            let Ok(connection) = incoming.await else {
                continue;
            };
            tokio::spawn(misbehave(connection, deed.clone()));
        }
    }));
    (endpoint, key, stop.drop_guard())
}

async fn misbehave(connection: Connection, deed: Deed) {
    while let Ok((mut send, mut recv)) = connection.accept_bi().await {
        let connection = connection.clone();
        let deed = deed.clone();
        tokio::spawn(async move {
            recv.read_to_end(1 << 20).await.ok();
            act(&connection, &mut send, deed).await;
        });
    }
}

async fn act(connection: &Connection, send: &mut SendStream, deed: Deed) {
    match deed {
        Deed::Send(bytes) => {
            send.write_all(&bytes).await.ok();
            send.finish().ok();
            send.stopped().await.ok();
        }
        Deed::Reset(bytes, code) => {
            send.write_all(&bytes).await.ok();
            send.reset(VarInt::from_u32(code)).ok();
        }
        Deed::Stall(bytes) => {
            send.write_all(&bytes).await.ok();
            send.stopped().await.ok();
        }
        Deed::Crawl(bytes) => {
            send.write_all(&bytes).await.ok();
            while send.write_all(b"x").await.is_ok() {
                tokio::time::sleep(READ_TIMEOUT / 20).await;
            }
        }
        Deed::Close(bytes) => {
            send.write_all(&bytes).await.ok();
            connection.close(VarInt::from_u32(0), b"");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_verify_never_comes_out() {
    let bytes = content((4 << 20) + 77_777, 3);
    let (hash, list) = list_of(&bytes);
    let right = as_ours(&bytes, &ChunkRanges::all());
    // Where piece 2 stands on the wire: behind the size, upper pairs, and two pieces with their pairs.
    let piece = (1 << 20) + 63 * 64;
    let second = right.len() / 2;
    let mut flipped = right.clone();
    flipped[second] ^= 0x10;
    let mut larger = right.clone();
    larger[..8].copy_from_slice(&(bytes.len() as u64 + 5).to_le_bytes());
    let mut huge = right.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let prefix = right[..8 + 3 * 64 + piece + 9_999].to_vec();
    let absent = |error: &TransferError| matches!(error, TransferError::Absent);
    let broken = |error: &TransferError| matches!(error, TransferError::Broken(_));
    let lied = |error: &TransferError| matches!(error, TransferError::Lied(_));
    let cases: [(&str, Deed, Is); 12] = [
        ("a flipped bit", Deed::Send(flipped), lied),
        ("another size", Deed::Send(larger), lied),
        ("a huge size", Deed::Send(huge), lied),
        ("the end too early", Deed::Send(prefix.clone()), absent),
        ("nothing", Deed::Send(Vec::new()), absent),
        ("refused", Deed::Reset(Vec::new(), 1), absent),
        ("not there", Deed::Reset(Vec::new(), 3), absent),
        ("broken off", Deed::Reset(prefix.clone(), 77), broken),
        ("silence", Deed::Stall(Vec::new()), broken),
        ("silence within", Deed::Stall(prefix.clone()), broken),
        ("a byte now and then", Deed::Crawl(prefix.clone()), broken),
        ("a closed connection", Deed::Close(prefix), broken),
    ];
    let node = Node::new(1).await;
    let mut trials = tokio::task::JoinSet::new();
    let node = Arc::new(node);
    for (what, deed, is) in cases {
        let (node, list) = (Arc::clone(&node), Arc::clone(&list));
        let bytes = bytes.clone();
        trials.spawn(async move {
            let (endpoint, key, _stop) = peer(deed).await;
            node.blobs.meet(key, endpoint.bound_sockets());
            let (came, ended) = node.pieces(key, hash, &list, 0..5).await;
            let error = ended.expect_err(what);
            assert!(is(&error), "{what}: {error:?}");
            assert!(came.len() < 5, "{what}");
            assert!(joined(&came) == bytes[..came.len() << 20], "{what}");
        });
    }
    while let Some(trial) = trials.join_next().await {
        trial.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_blobs_and_wrong_answers_are_refused() {
    let bytes = content(50_000, 3);
    let hash = Blake3::of(&bytes);
    let mut flipped = as_ours(&bytes, &ChunkRanges::all());
    *flipped.last_mut().unwrap() ^= 1;
    let mut huge = flipped.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let node = Node::new(1).await;
    let (endpoint, key, _stop) = peer(Deed::Send(flipped)).await;
    node.blobs.meet(key, endpoint.bound_sockets());
    let (came, ended) = node.blobs(key, &[hash]).await;
    assert!(
        came.is_empty() && matches!(ended, Err(TransferError::Lied(_))),
        "{ended:?}"
    );
    let (endpoint, key, _stop) = peer(Deed::Send(huge)).await;
    node.blobs.meet(key, endpoint.bound_sockets());
    let (came, ended) = node.blobs(key, &[hash]).await;
    assert!(
        came.is_empty() && matches!(ended, Err(TransferError::Broken(_))),
        "{ended:?}"
    );

    let long = vec![0; 34 << 20];
    let other = Answer::Closure(vec![hash], false).encode();
    let list = Answer::List(Some(vec![7; 64])).encode();
    for answer in [
        b"rubbish".to_vec(),
        long,
        other.clone(),
        list.clone(),
        vec![0, 2, 0, 0, 0],
    ] {
        let (endpoint, key, _stop) = peer(Deed::Send(answer.clone())).await;
        node.blobs.meet(key, endpoint.bound_sockets());
        let listed = node.blobs.list(key, hash, 2_000_000).await;
        assert!(matches!(listed, Err(TransferError::Lied(_))), "{listed:?}");
        let held = node.blobs.look_up(key, vec![hash]).await;
        assert!(matches!(held, Err(TransferError::Lied(_))), "{held:?}");
        if answer != other {
            let closure = node.blobs.closure(key, hash, 0).await;
            assert!(
                matches!(closure, Err(TransferError::Lied(_))),
                "{closure:?}"
            );
        }
    }
    for hints in [(vec![hash], true), (vec![hash, hash], false)] {
        let hints = Answer::Closure(hints.0, hints.1).encode();
        let (endpoint, key, _stop) = peer(Deed::Send(hints)).await;
        node.blobs.meet(key, endpoint.bound_sockets());
        let closure = node.blobs.closure(key, hash, 0).await;
        let lied = matches!(closure, Err(TransferError::Lied(_)));
        assert!(lied, "{closure:?}");
    }
    for deed in [
        Deed::Stall(list.clone()),
        Deed::Crawl(list),
        Deed::Close(vec![0]),
    ] {
        let (endpoint, key, _stop) = peer(deed).await;
        node.blobs.meet(key, endpoint.bound_sockets());
        let listed = node.blobs.list(key, hash, 2_000_000).await;
        let refused = matches!(
            &listed,
            Err(TransferError::Broken(_) | TransferError::Lied(_))
        );
        assert!(refused, "{listed:?}");
    }
}

/// A connection that speaks as it likes.
async fn raw(node: &Node, alpn: &[u8]) -> (Endpoint, Connection) {
    let endpoint = bind(&[]).await;
    let connection = endpoint.connect(address_of(node), alpn).await.unwrap();
    (endpoint, connection)
}

fn address_of(node: &Node) -> EndpointAddr {
    let PublicKey::Ed25519(key) = node.key else {
        panic!("a node's key");
    };
    let id = EndpointId::from_bytes(&key).unwrap();
    EndpointAddr::new(id).with_ip_addr(node.address())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_further_connection_of_a_peer_ends_its_oldest() {
    let node = Node::new(1).await;
    let hash = node.add(&content(10_000, 1));
    let endpoint = bind(&[]).await;
    let mut connections = Vec::new();
    for _ in 0..5 {
        let connection = endpoint.connect(address_of(&node), iroh_blobs::ALPN);
        connections.push(connection.await.unwrap());
    }
    // A peer that crashed several times left such behind: the one that it makes now is served.
    let request = Request::Get(GetRequest::blob(Hash::from_bytes(*hash.as_bytes())));
    let request = postcard::to_allocvec(&request).unwrap();
    let (mut send, mut recv) = connections[4].open_bi().await.unwrap();
    send.write_all(&request).await.unwrap();
    send.finish().unwrap();
    let read = tokio::time::timeout(DEADLINE, recv.read_to_end(1 << 20));
    assert!(read.await.expect("in time").unwrap().len() > 10_000);
    let closed = tokio::time::timeout(DEADLINE, connections[0].closed());
    closed.await.expect("in time");
    for connection in &connections[1..] {
        assert_eq!(connection.close_reason(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_and_oversize_requests_are_refused_and_hurt_nobody() {
    let node = Node::new(1).await;
    let bytes = content(70_000, 1);
    let hash = node.add(&bytes);
    let id = Hash::from_bytes(*hash.as_bytes());
    let scattered = (0..6_000).fold(ChunkRanges::empty(), |ranges, at| {
        ranges | ChunkRanges::from(ChunkNum(at * 2)..ChunkNum(at * 2 + 1))
    });
    let scattered = Request::Get(GetRequest::blob_ranges(id, scattered));
    let push = Request::Push(iroh_blobs::protocol::PushRequest::new(
        id,
        iroh_blobs::protocol::ChunkRangesSeq::all(),
    ));
    let cases = [
        (iroh_blobs::ALPN, vec![], ERR_PERMISSION),
        (iroh_blobs::ALPN, vec![0], ERR_LIMIT),
        (
            iroh_blobs::ALPN,
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            ERR_PERMISSION,
        ),
        (iroh_blobs::ALPN, vec![0; 1 << 20], ERR_LIMIT),
        (iroh_blobs::ALPN, vec![9; 60_000], ERR_LIMIT),
        (
            iroh_blobs::ALPN,
            [&[9][..], &[255; 9], &[1]].concat(),
            ERR_LIMIT,
        ),
        (
            iroh_blobs::ALPN,
            postcard::to_allocvec(&scattered).unwrap(),
            ERR_LIMIT,
        ),
        (
            iroh_blobs::ALPN,
            postcard::to_allocvec(&push).unwrap(),
            ERR_PERMISSION,
        ),
        (transfer::ALPN, vec![], ERR_LIMIT),
        (transfer::ALPN, vec![0, 255, 255], ERR_LIMIT),
        (transfer::ALPN, vec![0; 1 << 20], ERR_LIMIT),
        (transfer::ALPN, b"rubbish".to_vec(), ERR_LIMIT),
    ];
    for (alpn, request, code) in cases {
        let (_endpoint, connection) = raw(&node, alpn).await;
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        let what = format!("{:?} and {} bytes", request.first(), request.len());
        // May be stopped while it is still sent.
        send.write_all(&request).await.ok();
        send.finish().ok();
        let read = recv.read_to_end(1 << 20);
        let answer = tokio::time::timeout(DEADLINE, read).await.expect("in time");
        let refused = match answer {
            Err(iroh::endpoint::ReadToEndError::Read(ReadError::Reset(found))) => found == code,
            _ => false,
        };
        assert!(refused, "{what}");
    }
    // A connection that asks for nothing, and one that never ends its request, keep nobody waiting.
    let (_endpoint, connection) = raw(&node, iroh_blobs::ALPN).await;
    let mut open = Vec::new();
    for _ in 0..40 {
        let (mut send, recv) = connection.open_bi().await.unwrap();
        send.write_all(&[0]).await.unwrap();
        open.push((send, recv));
    }
    let other = Node::new(2).await;
    other.meet(&node);
    let (came, ended) = other.blobs(node.key, &[hash]).await;
    ended.unwrap();
    assert!(came[0].1 == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_reading_is_cut() {
    let node = Node::new(1).await;
    let hash = node.add(&content(17 << 20, 1));
    let (_endpoint, connection) = raw(&node, iroh_blobs::ALPN).await;
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let request = Request::Get(GetRequest::blob(Hash::from_bytes(*hash.as_bytes())));
    send.write_all(&postcard::to_allocvec(&request).unwrap())
        .await
        .unwrap();
    send.finish().unwrap();
    let cut = tokio::time::timeout(DEADLINE, recv.received_reset())
        .await
        .expect("in time");
    assert_eq!(cut.unwrap(), Some(ERR_LIMIT));
}
