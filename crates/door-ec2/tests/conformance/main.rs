//! Conformance: for each operation, the reference's own request and its own answer, word by word.
//!
//! What must be answered is written down in `cases/<operation>.txt`, as the reference prints it; our
//! tables, which make the answers, have no say in it.  Each case is asked by Query GET (signed as
//! in 2007), Query POST and SOAP, each of a cloud of its own.  An implemented operation
//! without a file does not compile.  `README.md` says how a case is written.

#[path = "../common/mod.rs"]
mod common;

mod ask;
mod case;

use cumulet_ec2_model::{Version, dates, model};

/// A test of each operation, with the cases of its file.
macro_rules! operations {
    ($($file:ident $name:literal;)*) => {
        const FILES: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("cases/", stringify!($file), ".txt"))),)*
        ];
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $file() {
                ask::conforms($name, include_str!(concat!("cases/", stringify!($file), ".txt"))).await;
            }
        )*
    };
}
cumulet_ec2_model::for_each_operation!(operations);

/// The version that the reference describes.
const REFERENCE: Version = dates::V2007_03_01;

#[test]
fn every_operation_has_a_case_of_2007_or_of_its_first_version() {
    let names: Vec<&str> = model::operations().iter().map(|it| it.name).collect();
    let mut listed: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
    listed.sort_unstable();
    assert_eq!(listed, names);
    for (name, text) in FILES {
        let first = model::operation(name).expect("implemented").first;
        let wanted = first.max(REFERENCE);
        let cases = case::parse(text);
        assert!(
            cases.iter().any(|case| case.version == wanted),
            "{name} has no case of {wanted}"
        );
    }
}
