//! A thread that serves until it is told to stop.

use std::thread::JoinHandle;

use crate::api::{HostError, Result};

/// A running thread; dropped, it ends, and is waited for.
pub(super) struct Background<S> {
    name: &'static str,
    /// The thread ends when this is gone.
    stop: Option<S>,
    thread: Option<JoinHandle<()>>,
}

impl<S> Background<S> {
    /// Runs `serve` until `stop` is dropped, which it must notice.
    pub(super) fn start(
        name: &'static str,
        stop: S,
        serve: impl FnOnce() + Send + 'static,
    ) -> Result<Self> {
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(serve)
            .map_err(|cause| HostError::new(format!("could not start the {name} server"), cause))?;
        Ok(Self {
            name,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub(super) fn is_running(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }
}

impl<S> Drop for Background<S> {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(server = self.name, "a server of the network had panicked");
        }
    }
}
