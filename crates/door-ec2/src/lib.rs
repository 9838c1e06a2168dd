//! The EC2 door, Query and SOAP: parameters in, XML of the asked version out.
//!
//! A request goes: parameters from URL and form ([`router`]), signature
//! (`cumulet-auth`), shape of the version (`cumulet-ec2-model`), one function of a
//! resource's file ([`images`], [`image_attributes`], [`instances`], [`launch`], [`status`], [`keypairs`],
//! [`regions`], [`networks`], [`network_interfaces`], [`volumes`], [`instance_types`],
//! [`instance_attributes`], [`account_attributes`],
//! [`addresses`], [`tags`]), the engine, and back through
//! [`Answer`](cumulet_ec2_model::Answer).
//! A SOAP message ([`soap`]) becomes such parameters, and is answered in an envelope; what its
//! clients are generated from is in [`documents`].
//! No decision is taken here, and nothing is remembered but which messages were seen.
//!
//! STS `GetCallerIdentity` is here too ([`sts`]), since today's EC2 tools ask it first.

mod account_attributes;
mod addresses;
mod call;
mod documents;
mod error;
mod filters;
mod image_attributes;
mod images;
mod instance_attributes;
mod instance_filters;
mod instance_ports;
mod instance_types;
mod instances;
mod keypairs;
mod keys;
mod launch;
mod network_interfaces;
mod networks;
mod paging;
mod permissions;
mod products;
mod regions;
mod reservation;
mod router;
mod security_groups;
mod soap;
mod status;
mod sts;
mod tags;
mod volumes;

use std::sync::Arc;

use bytes::Bytes;
use cumulet_auth::wss::Replays;
use cumulet_domain::{AccountId, Timestamp};
use cumulet_engine::Engine;

pub use router::serves;
pub use soap::is_soap;

/// What is known of a request beside its bytes.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// Given back in answers and errors.
    pub request_id: String,
    /// Host and port by which the client reached us, as its `Host` header has them: endpoints
    /// that we hand out carry them.
    pub client_host: String,
    pub now: Timestamp,
}

/// For the log line of a request; an extension of every response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handled {
    /// As the client named it, at most 64 characters; empty if it named none.
    pub action: String,
    /// Who signed, if the signature was good.
    pub account: Option<AccountId>,
    /// The error code that was answered.
    pub code: Option<String>,
    /// What the log gets and the user does not.
    pub log: Option<String>,
}

/// The door; clones share the engine.
#[derive(Clone)]
pub struct Ec2Door {
    engine: Engine,
    /// SOAP messages that were accepted lately.
    replays: Arc<Replays>,
}

impl Ec2Door {
    pub fn new(engine: Engine) -> Self {
        Self {
            engine,
            replays: Arc::default(),
        }
    }

    /// Answers one request.  The body is whole, and bounded by whoever read it.  Every response
    /// carries a [`Handled`].
    pub async fn handle(
        &self,
        request: http::Request<Bytes>,
        context: RequestContext,
    ) -> http::Response<Bytes> {
        router::handle(&self.engine, &request, &context, &self.replays).await
    }
}
