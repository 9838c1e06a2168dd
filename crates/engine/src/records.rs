//! How records are stored: kinds, keys, and the version inside each value.
//!
//! A value is JSON of the form `{"v":1,"r":{…}}`.  Changing a stored type means
//! adding the next version here with a function from the previous one; old
//! versions stay readable.

use bytes::Bytes;
use cumulet_host::api::GroundPlan;
use cumulet_store::{Change, Kind};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use cumulet_domain::accounts::{AccessKey, Account, Certificate, CloudIdentity, User};
use cumulet_domain::images::{BundleSource, Image, Kernel};
use cumulet_domain::instances::{ClientToken, Instance, Reservation};
use cumulet_domain::keypairs::KeyPair;
use cumulet_domain::network::AddressBlock;
use cumulet_domain::products::{Product, Subscription, Usage};
use cumulet_domain::security_groups::{Membership, SecurityGroup};
use cumulet_domain::tags::{LaunchTags, Tags};
use cumulet_domain::{AccountId, InstanceId, ReservationId, SecurityGroupId, Timestamp};

pub const ACCOUNT: Kind = Kind::new("account");
pub const USER: Kind = Kind::new("user");
pub const ACCESS_KEY: Kind = Kind::new("access-key");
pub const CERTIFICATE: Kind = Kind::new("certificate");
pub const CLOUD: Kind = Kind::new("cloud");
pub const GROUND: Kind = Kind::new("ground");
pub const IMAGE: Kind = Kind::new("image");
pub const BUNDLE_SOURCE: Kind = Kind::new("bundle-source");
pub const KERNEL: Kind = Kind::new("kernel");
pub const INSTANCE: Kind = Kind::new("instance");
pub const RESERVATION: Kind = Kind::new("reservation");
pub const USER_DATA: Kind = Kind::new("user-data");
pub const KEY_PAIR: Kind = Kind::new("key-pair");
pub const SECURITY_GROUP: Kind = Kind::new("security-group");
pub const ADDRESS_BLOCK: Kind = Kind::new("address-block");
pub const HOST_USAGE: Kind = Kind::new("host-usage");
pub const ACCOUNT_USAGE: Kind = Kind::new("account-usage");
pub const PRODUCT: Kind = Kind::new("product");
pub const SUBSCRIPTION: Kind = Kind::new("product-subscription");
pub const PRODUCT_USAGE: Kind = Kind::new("product-usage");
pub const TAGS: Kind = Kind::new("tags");
pub const LAUNCH_TAGS: Kind = Kind::new("launch-tags");

/// All kinds that this program knows; a store file with another is from a newer one.
pub const KINDS: &[Kind] = &[
    ACCOUNT,
    USER,
    ACCESS_KEY,
    CERTIFICATE,
    CLOUD,
    GROUND,
    IMAGE,
    BUNDLE_SOURCE,
    KERNEL,
    INSTANCE,
    RESERVATION,
    USER_DATA,
    KEY_PAIR,
    SECURITY_GROUP,
    ADDRESS_BLOCK,
    HOST_USAGE,
    ACCOUNT_USAGE,
    PRODUCT,
    SUBSCRIPTION,
    PRODUCT_USAGE,
    TAGS,
    LAUNCH_TAGS,
];

/// The only key of kinds that have one record.
pub const ONLY: &str = "only";

/// Memory that live instances of a host hold.  Every launch and removal rewrites it, so that two
/// launches cannot both take the last place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct HostUsage {
    pub memory_mib: u64,
}

/// Live instances of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountUsage {
    pub account: AccountId,
    pub instances: u32,
}

/// A value that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("the record has version {found}; this program reads up to {known}")]
    Newer { found: u32, known: u32 },
    #[error("the record cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

#[derive(Serialize)]
struct Writing<'a, T> {
    v: u32,
    r: &'a T,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

#[derive(Deserialize)]
struct Reading<T> {
    v: u32,
    r: T,
}

/// A type that is stored, with its kind and its newest version.
pub trait Stored: Serialize + DeserializeOwned {
    const KIND: Kind;
    const VERSION: u32 = 1;

    fn key(&self) -> String;

    /// Reads any version that was ever written.
    fn read(bytes: &[u8]) -> Result<Self, RecordError> {
        let read = serde_json::from_slice::<Reading<Self>>(bytes);
        // A newer record may look like one of ours or not: its version is what counts.
        let version = match &read {
            Ok(reading) => reading.v,
            Err(_) => serde_json::from_slice::<Version>(bytes)?.v,
        };
        if version > Self::VERSION {
            return Err(RecordError::Newer {
                found: version,
                known: Self::VERSION,
            });
        }
        if version < Self::VERSION {
            return Self::read_older(version, bytes);
        }
        Ok(read?.r)
    }

    /// Reads a version before the newest.
    fn read_older(_version: u32, bytes: &[u8]) -> Result<Self, RecordError> {
        Ok(serde_json::from_slice::<Reading<Self>>(bytes)?.r)
    }

    fn put(&self) -> Change {
        let bytes = serde_json::to_vec(&Writing {
            v: Self::VERSION,
            r: self,
        })
        .expect("records hold no maps with keys that JSON cannot write");
        Change::put(Self::KIND, self.key(), Bytes::from(bytes))
    }

    fn delete(&self) -> Change {
        Change::delete(Self::KIND, self.key())
    }
}

macro_rules! stored {
    ($type:ty, $kind:expr, |$record:ident| $key:expr) => {
        impl Stored for $type {
            const KIND: Kind = $kind;
            fn key(&self) -> String {
                let $record = self;
                $key
            }
        }
    };
}

stored!(Account, ACCOUNT, |r| r.id.to_string());
stored!(User, USER, |r| format!("{}/{}", r.account, r.name));
stored!(AccessKey, ACCESS_KEY, |r| r.id.clone());
stored!(Certificate, CERTIFICATE, |r| r.fingerprint.clone());
stored!(Image, IMAGE, |r| r.id.to_string());
stored!(BundleSource, BUNDLE_SOURCE, |r| r.image.to_string());
stored!(Kernel, KERNEL, |r| r.id.to_string());
stored!(Instance, INSTANCE, |r| r.id.to_string());
stored!(KeyPair, KEY_PAIR, |r| format!("{}/{}", r.owner, r.name));
stored!(SecurityGroup, SECURITY_GROUP, |r| r.id.to_string());
stored!(AddressBlock, ADDRESS_BLOCK, |r| AddressBlock::key(r.base));
stored!(AccountUsage, ACCOUNT_USAGE, |r| r.account.to_string());
stored!(Product, PRODUCT, |r| r.code.clone());
stored!(Subscription, SUBSCRIPTION, |r| format!(
    "{}/{}",
    r.account, r.code
));
stored!(Usage, PRODUCT_USAGE, |r| format!(
    "{}/{}",
    r.code, r.instance
));
stored!(Tags, TAGS, |r| r.resource.to_string());
stored!(LaunchTags, LAUNCH_TAGS, |r| r.reservation.to_string());
stored!(HostUsage, HOST_USAGE, |_r| ONLY.to_owned());
stored!(CloudIdentity, CLOUD, |_r| ONLY.to_owned());
stored!(GroundPlan, GROUND, |_r| ONLY.to_owned());

impl Stored for Reservation {
    const KIND: Kind = RESERVATION;
    const VERSION: u32 = 2;

    fn key(&self) -> String {
        self.id.to_string()
    }

    fn read_older(_version: u32, bytes: &[u8]) -> Result<Self, RecordError> {
        Ok(serde_json::from_slice::<Reading<ReservationV1>>(bytes)?
            .r
            .into())
    }
}

/// Groups were names; there was `default` and no other.
#[derive(Deserialize)]
struct ReservationV1 {
    id: ReservationId,
    owner: AccountId,
    created: Timestamp,
    groups: Vec<String>,
    instances: Vec<InstanceId>,
    client_token: Option<ClientToken>,
    has_user_data: bool,
}

impl From<ReservationV1> for Reservation {
    fn from(old: ReservationV1) -> Self {
        let membership = |name| Membership {
            id: SecurityGroupId::of(old.owner),
            name,
        };
        Self {
            id: old.id,
            owner: old.owner,
            created: old.created,
            groups: old.groups.into_iter().map(membership).collect(),
            instances: old.instances,
            client_token: old.client_token,
            has_user_data: old.has_user_data,
            port_description: None,
        }
    }
}

/// User data is stored as it is: opaque bytes, no version.
pub fn put_user_data(reservation: ReservationId, bytes: Bytes) -> Change {
    Change::put(USER_DATA, reservation.to_string(), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the first program wrote it that knew of a launch's description of its ports.
    #[test]
    fn reservations_are_read_with_and_without_what_came_later() {
        const EARLIER: &str = r#"{"v":2,"r":{"id":"r-4bb997dd4a1b9e648","owner":"123456789012","created":1,"groups":[{"id":"sg-0123456789abcdef0","name":"default"}],"instances":["i-8a81ad9bad12999c3"],"client_token":null,"has_user_data":false}}"#;
        let earlier = Reservation::read(EARLIER.as_bytes()).unwrap();
        assert_eq!(earlier.port_description, None);
        let later = EARLIER.replace(
            r#""has_user_data":false"#,
            r#""has_user_data":false,"port_description":"the front""#,
        );
        let read = Reservation::read(later.as_bytes()).unwrap();
        assert_eq!(read.port_description.as_deref(), Some("the front"));
        // Both are written as they were read.
        for (record, text) in [(earlier, EARLIER), (read, later.as_str())] {
            let wrote = record.put().value.expect("a value");
            let wrote: serde_json::Value = serde_json::from_slice(&wrote).unwrap();
            assert_eq!(
                wrote,
                serde_json::from_str::<serde_json::Value>(text).unwrap()
            );
        }
    }
}
