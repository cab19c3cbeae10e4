//! The command line's own parts: pictures.
pub mod picture;
