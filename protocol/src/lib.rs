//! What Cairn's nodes agree on.
//!
//! Pure: no I/O, no async, no clock, no randomness of its own. Everything that comes from a peer is
//! parsed and verified here, and every decision that two nodes must take alike is taken here.

pub mod accept;
pub mod envelope;
pub mod hash;
pub mod json;
pub mod key;
pub mod limits;
pub mod name;
pub mod record;
