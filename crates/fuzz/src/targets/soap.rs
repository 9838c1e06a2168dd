//! SOAP messages: the envelope, who signed it, and the parameters that it stands for.

use cumulet_auth::der::pem_body;
use cumulet_auth::wss::{Certificates, Holder, Replays, verify};
use cumulet_domain::{AccountId, Timestamp};
use cumulet_ec2_model::{model, request, soap};
use cumulet_wire::soap::{Envelope, leaves};

use super::{Runner, Target};
use crate::harness::shape;

/// 2026-11-21T12:01:00Z, a minute after the corpus was signed.
const NOW: Timestamp = Timestamp(1_795_262_460_000);

const DICTIONARY: &[&[u8]] = &[
    b"<",
    b">",
    b"</",
    b"/>",
    b"\"",
    b"=\"",
    b" xmlns=\"",
    b" xmlns:a=\"",
    b"&amp;",
    b"&#10;",
    b"&#x;",
    b"<!--",
    b"-->",
    b"<![CDATA[",
    b"]]>",
    b"<?a?>",
    b"<!DOCTYPE a>",
    b"<item>",
    b"</item>",
    b"SOAP-ENV:Body",
    b"wsu:Id=\"",
    b"Id=\"",
    b"URI=\"#",
    b"xml:lang=\"a\"",
    b"PrefixList=\"",
    b"#default",
    b"http://ec2.amazonaws.com/doc/2007-03-01/",
    b"http://www.w3.org/2001/10/xml-exc-c14n#",
];

pub(crate) static SOAP: Target = Target {
    name: "soap",
    dictionary: DICTIONARY,
    length_max: 64 * 1024,
    prepare,
};

/// The one certificate that the corpus is signed with.
struct Corpus(Vec<u8>);

impl Certificates for Corpus {
    fn find(&self, _: &str) -> Option<Holder> {
        Some(Holder {
            account: AccountId::from_random(1),
            user: "fuzz".into(),
            der: self.0.clone(),
        })
    }
}

fn prepare() -> Runner {
    let pem = include_str!("../../../auth/tests/wss/certificate.pem");
    let known = Corpus(pem_body(pem, "CERTIFICATE").expect("a certificate"));
    // What was signed, in all of the corpus.
    let signed = [("instancesSet/item/instanceId", "i-12345678 > \"\u{e9}\" &")];
    Box::new(move |input| {
        let Ok(envelope) = Envelope::parse(input) else {
            return 0;
        };
        let said = verify(&envelope, NOW, &known, &Replays::default());
        let read = envelope.payload().and_then(|payload| {
            let found = leaves(payload)?;
            Ok((payload.tag_name(), found))
        });
        if said.is_ok() {
            let (name, found) = read.as_ref().expect("what was signed is read");
            assert_eq!(name.name(), "DescribeInstances");
            assert_eq!(
                name.namespace(),
                Some("http://ec2.amazonaws.com/doc/2007-03-01/")
            );
            let found: Vec<_> = found
                .iter()
                .map(|it| (it.path.as_str(), it.text.as_str()))
                .collect();
            assert_eq!(found, signed, "nothing else was signed");
        }
        let Ok((name, found)) = read else {
            return shape(&format!("{said:?}"));
        };
        let version = soap::version_of(name.namespace().unwrap_or_default());
        let params = version.and_then(|version| match model::find(name.name(), version) {
            model::Found::Implemented(operation) => {
                Some(soap::params(operation, version, &found).and_then(|params| {
                    let checked = request::check_soap(&params)?;
                    Ok(checked.operation.name)
                }))
            }
            model::Found::Known | model::Found::Unknown => None,
        });
        shape(&format!("{said:?} {params:?}"))
    })
}
