//! What every operation gets: who asks, for what, in which version.

use cumulet_ec2_model::{Answer, Request, Version};
use cumulet_engine::{Caller, Engine};

use crate::RequestContext;
use crate::error::Refused;

/// A request that is authenticated and well formed.
pub(crate) struct Call<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) caller: Caller,
    pub(crate) request: Request<'a>,
    pub(crate) context: &'a RequestContext,
}

impl Call<'_> {
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

    /// `DryRun` ends a request that is good here, before anything is done.
    ///
    /// # Errors
    /// `DryRunOperation`, EC2's way to say yes.
    pub(crate) fn stop_if_dry_run(&self) -> Result<(), Refused> {
        if self.request.is_true("DryRun") {
            Err(Refused::dry_run())
        } else {
            Ok(())
        }
    }

    /// The whole answer of operations that only succeed.  `return` is of versions up to 2013-08-15.
    pub(crate) fn yes(&self) -> String {
        let mut answer = self.answer();
        answer.leaf("return", "true");
        answer.finish()
    }
}
