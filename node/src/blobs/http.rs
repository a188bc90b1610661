//! Contents over HTTP/1.1, TLS and TCP: ranges of the file as it is, at about half of what QUIC costs.
//!
//! `GET /blobs/HASH` with one range (RFC 9110), under TLS 1.3 whose certificates are the nodes' keys (RFC
//! 7250). At the same addresses and port numbers as the QUIC endpoint, so that nothing more is announced. A
//! peer that can't be reached so is asked over QUIC. Who asks verifies the bytes by pieces, as there.

mod get;
mod serve;
mod tls;

use std::net::SocketAddr;
use std::ops::Range;

use cairn_protocol::hash::Blake3;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket};

pub(super) use get::Peers;
#[cfg(test)]
pub(super) use serve::PEER_CONNECTIONS_MAX;
pub(super) use serve::run;
pub(super) use tls::Identity;

/// The protocol under TLS.
const ALPN: &[u8] = b"http/1.1";
/// Bytes that one end buffers of a connection, headers among them.
const BUFFER_BYTES: usize = 64 << 10;
/// Connections that the system keeps until they are accepted.
const BACKLOG: u32 = 256;
const PATH: &str = "/blobs/";

/// Listens, on this address family only.
pub(super) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => {
            let socket = TcpSocket::new_v6()?;
            sockopt::set_ipv6_v6only(&socket, true)?;
            socket
        }
    };
    // A restart need not wait until the system has forgotten the former connections.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn path_of(hash: &Blake3) -> String {
    format!("{PATH}{hash}")
}

fn hash_of(path: &str) -> Option<Blake3> {
    path.strip_prefix(PATH)?.parse().ok()
}

/// As a request has it (RFC 9110, 14.1.2): `bytes=FIRST-LAST`.
fn range_header(bytes: &Range<u64>) -> String {
    format!("bytes={}-{}", bytes.start, bytes.end.saturating_sub(1))
}

/// Reads that of a blob of `size` bytes; nothing where it is of another form, or selects no byte of it.
fn read_range(header: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last && first < size).then(|| first..last.saturating_add(1).min(size))
}

/// As an answer has it (RFC 9110, 14.4): `bytes FIRST-LAST/SIZE`.
fn content_range_header(bytes: &Range<u64>, size: u64) -> String {
    let last = bytes.end.saturating_sub(1);
    format!("bytes {}-{last}/{size}", bytes.start)
}

/// Reads that: the bytes that come, and the size of the whole.
fn read_content_range(header: &str) -> Option<(Range<u64>, u64)> {
    let (range, size) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size) = (number(first)?, number(last)?, number(size)?);
    (first <= last && last < size).then(|| (first..last + 1, size))
}

/// Digits and nothing else.
fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_come_back_as_they_were(size in 1_u64.., from in any::<u64>(), len in 1_u64..) {
            let start = from % size;
            let bytes = start..start.saturating_add(len).min(size);
            prop_assert_eq!(read_range(&range_header(&bytes), size), Some(bytes.clone()));
            let header = content_range_header(&bytes, size);
            prop_assert_eq!(read_content_range(&header), Some((bytes, size)));
        }

        #[test]
        fn no_header_panics_or_leaves_the_blob(header in "(bytes[= ])?[-+/ 0-9]{0,50}", size in any::<u64>()) {
            if let Some(range) = read_range(&header, size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
            if let Some((range, size)) = read_content_range(&header) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }

    #[test]
    fn odd_ranges_are_refused() {
        for header in [
            "bytes=0-",
            "bytes=-1",
            "bytes=1-0",
            "bytes=7-9",
            "bytes=0-1,3-4",
            "bytes=+0-1",
            "bytes=0-99999999999999999999",
            "bits=0-1",
            "",
        ] {
            assert_eq!(read_range(header, 7), None, "{header}");
        }
        assert_eq!(read_range("bytes=5-99", 7), Some(5..7));
    }
}
