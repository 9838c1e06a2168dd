//! What the end-to-end tests share: the real program in a directory of its own, a client that
//! shows every answer, and XML as a tree.  And a cloud without a machine: [`sim`].

pub mod cloud;
pub mod ec2;
pub mod sim;
pub mod tree;

pub use cloud::Cloud;
