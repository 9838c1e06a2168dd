//! The operator's door: a Unix socket in the data directory.
//!
//! HTTP/1 with JSON: `POST /v1/operator` takes an [`operator::Request`],
//! `GET /metrics` answers in Prometheus' text form, `GET /health` says that the
//! server lives.  Only who may enter the data directory can reach it.
//!
//! [`operator::Request`]: crate::operator::Request

mod client;
mod server;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

pub(crate) use client::{answers, ask};
pub(crate) use server::{bind, metrics_answer, start};

/// Name of the socket in the data directory.
const SOCKET: &str = "control.sock";

/// A name of the socket that is short enough for the kernel (108 bytes), however deep the data
/// directory lies.  It holds as long as the file does.
fn socket_path(data_dir: &Path) -> io::Result<(File, PathBuf)> {
    let directory = File::open(data_dir)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()));
    Ok((directory, path))
}
