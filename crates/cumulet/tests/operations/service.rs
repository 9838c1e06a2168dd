//! The server under a service manager, as far as that goes without one: told to end and started
//! again, with an empty environment, and with a log whose reader goes away.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use cumulet_testkit::cloud::{Cloud, wait_until};
use cumulet_testkit::ec2::Ec2;

use crate::{PROGRAM, SIMULATED, key_pairs};

/// A server with pipes for its output and nothing in its environment, as a service manager starts
/// it; the cloud has made the first records.
fn start(cloud: &Cloud) -> (Child, Ec2) {
    let mut command = Command::new(PROGRAM);
    command
        .args(["serve", "--compute", "simulated", "--listen", "127.0.0.1:0"])
        .arg("--data-dir")
        .arg(cloud.data_directory())
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut server = command.spawn().unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(server.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("ready http://");
    let client = Ec2 {
        address: address.unwrap_or_else(|| panic!("{line}")).parse().unwrap(),
        ..cloud.ec2()
    };
    (server, client)
}

fn tell(name: &str, server: &mut Child) {
    let mut kill = Command::new("kill");
    kill.arg(name).arg(server.id().to_string());
    assert!(kill.status().unwrap().success());
}

#[test]
fn a_service_is_stopped_started_and_killed_and_its_log_may_break() {
    let mut cloud = Cloud::start(PROGRAM, SIMULATED);
    cloud.stop();
    for (round, signal) in ["-TERM", "-KILL", "-INT", "-TERM"].into_iter().enumerate() {
        let (mut server, client) = start(&cloud);
        let name = format!("round-{round}");
        client.call("CreateKeyPair", &[("KeyName", &name)]).unwrap();
        // The log's reader goes away, as when its service is started again.
        drop(server.stderr.take());
        for _ in 0..3 {
            assert_eq!(key_pairs(&client).len(), round + 1);
        }
        tell(signal, &mut server);
        let status = wait_until("it ends", std::time::Duration::from_secs(60), || {
            server.try_wait().unwrap()
        });
        assert_eq!(status.success(), signal != "-KILL", "{signal}: {status}");
    }
}
