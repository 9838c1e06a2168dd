//! Making and uploading a bundle, against a server that checks what it is sent.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cumulet_bundle::bundle::Form;
use cumulet_bundle::manifest::{Version, parse, verify};
use cumulet_bundle::package::{Destination, PackageError, Request, make, upload};
use cumulet_bundle::s3_client::{Client, ClientError};
use md5::{Digest as _, Md5};
use zeroize::Zeroizing;

const SECRET: &str = "a secret";

#[derive(Default)]
struct Seen {
    has_bucket: bool,
    objects: BTreeMap<String, Vec<u8>>,
    acls: Vec<String>,
    failures_left: usize,
}

/// One bucket named `mine`; every other is somebody else's.
fn serve(seen: Arc<Mutex<Seen>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "http://{}/services/objectstorage",
        listener.local_addr().unwrap()
    );
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let answer = answer(&mut BufReader::new(&connection), &mut seen.lock().unwrap());
            connection.write_all(answer.as_bytes()).unwrap();
        }
    });
    url
}

fn answer(input: &mut impl BufRead, seen: &mut Seen) -> String {
    let mut line = String::new();
    input.read_line(&mut line).unwrap();
    let (method, rest) = line.split_once(' ').unwrap();
    let path = rest.split(' ').next().unwrap().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
    let mut body = vec![0; header("content-length").parse().unwrap()];
    input.read_exact(&mut body).unwrap();
    let acl = match header("x-amz-acl").as_str() {
        "" => String::new(),
        acl => format!("x-amz-acl:{acl}\n"),
    };
    let text = format!(
        "{method}\n{}\n\n{}\n{acl}{path}",
        header("content-md5"),
        header("date")
    );
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, SECRET.as_bytes());
    let signature = STANDARD.encode(hmac::sign(&key, text.as_bytes()));
    let error = |status: &str, code: &str| {
        let body = format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
        format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    if header("authorization") != format!("AWS AKID:{signature}") {
        return error("403 Forbidden", "SignatureDoesNotMatch");
    }
    if seen.failures_left > 0 {
        seen.failures_left -= 1;
        return error("503 Slow Down", "SlowDown");
    }
    let done =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned();
    match (method, path.as_str()) {
        ("HEAD", "/services/objectstorage/mine") if seen.has_bucket => done,
        ("HEAD", "/services/objectstorage/mine") => error("404 Not Found", "NoSuchBucket"),
        ("HEAD", _) => "HTTP/1.1 403 Forbidden\r\n\r\n".to_owned(),
        ("PUT", "/services/objectstorage/mine") => {
            seen.has_bucket = true;
            done
        }
        ("PUT", "/services/objectstorage/theirs") => error("409 Conflict", "BucketAlreadyExists"),
        ("PUT", path) => {
            assert_eq!(header("content-md5"), STANDARD.encode(Md5::digest(&body)));
            let key = path
                .strip_prefix("/services/objectstorage/mine/")
                .unwrap()
                .to_owned();
            seen.acls.push(header("x-amz-acl"));
            seen.objects.insert(key, body);
            done
        }
        other => panic!("{other:?}"),
    }
}

fn shell(directory: &Path, command: &str) {
    let mut bash = Command::new("bash");
    let output = bash
        .args(["-euo", "pipefail", "-c", command])
        .current_dir(directory)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let command = "for who in us cloud; do openssl req -x509 -newkey rsa:2048 -nodes \
            -subj /CN=$who -keyout $who.pk -out $who.cert; done; \
            head -c 11000000 /dev/urandom > image";
        shell(directory.path(), command);
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap()
    }

    fn make(&self, account: &str, certificate: &str) -> Result<std::path::PathBuf, PackageError> {
        make(&Request {
            image: &self.path().join("image"),
            directory: self.path(),
            prefix: "a b",
            account,
            private_key_pem: &self.text("us.pk"),
            certificate_pem: &self.text(certificate),
            cloud_certificate_pem: &self.text("cloud.cert"),
            architecture: "i386",
            version: Version::V20071010,
            form: Form::Tar,
            threads: 2,
            level: 1,
        })
    }
}

#[test]
fn a_bundle_is_made_and_uploaded() {
    let files = Files::new();
    let manifest = files.make("1234-5678-9012", "us.cert").unwrap();
    let seen = Arc::new(Mutex::new(Seen {
        failures_left: 1,
        ..Seen::default()
    }));
    let url = serve(seen.clone());
    let client = Client::new(&url, "AKID", Zeroizing::new(SECRET.into())).unwrap();
    let destination = Destination {
        client: &client,
        bucket: "mine/some/where",
        acl: "aws-exec-read",
    };
    let mut names = vec![];
    let location = upload(&manifest, &destination, |name| names.push(name.to_owned())).unwrap();
    assert_eq!(location, "mine/some/where/a b.manifest.xml");
    assert_eq!(names, ["a b.part.00", "a b.part.01", "a b.manifest.xml"]);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.acls, ["aws-exec-read"; 3]);
    for name in &names {
        let key = format!("some/where/{}", name.replace(' ', "%20"));
        assert_eq!(
            seen.objects[&key],
            fs::read(files.path().join(name)).unwrap()
        );
    }
    let manifest = parse(&seen.objects["some/where/a%20b.manifest.xml"]).unwrap();
    assert!(verify(&manifest, [&*files.text("us.cert")]));
    assert_eq!(manifest.user, "123456789012");
    assert_eq!(manifest.architecture.as_deref(), Some("i386"));
    shell(
        files.path(),
        "openssl pkcs8 -topk8 -nocrypt -in cloud.pk -outform DER -out cloud.der",
    );
    let keys = manifest
        .open_for_cloud(&fs::read(files.path().join("cloud.der")).unwrap())
        .unwrap();
    let decrypt = format!(
        "cat a\\ b.part.* | openssl enc -d -aes-128-cbc -K {} -iv {} | tar xzO | cmp - image",
        hex::encode(*keys.key),
        hex::encode(keys.iv)
    );
    shell(files.path(), &decrypt);
}

#[test]
fn what_cannot_work_is_refused_before_it_is_begun() {
    let files = Files::new();
    let refused = |account, certificate| files.make(account, certificate).unwrap_err();
    assert!(matches!(
        refused("12345", "us.cert"),
        PackageError::Account(_)
    ));
    assert!(matches!(
        refused("123456789012", "cloud.cert"),
        PackageError::OtherCertificate
    ));
    assert!(matches!(
        refused("123456789012", "us.pk"),
        PackageError::Manifest(_)
    ));
    assert!(!files.path().join("a b.manifest.xml").exists());
}

#[test]
fn refusals_are_told() {
    let files = Files::new();
    let manifest = files.make("123456789012", "us.cert").unwrap();
    let url = serve(Arc::default());
    let client = |secret: &str| Client::new(&url, "AKID", Zeroizing::new(secret.into())).unwrap();
    let right = client(SECRET);
    let theirs = Destination {
        client: &right,
        bucket: "theirs",
        acl: "public-read",
    };
    let error = upload(&manifest, &theirs, |_| {}).unwrap_err();
    assert!(
        matches!(error, PackageError::Client(ClientError::NotYours(_))),
        "{error}"
    );
    let wrong = client("another")
        .put("mine", "key", b"body", None)
        .unwrap_err();
    assert!(
        wrong.to_string().contains("403 SignatureDoesNotMatch no"),
        "{wrong}"
    );
    fs::write(files.path().join("a b.part.01"), "changed").unwrap();
    let mine = Destination {
        client: &right,
        bucket: "mine",
        acl: "public-read",
    };
    let error = upload(&manifest, &mine, |_| {}).unwrap_err();
    assert!(matches!(error, PackageError::Damaged(_)), "{error}");
    for url in ["https://x", "x", "http://", "http://a b/", "http://user@x/"] {
        let result = Client::new(url, "AKID", Zeroizing::default());
        assert!(matches!(result, Err(ClientError::Url(_))), "{url}");
    }
}
