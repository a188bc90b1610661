//! Peers that do what they must not.
