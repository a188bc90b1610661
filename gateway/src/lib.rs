//! HTTP over a node.
