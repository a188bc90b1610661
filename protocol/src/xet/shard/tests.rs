use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::xet::hash::{file_hash, range_hash, xorb_hash};

fn hash() -> impl Strategy<Value = XetHash> {
    (any::<[u8; 31]>(), 0..0xff_u8).prop_map(|(bytes, last)| {
        let mut hash = [last; 32];
        hash[..31].copy_from_slice(&bytes);
        XetHash::from_bytes(hash)
    })
}

fn term() -> impl Strategy<Value = Term> {
    (hash(), 0..8_000_u32, 1..100_u32, 100..131_072_u32).prop_map(|(xorb, start, count, size)| {
        Term {
            xorb,
            start,
            end: start + count,
            size,
            range_hash: None,
        }
    })
}

fn file() -> impl Strategy<Value = ShardFile> {
    let sha256 = option::of(any::<[u8; 32]>().prop_map(Sha256::from_bytes));
    (hash(), vec((term(), hash()), 0..5), any::<bool>(), sha256).prop_map(
        |(hash, terms, with_range_hashes, sha256)| {
            let terms = terms.into_iter().map(|(term, hash)| Term {
                range_hash: with_range_hashes.then_some(hash),
                ..term
            });
            ShardFile {
                hash,
                terms: terms.collect(),
                sha256,
            }
        },
    )
}

fn xorb() -> impl Strategy<Value = ShardXorb> {
    let chunk = (hash(), 1..=131_072_u32, any::<bool>()).prop_map(|(hash, size, dedup)| {
        let chunk = Chunk { hash, size };
        ShardChunk { chunk, dedup }
    });
    (hash(), any::<u32>(), vec(chunk, 1..8)).prop_map(|(hash, packed, chunks)| ShardXorb {
        hash,
        packed,
        chunks,
    })
}

fn shard() -> impl Strategy<Value = Shard> {
    let key = any::<[u8; 32]>().prop_map(|key| Some(key).filter(|key| *key != [0; 32]));
    let footer =
        (key, any::<u64>(), any::<u64>()).prop_map(|(key, created, expires)| ShardFooter {
            key,
            created,
            expires,
        });
    (vec(file(), 0..4), vec(xorb(), 0..4), option::of(footer)).prop_map(|(files, xorbs, footer)| {
        Shard {
            files,
            xorbs,
            footer,
        }
    })
}

fn chunk(bytes: &[u8]) -> Chunk {
    Chunk {
        hash: super::super::chunk_hash(bytes),
        size: u32::try_from(bytes.len()).unwrap(),
    }
}

/// A shard of one file, which is the second and third chunk of a xorb of three, and those chunks.
fn one_file() -> (Shard, Vec<Chunk>) {
    let chunks = vec![chunk(b"a"), chunk(b"bc"), chunk(b"def")];
    let xorb = xorb_hash(chunks.iter().copied());
    let of_file = &chunks[1..];
    let term = Term {
        xorb,
        start: 1,
        end: 3,
        size: 5,
        range_hash: Some(range_hash(of_file.iter().map(|chunk| chunk.hash))),
    };
    let file = ShardFile {
        hash: file_hash(of_file.iter().copied()),
        terms: vec![term],
        sha256: Some(Sha256::from_bytes([7; 32])),
    };
    let with_flag = |chunk: &Chunk| ShardChunk {
        chunk: *chunk,
        dedup: chunk.size == 1,
    };
    let xorb = ShardXorb {
        hash: xorb,
        packed: 30,
        chunks: chunks.iter().map(with_flag).collect(),
    };
    let shard = Shard {
        files: vec![file],
        xorbs: vec![xorb],
        footer: None,
    };
    (shard, chunks)
}

#[test]
fn what_a_shard_may_not_say_is_refused_by_name() {
    let refused = |change: &dyn Fn(&mut Shard)| {
        let (mut shard, _) = one_file();
        change(&mut shard);
        shard.encode().unwrap_err().to_string()
    };
    let term = |change: fn(&mut Term)| refused(&|shard| change(&mut shard.files[0].terms[0]));
    assert!(term(|term| term.start = 3).contains("names no chunks"));
    assert!(term(|term| term.end = 8_193).contains("more than a xorb has"));
    assert!(term(|term| term.size = 1).contains("cannot have"));
    assert!(term(|term| term.size = 262_145).contains("cannot have"));
    let xorb = |change: fn(&mut ShardXorb)| refused(&|shard| change(&mut shard.xorbs[0]));
    assert!(xorb(|xorb| xorb.chunks.clear()).contains("no chunks"));
    assert!(xorb(|xorb| xorb.chunks[0].chunk.size = 0).contains("no bytes"));
    assert!(xorb(|xorb| xorb.chunks[0].chunk.size = 131_073).contains("more than are allowed"));
    assert!(xorb(|xorb| xorb.chunks = vec![xorb.chunks[0]; 8_193]).contains("chunks"));
    assert!(xorb(|xorb| xorb.hash = BOOKEND).contains("the end of all xorbs"));
    let mixed = refused(&|shard| {
        let mut term = shard.files[0].terms[0];
        term.range_hash = None;
        shard.files[0].terms.push(term);
    });
    assert!(mixed.contains("or none"));
    let file = refused(&|shard| shard.files[0].hash = BOOKEND);
    assert!(file.contains("the end of all files"));
    let many = refused(&|shard| {
        let term = Term {
            start: 0,
            end: 8_192,
            size: 8_192,
            ..shard.files[0].terms[0]
        };
        shard.files[0].terms = vec![term; 4_097];
    });
    assert!(many.contains("33562624 chunks in its terms"), "{many}");
}

#[test]
fn counts_and_offsets_that_do_not_fit_are_refused() {
    let (mut shard, _) = one_file();
    let bytes = shard.encode().unwrap();
    assert_eq!(Shard::decode(&bytes), Ok(shard.clone()));
    let changed = |bytes: &[u8], at: usize, to: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[at..at + to.len()].copy_from_slice(to);
        Shard::decode(&bytes)
    };
    let most = u32::MAX.to_le_bytes();
    let xorb = 48 * 6;
    assert!(changed(&bytes, 31, b"x").is_err(), "magic");
    assert!(changed(&bytes, 32, &[3]).is_err(), "version");
    // As hf_xet before 1.3 sends them.
    assert_eq!(changed(&bytes, 40, &[200]), Ok(shard.clone()), "no footer");
    let part = [&bytes[..], &[0; 199]].concat();
    assert!(changed(&part, 40, &[200]).is_err(), "part of a footer");
    assert!(changed(&bytes, 40, &[199]).is_err(), "length of the footer");
    assert!(changed(&bytes, 48 + 32, &[1]).is_err(), "unknown flags");
    assert!(changed(&bytes, 48 + 36, &most).is_err(), "count of terms");
    assert!(
        changed(&bytes, xorb + 36, &most).is_err(),
        "count of chunks"
    );
    assert!(
        changed(&bytes, xorb + 40, &[7]).is_err(),
        "bytes of all chunks"
    );
    assert!(
        changed(&bytes, xorb + 48 + 32, &[1]).is_err(),
        "where a chunk begins"
    );
    assert!(
        changed(&bytes, xorb + 48 + 44, &[1]).is_ok(),
        "a spare number"
    );
    for end in 0..bytes.len() {
        assert!(Shard::decode(&bytes[..end]).is_err(), "{end}");
    }
    assert!(Shard::decode(&[&*bytes, &[0]].concat()).is_err());
    assert!(Shard::decode(&vec![0; SHARD_BYTES_MAX + 1]).is_err());

    shard.footer = Some(ShardFooter {
        key: None,
        created: 1,
        expires: 2,
    });
    let bytes = shard.encode().unwrap();
    assert_eq!(Shard::decode(&bytes), Ok(shard));
    let footer = bytes.len() - 200;
    // Version, offsets and counts up to the key, and the footer's own offset.
    for at in (0..72).step_by(8).chain([192]) {
        assert!(changed(&bytes, footer + at, &[0xaa]).is_err(), "{at}");
        assert!(changed(&bytes, footer + at + 7, &[0xff]).is_err(), "{at}");
    }
    for end in (0..bytes.len()).filter(|end| *end != footer) {
        assert!(Shard::decode(&bytes[..end]).is_err(), "{end}");
    }
}

#[test]
fn tables_of_other_writers_are_passed_over() {
    let (mut shard, _) = one_file();
    shard.footer = Some(ShardFooter {
        key: Some([9; 32]),
        created: 1,
        expires: 2,
    });
    let bytes = shard.encode().unwrap();
    let (before, footer) = bytes.split_at(bytes.len() - 200);
    let at = before.len() as u64;
    let numbers = [at, 1, at + 12, 1, at + 24, 3];
    let mut footer = footer.to_vec();
    for (number, bytes) in numbers.iter().zip(footer[24..].chunks_mut(8)) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    footer[192..].copy_from_slice(&(at + 72).to_le_bytes());
    let with_tables = [before, &[0xab; 72], &footer].concat();
    assert_eq!(Shard::decode(&with_tables), Ok(shard));
    assert!(Shard::decode(&[before, &[0xab; 73], &footer].concat()).is_err());
}

#[test]
fn files_are_verified_against_the_chunks_of_their_xorbs() {
    let (shard, chunks) = one_file();
    let file = &shard.files[0];
    assert_eq!(file.verify(|_| Some(&chunks)), Ok(()));
    assert_eq!(file.size(), 5);
    let missing = file.verify(|_| None::<&[Chunk]>);
    assert!(matches!(missing, Err(VerifyError::Missing { term: 0, .. })));
    let term = |change: &dyn Fn(&mut Term), said: &str| {
        let mut file = file.clone();
        change(&mut file.terms[0]);
        let error = file.verify(|_| Some(&chunks)).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    };
    term(&|term| term.end = 4, "has fewer chunks");
    term(&|term| term.size = 4, "another size");
    term(
        &|term| term.range_hash = Some(XetHash::ZERO),
        "another range hash",
    );
    term(
        &|term| (term.start, term.size) = (2, 3),
        "another range hash",
    );
    let other = |term: &mut Term| (term.start, term.size, term.range_hash) = (2, 3, None);
    term(&other, "make up the file");
}

#[test]
fn an_answer_shows_keyed_hashes_and_no_files() {
    let (shard, chunks) = one_file();
    let key = [3; 32];
    let answer = Shard::dedup_answer(shard.xorbs.clone(), Some(key), 5, 6);
    let read = Shard::decode(&answer.encode().unwrap()).unwrap();
    assert_eq!(read, answer);
    assert_eq!(
        read.xorbs[0].chunks[1].chunk.hash,
        chunks[1].hash.keyed(&key)
    );
    assert_eq!(read.xorbs[0].hash, shard.xorbs[0].hash);
    let plain = Shard::dedup_answer(shard.xorbs.clone(), Some([0; 32]), 5, 6);
    assert_eq!(plain.xorbs, shard.xorbs);
    assert_eq!(plain.footer.unwrap().key, None);
}

proptest! {
    #[test]
    fn what_is_written_is_read(shard in shard()) {
        prop_assert_eq!(Shard::decode(&shard.encode().unwrap()), Ok(shard));
    }

    #[test]
    fn damaged_shards_are_refused_or_re_encode_to_what_was_read(
        shard in shard(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = shard.encode().unwrap();
        for (at, byte) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        if let Ok(read) = Shard::decode(&bytes) {
            prop_assert_eq!(Shard::decode(&read.encode().unwrap()), Ok(read));
        }
    }

    #[test]
    fn any_bytes_are_refused_or_read(bytes in vec(any::<u8>(), 0..300)) {
        let header = [&MAGIC[..], &VERSION.to_le_bytes(), &[0; 8]].concat();
        prop_assert!(Shard::decode(&bytes).is_err());
        drop(Shard::decode(&[header, bytes].concat()));
    }
}
