//! Things that happen at one and the same time, told without dice: each was a bug.

use std::time::Duration;

use cumulet_domain::InstanceId;
use cumulet_host::api::ExitCause;

use super::groups;
use super::records::VISIBLE_MS;
use super::run::{Life, Runtime, calm, check_orphans, forgotten, found, in_a_life, rest};
use super::scene::{Scene, act, deregister, image, late_image, launch, own, register_image};
use super::world::{Hold, Shared};

/// What comes at a bad moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Race {
    /// A reboot is asked for while the machine, which crashed, is being started again.
    RebootWhileStarting,
    /// The run directory of a machine is deleted before anybody has seen that it runs.
    VanishedWhileStarting,
    /// The bytes of an image are removed with another that had the same, before they are recorded.
    BytesRemovedBeforeRecorded,
    /// The bytes of an image are recorded while it is under way to remove them with another.
    BytesRecordedWhileRemoved,
    /// An image is forgotten while its bytes are being stored.
    ForgottenWhileStored,
    /// The bytes of a file are removed with an image that had the same, before they are recorded.
    ImportedBytesRemoved,
    /// The operator asks for orphans while what has ended is forgotten.
    OrphansWhileForgetting,
    /// The host cannot remove what belongs to one instance and one image.
    StubbornHost,
    /// A group is deleted while somebody launches into it.
    DeletedWhileLaunching,
}

/// Plays the race, and looks whether all comes to rest as it must.
///
/// # Errors
/// The first invariant that did not hold, with what happened before.
pub fn play_race(race: Race, runtime: Runtime) -> Result<(), String> {
    let shared = Shared::new(7, None);
    found(&shared, runtime);
    in_a_life(&shared, runtime, 0, async |life| {
        match race {
            Race::RebootWhileStarting => reboot_while_starting(life).await,
            Race::VanishedWhileStarting => vanished_while_starting(life).await,
            Race::BytesRemovedBeforeRecorded => {
                let hold = Hold::After("store image");
                same_bytes(life, hold).await;
            }
            Race::BytesRecordedWhileRemoved => {
                let hold = Hold::Before("remove image");
                same_bytes(life, hold).await;
            }
            Race::ForgottenWhileStored => forgotten_while_stored(life).await,
            Race::ImportedBytesRemoved => imported_bytes_removed(life).await,
            Race::OrphansWhileForgetting => orphans_while_forgetting(life).await,
            Race::StubbornHost => stubborn_host(life).await,
            Race::DeletedWhileLaunching => groups::deleted_while_launching(life).await,
        }
        rest(life).await;
    });
    let mut world = shared.lock();
    world.check_promises();
    match world.violation.clone() {
        None => Ok(()),
        Some(violation) => Err(format!("{race:?}: {}", world.story(&violation))),
    }
}

/// Makes the host stop at a call until [`release`].
fn hold(life: &Life, at: Hold) {
    life.shared.lock().hold = Some(at);
}

async fn held(life: &Life) {
    life.shared.held.notified().await;
}

fn release(life: &Life) {
    life.shared.released.notify_one();
}

async fn reboot_while_starting(life: &Life) {
    register_image(life, image(), 1).await;
    launch(life, image(), "before").await;
    rest(life).await;
    hold(life, Hold::After("start"));
    for id in own(life) {
        let detail = "by the race".to_owned();
        life.shared.lock().end_vm(id, ExitCause::Crashed { detail });
    }
    life.shared.vm_changed.notify_one();
    held(life).await;
    act(life, Scene::Reboot).await;
    release(life);
    calm(&life.shared).await;
}

async fn vanished_while_starting(life: &Life) {
    register_image(life, image(), 1).await;
    calm(&life.shared).await;
    hold(life, Hold::After("start"));
    launch(life, image(), "scene").await;
    held(life).await;
    {
        let mut world = life.shared.lock();
        let started: Vec<InstanceId> = std::mem::take(&mut world.vms).into_keys().collect();
        world.ghosts.extend(started);
    }
    release(life);
    calm(&life.shared).await;
    let mut world = life.shared.lock();
    if world.vms.len() != 2 {
        world.breach("what was left of a start kept it from being tried again");
    }
}

/// An image goes and another with the same bytes comes, one of them held at a bad moment.
async fn same_bytes(life: &Life, at: Hold) {
    register_image(life, image(), 1).await;
    rest(life).await;
    deregister(life, image()).await;
    hold(life, at);
    if matches!(at, Hold::Before(_)) {
        held(life).await;
        register_image(life, late_image(), 1).await;
    } else {
        register_image(life, late_image(), 1).await;
        held(life).await;
    }
    // Meanwhile the other one does what it can.
    forgotten_but_not_at_rest().await;
    release(life);
    calm(&life.shared).await;
    launch(life, late_image(), "scene").await;
    calm(&life.shared).await;
}

async fn imported_bytes_removed(life: &Life) {
    register_image(life, image(), 1).await;
    rest(life).await;
    deregister(life, image()).await;
    life.shared.lock().file_digest = Some(1);
    hold(life, Hold::After("store image"));
    let meanwhile = async {
        held(life).await;
        forgotten_but_not_at_rest().await;
        release(life);
    };
    tokio::join!(act(life, Scene::Import), meanwhile);
    if life.shared.lock().ledger.images.len() != 2 {
        life.shared.lock().breach("the import was not answered");
    }
}

async fn orphans_while_forgetting(life: &Life) {
    register_image(life, image(), 1).await;
    launch(life, image(), "before").await;
    calm(&life.shared).await;
    act(life, Scene::Terminate).await;
    calm(&life.shared).await;
    hold(life, Hold::After("inventory"));
    let meanwhile = async {
        held(life).await;
        forgotten_but_not_at_rest().await;
        release(life);
    };
    tokio::join!(check_orphans(life), meanwhile);
}

async fn forgotten_while_stored(life: &Life) {
    hold(life, Hold::After("store image"));
    register_image(life, image(), 1).await;
    held(life).await;
    deregister(life, image()).await;
    forgotten_but_not_at_rest().await;
    release(life);
    calm(&life.shared).await;
}

/// Longer than what has ended is shown and two rounds of maintenance.
async fn forgotten_but_not_at_rest() {
    let visible_ms = u64::try_from(VISIBLE_MS).unwrap_or(0);
    tokio::time::sleep(Duration::from_millis(visible_ms + 90_000)).await;
}

/// An instance and an image that cannot be forgotten, since the host does not remove what is theirs,
/// keep nobody else.
async fn stubborn_host(life: &Life) {
    for (id, digest) in [(image(), 1), (late_image(), 2)] {
        register_image(life, id, digest).await;
    }
    launch(life, image(), "before").await;
    rest(life).await;
    // The first of each sort, so that whatever stops there never comes to the second.
    let first = own(life).into_iter().min();
    let first_digest = life.shared.lock().images.keys().next().copied();
    {
        let mut world = life.shared.lock();
        let stubborn = [
            first.map(|id| id.to_string()),
            first_digest.map(|it| it.to_string()),
        ];
        world.stubborn = stubborn.into_iter().flatten().collect();
    }
    act(life, Scene::Terminate).await;
    deregister(life, image()).await;
    deregister(life, late_image()).await;
    forgotten(&life.shared).await;
    {
        let mut world = life.shared.lock();
        let left: Vec<InstanceId> = world.state.instances.keys().copied().collect();
        if left != Vec::from_iter(first) || world.state.images.len() != 1 {
            world.breach("what the host does not remove keeps others");
        }
        world.stubborn.clear();
    }
    rest(life).await;
    let mut world = life.shared.lock();
    if !world.state.instances.is_empty() || !world.state.images.is_empty() {
        world.breach("what the host removes again is not forgotten");
    }
}
