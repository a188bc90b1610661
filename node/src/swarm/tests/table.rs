//! The look-up table.
