//! EC2's Query parameters: decoding, and reading them in the shape of a version.

use cumulet_ec2_model::request::check;
use cumulet_wire::query::{Params, decode, encode};

use super::{Runner, Target};
use crate::harness::shape;

/// Query, a line feed, form.
pub(crate) static QUERY: Target = Target {
    name: "ec2-query",
    dictionary: &[
        b"&",
        b"=",
        b"%",
        b"%00",
        b"%C3%A9",
        b"%ff",
        b"+",
        b".",
        b".1",
        b".0",
        b".10000",
        b".10001",
        b"Action=",
        b"RunInstances",
        b"DescribeInstances",
        b"DescribeImages",
        b"ImportKeyPair",
        b"&Version=2016-11-15",
        b"&Version=2007-03-01",
        b"&InstanceId.1=i-0123456789abcdef0",
        b"&Filter.1.Name=",
        b"&Filter.1.Value.1=",
        b"&MaxResults=",
        b"&NextToken=",
        b"&DryRun=true",
        b"&UserData=",
        b"&PublicKeyMaterial=",
        b"\n",
    ],
    length_max: 64 * 1024,
    prepare,
};

fn prepare() -> Runner {
    Box::new(|input| {
        let line = input.iter().position(|byte| *byte == b'\n');
        let (query, form) = line.map_or((input, &b""[..]), |at| (&input[..at], &input[at + 1..]));
        let Ok(query) = std::str::from_utf8(query) else {
            return 1;
        };
        let params = match Params::parse(Some(query), Some(form)) {
            Ok(params) => params,
            Err(error) => return shape(&format!("{error:?}")),
        };
        for (name, value) in params.iter() {
            assert_eq!(decode(&encode(name)).as_deref(), Ok(name));
            assert_eq!(decode(&encode(value)).as_deref(), Ok(value));
        }
        let request = match check(&params) {
            Ok(request) => request,
            Err(error) => return shape(&format!("{error:?}")),
        };
        let mut answer = format!("{} {:?}", request.operation.name, request.version);
        for parameter in request.operation.parameters {
            let name = parameter.name;
            let is_given = request.text(name).is_some();
            let number = request.number::<u16>(name).map_err(|_| "no number");
            let bytes = request.base64(name, 16 * 1024).map_err(|_| "no base64");
            let bytes = bytes.map(|bytes| bytes.map(|bytes| assert!(bytes.len() <= 16 * 1024)));
            let list = request.list(name.trim_end_matches(".n")).len();
            if is_given || list > 0 {
                let is_true = request.is_true(name);
                answer.push_str(&format!(" {name} {is_true} {} {bytes:?}", number.is_ok()));
            }
        }
        let filters = request.filters();
        answer.push_str(if filters.is_ok() {
            " filters"
        } else {
            " bad filters"
        });
        shape(&answer)
    })
}
