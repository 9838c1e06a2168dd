//! Tags: whose they are, that they come with a launch in one commit, and that nothing is left.

use std::collections::BTreeMap;

use cumulet_domain::instances::LAUNCH_COUNT_MAX;
use cumulet_domain::tags::{Removal, TAGS_MAX, TagMap, TaggedId, TaggedKind};
use cumulet_domain::{Error, InstanceId, NetworkInterfaceId, Resource, SubnetId, VolumeId, VpcId};
use cumulet_engine::launch::Launch;

use crate::common::{Cloud, account, caller_of, launch_of};

fn map(tags: &[(&str, &str)]) -> TagMap {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    tags.iter().map(own).collect()
}

fn of_launch() -> BTreeMap<TaggedKind, TagMap> {
    BTreeMap::from([
        (TaggedKind::Instance, map(&[("Name", "web"), ("env", "t")])),
        (TaggedKind::Volume, map(&[("Name", "root")])),
    ])
}

/// Resource, key and value of each line.
fn lines(cloud: &Cloud, number: u32) -> Vec<String> {
    let views = cloud.engine.describe_tags(&caller_of(number));
    let line = |view: &cumulet_engine::tags::TagView| {
        format!("{} {}={}", view.resource, view.key, view.value)
    };
    views.iter().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_of_a_launch_come_with_it_and_change_one_by_one() {
    let cloud = Cloud::in_memory().await;
    let me = caller_of(1);
    let request = Launch {
        tags: of_launch(),
        client_token: Some("token".into()),
        ..launch_of(cloud.image, 2)
    };
    let view = cloud.engine.launch(&me, request.clone()).await.unwrap();
    let ids: Vec<InstanceId> = view.instances.iter().map(|it| it.id).collect();
    let (one, other) = (ids[0].min(ids[1]), ids[0].max(ids[1]));
    assert_eq!(lines(&cloud, 1).len(), 6);
    // The first change of one leaves the other as it was, and a key that is taken away stays away.
    let engine = &cloud.engine;
    let ids = [one.into()];
    engine
        .create_tags(&me, &ids, map(&[("env", "production")]))
        .await
        .unwrap();
    let name = Removal {
        key: "Name".into(),
        value: Some("other".into()),
    };
    engine
        .delete_tags(&me, &ids, vec![name.clone()])
        .await
        .unwrap();
    let name = Removal {
        value: Some("web".into()),
        ..name
    };
    engine.delete_tags(&me, &ids, vec![name]).await.unwrap();
    let disks = [VolumeId::of(one).into(), VolumeId::of(other).into()];
    engine.delete_tags(&me, &disks[..1], vec![]).await.unwrap();
    let expected = [
        format!("{one} env=production"),
        format!("{other} Name=web"),
        format!("{other} env=t"),
        format!("{} Name=root", VolumeId::of(other)),
    ];
    assert_eq!(lines(&cloud, 1), expected);
    // The same request gets the same answer; other tags are another request.
    let again = engine.launch(&me, request.clone()).await.unwrap();
    assert_eq!(again.reservation.id, view.reservation.id);
    let otherwise = Launch {
        tags: BTreeMap::new(),
        ..request
    };
    let refused = engine.launch(&me, otherwise).await.unwrap_err();
    assert!(matches!(refused, Error::IdempotentParameterMismatch { .. }));
    assert_eq!(engine.snapshot().stray_tags(), Vec::<String>::new());
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_biggest_launch_with_tags_is_one_commit() {
    let cloud = Cloud::in_memory().await;
    let me = caller_of(1);
    let limit = Some(LAUNCH_COUNT_MAX);
    cloud
        .engine
        .set_instance_limit(account(1), limit)
        .await
        .unwrap();
    let request = Launch {
        tags: of_launch(),
        user_data: Some("data".into()),
        instance_type: Some("t2.nano".into()),
        ..launch_of(cloud.image, LAUNCH_COUNT_MAX)
    };
    let view = cloud.engine.launch(&me, request).await.unwrap();
    assert_eq!(view.instances.len(), 80);
    // All of them are written on in one call, which is several commits.
    let mut ids: Vec<TaggedId> = vec![];
    for instance in &view.instances {
        ids.extend(TaggedId::of_instance(instance.id));
    }
    let tags = map(&[("more", "")]);
    cloud.engine.create_tags(&me, &ids, tags).await.unwrap();
    assert_eq!(lines(&cloud, 1).len(), 80 * (3 + 2 + 1));
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_writes_and_all_or_nothing() {
    let cloud = Cloud::in_memory().await;
    let (me, stranger) = (caller_of(1), caller_of(2));
    let engine = &cloud.engine;
    let view = engine.launch(&me, launch_of(cloud.image, 1)).await.unwrap();
    let id = view.instances[0].id;
    let own: [TaggedId; 6] = [
        id.into(),
        NetworkInterfaceId::of(id).into(),
        VolumeId::of(id).into(),
        cloud.image.into(),
        VpcId::of(account(1)).into(),
        SubnetId::of(account(1)).into(),
    ];
    let tags = map(&[("a", "b")]);
    engine.create_tags(&me, &own, tags.clone()).await.unwrap();
    assert_eq!(lines(&cloud, 1).len(), own.len());
    assert_eq!(lines(&cloud, 2), Vec::<String>::new());
    for id in own {
        for refused in [
            engine.create_tags(&stranger, &[id], tags.clone()).await,
            engine.delete_tags(&stranger, &[id], vec![]).await,
        ] {
            assert!(
                matches!(refused, Err(Error::NotFound { resource, .. }) if resource == id.resource()),
                "{id} {refused:?}"
            );
        }
    }
    // One that is not there spoils the call, wherever it stands.
    let nobody: InstanceId = "i-0123456789abcdef0".parse().unwrap();
    let both = [id.into(), nobody.into()];
    let refused = engine.create_tags(&me, &both, map(&[("c", "d")])).await;
    assert!(matches!(refused, Err(Error::NotFound { .. })));
    let full: TagMap = (0..TAGS_MAX)
        .map(|n| (format!("k{n}"), String::new()))
        .collect();
    let vpc: TaggedId = VpcId::of(account(1)).into();
    engine.delete_tags(&me, &[vpc], vec![]).await.unwrap();
    let refused = engine
        .create_tags(&me, &[vpc, id.into()], full.clone())
        .await;
    assert!(
        matches!(
            refused,
            Err(Error::LimitExceeded {
                resource: Resource::Tag,
                ..
            })
        ),
        "{refused:?}"
    );
    assert_eq!(lines(&cloud, 1).len(), own.len() - 1);
    engine.create_tags(&me, &[vpc], full).await.unwrap();
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_there_after_a_restart_and_go_with_their_account() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let cloud = Cloud::on_disk(&path).await;
    let request = Launch {
        tags: of_launch(),
        ..launch_of(cloud.image, 1)
    };
    cloud.engine.launch(&caller_of(1), request).await.unwrap();
    let own = [VpcId::of(account(2)).into()];
    let tags = map(&[("Name", "net")]);
    cloud
        .engine
        .create_tags(&caller_of(2), &own, tags)
        .await
        .unwrap();
    let before = (lines(&cloud, 1), lines(&cloud, 2));
    assert_eq!((before.0.len(), before.1.len()), (3, 1));
    cloud.stop().await;
    let cloud = Cloud::on_disk(&path).await;
    assert_eq!((lines(&cloud, 1), lines(&cloud, 2)), before);
    cloud.engine.delete_account(account(2)).await.unwrap();
    assert!(cloud.engine.snapshot().tags.is_empty());
    cloud.stop().await;
}
