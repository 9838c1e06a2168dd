//! Machine images: what they are, who may launch them, and how far their disk is.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::instances::StateReason;
use crate::{AccountId, Digest, Error, ImageId, KernelId, Resource, Timestamp, shown};

/// Most accounts that one image names: its record, of 512 KiB at most, holds them all.
pub const LAUNCH_ACCOUNTS_MAX: usize = 10_000;
/// Longest description, EC2's own limit.
pub const DESCRIPTION_LEN_MAX: usize = 255;

/// Launch permissions to add or to remove.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LaunchPermissions {
    /// The group `all`, the only one there is.
    pub everybody: bool,
    pub accounts: BTreeSet<AccountId>,
}

/// A registered image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    pub id: ImageId,
    pub owner: AccountId,
    /// `bucket/key` of the manifest, or `account/name` of an imported one.
    pub location: String,
    pub name: Option<String>,
    pub description: Option<String>,
    pub architecture: Architecture,
    pub created: Timestamp,
    pub state: ImageState,
    pub is_public: bool,
    /// Accounts with explicit launch permission.
    pub launch_accounts: BTreeSet<AccountId>,
    pub product_codes: Vec<String>,
    pub preparation: Preparation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Architecture {
    #[serde(rename = "i386")]
    I386,
    #[serde(rename = "x86_64")]
    X86_64,
}

impl Architecture {
    pub fn as_str(self) -> &'static str {
        match self {
            Architecture::I386 => "i386",
            Architecture::X86_64 => "x86_64",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageState {
    Available,
    /// No new instances; shown for a while, then forgotten.
    Deregistered {
        at: Timestamp,
    },
}

/// The job that turns what was registered into bytes that can boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preparation {
    Pending {
        percent: u8,
        /// Failed attempts so far that were no fault of the image.
        #[serde(default)]
        failures: u32,
    },
    Ready {
        digest: Digest,
        size_bytes: u64,
        kind: BootKind,
    },
    /// For good; launches are refused with this reason.
    Failed {
        reason: String,
        /// Nothing is wrong with what was registered: the cloud could not do it, or lost it.
        #[serde(default)]
        is_our_fault: bool,
    },
}

impl Preparation {
    /// Why it failed for good, if it did; the code says whose fault it is.
    pub fn failure(&self) -> Option<StateReason> {
        match self {
            Preparation::Failed {
                reason,
                is_our_fault,
            } => {
                let code = if *is_our_fault {
                    "Server.InternalError"
                } else {
                    "Client.InvalidImage"
                };
                Some(StateReason::new(code, reason))
            }
            Preparation::Pending { .. } | Preparation::Ready { .. } => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootKind {
    Rootfs,
    Disk,
}

/// Where a bundled image's bytes are, from its manifest as it was when registered.
/// A record of its own: it is large and read only while preparing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleSource {
    pub image: ImageId,
    pub bucket: String,
    pub parts: Vec<BundlePart>,
    /// AES key and IV, 32 bytes, sealed.
    pub sealed_key: Vec<u8>,
    /// SHA-1 of the stream before compression, hex.
    pub sha1: String,
    pub size_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundlePart {
    pub key: String,
    /// SHA-1 of the encrypted part, hex.
    pub sha1: String,
}

/// A kernel with its ramdisk, for root file systems.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    pub id: KernelId,
    pub version: String,
    pub created: Timestamp,
    /// The one that root file systems boot with; one kernel at most has this.
    pub is_default: bool,
}

impl Image {
    pub fn may_launch(&self, account: AccountId) -> bool {
        self.owner == account || self.is_public || self.launch_accounts.contains(&account)
    }

    /// That it was not deregistered.
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn check_registered(&self) -> Result<(), Error> {
        match self.state {
            ImageState::Available => Ok(()),
            ImageState::Deregistered { .. } => Err(Error::Unavailable {
                resource: Resource::Image,
                id: self.id.to_string(),
                why: None,
            }),
        }
    }

    /// Adds launch permissions, then removes others.  Adding what is there and removing what is not
    /// there changes nothing.
    ///
    /// # Errors
    /// `LimitExceeded` when it would name more than [`LAUNCH_ACCOUNTS_MAX`] accounts.
    pub fn change_permissions(
        &mut self,
        add: &LaunchPermissions,
        remove: &LaunchPermissions,
    ) -> Result<(), Error> {
        self.is_public = (self.is_public || add.everybody) && !remove.everybody;
        self.launch_accounts.extend(&add.accounts);
        self.launch_accounts
            .retain(|account| !remove.accounts.contains(account));
        if self.launch_accounts.len() > LAUNCH_ACCOUNTS_MAX {
            return Err(Error::LimitExceeded {
                resource: Resource::Image,
                message: format!(
                    "The image {} would have {} explicit launch permissions; it may have {LAUNCH_ACCOUNTS_MAX}",
                    self.id,
                    self.launch_accounts.len()
                ),
            });
        }
        Ok(())
    }

    /// Attaches a product code.  An image has one at most, and keeps it; giving it the same again
    /// changes nothing.
    ///
    /// # Errors
    /// `InvalidItem` when it has another.
    pub fn attach_product_code(&mut self, code: &str) -> Result<(), Error> {
        match self.product_codes.as_slice() {
            [] => {
                self.product_codes.push(code.to_owned());
                Ok(())
            }
            [own] if own == code => Ok(()),
            _ => Err(Error::InvalidItem {
                message: format!(
                    "The product code of {} is set already and cannot be changed",
                    self.id
                ),
            }),
        }
    }

    /// Whether `account` may launch it now.
    ///
    /// # Errors
    /// EC2 answers `AuthFailure` for a foreign image and `InvalidAMIID.Unavailable` for a
    /// deregistered one, or one whose state is not `available`.
    pub fn check_launch(&self, account: AccountId) -> Result<(), Error> {
        if !self.may_launch(account) {
            return Err(Error::denied(format!(
                "Not authorized for images: [{}]",
                self.id
            )));
        }
        let unavailable = |why| {
            Err(Error::Unavailable {
                resource: Resource::Image,
                id: self.id.to_string(),
                why,
            })
        };
        match (self.state, self.preparation.failure()) {
            (ImageState::Deregistered { .. }, _) => unavailable(None),
            (ImageState::Available, Some(failure)) => unavailable(Some(failure.message)),
            (ImageState::Available, None) => Ok(()),
        }
    }
}

/// Checks the length of a description.
///
/// # Errors
/// `InvalidValue`.
pub fn check_description(text: &str) -> Result<(), Error> {
    if text.chars().count() <= DESCRIPTION_LEN_MAX {
        return Ok(());
    }
    Err(Error::invalid(
        "Description",
        format!(
            "A description has at most {DESCRIPTION_LEN_MAX} characters, and '{}...' has more",
            shown(text)
        ),
    ))
}

/// Checks a `Name` of RegisterImage: 3 to 128 of letters, digits and `()[] ./-'@_`, as EC2 has it.
pub fn check_image_name(name: &str) -> Result<(), Error> {
    let is_good = (3..=128).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"()[] ./-'@_".contains(&b));
    if is_good {
        return Ok(());
    }
    Err(Error::invalid(
        "Name",
        format!(
            "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, spaces and ()[]./-'@_: '{}'",
            shown(name)
        ),
    ))
}
