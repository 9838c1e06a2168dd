//! What EC2's API looks like, version by version.
//!
//! The tables below `generated` are made by `cargo xtask codegen` from `models/`:
//! which operations exist since when, which parameters each version's requests may carry, which
//! elements its answers have.  [`request::check`] reads a request in the shape of
//! the version asked for, [`soap::params`] makes such a request of a SOAP message,
//! [`readings`] says whether an old signature leaves open what was asked for,
//! [`Answer`] writes an answer in it, [`wsdl()`] describes it to SOAP clients.  Domain code knows
//! one, newest, shape; nothing here knows what an operation does.

mod answer;
#[rustfmt::skip]
mod generated;
pub mod model;
mod order;
pub mod readings;
pub mod request;
pub mod soap;
pub mod soap_types;
mod version;
mod wsdl;

pub use answer::Answer;
pub use request::{ModelError, Request};
pub use version::{Version, dates};
pub use wsdl::wsdl;
