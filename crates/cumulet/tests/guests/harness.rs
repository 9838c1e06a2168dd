//! Clouds with a kernel, guest images, bundles, consoles and ssh.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::time::Duration;

use cumulet_testkit::Cloud;
use cumulet_testkit::cloud::{ACCOUNT, wait_until};
use cumulet_testkit::ec2::Ec2;

/// A guest on an emulated processor of a loaded machine may take this long to get anywhere.
pub(crate) const GUEST_PATIENCE: Duration = Duration::from_secs(420);

/// The checkout.
pub(crate) fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("the checkout")
}

/// Where images and kernels are kept between runs.
fn cache() -> PathBuf {
    let set = std::env::var_os("GUESTS_CACHE").map(PathBuf::from);
    let cache = set.unwrap_or_else(|| root().join("target/guests"));
    std::fs::create_dir_all(&cache).expect("the cache");
    cache
}

/// Only one test prepares at a time.
static PREPARING: Mutex<()> = Mutex::new(());

/// The image that `guests_NAME` of `scripts/lib/guests.sh` makes, made when it is not there.
pub(crate) fn guest(name: &str) -> PathBuf {
    let _alone = PREPARING.lock().unwrap_or_else(|it| it.into_inner());
    let script = format!("set -euo pipefail; . scripts/lib/guests.sh; guests_{name}");
    let mut command = Command::new("bash");
    command
        .arg("-c")
        .arg(script)
        .current_dir(root())
        .env("GUESTS_CACHE", cache());
    let path = checked(&mut command);
    PathBuf::from(path.lines().last().expect("the path of the image"))
}

/// Kernel and ramdisk, made by `cumulet kernel build` when they are not there.
fn kernel() -> (PathBuf, PathBuf) {
    let _alone = PREPARING.lock().unwrap_or_else(|it| it.into_inner());
    let sources = root().join("crates/host/src/kernel");
    let mut script = Command::new("bash");
    script
        .arg("-c")
        .arg("cat \"$0\"/* | sha256sum | cut -c1-16")
        .arg(sources);
    let folder = cache().join(format!("kernel-{}", checked(&mut script).trim()));
    let files = |folder: &Path| (folder.join("vmlinuz"), folder.join("ramdisk"));
    if !folder.is_dir() {
        let cloud = Cloud::prepare(program(), &[("CUMULET_COMPUTE", "simulated")]);
        cloud.run(&["kernel", "build"]);
        let kernels = cloud.data_directory().join("kernels");
        let made = std::fs::read_dir(kernels)
            .expect("kernels")
            .next()
            .expect("a kernel");
        let (kernel, ramdisk) = files(&made.expect("a kernel").path());
        let new = folder.with_extension("new");
        let _ = std::fs::remove_dir_all(&new);
        std::fs::create_dir_all(&new).expect("a folder");
        let (kernel_kept, ramdisk_kept) = files(&new);
        std::fs::copy(kernel, kernel_kept).expect("the kernel is copied");
        std::fs::copy(ramdisk, ramdisk_kept).expect("the ramdisk is copied");
        std::fs::rename(new, &folder).expect("renamed");
    }
    files(&folder)
}

/// The program under test.
pub(crate) fn program() -> &'static str {
    env!("CARGO_BIN_EXE_cumulet")
}

/// A cloud that runs virtual machines and has a default kernel.
pub(crate) fn cloud(settings: &[(&str, &str)]) -> Cloud {
    let (kernel, ramdisk) = kernel();
    let mut all = vec![("CUMULET_COMPUTE", "qemu")];
    all.extend_from_slice(settings);
    let mut cloud = Cloud::prepare(program(), &all);
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    cloud.run(&[
        "kernel",
        "import",
        "--kernel",
        &text(&kernel),
        "--ramdisk",
        &text(&ramdisk),
    ]);
    cloud.restart();
    cloud
}

/// Runs a command to its end.
pub(crate) fn checked(command: &mut Command) -> String {
    let output = command.output().expect("the command starts");
    assert!(
        output.status.success(),
        "{command:?} failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What `cumulet env` tells a user's tools.
pub(crate) fn client_environment(cloud: &Cloud) -> Vec<(String, String)> {
    let text = cloud.run(&["env", "--json"]);
    let map: std::collections::BTreeMap<String, String> =
        serde_json::from_str(&text).expect("an object of texts");
    map.into_iter().collect()
}

/// Bundles an image, uploads it to a bucket and gives the manifest's location.
pub(crate) fn bundle(cloud: &Cloud, image: &Path, bucket: &str) -> (PathBuf, String) {
    let folder = cloud.scratch().join(bucket);
    let environment = client_environment(cloud);
    let value = |name: &str| {
        let found = environment.iter().find(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("{name} is set")).1.clone()
    };
    let image = image.to_str().expect("UTF-8");
    let out = folder.to_str().expect("UTF-8");
    let (key, certificate) = (value("EC2_PRIVATE_KEY"), value("EC2_CERT"));
    let mut command = cloud.command(&[
        "bundle",
        "image",
        "-i",
        image,
        "-k",
        &key,
        "-c",
        &certificate,
        "-u",
        ACCOUNT,
        "-p",
        "image",
        "-d",
        out,
    ]);
    checked(command.envs(environment.clone()));
    let manifest = folder.join("image.manifest.xml");
    let path = manifest.to_str().expect("UTF-8");
    let mut command = cloud.command(&["bundle", "upload", "-b", bucket, "-m", path]);
    checked(command.envs(environment));
    (manifest, format!("{bucket}/image.manifest.xml"))
}

/// Bundles, uploads and registers; gives the image's id.
pub(crate) fn register(cloud: &Cloud, image: &Path, bucket: &str) -> String {
    let (_, location) = bundle(cloud, image, bucket);
    let answer = cloud
        .ec2()
        .call("RegisterImage", &[("ImageLocation", &location)]);
    answer.expect("RegisterImage").text("imageId")
}

/// Waits until the console holds the text and gives the whole console.
pub(crate) fn console_with(ec2: &Ec2, instance: &str, text: &str) -> String {
    wait_until(
        &format!("{text} on the console of {instance}"),
        GUEST_PATIENCE,
        || {
            let console = console(ec2, instance);
            let state = instance_of(ec2, instance).state;
            assert!(
                state == "pending" || state == "running",
                "{instance} is {state}; its console: {console}"
            );
            console.contains(text).then_some(console)
        },
    )
}

/// The console as text.
pub(crate) fn console(ec2: &Ec2, instance: &str) -> String {
    let answer = ec2.call("GetConsoleOutput", &[("InstanceId", instance)]);
    let text = answer.expect("GetConsoleOutput").texts("output").join("");
    let bytes = cumulet_wire::base64::decode(&text, 1 << 20).expect("Base64");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What DescribeInstances says of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) id: String,
    pub(crate) state: String,
    pub(crate) address: String,
    pub(crate) reason: String,
}

/// All instances of the account.
pub(crate) fn instances(ec2: &Ec2) -> Vec<Described> {
    let answer = ec2
        .call("DescribeInstances", &[])
        .expect("DescribeInstances");
    let items = answer.at("reservationSet/item/instancesSet/item");
    let one = |path: &str, item: &cumulet_testkit::tree::Tree| item.texts(path).join("");
    items
        .into_iter()
        .map(|item| Described {
            id: item.text("instanceId"),
            state: item.text("instanceState/name"),
            address: one("privateIpAddress", item),
            reason: one("reason", item),
        })
        .collect()
}

/// One of them.
pub(crate) fn instance_of(ec2: &Ec2, id: &str) -> Described {
    let all = instances(ec2);
    let found = all.iter().find(|it| it.id == id);
    found
        .unwrap_or_else(|| panic!("{id} is not among {all:?}"))
        .clone()
}

/// Waits until the instance is in the state.
pub(crate) fn wait_for(ec2: &Ec2, id: &str, state: &str) -> Described {
    wait_until(&format!("{id} is {state}"), GUEST_PATIENCE, || {
        let found = instance_of(ec2, id);
        let is_over = found.state == "terminated" && state != "terminated";
        assert!(!is_over, "{id} ended: {}", found.reason);
        (found.state == state).then_some(found)
    })
}

/// Creates a key pair and writes its private half to a file.
pub(crate) fn key_pair(cloud: &Cloud, name: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let answer = cloud
        .ec2()
        .call("CreateKeyPair", &[("KeyName", name)])
        .expect("CreateKeyPair");
    let path = cloud.scratch().join(format!("{name}.pem"));
    std::fs::write(&path, answer.text("keyMaterial")).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("made private");
    path
}

/// Runs a command in a guest.
pub(crate) fn ssh(key: &Path, user: &str, address: &str, command: &str) -> Output {
    let mut ssh = Command::new("ssh");
    ssh.arg("-i").arg(key);
    for option in [
        "BatchMode=yes",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "LogLevel=ERROR",
        "ConnectTimeout=10",
        "IdentitiesOnly=yes",
    ] {
        ssh.arg("-o").arg(option);
    }
    ssh.arg(format!("{user}@{address}"))
        .arg(command)
        .output()
        .expect("ssh starts")
}

/// The same until it succeeds; gives its output.
pub(crate) fn ssh_until(key: &Path, user: &str, address: &str, command: &str) -> String {
    let what = format!("ssh {user}@{address} {command}");
    wait_until(&what, GUEST_PATIENCE, || {
        let output = ssh(key, user, address, command);
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    })
}

/// SHA-256 of nonce and instance id, as the guests compute it.
pub(crate) fn proof(nonce: &str, id: &str) -> String {
    let text = format!("{nonce}{id}");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    hex::encode(digest)
}
