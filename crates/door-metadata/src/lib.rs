//! The metadata service: what an instance may know about itself.
//!
//! Instances ask at `http://169.254.169.254/<version>/…`.  Who asks is told by
//! the address that the connection comes from, which the host's rules bind to
//! the tap; nothing in a request is believed.  Each dated version shows only
//! what it had.
//!
//! Knows no engine and no host: facts come from a [`Source`], the listener from
//! the program.  [`tree`] lays out the facts, [`answer`] is the whole protocol
//! as a function of a request, [`server`] moves bytes, [`token`] makes the
//! session tokens of the second edition of the protocol (IMDSv2).

mod answer;
mod facts;
#[doc(hidden)]
pub mod fuzzing;
mod server;
mod token;
mod tree;
mod version;

pub use self::facts::{Facts, PublicKey, Source};
pub use self::server::{Metadata, serve};
pub use self::token::TokenKey;
