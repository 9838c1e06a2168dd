//! The codecs of the doors: query parameters, XML, times, error documents.
//!
//! Knows no single operation, and trusts nothing: every decoder has named
//! limits and refuses what it cannot read.

pub mod base64;
pub mod error;
pub mod query;
pub mod time;
pub mod xml;
