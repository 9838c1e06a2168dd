//! A cloud is backed up while it runs, lost, and restored elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

use cumulet_testkit::cloud::{ACCOUNT, Cloud};
use cumulet_testkit::ec2::Ec2;
use serde_json::Value;

use crate::{PROGRAM, SIMULATED, key_pairs, refusal, s3};

/// Where nothing is started.
const QEMU: &[(&str, &str)] = &[("CUMULET_COMPUTE", "qemu")];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// A second account with a key of its own.
fn second_client(cloud: &Cloud) -> Ec2 {
    cloud.run(&["account", "create", "second", "--id", "210987654321"]);
    cloud.run(&["user", "create", "eve", "--account", "second"]);
    let key = cloud.run(&["--json", "key", "create", "eve", "--account", "second"]);
    let key = json(&key);
    let value = |name: &str| key[name].as_str().unwrap().to_owned();
    Ec2 {
        access_key_id: value("access_key_id"),
        secret: value("secret_access_key"),
        ..cloud.ec2()
    }
}

/// A cloud with something of everything, its backup and its key.
struct Lost {
    scratch: tempfile::TempDir,
    second: Ec2,
    images: Vec<String>,
    instances: Vec<String>,
    big: Vec<u8>,
}

impl Lost {
    fn backup(&self) -> PathBuf {
        self.scratch.path().join("backup")
    }

    fn key(&self) -> PathBuf {
        self.scratch.path().join("sealing.key")
    }
}

fn images(client: &Ec2) -> Vec<String> {
    let answer = client.call("DescribeImages", &[]).unwrap();
    answer.texts("imagesSet/item/imageId")
}

/// Makes a cloud, uses it, backs it up while clients write, and loses it.
fn lose_a_cloud() -> Lost {
    let scratch = tempfile::tempdir().unwrap();
    let mut cloud = Cloud::start(PROGRAM, SIMULATED);
    let first = cloud.ec2();
    let second = second_client(&cloud);
    let image = cloud.scratch().join("image");
    fs::write(&image, vec![7; 100_000]).unwrap();
    for (name, account) in [("one", ACCOUNT), ("two", "second")] {
        cloud.run(&[
            "image",
            "import",
            text(&image),
            "--name",
            name,
            "--account",
            account,
            "--public",
        ]);
    }
    let images = images(&first);
    assert_eq!(images.len(), 2);
    let big: Vec<u8> = (0..3_000_000_u32).map(|it| it.to_le_bytes()[1]).collect();
    assert_eq!(s3(&first, "PUT", "/bucket-one", b"").0, 200);
    assert_eq!(s3(&first, "PUT", "/bucket-one/a/b", &big).0, 200);
    assert_eq!(s3(&first, "PUT", "/bucket-one/empty", b"").0, 200);
    assert_eq!(s3(&second, "PUT", "/bucket-two", b"").0, 200);
    assert_eq!(s3(&second, "PUT", "/bucket-two/a", b"two").0, 200);
    second
        .call("CreateKeyPair", &[("KeyName", "pair")])
        .unwrap();
    let run = first.call(
        "RunInstances",
        &[
            ("ImageId", &images[0]),
            ("MinCount", "2"),
            ("MaxCount", "2"),
            ("UserData", "/w=="),
        ],
    );
    let instances = run.unwrap().texts("instancesSet/item/instanceId");

    let backup = scratch.path().join("backup");
    let said = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0..20 {
                let name = format!("written-{number}");
                first.call("CreateKeyPair", &[("KeyName", &name)]).unwrap();
                let path = format!("/bucket-one/written-{number}");
                assert_eq!(s3(&first, "PUT", &path, b"x").0, 200);
            }
        });
        let said = cloud.run(&["--json", "backup", text(&backup)]);
        writer.join().unwrap();
        json(&said)
    });
    assert!(said["files"].as_u64().unwrap() >= 2, "{said}");
    let key = said["sealing_key"].as_str().unwrap();
    assert!(key.contains("not in the backup"), "{key}");
    fs::copy(
        cloud.data_directory().join("sealing.key"),
        scratch.path().join("sealing.key"),
    )
    .unwrap();
    assert!(refusal(&cloud, &["backup", text(&backup)]).contains("not empty"));
    let inside = cloud.data_directory().join("backup");
    assert!(refusal(&cloud, &["backup", text(&inside)]).contains("data directory"));
    assert!(
        refusal(
            &cloud,
            &[
                "restore",
                text(&backup),
                "--sealing-key",
                text(&scratch.path().join("sealing.key"))
            ]
        )
        .contains("another cumulet server")
    );
    cloud.kill();
    fs::remove_dir_all(cloud.data_directory()).unwrap();
    Lost {
        scratch,
        second,
        images,
        instances,
        big,
    }
}

/// A copy of the backup whose file of lines is changed.
fn altered(lost: &Lost, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let to = lost.scratch.path().join(name);
    let done = std::process::Command::new("cp")
        .arg("-r")
        .args([lost.backup(), to.clone()])
        .status();
    assert!(done.unwrap().success());
    let lines = to.join("backup.jsonl");
    let mut bytes = fs::read(&lines).unwrap();
    change(&mut bytes);
    fs::write(&lines, bytes).unwrap();
    to
}

/// Nothing of these is restored, and nothing is left in the way.
fn refuse_what_cannot_be_trusted(lost: &Lost, cloud: &Cloud) {
    let key = lost.key();
    let said = |backup: &Path, key: &Path| {
        refusal(
            cloud,
            &["restore", text(backup), "--sealing-key", text(key)],
        )
    };
    let without = refusal(cloud, &["restore", text(&lost.backup())]);
    assert!(without.contains("--sealing-key"), "{without}");
    let other = lost.scratch.path().join("other.key");
    fs::write(&other, [9; 32]).unwrap();
    assert!(said(&lost.backup(), &other).contains("not the key of this backup"));
    let cut = altered(lost, "cut", |bytes| bytes.truncate(bytes.len() - 100));
    assert!(said(&cut, &key).contains("cut off"));
    let changed = altered(lost, "changed", |bytes| {
        let place = bytes.windows(6).position(|it| it == b"second").unwrap();
        bytes[place] = b'S';
    });
    assert!(said(&changed, &key).contains("altered"));
    let newer = altered(lost, "newer", |bytes| {
        let place = bytes.windows(3).position(|it| it == b"\":1").unwrap();
        bytes[place + 2] = b'2';
    });
    assert!(said(&newer, &key).contains("newer version"));
    assert!(said(lost.scratch.path(), &key).contains("no backup"));
    assert!(!cloud.data_directory().exists());

    // A damaged file beside the lines is noticed while it is copied; the rest then never starts.
    let damaged = altered(lost, "damaged", |_| {});
    // One that is not empty: another size would be noticed before.
    let body = fs::read_dir(damaged.join("objects"))
        .unwrap()
        .flat_map(|group| fs::read_dir(group.unwrap().path()).unwrap())
        .map(|body| body.unwrap().path())
        .find(|body| fs::metadata(body).unwrap().len() > 0)
        .unwrap();
    let mut bytes = fs::read(&body).unwrap();
    bytes[0] ^= 1;
    fs::write(&body, bytes).unwrap();
    assert!(said(&damaged, &key).contains("was altered or is damaged"));
    assert!(cloud.data_directory().exists());
    let refused = refusal(cloud, &["serve", "--listen", "127.0.0.1:0"]);
    assert!(refused.contains("did not finish"), "{refused}");
    assert!(said(&lost.backup(), &key).contains("not empty"));
    fs::remove_dir_all(cloud.data_directory()).unwrap();
}

#[test]
fn a_lost_cloud_is_restored_elsewhere() {
    let lost = lose_a_cloud();
    let mut cloud = Cloud::prepare(PROGRAM, SIMULATED);
    refuse_what_cannot_be_trusted(&lost, &cloud);
    let key = lost.key();
    let said = cloud.run(&[
        "--json",
        "restore",
        text(&lost.backup()),
        "--sealing-key",
        text(&key),
    ]);
    let said = json(&said);
    assert_eq!(said["accounts"], 2, "{said}");
    assert_eq!(said["instances_ended"].as_array().unwrap().len(), 2);
    assert_eq!(said["access_keys_dropped"].as_array().unwrap().len(), 0);

    cloud.restart();
    let first = cloud.ec2();
    let second = Ec2 {
        address: cloud.address(),
        ..lost.second.clone()
    };
    assert_eq!(key_pairs(&second), ["pair"]);
    assert_eq!(images(&first), lost.images);
    assert_eq!(
        s3(&first, "GET", "/bucket-one/a/b", b""),
        (200, lost.big.clone())
    );
    assert_eq!(s3(&first, "GET", "/bucket-one/empty", b""), (200, vec![]));
    assert_eq!(
        s3(&second, "GET", "/bucket-two/a", b""),
        (200, b"two".to_vec())
    );
    assert_eq!(s3(&second, "GET", "/bucket-one/a/b", b"").0, 403);
    // What was written meanwhile is there from the beginning up to one moment.
    let pairs = key_pairs(&first);
    let written: Vec<bool> = (0..20)
        .map(|number| pairs.contains(&format!("written-{number}")))
        .collect();
    assert!(written.is_sorted_by(|a, b| a >= b), "{written:?}");

    let described = first.call("DescribeInstances", &[]).unwrap();
    let of = |what: &str| described.texts(&format!("reservationSet/item/instancesSet/item/{what}"));
    assert_eq!(of("instanceId"), lost.instances);
    assert_eq!(of("instanceState/name"), ["terminated", "terminated"]);
    assert_eq!(
        of("stateReason/code"),
        ["Server.InternalError", "Server.InternalError"]
    );
    let launch = [
        ("ImageId", lost.images[0].as_str()),
        ("MinCount", "1"),
        ("MaxCount", "1"),
    ];
    first.call("RunInstances", &launch).unwrap();
    assert_eq!(s3(&second, "PUT", "/bucket-two/b", b"new").0, 200);
    assert_eq!(s3(&first, "DELETE", "/bucket-one/a/b", b"").0, 204);
    cloud.kill();
    cloud.restart();
    assert_eq!(
        s3(&second, "GET", "/bucket-two/b", b""),
        (200, b"new".to_vec())
    );
    assert_eq!(s3(&first, "GET", "/bucket-one/a/b", b"").0, 404);

    // Without the key, access keys go, and a first user is made as in a new cloud.
    let mut other = Cloud::prepare(PROGRAM, SIMULATED);
    let said = other.run(&[
        "--json",
        "restore",
        text(&lost.backup()),
        "--without-sealing-key",
    ]);
    assert_eq!(
        json(&said)["access_keys_dropped"].as_array().unwrap().len(),
        2
    );
    other.restart();
    assert_eq!(images(&other.ec2()), lost.images);
    let unknown = Ec2 {
        address: other.address(),
        ..lost.second.clone()
    };
    assert!(unknown.call("DescribeImages", &[]).is_err());
}

#[test]
fn a_backup_without_a_server_and_without_objects_keeps_the_cloud_id_when_told() {
    let scratch = tempfile::tempdir().unwrap();
    let mut cloud = Cloud::start(PROGRAM, SIMULATED);
    assert_eq!(s3(&cloud.ec2(), "PUT", "/bucket", b"").0, 200);
    let image = cloud.scratch().join("image");
    fs::write(&image, vec![7; 100_000]).unwrap();
    cloud.run(&["image", "import", text(&image), "--name", "simulated"]);
    cloud.stop();
    // What the settings say at the moment is not what the cloud is.
    cloud.set("CUMULET_COMPUTE", None);
    let backup = scratch.path().join("deep/backup");
    let said = cloud.run(&["--json", "backup", text(&backup), "--without-objects"]);
    assert_eq!(json(&said)["images_missing"], Value::Array(vec![]));
    let id = fs::read_to_string(cloud.data_directory().join("cloud-id")).unwrap();
    let key = cloud.data_directory().join("sealing.key");
    let restored = |arguments: &[&str]| {
        let mut all = vec!["restore", text(&backup), "--sealing-key", text(&key)];
        all.extend_from_slice(arguments);
        let other = Cloud::prepare(PROGRAM, SIMULATED);
        other.run(&all);
        let images = json(&other.run(&["--json", "image", "list"]));
        assert_eq!(images[0]["preparation"], "ready", "{images}");
        fs::read_to_string(other.data_directory().join("cloud-id")).unwrap()
    };
    assert_ne!(restored(&[]), id);
    assert_eq!(restored(&["--keep-cloud-id"]), id);
}

/// A restored cloud that is not started, and what was said.
fn restored(backup: &Path, key: &Path) -> (Cloud, Value) {
    let cloud = Cloud::prepare(PROGRAM, QEMU);
    let arguments = [
        "--json",
        "restore",
        text(backup),
        "--sealing-key",
        text(key),
    ];
    let said = json(&cloud.run(&arguments));
    (cloud, said)
}

fn first_image(cloud: &Cloud) -> Value {
    json(&cloud.run(&["--json", "image", "list"]))[0].clone()
}

#[test]
fn bytes_of_images_and_kernels_are_restored_or_called_lost() {
    let scratch = tempfile::tempdir().unwrap();
    let mut cloud = Cloud::prepare(PROGRAM, QEMU);
    let file = |name: &str| scratch.path().join(name);
    let (image, kernel, ramdisk) = (file("image"), file("kernel"), file("ramdisk"));
    let made = std::process::Command::new("/sbin/mke2fs")
        .args(["-q", "-t", "ext2", text(&image), "2M"])
        .stdout(std::process::Stdio::null())
        .status();
    assert!(made.unwrap().success());
    let mut head = vec![1; 5000];
    head[0x202..0x206].copy_from_slice(b"HdrS");
    fs::write(&kernel, head).unwrap();
    fs::write(&ramdisk, vec![2; 7000]).unwrap();
    // No server: the first makes the cloud.
    cloud.run(&["image", "import", text(&image), "--name", "real"]);
    let (kernel, ramdisk) = (["--kernel", text(&kernel)], ["--ramdisk", text(&ramdisk)]);
    let import = [["kernel", "import"], kernel, ramdisk].concat();
    cloud.run(&import);
    let image_id = first_image(&cloud)["id"].clone();
    let kernel_id = json(&cloud.run(&["--json", "kernel", "list"]))[0]["id"].clone();

    // Settings of another kind leave nothing out.
    cloud.set("CUMULET_COMPUTE", Some("simulated"));
    let (whole, bare, key) = (file("whole"), file("bare"), file("sealing.key"));
    let said = json(&cloud.run(&["--json", "backup", text(&whole)]));
    assert_eq!(said["files"], 3, "{said}");
    assert_eq!(said["images_missing"], Value::Array(vec![]));
    assert_eq!(said["kernels_missing"], Value::Array(vec![]));
    cloud.run(&["backup", text(&bare), "--without-images"]);
    // What was lost before is told, and keeps nothing else from being saved.
    let ramdisk = cloud
        .data_directory()
        .join("kernels")
        .join(kernel_id.as_str().unwrap())
        .join("ramdisk");
    fs::remove_file(&ramdisk).unwrap();
    let partial = file("partial");
    let said = json(&cloud.run(&["--json", "backup", text(&partial)]));
    assert_eq!(
        said["kernels_missing"],
        Value::Array(vec![kernel_id.clone()])
    );
    assert_eq!(said["files"], 1, "the image: {said}");
    fs::copy(cloud.data_directory().join("sealing.key"), &key).unwrap();
    cloud.run(&["uninstall", "--purge"]);
    assert!(!cloud.data_directory().exists());

    let (other, said) = restored(&whole, &key);
    for what in ["images_pending", "images_lost", "kernels_lost"] {
        assert_eq!(said[what], Value::Array(vec![]), "{what}");
    }
    assert_eq!(first_image(&other)["preparation"], "ready");
    let only_file = |directory: PathBuf| {
        let mut names = fs::read_dir(directory).unwrap();
        let name = names.next().unwrap().unwrap().path();
        assert!(names.next().is_none());
        fs::read(name).unwrap()
    };
    assert!(only_file(other.data_directory().join("images")) == fs::read(&image).unwrap());
    let kernels = other
        .data_directory()
        .join("kernels")
        .join(kernel_id.as_str().unwrap());
    for (name, given) in [("vmlinuz", "kernel"), ("ramdisk", "ramdisk")] {
        assert!(fs::read(kernels.join(name)).unwrap() == fs::read(file(given)).unwrap());
    }

    let (_, said) = restored(&partial, &key);
    assert_eq!(said["images_lost"], Value::Array(vec![]));
    assert_eq!(said["kernels_lost"], Value::Array(vec![kernel_id.clone()]));

    let (other, said) = restored(&bare, &key);
    assert_eq!(said["images_lost"], Value::Array(vec![image_id]));
    assert_eq!(said["kernels_lost"], Value::Array(vec![kernel_id]));
    let shown = first_image(&other);
    assert_eq!(shown["preparation"], "failed", "{shown}");
    let reason = shown["reason"].as_str().unwrap();
    assert!(reason.contains("without the bytes"), "{reason}");
}

#[test]
fn bundled_images_are_made_again_only_when_their_objects_are_there() {
    let scratch = tempfile::tempdir().unwrap();
    let cloud = crate::formats::old_cloud();
    // It had a machine: some image has bytes.
    let images = cloud.data_directory().join("images");
    fs::create_dir_all(&images).unwrap();
    fs::write(images.join("0".repeat(64)), b"bytes").unwrap();
    let key = cloud.data_directory().join("sealing.key");
    let outcome = |name: &str, more: &[&str]| {
        let backup = scratch.path().join(name);
        let arguments = ["backup", text(&backup), "--without-images"];
        cloud.run(&[&arguments, more].concat());
        let (_, said) = restored(&backup, &key);
        let count = |what: &str| said[what].as_array().unwrap().len();
        (count("images_pending"), count("images_lost"))
    };
    assert_eq!(outcome("whole", &[]), (2, 0));
    assert_eq!(outcome("bare", &["--without-objects"]), (0, 2));
}
