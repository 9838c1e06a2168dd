//! Bundles: an image as compressed, encrypted, signed parts with a manifest, in both directions.
//!
//! Pure formats: nothing here knows an account, an object store or where images
//! are kept.  [`bundle`] makes parts, [`manifest`] writes and reads what is said
//! about them, [`unbundle`] takes the image out again, [`s3_client`] uploads;
//! [`package`] is what a user does with these.

pub mod bundle;
pub mod manifest;
pub mod package;
pub mod s3_client;
pub mod sign;
pub mod unbundle;
