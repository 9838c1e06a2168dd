//! Bundles that must not become instances: a wrong signature, another account's image, a tampered
//! part, a tampered manifest.

use std::fs;
use std::path::Path;

use cumulet_bundle::s3_client::Client;
use cumulet_testkit::Cloud;
use cumulet_testkit::cloud::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};
use cumulet_testkit::ec2::Ec2;
use zeroize::Zeroizing;

use crate::harness::{bundle, cloud, guest, instance_of, wait_for};

fn register(ec2: &Ec2, location: &str) -> Result<String, String> {
    let answer = ec2.call("RegisterImage", &[("ImageLocation", location)]);
    answer
        .map(|it| it.text("imageId"))
        .map_err(|it| it.code().to_owned())
}

fn run(ec2: &Ec2, image: &str) -> Result<String, String> {
    let parameters = [("ImageId", image), ("MinCount", "1"), ("MaxCount", "1")];
    let answer = ec2.call("RunInstances", &parameters);
    answer
        .map(|it| it.text("instancesSet/item/instanceId"))
        .map_err(|it| it.code().to_owned())
}

/// Writes a changed copy of the bundle into its own bucket and gives the manifest's location.
fn changed(cloud: &Cloud, manifest: &Path, bucket: &str, change: impl Fn(&Path)) -> String {
    let folder = cloud.scratch().join(bucket);
    fs::create_dir_all(&folder).expect("a folder");
    for entry in fs::read_dir(manifest.parent().expect("a folder"))
        .expect("readable")
        .flatten()
    {
        fs::copy(entry.path(), folder.join(entry.file_name())).expect("copied");
    }
    change(&folder);
    upload(cloud, &folder, bucket);
    format!("{bucket}/image.manifest.xml")
}

/// Uploads whatever is in the folder; the program's own command refuses what is damaged.
fn upload(cloud: &Cloud, folder: &Path, bucket: &str) {
    let secret = Zeroizing::new(SECRET_ACCESS_KEY.to_owned());
    let url = format!("http://{}", cloud.address());
    let client = Client::new(&url, ACCESS_KEY_ID, secret).expect("a client");
    client.ensure_bucket(bucket).expect("a bucket");
    for entry in fs::read_dir(folder).expect("readable").flatten() {
        let bytes = fs::read(entry.path()).expect("readable");
        let key = entry.file_name().to_string_lossy().into_owned();
        client
            .put(bucket, &key, &bytes, Some("aws-exec-read"))
            .expect("stored");
    }
}

fn edit(folder: &Path, from: &str, to: &str) {
    let path = folder.join("image.manifest.xml");
    let text = fs::read_to_string(&path).expect("a manifest");
    assert!(text.contains(from), "{from} in {text}");
    fs::write(path, text.replacen(from, to, 1)).expect("written");
}

#[test]
fn damaged_and_foreign_bundles_are_refused() {
    let cloud = cloud(&[]);
    let ec2 = cloud.ec2();
    let (manifest, location) = bundle(&cloud, &guest("mini"), "whole");
    let image = register(&ec2, &location).expect("the whole bundle registers");

    // A manifest that was changed no longer fits its signature.
    let tampered = changed(&cloud, &manifest, "tampered-manifest", |folder| {
        let path = folder.join("image.manifest.xml");
        let text = fs::read_to_string(&path).expect("a manifest");
        let size = text
            .split("<size>")
            .nth(1)
            .expect("a size")
            .split('<')
            .next()
            .expect("a size");
        edit(
            folder,
            &format!("<size>{size}<"),
            &format!("<size>1{size}<"),
        );
    });
    assert_eq!(register(&ec2, &tampered), Err("AuthFailure".to_owned()));

    // A signature of somebody else.
    let forged = changed(&cloud, &manifest, "wrong-signature", |folder| {
        let path = folder.join("image.manifest.xml");
        let text = fs::read_to_string(&path).expect("a manifest");
        let (head, tail) = text.split_once("<signature>").expect("a signature");
        let flipped = if tail.starts_with('0') { "1" } else { "0" };
        fs::write(path, format!("{head}<signature>{flipped}{}", &tail[1..])).expect("written");
    });
    assert_eq!(register(&ec2, &forged), Err("AuthFailure".to_owned()));

    // No XML at all.
    let broken = changed(&cloud, &manifest, "broken-manifest", |folder| {
        edit(folder, "</manifest>", "");
    });
    assert_eq!(register(&ec2, &broken), Err("InvalidManifest".to_owned()));

    // A part that was changed: it registers, as EC2 reads the parts later; the launch ends with
    // the reason, and nothing of the image is kept.
    let damaged = changed(&cloud, &manifest, "tampered-part", |folder| {
        let mut parts: Vec<_> = fs::read_dir(folder)
            .expect("readable")
            .flatten()
            .map(|it| it.path())
            .filter(|path| path.to_string_lossy().contains(".part."))
            .collect();
        parts.sort();
        let mut bytes = fs::read(&parts[0]).expect("a part");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        fs::write(&parts[0], bytes).expect("written");
    });
    let damaged = register(&ec2, &damaged).expect("its manifest is right");
    match run(&ec2, &damaged) {
        Ok(id) => {
            wait_for(&ec2, &id, "terminated");
            let answer = ec2
                .call("DescribeInstances", &[("InstanceId.1", &id)])
                .expect("DescribeInstances");
            let item = "reservationSet/item/instancesSet/item";
            let reason = answer.text(&format!("{item}/stateReason/message"));
            assert!(
                reason.contains("part") || reason.contains("bundle"),
                "{reason}"
            );
            assert!(
                instance_of(&ec2, &id)
                    .reason
                    .starts_with("Client.InvalidImage: "),
                "{:?}",
                instance_of(&ec2, &id)
            );
        }
        Err(code) => assert_eq!(code, "InvalidAMIID.Unavailable"),
    }

    // Another account may neither register this bundle nor run the image.
    cloud.run(&["account", "create", "other"]);
    cloud.run(&["user", "create", "stranger", "--account", "other"]);
    let key = cloud.run(&["--json", "key", "create", "stranger", "--account", "other"]);
    let key: serde_json::Value = serde_json::from_str(&key).expect("JSON");
    let text = |name: &str| {
        key[name]
            .as_str()
            .unwrap_or_else(|| panic!("{name} in {key}"))
            .to_owned()
    };
    let stranger = Ec2 {
        access_key_id: text("access_key_id"),
        secret: text("secret_access_key"),
        ..ec2.clone()
    };
    assert_eq!(
        register(&stranger, &location),
        Err("AuthFailure".to_owned())
    );
    assert_eq!(run(&stranger, &image), Err("AuthFailure".to_owned()));
    let seen = stranger
        .call("DescribeImages", &[])
        .expect("DescribeImages");
    assert!(seen.texts("imagesSet/item/imageId").is_empty(), "{seen:?}");

    // A request with a wrong secret.
    let liar = Ec2 {
        secret: "wrong".to_owned(),
        ..ec2
    };
    let refused = liar
        .call("DescribeImages", &[])
        .expect_err("a wrong signature");
    assert!(
        ["SignatureDoesNotMatch", "AuthFailure"].contains(&refused.code()),
        "{refused:?}"
    );
}
