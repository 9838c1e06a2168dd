//! Bad clients against the real program: slow ones, cut ones, too many, and ones that talk
//! rubbish.  All the while another client is served, the server stays small, and the records do
//! not change.
//!
//! `TEST_SEED` chooses where connections are cut.

mod crowds;
mod cuts;
mod memory;
mod rubbish;
mod slow;
mod soap;
mod support;
