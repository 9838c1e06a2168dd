//! Which door a request is for: a pure function of its head.
//!
//! The order is that of the design: the name by which we were called, then who
//! the credentials are for, then the path, then the parameters, then S3.
//! Routing relaxes nothing: each door demands its own service in a signature.

use http::{HeaderMap, Method, header};

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// EC2 Query, and STS beside it.
    Ec2,
    S3,
    /// `/_cumulet/…`.
    Own,
    /// A protocol that is known and not served yet.
    Absent(&'static str),
}

impl Door {
    /// As the log has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Door::Ec2 => "ec2",
            Door::S3 => "s3",
            Door::Own => "cumulet",
            Door::Absent(name) => name,
        }
    }
}

/// What routing looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) method: &'a Method,
    /// With or without a port; empty when there is none.
    pub(crate) host: &'a str,
    /// As it stands on the request line.
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) headers: &'a HeaderMap,
}

/// Picks the door.
pub(crate) fn route(head: &Head<'_>, domains: &[String]) -> Door {
    // Our own pages come under no other name: health is asked by address, by name, from anywhere.
    if head.path.starts_with("/_cumulet/") {
        return Door::Own;
    }
    by_host(head.host, domains)
        .or_else(|| by_credentials(head))
        .or_else(|| by_path(head.path))
        .or_else(|| by_parameters(head))
        .unwrap_or(Door::S3)
}

fn by_host(host: &str, domains: &[String]) -> Option<Door> {
    let name = without_port(host).to_ascii_lowercase();
    let mut known: Vec<&String> = domains.iter().collect();
    known.sort_by_key(|domain| std::cmp::Reverse(domain.len()));
    let rest = known
        .iter()
        .find_map(|domain| name.strip_suffix(domain.as_str())?.strip_suffix('.'))?;
    // A bucket may be called ec2: its form is looked for first.
    if rest.ends_with(".s3") {
        return Some(Door::S3);
    }
    by_service(rest.split('.').next().unwrap_or_default())
}

/// By the name of a service, as host names and scopes have it.
fn by_service(name: &str) -> Option<Door> {
    match name {
        "s3" => Some(Door::S3),
        "ec2" | "sts" => Some(Door::Ec2),
        "iam" => Some(Door::Absent("iam")),
        "ssm" | "ec2messages" | "ssmmessages" => Some(Door::Absent("ssm")),
        _ => None,
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

fn by_credentials(head: &Head<'_>) -> Option<Door> {
    let authorization = head
        .headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    if authorization.is_some_and(|text| text.starts_with("AWS ")) {
        return Some(Door::S3);
    }
    let scope = authorization
        .and_then(|text| text.split_once("Credential=").map(|(_, rest)| rest))
        .map(|rest| rest.split([',', ' ']).next().unwrap_or_default().to_owned())
        .or_else(|| parameter(head.query, "X-Amz-Credential"));
    if let Some(scope) = scope {
        // KEY/20240101/region/service/aws4_request
        let service = scope.rsplit('/').nth(1).unwrap_or_default();
        if let Some(door) = by_service(service) {
            return Some(door);
        }
    }
    // The rest of such a request is in its body.  S3 has no POST to the service itself; below a
    // bucket that is called as our paths are, its presigned ones have Expires.
    let is_service = head.path == "/"
        || by_path(head.path) == Some(Door::Ec2) && parameter(head.query, "Expires").is_none();
    let is_form = *head.method == Method::POST && is_service;
    let is_old_presigned =
        parameter(head.query, "AWSAccessKeyId").is_some() && !(is_query(head.query) || is_form);
    if is_old_presigned {
        return Some(Door::S3);
    }
    let is_targeted = head.headers.contains_key("x-amz-target")
        && *head.method == Method::POST
        && head.path == "/";
    is_targeted.then_some(Door::Absent("ssm"))
}

fn by_path(path: &str) -> Option<Door> {
    let is_under = |prefix: &str| {
        path.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if [
        "/v2",
        "/v2.0",
        "/v3",
        "/v1/cloudimages",
        "/identity",
        "/image",
    ]
    .into_iter()
    .any(is_under)
    {
        return Some(Door::Absent("openstack"));
    }
    if is_under("/adapters") {
        return Some(Door::Absent("adapter"));
    }
    // The WSDLs.
    if is_under("/doc") {
        return Some(Door::Ec2);
    }
    if is_under("/services") {
        let service = path.split('/').nth(2).unwrap_or_default();
        return Some(match service {
            "Walrus" | "objectstorage" | "s3" => Door::S3,
            // Eucalyptus, compute, Cloud; another one is refused by the door that users mean.
            _ => Door::Ec2,
        });
    }
    None
}

/// Whether a query has what requests of a Query API have, and none of S3's has.
fn is_query(query: Option<&str>) -> bool {
    ["Action", "Operation", "Version", "SignatureVersion"]
        .into_iter()
        .any(|name| parameter(query, name).is_some())
}

fn by_parameters(head: &Head<'_>) -> Option<Door> {
    if head.path != "/" {
        return None;
    }
    let content_type = head
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_ascii_lowercase();
    let is_query = is_query(head.query)
        || head.headers.contains_key("soapaction")
        // The parameters are in the body.  S3 has no POST to the service itself.
        || (*head.method == Method::POST && !content_type.starts_with("multipart/"));
    is_query.then_some(Door::Ec2)
}

/// The first value of a parameter of the query, decoded enough to be compared.
fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then(|| value.replace("%2F", "/").replace("%2f", "/"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        method: &'static str,
        host: &'static str,
        target: &'static str,
        headers: &'static [(&'static str, &'static str)],
        door: Door,
    }

    const fn case(
        method: &'static str,
        host: &'static str,
        target: &'static str,
        headers: &'static [(&'static str, &'static str)],
        door: Door,
    ) -> Case {
        Case {
            method,
            host,
            target,
            headers,
            door,
        }
    }

    const LOCAL: &str = "127.0.0.1:8773";
    const V4_EC2: &[(&str, &str)] = &[(
        "authorization",
        "AWS4-HMAC-SHA256 Credential=AKIA/20260101/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=0",
    )];
    const V4_S3: &[(&str, &str)] = &[(
        "authorization",
        "AWS4-HMAC-SHA256 Credential=AKIA/20260101/us-east-1/s3/aws4_request,SignedHeaders=host,Signature=0",
    )];
    const V4_STS: &[(&str, &str)] = &[(
        "authorization",
        "AWS4-HMAC-SHA256 Credential=AKIA/20260101/us-east-1/sts/aws4_request, SignedHeaders=host, Signature=0",
    )];
    const V2_S3: &[(&str, &str)] = &[("authorization", "AWS AKIA:xyz=")];
    const FORM: &[(&str, &str)] = &[("content-type", "application/x-www-form-urlencoded")];
    const SOAP: &[(&str, &str)] = &[("content-type", "text/xml"), ("soapaction", "RunInstances")];
    const SOAP_PARTS: &[(&str, &str)] = &[
        ("content-type", "multipart/related; boundary=b"),
        ("soapaction", ""),
    ];
    const TARGET: &[(&str, &str)] = &[("x-amz-target", "AmazonSSM.SendCommand")];

    const CASES: &[Case] = &[
        // By name, longest domain first, bucket form first.
        case("GET", "ec2.cloud.test:8773", "/", &[], Door::Ec2),
        case("GET", "s3.cloud.test", "/", &[], Door::S3),
        case("POST", "photos.s3.cloud.test", "/", FORM, Door::S3),
        case("GET", "ec2.s3.cloud.test", "/", V4_EC2, Door::S3),
        case("GET", "s3.deep.cloud.test", "/", &[], Door::S3),
        case("POST", "ssm.cloud.test", "/", &[], Door::Absent("ssm")),
        case("POST", "STS.Cloud.Test", "/", &[], Door::Ec2),
        // By credentials.
        case("GET", LOCAL, "/bucket/key", V2_S3, Door::S3),
        case("POST", LOCAL, "/", V4_EC2, Door::Ec2),
        case("POST", LOCAL, "/", V4_STS, Door::Ec2),
        case("POST", LOCAL, "/", V4_S3, Door::S3),
        case(
            "GET",
            LOCAL,
            "/b/k?X-Amz-Credential=A%2F2%2Fus-east-1%2Fs3%2Faws4_request",
            &[],
            Door::S3,
        ),
        case(
            "GET",
            LOCAL,
            "/?X-Amz-Credential=A%2F2%2Fus-east-1%2Fec2%2Faws4_request&Action=DescribeImages",
            &[],
            Door::Ec2,
        ),
        case(
            "GET",
            LOCAL,
            "/b/k?AWSAccessKeyId=A&Signature=x&Expires=1",
            &[],
            Door::S3,
        ),
        case(
            "GET",
            LOCAL,
            "/?AWSAccessKeyId=A&Action=DescribeInstances",
            &[],
            Door::Ec2,
        ),
        case("POST", LOCAL, "/", TARGET, Door::Absent("ssm")),
        // By path.
        case("GET", LOCAL, "/v2/images", &[], Door::Absent("openstack")),
        case(
            "POST",
            LOCAL,
            "/v3/auth/tokens",
            &[],
            Door::Absent("openstack"),
        ),
        case("GET", LOCAL, "/v2-bucket/key", &[], Door::S3),
        case("POST", LOCAL, "/services/Eucalyptus", FORM, Door::Ec2),
        case(
            "GET",
            LOCAL,
            "/services/compute/?Action=DescribeInstances",
            &[],
            Door::Ec2,
        ),
        case("PUT", LOCAL, "/services/Walrus/bucket/key", &[], Door::S3),
        case("GET", LOCAL, "/services/objectstorage", &[], Door::S3),
        case("GET", LOCAL, "/services/s3/bucket", &[], Door::S3),
        case("GET", LOCAL, "/doc/2007-03-01.ec2.wsdl", &[], Door::Ec2),
        case("POST", LOCAL, "/adapters/bmc", &[], Door::Absent("adapter")),
        case("GET", LOCAL, "/_cumulet/health", &[], Door::Own),
        // By parameters, at the root only.
        case(
            "GET",
            LOCAL,
            "/?Action=DescribeInstances&Version=2007-03-01",
            &[],
            Door::Ec2,
        ),
        case(
            "GET",
            LOCAL,
            "/?Operation=DescribeInstances",
            &[],
            Door::Ec2,
        ),
        case("POST", LOCAL, "/", FORM, Door::Ec2),
        // Parameters may be in both places; whoever forgot the action is told so.
        case("POST", LOCAL, "/?AWSAccessKeyId=A", FORM, Door::Ec2),
        case(
            "POST",
            LOCAL,
            "/services/Eucalyptus?AWSAccessKeyId=A",
            FORM,
            Door::Ec2,
        ),
        case(
            "POST",
            LOCAL,
            "/services/Walrus/b/k?AWSAccessKeyId=A",
            FORM,
            Door::S3,
        ),
        case(
            "POST",
            LOCAL,
            "/services/key?uploads&AWSAccessKeyId=A&Signature=x&Expires=1",
            &[],
            Door::S3,
        ),
        case(
            "GET",
            LOCAL,
            "/?AWSAccessKeyId=A&SignatureVersion=1&Signature=x&Timestamp=t",
            &[],
            Door::Ec2,
        ),
        case("GET", LOCAL, "/?Version=2007-03-01", &[], Door::Ec2),
        case(
            "GET",
            LOCAL,
            "/?AWSAccessKeyId=A&Signature=x&Expires=1",
            &[],
            Door::S3,
        ),
        case("POST", LOCAL, "/", SOAP, Door::Ec2),
        case("POST", LOCAL, "/bucket", SOAP, Door::S3),
        case("POST", "photos.s3.cloud.test", "/", SOAP, Door::S3),
        case("POST", LOCAL, "/", SOAP_PARTS, Door::Ec2),
        case("GET", LOCAL, "/bucket?Action=x", &[], Door::S3),
        case("POST", LOCAL, "/bucket", FORM, Door::S3),
        // Everything else.
        case("GET", LOCAL, "/", &[], Door::S3),
        case("PUT", LOCAL, "/bucket/key", &[], Door::S3),
        case("GET", "", "/", &[], Door::S3),
        case("GET", "evil.test", "/", &[], Door::S3),
    ];

    #[test]
    fn requests_go_where_the_design_says() {
        let domains = ["cloud.test".to_owned(), "deep.cloud.test".to_owned()];
        for case in CASES {
            let mut headers = HeaderMap::new();
            for (name, value) in case.headers {
                headers.insert(*name, value.parse().unwrap());
            }
            let (path, query) = match case.target.split_once('?') {
                Some((path, query)) => (path, Some(query)),
                None => (case.target, None),
            };
            let method = case.method.parse().unwrap();
            let head = Head {
                method: &method,
                host: case.host,
                path,
                query,
                headers: &headers,
            };
            assert_eq!(
                route(&head, &domains),
                case.door,
                "{} {} at {:?} with {:?}",
                case.method,
                case.target,
                case.host,
                case.headers
            );
        }
    }
}
