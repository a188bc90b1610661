//! The shipped protocol on a virtual network and clock.
//!
//! What runs here is `cairn_protocol`'s own state machine and ledger, with really signed records;
//! virtual are the clock, the links and what a node keeps. All choices come from one seed, so that a
//! seed gives the same course to the byte. What this proves is convergence and counts of messages;
//! not the cost of sockets, encryption or disks.

pub mod network;
pub mod random;
pub mod report;
pub mod world;
