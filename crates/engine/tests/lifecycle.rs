//! The engine over the simulated host: launches, limits, tokens, terminations, restarts.

mod common;
mod groups;
mod ids;
mod images;
mod products;
mod tags;

use common::{Cloud, caller_of, launch_of};
use cumulet_domain::instances::InstanceState;
use cumulet_domain::{Error, ImageId};
use cumulet_engine::launch::{Launch, Part};

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_runs_and_terminates() {
    let cloud = Cloud::in_memory().await;
    let me = caller_of(1);
    let view = cloud
        .engine
        .launch(&me, launch_of(cloud.image, 2))
        .await
        .expect("launch");
    assert_eq!(view.instances.len(), 2);
    let addresses: std::collections::BTreeSet<_> =
        view.instances.iter().map(|it| it.address).collect();
    assert_eq!(addresses.len(), 2, "each instance has its own address");
    let ids: Vec<_> = view.instances.iter().map(|it| it.id).collect();
    cloud.wait_for(ids[0], InstanceState::Running).await;
    cloud.wait_for(ids[1], InstanceState::Running).await;
    let console = cloud
        .engine
        .console_output(&me, ids[0])
        .await
        .expect("console");
    assert!(String::from_utf8_lossy(&console.bytes).contains("simulated"));
    cloud.engine.reboot(&me, ids.clone()).await.expect("reboot");
    let changes = cloud
        .engine
        .terminate(&me, ids.clone())
        .await
        .expect("terminate");
    assert_eq!(changes[0].previous, InstanceState::Running);
    assert_eq!(changes[0].current, InstanceState::ShuttingDown);
    cloud.wait_for(ids[0], InstanceState::Terminated).await;
    cloud.wait_for(ids[1], InstanceState::Terminated).await;
    let again = cloud
        .engine
        .terminate(&me, ids.clone())
        .await
        .expect("terminate is idempotent");
    assert_eq!(again[0].current, InstanceState::Terminated);
    assert_eq!(
        cloud.engine.orphans().await.expect("orphans"),
        Vec::<String>::new()
    );
    assert!(cloud.engine.host().vms.vms().await.expect("vms").is_empty());
    assert!(
        cloud
            .engine
            .host()
            .network
            .ports()
            .await
            .expect("ports")
            .is_empty()
    );
    assert!(
        cloud
            .engine
            .host()
            .disks
            .disks()
            .await
            .expect("disks")
            .is_empty()
    );
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_token_answers_once() {
    let cloud = Cloud::in_memory().await;
    let me = caller_of(1);
    let request = Launch {
        client_token: Some("token-1".into()),
        ..launch_of(cloud.image, 1)
    };
    let mut answers = vec![];
    for _ in 0..8 {
        let (engine, me, request) = (cloud.engine.clone(), me.clone(), request.clone());
        answers.push(tokio::spawn(
            async move { engine.launch(&me, request).await },
        ));
    }
    let mut seen = std::collections::BTreeSet::new();
    for answer in answers {
        let view = answer.await.expect("joined").expect("launch");
        seen.insert(view.reservation.id);
    }
    assert_eq!(seen.len(), 1, "one reservation for eight equal requests");
    let other = Launch {
        parts: launch_of(cloud.image, 2).parts,
        ..request
    };
    let refused = cloud
        .engine
        .launch(&me, other)
        .await
        .expect_err("another request");
    assert!(
        matches!(refused, Error::IdempotentParameterMismatch { .. }),
        "{refused:?}"
    );
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_under_concurrency() {
    let cloud = Cloud::in_memory().await;
    let me = caller_of(1);
    let mut asked = vec![];
    for _ in 0..12 {
        let (engine, me, request) = (cloud.engine.clone(), me.clone(), launch_of(cloud.image, 3));
        asked.push(tokio::spawn(
            async move { engine.launch(&me, request).await },
        ));
    }
    let mut launched = 0;
    for answer in asked {
        match answer.await.expect("joined") {
            Ok(view) => launched += view.instances.len(),
            Err(refused) => assert!(
                matches!(refused, Error::LimitExceeded { .. }),
                "{refused:?}"
            ),
        }
    }
    assert_eq!(launched, 18, "six launches of three fit under twenty");
    let mut rest = launch_of(cloud.image, 5);
    rest.parts[0].min_count = 1;
    let view = cloud.engine.launch(&me, rest).await.expect("what is left");
    assert_eq!(view.instances.len(), 2, "as many as fit between the counts");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_see_and_change_nothing() {
    let cloud = Cloud::in_memory().await;
    let (me, other) = (caller_of(1), caller_of(2));
    let view = cloud
        .engine
        .launch(&me, launch_of(cloud.image, 1))
        .await
        .expect("launch");
    let id = view.instances[0].id;
    assert!(
        cloud
            .engine
            .describe_instances(&other, &[])
            .expect("empty")
            .is_empty()
    );
    let left_out = cloud.engine.describe_instances(&other, &[id]);
    assert!(
        left_out
            .expect("EC2 leaves others' instances out")
            .is_empty()
    );
    assert!(cloud.engine.terminate(&other, vec![id]).await.is_err());
    assert!(cloud.engine.reboot(&other, vec![id]).await.is_err());
    assert!(cloud.engine.console_output(&other, id).await.is_err());
    let refused = cloud.engine.launch(&other, launch_of(cloud.image, 1)).await;
    assert!(refused.is_err(), "the image is private");
    cloud.wait_for(id, InstanceState::Running).await;
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_nothing() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("state");
    let me = caller_of(1);
    let cloud = Cloud::on_disk(&path).await;
    let view = cloud
        .engine
        .launch(&me, launch_of(cloud.image, 3))
        .await
        .expect("launch");
    let ids: Vec<_> = view.instances.iter().map(|it| it.id).collect();
    cloud
        .engine
        .terminate(&me, vec![ids[2]])
        .await
        .expect("terminate");
    cloud.stop().await;

    let cloud = Cloud::on_disk(&path).await;
    let seen = cloud.engine.describe_instances(&me, &[]).expect("describe");
    assert_eq!(seen.len(), 1);
    let again: Vec<_> = seen[0]
        .instances
        .iter()
        .map(|it| (it.id, it.address))
        .collect();
    let before: Vec<_> = view
        .instances
        .iter()
        .map(|it| (it.id, it.address))
        .collect();
    assert_eq!(again, before);
    cloud.wait_for(ids[0], InstanceState::Running).await;
    cloud.wait_for(ids[1], InstanceState::Running).await;
    cloud.wait_for(ids[2], InstanceState::Terminated).await;
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_launches_change_nothing() {
    let cloud = Cloud::in_memory().await;
    let me = caller_of(1);
    let good = launch_of(cloud.image, 1);
    let part = good.parts[0].clone();
    let of = |parts: Vec<Part>| Launch {
        parts,
        ..good.clone()
    };
    let bad = [
        of(vec![]),
        of(vec![Part {
            min_count: 0,
            max_count: 0,
            ..part.clone()
        }]),
        of(vec![Part {
            min_count: 2,
            ..part.clone()
        }]),
        of(vec![Part {
            key_name: Some("nobody".into()),
            ..part.clone()
        }]),
        // One bad part is enough.
        of(vec![
            part.clone(),
            Part {
                image: ImageId::from_random(77),
                ..part.clone()
            },
        ]),
        of(vec![
            part.clone(),
            Part {
                key_name: Some("nobody".into()),
                ..part.clone()
            },
        ]),
        of(vec![part.clone(); 81]),
        Launch {
            instance_type: Some("z9.huge".into()),
            ..good.clone()
        },
        Launch {
            user_data: Some(vec![0; 16 * 1024 + 1].into()),
            ..good.clone()
        },
        Launch {
            client_token: Some("x".repeat(65)),
            ..good.clone()
        },
        Launch {
            zone: Some("mars-1a".into()),
            ..good.clone()
        },
    ];
    for request in bad {
        let text = format!("{request:?}");
        assert!(cloud.engine.launch(&me, request).await.is_err(), "{text}");
    }
    assert!(
        cloud
            .engine
            .describe_instances(&me, &[])
            .expect("describe")
            .is_empty()
    );
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_of_several_images_is_one_reservation_and_one_commit() {
    let cloud = Cloud::in_memory().await;
    let me = caller_of(1);
    let parts = |counts: &[(u32, u32)]| {
        let parts = counts.iter().map(|(min_count, max_count)| Part {
            image: cloud.image,
            min_count: *min_count,
            max_count: *max_count,
            key_name: None,
        });
        Launch {
            parts: parts.collect(),
            client_token: Some(format!("{counts:?}")),
            ..launch_of(cloud.image, 1)
        }
    };
    let asked = parts(&[(1, 3), (2, 2), (0, 9)]);
    let view = cloud.engine.launch(&me, asked.clone()).await.expect("room");
    // One image: its instances are counted from part to part.
    let indexes: Vec<u32> = view.instances.iter().map(|it| it.launch_index).collect();
    assert_eq!(indexes, (0..14).collect::<Vec<u32>>());
    assert_eq!(view.reservation.instances.len(), 14);
    let again = cloud.engine.launch(&me, asked).await.expect("the same");
    assert_eq!(again.reservation.id, view.reservation.id);
    let state = cloud.engine.snapshot();
    assert_eq!(state.account_usage[&me.account], 14);
    // The limit is 20: all minimums count.
    let refused = cloud.engine.launch(&me, parts(&[(4, 4), (3, 3)])).await;
    assert!(
        matches!(refused, Err(Error::LimitExceeded { .. })),
        "{refused:?}"
    );
    let rest = cloud.engine.launch(&me, parts(&[(1, 4), (1, 4)])).await;
    assert_eq!(rest.expect("the rest").instances.len(), 6);
    cloud.stop().await;
}
