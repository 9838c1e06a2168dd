//! Logs on stderr.

use tracing_subscriber::EnvFilter;

use crate::config::{ConfigError, Log, LogFormat};

/// Starts logging for the life of the process.
///
/// # Errors
/// When the filter cannot be read.
pub(crate) fn start(log: &Log) -> Result<(), ConfigError> {
    let filter = EnvFilter::try_new(&log.filter)
        .map_err(|cause| ConfigError(format!("log.filter: {cause}")))?;
    // The S3 library logs every refusal as an error; the door has a line of its own for each.
    let filter = filter.add_directive(
        "s3s=off"
            .parse()
            .map_err(|cause| ConfigError(format!("log.filter: {cause}")))?,
    );
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Else a line that cannot be written is told of on stderr, which panics when nobody reads
        // it: every request would end so while the log's reader is away.
        .log_internal_errors(false)
        .with_target(false);
    let started = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => {
            let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_ansi(is_terminal).try_init()
        }
    };
    started.map_err(|cause| ConfigError(format!("logging did not start: {cause}")))
}
