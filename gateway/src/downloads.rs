//! Which requests are of a download, and whose it is.
//!
//! The rule: a request that carries `X-HF-Download-Counter: 1` and is answered well, for a file (`resolve`) or for
//! a token to read files through xet, is of a download; and all that one reader asks for of one repository is
//! one download, until there was nothing for a quarter of an hour (see [`Node::count_download`]). A
//! reader is an account where there is a token, else the address of the connection with the beginning of
//! `User-Agent`. So a repository of many files counts once, a `HEAD` before a `GET` doesn't count twice, and
//! what doesn't ask to be counted isn't: browsers, `curl`, `@huggingface/hub`, git.
//!
//! Nobody who stands before the gateway is believed about addresses: behind a proxy strangers differ by their
//! program alone.
//!
//! [`Node::count_download`]: cairn_node::Node::count_download

use std::net::IpAddr;

use axum::http::header::USER_AGENT;
use axum::http::{Extensions, HeaderMap, HeaderName};
use cairn_node::Reader;

use crate::auth::Client;
use crate::gateway::Gateway;

/// What Python's client sends with each request of a download.
const COUNTER: HeaderName = HeaderName::from_static("x-hf-download-counter");
/// Parts of `User-Agent` that tell programs apart: the library, the hub's client, Python. What follows differs
/// between the files of one download (`file_type/config`).
const AGENT_PARTS: usize = 3;

/// The address that a connection came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin(pub(crate) IpAddr);

/// Whoever downloads with a request; nobody where it isn't of a download.
pub(crate) fn reader(
    gateway: &Gateway,
    client: &Client,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Option<Reader> {
    headers.get(COUNTER).filter(|value| *value == "1")?;
    let agent = headers.get(USER_AGENT);
    let program = program(agent.map_or(&[], |agent| agent.as_bytes()));
    let address = extensions.get::<Origin>().map(|origin| origin.0);
    Some(gateway.node().reader(&client.who, address, program))
}

/// The beginning of a `User-Agent` that is the same for all files of a download.
fn program(agent: &[u8]) -> &[u8] {
    let mut ends = agent.iter().enumerate().filter(|(_, byte)| **byte == b';');
    let end = ends.nth(AGENT_PARTS - 1).map_or(agent.len(), |(at, _)| at);
    &agent[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_one_download_have_one_program() {
        let config = b"transformers/5; hf_hub/2.4.0; python/3.11; torch/2; file_type/config";
        let model = b"transformers/5; hf_hub/2.4.0; python/3.11; torch/2; file_type/model";
        assert_eq!(
            program(config),
            b"transformers/5; hf_hub/2.4.0; python/3.11"
        );
        assert_eq!(program(config), program(model));
        assert_eq!(program(b"a; b; c"), b"a; b; c");
        assert_eq!(program(b""), b"");
    }
}
