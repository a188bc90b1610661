//! Every limit that nodes share, and what happens at it.
//!
//! One table, so that no bound hides in a parser and tests can walk all of them.

/// Bytes of one segment of a repository id; longer names are refused.
pub const NAME_BYTES_MAX: usize = 96;
/// Bytes of a whole repository path; longer ones are refused by name.
pub const PATH_BYTES_MAX: usize = 1024;
/// Bytes of one component of a repository path; longer ones are refused by name.
pub const PATH_COMPONENT_BYTES_MAX: usize = 255;
/// Components of a repository path; deeper ones are refused by name.
pub const PATH_DEPTH_MAX: usize = 32;
/// Bytes of a full ref name; longer ones are refused.
pub const REF_NAME_BYTES_MAX: usize = 255;
/// Refs of one repository; a change that adds one more is refused.
pub const REFS_MAX: usize = 10_000;
/// Tag objects between a ref and its commit (a tag of a tag of …); deeper ones are refused.
pub const TAG_DEPTH_MAX: usize = 16;
/// Entries of one directory; a larger tree is refused.
pub const DIRECTORY_ENTRIES_MAX: usize = 100_000;
/// Files of one commit; a larger push is refused.
pub const COMMIT_FILES_MAX: usize = 1_000_000;
/// Bytes of one git commit, tag or tree object, manifest, or refs blob; larger ones are refused.
pub const OBJECT_BYTES_MAX: usize = 64 << 20;
/// Bytes of a commit message; longer ones are refused.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Parents of one commit; more are refused.
pub const PARENTS_MAX: usize = 64;
/// Bytes of a record's payload; larger ones are refused before they are parsed.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 10;
/// Bytes of a head's payload; larger ones are refused.
pub const HEAD_PAYLOAD_BYTES_MAX: usize = 4 << 10;
/// Bytes of an envelope; larger ones are refused before they are parsed.
pub const ENVELOPE_BYTES_MAX: usize = 128 << 10;
/// Nesting of a JSON payload; deeper ones are refused.
pub const JSON_DEPTH_MAX: usize = 16;
/// Signatures of one envelope; more are refused.
pub const SIGNERS_MAX: usize = 32;
/// Heads that a gap may lack; a longer gap begins at a head that the namespace confirms.
pub const HEAD_GAP_MAX: u64 = 1_000;
/// Records that wait for what they rest on; the oldest is dropped, and asked for again when needed.
pub const RECORDS_WAITING_MAX: usize = 10_000;
/// Bytes of records that wait for what they rest on; the oldest is dropped, as above.
pub const RECORDS_WAITING_BYTES_MAX: usize = 32 << 20;
/// Content below this goes to the segment log, from this on it is a flat file.
pub const FLAT_BYTES_MIN: u64 = 64 << 10;
/// Bytes under one chaining value of a piece list.
pub const PIECE_BYTES: u64 = 1 << 20;
/// Files larger than this are LFS, whatever their name (the hub's preupload rule).
pub const REGULAR_BYTES_MAX: u64 = 10 << 20;
/// Bytes of a file's start that decide whether it is binary (the hub's preupload sample).
pub const SAMPLE_BYTES: usize = 512;
/// Bytes of one `.gitattributes` file; lines beyond it have no effect.
pub const ATTRIBUTES_BYTES_MAX: usize = 1 << 20;
/// Bytes of one line of `.gitattributes` from which on git ignores it, and so do we.
pub const ATTRIBUTES_LINE_BYTES_MAX: usize = 2048;
/// `**` in one pattern of `.gitattributes`, since each multiplies the time to match; a line with more
/// has no effect.
pub const ATTRIBUTES_DOUBLE_STARS_MAX: usize = 4;
/// Bytes of a model card that are parsed; the rest of a longer one is text without meaning to us.
pub const CARD_BYTES_MAX: usize = 1 << 20;
/// Nesting of a model card; a deeper one is not parsed, with a warning.
pub const CARD_DEPTH_MAX: usize = 32;
/// Nodes of a model card, aliases expanded; one with more is not parsed, with a warning.
pub const CARD_NODES_MAX: usize = 100_000;
/// Tags that a head takes over from a card; further ones are only in the card itself.
pub const HEAD_TAGS_MAX: usize = 64;
/// Bytes of all that a head takes over from a card; tags that don't fit are only in the card itself.
pub const HEAD_CARD_BYTES_MAX: usize = 2 << 10;
/// Bytes of one token that a head takes over from a card; longer ones are only in the card itself.
pub const TOKEN_BYTES_MAX: usize = 96;
/// Bytes of a file that is fetched from peers; a larger one is refused by name.
pub const FETCH_BYTES_MAX: u64 = 1 << 40;
/// Attestations kept of one repository, those with the lowest ids; the others are refused.
pub const ATTESTATIONS_MAX: usize = 64;
/// Claims of one repository that are remembered as wrong; further ones are found again when they are read.
pub const INVALID_CLAIMS_MAX: usize = 1_000;
/// Bytes of one frame between neighbours; a neighbour that announces more is dropped.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Records in one frame; a neighbour that sends more is dropped.
pub const FRAME_RECORDS_MAX: usize = 1_000;
/// Namespaces in one page of a summary; a neighbour that sends more is dropped.
pub const SUMMARY_SCOPES_MAX: usize = 1_000;
/// Ids that one frame asks for or offers; a neighbour that sends more is dropped.
pub const WANT_IDS_MAX: usize = 4_096;
/// Bytes of one round of set comparison that we make; a neighbour's may be as long as a frame.
pub const RECONCILE_BYTES_MAX: usize = 64 << 10;
/// Bytes of the program's name in a greeting; a neighbour that sends more is dropped.
pub const AGENT_BYTES_MAX: usize = 64;
/// Ports in a greeting; a neighbour that sends more is dropped.
pub const BLOB_PORTS_MAX: usize = 16;
/// Unknown fields in a greeting; a neighbour that sends more is dropped.
pub const HELLO_FIELDS_MAX: usize = 32;
/// Bytes of one unknown field in a greeting; a neighbour that sends more is dropped.
pub const HELLO_FIELD_BYTES_MAX: usize = 1_024;
/// Hashes in one look-up of blobs; a request with more is refused.
pub const LOOKUP_HASHES_MAX: usize = 1_024;
/// Hashes in one answer about a head's metadata; the rest comes in further answers.
pub const CLOSURE_HASHES_MAX: usize = 16_384;
/// Bytes of a request about blobs; a larger one is refused before it is read whole.
pub const TRANSFER_REQUEST_BYTES_MAX: usize = 64 << 10;
/// Bytes of an answer about blobs (a piece list of the largest file); a larger one is not read whole.
pub const TRANSFER_ANSWER_BYTES_MAX: usize = 33 << 20;
/// Bytes of the piece sets in one answer to a look-up; files whose set would not fit are said to be absent.
pub const LOOKUP_SETS_BYTES_MAX: usize = 1 << 20;
/// Bytes of the ranges of one iroh-blobs request; a request with more is refused, since reading them takes
/// time in proportion to their square.
pub const RANGES_BYTES_MAX: usize = 8 << 10;
/// Bytes of a hash sequence whose children are served in the same request; of a larger one only itself is.
pub const HASH_SEQUENCE_BYTES_MAX: u64 = 1 << 20;
/// Blobs of metadata (refs blob, tags, commit entries, commits, manifests, trees) behind one head, beyond
/// those that an earlier head had; a head with more is not shown.
pub const HEAD_METADATA_MAX: u64 = 2_000_000;
/// Bytes of the same; a head with more is not shown.
pub const HEAD_METADATA_BYTES_MAX: u64 = 16 << 30;
/// Contents that the manifests behind one head name, beyond those of an earlier head; a head with more is
/// not shown.
pub const HEAD_CONTENTS_MAX: usize = 8_000_000;
/// Bytes of a head's envelope in the look-up table; a larger one is not announced, and refused.
pub const LOOKUP_VALUE_BYTES_MAX: usize = 8 << 10;
/// Heads of the look-up table that a node keeps for others; further ones are refused.
pub const LOOKUP_RECORDS_MAX: usize = 100_000;
/// Bytes of the same; at more, further ones are refused.
pub const LOOKUP_BYTES_MAX: usize = 64 << 20;
/// Provider records that a node keeps for others; further ones are refused.
pub const LOOKUP_PROVIDERS_MAX: usize = 100_000;
/// Bytes of one xet chunk; a larger one is refused by name.
pub const XET_CHUNK_BYTES_MAX: usize = 128 << 10;
/// Bytes of one xet chunk as it is stored in a xorb; a larger one is refused by name.
pub const XET_CHUNK_PACKED_BYTES_MAX: usize = 2 * XET_CHUNK_BYTES_MAX;
/// Chunks of one xorb; one with more is refused.
pub const XORB_CHUNKS_MAX: usize = 8_192;
/// Bytes of all chunks of one xorb; one with more is refused before any is unpacked.
pub const XORB_UNPACKED_BYTES_MAX: usize = 64 << 20;
/// Bytes of a xorb (chunks that don't compress, their headers, a footer); a larger one is refused before it
/// is parsed.
pub const XORB_BYTES_MAX: usize = XORB_UNPACKED_BYTES_MAX + (512 << 10);
/// Bytes of a shard; a larger one is refused before it is parsed.
pub const SHARD_BYTES_MAX: usize = 64 << 20;
/// Chunks that all terms of one shard name (2 TiB of usual ones), since checking them takes time for each;
/// a shard with more is refused.
pub const SHARD_TERM_CHUNKS_MAX: u64 = 1 << 21;
/// Chunks of one file that comes as xorbs, some 100 GB of it; a larger one is refused, and can be sent as LFS.
pub const XET_FILE_CHUNKS_MAX: u64 = 1_600_000;
