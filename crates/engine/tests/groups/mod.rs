//! Rules whose sources are of an account that goes.

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
