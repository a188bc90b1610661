//! Messages about blobs: one encoding each, committed bytes, and what is refused.

use std::path::Path;

use cairn_protocol::hash::Blake3;
use cairn_protocol::limits::{CLOSURE_HASHES_MAX, FETCH_BYTES_MAX, LOOKUP_HASHES_MAX, PIECE_BYTES};
use cairn_protocol::piece::PieceSet;
use cairn_protocol::transfer::{Answer, Held, Request};
use data_encoding::HEXLOWER;
use proptest::collection::vec;
use proptest::prelude::*;

fn committed(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors/transfer")
        .join(name);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let hex: String = text.split_whitespace().collect();
    HEXLOWER.decode(hex.as_bytes()).expect("lower-case hex")
}

fn hash(byte: u8) -> Blake3 {
    Blake3::from_bytes([byte; 32])
}

fn set(size: u64, pieces: &[u64]) -> PieceSet {
    let mut set = PieceSet::empty(size);
    for piece in pieces {
        assert!(set.insert(*piece), "{piece}");
    }
    set
}

#[test]
fn the_bytes_are_those_of_the_documentation() {
    let requests = [
        ("lookup", Request::Lookup(vec![hash(1), hash(2)])),
        ("list", Request::List(hash(3))),
        (
            "closure",
            Request::Closure {
                refs: hash(4),
                skip: 16_384,
            },
        ),
    ];
    for (name, request) in requests {
        let bytes = committed(&format!("request_{name}.hex"));
        assert_eq!(request.encode(), bytes, "{name}");
        assert_eq!(Request::decode(&bytes), Ok(request));
    }
    let size = 10 * PIECE_BYTES + 1;
    let answers = [
        (
            "held",
            Answer::Held(vec![
                Held::Absent,
                Held::Whole(1_234_567),
                Held::Partial(size, set(size, &[0, 2, 10])),
            ]),
        ),
        ("list", Answer::List(Some([[5; 32], [6; 32]].concat()))),
        ("no_list", Answer::List(None)),
        ("closure", Answer::Closure(vec![hash(7), hash(8)], true)),
    ];
    for (name, answer) in answers {
        let bytes = committed(&format!("answer_{name}.hex"));
        assert_eq!(answer.encode(), bytes, "{name}");
        assert_eq!(Answer::decode(&bytes), Ok(answer));
    }
}

#[test]
fn what_breaks_a_rule_is_refused() {
    let lookup = |count: usize| {
        let mut bytes = vec![0];
        bytes.extend_from_slice(&u16::try_from(count).unwrap().to_le_bytes());
        bytes.resize(bytes.len() + count * 32, 9);
        bytes
    };
    assert!(Request::decode(&lookup(LOOKUP_HASHES_MAX)).is_ok());
    assert!(Request::decode(&lookup(LOOKUP_HASHES_MAX + 1)).is_err());
    for bytes in [
        &[][..],
        &[3],
        &[1],
        &[0, 255, 255],
        &[2; 40],
        &[2; 42],
        &[1; 34],
    ] {
        assert!(Request::decode(bytes).is_err(), "{bytes:?}");
    }
    let list = |len: u32| [&[1, 1][..], &len.to_le_bytes(), &vec![0; len as usize]].concat();
    assert!(Answer::decode(&list(64)).is_ok());
    let largest = u32::try_from(FETCH_BYTES_MAX / PIECE_BYTES * 32).unwrap();
    assert!(Answer::decode(&list(largest)).is_ok());
    for len in [0, 31, 32, 65, largest + 32] {
        assert!(Answer::decode(&list(len)).is_err(), "{len}");
    }
    // A length that is not there takes no memory.
    assert!(Answer::decode(&[&[1, 1][..], &largest.to_le_bytes()].concat()).is_err());
    let partial = |size: u64, set: &[u8]| {
        let size = size.to_le_bytes();
        Answer::decode(&[&[0, 1, 0, 2][..], &size, set].concat())
    };
    assert!(partial(3 * PIECE_BYTES, &[0b101]).is_ok());
    assert!(partial(3 * PIECE_BYTES, &[0b1000]).is_err());
    assert!(partial(3 * PIECE_BYTES, &[]).is_err());
    assert!(partial(FETCH_BYTES_MAX, &vec![0; 1 << 17]).is_ok());
    assert!(partial(FETCH_BYTES_MAX + 1, &vec![0; (1 << 17) + 1]).is_err());
    assert!(partial(u64::MAX, &[]).is_err());
    let closure = |more: u8, count: usize| {
        let mut bytes = vec![2, more];
        bytes.extend_from_slice(&u32::try_from(count).unwrap().to_le_bytes());
        bytes.resize(bytes.len() + count * 32, 9);
        Answer::decode(&bytes)
    };
    assert!(closure(0, CLOSURE_HASHES_MAX).is_ok());
    assert!(closure(1, CLOSURE_HASHES_MAX + 1).is_err());
    assert!(closure(2, 1).is_err());
    for bytes in [&[][..], &[3], &[1, 2], &[0, 1, 0, 3], &[1, 0, 0], &[0]] {
        assert!(Answer::decode(bytes).is_err(), "{bytes:?}");
    }
}

fn hashes(max: usize) -> impl Strategy<Value = Vec<Blake3>> {
    vec(any::<[u8; 32]>().prop_map(Blake3::from_bytes), 0..max)
}

fn request() -> impl Strategy<Value = Request> {
    let hash = || any::<[u8; 32]>().prop_map(Blake3::from_bytes);
    prop_oneof![
        hashes(50).prop_map(Request::Lookup),
        hash().prop_map(Request::List),
        (hash(), any::<u64>()).prop_map(|(refs, skip)| Request::Closure { refs, skip }),
    ]
}

fn held() -> impl Strategy<Value = Held> {
    let partial = (0..200 * PIECE_BYTES, vec(any::<u64>(), 0..20)).prop_map(|(size, pieces)| {
        let mut set = PieceSet::empty(size);
        for piece in pieces {
            set.insert(piece % set.count());
        }
        Held::Partial(size, set)
    });
    prop_oneof![
        Just(Held::Absent),
        any::<u64>().prop_map(Held::Whole),
        partial
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let list = vec(any::<[u8; 32]>(), 2..50).prop_map(|list| Answer::List(Some(list.concat())));
    prop_oneof![
        vec(held(), 0..20).prop_map(Answer::Held),
        Just(Answer::List(None)),
        list,
        (hashes(50), any::<bool>()).prop_map(|(hashes, more)| Answer::Closure(hashes, more)),
    ]
}

proptest! {
    #[test]
    fn messages_survive_the_wire_and_no_part_of_one_is_another(
        request in request(),
        answer in answer(),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = request.encode();
        prop_assert_eq!(Request::decode(&bytes), Ok(request));
        prop_assert!(Request::decode(&bytes[..cut.index(bytes.len())]).is_err());
        prop_assert!(Request::decode(&[&bytes[..], &[0]].concat()).is_err());
        let bytes = answer.encode();
        prop_assert_eq!(Answer::decode(&bytes), Ok(answer));
        prop_assert!(Answer::decode(&bytes[..cut.index(bytes.len())]).is_err());
        prop_assert!(Answer::decode(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn flipped_bytes_are_refused_or_another_message(
        request in request(),
        answer in answer(),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let mut bytes = request.encode();
        let place = at.index(bytes.len());
        bytes[place] ^= 1 << bit;
        if let Ok(other) = Request::decode(&bytes) {
            prop_assert_ne!(&other, &request);
            prop_assert_eq!(other.encode(), bytes);
        }
        let mut bytes = answer.encode();
        let place = at.index(bytes.len());
        bytes[place] ^= 1 << bit;
        if let Ok(other) = Answer::decode(&bytes) {
            prop_assert_ne!(&other, &answer);
            prop_assert_eq!(other.encode(), bytes);
        }
    }
}
