use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn packed(chunks: &[(Vec<u8>, Compression)]) -> PackedXorb {
    let mut writer = XorbWriter::new();
    for (bytes, compression) in chunks {
        writer.push(bytes, *compression).unwrap();
    }
    writer.finish().unwrap()
}

fn three() -> PackedXorb {
    let floats = (0..600_u16).flat_map(|at| (f32::from(at) / 7.0).to_le_bytes());
    packed(&[
        (b"raw".to_vec(), Compression::None),
        (b"text ".repeat(100), Compression::Lz4),
        (floats.collect(), Compression::GroupedLz4),
    ])
}

fn with_footer(xorb: &PackedXorb) -> Vec<u8> {
    let places = Xorb::parse(&xorb.bytes).unwrap().places;
    [&*xorb.bytes, &footer::write(&places, &xorb.chunks)].concat()
}

/// A chunk of these header fields and this many stored bytes.
fn chunk(version: u8, packed: u32, compression: u8, size: u32, stored: usize) -> Vec<u8> {
    let mut out = vec![version];
    out.extend_from_slice(&packed.to_le_bytes()[..3]);
    out.push(compression);
    out.extend_from_slice(&size.to_le_bytes()[..3]);
    out.resize(HEADER_BYTES + stored, 0);
    out
}

fn rule(bytes: &[u8]) -> String {
    Xorb::parse(bytes).unwrap_err().to_string()
}

#[test]
fn chunks_that_compression_makes_no_smaller_are_stored_as_they_are() {
    let mut random = Vec::new();
    (0..32_u8).for_each(|at| random.extend_from_slice(chunk_hash(&[at]).as_bytes()));
    for compression in Compression::ALL {
        let xorb = packed(&[(random.clone(), compression)]);
        assert_eq!(xorb.bytes.len(), HEADER_BYTES + random.len());
        assert_eq!(xorb.hash, chunk_hash(&random));
    }
    let xorb = three();
    let places = Xorb::parse(&xorb.bytes).unwrap().places;
    let kinds: Vec<_> = places.iter().map(|place| place.compression).collect();
    assert_eq!(kinds, Compression::ALL);
}

#[test]
fn what_a_chunk_may_not_be_is_refused_by_name() {
    for (bytes, said) in [
        (vec![0; 7], "the xorb ends within its header"),
        (chunk(1, 3, 0, 3, 3), "another version"),
        (chunk(0, 3, 3, 3, 3), "its compression is not known"),
        (chunk(0, 3, 99, 3, 3), "its compression is not known"),
        (
            chunk(0, 262_145, 1, 3, 262_145),
            "stored in more bytes than are allowed",
        ),
        (
            chunk(0, 131_073, 0, 131_073, 131_073),
            "it has more bytes than are allowed",
        ),
        (chunk(0, 0, 0, 0, 0), "it is empty"),
        (chunk(0, 3, 0, 3, 2), "the xorb ends within its bytes"),
        (Vec::new(), "no chunks"),
        (footer::MAGIC.to_vec(), "no chunks"),
    ] {
        let rule = rule(&bytes);
        assert!(rule.contains(said), "{rule}");
    }
    let other_size = chunk(0, 3, 0, 4, 3);
    let xorb = Xorb::parse(&other_size).unwrap();
    let error = xorb.unpack(0, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("in another number of bytes"), "{error}");
}

#[test]
fn the_largest_xorbs_are_read_and_larger_ones_refused_by_name() {
    let one = chunk(0, 1, 0, 1, 1);
    let most = one.repeat(XORB_CHUNKS_MAX);
    assert_eq!(Xorb::parse(&most).unwrap().places().len(), XORB_CHUNKS_MAX);
    assert_eq!(
        rule(&[&*most, &one].concat()),
        "the xorb has more than 8192 chunks"
    );
    let large = chunk(0, 1, 1, 131_072, 1);
    let most = large.repeat(512);
    assert_eq!(Xorb::parse(&most).unwrap().unpacked(), 64 << 20);
    let said = "the xorb has more than 67108864 unpacked bytes";
    assert_eq!(rule(&[&*most, &one].concat()), said);
    assert!(rule(&vec![0; XORB_BYTES_MAX + 1]).contains("more than 67633152 bytes"));

    let mut writer = XorbWriter::new();
    for _ in 0..XORB_CHUNKS_MAX {
        assert!(writer.fits(1));
        writer.push(b"x", Compression::None).unwrap();
    }
    assert!(!writer.fits(1));
    assert!(writer.push(b"x", Compression::None).is_err());
    let mut writer = XorbWriter::new();
    let zeros = vec![0; XET_CHUNK_BYTES_MAX];
    for _ in 0..512 {
        writer.push(&zeros, Compression::Lz4).unwrap();
    }
    assert!(!writer.fits(1));
    assert_eq!(
        writer
            .push(b"x", Compression::None)
            .unwrap_err()
            .to_string(),
        said
    );
    assert!(
        XorbWriter::new()
            .push(&vec![0; 131_073], Compression::Lz4)
            .is_err()
    );
    assert!(XorbWriter::new().push(b"", Compression::Lz4).is_err());
    assert_eq!(XorbWriter::new().finish(), Err(XorbError::Empty));
}

#[test]
fn chunks_of_another_xorb_are_refused() {
    let xorb = three();
    let parsed = Xorb::parse(&xorb.bytes).unwrap();
    assert_eq!(
        parsed.verify(&xorb.hash, |_, _| {}),
        Ok(xorb.chunks.clone())
    );
    let error = parsed.verify(&XetHash::ZERO, |_, _| {});
    assert!(matches!(error, Err(XorbError::Hash { actual, .. }) if actual == xorb.hash));
    let mut flipped = xorb.bytes.clone();
    flipped[HEADER_BYTES] ^= 1;
    let error = Xorb::parse(&flipped).unwrap().verify(&xorb.hash, |_, _| {});
    assert!(matches!(error, Err(XorbError::Hash { .. })));
}

#[test]
fn a_footer_must_agree_with_the_chunks_in_all_but_its_spare_bytes() {
    let xorb = three();
    let bytes = with_footer(&xorb);
    let verify = |bytes: &[u8]| Xorb::parse(bytes)?.verify(&xorb.hash, |_, _| {});
    assert_eq!(verify(&bytes), Ok(xorb.chunks.clone()));
    let spare = bytes.len() - 4 - 16..bytes.len() - 4;
    for at in xorb.bytes.len()..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x40;
        assert_eq!(verify(&flipped).is_ok(), spare.contains(&at), "{at}");
        assert!(
            verify(&bytes[..at]).is_ok() == (at == xorb.bytes.len()),
            "{at}"
        );
    }
    assert!(verify(&[&*bytes, b"\0"].concat()).is_err());
    assert!(verify(&[&*bytes, &chunk(0, 1, 0, 1, 1)].concat()).is_err());
}

fn chunks() -> impl Strategy<Value = Vec<(Vec<u8>, Compression)>> {
    let bytes = prop_oneof![
        vec(any::<u8>(), 1..300),
        (any::<u8>(), 1..=XET_CHUNK_BYTES_MAX).prop_map(|(byte, size)| vec![byte; size]),
        vec(0..4_u8, 1..5000),
    ];
    vec(
        (bytes, prop::sample::select(Compression::ALL.to_vec())),
        1..6,
    )
}

proptest! {
    #[test]
    fn what_is_packed_is_unpacked(chunks in chunks()) {
        let xorb = packed(&chunks);
        for bytes in [&xorb.bytes, &with_footer(&xorb)] {
            let mut unpacked = Vec::new();
            let parsed = Xorb::parse(bytes).unwrap();
            let verified = parsed.verify(&xorb.hash, |_, bytes| unpacked.push(bytes.to_vec()));
            prop_assert_eq!(verified, Ok(xorb.chunks.clone()));
            prop_assert!(unpacked.iter().eq(chunks.iter().map(|(bytes, _)| bytes)));
        }
    }

    #[test]
    fn damaged_xorbs_are_refused_or_unpack_to_what_they_declare(
        chunks in chunks(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        end in any::<prop::sample::Index>(),
    ) {
        let mut bytes = with_footer(&packed(&chunks));
        for (at, byte) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        for bytes in [&bytes[..], &bytes[..end.index(bytes.len())]] {
            let Ok(xorb) = Xorb::parse(bytes) else { continue };
            let mut out = Vec::new();
            for (index, place) in xorb.places().iter().enumerate() {
                if xorb.unpack(index, &mut out).is_ok() {
                    prop_assert_eq!(out.len(), place.size as usize);
                }
                prop_assert!(out.capacity() <= 4 * XET_CHUNK_BYTES_MAX);
            }
        }
    }

    #[test]
    fn any_bytes_are_refused_or_parsed(bytes in vec(any::<u8>(), 0..200)) {
        drop(Xorb::parse(&bytes).map(|xorb| xorb.verify(&XetHash::ZERO, |_, _| {})));
    }
}
