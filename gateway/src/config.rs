//! What a gateway is told at start: its public name and its bounds, with what happens at each.

use std::time::Duration;

use crate::tls::Tls;

/// Settings of a gateway, already checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Root URL that clients use, without a slash at the end: `https://hub.example.org`.
    ///
    /// Absolute links are built from it. Where absent they are built from the request's own `Host`
    /// (and `X-Forwarded-Proto`/`-Host`; with TLS of its own always `https`), as the hub's clients need them to name the host they asked.
    pub public_url: Option<String>,
    /// The certificate to serve HTTPS with, and nothing else; HTTP where absent.
    ///
    /// A connection then has about 100 KiB of buffers of its own while it sends.
    pub tls: Option<Tls>,
    /// Connections served at a time; further ones wait in the listener's backlog until one ends.
    pub connections_max: usize,
    /// Time from the first byte of a request's head (or from the accept, with the TLS handshake) to its
    /// end; a slower connection is closed.
    pub header_timeout: Duration,
    /// Time that a connection may rest between requests; then it is closed.
    pub keep_alive_timeout: Duration,
    /// Time without any progress of a body; a sender that sends nothing gets 408, a reader that
    /// takes nothing is closed. Slow but moving is fine.
    pub body_idle_timeout: Duration,
    /// Time for a whole request body; a slower one is answered 408 and closed.
    pub body_timeout: Duration,
    /// Time that running requests have after a shutdown began; then their connections are closed.
    pub drain_timeout: Duration,
    /// Bytes of a request's head; a larger one is answered 431 and closed.
    pub header_bytes_max: usize,
    /// Header lines of a request; more are answered 431 and closed.
    pub headers_max: usize,
    /// Bytes of a request's path and query; longer ones are answered 414.
    pub url_bytes_max: usize,
    /// Bytes of a request's body; a larger one is answered 413.
    pub body_bytes_max: usize,
    /// Node calls that run at a time; further ones wait up to [`Config::queue_timeout`].
    pub blocking_max: usize,
    /// Time that a request waits for one of [`Config::blocking_max`] places; then it is answered 503.
    pub queue_timeout: Duration,
    /// Answers at a time whose file is still fetched from peers, each with up to 2 MiB of memory; further
    /// ones wait up to [`Config::queue_timeout`], and are then answered 503.
    pub arrivals_max: usize,
    /// Uploads and commits at a time whose bodies are read, each with up to 8 MiB of memory; further ones wait
    /// up to [`Config::queue_timeout`], and are then answered 503.
    pub uploads_max: usize,
    /// Lines of commits of more than 1 MiB (up to 16 MiB) that are in memory at a time; further ones wait as
    /// above.
    pub long_lines_max: usize,
    /// Xorbs and shards of up to 65 MiB that are in memory at a time; further ones wait as above.
    pub xorbs_max: usize,
    /// Whether clients are told that files can be downloaded through xet, too.
    pub xet_downloads: bool,
    /// Bytes of memory for prepared answers (an open file counts as 64 KiB, so that 32 MiB keep at
    /// most 512 files open); the least used are dropped.
    pub content_cache_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            public_url: None,
            tls: None,
            connections_max: 4096,
            header_timeout: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_mins(1),
            body_idle_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_mins(1),
            drain_timeout: Duration::from_secs(5),
            header_bytes_max: 64 << 10,
            headers_max: 100,
            url_bytes_max: 16 << 10,
            body_bytes_max: 1 << 20,
            blocking_max: 32,
            queue_timeout: Duration::from_secs(20),
            arrivals_max: 128,
            uploads_max: 32,
            long_lines_max: 4,
            xorbs_max: 2,
            xet_downloads: true,
            content_cache_bytes: 32 << 20,
        }
    }
}
