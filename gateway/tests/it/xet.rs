//! Xorbs and shards that are not what they say, and those of others: nothing of them is taken or told.

use cairn_protocol::hash::Sha256;
use cairn_protocol::limits::{XORB_BYTES_MAX, XORB_CHUNKS_MAX};
use cairn_protocol::xet::{
    Chunker, Compression, PackedXorb, Shard, ShardChunk, ShardFile, ShardXorb, Term, XetHash,
    XorbWriter, file_hash, range_hash,
};
use proptest::prelude::*;
use proptest::sample::Index;
use sha2::Digest as _;
use tokio::runtime::Runtime;

use crate::client::Answer;
use crate::hub::{Asker, Hub};

/// A file, as a client would send it: one xorb and one shard.
struct Upload {
    bytes: Vec<u8>,
    xorb: PackedXorb,
    shard: Shard,
}

impl Upload {
    /// Of bytes that are its own.
    fn new(seed: u64, size: usize) -> Self {
        let mut state = seed;
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .take(size)
        .collect();
        let mut chunker = Chunker::new();
        let mut chunks = Vec::new();
        chunker.push(&bytes, |chunk| chunks.push(chunk));
        chunks.extend(chunker.finish());
        let mut writer = XorbWriter::new();
        let mut rest = &*bytes;
        for chunk in &chunks {
            let (first, behind) = rest.split_at(chunk.size as usize);
            writer.push(first, Compression::Lz4).unwrap();
            rest = behind;
        }
        let xorb = writer.finish().unwrap();
        let term = Term {
            xorb: xorb.hash,
            start: 0,
            end: u32::try_from(chunks.len()).unwrap(),
            size: u32::try_from(size).unwrap(),
            range_hash: Some(range_hash(chunks.iter().map(|chunk| chunk.hash))),
        };
        let shard = Shard {
            files: vec![ShardFile {
                hash: file_hash(chunks.iter().copied()),
                terms: vec![term],
                sha256: Some(Sha256::from_bytes(sha2::Sha256::digest(&bytes).into())),
            }],
            xorbs: vec![ShardXorb {
                hash: xorb.hash,
                packed: 0,
                chunks: chunks
                    .iter()
                    .map(|chunk| ShardChunk {
                        chunk: *chunk,
                        dedup: false,
                    })
                    .collect(),
            }],
            footer: None,
        };
        Self { bytes, xorb, shard }
    }

    fn file(&self) -> &ShardFile {
        &self.shard.files[0]
    }

    fn sha256(&self) -> Sha256 {
        self.file().sha256.unwrap()
    }

    /// Its shard, told otherwise.
    fn shard_with(&self, change: impl FnOnce(&mut ShardFile)) -> Vec<u8> {
        let mut shard = self.shard.clone();
        change(&mut shard.files[0]);
        shard.encode().unwrap()
    }
}

/// A node's xet store, as the holder of a token of one repository calls it.
struct Cas<'a> {
    hub: &'a Hub,
    token: String,
}

impl<'a> Cas<'a> {
    async fn new(hub: &'a Hub, asker: Asker, repo: &str, kind: &str) -> Self {
        let path = format!("/api/models/{repo}/xet-{kind}-token/main");
        let answer = hub.ask(asker, "GET", &path, "").await;
        let token = answer.json()["accessToken"].as_str().unwrap().to_owned();
        Self { hub, token }
    }

    async fn ask(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let path = format!("/api/xet/{path}");
        self.hub
            .ask_as(Some(&self.token), method, &path, body)
            .await
    }

    async fn xorb(&self, hash: &XetHash, bytes: &[u8]) -> Answer {
        self.ask("POST", &format!("v1/xorbs/default/{hash}"), bytes)
            .await
    }

    async fn shard(&self, bytes: &[u8]) -> Answer {
        self.ask("POST", "v1/shards", bytes).await
    }

    /// Whether a file can be had.
    async fn has(&self, file: &XetHash) -> bool {
        let path = format!("v1/reconstructions/{file}");
        let answer = self.ask("GET", &path, b"").await;
        assert!(matches!(answer.status, 200 | 404), "{}", answer.text());
        answer.status == 200
    }

    async fn knows(&self, chunk: &XetHash) -> bool {
        let path = format!("v1/chunks/default/{chunk}");
        let answer = self.ask("GET", &path, b"").await;
        assert!(matches!(answer.status, 200 | 404), "{}", answer.text());
        answer.status == 200
    }
}

async fn commit(hub: &Hub, asker: Asker, repo: &str, upload: &Upload) -> Answer {
    let body = format!(
        "{{\"key\":\"header\",\"value\":{{\"summary\":\"s\"}}}}\n{{\"key\":\"lfsFile\",\"value\":{{\"path\":\"x.bin\",\"algo\":\"sha256\",\"oid\":\"{}\",\"size\":{}}}}}\n",
        upload.sha256(),
        upload.bytes.len()
    );
    let path = format!("/api/models/{repo}/commit/main");
    hub.ask(asker, "POST", &path, &body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_shard_or_xorb_says_wrongly_is_refused_and_the_truth_then_taken() {
    let hub = Hub::start().await;
    let cas = Cas::new(&hub, Asker::Owner, "owner/public", "write").await;
    let (upload, other) = (Upload::new(1, 300_000), Upload::new(2, 200_000));
    let (file, xorb) = (upload.file(), &upload.xorb);

    // No shard before its xorb.
    let early = cas.shard(&upload.shard.encode().unwrap()).await;
    assert_eq!(early.status, 400, "{}", early.text());
    let longer = [&*xorb.bytes, b"x"].concat();
    let twice = [&*xorb.bytes, &*xorb.bytes].concat();
    let many = [1_u8, 0, 0, 0].repeat(XORB_CHUNKS_MAX + 1);
    for (what, hash, bytes) in [
        ("another's hash", &other.xorb.hash, &*xorb.bytes),
        ("nothing", &xorb.hash, b""),
        ("its half", &xorb.hash, &xorb.bytes[..xorb.bytes.len() / 2]),
        ("more than it", &xorb.hash, &longer),
        ("it twice", &xorb.hash, &twice),
        ("another", &xorb.hash, &other.xorb.bytes),
        ("odd headers", &xorb.hash, &many),
    ] {
        let answer = cas.xorb(hash, bytes).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
    }
    let huge = cas.xorb(&xorb.hash, &vec![0; XORB_BYTES_MAX + 1]).await;
    assert_eq!(huge.status, 413, "{}", huge.text());
    let taken = cas.xorb(&xorb.hash, &xorb.bytes).await;
    assert_eq!(taken.json()["was_inserted"], true);

    let end = file.terms[0].end;
    let whole = upload.shard.encode().unwrap();
    let half = &whole[..whole.len() / 2];
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("its half", half.to_vec()),
        (
            "another hash",
            upload.shard_with(|file| file.hash = other.file().hash),
        ),
        (
            "another SHA-256",
            upload.shard_with(|file| file.sha256 = other.file().sha256),
        ),
        ("a size", upload.shard_with(|file| file.terms[0].size -= 1)),
        (
            "a range",
            upload.shard_with(|file| file.terms[0].end = end - 1),
        ),
        (
            "beyond the xorb",
            upload.shard_with(|file| file.terms[0].end = end + 1),
        ),
        (
            "a range hash",
            upload.shard_with(|file| file.terms[0].range_hash = Some(file.hash)),
        ),
        (
            "an absent xorb",
            upload.shard_with(|file| file.terms[0].xorb = other.xorb.hash),
        ),
    ] {
        let answer = cas.shard(&bytes).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        assert!(!cas.has(&file.hash).await, "{what}");
    }
    assert_eq!(
        commit(&hub, Asker::Owner, "owner/public", &upload)
            .await
            .status,
        400
    );

    assert_eq!(cas.shard(&whole).await.json()["result"], 1);
    assert!(cas.has(&file.hash).await);
    assert_eq!(
        commit(&hub, Asker::Owner, "owner/public", &upload)
            .await
            .status,
        200
    );
    let read = hub.ask(
        Asker::Anonymous,
        "GET",
        "/owner/public/resolve/main/x.bin",
        "",
    );
    assert!(read.await.body == upload.bytes, "other bytes");
}

/// One is private, the other was never sent: whoever may not see the first is told the same of both.
#[tokio::test(flavor = "multi_thread")]
async fn chunks_of_others_are_as_if_they_were_not_there() {
    let hub = Hub::start().await;
    let made = hub
        .ask(
            Asker::Outsider,
            "POST",
            "/api/repos/create",
            r#"{"name":"mine"}"#,
        )
        .await;
    assert_eq!(made.status, 200, "{}", made.text());
    let owner = Cas::new(&hub, Asker::Owner, "owner/private", "write").await;
    let outsider = Cas::new(&hub, Asker::Outsider, "outsider/mine", "write").await;
    let (upload, never) = (Upload::new(3, 300_000), Upload::new(4, 300_000));
    assert_eq!(
        owner
            .xorb(&upload.xorb.hash, &upload.xorb.bytes)
            .await
            .status,
        200
    );

    let is_hidden = async || {
        let mut told = Vec::new();
        for of in [&upload, &never] {
            let chunk = &of.xorb.chunks[0].hash;
            assert!(!outsider.knows(chunk).await && !outsider.has(&of.file().hash).await);
            let refused = outsider.shard(&of.shard.encode().unwrap()).await;
            let said = refused.text().replace(&of.xorb.hash.to_string(), "XORB");
            told.push((
                refused.status,
                said.replace(&of.file().hash.to_string(), "FILE"),
            ));
            assert_eq!(
                commit(&hub, Asker::Outsider, "outsider/mine", of)
                    .await
                    .status,
                400
            );
        }
        assert_eq!(told[0], told[1]);
        assert_eq!(told[0].0, 400, "{told:?}");
    };
    is_hidden().await;
    assert_eq!(
        owner.shard(&upload.shard.encode().unwrap()).await.status,
        200
    );
    is_hidden().await;
    assert_eq!(
        commit(&hub, Asker::Owner, "owner/private", &upload)
            .await
            .status,
        200
    );
    is_hidden().await;
    assert!(owner.knows(&upload.xorb.chunks[0].hash).await);

    // A token of one repository is none of another, nor to write where it is to read.
    let reader = Cas::new(&hub, Asker::Reader, "owner/private", "read").await;
    assert!(reader.has(&upload.file().hash).await);
    let written = reader.xorb(&never.xorb.hash, &never.xorb.bytes).await;
    assert_eq!(written.status, 403, "{}", written.text());
    let elsewhere = Cas::new(&hub, Asker::Outsider, "owner/public", "read").await;
    assert!(!elsewhere.has(&upload.file().hash).await);
    let forged = Cas {
        hub: &hub,
        token: format!("{}x", reader.token),
    };
    let asked = format!("v1/reconstructions/{}", upload.file().hash);
    assert_eq!(forged.ask("GET", &asked, b"").await.status, 401);

    // Whoever has the bytes may send them, and is told nothing of who else has.
    let sent = outsider.xorb(&upload.xorb.hash, &upload.xorb.bytes).await;
    assert_eq!(sent.json()["was_inserted"], true);
    let sent = outsider.shard(&upload.shard.encode().unwrap()).await;
    assert_eq!(sent.json()["result"], 1);
    assert_eq!(
        commit(&hub, Asker::Outsider, "outsider/mine", &upload)
            .await
            .status,
        200
    );
    assert!(elsewhere.has(&upload.file().hash).await, "it is public now");
}

/// Something else in place of bytes: shorter, longer, or with others in them.
#[derive(Debug, Clone)]
enum Harm {
    Cut(Index),
    Flip(Index, u8),
    Put(Index, Vec<u8>),
    Zero(Index, usize),
    Repeat(Index, Index),
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        any::<Index>().prop_map(Harm::Cut),
        (any::<Index>(), 1..=255_u8).prop_map(|(at, bits)| Harm::Flip(at, bits)),
        (any::<Index>(), prop::collection::vec(any::<u8>(), 1..80))
            .prop_map(|(at, bytes)| Harm::Put(at, bytes)),
        (any::<Index>(), 1..64_usize).prop_map(|(at, count)| Harm::Zero(at, count)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Harm::Repeat(from, to)),
    ]
}

impl Harm {
    fn done(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        match self {
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Self::Flip(at, bits) => {
                let at = at.index(bytes.len());
                bytes[at] ^= bits;
            }
            Self::Put(at, other) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, other.iter().copied());
            }
            Self::Zero(at, count) => {
                let at = at.index(bytes.len());
                let end = (at + count).min(bytes.len());
                bytes[at..end].fill(0);
            }
            Self::Repeat(from, to) => {
                let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
                bytes.extend_from_within(from.min(to)..from.max(to));
            }
        }
        bytes
    }
}

/// Of shards and xorbs with anything wrong in them nothing breaks, and what is taken is what it is called.
#[test]
fn harmed_xorbs_and_shards_break_nothing_and_make_no_other_file() {
    let runtime = Runtime::new().unwrap();
    let hub = runtime.block_on(Hub::start());
    let cas = runtime.block_on(Cas::new(&hub, Asker::Owner, "owner/public", "write"));
    let upload = Upload::new(5, 200_000);
    let absent = Upload::new(6, 200_000);
    let shard = upload.shard.encode().unwrap();
    let sent = runtime.block_on(cas.xorb(&upload.xorb.hash, &upload.xorb.bytes));
    assert_eq!(sent.status, 200, "{}", sent.text());
    let config = ProptestConfig {
        cases: 400,
        ..ProptestConfig::default()
    };
    proptest!(config, |(harms in prop::collection::vec(harm(), 1..4), is_stream in any::<bool>())| {
        let harmed = |bytes: &[u8]| {
            harms.iter().fold(bytes.to_vec(), |bytes, harm| {
                if bytes.is_empty() { bytes } else { harm.done(&bytes) }
            })
        };
        let xorb = harmed(&absent.xorb.bytes);
        let answer = runtime.block_on(cas.xorb(&absent.xorb.hash, &xorb));
        let is_whole = xorb == absent.xorb.bytes;
        // A chunk may be stored in other bytes, and be the same.
        prop_assert!(answer.status == 400 || answer.status == 200, "{}", answer.text());
        prop_assert!(!is_whole || answer.status == 200);

        let told = harmed(&shard);
        let path = if is_stream { "v2/shards" } else { "v1/shards" };
        let answer = runtime.block_on(cas.ask("POST", path, &told));
        prop_assert!(answer.status == 400 || answer.status == 200, "{}", answer.text());
        if answer.status == 200 {
            let read = Shard::decode(&told).unwrap();
            for file in &read.files {
                prop_assert_eq!(file.hash, upload.file().hash);
                prop_assert!(file.sha256.is_none_or(|sha256| sha256 == upload.sha256()));
            }
        }
    });
    let taken = runtime.block_on(cas.shard(&shard));
    assert_eq!(taken.status, 200, "{}", taken.text());
    let committed = runtime.block_on(commit(&hub, Asker::Owner, "owner/public", &upload));
    assert_eq!(committed.status, 200, "{}", committed.text());
    let read = runtime.block_on(hub.ask(
        Asker::Anonymous,
        "GET",
        "/owner/public/resolve/main/x.bin",
        "",
    ));
    assert!(read.body == upload.bytes, "other bytes");
}
