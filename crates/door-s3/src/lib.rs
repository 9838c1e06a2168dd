//! The S3 door: requests of today's and old S3 clients over the object store.
//!
//! The wire protocol is the library `s3s`, kept behind this crate: it parses
//! requests, verifies signatures and writes XML.  Around it stands a wall
//! ([`wall`]) for what it leaves out: the region of a scope, versions that a key
//! may use, the cap of presigned times, headers that must be signed, digests of
//! XML bodies, limits, and error documents.  [`service`] turns each operation
//! into a call of the store; no decision about permission is taken here.
//!
//! The library logs every refusal as an error: filter its target `s3s` out.
//! Start reading at [`Door::answer`].

mod acls;
mod buckets;
mod convert;
mod errors;
mod held_body;
mod host;
mod identity;
mod lists;
mod objects;
mod payload;
mod prefix;
mod service;
mod shared_body;
mod signature_v2;
mod uploads;
mod wall;

use std::sync::Arc;

use bytes::Bytes;
use cumulet_auth::Keys;
use cumulet_domain::{AccountId, Timestamp};
use cumulet_objects::ObjectStore;
use cumulet_wire::held::Held;
use http::{Request, Response};
use s3s::service::{S3Service, S3ServiceBuilder};

/// Bodies of answers: in memory, or a stream that may break off.
pub use s3s::Body;
/// What a broken stream says.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Bytes of an XML request.
const XML_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes of an upload by form, which is held in memory: the library reads it before anybody can
/// say whether it is allowed.  All together are bounded by [`Config::held`].
const FORM_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of a form's other fields.
const FORM_FIELDS_BYTES_MAX: usize = 1024 * 1024;

/// What the door needs to know.
#[derive(Clone)]
pub struct Config {
    /// The only region, demanded of V4 scopes.
    pub region: String,
    /// Names under which a bucket is a label in front: `s3.cloud.test`.  Under any other name the
    /// bucket is in the path.
    pub domains: Vec<String>,
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// What documents and forms hold in memory altogether.
    pub held: Held,
}

/// What happened, for the log; an extension of every answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// `GetObject` …; empty when the request did not get so far.
    pub action: String,
    pub account: Option<AccountId>,
    /// Error code, `None` when it went well.
    pub code: Option<String>,
}

/// The door; clones share it.
#[derive(Clone)]
pub struct Door {
    inner: S3Service,
    keys: Arc<dyn Keys>,
    config: Arc<Config>,
    domains: host::Domains,
}

impl Door {
    pub fn new(objects: ObjectStore, keys: Arc<dyn Keys>, config: Config) -> Self {
        let config = Arc::new(config);
        let domains = host::Domains::new(&config.domains);
        let builder = || {
            let mut builder = S3ServiceBuilder::new(service::Service {
                objects: objects.clone(),
                config: config.clone(),
            });
            let mut limits = s3s::config::S3Config::default();
            limits.xml_max_body_size = XML_BYTES_MAX;
            limits.post_object_max_file_size = FORM_BYTES_MAX;
            limits.form_max_fields_size = FORM_FIELDS_BYTES_MAX;
            builder.set_config(Arc::new(s3s::config::StaticConfigProvider::new(Arc::new(
                limits,
            ))));
            builder.set_host(domains.clone());
            builder.set_auth(identity::Secrets(keys.clone()));
            builder.set_access(identity::Identity(keys.clone()));
            builder.set_validation(host::AnyBucketName);
            builder
        };
        let mut outer = builder();
        outer.set_route(prefix::Strip(builder().build()));
        Self {
            inner: outer.build(),
            keys,
            config,
            domains,
        }
    }

    /// Answers one request; never fails.  The answer carries an [`Outcome`] among its extensions.
    pub async fn answer<B>(&self, request: Request<B>, request_id: &str) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        wall::answer(self, request, request_id).await
    }
}
