//! What owners say about their images: who may launch them, their product code, their description.
//!
//! Only the owner may read or change an attribute; what others see of an image
//! is in [`crate::images`].

use std::sync::Arc;

use cumulet_domain::images::{Image, LaunchPermissions, check_description};
use cumulet_domain::products::CODE_LEN_MAX;
use cumulet_domain::{AccountId, Error, ImageId, Resource};
use cumulet_store::Plan;

use crate::products::check_subscribed;
use crate::records::Stored;
use crate::state::State;
use crate::{Caller, Engine};

/// One change of one attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Modification {
    /// What is to be added is added and then what is to be removed is removed; what is there
    /// already, or is not there, is no error.
    LaunchPermission {
        add: LaunchPermissions,
        remove: LaunchPermissions,
    },
    /// Attaches a product code, for good.  The owner of the image sells the product or is subscribed to
    /// it, as one who pays for support of his own image is.
    ProductCode(String),
    Description(String),
}

impl Engine {
    /// The image with all its attributes, for its owner.
    ///
    /// # Errors
    /// `NotFound`; `Denied` when it is somebody else's; `Unavailable` when it was deregistered.
    pub fn image_attributes(&self, caller: &Caller, id: ImageId) -> Result<Arc<Image>, Error> {
        let state = self.snapshot();
        own_image(&state, caller.account, id).cloned()
    }

    /// Changes one attribute.
    ///
    /// # Errors
    /// As [`Self::image_attributes`]; `InvalidItem` for a product code that the image cannot have;
    /// `LimitExceeded` for too many explicit permissions; `InvalidValue` for a long description.
    pub async fn modify_image_attribute(
        &self,
        caller: &Caller,
        id: ImageId,
        modification: Modification,
    ) -> Result<(), Error> {
        if let Modification::Description(text) = &modification {
            check_description(text)?;
        }
        let account = caller.account;
        self.commit(move |state| plan_modify(state, account, id, modification))
            .await
    }

    /// Takes back every launch permission, public and explicit; the owner's own stays.
    ///
    /// # Errors
    /// As [`Self::image_attributes`].
    pub async fn reset_launch_permission(&self, caller: &Caller, id: ImageId) -> Result<(), Error> {
        let account = caller.account;
        self.commit(move |state| {
            let mut image = Image::clone(own_image(state, account, id)?);
            image.is_public = false;
            image.launch_accounts.clear();
            Ok(Plan {
                changes: vec![image.put()],
                answer: (),
            })
        })
        .await
    }
}

fn plan_modify(
    state: &State,
    account: AccountId,
    id: ImageId,
    modification: Modification,
) -> Result<Plan<()>, Error> {
    let found = own_image(state, account, id)?;
    let mut image = Image::clone(found);
    match modification {
        Modification::LaunchPermission { add, remove } => {
            image.change_permissions(&add, &remove)?
        }
        Modification::ProductCode(code) => {
            image.attach_product_code(&code)?;
            check_subscribed(state, account, &image).map_err(|_| Error::InvalidItem {
                message: format!(
                    "Invalid attribute item value '{}': {account} neither sells a product of this code nor is subscribed to one",
                    code.chars().take(CODE_LEN_MAX).collect::<String>()
                ),
            })?;
        }
        Modification::Description(text) => {
            image.description = Some(text).filter(|text| !text.is_empty());
        }
    }
    let changes = if image == **found {
        vec![]
    } else {
        vec![image.put()]
    };
    Ok(Plan {
        changes,
        answer: (),
    })
}

/// The image, if this account owns it and may still do something with it.
fn own_image(state: &State, account: AccountId, id: ImageId) -> Result<&Arc<Image>, Error> {
    let image = state
        .images
        .get(&id)
        .ok_or_else(|| Error::not_found(Resource::Image, id))?;
    if image.owner != account {
        return Err(Error::denied(format!("Not authorized for image:{id}")));
    }
    image.check_registered()?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use cumulet_domain::Timestamp;
    use cumulet_domain::images::{Architecture, ImageState, LAUNCH_ACCOUNTS_MAX, Preparation};

    use super::*;

    /// Most bytes of a record, on every engine of the store.
    const RECORD_BYTES_MAX: usize = 512 * 1024;

    fn image() -> Image {
        Image {
            id: ImageId::from_random(1),
            owner: AccountId::from_random(1),
            location: "bucket/manifest".into(),
            name: None,
            description: None,
            architecture: Architecture::X86_64,
            created: Timestamp(0),
            state: ImageState::Available,
            is_public: false,
            launch_accounts: Default::default(),
            product_codes: vec![],
            preparation: Preparation::Pending {
                percent: 0,
                failures: 0,
            },
        }
    }

    fn accounts(count: usize) -> LaunchPermissions {
        let numbers = (0..).take(count);
        LaunchPermissions {
            everybody: false,
            accounts: numbers.map(AccountId::from_random).collect(),
        }
    }

    #[test]
    fn a_record_holds_all_permissions_that_an_image_may_have() {
        let mut image = image();
        let nobody = LaunchPermissions::default();
        let most = accounts(LAUNCH_ACCOUNTS_MAX);
        image.change_permissions(&most, &nobody).unwrap();
        let bytes = image.put().value.map_or(0, |value| value.len());
        assert!((100_000..RECORD_BYTES_MAX / 2).contains(&bytes), "{bytes}");

        let more = accounts(LAUNCH_ACCOUNTS_MAX + 1);
        let refused = image.clone().change_permissions(&more, &nobody);
        assert!(matches!(refused, Err(Error::LimitExceeded { .. })));
        // Another one fits when one goes.
        let one = accounts(1);
        image.change_permissions(&more, &one).unwrap();
        assert_eq!(image.launch_accounts.len(), LAUNCH_ACCOUNTS_MAX);
    }
}
