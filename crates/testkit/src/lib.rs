//! What the end-to-end tests share: the real program in a directory of its own, a client that
//! shows every answer, and XML as a tree.

pub mod cloud;
pub mod ec2;
pub mod tree;

pub use cloud::Cloud;
