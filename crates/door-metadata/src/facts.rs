//! What is known of an instance, as the program collects it.

use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use cumulet_domain::{AccountId, ImageId, InstanceId, KernelId, ReservationId, Timestamp};

/// Finds the instance that has an address.
pub trait Source: Send + Sync + 'static {
    /// The instance that lives at `address` now; `None` for any other address.
    fn instance_at(&self, address: Ipv4Addr) -> Option<Arc<Facts>>;
}

/// The key pair that the instance was launched with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    pub name: String,
    /// `ssh-rsa AAAA…`; the name is added as its comment.
    pub openssh: String,
}

/// Everything that the tree shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub instance: InstanceId,
    pub image: ImageId,
    /// `bucket/key` of the manifest; `None` for images that have none.
    pub manifest_path: Option<String>,
    pub launch_index: u32,
    pub reservation: ReservationId,
    /// Full name that resolves to the private address, for example `ip-10-210-0-4.ec2.internal`.
    pub local_host_name: String,
    /// Full public name; empty when there is none.
    pub public_host_name: String,
    pub local_ipv4: Ipv4Addr,
    pub public_ipv4: Option<Ipv4Addr>,
    /// `02:c5:0a:d2:00:04`.
    pub mac: String,
    pub instance_type: String,
    /// `x86_64`.
    pub architecture: String,
    pub zone: String,
    pub region: String,
    pub account: AccountId,
    pub launched: Timestamp,
    pub security_groups: Vec<String>,
    pub public_key: Option<PublicKey>,
    pub product_codes: Vec<String>,
    /// The bytes that were given at launch, unchanged; `None` if none were.
    pub user_data: Option<Bytes>,
    pub kernel: Option<KernelId>,
    /// `ari-…`, where the ramdisk has an id of its own.
    pub ramdisk: Option<String>,
    /// Names and devices: `("ami", "sda1")`, `("ephemeral0", "sda2")`.
    pub block_devices: Vec<(String, String)>,
    /// Domain of the region's services, for example `amazonaws.com`.
    pub services_domain: String,
    /// Whether the service answers this instance at all.
    pub is_enabled: bool,
    /// Whether a request without a session token is refused.
    pub is_token_required: bool,
    /// How many hops a token may travel, 1 to 64.
    pub hop_limit: u8,
}
