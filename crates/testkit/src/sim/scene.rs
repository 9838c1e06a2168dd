//! One thing that is asked for, with the program stopped at one chosen point of
//! it, started again, and run until all is at rest.

use std::sync::Arc;
use std::time::Duration;

use cumulet_domain::images::{ImageState, Preparation};
use cumulet_domain::instances::Want;
use cumulet_domain::products::HOUR_MS;
use cumulet_domain::{Error, ImageId, InstanceId};
use cumulet_engine::launch::{Launch, Part};

use super::clients::{caller, import, name_tags, register};
use super::groups;
use super::hours;
use super::run::{Life, Runtime, calm, forgotten, found, in_a_life, rest};
use super::world::{Shared, Stop, World};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scene {
    Launch,
    Reboot,
    /// With the forgetting of what has ended.
    Terminate,
    /// A registered image is prepared while an instance of it waits.
    Prepare,
    /// A file becomes an image.
    Import,
    /// An image is deregistered while it is prepared, and another of the same bytes is registered.
    Deregister,
    /// An hour begins that instances use of a product, and then they are ended.
    Hour,
    /// Groups are made and changed, one has members, and is deleted when these have ended.
    Groups,
}

/// Where the program is stopped: at the n-th of the calls or commits of the scene, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    BeforeCall(u64),
    AfterCall(u64),
    /// Not stopped: the call was carried out and its answer is an error, so that it is repeated.
    LoseAnswer(u64),
    BeforeCommit(u64),
    AfterCommit(u64),
    /// An I/O error of the records, after which the program ends; the commit is gone.
    LoseCommit(u64),
    /// The same, and the commit is durable.
    LoseCommitAnswer(u64),
    /// Not stopped: each call happens twice.
    Twice,
}

impl Scene {
    pub const ALL: [Scene; 8] = [
        Scene::Launch,
        Scene::Reboot,
        Scene::Terminate,
        Scene::Prepare,
        Scene::Import,
        Scene::Deregister,
        Scene::Hour,
        Scene::Groups,
    ];

    /// Answers that are there when the scene's own has come; an error is no answer.
    fn expected_answers(self) -> u64 {
        match self {
            Scene::Launch | Scene::Import => 2,
            Scene::Reboot | Scene::Terminate => 4,
            Scene::Prepare => 3,
            Scene::Deregister | Scene::Hour => 4,
            Scene::Groups => 12,
        }
    }
}

pub(super) fn image() -> ImageId {
    ImageId::from_random(1)
}

pub(super) fn late_image() -> ImageId {
    ImageId::from_random(2)
}

fn last_image() -> ImageId {
    ImageId::from_random(3)
}

pub(super) fn launch_of(image: ImageId, token: &str) -> Launch {
    Launch {
        parts: vec![Part {
            image,
            min_count: 2,
            max_count: 2,
            key_name: None,
        }],
        instance_type: Some("t2.nano".into()),
        user_data: Some("data".into()),
        client_token: Some(token.into()),
        security_groups: vec![],
        zone: None,
        metadata: None,
        subnet: None,
        address: None,
        port_description: None,
        claims: Default::default(),
        tags: name_tags(),
    }
}

/// Plays the scene.  False when it has no such point.
///
/// # Errors
/// The first invariant that did not hold, with what happened before.
pub fn play(scene: Scene, point: Point, runtime: Runtime) -> Result<bool, String> {
    let shared = Shared::new(7, None);
    found(&shared, runtime);
    if scene == Scene::Hour {
        in_a_life(&shared, runtime, 0, async |life| {
            hours::sell(life).await;
            launch(life, image(), "before").await;
            rest(life).await;
        });
        hours::set_clock(&shared, HOUR_MS - 15_000);
    }
    in_a_life(&shared, runtime, 0, async |life| {
        register_image(life, image(), 1).await;
        if scene != Scene::Hour {
            rest(life).await;
        }
        if matches!(scene, Scene::Reboot | Scene::Terminate) {
            launch(life, image(), "before").await;
            rest(life).await;
        }
        arm(&life.shared, point);
        let store = life.store.clone();
        tokio::select! {
            biased;
            _ = store.failed() => tokio::time::sleep(Duration::from_millis(300)).await,
            () = act_and_settle(life, scene) => {}
        }
    });
    let was_reached = {
        let mut world = shared.lock();
        world.is_twice = false;
        world.stop.take().is_none()
    };
    // The client that got no answer asks again, on what is left.
    in_a_life(&shared, runtime, 5_000, async |life| {
        if life.shared.lock().ledger.answered < scene.expected_answers() {
            act(life, scene).await;
        }
        rest(life).await;
    });
    let mut world = shared.lock();
    world.check_promises();
    check_outcome(&mut world, scene);
    check_rest(&mut world, scene);
    match world.violation.clone() {
        None => Ok(was_reached),
        Some(violation) => Err(format!(
            "{scene:?} at {point:?}: {}",
            world.story(&violation)
        )),
    }
}

async fn act_and_settle(life: &Life, scene: Scene) {
    act(life, scene).await;
    calm(&life.shared).await;
    if matches!(scene, Scene::Terminate | Scene::Deregister | Scene::Hour) {
        forgotten(&life.shared).await;
    }
}

/// What was asked for is there.
fn check_outcome(world: &mut World, scene: Scene) {
    let instances = world.state.instances.values();
    let live = instances
        .filter(|it| it.intent.want == Want::Running)
        .count();
    let expected = match scene {
        Scene::Launch | Scene::Reboot | Scene::Prepare => 2,
        Scene::Terminate | Scene::Import | Scene::Deregister | Scene::Hour | Scene::Groups => 0,
    };
    if live != expected {
        world.breach(format!("{live} instances run, {expected} were asked for"));
    }
    let images = world.state.images.values();
    let ready = images
        .filter(|it| it.state == ImageState::Available)
        .filter(|it| matches!(it.preparation, Preparation::Ready { .. }))
        .count();
    let expected = match scene {
        Scene::Launch | Scene::Reboot | Scene::Terminate | Scene::Hour | Scene::Groups => 1,
        Scene::Prepare | Scene::Import | Scene::Deregister => 2,
    };
    if ready != expected || world.state.images.len() != expected {
        world.breach(format!(
            "{ready} images are ready, {expected} were asked for"
        ));
    }
}

fn check_rest(world: &mut World, scene: Scene) {
    if scene == Scene::Groups {
        groups::check_scene(world);
    }
    if scene == Scene::Hour {
        hours::expect(world, "in the end", &[2, 2]);
    }
}

fn arm(shared: &Arc<Shared>, point: Point) {
    let mut world = shared.lock();
    let (calls, commits) = (world.calls, world.commits);
    world.stop = match point {
        Point::BeforeCall(n) => Some(Stop::BeforeCall(calls + n)),
        Point::AfterCall(n) => Some(Stop::AfterCall(calls + n)),
        Point::LoseAnswer(n) => Some(Stop::LoseAnswer(calls + n)),
        Point::BeforeCommit(n) => Some(Stop::BeforeCommit(commits + n)),
        Point::AfterCommit(n) => Some(Stop::AfterCommit(commits + n)),
        Point::LoseCommit(n) => Some(Stop::LoseCommit(commits + n)),
        Point::LoseCommitAnswer(n) => Some(Stop::LoseCommitAnswer(commits + n)),
        Point::Twice => None,
    };
    world.is_twice = point == Point::Twice;
}

/// Only a store that has failed refuses what a scene asks for.
fn refused(world: &mut World, what: &str, error: &Error) {
    let is_fair = matches!(error, Error::ServiceUnavailable { .. }) && world.has_store_failed;
    if !is_fair {
        world.breach(format!("{what} was refused: {error:?}"));
    }
}

pub(super) async fn register_image(life: &Life, id: ImageId, digest: u8) {
    // One that was recorded and not answered needs not be asked for again.
    if life.shared.lock().state.images.contains_key(&id) {
        return;
    }
    let sha1 = format!("{digest:040x}");
    register(&life.shared, &life.store, id, caller(0).account, sha1).await;
}

pub(super) async fn launch(life: &Life, image: ImageId, token: &str) {
    let request = launch_of(image, token);
    let answer = life.engine.launch(&caller(0), request.clone()).await;
    let mut world = life.shared.lock();
    match answer {
        Ok(view) => world.told_launch(caller(0).account, &request, &view),
        Err(error) => refused(&mut world, "a launch", &error),
    }
}

pub(super) fn own(life: &Life) -> Vec<InstanceId> {
    let world = life.shared.lock();
    world.ledger.instances.iter().map(|(_, id)| *id).collect()
}

pub(super) async fn act(life: &Life, scene: Scene) {
    match scene {
        Scene::Launch => launch(life, image(), "scene").await,
        Scene::Prepare => {
            register_image(life, late_image(), 2).await;
            launch(life, late_image(), "scene").await;
        }
        Scene::Import => import_image(life).await,
        Scene::Deregister => {
            register_image(life, late_image(), 2).await;
            // In the middle of its preparation, which begins with the next round.
            tokio::time::sleep(Duration::from_millis(10_050)).await;
            deregister(life, late_image()).await;
            register_image(life, last_image(), 2).await;
        }
        Scene::Reboot => {
            let events = life.shared.lock().event();
            let answer = life.engine.reboot(&caller(0), own(life)).await;
            let ids = own(life);
            let mut world = life.shared.lock();
            match answer {
                Ok(()) => ids.into_iter().for_each(|id| world.told_reboot(id, events)),
                Err(error) => refused(&mut world, "a reboot", &error),
            }
        }
        Scene::Hour => {
            // Until the round of maintenance after the hour has begun.
            hours::wait_until(life, HOUR_MS + 20_000).await;
            end_all(life).await;
        }
        Scene::Terminate => end_all(life).await,
        Scene::Groups => groups::act(life).await,
    }
}

pub(super) async fn end_all(life: &Life) {
    let ids = own(life);
    ids.iter()
        .for_each(|id| life.shared.lock().ledger.ask_to_end(*id));
    let answer = life.engine.terminate(&caller(0), ids.clone()).await;
    let mut world = life.shared.lock();
    match answer {
        Ok(_) => ids.into_iter().for_each(|id| world.told_end(id)),
        // Carried out so long ago that it is forgotten.
        Err(Error::NotFound { .. }) => {}
        Err(error) => refused(&mut world, "a termination", &error),
    }
}

async fn import_image(life: &Life) {
    let account = caller(0).account;
    match life.engine.import_image(import(account, "imported")).await {
        Ok(image) => life.shared.lock().told_image(image.id),
        // It was made, and the answer never came; or its answer was lost, and it can be asked for again.
        Err(Error::AlreadyExists { .. }) => {}
        Err(Error::Internal { .. }) => {
            let again = life.engine.import_image(import(account, "imported")).await;
            if !matches!(again, Ok(_) | Err(Error::AlreadyExists { .. })) {
                life.shared
                    .lock()
                    .breach(format!("an import was refused: {again:?}"));
            }
        }
        Err(error) => refused(&mut life.shared.lock(), "an import", &error),
    }
}

pub(super) async fn deregister(life: &Life, id: ImageId) {
    let answer = life.engine.deregister_image(&caller(0), id).await;
    let mut world = life.shared.lock();
    match answer {
        Ok(()) => world.ledger.answered += 1,
        // Carried out, and the answer never came; or forgotten since.
        Err(Error::Unavailable { .. } | Error::NotFound { .. }) => {}
        Err(error) => refused(&mut world, "a deregistration", &error),
    }
}
