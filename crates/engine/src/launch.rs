//! Launching: one request, one plan, one commit.
//!
//! The planner sees the newest state and either returns every record of the
//! launch (reservation, instances with address and uid, user data, what they
//! take from limits and memory) or an error; nothing in between is ever
//! durable.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use cumulet_domain::instance_types::{DEFAULT_INSTANCE_TYPE, InstanceType};
use cumulet_domain::instances::{
    CLIENT_TOKEN_LEN_MAX, ClientToken, Instance, InstanceKey, Intent, LAUNCH_COUNT_MAX,
    MetadataOptions, Observed, Reservation, USER_DATA_LEN_MAX, Want, uid_of,
};
use cumulet_domain::network::{AddressBlock, Ipv4Net};
use cumulet_domain::{AccountId, Error, ImageId, InstanceId, ReservationId, Resource, Timestamp};
use cumulet_host::api::GroundPlan;
use cumulet_store::{Change, Plan};

use crate::instances::ReservationView;
use crate::records::{AccountUsage, HostUsage, Stored, put_user_data};
use crate::state::State;
use crate::{Caller, Engine};

/// A request to launch, already parsed.
#[derive(Debug, Clone)]
pub struct Launch {
    pub image: ImageId,
    pub min_count: u32,
    pub max_count: u32,
    pub key_name: Option<String>,
    /// `None` means [`DEFAULT_INSTANCE_TYPE`].
    pub instance_type: Option<String>,
    pub user_data: Option<Bytes>,
    pub client_token: Option<String>,
    /// Names; empty means `default`.
    pub security_groups: Vec<String>,
    pub zone: Option<String>,
    /// `None` means the operator's default.
    pub metadata: Option<MetadataOptions>,
}

/// Everything that the planner needs and may not reach for itself.
struct Given {
    owner: AccountId,
    launch: Launch,
    size: InstanceType,
    now: Timestamp,
    reservation: ReservationId,
    ids: Vec<InstanceId>,
    parameters_sha256: String,
    instance_limit: u32,
    host_memory_mib: u64,
    machine: String,
    ground: GroundPlan,
    metadata: MetadataOptions,
}

impl Engine {
    /// Launches between `min_count` and `max_count` instances, or none.
    ///
    /// # Errors
    /// `InvalidCombination` of counts, `NotFound` of image, key pair or type, `Denied` and
    /// `Unavailable` of the image, `LimitExceeded`, `InsufficientCapacity`,
    /// `IdempotentParameterMismatch`.
    pub async fn launch(&self, caller: &Caller, launch: Launch) -> Result<ReservationView, Error> {
        check_counts(&launch)?;
        self.check_values(&launch)?;
        let size = self.find_type(launch.instance_type.as_deref())?;
        let environment = self.environment();
        let given = Given {
            owner: caller.account,
            now: environment.now(),
            reservation: ReservationId::from_random(environment.random()),
            ids: (0..launch.max_count.min(LAUNCH_COUNT_MAX))
                .map(|_| InstanceId::from_random(environment.random()))
                .collect(),
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
        let name = name.unwrap_or(DEFAULT_INSTANCE_TYPE);
        let found = self
            .config()
            .instance_types
            .iter()
            .find(|known| known.name == name);
        found.cloned().ok_or_else(|| {
            Error::invalid(
                "InstanceType",
                format!("Invalid value '{name}' for InstanceType."),
            )
        })
    }

    fn check_values(&self, launch: &Launch) -> Result<(), Error> {
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
        // Until there are groups to choose from, everybody has one.
        if let Some(other) = launch
            .security_groups
            .iter()
            .find(|name| *name != "default")
        {
            return Err(Error::not_found(Resource::SecurityGroup, other));
        }
        Ok(())
    }
}

fn check_counts(launch: &Launch) -> Result<(), Error> {
    if launch.min_count == 0 || launch.min_count > launch.max_count {
        return Err(Error::InvalidCombination {
            message: format!(
                "MinCount ({}) must be at least 1 and not more than MaxCount ({})",
                launch.min_count, launch.max_count
            ),
        });
    }
    if launch.min_count > LAUNCH_COUNT_MAX {
        return Err(Error::LimitExceeded {
            resource: Resource::Instance,
            message: format!("One launch starts at most {LAUNCH_COUNT_MAX} instances"),
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
    value("image", launch.image.to_string().as_bytes());
    value("min-count", launch.min_count.to_string().as_bytes());
    value("max-count", launch.max_count.to_string().as_bytes());
    let texts = [
        ("key-name", &launch.key_name),
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
        value("security-group", group.as_bytes());
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
    hex::encode(context.finish())
}

fn plan_launch(state: &State, given: Given) -> Result<Plan<ReservationView>, Error> {
    if let Some(earlier) = find_earlier(state, &given)? {
        return Ok(Plan {
            changes: vec![],
            answer: earlier,
        });
    }
    let launch = &given.launch;
    let image = state
        .images
        .get(&launch.image)
        .ok_or_else(|| Error::not_found(Resource::Image, launch.image))?;
    image.check_launch(given.owner)?;
    crate::products::check_subscribed(state, given.owner, image)?;
    let key = launch
        .key_name
        .as_ref()
        .map(|name| find_key(state, given.owner, name))
        .transpose()?;
    let (count, account_instances) = admit(state, &given)?;

    let mut pool = AddressPool::new(state, &given.ground);
    let kernel = state.default_kernel().map(|kernel| kernel.id);
    let mut instances = vec![];
    for (launch_index, id) in (0u32..).zip(given.ids.iter().copied()).take(count as usize) {
        let Some(address) = pool.allocate() else {
            break;
        };
        instances.push(Instance {
            id,
            reservation: given.reservation,
            owner: given.owner,
            image: image.id,
            launch_index,
            launched: given.now,
            instance_type: given.size.name.clone(),
            vcpus: given.size.vcpus,
            memory_mib: given.size.memory_mib,
            ephemeral_mib: given.size.ephemeral_mib,
            swap_mib: given.size.swap_mib,
            disk_mib: given.size.disk_mib,
            key: key.clone(),
            product_codes: image.product_codes.clone(),
            kernel,
            machine: given.machine.clone(),
            address,
            uid: uid_of(address),
            metadata: given.metadata,
            intent: Intent {
                generation: 1,
                want: Want::Running,
                reboots: 0,
            },
            observed: Observed::default(),
        });
    }
    let launched = u32::try_from(instances.len()).unwrap_or(u32::MAX);
    if launched < launch.min_count {
        return Err(Error::InsufficientCapacity {
            message: "There are not enough free private addresses".into(),
        });
    }
    Ok(records_of(
        state,
        given,
        instances,
        account_instances + launched,
        pool,
    ))
}

fn records_of(
    state: &State,
    given: Given,
    instances: Vec<Instance>,
    account_instances: u32,
    pool: AddressPool<'_>,
) -> Plan<ReservationView> {
    let launch = given.launch;
    let reservation = Reservation {
        id: given.reservation,
        owner: given.owner,
        created: given.now,
        groups: if launch.security_groups.is_empty() {
            vec!["default".into()]
        } else {
            launch.security_groups
        },
        instances: instances.iter().map(|instance| instance.id).collect(),
        client_token: launch.client_token.map(|token| ClientToken {
            token,
            parameters_sha256: given.parameters_sha256,
        }),
        has_user_data: launch.user_data.is_some(),
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

/// How many may be launched, and how many the account has already.
fn admit(state: &State, given: &Given) -> Result<(u32, u32), Error> {
    let launch = &given.launch;
    let account = state.accounts.get(&given.owner);
    let limit = account
        .and_then(|account| account.instance_limit)
        .unwrap_or(given.instance_limit);
    let used = state.account_usage.get(&given.owner).copied().unwrap_or(0);
    let by_limit = limit.saturating_sub(used);
    if by_limit < launch.min_count {
        return Err(Error::LimitExceeded {
            resource: Resource::Instance,
            message: format!(
                "You have requested more instances ({}) than your current instance limit of {limit} allows.",
                used.saturating_add(launch.min_count)
            ),
        });
    }
    let free_mib = given
        .host_memory_mib
        .saturating_sub(state.host_usage.memory_mib);
    let by_memory = u32::try_from(free_mib / given.size.memory_mib.max(1)).unwrap_or(u32::MAX);
    if by_memory < launch.min_count {
        return Err(Error::InsufficientCapacity {
            message: format!(
                "There is not enough memory for {} instance(s) of type {}: they need {} MiB each, {free_mib} MiB are free.",
                launch.min_count, given.size.name, given.size.memory_mib
            ),
        });
    }
    Ok((
        launch
            .max_count
            .min(by_limit)
            .min(by_memory)
            .min(LAUNCH_COUNT_MAX),
        used,
    ))
}

/// Addresses taken by this plan, block by block.
struct AddressPool<'a> {
    state: &'a State,
    net: Ipv4Net,
    gateway: Ipv4Addr,
    touched: BTreeMap<Ipv4Addr, AddressBlock>,
    /// Blocks at the beginning of the range that have nothing left.
    full: usize,
}

impl<'a> AddressPool<'a> {
    fn new(state: &'a State, ground: &GroundPlan) -> Self {
        let net = Ipv4Net {
            address: ground.guest_network,
            prefix: ground.guest_prefix,
        };
        Self {
            state,
            net,
            gateway: ground.gateway,
            touched: BTreeMap::new(),
            full: 0,
        }
    }

    fn allocate(&mut self) -> Option<Ipv4Addr> {
        let Self {
            state,
            net,
            gateway,
            touched,
            full,
        } = self;
        for base in net.blocks().skip(*full) {
            let stored = state.address_blocks.get(&base);
            // Most blocks of a full cloud are; they need not be copied to be searched in vain.
            if stored.is_some_and(|block| block.is_full()) {
                *full += 1;
                continue;
            }
            let block = touched.entry(base).or_insert_with(|| match stored {
                Some(stored) => AddressBlock::clone(stored),
                None => AddressBlock::new(base, *gateway),
            });
            if let Some(address) = block.allocate() {
                return Some(address);
            }
            *full += 1;
        }
        None
    }

    fn changes(&self) -> Vec<Change> {
        let is_changed = |block: &&AddressBlock| {
            self.state
                .address_blocks
                .get(&block.base)
                .is_none_or(|stored| **stored != **block)
        };
        self.touched
            .values()
            .filter(is_changed)
            .map(Stored::put)
            .collect()
    }
}
