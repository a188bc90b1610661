//! Xorbs and shards, fed with bytes of any origin. See `formats.rs`.

use cairn_protocol::xet::{Compression, Shard, Xorb, XorbWriter, chunk_hash};

/// Every target by name; its seeds are in `seeds/NAME`.
#[allow(clippy::type_complexity, reason = "a list of names and functions")]
pub const TARGETS: &[(&str, fn(&[u8]))] = &[("xorb", xorb), ("shard", shard)];

pub fn xorb(bytes: &[u8]) {
    let Ok(xorb) = Xorb::parse(bytes) else {
        return;
    };
    let mut again = XorbWriter::new();
    let mut chunk = Vec::new();
    for (index, place) in xorb.places().iter().enumerate() {
        if xorb.unpack(index, &mut chunk).is_err() {
            return;
        }
        assert_eq!(chunk.len(), place.size as usize);
        let pushed = again.push(&chunk, Compression::None).expect("it fit");
        assert_eq!(pushed.hash, chunk_hash(&chunk));
    }
    // The footer alone may be wrong now.
    let packed = again.finish().expect("a xorb has chunks");
    if let Ok(chunks) = xorb.verify(&packed.hash, |_, _| {}) {
        assert_eq!(chunks, packed.chunks);
    }
}

/// A shard may have other encodings than ours, so what is read is compared.
pub fn shard(bytes: &[u8]) {
    if let Ok(shard) = Shard::decode(bytes) {
        let again = shard.encode().expect("what was read can be written");
        assert_eq!(Shard::decode(&again), Ok(shard));
    }
}
