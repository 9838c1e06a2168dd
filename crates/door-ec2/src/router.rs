//! From bytes to an operation and back.

use bytes::Bytes;
use cumulet_auth::wss::Replays;
use cumulet_auth::{Profile, QueryPolicy, Readings, Verified, verify_query};
use cumulet_domain::{Error, shown};
use cumulet_ec2_model::{readings, request};
use cumulet_engine::{Caller, Engine};
use cumulet_wire::query::Params;
use http::{HeaderValue, Method, StatusCode, header};

use crate::call::Call;
use crate::error::Refused;
use crate::keys::EngineKeys;
use crate::{
    Handled, RequestContext, account_attributes, addresses, documents, image_attributes, images,
    instance_attributes, instance_types, instances, keypairs, launch, network_interfaces, networks,
    permissions, products, regions, security_groups, soap, status, sts, tags, volumes,
};

/// Longest name of an action that the log repeats.
pub(crate) const ACTION_SHOWN_MAX: usize = 64;

/// In which form a refusal is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Query,
    Sts,
    Soap,
}

impl Form {
    /// Status and document.  SOAP answers every fault with 500.
    fn error(self, refused: &Refused, id: &str) -> (u16, String) {
        match self {
            Form::Query => (
                refused.status,
                cumulet_wire::error::ec2(&refused.code, &refused.message, id),
            ),
            Form::Sts => (refused.status, sts::error(refused, id)),
            Form::Soap => {
                let side = if refused.status < 500 {
                    "Client"
                } else {
                    "Server"
                };
                let code = format!("{side}.{}", refused.code);
                let text = cumulet_wire::soap::fault(&code, &refused.message, id);
                (500, text)
            }
        }
    }
}

/// Whether parameters ask one of the services behind this door, for a listener that has to choose:
/// EC2's requests and STS's name an action.
pub fn serves(params: &Params) -> bool {
    params.contains("Action") || params.contains("Operation")
}

pub(crate) async fn handle(
    engine: &Engine,
    request: &http::Request<Bytes>,
    context: &RequestContext,
    replays: &Replays,
) -> http::Response<Bytes> {
    let mut handled = Handled {
        action: String::new(),
        account: None,
        code: None,
        log: None,
    };
    let mut form = Form::Query;
    let result = if documents::is_asked(request) {
        "wsdl".clone_into(&mut handled.action);
        let protocol = request.headers().get("x-forwarded-proto");
        let is_https = protocol.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"https"));
        documents::answer(request.uri().path(), &context.client_host, is_https)
    } else if soap::is_soap(request.method(), request.headers()) {
        form = Form::Soap;
        soap::answer(engine, request, context, replays, &mut handled).await
    } else {
        answer(engine, request, context, &mut handled, &mut form).await
    };
    let (status, text) = match result {
        Ok(text) => (200, text),
        Err(refused) => {
            let answered = form.error(&refused, &context.request_id);
            handled.code = Some(refused.code);
            handled.log = refused.log;
            answered
        }
    };
    let mut response = http::Response::new(Bytes::from(text));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if status == 405 {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, POST"));
    }
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/xml;charset=UTF-8"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-store"),
    );
    if let Ok(id) = HeaderValue::from_str(&context.request_id) {
        headers.insert("x-amzn-requestid", id);
    }
    response.extensions_mut().insert(handled);
    response
}

async fn answer(
    engine: &Engine,
    request: &http::Request<Bytes>,
    context: &RequestContext,
    handled: &mut Handled,
    form: &mut Form,
) -> Result<String, Refused> {
    let params = params_of(request)?;
    let is_sts = params.get("Version") == Some(sts::VERSION);
    if is_sts {
        *form = Form::Sts;
    }
    let action = request::action(&params)?;
    let shown = action.chars().filter(char::is_ascii_graphic);
    handled.action = shown.take(ACTION_SHOWN_MAX).collect();
    let verified = verify(engine, request, context, &params, is_sts)?;
    handled.account = Some(verified.principal.account);
    if is_sts {
        return sts::answer(action, &verified.principal, context);
    }
    let caller = Caller {
        account: verified.principal.account,
        user: verified.principal.user,
    };
    let call = Call::new(engine, caller, request::check(&params)?, context);
    dispatch(&call).await
}

/// Does what is asked.
///
/// # Errors
/// For a request that says `DryRun`, `DryRunOperation` where it would have done it: EC2's way to say
/// yes.
pub(crate) async fn dispatch(call: &Call<'_>) -> Result<String, Refused> {
    let answer = perform(call).await?;
    if call.engine.is_rehearsal() {
        return Err(Refused::from(Error::Rehearsed));
    }
    Ok(answer)
}

/// The only list of what this door does; `models/ec2-requests.txt` has the same names.
async fn perform(call: &Call<'_>) -> Result<String, Refused> {
    match call.request.operation.name {
        "RegisterImage" => images::register(call).await,
        "DescribeImages" => images::describe(call),
        "DeregisterImage" => images::deregister(call).await,
        "ModifyImageAttribute" => image_attributes::modify(call).await,
        "DescribeImageAttribute" => image_attributes::describe(call),
        "ResetImageAttribute" => image_attributes::reset(call).await,
        "RunInstances" => launch::run(call).await,
        "DescribeInstances" => instances::describe(call),
        "DescribeInstanceStatus" => status::describe(call).await,
        "RebootInstances" => instances::reboot(call).await,
        "TerminateInstances" => instances::terminate(call).await,
        "GetConsoleOutput" => instances::console(call).await,
        "ConfirmProductInstance" => products::confirm(call),
        "CreateKeyPair" => keypairs::create(call).await,
        "DescribeKeyPairs" => keypairs::describe(call),
        "DeleteKeyPair" => keypairs::delete(call).await,
        "ImportKeyPair" => keypairs::import(call).await,
        "CreateSecurityGroup" => security_groups::create(call).await,
        "DescribeSecurityGroups" => security_groups::describe(call),
        "DeleteSecurityGroup" => security_groups::delete(call).await,
        "AuthorizeSecurityGroupIngress" => permissions::authorize(call).await,
        "RevokeSecurityGroupIngress" => permissions::revoke(call).await,
        "DescribeRegions" => regions::describe(call),
        "DescribeAvailabilityZones" => regions::describe_zones(call),
        "CreateTags" => tags::create(call).await,
        "DeleteTags" => tags::delete(call).await,
        "DescribeTags" => tags::describe(call),
        "DescribeVolumes" => volumes::describe(call),
        "DescribeVpcs" => networks::describe(call),
        "DescribeVpcAttribute" => networks::describe_attribute(call),
        "DescribeAddresses" => addresses::describe(call),
        "DescribeSubnets" => networks::describe_subnets(call),
        "DescribeNetworkInterfaces" => network_interfaces::describe(call),
        "DescribeAccountAttributes" => account_attributes::describe(call),
        "DescribeInstanceTypes" => instance_types::describe(call),
        "DescribeInstanceTypeOfferings" => instance_types::describe_offerings(call),
        "DescribeInstanceAttribute" => instance_attributes::describe(call),
        "DescribeInstanceCreditSpecifications" => instance_attributes::describe_credits(call),
        other => Err(Refused::new(
            400,
            "UnsupportedOperation",
            format!("The operation {other} is not supported here"),
        )),
    }
}

fn params_of(request: &http::Request<Bytes>) -> Result<Params, Refused> {
    let is_form = || {
        let kind = request.headers().get(header::CONTENT_TYPE);
        // Some old clients name no type.
        kind.is_none_or(|kind| {
            let text = kind.to_str().unwrap_or_default().to_ascii_lowercase();
            text.split(';').next().unwrap_or_default().trim() == "application/x-www-form-urlencoded"
        })
    };
    let form = match *request.method() {
        Method::GET => None,
        Method::POST if request.body().is_empty() => None,
        Method::POST if is_form() => Some(request.body().as_ref()),
        Method::POST => {
            let kind = request.headers().get(header::CONTENT_TYPE);
            let kind = kind.map_or_else(String::new, |it| {
                String::from_utf8_lossy(it.as_bytes()).into_owned()
            });
            let kind = shown(&kind);
            return Err(Refused::new(
                400,
                "MalformedQueryString",
                format!(
                    "A body must be of the type application/x-www-form-urlencoded, not '{kind}'"
                ),
            ));
        }
        ref other => {
            return Err(Refused::new(
                405,
                "UnsupportedProtocol",
                format!("Requests are made by GET or POST, not by {other}"),
            ));
        }
    };
    Ok(Params::parse(request.uri().query(), form)?)
}

fn verify(
    engine: &Engine,
    request: &http::Request<Bytes>,
    context: &RequestContext,
    params: &Params,
    is_sts: bool,
) -> Result<Verified, Refused> {
    let (service, profile) = if is_sts {
        ("sts", Profile::Sts)
    } else {
        ("ec2", Profile::Ec2)
    };
    let policy = QueryPolicy {
        service,
        region: &engine.config().region,
        is_global: is_sts,
        allows_host_scope: !is_sts,
        readings: (!is_sts).then_some(&Ec2Readings as &dyn Readings),
    };
    let signed = cumulet_auth::Request {
        method: request.method(),
        raw_path: request.uri().path(),
        raw_query: request.uri().query(),
        headers: request.headers(),
        host: &context.client_host,
        body: request.body(),
        now: context.now,
    };
    verify_query(&signed, params, &EngineKeys(engine.clone()), &policy)
        .map_err(|error| Refused::auth(&error, profile))
}

/// What EC2's requests look like, for signatures of version 1.
#[derive(Debug)]
struct Ec2Readings;

impl Readings for Ec2Readings {
    fn check(&self, signed: &str, params: &Params) -> Result<(), String> {
        readings::others(signed, params).map_err(|unclear| unclear.to_string())
    }
}
