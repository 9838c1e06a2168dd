//! Rules whose sources go: groups of somebody else, or the account that has them.

use std::collections::BTreeSet;
use std::sync::Arc;

use cumulet_domain::Error;
use cumulet_domain::keypairs::KeyType;
use cumulet_domain::security_groups::{Era, GroupRef, SecurityGroup, Source, Traffic};
use cumulet_engine::security_groups::{RuleAsked, SourceAsked};

use crate::common::{Cloud, account, caller_of};

/// So many groups of the first account, each of which admits the third's `default` and the world.
const GROUPS: usize = 45;
/// So many access keys, and their user and the account, fit in a commit; with `GROUPS` they do not.
const KEYS: usize = 95;

fn asked(source: SourceAsked) -> RuleAsked {
    RuleAsked {
        traffic: Traffic::Tcp { from: 80, to: 80 },
        source,
        description: None,
    }
}

fn default_of_three() -> RuleAsked {
    asked(SourceAsked::Group {
        owner: Some(account(3)),
        group: GroupRef::Name("default".into()),
        name: None,
    })
}

fn groups_of_one(cloud: &Cloud) -> Vec<Arc<SecurityGroup>> {
    let all = cloud.engine.describe_security_groups(&caller_of(1), &[]);
    all.unwrap()
        .into_iter()
        .filter(|group| group.name != "default")
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gets_a_number_again_is_not_let_in_by_old_rules() {
    let cloud = Cloud::in_memory().await;
    let (engine, me, them) = (&cloud.engine, caller_of(1), caller_of(3));
    let three = Some(account(3));
    engine.create_account("third".into(), three).await.unwrap();
    for number in 0..GROUPS {
        let name = format!("group {number}");
        engine
            .create_security_group(&me, name.clone(), "of many".into(), Default::default())
            .await
            .unwrap();
        let world = Source::network("0.0.0.0/0").unwrap();
        let rules = vec![default_of_three(), asked(SourceAsked::Known(world))];
        engine
            .authorize_ingress(&me, GroupRef::Name(name), Era::Numbered, rules)
            .await
            .unwrap();
    }
    // What cannot go changes nothing of others'.
    let theirs = engine.create_key_pair(&them, "key".into(), KeyType::Rsa, Default::default());
    theirs.await.unwrap();
    let refused = engine.delete_account(account(3)).await;
    assert!(matches!(refused, Err(Error::IncorrectState { .. })));
    assert!(
        groups_of_one(&cloud)
            .iter()
            .all(|group| group.ingress.len() == 2)
    );
    let key = engine.delete_key_pair(&them, "key".into()).await;
    assert!(key.unwrap().is_some());
    // Nor what has too much of its own, though all of it may go.
    let user = || "third".to_owned();
    engine.create_user(account(3), user(), None).await.unwrap();
    for number in 0..KEYS {
        let id = format!("AKIA{number:016}");
        engine
            .create_access_key(account(3), user(), id, "secret", BTreeSet::from([2]))
            .await
            .unwrap();
    }
    let refused = engine.delete_account(account(3)).await;
    // A commit has 100 changes: 40 groups of others, the account, and these.
    let message = format!(
        "has {} users, keys, certificates, subscriptions and other records, and 59 can go at once",
        KEYS + 1
    );
    assert!(
        matches!(&refused, Err(Error::IncorrectState { message: told, .. }) if told.contains(&message)),
        "{refused:?}"
    );
    assert!(
        groups_of_one(&cloud)
            .iter()
            .all(|group| group.ingress.len() == 2)
    );
    engine.delete_user(account(3), user()).await.unwrap();

    engine.delete_account(account(3)).await.unwrap();
    engine.create_account("other".into(), three).await.unwrap();
    let groups = groups_of_one(&cloud);
    assert_eq!(groups.len(), GROUPS);
    for group in &groups {
        assert!(
            matches!(&group.ingress[..], [rule] if matches!(rule.source, Source::Network(_))),
            "{group:?}"
        );
    }
    // And may be let in like anybody.
    let group = GroupRef::Name("group 0".into());
    engine
        .authorize_ingress(&me, group, Era::Numbered, vec![default_of_three()])
        .await
        .unwrap();
    cloud.stop().await;
}

fn tcp(port: u16) -> Traffic {
    Traffic::Tcp {
        from: port,
        to: port,
    }
}

/// From the group `web` of the second account, by its name.
fn from_web(traffic: Traffic) -> RuleAsked {
    RuleAsked {
        traffic,
        source: SourceAsked::Group {
            owner: Some(account(2)),
            group: GroupRef::Name("web".into()),
            name: None,
        },
        description: None,
    }
}

/// One generation after the other, the second account makes `web`, the first admits that traffic
/// from it, and all but the last are deleted.
async fn admit_generations(cloud: &Cloud, era: Era, generations: &[&[Traffic]]) {
    let (engine, me, them) = (&cloud.engine, caller_of(1), caller_of(2));
    let (default, web) = (
        GroupRef::Name("default".into()),
        GroupRef::Name("web".into()),
    );
    for (number, traffic) in generations.iter().enumerate() {
        if number > 0 {
            engine
                .delete_security_group(&them, web.clone())
                .await
                .unwrap();
        }
        engine
            .create_security_group(&them, "web".into(), "theirs".into(), Default::default())
            .await
            .unwrap();
        for traffic in *traffic {
            let rules = vec![from_web(*traffic)];
            engine
                .authorize_ingress(&me, default.clone(), era, rules)
                .await
                .unwrap();
        }
    }
}

/// The traffic of the rules from `web`, in their order.
fn admitted(cloud: &Cloud) -> Vec<Traffic> {
    let default = GroupRef::Name("default".into());
    let groups = cloud
        .engine
        .describe_security_groups(&caller_of(1), &[default]);
    let is_theirs =
        |source: &Source| matches!(source, Source::Group { owner, .. } if *owner == account(2));
    let group = groups.unwrap().remove(0);
    let rules = group.ingress.iter().filter(|it| is_theirs(&it.source));
    rules.map(|it| it.traffic).collect()
}

async fn revoke(cloud: &Cloud, era: Era, traffic: &[Traffic]) -> Result<(), Error> {
    let rules = traffic.iter().copied().map(from_web).collect();
    let default = GroupRef::Name("default".into());
    let (engine, me) = (&cloud.engine, caller_of(1));
    let revoked = engine.revoke_ingress(&me, default, era, rules).await;
    revoked.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shown_from_groups_of_one_name_is_revoked_by_it() {
    // The old one's rule, while there is a new group that has another.
    let cloud = Cloud::in_memory().await;
    admit_generations(&cloud, Era::Numbered, &[&[tcp(22)], &[tcp(80)]]).await;
    let refused = revoke(&cloud, Era::Numbered, &[tcp(443)]).await;
    assert!(matches!(refused, Err(Error::NotFound { .. })));
    revoke(&cloud, Era::Numbered, &[tcp(22)]).await.unwrap();
    assert_eq!(admitted(&cloud), [tcp(80)]);
    cloud.stop().await;

    // Both are gone, and the name is nobody's or another's.
    for last in [None, Some(&[][..])] {
        let cloud = Cloud::in_memory().await;
        let (first, second) = ([tcp(22)], [tcp(80)]);
        let mut generations: Vec<&[Traffic]> = vec![&first, &second];
        generations.extend(last);
        admit_generations(&cloud, Era::Numbered, &generations).await;
        if last.is_none() {
            let web = GroupRef::Name("web".into());
            let engine = &cloud.engine;
            engine
                .delete_security_group(&caller_of(2), web)
                .await
                .unwrap();
        }
        revoke(&cloud, Era::Numbered, &[tcp(80)]).await.unwrap();
        assert_eq!(admitted(&cloud), [tcp(22)]);
        let refused = revoke(&cloud, Era::Numbered, &[tcp(80)]).await;
        assert!(matches!(refused, Err(Error::NotFound { .. })));
        revoke(&cloud, Era::Numbered, &[tcp(22)]).await.unwrap();
        assert_eq!(admitted(&cloud), []);
        cloud.stop().await;
    }

    // One text for two rules: each time it is said, one of them goes.
    let cloud = Cloud::in_memory().await;
    admit_generations(&cloud, Era::Numbered, &[&[tcp(22)], &[tcp(22)]]).await;
    revoke(&cloud, Era::Numbered, &[tcp(22), tcp(22)])
        .await
        .unwrap();
    assert_eq!(admitted(&cloud), []);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn classic_words_find_the_group_that_has_all_traffic_or_its_three_parts() {
    let all_tcp = Traffic::Tcp {
        from: 0,
        to: u16::MAX,
    };
    let all_udp = Traffic::Udp {
        from: 0,
        to: u16::MAX,
    };
    let all_icmp = Traffic::Icmp { kind: -1, code: -1 };
    let three = [all_tcp, all_udp, all_icmp];
    // All of the old one is shown as three permissions, and each can be revoked.
    let cloud = Cloud::in_memory().await;
    admit_generations(&cloud, Era::Classic, &[&[Traffic::All], &[tcp(80)]]).await;
    revoke(&cloud, Era::Classic, &[all_udp]).await.unwrap();
    assert_eq!(admitted(&cloud), [all_tcp, all_icmp, tcp(80)]);
    revoke(&cloud, Era::Classic, &[all_tcp, all_icmp])
        .await
        .unwrap();
    assert_eq!(admitted(&cloud), [tcp(80)]);
    cloud.stop().await;

    // Three of the old one are all of it.
    let cloud = Cloud::in_memory().await;
    admit_generations(&cloud, Era::Numbered, &[&three, &[tcp(80)]]).await;
    revoke(&cloud, Era::Classic, &[Traffic::All]).await.unwrap();
    assert_eq!(admitted(&cloud), [tcp(80)]);
    cloud.stop().await;

    // All that is shown of an old and a new one goes in one request.
    let cloud = Cloud::in_memory().await;
    let all = [Traffic::All];
    admit_generations(&cloud, Era::Classic, &[&all, &all]).await;
    revoke(&cloud, Era::Classic, &[three, three].concat())
        .await
        .unwrap();
    assert_eq!(admitted(&cloud), []);
    cloud.stop().await;
}
