//! The codecs of the doors: query parameters, XML, SOAP envelopes, times, error
//! documents.
//!
//! Knows no single operation, and trusts nothing: every decoder has named
//! limits and refuses what it cannot read.  [`held`] is the limit that all doors
//! have together.

pub use cumulet_domain::shown;

pub mod base64;
pub mod error;
pub mod held;
pub mod query;
pub mod soap;
pub mod time;
pub mod xml;
