//! Security groups: the reference's samples in both bindings, what later versions made of them, and
//! every refusal.

#[path = "../common/mod.rs"]
mod common;

mod later;
mod refusals;

use common::{Client, Cloud, Reply};

const OLD: &str = "2007-03-01";
const NEW: &str = "2016-11-15";
const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
const AUTHORIZE: &str = "AuthorizeSecurityGroupIngress";
const REVOKE: &str = "RevokeSecurityGroupIngress";

/// What is in the body of an envelope.
fn inside(reply: &Reply) -> &str {
    let text = reply.text.as_str();
    let start = text.find("<SOAP-ENV:Body>").expect("a body") + "<SOAP-ENV:Body>".len();
    let end = text.find("</SOAP-ENV:Body>").expect("its end");
    &text[start..end]
}

/// The answer of operations that say yes, in 2007.
fn yes(operation: &str) -> String {
    format!(
        "<{operation}Response xmlns=\"http://ec2.amazonaws.com/doc/2007-03-01/\">\
         <return>true</return></{operation}Response>"
    )
}

/// A client that asks in one binding.
struct Asker {
    client: Client,
    is_soap: bool,
}

impl Asker {
    /// The answer without what the binding puts around it.
    async fn answer(&self, operation: &str, query: &[(&str, &str)], message: &str) -> String {
        if self.is_soap {
            let reply = self.client.soap(operation, OLD, message).await;
            assert_eq!(reply.status, 200, "{}", reply.text);
            inside(&reply).to_owned()
        } else {
            let reply = self.client.ask(operation, OLD, query).await.ok();
            reply.text.trim_start_matches(HEAD).to_owned()
        }
    }

    /// The code of the refusal, without the prefix that faults have.
    async fn code(&self, operation: &str, query: &[(&str, &str)], message: &str) -> String {
        let reply = if self.is_soap {
            self.client.soap(operation, OLD, message).await
        } else {
            self.client.ask(operation, OLD, query).await
        };
        code_of(&reply)
    }
}

fn code_of(reply: &Reply) -> String {
    let code = reply.handled.code.clone();
    let code = code.unwrap_or_else(|| panic!("not refused: {}", reply.text));
    let name = if reply.text.contains("SOAP-ENV:Fault") {
        format!("<faultcode>Client.{code}</faultcode>")
    } else {
        format!("<Code>{code}</Code>")
    };
    assert!(reply.text.contains(&name), "{}", reply.text);
    code
}

async fn askers(cloud: &Cloud) -> [Asker; 2] {
    [false, true].map(|is_soap| Asker {
        client: cloud.client(),
        is_soap,
    })
}

fn permission(protocol: &str, from: i32, to: i32, groups: &str, ranges: &str) -> String {
    format!(
        "<ipProtocol>{protocol}</ipProtocol><fromPort>{from}</fromPort><toPort>{to}</toPort>{}{}",
        container("groups", groups),
        container("ipRanges", ranges)
    )
}

fn container(name: &str, inside: &str) -> String {
    format!("<{name}>{inside}</{name}>")
}

/// A message to authorize or revoke permissions.
fn change(group: &str, permissions: &[String]) -> String {
    let items: String = permissions
        .iter()
        .map(|it| format!("<item>{it}</item>"))
        .collect();
    format!("<userId></userId><groupName>{group}</groupName><ipPermissions>{items}</ipPermissions>")
}

fn range(cidr: &str) -> String {
    format!("<item><cidrIp>{cidr}</cidrIp></item>")
}

fn pair(account: &str, group: &str) -> String {
    format!("<item><userId>{account}</userId><groupName>{group}</groupName></item>")
}

/// The three permissions that a whole group is in 2007.
fn whole(account: &str, group: &str) -> String {
    [("tcp", 0, 65535), ("udp", 0, 65535), ("icmp", -1, -1)]
        .map(|(protocol, from, to)| {
            let permission = permission(protocol, from, to, &pair(account, group), "");
            format!("<item>{permission}</item>")
        })
        .concat()
}

fn listed(account: &str, name: &str, description: &str, permissions: &str) -> String {
    let permissions = container("ipPermissions", permissions);
    format!(
        "<item><ownerId>{account}</ownerId><groupName>{name}</groupName>\
         <groupDescription>{description}</groupDescription>{permissions}</item>"
    )
}

fn describes(items: &str) -> String {
    format!(
        "<DescribeSecurityGroupsResponse xmlns=\"http://ec2.amazonaws.com/doc/2007-03-01/\">\
         <securityGroupInfo>{items}</securityGroupInfo></DescribeSecurityGroupsResponse>"
    )
}

const WEB: [(&str, &str); 5] = [
    ("GroupName", "WebServers"),
    ("IpProtocol", "tcp"),
    ("FromPort", "80"),
    ("ToPort", "80"),
    ("CidrIp", "0.0.0.0/0"),
];

/// 6.16 to 6.20 with the samples' own requests and answers; the account is the caller's.
#[tokio::test(flavor = "multi_thread")]
async fn the_references_samples_are_answered_in_both_bindings() {
    let cloud = Cloud::start().await;
    let account = cloud.client().account.to_string();
    for asker in askers(&cloud).await {
        for (name, description) in [("WebServers", "Web"), ("RangedPortsBySource", "A")] {
            let created = asker.answer(
                "CreateSecurityGroup",
                &[("GroupName", name), ("GroupDescription", description)],
                &format!(
                    "<groupName>{name}</groupName><groupDescription>{description}</groupDescription>"
                ),
            ).await;
            assert_eq!(created, yes("CreateSecurityGroup"));
        }
        let web = permission("tcp", 80, 80, "", &range("0.0.0.0/0"));
        let message = change("WebServers", std::slice::from_ref(&web));
        let authorized = asker.answer(AUTHORIZE, &WEB, &message).await;
        assert_eq!(authorized, yes(AUTHORIZE));
        // The sample's second group has a permission without a source, which only a message can
        // make.
        let ranged = permission("tcp", 6000, 7000, "", "");
        let message = change("RangedPortsBySource", std::slice::from_ref(&ranged));
        let authorized = asker.client.soap(AUTHORIZE, OLD, &message).await;
        assert_eq!(inside(&authorized), yes(AUTHORIZE));

        let described = asker.answer(
            "DescribeSecurityGroups",
            &[
                ("GroupName.1", "WebServers"),
                ("GroupName.2", "RangedPortsBySource"),
            ],
            "<securityGroupSet><item><groupName>WebServers</groupName></item>\
             <item><groupName>RangedPortsBySource</groupName></item></securityGroupSet>",
        );
        let expected = describes(&format!(
            "{}{}",
            listed(
                &account,
                "WebServers",
                "Web",
                &format!("<item>{web}</item>")
            ),
            listed(
                &account,
                "RangedPortsBySource",
                "A",
                &format!("<item>{ranged}</item>")
            )
        ));
        assert_eq!(described.await, expected);

        let message = change("RangedPortsBySource", &[ranged]);
        let revoked = asker.client.soap(REVOKE, OLD, &message).await;
        assert_eq!(inside(&revoked), yes(REVOKE));
        // What a later version shows of such a permission it revokes; it makes none.
        let authorized = asker.client.soap(AUTHORIZE, OLD, &message).await;
        assert_eq!(inside(&authorized), yes(AUTHORIZE));
        let later = [
            ("GroupName", "RangedPortsBySource"),
            ("IpPermissions.1.IpProtocol", "tcp"),
            ("IpPermissions.1.FromPort", "6000"),
            ("IpPermissions.1.ToPort", "7000"),
        ];
        asker.client.ask(REVOKE, "2016-11-15", &later).await.ok();
        let refused = asker.client.ask(AUTHORIZE, "2016-11-15", &later).await;
        assert_eq!(refused.code(400), "InvalidPermission.Malformed");
        let revoked = asker
            .answer(REVOKE, &WEB, &change("WebServers", &[web]))
            .await;
        assert_eq!(revoked, yes(REVOKE));
        for name in ["RangedPortsBySource", "WebServers"] {
            let deleted = asker
                .answer(
                    "DeleteSecurityGroup",
                    &[("GroupName", name)],
                    &format!("<groupName>{name}</groupName>"),
                )
                .await;
            assert_eq!(deleted, yes("DeleteSecurityGroup"));
        }
        // None is left but the one that everybody has.
        let all = asker
            .answer(
                "DescribeSecurityGroups",
                &[],
                "<securityGroupSet></securityGroupSet>",
            )
            .await;
        let default = whole(&account, "default");
        assert_eq!(
            all,
            describes(&listed(&account, "default", "default group", &default))
        );
    }
    cloud.stop().await;
}

/// 8.6 and 8.7 as far as records go.
#[tokio::test(flavor = "multi_thread")]
async fn the_references_scenarios_hold() {
    let cloud = Cloud::start().await;
    let client = cloud.client();
    let account = client.account.to_string();
    let image = ready_image(&cloud, &client).await;
    let describe = |name: &'static str| {
        let client = client.clone();
        async move {
            let name = [("GroupName.1", name)];
            let reply = client.ask("DescribeSecurityGroups", OLD, &name).await.ok();
            reply.text.trim_start_matches(HEAD).to_owned()
        }
    };
    let change = |operation: &'static str, group: &'static str, rule: &[(&str, &str)]| {
        let client = client.clone();
        let rule: Vec<(String, String)> = rule
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        async move {
            let mut all = vec![("GroupName", group)];
            all.extend(
                rule.iter()
                    .map(|(name, value)| (name.as_str(), value.as_str())),
            );
            client.ask(operation, OLD, &all).await.ok();
        }
    };
    let network = |port: &'static str, cidr: &'static str| {
        [
            ("IpProtocol", "tcp"),
            ("FromPort", port),
            ("ToPort", port),
            ("CidrIp", cidr),
        ]
    };
    // Albert.
    let launched = launch(&client, OLD, &image, &[]).await;
    assert_eq!(
        launched.value("groupSet/item/groupId").as_deref(),
        Some("default")
    );
    let default = whole(&account, "default");
    assert_eq!(
        describe("default").await,
        describes(&listed(&account, "default", "default group", &default))
    );
    change(AUTHORIZE, "default", &network("22", "192.168.1.130/32")).await;
    let ssh = permission("tcp", 22, 22, "", &range("192.168.1.130/32"));
    assert_eq!(
        describe("default").await,
        describes(&listed(
            &account,
            "default",
            "default group",
            &format!("{default}<item>{ssh}</item>")
        ))
    );
    // Mary.
    for (name, description) in [
        ("apache", "Mary's Apache group"),
        ("appserver", "Mary's app server"),
    ] {
        let group = [("GroupName", name), ("GroupDescription", description)];
        client.ask("CreateSecurityGroup", OLD, &group).await.ok();
    }
    let apache = |permissions: &str| {
        describes(&listed(
            &account,
            "apache",
            "Mary&apos;s Apache group",
            permissions,
        ))
        .replace("&apos;", "'")
    };
    assert_eq!(describe("apache").await, apache(""));
    change(AUTHORIZE, "apache", &network("80", "0.0.0.0/0")).await;
    let web = permission("tcp", 80, 80, "", &range("0.0.0.0/0"));
    assert_eq!(
        describe("apache").await,
        apache(&format!("<item>{web}</item>"))
    );
    let web_tier = launch(&client, OLD, &image, &[("SecurityGroup.1", "apache")]).await;
    assert_eq!(
        web_tier.value("groupSet/item/groupId").as_deref(),
        Some("apache")
    );
    let peer = [
        ("SourceSecurityGroupName", "apache"),
        ("SourceSecurityGroupOwnerId", &account),
    ];
    change(AUTHORIZE, "appserver", &peer).await;
    assert_eq!(
        describe("appserver").await,
        describes(&listed(
            &account,
            "appserver",
            "Mary's app server",
            &whole(&account, "apache")
        ))
    );
    change(AUTHORIZE, "apache", &network("22", "192.168.1.130/32")).await;
    change(REVOKE, "apache", &network("22", "192.168.1.130/32")).await;
    assert_eq!(
        describe("apache").await,
        apache(&format!("<item>{web}</item>"))
    );
    change(REVOKE, "appserver", &peer).await;
    assert_eq!(
        describe("appserver").await,
        describes(&listed(&account, "appserver", "Mary's app server", ""))
    );
    cloud.stop().await;
}

async fn ready_image(cloud: &Cloud, client: &Client) -> String {
    cloud.add_kernel().await;
    cloud.upload_bundle("image", &[], false);
    let location = [("ImageLocation", "bucket/image.manifest.xml")];
    let reply = client.ask("RegisterImage", OLD, &location).await.ok();
    let id = reply.value("imageId").expect("an id");
    cloud.wait_for_image(id.parse().expect("an id")).await;
    id
}

async fn launch(client: &Client, version: &str, image: &str, groups: &[(&str, &str)]) -> Reply {
    let request = [("ImageId", image), ("MinCount", "1"), ("MaxCount", "1")];
    let request = [&request[..], groups].concat();
    client.ask("RunInstances", version, &request).await.ok()
}

async fn create(client: &Client, name: &str) -> String {
    let group = [("GroupName", name), ("GroupDescription", "for tests")];
    let reply = client.ask("CreateSecurityGroup", NEW, &group).await.ok();
    reply.value("groupId").expect("an id")
}
