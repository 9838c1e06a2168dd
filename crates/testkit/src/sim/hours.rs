//! Used hours of a product, over restarts, ends and clocks that jump.
//!
//! Told without dice: what must be counted is known by heart.  That a stop at
//! any point of a new hour changes nothing is the scene `Hour`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cumulet_domain::images::Image;
use cumulet_domain::products::HOUR_MS;
use cumulet_domain::{AccountId, Error, InstanceId, Timestamp};
use cumulet_engine::State;
use cumulet_engine::records::Stored;
use cumulet_host::api::ExitCause;
use cumulet_store::Plan;

use super::clients::caller;
use super::run::{Life, Runtime, calm, found, in_a_life, rest};
use super::scene::{image, launch, own, register_image};
use super::world::{Shared, World};

const CODE: &str = "774F4FF8";
const MINUTE_MS: i64 = 60_000;
/// Two rounds of maintenance.
const SOON: Duration = Duration::from_secs(65);

/// Registers an image with a code that the other account sells, and subscribes to it.
pub(super) async fn sell(life: &Life) {
    register_image(life, image(), 1).await;
    calm(&life.shared).await;
    let with_code = |state: &State| {
        let images = state.images.get(&image());
        let images = images.map(|it| Image {
            product_codes: vec![CODE.into()],
            ..Image::clone(it)
        });
        Ok::<_, Error>(Plan {
            changes: images.iter().map(Stored::put).collect(),
            answer: (),
        })
    };
    let seller = caller(1).account;
    let made = async {
        life.store
            .commit(with_code)
            .await
            .map_err(|_| "the image")?;
        let product = life.engine.create_product(seller, Some(CODE.into()));
        product.await.map_err(|_| "the product")?;
        let subscription = life.engine.subscribe(caller(0).account, CODE.into());
        subscription.await.map_err(|_| "the subscription")
    };
    if let Err(what) = made.await {
        life.shared.lock().breach(format!("{what} is not made"));
    }
}

/// When the first launch was, which is what hours are counted from.
fn launched(world: &World) -> Option<Timestamp> {
    let usage = world.state.product_usage.values().map(|it| it.launched);
    let instances = world.state.instances.values().map(|it| it.launched);
    usage.chain(instances).min()
}

/// While nothing runs: puts the clock to a time after the launch.
pub(super) fn set_clock(shared: &Arc<Shared>, after_ms: i64) {
    let mut world = shared.lock();
    if let Some(launched) = launched(&world) {
        world.base = launched.plus_millis(after_ms);
    }
}

/// Waits until a time after the launch; not at all if it is over.
pub(super) async fn wait_until(life: &Life, after_ms: i64) {
    let left_ms = {
        let world = life.shared.lock();
        launched(&world).map(|at| at.plus_millis(after_ms).millis_since(world.now()))
    };
    let left_ms = u64::try_from(left_ms.unwrap_or(0)).unwrap_or(0);
    tokio::time::sleep(Duration::from_millis(left_ms)).await;
}

/// The durable hours of each instance.
fn counted(world: &World) -> BTreeMap<InstanceId, Vec<u32>> {
    let all = world.state.product_usage.values();
    all.map(|usage| {
        let hours = usage.hours.iter().flat_map(|it| it.first..it.end());
        (usage.instance, hours.collect())
    })
    .collect()
}

/// Breaks the run unless the instances, in the order of their launch, used these first hours.
pub(super) fn expect(world: &mut World, when: &str, expected: &[u32]) {
    let mut instances: Vec<InstanceId> = world.ledger.instances.iter().map(|it| it.1).collect();
    instances.dedup();
    let expected: BTreeMap<InstanceId, Vec<u32>> = instances
        .into_iter()
        .zip(expected)
        .map(|(id, count)| (id, (0..*count).collect()))
        .collect();
    let found = counted(world);
    if found != expected {
        world.breach(format!("{when}: {found:?} were counted, not {expected:?}"));
    }
    let payers: Vec<(AccountId, AccountId)> = world
        .state
        .product_usage
        .values()
        .map(|usage| (usage.account, usage.seller))
        .collect();
    if payers
        .iter()
        .any(|it| *it != (caller(0).account, caller(1).account))
    {
        world.breach(format!("{when}: {payers:?} pay whom?"));
    }
}

/// What must hold of every commit: what was counted stays counted, and is counted once.
pub(super) fn check_counted(world: &mut World, before: &State, after: &State) {
    for (key, new) in &after.product_usage {
        let mut next = 0;
        for hours in &new.hours {
            if hours.first < next || hours.count == 0 {
                world.breach(format!("hours are counted twice: {new:?}"));
            }
            next = hours.end();
        }
        if next > new.next_hour {
            world.breach(format!("hours will be counted twice: {new:?}"));
        }
        let Some(old) = before.product_usage.get(key) else {
            continue;
        };
        let first_new = new.within(None, None).flat_map(|it| it.first..it.end());
        let old_hours = old.within(None, None).flat_map(|it| it.first..it.end());
        let kept: Vec<u32> = first_new.take_while(|hour| *hour < old.next_hour).collect();
        if new.next_hour < old.next_hour || kept != old_hours.collect::<Vec<u32>>() {
            world.breach(format!("hours are lost: {old:?} became {new:?}"));
        }
    }
    let is_gone = |key: &&_| !after.product_usage.contains_key(*key);
    if let Some(key) = before.product_usage.keys().find(is_gone) {
        world.breach(format!("the usage {key:?} is lost"));
    }
}

/// A day of two instances.
///
/// # Errors
/// The first thing that was counted wrong, with what happened before.
pub fn play_hours(runtime: Runtime) -> Result<(), String> {
    let shared = Shared::new(7, None);
    found(&shared, runtime);
    in_a_life(&shared, runtime, 0, async |life| {
        sell(life).await;
        launch(life, image(), "hours").await;
        rest(life).await;
        expect(&mut life.shared.lock(), "after the launch", &[1, 1]);
        wait_until(life, HOUR_MS - 1_000).await;
        expect(&mut life.shared.lock(), "in the first hour", &[1, 1]);
        wait_until(life, HOUR_MS + 40_000).await;
        expect(&mut life.shared.lock(), "in the second hour", &[2, 2]);
        // Who runs goes on paying.
        let ended = life.engine.unsubscribe(caller(0).account, CODE.into());
        if let Err(error) = ended.await {
            let text = format!("unsubscribing was refused: {error:?}");
            life.shared.lock().breach(text);
        }
        wait_until(life, 2 * HOUR_MS + 40_000).await;
        expect(&mut life.shared.lock(), "without a subscription", &[3, 3]);
        let again = life.engine.reboot(&caller(0), own(life)).await;
        let is_done = again.is_ok();
        rest(life).await;
        let mut world = life.shared.lock();
        expect(&mut world, "after a reboot", &[3, 3]);
        if !is_done {
            world.breach("a reboot was refused");
        }
    });
    // Nobody looks while the guests run on.
    set_clock(&shared, 4 * HOUR_MS + 45 * MINUTE_MS);
    in_a_life(&shared, runtime, 0, async |life| {
        tokio::time::sleep(SOON).await;
        expect(&mut life.shared.lock(), "after a pause", &[5, 5]);
    });
    set_clock(&shared, HOUR_MS + 45 * MINUTE_MS);
    in_a_life(&shared, runtime, 0, async |life| {
        wait_until(life, 4 * HOUR_MS + 59 * MINUTE_MS).await;
        expect(&mut life.shared.lock(), "with the clock set back", &[5, 5]);
        wait_until(life, 5 * HOUR_MS + 40_000).await;
        expect(&mut life.shared.lock(), "when it is on time", &[6, 6]);
        // A machine that crashes is started again within the hour.
        let second = own(life).pop();
        if let Some(id) = second {
            let detail = "by the history".to_owned();
            life.shared.lock().end_vm(id, ExitCause::Crashed { detail });
        }
        calm(&life.shared).await;
        tokio::time::sleep(SOON).await;
        expect(&mut life.shared.lock(), "after a crash", &[6, 6]);
    });
    // The first guest shuts down six hours after its launch, the other runs on.
    set_clock(&shared, 6 * HOUR_MS + 10 * MINUTE_MS);
    {
        let mut world = shared.lock();
        let first = world.ledger.instances.iter().map(|it| it.1).next();
        if let Some(id) = first {
            world.made.excused.insert(id);
            world.end_vm(id, ExitCause::GuestShutdown);
        }
    }
    set_clock(&shared, 11 * HOUR_MS + 10 * MINUTE_MS);
    in_a_life(&shared, runtime, 0, async |life| {
        rest(life).await;
        expect(
            &mut life.shared.lock(),
            "after an end that nobody saw",
            &[7, 12],
        );
        // Asked to end when an hour has just begun, between two looks.
        wait_until(life, 12 * HOUR_MS + 1).await;
        let left: Vec<InstanceId> = life.shared.lock().state.instances.keys().copied().collect();
        for id in &left {
            life.shared.lock().ledger.ask_to_end(*id);
        }
        let ended = life.engine.terminate(&caller(0), left).await;
        rest(life).await;
        let mut world = life.shared.lock();
        if ended.is_err() {
            world.breach("a termination was refused");
        }
        expect(&mut world, "at the end", &[7, 13]);
    });
    set_clock(&shared, 300 * 24 * HOUR_MS);
    in_a_life(&shared, runtime, 0, async |life| {
        tokio::time::sleep(SOON).await;
        expect(&mut life.shared.lock(), "most of a year later", &[7, 13]);
    });
    let world = shared.lock();
    match &world.violation {
        None => Ok(()),
        Some(violation) => Err(world.story(violation)),
    }
}
