//! The unmodified clients: each does complete bucket work, and takes an image from a bundle to a
//! terminated instance whose console proves that a guest of its own ran.

use std::path::PathBuf;
use std::process::Command;

use cumulet_testkit::cloud::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};

use crate::harness::{bundle, checked, client_environment, cloud, guest, instances, root};

/// The folder of the clients, made when it is not there.
fn clients() -> PathBuf {
    let script =
        ". scripts/lib/prepare.sh; . scripts/lib/clients.sh; make_clients >&2; echo \"$CLIENTS\"";
    let mut command = Command::new("bash");
    command
        .arg("-c")
        .arg(format!("set -euo pipefail; {script}"))
        .current_dir(root());
    PathBuf::from(checked(&mut command).trim())
}

fn run(script: &str, python: &str) {
    let python = clients().join(python);
    let cloud = cloud(&[]);
    // Only to have the bundle's files on the disk: the client uploads them itself.
    let (manifest, _) = bundle(&cloud, &guest("mini"), "made-by-the-program");
    let environment = client_environment(&cloud);
    let value = |name: &str| {
        let found = environment.iter().find(|(known, _)| known == name);
        &found.unwrap_or_else(|| panic!("{name} is set")).1
    };
    let mut client = Command::new(&python);
    client
        .arg(root().join("tests/clients").join(script))
        .env_remove("PYTHONPATH");
    client
        .env("CUMULET_TEST_HOST", cloud.address().ip().to_string())
        .env("CUMULET_TEST_PORT", cloud.address().port().to_string())
        .env("CUMULET_TEST_ACCESS_KEY", ACCESS_KEY_ID)
        .env("CUMULET_TEST_SECRET_KEY", SECRET_ACCESS_KEY)
        .env("CUMULET_TEST_CERTIFICATE", value("EC2_CERT"))
        .env("CUMULET_TEST_PRIVATE_KEY", value("EC2_PRIVATE_KEY"))
        .env("CUMULET_TEST_BUCKET", "a-bucket-of-the-client")
        .env("CUMULET_TEST_BUNDLE", manifest.parent().expect("a folder"))
        .env("CUMULET_TEST_PATIENCE", "420");
    checked(&mut client);
    let states: Vec<String> = instances(&cloud.ec2())
        .into_iter()
        .map(|it| it.state)
        .collect();
    assert!(!states.is_empty(), "{script} ran an instance");
    assert!(
        states.iter().all(|it| it == "terminated"),
        "{script} left {states:?}"
    );
}

#[test]
fn boto3() {
    run("client_boto3.py", "python3/bin/python");
}

#[test]
fn the_aws_command_line() {
    run("client_awscli.py", "python3/bin/python");
}

#[test]
fn boto_2_49() {
    run("client_boto2.py", "python3/bin/python");
}

#[test]
fn boto_2_20() {
    run("client_boto220.py", "python2/run");
}

#[test]
fn zeep_by_soap() {
    run("client_zeep.py", "python3/bin/python");
}
