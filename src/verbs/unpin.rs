//! `cairn unpin`: undoes a pin.

use std::process::ExitCode;

use cairn_node::control::Request;

use crate::failure::Failure;
use crate::session::Session;

pub(crate) fn run(session: &Session, repo: String) -> Result<ExitCode, Failure> {
    super::pin::change(session, &Request::Unpin { repo })
}
