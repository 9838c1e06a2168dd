//! How many files and connections the process may have open.
//!
//! A shell gives a program 1,024, which the connections alone may use up; then
//! neither the records nor an object could be opened.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Settings;

/// Descriptors that are kept for records, disks, the metadata service (two for each of its 1,024
/// connections) and what the host's side opens.
const KEPT: u64 = 2_560;
/// A connection has its socket and may have an object's file; guests come in half as many more.
const PER_CONNECTION: u64 = 3;

/// Raises the process's limit as far as it may, and gives how many connections fit under it: the
/// setting's number, or fewer.
pub(crate) fn connections(settings: &Settings) -> usize {
    let old = getrlimit(Resource::Nofile);
    let limit = Rlimit {
        current: old.maximum,
        maximum: old.maximum,
    };
    if let Err(cause) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%cause, "the limit of open files stays as it is");
    }
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let wanted = settings.limits.connections;
    let fitting = fitting(wanted, allowed);
    if fitting < wanted {
        tracing::warn!(
            wanted,
            fitting,
            allowed,
            "fewer connections are served than limits.connections says: the process may not have so many files open"
        );
    }
    fitting
}

/// Of so many descriptors, how many connections may there be?
fn fitting(wanted: usize, allowed: u64) -> usize {
    // A small limit is shared half and half.
    let left = allowed.saturating_sub(KEPT).max(allowed / 2) / PER_CONNECTION;
    wanted
        .min(usize::try_from(left).unwrap_or(usize::MAX))
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_never_take_every_descriptor() {
        for (wanted, allowed, fits) in [
            (1024, u64::MAX, 1024),
            (1024, 65_536, 1024),
            (1024, 1024, 170),
            (1024, 64, 10),
            (100, 1024, 100),
            (100, 0, 1),
        ] {
            assert_eq!(fitting(wanted, allowed), fits, "{wanted} of {allowed}");
        }
    }
}
