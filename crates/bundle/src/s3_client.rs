//! A small blocking client that uploads bundles over plain HTTP.
//!
//! It signs as S3's first clients did (`Authorization: AWS id:signature`, HMAC
//! with SHA-1), sends `Content-MD5` with every object, and uses one connection
//! per request.  It knows buckets and objects, and nothing of bundles.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use thiserror::Error;
use zeroize::Zeroizing;

const ATTEMPTS: u32 = 3;
const TIMEOUT: Duration = Duration::from_secs(300);
const HEAD_BYTES_MAX: u64 = 64 * 1024;
const BODY_BYTES_MAX: u64 = 64 * 1024;

#[derive(Debug, Error)]
pub enum ClientError {
    #[error("{0} is not an address of the form http://HOST[:PORT][/PATH]")]
    Url(String),
    #[error("the bucket {0} belongs to someone else")]
    NotYours(String),
    #[error("the server refused {what}: {status} {text}")]
    Refused {
        what: String,
        status: u16,
        text: String,
    },
    #[error("could not reach {address}")]
    Connection {
        address: String,
        #[source]
        cause: io::Error,
    },
}

/// Credentials and place of an object store.
pub struct Client {
    /// `HOST:PORT`, to connect to.
    address: String,
    /// As the URL had it, for the `Host` header.
    host: String,
    /// Path before the bucket, without a slash at the end.
    base: String,
    access_key_id: String,
    secret: Zeroizing<String>,
}

impl Client {
    /// A client for the store at `url`, which is `http://HOST[:PORT][/PATH]`.
    ///
    /// # Errors
    /// `Url` for anything else; TLS is not spoken.
    pub fn new(
        url: &str,
        access_key_id: &str,
        secret: Zeroizing<String>,
    ) -> Result<Self, ClientError> {
        let wrong = || ClientError::Url(url.to_owned());
        let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let is_right = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic());
        let is_path = path
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'?');
        if !is_right || !is_path || host.contains('@') {
            return Err(wrong());
        }
        let has_port = host
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let path = path.trim_end_matches('/');
        Ok(Self {
            address: if has_port {
                host.to_owned()
            } else {
                format!("{host}:80")
            },
            host: host.to_owned(),
            base: if path.is_empty() {
                String::new()
            } else {
                format!("/{path}")
            },
            access_key_id: access_key_id.to_owned(),
            secret,
        })
    }

    /// The bucket exists and may be written to by us.
    ///
    /// # Errors
    /// `NotYours` when it is somebody else's.
    pub fn ensure_bucket(&self, bucket: &str) -> Result<(), ClientError> {
        let path = format!("/{}", encode(bucket));
        let found = self.send("HEAD", &path, &[], None)?;
        match found.status {
            200..=299 => return Ok(()),
            // An answer to HEAD has no text, so that a refusal does not say whether the bucket or
            // the key is the trouble; the answer to the next request does.
            403 | 404 => {}
            _ => return Err(found.refused(&format!("to look at the bucket {bucket}"))),
        }
        let made = self.send("PUT", &path, &[], None)?;
        match (made.status, element(&made.body, "Code")) {
            (200..=299, _) | (409, Some("BucketAlreadyOwnedByYou")) => Ok(()),
            (409, _) | (403, Some("AccessDenied")) => Err(ClientError::NotYours(bucket.to_owned())),
            _ => Err(made.refused(&format!("to create the bucket {bucket}"))),
        }
    }

    /// Stores an object, replacing one of that name.  `acl` is a canned one, as `aws-exec-read`.
    ///
    /// # Errors
    /// What the server says.
    pub fn put(
        &self,
        bucket: &str,
        key: &str,
        body: &[u8],
        acl: Option<&str>,
    ) -> Result<(), ClientError> {
        let key_path: Vec<String> = key.split('/').map(encode).collect();
        let path = format!("/{}/{}", encode(bucket), key_path.join("/"));
        let acl: Vec<(&str, &str)> = acl.map(|acl| ("x-amz-acl", acl)).into_iter().collect();
        let answer = self.send("PUT", &path, &acl, Some(body))?;
        match answer.status {
            200..=299 => Ok(()),
            _ => Err(answer.refused(&format!("to store {bucket}/{key}"))),
        }
    }

    /// Sends a request; again when the connection or the server failed.
    fn send(
        &self,
        method: &str,
        path: &str,
        amz_headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Answer, ClientError> {
        let mut attempt = 1;
        loop {
            let answer = self.send_once(method, path, amz_headers, body);
            let is_final = match &answer {
                Ok(answer) => answer.status < 500,
                Err(_) => false,
            };
            if is_final || attempt == ATTEMPTS {
                return answer.map_err(|cause| ClientError::Connection {
                    address: self.address.clone(),
                    cause,
                });
            }
            std::thread::sleep(Duration::from_secs(attempt.into()));
            attempt += 1;
        }
    }

    fn send_once(
        &self,
        method: &str,
        path: &str,
        amz_headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> io::Result<Answer> {
        let date = jiff::Timestamp::now()
            .strftime("%a, %d %b %Y %H:%M:%S GMT")
            .to_string();
        let md5 = body
            .map(|body| STANDARD.encode(Md5::digest(body)))
            .unwrap_or_default();
        let path = format!("{}{path}", self.base);
        let mut text = format!("{method}\n{md5}\n\n{date}\n");
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nDate: {date}\r\n",
            self.host
        );
        for (name, value) in amz_headers {
            text += &format!("{name}:{value}\n");
            head += &format!("{name}: {value}\r\n");
        }
        text += &path;
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, self.secret.as_bytes());
        let signature = STANDARD.encode(hmac::sign(&key, text.as_bytes()));
        head += &format!("Authorization: AWS {}:{signature}\r\n", self.access_key_id);
        if !md5.is_empty() {
            head += &format!("Content-MD5: {md5}\r\n");
        }
        let body = body.unwrap_or_default();
        head += &format!(
            "Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );

        let mut connection = TcpStream::connect(&self.address)?;
        connection.set_read_timeout(Some(TIMEOUT))?;
        connection.set_write_timeout(Some(TIMEOUT))?;
        connection.write_all(head.as_bytes())?;
        // A server that refuses may do so, and close, before it has read everything.
        let written = connection.write_all(body);
        let answer = Answer::read(&mut BufReader::new(&connection), method == "HEAD");
        match (answer, written) {
            (Ok(answer), _) => Ok(answer),
            (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
        }
    }
}

struct Answer {
    status: u16,
    body: String,
}

impl Answer {
    fn read(input: &mut impl BufRead, is_head: bool) -> io::Result<Self> {
        let mut head = input.take(HEAD_BYTES_MAX);
        let status = loop {
            let line = read_line(&mut head)?;
            let status = line
                .strip_prefix("HTTP/1.")
                .and_then(|rest| rest.split(' ').nth(1)?.parse::<u16>().ok())
                .ok_or_else(|| invalid("the answer is not HTTP"))?;
            while !read_line(&mut head)?.is_empty() {}
            // 100 Continue and its like come before the answer.
            if status >= 200 {
                break status;
            }
        };
        let mut body = vec![];
        if !is_head {
            // The connection is closed after it; what is longer is not of interest.
            head.into_inner()
                .take(BODY_BYTES_MAX)
                .read_to_end(&mut body)?;
        }
        Ok(Self {
            status,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    fn refused(&self, what: &str) -> ClientError {
        let code = element(&self.body, "Code");
        let message = element(&self.body, "Message");
        ClientError::Refused {
            what: what.to_owned(),
            status: self.status,
            text: format!(
                "{} {}",
                code.unwrap_or_default(),
                message.unwrap_or_default()
            ),
        }
    }
}

fn read_line(input: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Text of an element in an error document, for showing only.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    Some(rest.split_once('<')?.0)
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
