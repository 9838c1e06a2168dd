//! Images and the bundles that they are registered from.

use cumulet_bundle::manifest::{self, Draft, Part};
use cumulet_bundle::sign::SigningKey;
use cumulet_domain::images::BootKind;
use cumulet_domain::{AccountId, Digest, ImageId};
use cumulet_engine::images::StoredBytes;

use super::identities::{cloud_certificate, user_certificate};
use super::{Client, Cloud, Reply, account};

/// Digest of nothing in particular, for records.
pub(crate) const A_DIGEST: Digest = Digest([7; 32]);

impl Cloud {
    /// An image that can be launched at once.
    pub(crate) async fn image(&self, owner: AccountId, name: &str, is_public: bool) -> ImageId {
        let stored = StoredBytes {
            digest: A_DIGEST,
            size_bytes: 1 << 20,
            kind: BootKind::Disk,
        };
        let image = self
            .engine
            .add_stored_image(owner, name.into(), is_public, stored);
        image.await.expect("an image").id
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
        let mut files = self.objects.files.lock().expect("not poisoned");
        files.insert(format!("{bucket}/{name}.manifest.xml"), text.into_bytes());
        files.insert(format!("{bucket}/{name}.part.0"), part);
    }
}

impl Client {
    /// ModifyImageAttribute with these parameters beside the image's id.
    pub(crate) async fn modify_image(
        &self,
        version: &str,
        id: &str,
        rest: &[(&str, &str)],
    ) -> Reply {
        let all = [&[("ImageId", id)], rest].concat();
        self.ask("ModifyImageAttribute", version, &all).await
    }
}

fn aws_lc_sha1(bytes: &[u8]) -> [u8; 20] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    digest.as_ref().try_into().expect("20 bytes")
}
