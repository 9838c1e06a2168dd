//! Unmodified clients, from today's boto3 to boto 2.20 of 2013, Apache Libcloud and zeep for SOAP, do the main job on the real program.
//!
//! The scripts are in `tests/clients` (`s3_…` ask the object store only, and `soap_…` every version of the SOAP binding); `scripts/test-clients` makes the clients
//! (the first time with pip and apt) and runs one of them.  Here the cloud is
//! simulated and the console must say so; `guests/clients.rs` does the same with
//! real guests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use cumulet_testkit::cloud::{ACCESS_KEY_ID, ACCOUNT, Cloud, SECRET_ACCESS_KEY};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cumulet");
const CLIENTS: [&str; 9] = [
    "client_boto3",
    "client_awscli",
    "client_boto2",
    "client_boto220",
    "client_libcloud",
    "client_zeep",
    // Each version of the SOAP binding, each operation of it.
    "soap_zeep",
    // These know the object store only, and it in depth.
    "s3_boto3",
    "s3_boto2",
];
const OTHER_ACCESS_KEY_ID: &str = "AKIAIOSFODNN7OTHERS";
const OTHER_SECRET_ACCESS_KEY: &str = "other/Secret+Access/Key/Of/40/Characters";
/// What the first account sells.
const PRODUCT: &str = "774F4FF8";

fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("crates/cumulet").to_owned()
}

/// Runs a command in the repository; gives its standard output.
fn run(command: &mut Command) -> String {
    let output = command
        .current_dir(repository())
        .output()
        .expect("it starts");
    assert!(
        output.status.success(),
        "{command:?} failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Bundles the image with the first user's key; gives the folder of the bundle.
fn bundle(cloud: &Cloud, image: &Path) -> PathBuf {
    let folder = cloud.scratch().join("bundle");
    std::fs::create_dir_all(&folder).expect("a folder");
    let script = r#"eval "$("$1" env)" && "$1" bundle image -i "$2" -d "$3" -p image"#;
    let mut command = Command::new("bash");
    command
        .args(["-euc", script, "bundle", PROGRAM])
        .args([image, &folder])
        .env("CUMULET_DATA_DIR", cloud.data_directory());
    run(&mut command);
    folder
}

/// The first user's certificate and its key, as files.
fn certificate(cloud: &Cloud) -> [String; 2] {
    let text = cloud.run(&["env", "--json"]);
    let variables: BTreeMap<String, String> = serde_json::from_str(&text).expect("an object");
    ["EC2_CERT", "EC2_PRIVATE_KEY"].map(|name| variables[name].clone())
}

/// A user of another account, whom nothing of the first one's belongs to.
fn add_other_account(cloud: &Cloud) {
    let secret = cloud.scratch().join("secret");
    std::fs::write(&secret, OTHER_SECRET_ACCESS_KEY).expect("a file");
    let secret = secret.to_str().expect("UTF-8");
    cloud.run(&["account", "create", "other"]);
    cloud.run(&["user", "create", "other", "--account", "other"]);
    let create = ["key", "create", "other", "--account", "other"];
    let id = ["--access-key-id", OTHER_ACCESS_KEY_ID];
    let key = ["--secret-access-key-file", secret];
    cloud.run(&[&create[..], &id, &key].concat());
}

fn run_clients(cloud: &Cloud, bundle: &Path) {
    // Once, before they all want it.
    run(&mut Command::new("scripts/test-clients"));
    let [certificate, private_key] = &certificate(cloud);
    std::thread::scope(|scope| {
        for client in CLIENTS {
            scope.spawn(move || {
                let mut command = Command::new("scripts/test-clients");
                command
                    .arg(client)
                    .env("CUMULET_TEST_HOST", cloud.address().ip().to_string())
                    .env("CUMULET_TEST_PORT", cloud.address().port().to_string())
                    .env("CUMULET_TEST_ACCESS_KEY", ACCESS_KEY_ID)
                    .env("CUMULET_TEST_SECRET_KEY", SECRET_ACCESS_KEY)
                    .env("CUMULET_TEST_OTHER_ACCESS_KEY", OTHER_ACCESS_KEY_ID)
                    .env("CUMULET_TEST_OTHER_SECRET_KEY", OTHER_SECRET_ACCESS_KEY)
                    .env("CUMULET_TEST_CERTIFICATE", certificate)
                    .env("CUMULET_TEST_PRIVATE_KEY", private_key)
                    .env("CUMULET_TEST_PRODUCT", PRODUCT)
                    .env("CUMULET_TEST_BUCKET", client.replace('_', "-"))
                    .env("CUMULET_TEST_BUNDLE", bundle)
                    .env("CUMULET_TEST_GUEST", "simulated")
                    .env("CUMULET_TEST_PATIENCE", "600");
                run(&mut command);
            });
        }
    });
}

#[test]
fn clients_work_on_a_simulated_cloud() {
    // Room for all that the clients launch at the same time, whatever the machine has.
    let settings = [
        ("CUMULET_COMPUTE", "simulated"),
        ("CUMULET_INSTANCES_MEMORY_MIB", "65536"),
        ("CUMULET_LIMITS_INSTANCES_PER_ACCOUNT", "100"),
    ];
    let cloud = Cloud::start(PROGRAM, &settings);
    let image = cloud.scratch().join("image");
    let file = std::fs::File::create(&image).expect("a file");
    file.set_len(24 * 1024 * 1024).expect("room");
    let bundle = bundle(&cloud, &image);
    add_other_account(&cloud);
    cloud.run(&["product", "create", "--account", ACCOUNT, "--code", PRODUCT]);
    run_clients(&cloud, &bundle);
}
