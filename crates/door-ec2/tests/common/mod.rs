//! A cloud in this process: the door over an engine in memory and a simulated host, one bundled
//! image in a map that stands for the object store, and clients that sign.

#![allow(dead_code, reason = "each test file uses a part of this")]

pub(crate) mod by_soap;
pub(crate) mod honest;
mod surroundings;
pub(crate) mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cumulet_auth::certificates::{Issued, issue};
use cumulet_auth::keys::{RsaKey, generate_rsa};
use cumulet_auth::sign::{Signer, Unsigned, v1_signature, v2_signature, v4_headers};
use cumulet_auth::wss;
use cumulet_bundle::manifest::{self, Draft, Part};
use cumulet_bundle::sign::SigningKey;
use cumulet_domain::accounts::{AccessKey, Account, Certificate, CloudIdentity, User};
use cumulet_domain::ids::IdFormat;
use cumulet_domain::images::Preparation;
use cumulet_domain::instances::InstanceState;
use cumulet_domain::{AccountId, Digest, Error, ImageId, InstanceId, KernelId, Timestamp};
use cumulet_door_ec2::{Ec2Door, Handled, RequestContext};
use cumulet_engine::accounts::{Bootstrap, plan_bootstrap, secret_context};
use cumulet_engine::environment::{
    Clock, CreatedKey, Environment, ImageObjects, ImportedKey, KeyForge, ObjectError, ObjectReader,
    Sealer,
};
use cumulet_engine::reconcile::Reconcilers;
use cumulet_engine::{Engine, EngineConfig, State};
use cumulet_store::{MemoryEngine, Store};
use cumulet_wire::query::{Params, encode};
use zeroize::Zeroizing;

use surroundings::{Counter, Records, StillClock};

/// 2026-01-02T03:04:05Z.
pub(crate) const NOW: Timestamp = Timestamp(1_767_323_045_000);
pub(crate) const HOST: &str = "cloud.example:8773";
pub(crate) const REQUEST_ID: &str = "291cef62-3e86-414b-900e-17246eccfae8";
const REGION: &str = "us-east-1";

pub(crate) struct Cloud {
    pub(crate) engine: Engine,
    pub(crate) door: Ec2Door,
    objects: Arc<Objects>,
    pub(crate) random: Arc<Counter>,
    is_disk_full: Arc<AtomicBool>,
    reconcilers: Reconcilers,
}

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

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) text: String,
    pub(crate) handled: Handled,
}

/// Keys are slow to make: one pair of certificates and one key for all tests of a file.
fn cloud_certificate() -> &'static Issued {
    static ISSUED: OnceLock<Issued> = OnceLock::new();
    ISSUED.get_or_init(|| issue("cloud", "Cumulet", NOW.0).expect("a certificate"))
}

fn user_certificate() -> &'static Issued {
    static ISSUED: OnceLock<Issued> = OnceLock::new();
    ISSUED.get_or_init(|| issue("user", "Cumulet", NOW.0).expect("a certificate"))
}

fn rsa_key() -> &'static RsaKey {
    static KEY: OnceLock<RsaKey> = OnceLock::new();
    KEY.get_or_init(|| generate_rsa().expect("a key"))
}

pub(crate) fn account(number: u32) -> AccountId {
    format!("00000000000{number}")
        .parse()
        .expect("an account number")
}

/// What differs from one test's cloud to another's.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Memory that guests may have.
    pub(crate) memory_mib: u64,
    pub(crate) instances_per_account: u32,
    /// Whether instances are to say that they are simulated, in their state reason.
    pub(crate) says_simulated: bool,
    /// Whether rules of security groups hold.
    pub(crate) carries_rules_out: bool,
    pub(crate) id_format: IdFormat,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            memory_mib: 1 << 24,
            instances_per_account: 1000,
            says_simulated: true,
            carries_rules_out: true,
            id_format: IdFormat::Long,
        }
    }
}

impl Cloud {
    pub(crate) async fn start() -> Self {
        Self::start_as(Setup::default()).await
    }

    pub(crate) async fn start_as(setup: Setup) -> Self {
        let is_disk_full = Arc::new(AtomicBool::new(false));
        let records = Records {
            kept: MemoryEngine::default(),
            is_disk_full: is_disk_full.clone(),
        };
        let store = Store::open(Box::new(records), State::default()).expect("store");
        let bootstrap = bootstrap();
        let plan = move |state: &State| Ok::<_, Error>(plan_bootstrap(state, &bootstrap));
        store.commit(plan).await.expect("bootstrap");
        let clock: Arc<dyn Clock> = Arc::new(StillClock);
        let objects = Arc::new(Objects::default());
        let random = Arc::new(Counter::default());
        let environment = Environment {
            clock,
            entropy: random.clone(),
            sealer: Arc::new(PlainSealer),
            forge: Arc::new(OneKey),
            objects: objects.clone(),
        };
        let config = EngineConfig {
            region: REGION.into(),
            zone: "us-east-1a".into(),
            instance_types: cumulet_domain::instance_types::default_table(),
            instances_per_account: setup.instances_per_account,
            image_bytes_max: 1 << 40,
            terminated_visible_ms: 3_600_000,
            shutdown_patience_ms: 100,
            reboot_patience_ms: 100,
            is_metadata_token_required: false,
            id_format: setup.id_format,
        };
        let mut host = cumulet_host::simulated::host(setup.memory_mib, Arc::new(|| NOW));
        host.profile.is_simulated = setup.says_simulated;
        host.profile.carries_rules_out = setup.carries_rules_out;
        let (engine, reconcilers) = Engine::start(store, host, environment, config);
        let product = engine.create_product(account(1), Some("774F4FF8".into()));
        product.await.expect("product");
        Self {
            door: Ec2Door::new(engine.clone()),
            engine,
            objects,
            random,
            is_disk_full,
            reconcilers,
        }
    }

    /// Whether the disk of the records takes nothing.
    pub(crate) fn fill_disk(&self, is_full: bool) {
        self.is_disk_full.store(is_full, Ordering::Relaxed);
    }

    /// Whether the object store fails.
    pub(crate) fn break_objects(&self, is_broken: bool) {
        self.objects.1.store(is_broken, Ordering::Relaxed);
    }

    /// The first user, of account 1.
    pub(crate) fn client(&self) -> Client {
        Client {
            door: self.door.clone(),
            account: account(1),
            key_id: "AKIDFIRST".into(),
            secret: "first secret".into(),
            by_soap: None,
        }
    }

    /// A user of another account.
    pub(crate) async fn stranger(&self) -> Client {
        let engine = &self.engine;
        let owner = account(2);
        engine
            .create_account("second".into(), Some(owner))
            .await
            .expect("account");
        engine
            .create_user(owner, "eve".into(), None)
            .await
            .expect("user");
        engine
            .create_access_key(
                owner,
                "eve".into(),
                "AKIDSECOND".into(),
                "second secret",
                BTreeSet::from([1, 2, 4]),
            )
            .await
            .expect("key");
        Client {
            door: self.door.clone(),
            account: owner,
            key_id: "AKIDSECOND".into(),
            secret: "second secret".into(),
            by_soap: None,
        }
    }

    /// The first user with a key that may sign as in 2006.
    pub(crate) async fn old_client(&self) -> Client {
        let versions = BTreeSet::from([0, 1, 2, 4]);
        let (owner, id) = (account(1), "AKIDOLD".to_owned());
        let key = self
            .engine
            .create_access_key(owner, "alice".into(), id, "old secret", versions);
        key.await.expect("key");
        Client {
            key_id: "AKIDOLD".into(),
            secret: "old secret".into(),
            ..self.client()
        }
    }

    /// A bundle of one part under `bucket/<name>.manifest.xml`.
    pub(crate) fn upload_bundle(&self, name: &str, product_codes: &[&str], is_damaged: bool) {
        self.upload_bundle_to("bucket", name, product_codes, is_damaged);
    }

    /// A bundle of one part under `<bucket>/<name>.manifest.xml`.
    pub(crate) fn upload_bundle_to(
        &self,
        bucket: &str,
        name: &str,
        product_codes: &[&str],
        is_damaged: bool,
    ) {
        let part = b"bytes of a part".to_vec();
        let sha1 = aws_lc_sha1(&part);
        let cloud = &cloud_certificate().certificate_pem;
        let user = user_certificate();
        let sealed = |pem: &str| manifest::encrypt_hex_text(&[7; 16], pem).expect("sealed");
        let draft = Draft {
            version: manifest::Version::V20071010,
            name: name.into(),
            user: account(1).to_string(),
            digest: [1; 20],
            size: 1 << 20,
            bundled_size: 15,
            ec2_encrypted_key: sealed(cloud),
            ec2_encrypted_iv: sealed(cloud),
            user_encrypted_key: sealed(&user.certificate_pem),
            user_encrypted_iv: sealed(&user.certificate_pem),
            parts: vec![Part {
                filename: format!("{name}.part.0"),
                sha1: if is_damaged { [0; 20] } else { sha1 },
            }],
            architecture: "x86_64".into(),
            kernel_id: None,
            ramdisk_id: None,
            block_device_mapping: vec![],
            product_codes: product_codes
                .iter()
                .map(|code| (*code).to_owned())
                .collect(),
        };
        let key = SigningKey::from_pem(&user.private_key_pem).expect("key");
        let text = manifest::write(&draft, &key).expect("manifest");
        let mut files = self.objects.0.lock().expect("not poisoned");
        files.insert(format!("{bucket}/{name}.manifest.xml"), text.into_bytes());
        files.insert(format!("{bucket}/{name}.part.0"), part);
    }

    pub(crate) async fn add_kernel(&self) -> KernelId {
        let id = KernelId::from_random(5);
        let kernel = self.engine.add_kernel(id, "6.1".into()).await;
        kernel.expect("kernel").id
    }

    /// Waits until the image's bytes are ready, or known to be damaged.
    pub(crate) async fn wait_for_image(&self, id: ImageId) {
        for _ in 0..3000 {
            let image = self.engine.snapshot().images.get(&id).cloned();
            let is_pending = matches!(
                image.map(|image| image.preparation.clone()),
                Some(Preparation::Pending { .. }) | None
            );
            if !is_pending {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{id} was never prepared");
    }

    pub(crate) async fn wait_for(&self, id: InstanceId, state: InstanceState) {
        for _ in 0..3000 {
            let snapshot = self.engine.snapshot();
            if snapshot.instances.get(&id).map(|it| it.state()) == Some(state) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{id} never became {state:?}");
    }

    pub(crate) async fn stop(self) {
        self.reconcilers.stop(Duration::from_secs(10)).await;
    }
}

fn aws_lc_sha1(bytes: &[u8]) -> [u8; 20] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    digest.as_ref().try_into().expect("20 bytes")
}

fn bootstrap() -> Bootstrap {
    let owner = account(1);
    let user = user_certificate();
    let cloud = cloud_certificate();
    let sealed = |context: &str, plain: &[u8]| PlainSealer.seal(context, plain).expect("sealed");
    Bootstrap {
        account: Account {
            id: owner,
            name: "first".into(),
            created: NOW,
            instance_limit: None,
            alias: None,
        },
        user: User {
            account: owner,
            name: "alice".into(),
            created: NOW,
            password_hash: None,
        },
        access_key: AccessKey {
            id: "AKIDFIRST".into(),
            account: owner,
            user: "alice".into(),
            created: NOW,
            sealed_secret: sealed(&secret_context("AKIDFIRST"), b"first secret"),
            signature_versions: BTreeSet::from([2, 4]),
        },
        certificate: Certificate {
            fingerprint: user.fingerprint.clone(),
            account: owner,
            user: "alice".into(),
            created: NOW,
            pem: user.certificate_pem.clone(),
        },
        identity: CloudIdentity {
            certificate_pem: cloud.certificate_pem.clone(),
            sealed_private_key: sealed("cloud-identity", &cloud.private_key_pkcs8),
            created: NOW,
        },
    }
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

impl Reply {
    /// The answer, which must be a good one.
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{}", self.text);
        self
    }

    /// The code of the error, which must be one of this status.
    pub(crate) fn code(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text);
        let code = self.value("Code").expect("an error document");
        assert_eq!(self.handled.code.as_ref(), Some(&code));
        code
    }

    /// Path below the root and text of every element, in order.
    pub(crate) fn elements(&self) -> Vec<(String, String)> {
        use quick_xml::events::Event;
        let mut reader = quick_xml::Reader::from_str(&self.text);
        let mut open: Vec<(String, String)> = vec![];
        let mut found = vec![];
        let path_of = |open: &[(String, String)], name: &str| {
            let mut parts: Vec<&str> = open.iter().skip(1).map(|(name, _)| name.as_str()).collect();
            parts.push(name);
            parts.join("/")
        };
        loop {
            match reader.read_event().expect("well-formed") {
                Event::Start(tag) => {
                    let name = String::from_utf8_lossy(tag.name().as_ref()).into_owned();
                    if !open.is_empty() {
                        found.push((path_of(&open, &name), String::new()));
                    }
                    open.push((name, String::new()));
                }
                Event::Empty(tag) => {
                    let name = String::from_utf8_lossy(tag.name().as_ref()).into_owned();
                    found.push((path_of(&open, &name), String::new()));
                }
                Event::Text(text) => {
                    if let Some((_, value)) = open.last_mut() {
                        value.push_str(&text.decode().expect("UTF-8"));
                    }
                }
                Event::End(_) => {
                    let (name, value) = open.pop().expect("open");
                    if !open.is_empty() {
                        let path = path_of(&open, &name);
                        if let Some(entry) = found
                            .iter_mut()
                            .rev()
                            .find(|(known, text)| *known == path && text.is_empty())
                        {
                            entry.1 = value;
                        }
                    }
                }
                Event::Eof => return found,
                _ => {}
            }
        }
    }

    pub(crate) fn paths(&self) -> BTreeSet<String> {
        self.elements().into_iter().map(|(path, _)| path).collect()
    }

    /// Texts of all elements of this name.
    pub(crate) fn values(&self, name: &str) -> Vec<String> {
        let is_named = |path: &str| path == name || path.ends_with(&format!("/{name}"));
        self.elements()
            .into_iter()
            .filter(|(path, _)| is_named(path))
            .map(|(_, text)| text)
            .collect()
    }

    pub(crate) fn value(&self, name: &str) -> Option<String> {
        self.values(name).into_iter().next()
    }
}

struct PlainSealer;

impl Sealer for PlainSealer {
    fn seal(&self, context: &str, plain: &[u8]) -> Result<Vec<u8>, String> {
        Ok([context.as_bytes(), plain].concat())
    }
    fn open(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
        let plain = sealed.strip_prefix(context.as_bytes());
        Ok(Zeroizing::new(plain.ok_or("sealed for another")?.to_vec()))
    }
}

/// Makes the same key each time.
struct OneKey;

impl KeyForge for OneKey {
    fn create(&self) -> Result<CreatedKey, String> {
        let key = rsa_key();
        Ok(CreatedKey {
            private_pem: key.pem.clone(),
            fingerprint: key.fingerprint.clone(),
            openssh: key.openssh.clone(),
        })
    }
    fn parse_public(&self, material: &[u8]) -> Result<ImportedKey, String> {
        let key = cumulet_auth::public_keys::parse(material)?;
        Ok(ImportedKey {
            fingerprint: key.fingerprint,
            openssh: key.openssh,
            key_type: key.key_type.into(),
        })
    }
}

#[derive(Default)]
struct Objects(std::sync::Mutex<BTreeMap<String, Vec<u8>>>, AtomicBool);

impl Objects {
    fn find(&self, bucket: &str, key: &str) -> Result<Vec<u8>, ObjectError> {
        if self.1.load(Ordering::Relaxed) {
            return Err(ObjectError::Failed("/srv/objects: an I/O error".into()));
        }
        let name = format!("{bucket}/{key}");
        let files = self.0.lock().expect("not poisoned");
        files.get(&name).cloned().ok_or(ObjectError::NotFound(name))
    }
}

#[async_trait]
impl ImageObjects for Objects {
    async fn read_small(
        &self,
        _caller: AccountId,
        bucket: &str,
        key: &str,
        _bytes_max: usize,
    ) -> Result<Vec<u8>, ObjectError> {
        self.find(bucket, key)
    }

    async fn has_buckets(&self, _owner: AccountId) -> Result<bool, ObjectError> {
        Ok(false)
    }

    fn open(&self, _: AccountId, bucket: &str, key: &str) -> Result<ObjectReader, ObjectError> {
        let bytes = self.find(bucket, key)?;
        let reader: Box<dyn Read + Send> = Box::new(std::io::Cursor::new(bytes));
        Ok(reader)
    }
}

/// Digest of nothing in particular, for records.
pub(crate) const A_DIGEST: Digest = Digest([7; 32]);
