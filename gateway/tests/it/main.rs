//! The server over real sockets on loopback: what clients see, at the bounds and at odd moments.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod files;
mod hub;
mod limits;
mod odd_requests;
mod remote;
mod server;
mod shutdown;
mod who_may;
mod xet;
