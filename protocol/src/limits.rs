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
/// Bytes of a model card that are parsed; the rest of a longer one is text without meaning to us.
pub const CARD_BYTES_MAX: usize = 1 << 20;
