//! What Cairn's nodes agree on.
//!
//! Pure: no I/O, no async, no clock, no randomness of its own. Everything that comes from a peer is
//! parsed and verified here, and every decision that two nodes must take alike is taken here.

pub mod hash;
pub mod limits;
pub mod name;
pub mod path;

pub mod format;

pub mod attributes;
pub mod card;
pub mod entry;
pub mod git;
pub mod manifest;
pub mod piece;
pub mod pointer;
pub mod refs;

pub mod envelope;
pub mod json;
pub mod key;
pub mod record;

pub mod accept;

pub mod download;
pub mod spread;
pub mod transfer;

pub mod xet;
