//! The server's side of the control socket.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cumulet_domain::Error;
use cumulet_engine::Engine;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::watch;

use super::socket_path;
use crate::backup::Source;
use crate::config::Limits;
use crate::http::{Body, Connections, full, serve};
use crate::operator;

/// Biggest request: a certificate fits many times.
const BODY_MAX: usize = 256 * 1024;
/// Operators at the same time.
const CONNECTIONS_MAX: usize = 32;

/// Makes the socket.  One that a killed server left is replaced: the caller holds the lock of the
/// data directory.
///
/// # Errors
/// Those of the file system.
pub(crate) fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    let (_directory, path) = socket_path(data_dir)?;
    match fs::remove_file(&path) {
        Ok(()) => {}
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        Err(cause) => return Err(cause),
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves operators until told to stop.
pub(crate) fn start(
    listener: UnixListener,
    engine: Engine,
    source: Source,
    metrics: PrometheusHandle,
    limits: Limits,
    stop: watch::Receiver<bool>,
) -> tokio::task::JoinHandle<()> {
    let shared = Arc::new((engine, source, metrics));
    let answer = move |request| {
        let shared = shared.clone();
        async move { answer(&shared.0, &shared.1, &shared.2, request).await }
    };
    tokio::spawn(serve(
        listener,
        Connections::new(CONNECTIONS_MAX),
        limits,
        stop,
        answer,
    ))
}

async fn answer(
    engine: &Engine,
    source: &Source,
    metrics: &PrometheusHandle,
    request: Request<Incoming>,
) -> Response<Body> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/health") => json_answer(StatusCode::OK, &json!({ "status": "ok" })),
        (&Method::GET, "/metrics") => metrics_answer(engine, metrics),
        (&Method::POST, "/v1/operator") => {
            let body = Limited::new(request.into_body(), BODY_MAX).collect().await;
            let Ok(body) = body else {
                return refuse(StatusCode::BAD_REQUEST, "the request cannot be read");
            };
            match serde_json::from_slice(&body.to_bytes()) {
                Ok(request) => perform(engine, source, request).await,
                Err(cause) => refuse(
                    StatusCode::BAD_REQUEST,
                    &format!("the request cannot be understood: {cause}"),
                ),
            }
        }
        _ => refuse(StatusCode::NOT_FOUND, "there is no such page"),
    }
}

async fn perform(engine: &Engine, source: &Source, request: operator::Request) -> Response<Body> {
    match operator::perform(engine, source, request).await {
        Ok(answer) => json_answer(StatusCode::OK, &answer),
        Err(error) => {
            let status = match &error {
                Error::Internal { log } | Error::ServiceUnavailable { log } => {
                    tracing::error!(log, "an operator's request failed");
                    StatusCode::INTERNAL_SERVER_ERROR
                }
                Error::NotFound { .. } => StatusCode::NOT_FOUND,
                Error::AlreadyExists { .. } | Error::IncorrectState { .. } => StatusCode::CONFLICT,
                _ => StatusCode::BAD_REQUEST,
            };
            refuse(status, &operator::error_text(&error))
        }
    }
}

/// Metrics in Prometheus' text form.
pub(crate) fn metrics_answer(engine: &Engine, metrics: &PrometheusHandle) -> Response<Body> {
    let state = engine.snapshot();
    metrics::gauge!("cumulet_instances_live").set(count(state.live_instances.len()));
    metrics::gauge!("cumulet_images").set(count(state.images.len()));
    metrics::gauge!("cumulet_memory_used_mib").set(count(
        usize::try_from(state.host_usage.memory_mib).unwrap_or(usize::MAX),
    ));
    metrics.run_upkeep();
    let mut response = Response::new(full(Bytes::from(metrics.render())));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4"),
    );
    response
}

/// Gauges are floats; counts here are far below where they lose digits.
fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

fn refuse(status: StatusCode, message: &str) -> Response<Body> {
    json_answer(status, &json!({ "error": message }))
}

fn json_answer(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(full(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}
