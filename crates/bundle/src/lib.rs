//! Bundles: an image as compressed, encrypted, signed parts with a manifest, in both directions.

pub mod manifest;
