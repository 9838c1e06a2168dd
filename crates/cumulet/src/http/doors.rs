//! The doors behind the one address, and what each request says of itself for
//! the log.

use std::sync::Arc;

use bytes::Bytes;
use cumulet_door_ec2::{Ec2Door, Handled, RequestContext};
use cumulet_door_s3::Outcome;
use cumulet_wire::held::Held;
use http::{Request, Response};
use http_body_util::BodyExt as _;

use super::{Body, Context, Logged, Timed};
use crate::config::Settings;
use crate::surroundings;
use crate::wiring::Cloud;

/// The doors behind the one address.
pub(crate) struct Doors {
    ec2: Ec2Door,
    s3: cumulet_door_s3::Door,
}

impl Doors {
    pub(crate) fn new(cloud: &Cloud, settings: &Settings, held: Held) -> Self {
        let s3 = cumulet_door_s3::Config {
            region: settings.region.clone(),
            domains: settings
                .domains
                .iter()
                .map(|it| format!("s3.{it}"))
                .collect(),
            clock: Arc::new(surroundings::now),
            held,
        };
        Self {
            ec2: Ec2Door::new(cloud.engine.clone()),
            s3: cumulet_door_s3::Door::new(cloud.objects.clone(), cloud.keys.clone(), s3),
        }
    }

    pub(crate) async fn ec2(&self, request: Request<Bytes>, context: Context) -> Response<Bytes> {
        let context = RequestContext {
            request_id: context.request_id,
            client_host: context.host,
            now: surroundings::now(),
        };
        let mut response = self.ec2.handle(request, context).await;
        if let Some(handled) = response.extensions_mut().remove::<Handled>() {
            response.extensions_mut().insert(Logged {
                action: handled.action,
                account: handled.account,
                code: handled.code,
                log: handled.log,
            });
        }
        response
    }

    pub(crate) async fn s3(&self, request: Request<Timed>, context: Context) -> Response<Body> {
        let mut response = self.s3.answer(request, &context.request_id).await;
        if let Some(outcome) = response.extensions_mut().remove::<Outcome>() {
            response.extensions_mut().insert(Logged {
                action: outcome.action.to_owned(),
                account: outcome.account,
                code: outcome.code,
                log: None,
            });
        }
        response.map(|body| body.boxed_unsync())
    }
}
