//! The parsers of outside bytes, one target each.
//!
//! A target makes its runner once and gives it every input; what the runner
//! returns is the shape of the answer.  Beside "does not panic" the runners
//! assert what must hold of any answer: nobody is believed, nothing is larger
//! than was allowed, what was encoded is decoded again.

mod ec2;
mod images;
mod material;
mod network;
mod own;
mod request;
mod s3;
mod signatures;
mod soap;
mod texts;

pub(crate) type Runner = Box<dyn FnMut(&[u8]) -> u64>;

pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// What the format is made of.
    pub(crate) dictionary: &'static [&'static [u8]],
    pub(crate) length_max: usize,
    pub(crate) prepare: fn() -> Runner,
}

/// Every target, and the harness's own test, which is in no list.
pub(crate) fn find(name: &str) -> Option<&'static Target> {
    let own = Some(&own::SELF_TEST).filter(|own| own.name == name);
    ALL.iter()
        .copied()
        .find(|target| target.name == name)
        .or(own)
}

/// All targets of real parsers.
pub(crate) static ALL: &[&Target] = &[
    &ec2::QUERY,
    &signatures::QUERY,
    &signatures::READINGS,
    &signatures::S3,
    &soap::SOAP,
    &s3::REQUEST,
    &s3::XML,
    &images::MANIFEST,
    &images::UNBUNDLE,
    &images::DISK,
    &images::QCOW2,
    &network::DHCP,
    &network::DNS,
    &network::METADATA,
    &texts::TEXTS,
    &material::KEYS,
];
