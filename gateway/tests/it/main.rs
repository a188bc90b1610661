//! The server over real sockets on loopback: what clients see, at the bounds and at odd moments.

mod client;
mod files;
mod limits;
mod server;
mod shutdown;
