//! The command line contract, on the real program: what scripts and users rely on.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use cumulet_testkit::cloud::{ACCESS_KEY_ID, ACCOUNT, Cloud, SECRET_ACCESS_KEY};
use cumulet_testkit::ec2::exchange;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cumulet");
const SIMULATED: &[(&str, &str)] = &[("CUMULET_COMPUTE", "simulated")];

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    let (status, _, body) = exchange(address, head.as_bytes(), b"").unwrap();
    (status, String::from_utf8(body).unwrap())
}

fn error_of(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_cloud_starts_answers_and_stops() {
    let mut cloud = Cloud::start(PROGRAM, SIMULATED);
    assert_eq!(get(cloud.address(), "/_cumulet/health").0, 200);
    assert_eq!(get(cloud.address(), "/_cumulet/other").0, 404);
    let mode = std::fs::metadata(cloud.data_directory())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    cloud.stop();
    // The control socket goes with the server; commands then open the directory themselves.
    assert!(!cloud.data_directory().join("control.sock").exists());
    assert!(cloud.run(&["account", "list"]).contains(ACCOUNT));
}

#[test]
fn env_gives_a_shell_what_clients_need_and_the_log_has_no_secret() {
    let cloud = Cloud::start(PROGRAM, SIMULATED);
    let text = cloud.run(&["env"]);
    for line in [
        format!("export AWS_ENDPOINT_URL=http://{}", cloud.address()),
        format!("export AWS_ACCESS_KEY_ID={ACCESS_KEY_ID}"),
        format!("export AWS_SECRET_ACCESS_KEY={SECRET_ACCESS_KEY}"),
        format!("export EC2_USER_ID={ACCOUNT}"),
        "export AWS_DEFAULT_REGION=us-east-1".to_owned(),
    ] {
        assert!(text.lines().any(|it| it == line), "{line} in {text}");
    }
    for name in [
        "EC2_URL",
        "EC2_PRIVATE_KEY",
        "EC2_CERT",
        "EC2_CLOUD_CERT",
        "S3_URL",
        "OS_AUTH_URL",
        "OS_USERNAME",
        "OS_PASSWORD",
        "OS_PROJECT_NAME",
        "AWS_REGION",
        "NO_PROXY",
    ] {
        assert!(
            text.contains(&format!("export {name}=")),
            "{name} in {text}"
        );
    }
    assert!(text.contains("unset ") && text.contains("AWS_SESSION_TOKEN"));
    let files: std::collections::BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("export EC2_")?.split_once('='))
        .collect();
    for (name, begin) in [
        ("CERT", "BEGIN CERTIFICATE"),
        ("CLOUD_CERT", "BEGIN CERTIFICATE"),
        ("PRIVATE_KEY", "BEGIN RSA PRIVATE KEY"),
    ] {
        assert!(
            std::fs::read_to_string(files[name])
                .unwrap()
                .contains(begin)
        );
    }
    assert!(!cloud.log_text().contains(SECRET_ACCESS_KEY));

    cloud.run(&["env", "--forget"]);
    assert!(error_of(&cloud.output(&["env"])).contains("no client files"));
}

#[test]
fn a_second_server_and_a_taken_port_are_refused_by_name() {
    let cloud = Cloud::start(PROGRAM, SIMULATED);
    let second = cloud.output(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(error_of(&second).contains("another cumulet server"));

    let other = Cloud::prepare(PROGRAM, SIMULATED);
    let taken = other.output(&["serve", "--listen", &cloud.address().to_string()]);
    assert_eq!(taken.status.code(), Some(1));
    assert!(error_of(&taken).contains(&cloud.address().to_string()));
}

#[test]
fn wrong_calls_exit_with_two_and_failures_with_one() {
    let cloud = Cloud::start(PROGRAM, SIMULATED);
    let code = |arguments: &[&str]| cloud.output(arguments).status.code();
    assert_eq!(code(&["nonsense"]), Some(2));
    assert_eq!(code(&["account", "create"]), Some(2));
    assert_eq!(code(&["account", "show", "nobody"]), Some(1));
    assert_eq!(code(&["quota", "set", "--instances", "many"]), Some(2));
    let mut misspelt = cloud.command(&["account", "list"]);
    let output = misspelt.env("CUMULET_LISTN", "x").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(error_of(&output).contains("CUMULET_LISTN"));
}

#[test]
fn operators_records_are_made_shown_and_deleted_with_and_without_a_server() {
    let mut cloud = Cloud::start(PROGRAM, SIMULATED);
    cloud.run(&["account", "create", "second", "--id", "000000000042"]);
    assert!(error_of(&cloud.output(&["user", "create", "eve"])).contains("--account"));
    cloud.run(&["user", "create", "eve", "--account", "second"]);
    let secret = cloud.scratch().join("secret");
    std::fs::write(&secret, "a-secret-of-eve\n").unwrap();
    let secret = secret.to_str().unwrap();
    let key = cloud.run(&[
        "key",
        "create",
        "eve",
        "--account",
        "second",
        "--signature-versions",
        "1,2,4",
        "--access-key-id",
        "EVESKEY",
        "--secret-access-key-file",
        secret,
        "--json",
    ]);
    assert!(key.contains("\"a-secret-of-eve\""), "{key}");
    assert!(
        !cloud
            .run(&["key", "show", "EVESKEY", "--json"])
            .contains("a-secret-of-eve")
    );

    let mut eve = cloud.ec2();
    eve.access_key_id = "EVESKEY".into();
    eve.secret = "a-secret-of-eve".into();
    eve.call("DescribeInstances", &[]).unwrap();
    eve.secret = "another".into();
    assert_eq!(
        eve.call("DescribeInstances", &[]).unwrap_err().code(),
        "AuthFailure"
    );

    let issued = cloud.run(&["certificate", "create", "eve", "--account", "second"]);
    assert!(issued.contains("BEGIN CERTIFICATE") && issued.contains("BEGIN RSA PRIVATE KEY"));
    cloud.run(&["quota", "set", "--account", "second", "--instances", "7"]);
    // One account has an alias, which is a word that means nothing else.
    cloud.run(&["account", "alias", "second", "amazon"]);
    let refused = cloud.output(&["account", "alias", "second", "self"]);
    assert!(error_of(&refused).contains("means something else"));
    cloud.stop();

    let shown = cloud.run(&["account", "show", "second", "--json"]);
    assert!(shown.contains("\"alias\": \"amazon\""), "{shown}");
    let shown = cloud.run(&["account", "alias", "second", "--json"]);
    assert!(shown.contains("\"alias\": null"), "{shown}");
    let quota = cloud.run(&["quota", "show", "--account", "000000000042"]);
    assert!(quota.contains('7'), "{quota}");
    assert_eq!(
        cloud
            .run(&["certificate", "list", "--account", "second"])
            .lines()
            .count(),
        2
    );
    cloud.run(&["user", "delete", "eve", "--account", "second"]);
    assert!(
        cloud
            .run(&["key", "list"])
            .lines()
            .all(|line| !line.contains("EVESKEY"))
    );
    cloud.run(&["account", "delete", "second"]);
    assert!(!cloud.run(&["account", "list"]).contains("000000000042"));
}

#[test]
fn products_are_sold_with_and_without_a_server() {
    let mut cloud = Cloud::start(PROGRAM, SIMULATED);
    let line_of = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.map(str::to_owned)
    };
    let made = cloud.run(&["product", "create", "--code", "774F4FF8"]);
    assert!(line_of(&made, "seller").unwrap().ends_with(ACCOUNT));
    cloud.run(&["account", "create", "second", "--id", "000000000042"]);
    // Whose it is must be said when there are several.
    assert!(error_of(&cloud.output(&["product", "create"])).contains("--account"));
    let drawn = cloud.run(&["product", "create", "--account", "second", "--json"]);
    let drawn: serde_json::Value = serde_json::from_str(&drawn).unwrap();
    let code = drawn["code"].as_str().unwrap().to_owned();
    assert_eq!((code.len(), &drawn["seller"]), (8, &"000000000042".into()));
    let taken = cloud.output(&["product", "create", "--code", &code, "--account", "second"]);
    assert!(error_of(&taken).contains(&code));
    let subscribed = ["774F4FF8", "--account", "second"];
    cloud.run(&[&["product", "subscribe"], &subscribed[..]].concat());
    cloud.run(&[&["product", "subscribe"], &subscribed[..]].concat());
    cloud.stop();

    let listed = cloud.run(&["product", "list"]);
    assert_eq!(listed.lines().count(), 3, "{listed}");
    let listed = cloud.run(&["product", "list", "--account", "second"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    let shown = cloud.run(&["product", "show", "774F4FF8"]);
    assert!(
        line_of(&shown, "subscribers")
            .unwrap()
            .ends_with("000000000042")
    );
    cloud.run(&[&["product", "unsubscribe"], &subscribed[..]].concat());
    let again = cloud.output(&[&["product", "unsubscribe"], &subscribed[..]].concat());
    assert!(error_of(&again).contains("not subscribed"));
    assert!(error_of(&cloud.output(&["product", "show", "774F4FF9"])).contains("774F4FF9"));
    assert_eq!(cloud.run(&["product", "usage", "--json"]).trim(), "[]");
    let wrong = cloud.output(&["product", "usage", "--from", "yesterday"]);
    assert!(error_of(&wrong).contains("yesterday"));
    assert!(error_of(&cloud.output(&["account", "delete", "second"])).contains("products"));
    cloud.run(&["product", "delete", &code]);
    cloud.run(&["account", "delete", "second"]);
}

#[test]
fn an_hour_of_a_product_is_printed_once_also_after_a_kill() {
    let mut cloud = Cloud::start(PROGRAM, SIMULATED);
    let file = cloud.scratch().join("image");
    std::fs::write(&file, vec![7; 100_000]).unwrap();
    cloud.run(&["image", "import", file.to_str().unwrap(), "--name", "paid"]);
    cloud.run(&["product", "create", "--code", "774F4FF8"]);
    let client = cloud.ec2();
    let images = client.call("DescribeImages", &[]).unwrap();
    let image = images.text("imagesSet/item/imageId");
    let code = [
        ("ImageId", image.as_str()),
        ("Attribute", "productCodes"),
        ("ProductCode.1", "774F4FF8"),
    ];
    client.call("ModifyImageAttribute", &code).unwrap();
    let run = [
        ("ImageId", image.as_str()),
        ("MinCount", "1"),
        ("MaxCount", "1"),
    ];
    let run = client.call("RunInstances", &run).unwrap();
    let id = run.text("instancesSet/item/instanceId");
    let hours = |cloud: &Cloud| {
        let printed = cloud.run(&["product", "usage", "--json"]);
        let rows: Vec<serde_json::Value> = serde_json::from_str(&printed).unwrap();
        let hour = |row: &serde_json::Value| {
            assert_eq!(
                (&row["account"], &row["seller"]),
                (&ACCOUNT.into(), &ACCOUNT.into())
            );
            (
                row["instance"].as_str().unwrap().to_owned(),
                row["hour"].clone(),
            )
        };
        rows.iter().map(hour).collect::<Vec<_>>()
    };
    let expected = vec![(id.clone(), serde_json::json!(0))];
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while hours(&cloud) != expected {
        assert!(std::time::Instant::now() < until, "{:?}", hours(&cloud));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    cloud.kill();
    assert_eq!(hours(&cloud), expected, "without a server");
    cloud.restart();
    let asked = [("InstanceId", id.as_str()), ("ProductCode", "774F4FF8")];
    let confirmed = cloud.ec2().call("ConfirmProductInstance", &asked).unwrap();
    assert_eq!(confirmed.text("ownerId"), ACCOUNT);
    let ended = [("InstanceId.1", id.as_str())];
    cloud.ec2().call("TerminateInstances", &ended).unwrap();
    assert_eq!(hours(&cloud), expected);
    let sum = cloud.run(&["product", "usage", "--sum", "--account", ACCOUNT]);
    assert!(sum.lines().nth(1).unwrap().contains("  1  "), "{sum}");
}

#[test]
fn settings_show_their_sources() {
    let cloud = Cloud::prepare(PROGRAM, SIMULATED);
    let file = cloud.scratch().join("settings.toml");
    std::fs::write(&file, "region = \"eu-test-1\"\n").unwrap();
    let shown = cloud.run(&["config", "show", "--config", file.to_str().unwrap()]);
    let line = |name: &str| {
        let found = shown.lines().find(|line| line.starts_with(name));
        found
            .unwrap_or_else(|| panic!("{name} in {shown}"))
            .to_owned()
    };
    assert!(line("region ").contains("eu-test-1") && line("region ").contains("file "));
    assert!(line("compute ").contains("variable CUMULET_COMPUTE"));
    assert!(line("limits.connections ").contains("default"));
    assert!(!shown.contains(SECRET_ACCESS_KEY));
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let mut cloud = Cloud::start(PROGRAM, SIMULATED);
    let image = cloud.scratch().join("image");
    std::fs::write(&image, vec![7; 100_000]).unwrap();
    cloud.run(&[
        "image",
        "import",
        image.to_str().unwrap(),
        "--name",
        "an-image",
    ]);
    let images = cloud.ec2().call("DescribeImages", &[]).unwrap();
    let image = images.text("imagesSet/item/imageId");
    let run = cloud
        .ec2()
        .call(
            "RunInstances",
            &[
                ("ImageId", &image),
                ("MinCount", "2"),
                ("MaxCount", "2"),
                ("ClientToken", "once"),
            ],
        )
        .unwrap();
    let before = run.texts("instancesSet/item/instanceId");
    assert_eq!(before.len(), 2);
    cloud.kill();
    cloud.restart();
    let described = cloud.ec2().call("DescribeInstances", &[]).unwrap();
    let after = described.texts("reservationSet/item/instancesSet/item/instanceId");
    assert_eq!(after, before);
    let again = cloud
        .ec2()
        .call(
            "RunInstances",
            &[
                ("ImageId", &image),
                ("MinCount", "2"),
                ("MaxCount", "2"),
                ("ClientToken", "once"),
            ],
        )
        .unwrap();
    assert_eq!(again.texts("instancesSet/item/instanceId"), before);
}

#[test]
fn doctor_uninstall_and_completions_work_without_a_server() {
    let cloud = Cloud::prepare(PROGRAM, SIMULATED);
    assert!(cloud.run(&["doctor"]).contains("data"));
    assert!(cloud.run(&["completions", "bash"]).contains("cumulet"));
    cloud.run(&["uninstall"]);
    cloud.run(&["uninstall", "--purge"]);
    let stranger = cloud.scratch().join("stranger");
    std::fs::create_dir(&stranger).unwrap();
    let refused = cloud.output(&[
        "uninstall",
        "--purge",
        "--data-dir",
        stranger.to_str().unwrap(),
    ]);
    assert!(error_of(&refused).contains("no cloud"));
    assert!(stranger.exists());
}

#[test]
fn odd_requests_are_refused_and_the_server_goes_on() {
    use std::io::Write;
    let cloud = Cloud::start(PROGRAM, SIMULATED);
    let address = cloud.address();
    let big = format!(
        "POST / HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: 2000000\r\nconnection: close\r\n\r\n"
    );
    let (status, _, _) =
        exchange(address, big.as_bytes(), &[]).unwrap_or((413, String::new(), vec![]));
    assert_eq!(status, 413);
    let mut garbage = std::net::TcpStream::connect(address).unwrap();
    garbage.write_all(b"\0\xff\r\n\r\n").unwrap();
    let headers = "x: y\r\n".repeat(20_000);
    let head = format!("GET / HTTP/1.1\r\nhost: {address}\r\n{headers}\r\n");
    // The answer may be lost when the server closes with our bytes unread.
    if let Ok((status, _, _)) = exchange(address, head.as_bytes(), b"") {
        assert_eq!(status, 431);
    }
    assert_eq!(get(address, "/_cumulet/health").0, 200);
    let (status, text) = get(address, "/v3/auth/tokens");
    assert!(status == 501 && text.contains("does not have openstack"));
    let (status, text) = get(address, "/doc/2007-03-01.ec2.wsdl");
    assert!(status == 200 && text.contains("AmazonEC2PortType"));
    let (status, text) = get(address, "/doc/1999-01-01/AmazonEC2.wsdl");
    assert!(status == 404 && text.contains("2007-03-01"), "{text}");
}
