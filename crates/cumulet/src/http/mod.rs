//! One address for all doors.
//!
//! [`listener`] accepts connections within limits, [`connections`] says whose
//! place goes to another, [`route`] picks the door by a pure function, and [`Front`] sees to what all doors share: request ids,
//! limits on bodies, isolation of panics, one log line per request.

mod body;
mod connections;
mod doors;
mod listener;
mod log;
mod paced;
mod request_id;
mod route;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use cumulet_wire::held::{Held, Share};
use futures::FutureExt;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

pub(crate) use body::{Body, Timed, full};
pub(crate) use connections::Connections;
pub(crate) use doors::Doors;
pub(crate) use listener::serve;
pub(crate) use log::Logged;
pub(crate) use route::{Door, Head, route};

use connections::Handle;

use crate::config::Limits;

/// What every listener answers with.
pub(crate) struct Front {
    pub(crate) doors: Doors,
    pub(crate) domains: Vec<String>,
    pub(crate) limits: Limits,
    /// What requests and answers hold altogether.
    pub(crate) held: Held,
}

/// Bytes of one request or answer that are not counted: so little, for each connection, is always
/// there, and small calls are answered while others hold all that is counted.
const UNCOUNTED_BYTES: usize = 64 * 1024;

/// What a door gets beside the request.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) request_id: String,
    /// `Host` header or authority, by which the client reached us.
    pub(crate) host: String,
}

impl Front {
    /// Answers one request; never fails, never panics.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let start = Instant::now();
        let request_id = request_id::new();
        let method = request.method().clone();
        let host = host_of(&request);
        let is_soap = cumulet_door_ec2::is_soap(&method, request.headers());
        let door = route(
            &Head {
                method: &method,
                host: &host,
                path: request.uri().path(),
                query: request.uri().query(),
                headers: request.headers(),
            },
            &self.domains,
        );
        let form = Form {
            door,
            is_soap: is_soap && door == Door::Ec2,
        };
        let context = Context {
            request_id: request_id.clone(),
            host,
        };
        let front = self.clone();
        // A panic ends this request and no other; what it has committed is whole, what it has not
        // is nothing.
        let work = AssertUnwindSafe(async move { front.dispatch(form, request, context).await });
        let mut response = match work.catch_unwind().await {
            Ok(response) => response,
            Err(_) => {
                tracing::error!(request_id, door = door.name(), "a request panicked");
                refusal(
                    form,
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "InternalError",
                    "An internal error has occurred",
                    &request_id,
                )
            }
        };
        if method == Method::HEAD && door != Door::S3 {
            *response.body_mut() = full(Bytes::new());
        }
        let logged = response.extensions_mut().remove().unwrap_or_default();
        log::request(
            &request_id,
            door,
            (response.status(), &logged),
            start.elapsed(),
        );
        response
    }

    async fn dispatch(
        &self,
        form: Form,
        request: Request<Incoming>,
        context: Context,
    ) -> Response<Body> {
        if head_bytes(&request) > self.limits.header_bytes {
            let limit = self.limits.header_bytes;
            let message = format!("The request's head is larger than {limit} bytes");
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            return refusal(
                form,
                status,
                "RequestHeaderSectionTooLarge",
                &message,
                &context.request_id,
            );
        }
        match form.door {
            Door::Ec2 => match self.read_whole(request).await {
                Ok((request, _share)) => {
                    let request_id = context.request_id.clone();
                    let response = self.doors.ec2(request, context).await;
                    self.hold(response, form, &request_id)
                }
                Err(refused) => refused.response(form, &context.request_id),
            },
            Door::S3 => {
                let patience = Duration::from_millis(self.limits.body_timeout_ms);
                let request = request.map(|body| Timed::new(body, patience));
                self.doors.s3(request, context).await
            }
            Door::Own => own(&request),
            Door::Absent(name) => absent(name, &context.request_id),
        }
    }

    /// The request with its body in memory.
    async fn read_whole(
        &self,
        request: Request<Incoming>,
    ) -> Result<(Request<Bytes>, Share), Unread> {
        let (mut head, body) = request.into_parts();
        let announced = http_body::Body::size_hint(&body).lower();
        if usize::try_from(announced).map_or(true, |size| size > self.limits.query_body_bytes) {
            return Err(Unread::TooLarge(self.limits.query_body_bytes));
        }
        // Nothing has been done for it yet, so that it may make room for another connection.
        let handle = head.extensions.remove::<Handle>();
        let handle = handle.filter(|_| !http_body::Body::is_end_stream(&body));
        if let Some(handle) = &handle {
            handle.waits();
        }
        let patience = Duration::from_millis(self.limits.body_timeout_ms);
        let (whole, share) = tokio::time::timeout(patience, self.collect(body))
            .await
            .map_err(|_| Unread::Slow)??;
        // Its place was given away just now; nothing has been begun, so that it may come again.
        if handle.is_some_and(|handle| !handle.works()) {
            return Err(Unread::NoRoom);
        }
        Ok((Request::from_parts(head, whole), share))
    }

    /// Copies the body together: in a list, a chunk of one byte would cost a hundred.
    async fn collect(&self, mut body: Incoming) -> Result<(Bytes, Share), Unread> {
        let mut share = self.held.share();
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Unread::Broken)?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let size = whole.len() + data.len();
            if size > self.limits.query_body_bytes {
                return Err(Unread::TooLarge(self.limits.query_body_bytes));
            }
            if size > UNCOUNTED_BYTES && !share.grow(data.len()) {
                return Err(Unread::NoRoom);
            }
            whole.extend_from_slice(&data);
        }
        Ok((whole.freeze(), share))
    }

    /// Counts an answer until the client has taken it.  Where there is no room, one that only
    /// tells is refused instead; one that something was done for is sent.
    fn hold(&self, response: Response<Bytes>, form: Form, request_id: &str) -> Response<Body> {
        let size = response.body().len();
        if size <= UNCOUNTED_BYTES {
            return response.map(full);
        }
        let share = self.held.take(size);
        let only_tells = response.extensions().get::<Logged>().is_some_and(|logged| {
            logged.action.starts_with("Describe") || logged.action.starts_with("Get")
        });
        if share.is_none() && only_tells {
            let mut refused = Unread::NoRoom.response(form, request_id);
            if let (Some(logged), Some(of_refusal)) = (
                response.extensions().get::<Logged>().cloned(),
                refused.extensions_mut().get_mut::<Logged>(),
            ) {
                of_refusal.action = logged.action;
                of_refusal.account = logged.account;
            }
            return refused;
        }
        response.map(|bytes| {
            full(Bytes::from_owner(Counted {
                bytes,
                _share: share,
            }))
        })
    }
}

/// Bytes with what they take of all that may be held.
struct Counted {
    bytes: Bytes,
    _share: Option<Share>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Why a body was not read.
enum Unread {
    /// How many bytes it may have.
    TooLarge(usize),
    Slow,
    Broken,
    /// Others hold as much as may be held.
    NoRoom,
}

impl Unread {
    fn response(&self, form: Form, request_id: &str) -> Response<Body> {
        let (status, code, message) = match self {
            Unread::TooLarge(limit) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "RequestEntityTooLarge",
                format!("The request's body is larger than {limit} bytes"),
            ),
            Unread::Slow => (
                StatusCode::REQUEST_TIMEOUT,
                "RequestTimeout",
                "The request's body did not arrive in time".to_owned(),
            ),
            Unread::Broken => (
                StatusCode::BAD_REQUEST,
                "MalformedInput",
                "The request's body cannot be read".to_owned(),
            ),
            Unread::NoRoom => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Unavailable",
                "The server holds as many requests and answers as it may; try again later"
                    .to_owned(),
            ),
        };
        let mut response = refusal(form, status, code, &message, request_id);
        // What is left of the body is not read, so that the connection cannot go on.
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

/// Bytes of the request line and the headers, nearly as they came: the buffer in which they are read
/// grows in steps, and takes up to twice the limit.
fn head_bytes<B>(request: &Request<B>) -> usize {
    let target = request
        .uri()
        .path_and_query()
        .map_or(1, |it| it.as_str().len());
    let headers = request.headers().iter();
    let headers: usize = headers
        .map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len())
        .sum();
    request.method().as_str().len() + target + headers
}

/// HTTP/2 has no `Host` header but an authority.
fn host_of<B>(request: &Request<B>) -> String {
    let header = request
        .headers()
        .get(header::HOST)
        .and_then(|value| value.to_str().ok());
    let authority = request
        .uri()
        .authority()
        .map(|authority| authority.as_str());
    header.or(authority).unwrap_or_default().to_owned()
}

/// `/_cumulet/…`: what is ours alone.
fn own<B>(request: &Request<B>) -> Response<Body> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    match request.uri().path() {
        "/_cumulet/health" if is_read => json(StatusCode::OK, r#"{"status":"ok"}"#),
        "/_cumulet/health" => json(StatusCode::METHOD_NOT_ALLOWED, r#"{"error":"use GET"}"#),
        _ => json(
            StatusCode::NOT_FOUND,
            r#"{"error":"there is no such page"}"#,
        ),
    }
}

fn json(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// What is known and not served yet is refused in the form that its clients read; none of the
/// statuses makes them try again.
fn absent(name: &'static str, request_id: &str) -> Response<Body> {
    let code = "UnsupportedOperation";
    let message = format!("This cloud does not have {name}");
    let (status, text) = match name {
        "ssm" => (
            StatusCode::BAD_REQUEST,
            format!(r#"{{"__type":"{code}Exception","message":"{message}"}}"#),
        ),
        "openstack" => (
            StatusCode::NOT_IMPLEMENTED,
            format!(
                r#"{{"error":{{"code":501,"title":"Not Implemented","message":"{message}"}}}}"#
            ),
        ),
        _ => {
            let status = StatusCode::BAD_REQUEST;
            let form = Form {
                door: Door::Absent(name),
                is_soap: false,
            };
            return refusal(form, status, code, &message, request_id);
        }
    };
    let mut response = json(status, Bytes::from(text));
    response.extensions_mut().insert(Logged {
        code: Some(code.to_owned()),
        ..Logged::default()
    });
    response
}

/// In which form a refusal is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    pub(crate) door: Door,
    /// The request was a SOAP message.
    pub(crate) is_soap: bool,
}

/// A refusal in the form of the door that would have answered.
pub(crate) fn refusal(
    form: Form,
    status: StatusCode,
    code: &str,
    message: &str,
    request_id: &str,
) -> Response<Body> {
    let (status, text) = match form.door {
        // SOAP clients read faults in answers with this status only.
        Door::Ec2 if form.is_soap => {
            let side = if status.is_server_error() {
                "Server"
            } else {
                "Client"
            };
            let code = format!("{side}.{code}");
            let text = cumulet_wire::soap::fault(&code, message, request_id);
            (StatusCode::INTERNAL_SERVER_ERROR, text)
        }
        Door::S3 => (
            status,
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message><RequestId>{request_id}</RequestId></Error>"
            ),
        ),
        Door::Ec2 | Door::Own | Door::Absent(_) => (
            status,
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors><RequestID>{request_id}</RequestID></Response>"
            ),
        ),
    };
    let mut response = Response::new(
        Full::new(Bytes::from(text))
            .map_err(|never| match never {})
            .boxed_unsync(),
    );
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/xml;charset=UTF-8"),
    );
    response.extensions_mut().insert(Logged {
        code: Some(code.to_owned()),
        ..Logged::default()
    });
    response
}
