//! The binary formats and git's objects, as others see them: one encoding each, and the ids that the
//! real git gives.

#[path = "formats/codecs.rs"]
mod codecs;
#[path = "formats/git.rs"]
mod git;
#[path = "formats/vectors.rs"]
mod vectors;
