//! Every operation through the door, as clients of several times ask.

mod common;

use common::{Client, Cloud, HOST, REQUEST_ID};
use cumulet_domain::instances::InstanceState;
use cumulet_domain::{ImageId, InstanceId};

const NEW: &str = "2016-11-15";
const OLD: &str = "2007-03-01";

async fn register(cloud: &Cloud, client: &Client, name: &str) -> ImageId {
    cloud.upload_bundle(name, &["774F4FF8"], false);
    let location = format!("bucket/{name}.manifest.xml");
    let reply = client
        .ask("RegisterImage", OLD, &[("ImageLocation", &location)])
        .await
        .ok();
    let id: ImageId = reply.value("imageId").unwrap().parse().unwrap();
    cloud.wait_for_image(id).await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_in_the_words_of_2007() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let image = register(&cloud, &client, "first").await;
    let account = client.account;

    let reply = client
        .ask("DescribeImages", OLD, &[("Owner.1", "self")])
        .await;
    assert_eq!(
        reply.ok().text,
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <DescribeImagesResponse xmlns=\"http://ec2.amazonaws.com/doc/2007-03-01/\"><imagesSet><item>\
             <imageId>{image}</imageId><imageLocation>bucket/first.manifest.xml</imageLocation>\
             <imageState>available</imageState><imageOwnerId>{account}</imageOwnerId><isPublic>false</isPublic>\
             <productCodes><item><productCode>774F4FF8</productCode></item></productCodes>\
             </item></imagesSet></DescribeImagesResponse>"
        )
    );

    let key = client
        .ask("CreateKeyPair", OLD, &[("KeyName", "example-key-name")])
        .await
        .ok();
    assert_eq!(
        key.elements()
            .iter()
            .map(|(path, _)| path.as_str())
            .collect::<Vec<_>>(),
        ["keyName", "keyFingerprint", "keyMaterial"]
    );
    assert!(
        key.value("keyMaterial")
            .unwrap()
            .starts_with("-----BEGIN RSA PRIVATE KEY-----")
    );
    let again = client
        .ask("CreateKeyPair", OLD, &[("KeyName", "example-key-name")])
        .await;
    assert_eq!(again.code(400), "InvalidKeyPair.Duplicate");

    let image_text = image.to_string();
    let run = client
        .ask(
            "RunInstances",
            OLD,
            &[
                ("ImageId", &image_text),
                ("MinCount", "1"),
                ("MaxCount", "1"),
                ("KeyName", "example-key-name"),
                ("SecurityGroup.1", "default"),
                ("UserData", "VGhpcyBpcyBiYXNlIDY0IQ=="),
                ("AddressingType", "public"),
            ],
        )
        .await
        .ok();
    let (reservation, id) = (
        run.value("reservationId").unwrap(),
        run.value("instanceId").unwrap(),
    );
    let reason =
        "Server.SimulatedCompute: This cloud runs with --compute simulated; no machine was started";
    let body = |state: &str, private: &str, public: &str| {
        format!(
            "<reservationId>{reservation}</reservationId><ownerId>{account}</ownerId>\
             <groupSet><item><groupId>default</groupId></item></groupSet><instancesSet><item>\
             <instanceId>{id}</instanceId><imageId>{image}</imageId><instanceState>{state}</instanceState>\
             <privateDnsName{private}<dnsName{public}<reason>{reason}</reason><keyName>example-key-name</keyName>\
             <amiLaunchIndex>0</amiLaunchIndex><productCodes><item><productCode>774F4FF8</productCode></item></productCodes>\
             </item></instancesSet>"
        )
    };
    let pending = "<code>0</code><name>pending</name>";
    assert_eq!(
        run.text,
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <RunInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2007-03-01/\">{}</RunInstancesResponse>",
            body(pending, "/>", "/>")
        )
    );

    let instance: cumulet_domain::InstanceId = id.parse().unwrap();
    cloud.wait_for(instance, InstanceState::Running).await;
    let address = cloud.engine.snapshot().instances[&instance].address;
    let private = format!(
        ">ip-{}.us-east-1.compute.internal</privateDnsName>",
        address.to_string().replace('.', "-")
    );
    let seen = client
        .ask("DescribeInstances", OLD, &[("InstanceId.1", &id)])
        .await
        .ok();
    assert_eq!(
        seen.text,
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <DescribeInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2007-03-01/\"><reservationSet><item>{}\
             </item></reservationSet></DescribeInstancesResponse>",
            body(
                "<code>16</code><name>running</name>",
                &private,
                &format!(">{address}</dnsName>")
            )
        )
    );

    // The guide's parameter, and the one that boto has always sent.
    for name in ["InstanceId", "InstanceId.1"] {
        let console = client
            .ask("GetConsoleOutput", OLD, &[(name, &id)])
            .await
            .ok();
        assert_eq!(
            console.value("timestamp").unwrap(),
            "2026-01-02T03:04:05.000Z"
        );
        let output = console.value("output").unwrap();
        let output = cumulet_wire::base64::decode(&output, 65536).unwrap();
        assert!(String::from_utf8(output).unwrap().contains("simulated"));
    }
    let reboot = client
        .ask("RebootInstances", OLD, &[("InstanceId.1", &id)])
        .await;
    assert_eq!(
        reboot.ok().text,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <RebootInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2007-03-01/\"><return>true</return></RebootInstancesResponse>"
    );
    let end = client
        .ask("TerminateInstances", OLD, &[("InstanceId.1", &id)])
        .await
        .ok();
    assert_eq!(
        end.text,
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <TerminateInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2007-03-01/\"><instancesSet><item>\
             <instanceId>{id}</instanceId><shutdownState><code>32</code><name>shutting-down</name></shutdownState>\
             <previousState><code>16</code><name>running</name></previousState></item></instancesSet></TerminateInstancesResponse>"
        )
    );
    cloud.wait_for(instance, InstanceState::Terminated).await;
    let again = client
        .ask("TerminateInstances", OLD, &[("InstanceId.1", &id)])
        .await
        .ok();
    assert_eq!(again.values("name"), ["terminated", "terminated"]);
    let reason = client
        .ask("DescribeInstances", OLD, &[])
        .await
        .ok()
        .value("reason");
    assert_eq!(
        reason.as_deref(),
        Some("Client.UserInitiatedShutdown: User initiated shutdown")
    );

    let gone = client
        .ask("DeregisterImage", OLD, &[("ImageId", &image_text)])
        .await
        .ok();
    assert_eq!(gone.value("return").as_deref(), Some("true"));
    let images = client
        .ask("DescribeImages", OLD, &[("ImageId.1", &image_text)])
        .await
        .ok();
    assert_eq!(images.value("imageState").as_deref(), Some("deregistered"));
    let late = client
        .ask(
            "RunInstances",
            OLD,
            &[
                ("ImageId", &image_text),
                ("MinCount", "1"),
                ("MaxCount", "1"),
            ],
        )
        .await;
    assert_eq!(late.code(400), "InvalidAMIID.Unavailable");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_image_is_refused_and_a_launch_that_waited_for_it_says_why() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    cloud.upload_bundle("damaged", &[], true);
    let location = [("ImageLocation", "bucket/damaged.manifest.xml")];
    let registered = client.ask("RegisterImage", OLD, &location).await.ok();
    let image = registered.value("imageId").expect("an id");
    let run = [
        ("ImageId", image.as_str()),
        ("MinCount", "1"),
        ("MaxCount", "1"),
    ];
    // Nobody knows yet, unless the preparation was faster.
    let early = client.ask("RunInstances", OLD, &run).await;
    if let Some(id) = early.value("instanceId") {
        let id: InstanceId = id.parse().expect("an id");
        cloud.wait_for(id, InstanceState::Terminated).await;
        let ids = [("InstanceId.1", id.to_string())];
        let ids: Vec<_> = ids.iter().map(|(name, id)| (*name, id.as_str())).collect();
        let shown = client.ask("DescribeInstances", NEW, &ids).await.ok();
        assert!(
            shown
                .paths()
                .iter()
                .any(|path| path.ends_with("stateReason/code")),
            "{:?}",
            shown.paths()
        );
        let reason = shown.value("reason").expect("a reason");
        assert!(reason.starts_with("Client.InvalidImage: "), "{reason}");
    }
    cloud.wait_for_image(image.parse().expect("an id")).await;
    let before = cloud.engine.snapshot().instances.len();
    let late = client.ask("RunInstances", OLD, &run).await;
    assert_eq!(late.code(400), "InvalidAMIID.Unavailable");
    assert_eq!(cloud.engine.snapshot().instances.len(), before);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_todays_clients_send_is_understood() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let image = register(&cloud, &client, "first").await.to_string();
    // aws-cli: always a token; the same one gives the same reservation.
    let request = [
        ("ImageId", image.as_str()),
        ("MinCount", "2"),
        ("MaxCount", "2"),
        ("InstanceType", "t3.micro"),
        ("ClientToken", "11111111-2222-3333-4444-555555555555"),
        ("MetadataOptions.HttpTokens", "required"),
        ("Monitoring.Enabled", "false"),
        ("EbsOptimized", "false"),
    ];
    let one = client.ask("RunInstances", NEW, &request).await.ok();
    let two = client.ask("RunInstances", NEW, &request).await.ok();
    assert_eq!(one.value("reservationId"), two.value("reservationId"));
    assert_eq!(one.value("requestId").as_deref(), Some(REQUEST_ID));
    assert_eq!(one.value("httpTokens").as_deref(), Some("required"));
    assert_eq!(one.values("amiLaunchIndex"), ["0", "1"]);
    let mut other = request;
    other[1] = ("MinCount", "1");
    let mismatch = client.ask("RunInstances", NEW, &other).await;
    assert_eq!(mismatch.code(400), "IdempotentParameterMismatch");

    // What an image is not may be said of it, and what it is not refused.
    for (value, status) in [("false", 200), ("true", 400)] {
        let said = [
            ("ImageLocation", "bucket/first.manifest.xml"),
            ("EnaSupport", value),
        ];
        let reply = client.ask("RegisterImage", NEW, &said).await;
        assert_eq!(reply.status, status, "{}", reply.text);
    }

    // boto 2: version 2013-10-15, signature version 2, always an instance type.
    let run = client
        .get_v2(&[
            ("Action", "RunInstances"),
            ("Version", "2013-10-15"),
            ("ImageId", &image),
            ("MinCount", "1"),
            ("MaxCount", "1"),
            ("InstanceType", "m1.small"),
        ])
        .await
        .ok();
    let id = run.value("instanceId").unwrap();
    cloud
        .wait_for(id.parse().unwrap(), InstanceState::Running)
        .await;
    let console = client
        .get_v2(&[
            ("Action", "GetConsoleOutput"),
            ("Version", "2013-10-15"),
            ("InstanceId.1", &id),
        ])
        .await;
    assert_eq!(console.ok().value("instanceId"), Some(id.clone()));

    let status = client
        .ask("DescribeInstanceStatus", NEW, &[("InstanceId.1", &id)])
        .await
        .ok();
    // Simulated guests answer nobody.
    assert_eq!(status.values("status"), ["ok", "passed", "ok", "passed"]);

    let regions = client.ask("DescribeRegions", NEW, &[]).await.ok();
    assert_eq!(regions.value("regionEndpoint").as_deref(), Some(HOST));
    let zones = client.ask("DescribeAvailabilityZones", NEW, &[]).await.ok();
    assert_eq!(zones.value("zoneName").as_deref(), Some("us-east-1a"));

    let who = client
        .ask("GetCallerIdentity", "2011-06-15", &[])
        .await
        .ok();
    assert_eq!(
        who.text,
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
             <Arn>arn:aws:iam::000000000001:user/alice</Arn><UserId>000000000001:alice</UserId>\
             <Account>000000000001</Account></GetCallerIdentityResult>\
             <ResponseMetadata><RequestId>{REQUEST_ID}</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
        )
    );
    cloud.stop().await;
}

/// The models from which clients of later versions are made leave `return` out of most of these; the
/// service did not, and libraries that have no model (Apache Libcloud, fog) take its lack for a no.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_is_answered_with_return_to_the_last_version() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let image = register(&cloud, &client, "first").await.to_string();
    let run = [
        ("ImageId", image.as_str()),
        ("MinCount", "1"),
        ("MaxCount", "1"),
    ];
    let launched = client.ask("RunInstances", NEW, &run).await.ok();
    let instance = launched.value("instanceId").unwrap();
    let id: InstanceId = instance.parse().unwrap();
    cloud.wait_for(id, InstanceState::Running).await;
    let key = ("KeyName", "key");
    client.ask("CreateKeyPair", NEW, &[key]).await.ok();
    let group = ("GroupName", "group");
    let rule = [
        group,
        ("IpProtocol", "tcp"),
        ("FromPort", "80"),
        ("ToPort", "80"),
        ("CidrIp", "0.0.0.0/0"),
    ];
    let attribute = [
        ("ImageId", image.as_str()),
        ("Attribute", "launchPermission"),
    ];
    let public = [("OperationType", "add"), ("UserGroup.1", "all")];
    let tag = [("ResourceId.1", instance.as_str()), ("Tag.1.Key", "Name")];
    for (action, pairs) in [
        (
            "CreateSecurityGroup",
            vec![group, ("GroupDescription", "g")],
        ),
        ("AuthorizeSecurityGroupIngress", rule.to_vec()),
        ("RevokeSecurityGroupIngress", rule.to_vec()),
        ("DeleteSecurityGroup", vec![group]),
        ("DeleteKeyPair", vec![key]),
        ("ModifyImageAttribute", [attribute, public].concat()),
        ("ResetImageAttribute", attribute.to_vec()),
        ("CreateTags", tag.to_vec()),
        ("DeleteTags", tag.to_vec()),
        ("RebootInstances", vec![("InstanceId.1", instance.as_str())]),
        ("DeregisterImage", vec![("ImageId", image.as_str())]),
    ] {
        let reply = client.ask(action, NEW, &pairs).await.ok();
        let order: Vec<String> = reply.elements().into_iter().map(|it| it.0).collect();
        assert_eq!(order[..2], ["requestId", "return"], "{action}");
        assert_eq!(reply.value("return").as_deref(), Some("true"), "{action}");
    }
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn key_pairs_come_and_go() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let created = client
        .ask("CreateKeyPair", NEW, &[("KeyName", "one")])
        .await
        .ok();
    let id = created.value("keyPairId").unwrap();
    let blob =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@here";
    let material = cumulet_wire::base64::encode(blob.as_bytes());
    let imported = client
        .ask(
            "ImportKeyPair",
            NEW,
            &[("KeyName", "two"), ("PublicKeyMaterial", &material)],
        )
        .await
        .ok();
    assert_eq!(imported.value("keyName").as_deref(), Some("two"));
    let bad = client
        .ask(
            "ImportKeyPair",
            NEW,
            &[("KeyName", "three"), ("PublicKeyMaterial", "bm8ga2V5")],
        )
        .await;
    assert_eq!(bad.code(400), "InvalidKey.Format");
    let typed = |kind| [("KeyName", "curved"), ("KeyType", kind)];
    let bad = client.ask("CreateKeyPair", NEW, &typed("dsa")).await;
    assert_eq!(bad.code(400), "InvalidParameterValue");
    assert!(bad.text.contains("'dsa'"), "{}", bad.text);
    let made = client.ask("CreateKeyPair", NEW, &typed("ed25519")).await;
    let key = made.ok().value("keyMaterial").unwrap();
    assert!(key.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----"));
    let curved = [("KeyName.1", "curved"), ("IncludePublicKey", "true")];
    let shown = client.ask("DescribeKeyPairs", NEW, &curved).await.ok();
    assert_eq!(shown.values("keyType"), ["ed25519"]);
    let public = shown.value("publicKey").unwrap();
    assert!(public.starts_with("ssh-ed25519 "), "{public}");
    let gone = [("KeyName", "curved")];
    client.ask("DeleteKeyPair", NEW, &gone).await.ok();
    let all = client.ask("DescribeKeyPairs", NEW, &[]).await.ok();
    assert_eq!(all.values("keyName"), ["one", "two"]);
    assert_eq!(all.values("keyType"), ["rsa", "ed25519"]);
    assert_eq!(all.values("publicKey"), Vec::<String>::new());
    let one = client
        .ask(
            "DescribeKeyPairs",
            NEW,
            &[("KeyPairId.1", &id), ("IncludePublicKey", "true")],
        )
        .await
        .ok();
    assert_eq!(one.values("keyName"), ["one"]);
    assert!(one.value("publicKey").unwrap().starts_with("ssh-rsa "));
    let unknown = client
        .ask("DescribeKeyPairs", OLD, &[("KeyName.1", "zero")])
        .await;
    assert_eq!(unknown.code(400), "InvalidKeyPair.NotFound");
    // Each once, however often it is named; of two lists what is in both.
    let two = imported.value("keyPairId").unwrap();
    for (asked, names) in [
        (
            vec![
                ("KeyName.1", "two"),
                ("KeyName.2", "one"),
                ("KeyName.3", "two"),
            ],
            &["two", "one"][..],
        ),
        (
            vec![
                ("KeyPairId.1", two.as_str()),
                ("KeyPairId.2", &id),
                ("KeyPairId.3", &two),
            ],
            &["one", "two"],
        ),
        (
            vec![
                ("KeyName.1", "two"),
                ("KeyPairId.1", &id),
                ("KeyPairId.2", &two),
            ],
            &["two"],
        ),
        (vec![("KeyName.1", "two"), ("KeyPairId.1", &id)], &[]),
    ] {
        let reply = client.ask("DescribeKeyPairs", NEW, &asked).await.ok();
        assert_eq!(reply.values("keyName"), names, "{asked:?}");
    }
    let stranger = cloud.stranger().await;
    for (client, id) in [
        (&stranger, id.as_str()),
        (&client, "key-12345678"),
        (&client, "one"),
    ] {
        let unknown = client
            .ask("DescribeKeyPairs", NEW, &[("KeyPairId.1", id)])
            .await;
        assert_eq!(unknown.code(400), "InvalidKeyPair.NotFound");
        client
            .ask("DeleteKeyPair", NEW, &[("KeyPairId", id)])
            .await
            .ok();
    }
    let nameless = client.ask("DeleteKeyPair", OLD, &[("KeyName", "")]).await;
    assert_eq!(nameless.code(400), "MissingParameter");
    for wrong in [" one", "one ", "schl\u{fc}ssel"] {
        let refused = client
            .ask("CreateKeyPair", OLD, &[("KeyName", wrong)])
            .await;
        assert_eq!(refused.code(400), "InvalidParameterValue");
        assert!(
            refused.text.contains(&format!("({wrong})")),
            "{}",
            refused.text
        );
    }

    client
        .ask("DeleteKeyPair", NEW, &[("KeyPairId", &id)])
        .await
        .ok();
    client
        .ask("DeleteKeyPair", OLD, &[("KeyName", "two")])
        .await
        .ok();
    // A name that does not exist is no error.
    let again = client
        .ask("DeleteKeyPair", OLD, &[("KeyName", "two")])
        .await
        .ok();
    assert_eq!(again.value("return").as_deref(), Some("true"));
    let none = client.ask("DescribeKeyPairs", OLD, &[]).await.ok();
    assert_eq!(none.values("keyName"), Vec::<String>::new());
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_others_is_left_out_or_refused() {
    let cloud = Cloud::start().await;
    let (client, stranger) = (cloud.client(), cloud.stranger().await);
    let image = register(&cloud, &client, "first").await.to_string();
    let run = [
        ("ImageId", image.as_str()),
        ("MinCount", "1"),
        ("MaxCount", "1"),
    ];
    let id = client
        .ask("RunInstances", OLD, &run)
        .await
        .ok()
        .value("instanceId")
        .unwrap();

    // Describing what exists and is somebody else's is no fault; what does not exist is.
    let images = stranger
        .ask("DescribeImages", OLD, &[("ImageId.1", &image)])
        .await
        .ok();
    assert_eq!(images.values("imageId"), Vec::<String>::new());
    let instances = stranger
        .ask("DescribeInstances", OLD, &[("InstanceId.1", &id)])
        .await
        .ok();
    assert_eq!(instances.values("instanceId"), Vec::<String>::new());
    let unknown = client
        .ask(
            "DescribeInstances",
            OLD,
            &[
                ("InstanceId.1", "i-11111111"),
                ("InstanceId.2", &id),
                ("InstanceId.3", "i-22222222"),
            ],
        )
        .await;
    assert_eq!(unknown.code(400), "InvalidInstanceID.NotFound");
    assert_eq!(
        unknown.value("Message").as_deref(),
        Some("The instance IDs 'i-11111111, i-22222222' do not exist")
    );
    let unknown = client
        .ask("DescribeImages", OLD, &[("ImageId.1", "ami-11111111")])
        .await;
    assert_eq!(unknown.code(400), "InvalidAMIID.NotFound");

    // Using it is refused.
    assert_eq!(
        stranger.ask("RunInstances", OLD, &run).await.code(401),
        "AuthFailure"
    );
    for action in ["TerminateInstances", "RebootInstances", "GetConsoleOutput"] {
        let reply = stranger.ask(action, OLD, &[("InstanceId.1", &id)]).await;
        assert_eq!(reply.code(400), "InvalidInstanceID.NotFound", "{action}");
    }
    let reply = stranger
        .ask("DeregisterImage", OLD, &[("ImageId", &image)])
        .await;
    assert_eq!(reply.code(401), "AuthFailure");
    let location = [("ImageLocation", "bucket/first.manifest.xml")];
    assert_eq!(
        stranger
            .ask("RegisterImage", OLD, &location)
            .await
            .code(401),
        "AuthFailure"
    );
    cloud.stop().await;
}
