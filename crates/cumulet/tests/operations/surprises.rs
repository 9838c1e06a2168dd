//! What a careful operator stumbles over: directories that are not free, servers that do not run
//! or only just start, keys that are gone, settings that have no effect.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use cumulet_testkit::cloud::{ACCESS_KEY_ID, Cloud, SECRET_ACCESS_KEY, wait_until};
use serde_json::Value;

use crate::{PROGRAM, SIMULATED, refusal};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", said(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Names in a directory.
fn names(path: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    entries.map(|it| name(it.unwrap())).collect()
}

#[test]
fn env_says_what_will_not_work_and_a_shell_still_reads_it() {
    let mut cloud = Cloud::start(PROGRAM, SIMULATED);
    assert_eq!(said(&cloud.output(&["env"])), "");
    let text = cloud.run(&["env"]);
    let note = text.lines().position(|line| line.starts_with("# The OS_"));
    let first = text.lines().position(|line| line.starts_with("export OS_"));
    assert!(note.is_some() && note.map(|it| it + 1) == first, "{text}");

    cloud.run(&["key", "delete", ACCESS_KEY_ID]);
    let deleted = said(&cloud.output(&["env"]));
    assert!(
        deleted.contains(ACCESS_KEY_ID) && deleted.contains("was deleted"),
        "{deleted}"
    );
    cloud.stop();
    let alone = cloud.output(&["env"]);
    assert!(said(&alone).contains("no server runs"), "{}", said(&alone));
    assert!(said(&alone).contains("was deleted"));
    assert!(!said(&alone).contains(SECRET_ACCESS_KEY));

    let mut shell = cloud.command(&[]);
    let script = format!("set -e; eval \"$({PROGRAM} env)\"; echo \"$OS_USERNAME $EC2_USER_ID\"");
    let mut sh = Command::new("sh");
    sh.arg("-c").arg(script);
    sh.envs(
        shell
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let read = sh.output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&read.stdout),
        "admin 123456789012\n"
    );
    shell.args(["--json", "env"]);
    assert!(json(&shell.output().unwrap())["AWS_ENDPOINT_URL"].is_string());
}

#[test]
fn without_a_server_what_the_records_said_last_is_called_so() {
    let mut cloud = Cloud::start(PROGRAM, SIMULATED);
    let image = cloud.scratch().join("image");
    fs::write(&image, vec![7; 100_000]).unwrap();
    cloud.run(&["image", "import", image.to_str().unwrap(), "--name", "one"]);
    let client = cloud.ec2();
    let images = client.call("DescribeImages", &[]).unwrap();
    let id = images.text("imagesSet/item/imageId");
    let launch = [
        ("ImageId", id.as_str()),
        ("MinCount", "1"),
        ("MaxCount", "1"),
    ];
    client.call("RunInstances", &launch).unwrap();

    let live = json(&cloud.output(&["--json", "status"]));
    assert_eq!(live["server"], "running");
    assert_eq!(live["compute"], "simulated");
    let rows = json(&cloud.output(&["--json", "instance", "list"]));
    assert_eq!(rows[0]["server"], "running");
    assert_eq!(said(&cloud.output(&["instance", "list"])), "");
    cloud.stop();

    let recorded = json(&cloud.output(&["--json", "status"]));
    assert_eq!(recorded["server"], "stopped");
    assert_eq!(recorded["instances_live"], 1);
    assert_eq!(recorded["memory_mib"], live["memory_mib"]);
    assert_eq!(recorded["orphans"], Value::Null);
    assert!(cloud.run(&["status"]).contains("said last"));
    let list = cloud.output(&["instance", "list"]);
    assert!(said(&list).contains("no server runs"), "{}", said(&list));
    let rows = json(&cloud.output(&["--json", "instance", "list"]));
    assert_eq!(rows[0]["server"], "stopped");
}

#[test]
fn a_command_waits_for_a_server_that_starts() {
    let cloud = Cloud::prepare(PROGRAM, SIMULATED);
    for _ in 0..3 {
        let mut serve = cloud.command(&["serve", "--listen", "127.0.0.1:0"]);
        serve.stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = serve.spawn().unwrap();
        let lock = cloud.data_directory().join("lock");
        let process = server.id().to_string();
        wait_until("a server takes the lock", Duration::from_secs(60), || {
            fs::read_to_string(&lock)
                .ok()?
                .starts_with(&process)
                .then_some(())
        });
        let listed = cloud.output(&["account", "list"]);
        let refused = cloud.output(&["uninstall"]);
        server.kill().unwrap();
        server.wait().unwrap();
        assert!(listed.status.success(), "{}", said(&listed));
        assert_eq!(refused.status.code(), Some(1));
        assert!(
            said(&refused).contains("stop it first"),
            "{}",
            said(&refused)
        );
        assert!(said(&refused).contains(&format!("process {process}")));
        assert!(!said(&refused).contains("--data-dir"));
    }
}

#[test]
fn a_directory_is_free_or_a_clouds_or_refused_by_name() {
    let mut cloud = Cloud::prepare(PROGRAM, SIMULATED);
    let directory = cloud.data_directory();
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("thesis.tex"), "").unwrap();
    for mode in [0o700, 0o755] {
        fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
        for arguments in [
            &["serve", "--listen", "127.0.0.1:0"][..],
            &["account", "create", "two"],
            &["kernel", "build"],
        ] {
            let refused = refusal(&cloud, arguments);
            assert!(refused.contains("thesis.tex"), "{refused}");
        }
        // It says what `serve` would say.
        let doctor = cloud.output(&["doctor"]);
        let found = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert_eq!(doctor.status.code(), Some(1), "{found}");
        assert!(
            found.contains("missing  data") && found.contains("thesis.tex"),
            "{found}"
        );
        assert_eq!(names(&directory), ["thesis.tex"]);
    }
    fs::remove_file(directory.join("thesis.tex")).unwrap();
    // As a file system that was just made is mounted.
    fs::create_dir(directory.join("lost+found")).unwrap();
    cloud.restart();
    cloud.stop();
    let purged = cloud.run(&["uninstall", "--purge"]);
    assert!(purged.contains("everything in"), "{purged}");
    assert_eq!(names(&directory), ["lost+found"]);
    fs::remove_dir_all(&directory).unwrap();
}

/// Variables, address, and what the refusal names.
type Refused<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);

#[test]
fn a_start_that_fails_leaves_no_cloud_where_none_was() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let cloud = Cloud::prepare(PROGRAM, SIMULATED);
    let directory = cloud.data_directory();
    let start = |variables: &[(&str, &str)], listen: &str| {
        let mut serve = cloud.command(&["serve", "--listen", listen]);
        serve.envs(variables.iter().copied());
        let refused = serve.output().unwrap();
        assert!(!refused.status.success());
        said(&refused)
    };
    let cases: &[Refused<'_>] = &[
        (&[], &taken, &taken),
        (&[("CUMULET_METRICS_LISTEN", &taken)], "127.0.0.1:0", &taken),
        (
            &[
                ("CUMULET_COMPUTE", "qemu"),
                ("CUMULET_NETWORK_GUEST_RANGE", "ten"),
            ],
            "127.0.0.1:0",
            "network.guest_range",
        ),
        // Unsuitable only where the network is planned, when the directory is made already.
        (
            &[
                ("CUMULET_COMPUTE", "qemu"),
                ("CUMULET_NETWORK_GUEST_RANGE", "192.0.2.0/24"),
            ],
            "127.0.0.1:0",
            "is not private",
        ),
    ];
    for (variables, listen, named) in cases {
        let refused = start(variables, listen);
        assert!(refused.contains(named), "{refused}");
        assert!(!directory.exists(), "{named}: {:?}", names(&directory));
    }
    // One that was there is as it was, and stays.
    fs::create_dir(&directory).unwrap();
    for (variables, listen, _) in cases {
        start(variables, listen);
        assert_eq!(names(&directory), [""; 0]);
    }
    fs::remove_dir(&directory).unwrap();
}

#[test]
fn settings_of_a_first_start_that_have_no_effect_are_named() {
    let mut cloud = Cloud::start(PROGRAM, SIMULATED);
    cloud.stop();
    cloud.restart();
    assert!(!cloud.log_text().contains("bootstrap."));
    cloud.stop();
    let mut serve = cloud.command(&["serve", "--listen", "127.0.0.1:0"]);
    serve.env("CUMULET_BOOTSTRAP_ACCOUNT_ID", "000000000077");
    serve.env("CUMULET_BOOTSTRAP_SECRET_ACCESS_KEY", "not-that-one");
    let log = cloud.scratch().join("other.log");
    serve
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).unwrap());
    let mut server = serve.spawn().unwrap();
    let text = wait_until("the server is ready", Duration::from_secs(60), || {
        let text = fs::read_to_string(&log).ok()?;
        text.contains("ready").then_some(text)
    });
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(text.contains("has no account 000000000077"), "{text}");
    assert!(text.contains("has another secret") && !text.contains("not-that-one"));
}

#[test]
fn small_commands_say_what_they_did() {
    let cloud = Cloud::prepare(PROGRAM, SIMULATED);
    let nothing = cloud.run(&["uninstall"]);
    assert!(nothing.contains("there is no cloud in"), "{nothing}");
    let nothing = json(&cloud.output(&["uninstall", "--json"]));
    assert_eq!(nothing["removed"], Value::Array(vec![]));

    cloud.run(&["account", "create", "two"]);
    let image = cloud.scratch().join("image");
    fs::write(&image, vec![7; 10_000]).unwrap();
    let variables = json(&cloud.output(&["env", "--json"]));
    let client = |arguments: &[&str]| {
        let mut command = cloud.command(arguments);
        for (name, value) in variables.as_object().unwrap() {
            command.env(name, value.as_str().unwrap());
        }
        // One that is empty is one that is not set.
        command
            .env("S3_URL", "")
            .env("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
        command.output().unwrap()
    };
    let scratch = cloud.scratch().to_str().unwrap();
    let image = image.to_str().unwrap();
    let made = json(&client(&[
        "bundle", "image", "--json", "-i", image, "-d", scratch,
    ]));
    let manifest = made["manifest"].as_str().unwrap();
    assert!(fs::metadata(manifest).is_ok() && made["location"].is_null());
    let unreachable = client(&["bundle", "upload", "-m", manifest, "-b", "bucket"]);
    assert_eq!(unreachable.status.code(), Some(1));
    assert!(
        said(&unreachable).contains("127.0.0.1:1"),
        "{}",
        said(&unreachable)
    );
}

#[test]
fn an_operator_ends_instances_and_images_of_any_account() {
    let mut cloud = Cloud::start(PROGRAM, SIMULATED);
    let image = cloud.scratch().join("image");
    fs::write(&image, vec![7; 100_000]).unwrap();
    cloud.run(&["image", "import", image.to_str().unwrap(), "--name", "one"]);
    let client = cloud.ec2();
    let id = json(&cloud.output(&["--json", "image", "list"]))[0]["id"].clone();
    let id = id.as_str().unwrap();
    let launch = [("ImageId", id), ("MinCount", "2"), ("MaxCount", "2")];
    let launched = client.call("RunInstances", &launch).unwrap();
    let ids = launched.texts("instancesSet/item/instanceId");

    let unknown = refusal(&cloud, &["instance", "terminate", &ids[0], "i-00000000"]);
    assert!(unknown.contains("i-00000000"), "{unknown}");
    let malformed = cloud.output(&["instance", "terminate", "i-x"]);
    assert_eq!(malformed.status.code(), Some(2));
    let states = |cloud: &Cloud| {
        let rows = json(&cloud.output(&["--json", "instance", "list"]));
        let of = |row: &Value| (row["state"].to_string(), row["reason"].to_string());
        rows.as_array().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    assert!(
        states(&cloud)
            .iter()
            .all(|(state, _)| !state.contains("terminated"))
    );
    let ended = json(&cloud.output(&["--json", "instance", "terminate", &ids[0]]));
    assert_eq!(ended[0]["id"], ids[0].as_str());
    wait_until("one has ended", Duration::from_secs(60), || {
        let ended = states(&cloud)
            .into_iter()
            .filter(|it| it.0.contains("terminated"));
        let reasons: Vec<String> = ended.map(|it| it.1).collect();
        (reasons.len() == 1 && reasons[0].contains("Server.OperatorInitiatedShutdown"))
            .then_some(())
    });
    let shown = [("InstanceId.1", ids[0].as_str())];
    let shown = client.call("DescribeInstances", &shown).unwrap();
    let item = "reservationSet/item/instancesSet/item";
    let code = shown.text(&format!("{item}/stateReason/code"));
    assert_eq!(code, "Server.OperatorInitiatedShutdown");

    assert!(cloud.run(&["image", "list"]).contains("available"));
    cloud.run(&["image", "delete", id]);
    assert!(cloud.run(&["image", "list"]).contains("deregistered"));
    let late = client.call("RunInstances", &launch).unwrap_err();
    assert_eq!(late.code(), "InvalidAMIID.Unavailable");
    assert!(refusal(&cloud, &["image", "delete", id]).contains("no longer available"));

    // Without a server it is recorded, and the next one does it.
    cloud.stop();
    let recorded = cloud.output(&["instance", "terminate", &ids[1]]);
    assert!(recorded.status.success() && said(&recorded).contains("when one is started"));
    cloud.restart();
    wait_until("the other has ended too", Duration::from_secs(60), || {
        let states = states(&cloud);
        states
            .iter()
            .all(|it| it.0.contains("terminated"))
            .then_some(())
    });
}

/// Text of all sources, a line's end and its indentation left out: long texts are broken there.
fn sources(path: &std::path::Path, text: &mut String) {
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|it| it == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn the_guide_quotes_what_the_program_says() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut program = String::new();
    for entry in fs::read_dir(root.join("crates")).unwrap() {
        let path = entry.unwrap().path().join("src");
        if path.is_dir() {
            sources(&path, &mut program);
        }
    }
    let guide = fs::read_to_string(root.join("docs/operations.md")).unwrap();
    let (_, tables) = guide.split_once("## When it says").unwrap();
    let (mut quoted, mut strange) = (0, vec![]);
    for row in tables.lines().filter(|line| line.starts_with("| `")) {
        let message = row.split('|').nth(1).unwrap();
        for text in message.split('`').skip(1).step_by(2) {
            // What stands for something else.
            let known = ["DIR", "NAME", "ADDR:PORT", "(process N)", "…"];
            let fixed = known
                .iter()
                .fold(text.to_owned(), |text, it| text.replace(it, "\0"));
            for part in fixed.split('\0').map(str::trim).filter(|it| it.len() > 3) {
                if !program.contains(part) {
                    strange.push(part.to_owned());
                }
                quoted += 1;
            }
        }
    }
    assert_eq!(strange, [""; 0], "nothing in the program says that");
    assert!(quoted > 50, "{quoted}");
}
