//! New ids of both forms when what is drawn is in use.

use std::collections::BTreeMap;

use cumulet_domain::ids::IdFormat;
use cumulet_domain::images::BootKind;
use cumulet_domain::instances::InstanceState;
use cumulet_domain::keypairs::KeyType;
use cumulet_domain::tags::TagMap;
use cumulet_domain::{Digest, Error};
use cumulet_engine::images::StoredBytes;
use cumulet_engine::launch::Launch;

use crate::common::{Cloud, account, caller_of, launch_of};

/// Bits that only ids of 17 digits have room for.
const HIGH: u128 = 0xf << 64;
/// First try and the further ones.
const DRAWS: usize = 17;

/// The digits of an id.
fn digits(id: impl ToString) -> String {
    let text = id.to_string();
    let (_, digits) = text.split_once('-').expect("an id");
    digits.to_owned()
}

async fn add_image(cloud: &Cloud, name: &str) -> Result<String, Error> {
    let stored = StoredBytes {
        digest: Digest([7; 32]),
        size_bytes: 1 << 20,
        kind: BootKind::Disk,
    };
    let engine = &cloud.engine;
    let image = engine.add_stored_image(account(1), name.into(), false, stored);
    Ok(digits(image.await?.id))
}

async fn add_key(cloud: &Cloud, name: &str) -> Result<String, Error> {
    let (engine, me) = (&cloud.engine, caller_of(1));
    let created = engine.create_key_pair(&me, name.into(), KeyType::Rsa, TagMap::new());
    Ok(digits(created.await?.key_pair.id))
}

async fn add_group(cloud: &Cloud, name: &str) -> Result<String, Error> {
    let (engine, me) = (&cloud.engine, caller_of(1));
    let about = "of a test".to_owned();
    let created = engine.create_security_group(&me, name.into(), about, TagMap::new());
    Ok(digits(created.await?.id))
}

/// The digits of the reservation and of its instances.
async fn launch(cloud: &Cloud, count: u32) -> Result<Vec<String>, Error> {
    let launch = launch_of(cloud.image, count);
    let view = cloud.engine.launch(&caller_of(1), launch).await?;
    let instances = view.instances.iter().map(|it| digits(it.id));
    Ok(std::iter::once(digits(view.reservation.id))
        .chain(instances)
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_are_taken_give_way_to_further_draws() {
    for (format, width) in [(IdFormat::Short, 8), (IdFormat::Long, 17)] {
        let cloud = Cloud::with_ids(format).await;
        let says = |number: u128| {
            let high = if width == 17 { HIGH } else { 0 };
            format!("{:0width$x}", number | high)
        };
        let draw = |numbers: &[u128]| {
            let numbers: Vec<u128> = numbers.iter().map(|it| it | HIGH).collect();
            cloud.random.say(&numbers);
        };
        draw(&[1]);
        assert_eq!(add_image(&cloud, "one").await, Ok(says(1)));
        draw(&[1, 1, 2]);
        assert_eq!(add_image(&cloud, "two").await, Ok(says(2)));
        draw(&[1]);
        assert_eq!(add_key(&cloud, "one").await, Ok(says(1)));
        draw(&[1, 1, 2]);
        assert_eq!(add_key(&cloud, "two").await, Ok(says(2)));
        draw(&[1]);
        assert_eq!(add_group(&cloud, "one").await, Ok(says(1)));
        draw(&[1, 1, 2]);
        assert_eq!(add_group(&cloud, "two").await, Ok(says(2)));

        // A launch draws for the reservation first, then for its instances, which differ among
        // each other too.
        draw(&[1, 2]);
        assert_eq!(launch(&cloud, 1).await, Ok(vec![says(1), says(2)]));
        draw(&[1, 3, 2, 3, 5, 3, 6, 7]);
        let second = launch(&cloud, 3).await;
        assert_eq!(second, Ok(vec![says(5), says(3), says(6), says(7)]));
        cloud.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_draws_are_taken_nothing_is_made() {
    let cloud = Cloud::with_ids(IdFormat::Short).await;
    let refused = |outcome: Option<Error>| {
        assert!(
            matches!(&outcome, Some(Error::ServiceUnavailable { log }) if log.contains("ids.format")),
            "{outcome:?}"
        );
    };
    let same = [9; DRAWS];
    cloud.random.say(&same);
    add_image(&cloud, "one").await.expect("the first");
    cloud.random.say(&same);
    refused(add_image(&cloud, "two").await.err());
    cloud.random.say(&same);
    add_key(&cloud, "one").await.expect("the first");
    cloud.random.say(&same);
    refused(add_key(&cloud, "two").await.err());
    cloud.random.say(&same);
    add_group(&cloud, "one").await.expect("the first");
    cloud.random.say(&same);
    refused(add_group(&cloud, "two").await.err());
    // Two instances of one launch.
    cloud.random.say(&[9; DRAWS + 2]);
    refused(launch(&cloud, 2).await.err());

    let state = cloud.engine.snapshot();
    assert_eq!(state.images.len(), 2, "with that of the beginning");
    assert_eq!(state.key_pairs.len(), 1);
    assert_eq!(state.security_groups.len(), 1);
    assert!(state.reservations.is_empty() && state.instances.is_empty());

    // Draws that are free help at once.
    cloud.random.say(&[9, 10]);
    assert_eq!(add_key(&cloud, "two").await, Ok("0000000a".to_owned()));
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_free_again_only_when_nothing_shows_it() {
    let cloud = Cloud::with_ids(IdFormat::Short).await;
    let (engine, me) = (&cloud.engine, caller_of(1));

    // A key pair that was deleted is shown nowhere.
    cloud.random.say(&[3]);
    add_key(&cloud, "one").await.expect("key pair");
    let deleted = engine.delete_key_pair(&me, "one".into()).await;
    deleted.expect("deleted");
    cloud.random.say(&[3]);
    assert_eq!(add_key(&cloud, "two").await, Ok("00000003".to_owned()));

    // A group that was deleted is still named by the launch that was in it.
    cloud.random.say(&[4]);
    add_group(&cloud, "one").await.expect("group");
    let group = engine.snapshot().security_groups.keys().next().copied();
    let group = cumulet_domain::security_groups::GroupRef::Id(group.expect("the group"));
    let launch = Launch {
        security_groups: vec![group.clone()],
        tags: BTreeMap::new(),
        ..launch_of(cloud.image, 1)
    };
    let view = engine.launch(&me, launch).await.expect("launch");
    let id = view.instances[0].id;
    engine.terminate(&me, vec![id]).await.expect("terminate");
    cloud.wait_for(id, InstanceState::Terminated).await;
    let deleted = engine.delete_security_group(&me, group).await;
    deleted.expect("deleted");
    cloud.random.say(&[4, 5]);
    assert_eq!(add_group(&cloud, "one").await, Ok("00000005".to_owned()));
    cloud.stop().await;
}
