//! Products: who may launch what, and what keeps a product from being deleted.

use std::sync::Arc;

use cumulet_domain::Error;
use cumulet_domain::ids::IdFormat;
use cumulet_domain::images::Image;
use cumulet_domain::instances::InstanceState;
use cumulet_engine::Engine;
use cumulet_engine::products::UsageQuery;
use cumulet_engine::records::Stored;
use cumulet_store::{MemoryEngine, Plan, Store};

use crate::common::{Cloud, account, caller_of, launch_of};

/// A cloud whose image, which everybody may launch, carries these codes.
async fn cloud_with(codes: &[&str]) -> Cloud {
    let store = Store::open(Box::new(MemoryEngine::default()), Default::default()).expect("store");
    let cloud = Cloud::over(store.clone(), IdFormat::Long).await;
    let image = cloud.engine.snapshot().images[&cloud.image].clone();
    let image = Image {
        is_public: true,
        product_codes: codes.iter().map(|code| (*code).to_owned()).collect(),
        ..Image::clone(&image)
    };
    let plan = move |_: &_| {
        Ok::<_, Error>(Plan {
            changes: vec![image.put()],
            answer: (),
        })
    };
    store.commit(plan).await.expect("image");
    cloud
}

async fn product(engine: &Engine, owner: u32, code: &str) {
    let made = engine.create_product(account(owner), Some(code.into()));
    assert_eq!(made.await.expect("product").code, code);
}

fn is_not_subscribed<T: std::fmt::Debug>(answer: Result<T, Error>, code: &str) -> bool {
    matches!(answer, Err(Error::NotSubscribed { message }) if message.contains(code))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_needs_a_subscription_to_each_product_of_its_image() {
    let cloud = cloud_with(&["ONE", "TWO"]).await;
    let engine = &cloud.engine;
    let (seller, buyer) = (caller_of(1), caller_of(2));
    let launch = || launch_of(cloud.image, 1);
    // Nobody sells these yet, and so nobody can be subscribed.
    assert!(is_not_subscribed(
        engine.launch(&seller, launch()).await,
        "ONE"
    ));
    product(engine, 1, "ONE").await;
    product(engine, 1, "TWO").await;
    engine.launch(&seller, launch()).await.expect("his own");
    assert!(is_not_subscribed(
        engine.launch(&buyer, launch()).await,
        "ONE"
    ));
    let first = engine.subscribe(account(2), "ONE".into()).await;
    let first = first.expect("subscribed");
    let again = engine.subscribe(account(2), "ONE".into()).await;
    assert_eq!(again.expect("still subscribed"), first);
    assert!(is_not_subscribed(
        engine.launch(&buyer, launch()).await,
        "TWO"
    ));
    let second = engine.subscribe(account(2), "TWO".into()).await;
    second.expect("subscribed");
    let running = engine.launch(&buyer, launch()).await.expect("subscribed");
    let id = running.instances[0].id;
    cloud.wait_for(id, InstanceState::Running).await;

    let ended = engine.unsubscribe(account(2), "ONE".into()).await;
    ended.expect("unsubscribed");
    let ended = engine.unsubscribe(account(2), "ONE".into()).await;
    assert!(matches!(ended, Err(Error::IncorrectState { .. })));
    assert!(is_not_subscribed(
        engine.launch(&buyer, launch()).await,
        "ONE"
    ));
    let state = engine.snapshot().instances[&id].state();
    assert_eq!(state, InstanceState::Running, "what runs goes on");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn codes_are_distinct_and_checked_and_belong_to_an_account() {
    let cloud = cloud_with(&[]).await;
    let engine = &cloud.engine;
    let mut codes = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let made = engine.create_product(account(1), None).await;
        let code = made.expect("product").code;
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
        assert!(code.len() == 8 && code.bytes().all(is_hex), "{code}");
        assert!(codes.insert(code));
    }
    product(engine, 1, "MINE").await;
    let taken = engine.create_product(account(2), Some("MINE".into())).await;
    assert!(matches!(taken, Err(Error::AlreadyExists { .. })));
    let bad = engine.create_product(account(2), Some("a/b".into())).await;
    assert!(matches!(bad, Err(Error::InvalidValue { .. })));
    let nobody = engine.create_product(account(9), None).await;
    assert!(matches!(nobody, Err(Error::NotFound { .. })));
    let unknown = engine.subscribe(account(2), "OTHER".into()).await;
    assert!(matches!(unknown, Err(Error::NotFound { .. })));
    let nobody = engine.subscribe(account(9), "MINE".into()).await;
    assert!(matches!(nobody, Err(Error::NotFound { .. })));
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_product_goes_when_nothing_carries_it_and_its_usage_stays() {
    let cloud = cloud_with(&["ONE"]).await;
    let engine = &cloud.engine;
    product(engine, 1, "ONE").await;
    engine
        .subscribe(account(2), "ONE".into())
        .await
        .expect("subscribed");
    let delete = async || engine.delete_product("ONE".into()).await;
    let is_used = |answer: Result<(), Error>, by: &str| matches!(answer, Err(Error::IncorrectState { message, .. }) if message.contains(by));
    let buyer = caller_of(2);
    let launched = engine.launch(&buyer, launch_of(cloud.image, 1)).await;
    let id = launched.expect("launch").instances[0].id;
    cloud.wait_for(id, InstanceState::Running).await;
    assert!(is_used(delete().await, &cloud.image.to_string()));
    let seller = caller_of(1);
    let confirmed = engine.confirm_product_instance(&seller, "ONE", id);
    assert_eq!(confirmed, Ok(Some(account(2))));
    let gone = engine.deregister_image(&seller, cloud.image).await;
    gone.expect("deregistered");
    assert!(is_used(delete().await, &id.to_string()));
    assert!(matches!(
        engine.delete_account(account(1)).await,
        Err(Error::IncorrectState { .. })
    ));
    engine.terminate(&buyer, vec![id]).await.expect("ends");
    cloud.wait_for(id, InstanceState::Terminated).await;
    delete().await.expect("nothing carries it");
    let state = engine.snapshot();
    assert!(state.products.is_empty() && state.subscriptions.is_empty());
    let used = engine.product_usage(&UsageQuery::default(), 10);
    let used: Vec<_> = used.iter().map(|it| (it.usage.instance, it.hour)).collect();
    assert_eq!(used, [(id, 0)]);
    // The code would make that usage another's.
    let again = engine.create_product(account(2), Some("ONE".into())).await;
    assert!(matches!(again, Err(Error::AlreadyExists { .. })));
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_goes_with_its_subscriptions() {
    let cloud = cloud_with(&["ONE"]).await;
    let engine = &cloud.engine;
    product(engine, 1, "ONE").await;
    let subscribed = engine.subscribe(account(2), "ONE".into()).await;
    subscribed.expect("subscribed");
    engine.delete_account(account(2)).await.expect("deleted");
    assert!(engine.snapshot().subscriptions.is_empty());
    let product = engine.snapshot().products["ONE"].clone();
    assert_eq!(Arc::unwrap_or_clone(product).owner, account(1));
    cloud.stop().await;
}
