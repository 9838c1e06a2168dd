//! Clients that sign, by Query and by SOAP.

use bytes::Bytes;
use cumulet_auth::sign::{Signer, Unsigned, v1_signature, v2_signature, v4_headers};
use cumulet_auth::wss;
use cumulet_domain::{AccountId, Timestamp};
use cumulet_door_ec2::{Ec2Door, Handled, RequestContext};
use cumulet_wire::query::{Params, encode};

use super::identities::user_certificate;
use super::{HOST, NOW, REGION, REQUEST_ID, Reply, by_soap, honest};

/// A client with its key.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) door: Ec2Door,
    pub(crate) account: AccountId,
    pub(crate) key_id: String,
    pub(crate) secret: String,
    /// Whether [`Client::ask`] asks by SOAP what can be said so; what was is told in here.
    pub(crate) by_soap: Option<by_soap::Told>,
}
impl Client {
    /// Posts a SOAP message that the first user signed; `inside` is canonical.
    pub(crate) async fn soap(&self, operation: &str, version: &str, inside: &str) -> Reply {
        let text = format!(
            "<{operation} xmlns=\"http://ec2.amazonaws.com/doc/{version}/\">{inside}</{operation}>"
        );
        self.post_soap(operation, &enveloped(&text)).await
    }

    pub(crate) async fn post_soap(&self, action: &str, envelope: &str) -> Reply {
        self.post_soap_as(&format!("\"{action}\""), envelope).await
    }

    /// With this value of the header, as it is.
    pub(crate) async fn post_soap_as(&self, action: &str, envelope: &str) -> Reply {
        let request = http::Request::post("/")
            .header("host", HOST)
            .header("content-type", "text/xml; charset=utf-8")
            .header("soapaction", action)
            .body(Bytes::copy_from_slice(envelope.as_bytes()));
        self.send(request.expect("a request")).await
    }

    /// Signs with version 4 and posts a form.
    pub(crate) async fn ask(
        &self,
        action: &str,
        version: &str,
        parameters: &[(&str, &str)],
    ) -> Reply {
        if let Some(told) = &self.by_soap
            && let Some(reply) = self.ask_by_soap(action, version, parameters).await
        {
            let said = (action.to_owned(), version.to_owned());
            told.lock().expect("not poisoned").insert(said);
            return reply;
        }
        let mut pairs = vec![("Action", action), ("Version", version)];
        pairs.extend_from_slice(parameters);
        self.post(
            &pairs,
            if version == "2011-06-15" {
                "sts"
            } else {
                "ec2"
            },
        )
        .await
    }

    pub(crate) async fn post(&self, pairs: &[(&str, &str)], service: &str) -> Reply {
        self.post_form(form(pairs), service).await
    }

    /// Posts a form as it is, signed with version 4.
    pub(crate) async fn post_form(&self, body: String, service: &str) -> Reply {
        let signer = Signer {
            access_key_id: &self.key_id,
            secret: &self.secret,
            region: REGION,
            service,
        };
        let unsigned = Unsigned {
            method: "POST",
            host: HOST,
            raw_path: "/",
            raw_query: None,
            body: body.as_bytes(),
            now: NOW,
        };
        let headers = v4_headers(&signer, &unsigned, &http::HeaderMap::new()).expect("signed");
        let mut request = http::Request::post("/").header("host", HOST).header(
            "content-type",
            "application/x-www-form-urlencoded; charset=utf-8",
        );
        for (name, value) in headers {
            request = request.header(name, value);
        }
        self.send(request.body(Bytes::from(body)).expect("a request"))
            .await
    }

    /// Gets a query as it is, signed with version 1, as everybody did in 2007.
    pub(crate) async fn get_v1(&self, query: &str) -> Reply {
        let query = format!(
            "{query}&AWSAccessKeyId={}&SignatureVersion=1&Timestamp=2026-01-02T03%3A04%3A05Z",
            self.key_id
        );
        let params = Params::parse(Some(&query), None).expect("params");
        let signature = encode(&v1_signature(&self.secret, &params));
        let request = http::Request::get(format!("/?{query}&Signature={signature}"))
            .header("host", HOST)
            .body(Bytes::new());
        self.send(request.expect("a request")).await
    }

    /// Gets a query as it is, signed with version 2.
    pub(crate) async fn get_v2_query(&self, query: &str) -> Reply {
        let params = Params::parse(Some(query), None).expect("params");
        let pairs: Vec<(&str, &str)> = params.iter().collect();
        self.get_v2(&pairs).await
    }

    /// Signs with version 2 and gets.
    pub(crate) async fn get_v2(&self, pairs: &[(&str, &str)]) -> Reply {
        let mut all = vec![
            ("AWSAccessKeyId", self.key_id.as_str()),
            ("SignatureMethod", "HmacSHA256"),
            ("SignatureVersion", "2"),
            ("Timestamp", "2026-01-02T03:04:05Z"),
        ];
        all.extend_from_slice(pairs);
        let params = Params::parse(Some(&form(&all)), None).expect("params");
        let signature = v2_signature(&self.secret, "GET", HOST, "/", &params);
        all.push(("Signature", &signature));
        let request = http::Request::get(format!("/?{}", form(&all)))
            .header("host", HOST)
            .body(Bytes::new());
        self.send(request.expect("a request")).await
    }

    pub(crate) async fn send(&self, request: http::Request<Bytes>) -> Reply {
        self.send_at(request, NOW).await
    }

    /// Sends at another time than everybody else.
    pub(crate) async fn send_at(&self, request: http::Request<Bytes>, now: Timestamp) -> Reply {
        let context = RequestContext {
            request_id: REQUEST_ID.into(),
            client_host: HOST.into(),
            now,
        };
        let response = self.door.handle(request, context).await;
        let reply = Reply {
            status: response.status().as_u16(),
            handled: response
                .extensions()
                .get::<Handled>()
                .cloned()
                .expect("every response says what was handled"),
            text: String::from_utf8(response.body().to_vec()).expect("UTF-8"),
        };
        if reply.status == 200 {
            honest::check(&reply.text);
        }
        reply
    }
}

/// The envelope around an element in canonical form, signed by the first user.
pub(crate) fn enveloped(canonical: &str) -> String {
    let user = user_certificate();
    let signer = wss::sign::Client::new(&user.certificate_pem, &user.private_key_pem);
    signer
        .expect("keys")
        .envelope(canonical, NOW)
        .expect("signed")
}

pub(crate) fn form(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect();
    pairs.join("&")
}
