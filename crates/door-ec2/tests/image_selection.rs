//! Which images DescribeImages shows to whom, by Query and by SOAP.

mod common;

use std::collections::BTreeSet;

use common::{Client, Cloud, account};
use cumulet_domain::ImageId;

const OLD: &str = "2007-03-01";

/// Everybody's images, by their names.
struct Gallery {
    cloud: Cloud,
    client: Client,
    images: Vec<(&'static str, String)>,
}

impl Gallery {
    async fn open() -> Self {
        let cloud = Cloud::start().await;
        let (client, stranger) = (cloud.client(), cloud.stranger().await);
        let (me, them) = (client.account, stranger.account);
        let mut images = vec![];
        for (name, owner, is_public, explicit) in [
            ("my-private", me, false, None),
            ("my-public", me, true, None),
            ("my-granted", me, false, Some(them)),
            // An owner may name himself; it is his own image all the same.
            ("my-self-granted", me, false, Some(me)),
            ("my-gone", me, true, Some(them)),
            ("their-private", them, false, None),
            ("their-public", them, true, None),
            ("their-granted", them, false, Some(me)),
            ("their-public-granted", them, true, Some(me)),
            ("their-other", them, false, Some(account(3))),
        ] {
            let id = cloud.image(owner, name, is_public).await.to_string();
            let asker = if owner == me { &client } else { &stranger };
            if let Some(account) = explicit {
                let account = account.to_string();
                let pairs = [
                    ("Attribute", "launchPermission"),
                    ("OperationType", "add"),
                    ("UserId.1", account.as_str()),
                ];
                asker.modify_image(OLD, &id, &pairs).await.ok();
            }
            if name == "my-gone" {
                let pairs = [("ImageId", id.as_str())];
                asker.ask("DeregisterImage", OLD, &pairs).await.ok();
            }
            images.push((name, id));
        }
        Self {
            cloud,
            client,
            images,
        }
    }

    fn id(&self, name: &str) -> &str {
        let found = self.images.iter().find(|(known, _)| *known == name);
        &found.expect("an image of that name").1
    }

    fn names(&self, ids: &[String]) -> BTreeSet<&'static str> {
        let is_seen = |(_, id): &&(&str, String)| ids.contains(id);
        self.images
            .iter()
            .filter(is_seen)
            .map(|(name, _)| *name)
            .collect()
    }

    /// What is chosen by ids (given as names), owners and who may launch; both bindings agree.
    async fn chosen(&self, ids: &[&str], owners: &[&str], by: &[&str]) -> BTreeSet<&'static str> {
        let ids: Vec<&str> = ids.iter().map(|name| self.id(name)).collect();
        let mut pairs = vec![];
        let mut inside = String::new();
        for (list, parameter, set, element) in [
            (by, "ExecutableBy", "executableBySet", "user"),
            (ids.as_slice(), "ImageId", "imagesSet", "imageId"),
            (owners, "Owner", "ownersSet", "owner"),
        ] {
            inside.push_str(&format!("<{set}>"));
            for (number, value) in (1..).zip(list) {
                pairs.push((format!("{parameter}.{number}"), (*value).to_owned()));
                inside.push_str(&format!("<item><{element}>{value}</{element}></item>"));
            }
            inside.push_str(&format!("</{set}>"));
        }
        let pairs: Vec<(&str, &str)> = pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let by_query = self.client.ask("DescribeImages", OLD, &pairs).await.ok();
        let by_soap = self.client.soap("DescribeImages", OLD, &inside).await.ok();
        let found = by_query.values("imageId");
        assert!(found.is_sorted_by(|one, next| one < next), "{found:?}");
        assert_eq!(by_soap.values("imageId"), found);
        self.names(&found)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_chosen_by_the_references_rules() {
    let gallery = Gallery::open().await;
    let launchable = [
        "my-private",
        "my-public",
        "my-granted",
        "my-self-granted",
        "my-gone",
        "their-public",
        "their-granted",
        "their-public-granted",
    ];
    let (me, them) = ("000000000001", "000000000002");
    let mine = [
        "my-private",
        "my-public",
        "my-granted",
        "my-self-granted",
        "my-gone",
    ];
    let theirs = ["their-public", "their-granted", "their-public-granted"];
    let public = [
        "my-public",
        "my-gone",
        "their-public",
        "their-public-granted",
    ];
    let given = ["their-granted", "their-public-granted"];
    let to_them = ["my-granted", "my-gone"];
    type Names<'a> = &'a [&'a str];
    let cases: &[(Names<'_>, Names<'_>, Names<'_>, Names<'_>)] = &[
        (&[], &[], &[], &launchable),
        (&[], &["self"], &[], &mine),
        (&[], &[me], &[], &mine),
        // Of others, what one may launch.
        (&[], &[them], &[], &theirs),
        (&[], &["self", them], &[], &launchable),
        (&[], &["amazon"], &[], &[]),
        (&[], &["000000000009"], &[], &[]),
        (&[], &[], &["all"], &public),
        // Explicit permission; one's own are left out.
        (&[], &[], &["self"], &given),
        // An account's: the caller's own images that name it.
        (&[], &[], &[them], &to_them),
        (&[], &[], &["000000000003"], &[]),
        (
            &[],
            &[],
            &["self", them],
            &[
                "their-granted",
                "their-public-granted",
                "my-granted",
                "my-gone",
            ],
        ),
        // All lists must match.
        (&[], &["self"], &["all"], &["my-public", "my-gone"]),
        (&[], &["self"], &["self"], &[]),
        (
            &[],
            &[them],
            &["all"],
            &["their-public", "their-public-granted"],
        ),
        (
            &["my-private", "their-public"],
            &[],
            &[],
            &["my-private", "their-public"],
        ),
        (
            &["my-private", "their-public"],
            &[them],
            &[],
            &["their-public"],
        ),
        (&["my-private", "their-public"], &[them], &["self"], &[]),
        (
            &["their-public-granted"],
            &[them],
            &["self"],
            &["their-public-granted"],
        ),
        // What exists and may not be launched is left out without a word.
        (
            &["my-private", "their-private", "their-other"],
            &[],
            &[],
            &["my-private"],
        ),
        (&["their-private"], &["self"], &["all"], &[]),
        // One that is named twice is shown once.
        (&["my-private", "my-private"], &[], &[], &["my-private"]),
    ];
    for (ids, owners, by, expected) in cases {
        let expected: BTreeSet<&str> = expected.iter().copied().collect();
        let found = gallery.chosen(ids, owners, by).await;
        assert_eq!(found, expected, "{ids:?} {owners:?} {by:?}");
    }
    let client = &gallery.client;
    for (pairs, inside, code) in [
        (
            ("ImageId.1", "ami-00000000"),
            "<imagesSet><item><imageId>ami-00000000</imageId></item></imagesSet>",
            "InvalidAMIID.NotFound",
        ),
        (
            ("ImageId.1", "emi-00000000"),
            "<imagesSet><item><imageId>emi-00000000</imageId></item></imagesSet>",
            "InvalidAMIID.Malformed",
        ),
        (
            ("Owner.1", "nobody"),
            "<imagesSet></imagesSet><ownersSet><item><owner>nobody</owner></item></ownersSet>",
            "InvalidUserID.Malformed",
        ),
        // `all` is no owner, and `amazon` is nobody who launches.
        (
            ("Owner.1", "all"),
            "<imagesSet></imagesSet><ownersSet><item><owner>all</owner></item></ownersSet>",
            "InvalidUserID.Malformed",
        ),
        (
            ("ExecutableBy.1", "amazon"),
            "<executableBySet><item><user>amazon</user></item></executableBySet><imagesSet></imagesSet>",
            "InvalidUserID.Malformed",
        ),
    ] {
        // Beside an image that exists.
        let both = [pairs, ("ImageId.2", gallery.id("my-private"))];
        let reply = client.ask("DescribeImages", OLD, &both).await;
        assert_eq!(reply.code(400), code);
        let reply = client.soap("DescribeImages", OLD, inside).await;
        let fault = reply.value("SOAP-ENV:Fault/faultcode");
        assert_eq!(fault, Some(format!("Client.{code}")));
    }
    gallery.cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn public_images_show_their_owners_alias() {
    let gallery = Gallery::open().await;
    let engine = &gallery.cloud.engine;
    let (me, them) = (account(1), account(2));
    let name = |owner, alias: &str| engine.set_alias(owner, Some(alias.to_owned()));
    // Words that mean something else, and somebody else's.
    for word in ["self", "all", "000000000001", "Amazon"] {
        assert!(name(them, word).await.is_err(), "{word}");
    }
    name(them, "amazon").await.expect("an alias");
    assert!(name(me, "amazon").await.is_err());
    name(me, "example").await.expect("an alias");
    name(me, "example").await.expect("the same again");
    let theirs = BTreeSet::from(["their-public", "their-public-granted"]);
    assert_eq!(gallery.chosen(&[], &["amazon"], &[]).await, theirs);
    let given = BTreeSet::from(["their-public-granted"]);
    assert_eq!(gallery.chosen(&[], &["amazon"], &["self"]).await, given);
    let mine = BTreeSet::from(["my-public", "my-gone"]);
    assert_eq!(gallery.chosen(&[], &["example"], &[]).await, mine);

    let client = &gallery.client;
    let shown = |version: &'static str, name: &'static str| {
        let pairs = [("ImageId.1", gallery.id(name))];
        async move {
            let reply = client.ask("DescribeImages", version, &pairs).await.ok();
            (reply.value("imageOwnerId"), reply.value("imageOwnerAlias"))
        }
    };
    let some = |text: &str| Some(text.to_owned());
    let (number, public) = (some("000000000002"), "their-public");
    // The alias stood for the number until it had a place of its own.
    for version in ["2006-06-26", OLD, "2009-08-15"] {
        assert_eq!(shown(version, public).await, (some("amazon"), None));
        assert_eq!(
            shown(version, "their-granted").await,
            (number.clone(), None)
        );
    }
    for version in ["2009-10-31", "2016-11-15"] {
        assert_eq!(
            shown(version, public).await,
            (number.clone(), some("amazon"))
        );
        assert_eq!(
            shown(version, "their-granted").await,
            (number.clone(), None)
        );
    }
    // The number is an owner all the same.
    assert_eq!(
        gallery.chosen(&[], &["000000000002"], &["all"]).await,
        theirs
    );
    engine.set_alias(them, None).await.expect("taken back");
    assert_eq!(shown(OLD, public).await, (number, None));
    gallery.cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_see_what_is_shown() {
    let gallery = Gallery::open().await;
    let client = &gallery.client;
    let engine = &gallery.cloud.engine;
    let named = engine.set_alias(account(2), Some("amazon".into()));
    named.await.expect("an alias");
    let code = [("Attribute", "productCodes"), ("ProductCode.1", "774F4FF8")];
    client
        .modify_image(OLD, gallery.id("my-private"), &code)
        .await
        .ok();
    let count = |name: &'static str, value: &'static str| {
        let pairs = [("Filter.1.Name", name), ("Filter.1.Value.1", value)];
        async move { client.ask("DescribeImages", "2016-11-15", &pairs).await }
    };
    for (name, value, number) in [
        ("owner-alias", "amazon", 2),
        ("owner-alias", "amaz*", 2),
        ("owner-alias", "self", 0),
        ("owner-id", "000000000002", 3),
        ("owner-id", "amazon", 0),
        ("is-public", "true", 4),
        ("is-public", "false", 4),
        ("state", "deregistered", 1),
        ("state", "available", 7),
        ("name", "their-*", 3),
        ("product-code", "774F4FF8", 1),
        ("product-code", "*", 1),
        ("product-code.type", "devpay", 1),
        ("product-code.type", "marketplace", 0),
        // Nothing here has these.
        ("platform", "*", 0),
        ("block-device-mapping.device-name", "*", 0),
        ("kernel-id", "*", 0),
        ("boot-mode", "*", 0),
        ("scan-result.finding-scan-date", "*", 0),
        (
            "instance-type-specification.supported-instance-type",
            "*",
            0,
        ),
    ] {
        let found = count(name, value).await.ok().values("imageId").len();
        assert_eq!(found, number, "{name} {value}");
    }
    for name in ["block-device-mapping.size", "owner", "product-code.id"] {
        let reply = count(name, "*").await;
        assert_eq!(reply.code(400), "InvalidParameterValue", "{name}");
    }
    gallery.cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deregistered_images_are_shown_and_not_launched() {
    let gallery = Gallery::open().await;
    let (client, id) = (&gallery.client, gallery.id("my-gone"));
    let parsed: ImageId = id.parse().expect("an id");
    assert!(gallery.cloud.engine.snapshot().images.contains_key(&parsed));
    let reply = client
        .ask("DescribeImages", OLD, &[("ImageId.1", id)])
        .await
        .ok();
    assert_eq!(reply.values("imageState"), ["deregistered"]);
    let run = [("ImageId", id), ("MinCount", "1"), ("MaxCount", "1")];
    let reply = client.ask("RunInstances", OLD, &run).await;
    assert_eq!(reply.code(400), "InvalidAMIID.Unavailable");
    let inside = format!(
        "<instancesSet><item><imageId>{id}</imageId><minCount>1</minCount><maxCount>1</maxCount></item></instancesSet><groupSet></groupSet>"
    );
    let reply = client.soap("RunInstances", OLD, &inside).await;
    let fault = reply.value("SOAP-ENV:Fault/faultcode");
    assert_eq!(fault.as_deref(), Some("Client.InvalidAMIID.Unavailable"));
    gallery.cloud.stop().await;
}
