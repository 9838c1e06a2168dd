//! What every operation gets: who asks, for what, in which version.

use cumulet_ec2_model::{Answer, Request, Version};
use cumulet_engine::{Caller, Engine};

use crate::RequestContext;

/// A request that is authenticated and well formed.
pub(crate) struct Call<'a> {
    /// One that commits nothing if the request is a rehearsal.
    pub(crate) engine: Engine,
    pub(crate) caller: Caller,
    pub(crate) request: Request<'a>,
    pub(crate) context: &'a RequestContext,
}

impl<'a> Call<'a> {
    /// A request that says `DryRun` gets an engine that rehearses.
    pub(crate) fn new(
        engine: &Engine,
        caller: Caller,
        request: Request<'a>,
        context: &'a RequestContext,
    ) -> Self {
        Self {
            engine: if request.is_true("DryRun") {
                engine.rehearsal()
            } else {
                engine.clone()
            },
            caller,
            request,
            context,
        }
    }

    /// An answer with its root and request id.
    pub(crate) fn answer(&self) -> Answer {
        Answer::new(
            self.request.operation,
            self.version(),
            &self.context.request_id,
        )
    }

    pub(crate) fn version(&self) -> Version {
        self.request.version
    }

    /// The whole answer of operations that only succeed.  `return` is of versions up to 2013-08-15.
    pub(crate) fn yes(&self) -> String {
        let mut answer = self.answer();
        answer.leaf("return", "true");
        answer.finish()
    }
}
