//! Xet against the stock client: the hashes that it gives to files, and the xorbs and shards that it sends.

use std::collections::HashMap;
use std::path::Path;

use cairn_protocol::hash::Sha256;
use cairn_protocol::xet::{
    Chunk, Chunker, Compression, Shard, TreeHasher, XetHash, Xorb, XorbWriter, chunk_hash,
    file_hash,
};
use proptest::collection::vec;
use proptest::prelude::*;
use sha2::Digest as _;

/// What the client sent in one upload: a xorb and a shard.
struct Upload {
    name: &'static str,
    /// The xorb's hash.
    xorb: &'static str,
    /// SHA-256 and xet hash of each file.
    files: [(&'static str, &'static str); 2],
}

const UPLOADS: [Upload; 2] = [
    Upload {
        name: "floats",
        xorb: "0bbe7ef354440acf52a1a51a6c62c282ff1e9b9665470496956fc7e9d113bafc",
        files: [
            (
                "03c1d02d05de9d3f3d36f89a43aaba004eebf7fe18793e3a1c8eb81a86def0b6",
                "bc4960dd8c0647847e7dcc2c4d1a87a545527766645ccc38ea76a76fbce5453f",
            ),
            (
                "c3583c48109d94f40fc2ba177352cc6389e3ac7739052899d60150e439e5a8f9",
                "d27adc8e96376798794a0499aec8d271e47ad0186dfe4712735606fa71b6b1a4",
            ),
        ],
    },
    Upload {
        name: "text",
        xorb: "b70dcb47c15299dcfbcdd34c3fb0249f24820fde3a58f7a69d98d82631eea204",
        files: [
            (
                "8591b6f6cf202e3a62679ac019a7e6fde585ffad4e708cad25b28cc8996dcf7f",
                "484fb61f81f33348f2e8b15e99bc34b9ed817d8774cd7a6b9194b2ec41c9647a",
            ),
            (
                "2fb10c0755b879230b18c450cbe8c33ba8f422d0de11adbbb6ebe9a0e4cb815c",
                "9477807cfea9a1433dad9fff56b9bab38f05216dbe2d72c390ea4ea428f65ffb",
            ),
        ],
    },
];

fn committed(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors/xet")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Bytes that do not repeat, and that a seed determines.
fn lcg(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(state >> 32).expect("32 bits").to_le_bytes()
    };
    let mut bytes: Vec<_> = (0..count.div_ceil(4)).flat_map(|_| next()).collect();
    bytes.truncate(count);
    bytes
}

fn text() -> Vec<u8> {
    let line = |index| format!("line {index}: the quick brown fox jumps over the lazy dog\n");
    (0..20_000).map(line).collect::<String>().into_bytes()
}

/// The input of that name in `files.txt`.
fn input(name: &str) -> Vec<u8> {
    match name {
        "empty" => return Vec::new(),
        "one" => return b"x".to_vec(),
        "text" => return text(),
        "lcg_40000000" => return lcg(40_000_000, 5),
        "mixed" => {
            let zeros = vec![0; 300_000];
            let parts = [
                &*zeros,
                &lcg(500_000, 3),
                &text()[..400_000],
                &zeros[..200_001],
            ];
            return parts.concat();
        }
        _ => {}
    }
    let (kind, count) = name.split_once('_').expect("a kind and a count");
    let count = count.parse().expect("a count of bytes");
    match kind {
        "zeros" => vec![0; count],
        "lcg" => lcg(count, 1),
        _ => panic!("{name} is no input"),
    }
}

/// The chunks of a file that comes in parts of these sizes, again and again.
fn chunks(file: &[u8], sizes: &[usize]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut chunker = Chunker::new();
    let mut rest = file;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (part, behind) = rest.split_at(rest.len().min(*size));
        chunker.push(part, |chunk| chunks.push(chunk));
        rest = behind;
    }
    chunks.extend(chunker.finish());
    chunks
}

#[test]
fn files_have_the_hashes_that_the_client_gives_them() {
    let list = String::from_utf8(committed("files.txt")).unwrap();
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    let mut count = 0;
    for line in lines {
        let [name, size, hash] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let file = input(name);
        assert_eq!(file.len().to_string(), size, "{name}");
        let chunks = chunks(&file, &[1 << 20]);
        assert_eq!(
            file_hash(chunks.iter().copied()).to_string(),
            hash,
            "{name}"
        );
        let mut tree = TreeHasher::new();
        for chunk in chunks {
            tree.push(chunk);
        }
        assert_eq!(tree.file_hash().to_string(), hash, "{name}");
        count += 1;
    }
    assert_eq!(count, 14);
}

#[test]
fn chunks_are_the_files_bytes_and_have_legal_sizes() {
    for name in ["lcg_3000000", "zeros_1048576", "text", "mixed", "lcg_8193"] {
        let file = input(name);
        let chunks = chunks(&file, &[70_000]);
        let mut rest = &*file;
        for (index, chunk) in chunks.iter().enumerate() {
            let size = chunk.size as usize;
            let (bytes, behind) = rest.split_at(size);
            assert_eq!(chunk.hash, chunk_hash(bytes), "{name}");
            assert!(
                (8_192..=131_072).contains(&size) || index + 1 == chunks.len(),
                "{name}"
            );
            rest = behind;
        }
        assert!(rest.is_empty(), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn cuts_do_not_depend_on_how_the_bytes_come(
        sizes in vec(prop_oneof![1..200_usize, 8_000..8_300_usize, 1..300_000_usize], 1..8),
    ) {
        let file = [&*lcg(600_000, 3), &vec![0; 300_000], &lcg(100_000, 4)].concat();
        prop_assert_eq!(chunks(&file, &sizes), chunks(&file, &[file.len()]));
    }
}

#[test]
fn cuts_do_not_depend_on_how_the_bytes_come_even_one_by_one() {
    let file = lcg(300_000, 6);
    assert_eq!(chunks(&file, &[1]), chunks(&file, &[file.len()]));
}

/// The hash of an upload's xorb, the bytes of each chunk, and the chunks.
fn unpacked(upload: &Upload) -> (XetHash, Vec<Vec<u8>>, Vec<Chunk>) {
    let bytes = committed(&format!("{}.xorb", upload.name));
    let hash = upload.xorb.parse().expect("a xet hash");
    let mut unpacked = Vec::new();
    let xorb = Xorb::parse(&bytes).expect("a xorb");
    let chunks = xorb
        .verify(&hash, |_, bytes| unpacked.push(bytes.to_vec()))
        .expect("the xorb of that hash");
    (hash, unpacked, chunks)
}

#[test]
fn what_the_client_uploads_verifies() {
    let mut seen = Vec::new();
    for upload in &UPLOADS {
        let (hash, unpacked, chunks) = unpacked(upload);
        let name = upload.name;
        let bytes = committed(&format!("{name}.xorb"));
        seen.extend(
            Xorb::parse(&bytes)
                .unwrap()
                .places()
                .iter()
                .map(|place| place.compression),
        );

        let shard_bytes = committed(&format!("{name}.shard"));
        let shard = Shard::decode(&shard_bytes).unwrap();
        assert_eq!(shard.encode().unwrap(), shard_bytes);
        assert_eq!(shard.footer, None);
        let [xorb] = &*shard.xorbs else {
            panic!("{} xorbs", shard.xorbs.len());
        };
        assert_eq!(xorb.hash, hash);
        assert_eq!(xorb.packed, 0);
        assert!(
            xorb.chunks
                .iter()
                .map(|chunk| chunk.chunk)
                .eq(chunks.iter().copied())
        );
        let of_shard: HashMap<_, _> = [(hash, &chunks)].into();
        let expected: HashMap<_, _> = upload.files.into();
        assert_eq!(shard.files.len(), expected.len());
        for file in &shard.files {
            assert!(file.terms.iter().all(|term| term.range_hash.is_some()));
            assert_eq!(file.verify(|xorb| of_shard.get(xorb)), Ok(()));
            let terms = file.terms.iter();
            let bytes = terms
                .flat_map(|term| &unpacked[term.start as usize..term.end as usize])
                .flatten()
                .copied();
            let bytes: Vec<_> = bytes.collect();
            assert_eq!(bytes.len() as u64, file.size());
            let sha256 = Sha256::from_bytes(sha2::Sha256::digest(&bytes).into());
            assert_eq!(file.sha256, Some(sha256));
            let xet = expected[&*sha256.to_string()];
            assert_eq!(file.hash.to_string(), xet);
            assert_eq!(file_hash(crate::chunks(&bytes, &[bytes.len()])), file.hash);
        }
    }
    assert!(
        Compression::ALL.iter().all(|kind| seen.contains(kind)),
        "{seen:?}"
    );
}

#[test]
fn a_xorb_that_is_packed_anew_has_the_same_hash_and_chunks() {
    for upload in &UPLOADS {
        let (hash, unpacked, chunks) = unpacked(upload);
        for compression in Compression::ALL {
            let mut writer = XorbWriter::new();
            for bytes in &unpacked {
                writer.push(bytes, compression).unwrap();
            }
            let packed = writer.finish().unwrap();
            assert_eq!((packed.hash, &packed.chunks), (hash, &chunks));
            let xorb = Xorb::parse(&packed.bytes).unwrap();
            assert_eq!(xorb.verify(&hash, |_, _| {}).as_ref(), Ok(&chunks));
        }
    }
}
