//! Launching: one request, one plan, one commit, of one image or of several.
//!
//! A launch has parts, one for each image that it asks for: today's requests have one, those by
//! SOAP in the first versions any number.  What the parts have in common (size, groups, user data,
//! room) is decided for all of them together.
//!
//! The planner sees the newest state and either returns every record of the
//! launch (reservation, instances with address and uid, user data, what they
//! take from limits and memory) or an error; nothing in between is ever
//! durable.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use cumulet_domain::images::Image;
use cumulet_domain::instance_types::{self, InstanceType};
use cumulet_domain::instances::{
    CLIENT_TOKEN_LEN_MAX, ClientToken, Instance, InstanceKey, Intent, LAUNCH_COUNT_MAX,
    MetadataOptions, Observed, PORT_DESCRIPTION_LEN_MAX, Reservation, USER_DATA_LEN_MAX, Want,
    uid_of,
};
use cumulet_domain::launches::{self, Wanted};
use cumulet_domain::security_groups::{GroupRef, Membership};
use cumulet_domain::tags::{LaunchTags, TagMap, TaggedKind};
use cumulet_domain::{
    AccountId, Error, ImageId, InstanceId, KernelId, ReservationId, Resource, SubnetId, Timestamp,
    shown,
};
use cumulet_host::api::GroundPlan;
use cumulet_store::{Change, Plan};

use crate::addresses::AddressPool;
use crate::claims::Claims;
use crate::draws::Draws;
use crate::instances::ReservationView;
use crate::records::{AccountUsage, HostUsage, Stored, put_user_data};
use crate::state::State;
use crate::{Caller, Engine};

/// A request to launch, already parsed.
#[derive(Debug, Clone)]
pub struct Launch {
    /// At least one, in the order in which they were asked for.
    pub parts: Vec<Part>,
    /// `None` means what [`instance_types::find`] says.
    pub instance_type: Option<String>,
    pub user_data: Option<Bytes>,
    pub client_token: Option<String>,
    /// Empty means `default`.
    pub security_groups: Vec<GroupRef>,
    pub zone: Option<String>,
    /// `None` means the operator's default.
    pub metadata: Option<MetadataOptions>,
    /// `None` means the owner's; there is no other that it may be.
    pub subnet: Option<SubnetId>,
    /// The private address of the one instance; `None` means any that is free.
    pub address: Option<Ipv4Addr>,
    /// What the ports of the instances are called.
    pub port_description: Option<String>,
    /// What the client says of the machines; a launch is refused of which it is not so.
    pub claims: Claims,
    /// What is written on what the launch makes; kinds that it does not make are refused at the door.
    pub tags: BTreeMap<TaggedKind, TagMap>,
}

/// What a launch asks of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub image: ImageId,
    /// 0 is content with none, if another part starts any.
    pub min_count: u32,
    pub max_count: u32,
    pub key_name: Option<String>,
}

impl Launch {
    fn wanted(&self) -> Vec<Wanted> {
        let wanted = self.parts.iter().map(|part| Wanted {
            min: part.min_count,
            max: part.max_count,
        });
        wanted.collect()
    }

    /// The fewest instances with which it is a launch.  [`check_counts`] has bounded it.
    fn count_min(&self) -> u32 {
        let least = launches::minimum(&self.wanted()).max(1);
        u32::try_from(least).unwrap_or(u32::MAX)
    }

    /// The most instances that it may have.
    fn count_max(&self) -> u32 {
        let most = launches::maximum(&self.wanted()).min(u64::from(LAUNCH_COUNT_MAX));
        u32::try_from(most).unwrap_or(LAUNCH_COUNT_MAX)
    }
}

/// Everything that the planner needs and may not reach for itself.
struct Given {
    owner: AccountId,
    launch: Launch,
    size: InstanceType,
    now: Timestamp,
    reservation: ReservationId,
    ids: Vec<InstanceId>,
    /// For those of the ids that are taken.
    draws: Draws,
    parameters_sha256: String,
    instance_limit: u32,
    host_memory_mib: u64,
    machine: String,
    ground: GroundPlan,
    metadata: MetadataOptions,
}

impl Engine {
    /// Launches between `min_count` and `max_count` instances of each image, or none at all.
    ///
    /// # Errors
    /// `InvalidCombination` of counts, `InvalidValue` of a type or device, `Unsupported` claims,
    /// `AlreadyExists` of the address, `NotFound` of image or key pair, `Denied` and `Unavailable` of
    /// the image, `LimitExceeded`, `InsufficientCapacity`, `IdempotentParameterMismatch`;
    /// `ServiceUnavailable` when too many new ids are taken.
    pub async fn launch(&self, caller: &Caller, launch: Launch) -> Result<ReservationView, Error> {
        check_counts(&launch)?;
        launch.claims.check_devices_once()?;
        self.check_values(caller, &launch)?;
        let size = self.find_type(launch.instance_type.as_deref())?;
        launch.claims.check_processors(&size)?;
        let count = launch.count_max() as usize;
        let mut draws = self.draw(1 + count);
        let given = Given {
            owner: caller.account,
            now: self.environment().now(),
            reservation: draws.next(ReservationId::mint)?,
            ids: (0..count)
                .map(|_| draws.next(InstanceId::mint))
                .collect::<Result<_, _>>()?,
            draws,
            parameters_sha256: parameters_digest(&launch),
            instance_limit: self.config().instances_per_account,
            host_memory_mib: self.host().profile.memory_mib,
            machine: self.host().profile.machine.clone(),
            ground: self.host().profile.ground.clone(),
            metadata: launch.metadata.unwrap_or(MetadataOptions {
                is_token_required: self.config().is_metadata_token_required,
                ..MetadataOptions::default()
            }),
            size,
            launch,
        };
        let view = self.commit(move |state| plan_launch(state, given)).await?;
        for instance in &view.instances {
            self.wake().instance(instance.id);
        }
        Ok(view)
    }

    fn find_type(&self, name: Option<&str>) -> Result<InstanceType, Error> {
        let found = instance_types::find(&self.config().instance_types, name);
        found.cloned().ok_or_else(|| {
            let name = shown(name.unwrap_or_default());
            let types = self.config().instance_types.iter();
            let there: Vec<&str> = types.map(|it| it.name.as_str()).collect();
            Error::invalid(
                "InstanceType",
                format!(
                    "Invalid value '{name}' for InstanceType. There are: {}",
                    there.join(", ")
                ),
            )
        })
    }

    fn check_values(&self, caller: &Caller, launch: &Launch) -> Result<(), Error> {
        if let Some(subnet) = launch.subnet
            && subnet != SubnetId::of(caller.account)
        {
            return Err(Error::not_found(Resource::Subnet, subnet));
        }
        if launch
            .user_data
            .as_ref()
            .is_some_and(|data| data.len() > USER_DATA_LEN_MAX)
        {
            return Err(Error::invalid(
                "UserData",
                "User data is limited to 16384 bytes",
            ));
        }
        if let Some(text) = &launch.port_description
            && text.chars().count() > PORT_DESCRIPTION_LEN_MAX
        {
            return Err(Error::invalid(
                "NetworkInterface.Description",
                format!("A description has at most {PORT_DESCRIPTION_LEN_MAX} characters"),
            ));
        }
        if let Some(token) = &launch.client_token
            && (token.len() > CLIENT_TOKEN_LEN_MAX || !token.is_ascii())
        {
            return Err(Error::invalid(
                "ClientToken",
                format!(
                    "Invalid value for parameter ClientToken: it has up to {CLIENT_TOKEN_LEN_MAX} ASCII characters"
                ),
            ));
        }
        if let Some(zone) = &launch.zone
            && *zone != self.config().zone
        {
            return Err(Error::invalid(
                "Placement.AvailabilityZone",
                format!(
                    "Invalid availability zone: [{zone}]. The zone here is {}.",
                    self.config().zone
                ),
            ));
        }
        Ok(())
    }
}

fn check_counts(launch: &Launch) -> Result<(), Error> {
    for part in &launch.parts {
        if part.max_count == 0 || part.min_count > part.max_count {
            return Err(Error::InvalidCombination {
                message: format!(
                    "MaxCount ({}) must be at least 1 and not less than MinCount ({}), for {}",
                    part.max_count, part.min_count, part.image
                ),
            });
        }
    }
    if launch.parts.is_empty() {
        return Err(Error::InvalidCombination {
            message: "A launch names at least one image".into(),
        });
    }
    if let Some(address) = launch.address
        && launches::maximum(&launch.wanted()) != 1
    {
        return Err(Error::InvalidCombination {
            message: format!("PrivateIpAddress {address} is for one instance: MaxCount must be 1"),
        });
    }
    if launches::minimum(&launch.wanted()) > u64::from(LAUNCH_COUNT_MAX) {
        return Err(Error::LimitExceeded {
            resource: Resource::Instance,
            message: format!(
                "One launch starts at most {LAUNCH_COUNT_MAX} instances, and {} are wanted at the least",
                launches::minimum(&launch.wanted())
            ),
        });
    }
    Ok(())
}

/// A digest of all that must be the same when a client token is used again.
fn parameters_digest(launch: &Launch) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    // Each value is named and carries its length, so that no two requests look the same; what is
    // not given is left out, so that a later version of this program may know more values.
    let mut value = |name: &str, bytes: &[u8]| {
        context.update(format!("{name} {}\n", bytes.len()).as_bytes());
        context.update(bytes);
    };
    // A launch of one image is told as it was before there were others.
    for part in &launch.parts {
        value("image", part.image.to_string().as_bytes());
        value("min-count", part.min_count.to_string().as_bytes());
        value("max-count", part.max_count.to_string().as_bytes());
        if let Some(key_name) = &part.key_name {
            value("key-name", key_name.as_bytes());
        }
    }
    let texts = [
        ("instance-type", &launch.instance_type),
        ("zone", &launch.zone),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            value(name, text.as_bytes());
        }
    }
    if let Some(user_data) = &launch.user_data {
        value("user-data", user_data);
    }
    for group in &launch.security_groups {
        match group {
            GroupRef::Name(name) => value("security-group", name.as_bytes()),
            GroupRef::Id(id) => value("security-group-id", id.to_string().as_bytes()),
        }
    }
    if let Some(metadata) = &launch.metadata {
        let MetadataOptions {
            is_enabled,
            is_token_required,
            hop_limit,
        } = metadata;
        let text = format!("{is_enabled} {is_token_required} {hop_limit}");
        value("metadata", text.as_bytes());
    }
    if let Some(subnet) = &launch.subnet {
        value("subnet", subnet.to_string().as_bytes());
    }
    if let Some(address) = &launch.address {
        value("address", address.to_string().as_bytes());
    }
    if let Some(description) = &launch.port_description {
        value("port-description", description.as_bytes());
    }
    launch.claims.digest_into(&mut value);
    for (kind, tags) in &launch.tags {
        for (key, text) in tags {
            value("tagged", kind.as_str().as_bytes());
            value("tag-key", key.as_bytes());
            value("tag-value", text.as_bytes());
        }
    }
    hex::encode(context.finish())
}

fn plan_launch(state: &State, mut given: Given) -> Result<Plan<ReservationView>, Error> {
    if let Some(earlier) = find_earlier(state, &given)? {
        return Ok(Plan {
            changes: vec![],
            answer: earlier,
        });
    }
    let groups = state.memberships(given.owner, &given.launch.security_groups)?;
    settle_ids(state, &mut given)?;
    let parts = find_parts(state, &given)?;
    let room = admit(state, &given)?;
    let mut pool = AddressPool::new(state, &given.ground);
    let addresses = match given.launch.address {
        Some(address) => {
            pool.take(address)?;
            vec![address]
        }
        None => pool.allocate_between(given.launch.count_min(), room.count)?,
    };
    let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    let counts = launches::deal(&given.launch.wanted(), count)
        .ok_or_else(|| Error::internal("a launch was dealt fewer instances than it admits"))?;

    let kernel = state.default_kernel().map(|kernel| kernel.id);
    let mut places = given.ids.iter().copied().zip(addresses);
    // Counted by image: two parts may name the same one.
    let mut indexes: BTreeMap<ImageId, u32> = BTreeMap::new();
    let mut instances = vec![];
    for (part, count) in parts.iter().zip(counts) {
        let next_index = indexes.entry(part.image.id).or_default();
        for (id, address) in places.by_ref().take(count as usize) {
            instances.push(instance_of(
                &given,
                part,
                Place {
                    id,
                    address,
                    launch_index: *next_index,
                    kernel,
                },
            ));
            *next_index += 1;
        }
    }
    let launched = u32::try_from(instances.len()).unwrap_or(u32::MAX);
    let account_instances = room.account_instances + launched;
    Ok(records_of(
        state,
        given,
        groups,
        instances,
        account_instances,
        pool,
    ))
}

/// A part with the records that it names.
struct FoundPart<'a> {
    image: &'a Image,
    key: Option<InstanceKey>,
}

fn find_parts<'a>(state: &'a State, given: &Given) -> Result<Vec<FoundPart<'a>>, Error> {
    let kernel = state.default_kernel().map(|kernel| kernel.id);
    let parts = given.launch.parts.iter();
    let found = parts.map(|part| {
        let image = state.images.get(&part.image);
        let image = image.ok_or_else(|| Error::not_found(Resource::Image, part.image))?;
        image.check_launch(given.owner)?;
        crate::products::check_subscribed(state, given.owner, image)?;
        given.launch.claims.check_devices(image, &given.size)?;
        given.launch.claims.check_kernel(image, kernel)?;
        let key = part.key_name.as_ref();
        let key = key.map(|name| find_key(state, given.owner, name));
        Ok(FoundPart {
            image,
            key: key.transpose()?,
        })
    });
    found.collect()
}

/// What one instance has for itself.
struct Place {
    id: InstanceId,
    address: Ipv4Addr,
    launch_index: u32,
    kernel: Option<KernelId>,
}

fn instance_of(given: &Given, part: &FoundPart<'_>, place: Place) -> Instance {
    Instance {
        id: place.id,
        reservation: given.reservation,
        owner: given.owner,
        image: part.image.id,
        launch_index: place.launch_index,
        launched: given.now,
        instance_type: given.size.name.clone(),
        vcpus: given.size.vcpus,
        memory_mib: given.size.memory_mib,
        ephemeral_mib: given.size.ephemeral_mib,
        swap_mib: given.size.swap_mib,
        disk_mib: given.size.disk_mib,
        key: part.key.clone(),
        product_codes: part.image.product_codes.clone(),
        kernel: place.kernel,
        machine: given.machine.clone(),
        address: place.address,
        uid: uid_of(place.address),
        metadata: given.metadata,
        intent: Intent {
            generation: 1,
            want: Want::Running,
            reboots: 0,
        },
        observed: Observed::default(),
    }
}

/// Sees to it that nothing else has the ids of the launch, nor two of its instances the same.
fn settle_ids(state: &State, given: &mut Given) -> Result<(), Error> {
    let Given {
        reservation,
        ids,
        draws,
        ..
    } = given;
    draws.settle(reservation, ReservationId::mint, |id| {
        state.shows_reservation(id)
    })?;
    let mut settled = BTreeSet::new();
    for id in ids {
        draws.settle(id, InstanceId::mint, |id| {
            settled.contains(&id) || state.shows_instance(id)
        })?;
        settled.insert(*id);
    }
    Ok(())
}

fn records_of(
    state: &State,
    given: Given,
    groups: Vec<Membership>,
    instances: Vec<Instance>,
    account_instances: u32,
    pool: AddressPool<'_>,
) -> Plan<ReservationView> {
    let launch = given.launch;
    let reservation = Reservation {
        id: given.reservation,
        owner: given.owner,
        created: given.now,
        groups,
        instances: instances.iter().map(|instance| instance.id).collect(),
        client_token: launch.client_token.map(|token| ClientToken {
            token,
            parameters_sha256: given.parameters_sha256,
        }),
        has_user_data: launch.user_data.is_some(),
        port_description: launch.port_description,
    };
    let memory_mib = instances
        .iter()
        .map(|instance| instance.memory_mib)
        .sum::<u64>();
    let mut changes: Vec<Change> = pool.changes();
    changes.push(
        HostUsage {
            memory_mib: state.host_usage.memory_mib + memory_mib,
        }
        .put(),
    );
    changes.push(
        AccountUsage {
            account: given.owner,
            instances: account_instances,
        }
        .put(),
    );
    changes.push(reservation.put());
    changes.extend(
        launch
            .user_data
            .map(|data| put_user_data(given.reservation, data)),
    );
    if !launch.tags.is_empty() {
        let tags = LaunchTags {
            reservation: given.reservation,
            tags: launch.tags,
        };
        changes.push(tags.put());
    }
    changes.extend(instances.iter().map(Stored::put));
    let answer = ReservationView {
        reservation: Arc::new(reservation),
        instances: instances.into_iter().map(Arc::new).collect(),
    };
    Plan { changes, answer }
}

/// The launch that the same client token made before.
fn find_earlier(state: &State, given: &Given) -> Result<Option<ReservationView>, Error> {
    let Some(token) = &given.launch.client_token else {
        return Ok(None);
    };
    let Some(id) = state
        .client_tokens
        .get(&(given.owner, token.as_str().into()))
    else {
        return Ok(None);
    };
    let Some(reservation) = state.reservations.get(id) else {
        return Ok(None);
    };
    let is_same = reservation
        .client_token
        .as_ref()
        .is_some_and(|earlier| earlier.parameters_sha256 == given.parameters_sha256);
    if !is_same {
        return Err(Error::IdempotentParameterMismatch {
            message: "Arguments on this idempotent request are inconsistent with arguments used in previous request(s)."
                .into(),
        });
    }
    Ok(Some(ReservationView::of(state, reservation)))
}

fn find_key(state: &State, owner: AccountId, name: &str) -> Result<InstanceKey, Error> {
    let pair = state.key_pairs.get(&(owner, name.into()));
    let pair = pair.ok_or_else(|| Error::not_found(Resource::KeyPair, name))?;
    Ok(InstanceKey {
        name: name.to_owned(),
        public_key: pair.public_key.clone(),
    })
}

/// What account and host allow.
struct Room {
    /// How many instances may be launched: at least the launch's minimum, and so at least one.
    count: u32,
    /// How many the account has already.
    account_instances: u32,
}

fn admit(state: &State, given: &Given) -> Result<Room, Error> {
    let (least, most) = (given.launch.count_min(), given.launch.count_max());
    let account = state.accounts.get(&given.owner);
    let limit = account
        .and_then(|account| account.instance_limit)
        .unwrap_or(given.instance_limit);
    let used = state.account_usage.get(&given.owner).copied().unwrap_or(0);
    let by_limit = limit.saturating_sub(used);
    if by_limit < least {
        return Err(Error::LimitExceeded {
            resource: Resource::Instance,
            message: format!(
                "You have requested more instances ({}) than your current instance limit of {limit} allows.",
                used.saturating_add(least)
            ),
        });
    }
    let free_mib = given
        .host_memory_mib
        .saturating_sub(state.host_usage.memory_mib);
    let by_memory = u32::try_from(free_mib / given.size.memory_mib.max(1)).unwrap_or(u32::MAX);
    if by_memory < least {
        return Err(Error::InsufficientCapacity {
            message: format!(
                "There is not enough memory for {least} instance(s) of type {}: they need {} MiB each, {free_mib} MiB are free.",
                given.size.name, given.size.memory_mib
            ),
        });
    }
    Ok(Room {
        count: most.min(by_limit).min(by_memory),
        account_instances: used,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest_of(parts: Vec<Part>) -> String {
        parameters_digest(&Launch {
            parts,
            instance_type: Some("m1.small".into()),
            user_data: Some("data".into()),
            client_token: Some("token".into()),
            security_groups: vec![GroupRef::Name("default".into())],
            zone: Some("us-east-1a".into()),
            metadata: None,
            subnet: None,
            address: None,
            port_description: None,
            claims: Claims::default(),
            tags: BTreeMap::new(),
        })
    }

    fn part(number: u128, key_name: Option<&str>) -> Part {
        Part {
            image: ImageId::from_random(number),
            min_count: 1,
            max_count: 2,
            key_name: key_name.map(str::to_owned),
        }
    }

    /// A client's token outlives the program: what was written before several images were known.
    #[test]
    fn a_launch_of_one_image_is_told_as_ever() {
        let image = ImageId::from_random(1).to_string();
        let told = [
            ("image", image.as_str()),
            ("min-count", "1"),
            ("max-count", "2"),
            ("key-name", "key"),
            ("instance-type", "m1.small"),
            ("zone", "us-east-1a"),
            ("user-data", "data"),
            ("security-group", "default"),
        ];
        let text: String = told
            .iter()
            .map(|(name, value)| format!("{name} {}\n{value}", value.len()))
            .collect();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        assert_eq!(
            digest_of(vec![part(1, Some("key"))]),
            hex::encode(digest.as_ref())
        );
    }

    #[test]
    fn no_two_launches_of_several_images_are_told_alike() {
        let (one, two) = (part(1, None), part(2, None));
        let told = [
            digest_of(vec![one.clone()]),
            digest_of(vec![one.clone(), two.clone()]),
            digest_of(vec![two.clone(), one.clone()]),
            digest_of(vec![one.clone(), one]),
            digest_of(vec![part(1, Some("key")), two]),
            digest_of(vec![part(1, None), part(2, Some("key"))]),
        ];
        let distinct: std::collections::BTreeSet<&String> = told.iter().collect();
        assert_eq!(distinct.len(), told.len());
    }
}
