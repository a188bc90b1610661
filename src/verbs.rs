//! One file a verb: asks the node, prints the answer.

pub(crate) mod admin;
pub(crate) mod backup;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod gc;
pub(crate) mod info;
pub(crate) mod key;
pub(crate) mod ls;
pub(crate) mod peers;
pub(crate) mod pin;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod restore;
pub(crate) mod status;
pub(crate) mod unpin;
pub(crate) mod up;
pub(crate) mod verify;
