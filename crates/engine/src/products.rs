//! Products: codes that sellers own, subscriptions to them, and the hours that were used.
//!
//! Who may launch what is decided here ([`check_subscribed`]) and asked by the
//! planner of launches.  Hours are counted by the reconciler of each instance,
//! before every step that it takes ([`Engine::count_usage`]): what it is about to
//! end has been counted then, with what the host knows of when it ran.  The rules
//! of counting are in [`cumulet_domain::products`].

use std::collections::BTreeMap;
use std::sync::Arc;

use cumulet_domain::images::{Image, ImageState};
use cumulet_domain::instances::{Instance, Liveness, Want};
use cumulet_domain::products::{
    Product, Ran, Subscription, USAGE_KEPT_MS, Usage, check_code, code_of, hour_of,
};
use cumulet_domain::{AccountId, Error, InstanceId, Resource, Timestamp, shown};
use cumulet_store::{Change, PLAN_CHANGES_MAX, Plan};

use crate::records::Stored;
use crate::state::State;
use crate::{Caller, Engine};

/// Codes that are drawn for one product, in case some are taken.
const CODES_DRAWN: usize = 8;
/// Records of usage that are forgotten in one commit.
const FORGET_MAX: usize = 30;

/// Which usage an operator wants to see; everything, when nothing is given.
#[derive(Debug, Clone, Default)]
pub struct UsageQuery {
    /// Whose instances.
    pub account: Option<AccountId>,
    pub code: Option<String>,
    /// Hours that began at this time or later.
    pub from: Option<Timestamp>,
    /// Hours that began before this time.
    pub until: Option<Timestamp>,
}

/// One hour of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedHour {
    pub usage: Arc<Usage>,
    /// Counted from the launch, beginning with 0.
    pub hour: u32,
    pub began: Timestamp,
}

impl Engine {
    /// Makes a product, with a code of its own unless one is given.
    ///
    /// # Errors
    /// `NotFound` of the account, `AlreadyExists`, `InvalidValue` of the code.
    pub async fn create_product(
        &self,
        owner: AccountId,
        code: Option<String>,
    ) -> Result<Product, Error> {
        let created = self.environment().now();
        let codes: Vec<String> = match code {
            Some(code) => {
                check_code(&code)?;
                vec![code]
            }
            None => (0..CODES_DRAWN).map(|_| self.draw_code()).collect(),
        };
        self.commit(move |state| {
            if !state.accounts.contains_key(&owner) {
                return Err(Error::not_found(Resource::Account, owner));
            }
            let free = codes.iter().find(|code| !is_known(state, code));
            let Some(code) = free.cloned() else {
                return Err(Error::AlreadyExists {
                    resource: Resource::Product,
                    id: codes.join(", "),
                });
            };
            let product = Product {
                code,
                owner,
                created,
            };
            Ok(Plan {
                changes: vec![product.put()],
                answer: product,
            })
        })
        .await
    }

    fn draw_code(&self) -> String {
        let bits = self.environment().random() >> 96;
        code_of(u32::try_from(bits).unwrap_or_default())
    }

    /// Deletes a product with the subscriptions to it.  What was used of it is kept.
    ///
    /// # Errors
    /// `NotFound`; `IncorrectState` while an image or an instance that has not ended carries the
    /// code.
    pub async fn delete_product(&self, code: String) -> Result<(), Error> {
        self.commit(move |state| {
            let product = find_product(state, &code)?;
            let is_registered = |image: &&Arc<Image>| {
                image.state == ImageState::Available && image.product_codes.contains(&code)
            };
            let runs = |instance: &&Arc<Instance>| {
                instance.liveness() == Liveness::Alive && instance.product_codes.contains(&code)
            };
            let image = state
                .images
                .values()
                .find(is_registered)
                .map(|it| it.id.to_string());
            let instance = state
                .instances
                .values()
                .find(runs)
                .map(|it| it.id.to_string());
            if let Some(user) = image.or(instance) {
                return Err(Error::IncorrectState {
                    resource: Resource::Product,
                    message: format!("The product {code} is in use by {user}"),
                });
            }
            let subscriptions = state.subscriptions.values();
            let mut changes = vec![product.delete()];
            changes.extend(
                subscriptions
                    .filter(|it| it.code == code)
                    .map(|it| it.delete()),
            );
            if changes.len() > PLAN_CHANGES_MAX {
                return Err(Error::IncorrectState {
                    resource: Resource::Product,
                    message: format!(
                        "The product {code} has {} subscriptions; unsubscribe all but {}",
                        changes.len() - 1,
                        PLAN_CHANGES_MAX - 1
                    ),
                });
            }
            Ok(Plan {
                changes,
                answer: (),
            })
        })
        .await
    }

    /// Lets an account launch images with this code.  Doing it again changes nothing and answers
    /// with the subscription that there is.
    ///
    /// # Errors
    /// `NotFound` of the account or the product.
    pub async fn subscribe(&self, account: AccountId, code: String) -> Result<Subscription, Error> {
        let since = self.environment().now();
        self.commit(move |state| {
            if !state.accounts.contains_key(&account) {
                return Err(Error::not_found(Resource::Account, account));
            }
            find_product(state, &code)?;
            if let Some(earlier) = find_subscription(state, account, &code) {
                return Ok(Plan {
                    changes: vec![],
                    answer: Subscription::clone(earlier),
                });
            }
            let subscription = Subscription {
                account,
                code,
                since,
            };
            Ok(Plan {
                changes: vec![subscription.put()],
                answer: subscription,
            })
        })
        .await
    }

    /// Ends a subscription.  Instances that run go on, and their hours are counted.
    ///
    /// # Errors
    /// `NotFound` of the product; `IncorrectState` when the account is not subscribed.
    pub async fn unsubscribe(&self, account: AccountId, code: String) -> Result<(), Error> {
        self.commit(move |state| {
            find_product(state, &code)?;
            let Some(subscription) = find_subscription(state, account, &code) else {
                return Err(Error::IncorrectState {
                    resource: Resource::Product,
                    message: format!("The account {account} is not subscribed to {code}"),
                });
            };
            Ok(Plan {
                changes: vec![subscription.delete()],
                answer: (),
            })
        })
        .await
    }

    /// Whose instance it is, if it carries the caller's product code.
    ///
    /// # Errors
    /// `Denied` for a code that is not the caller's, whether anybody has it or not; `NotFound` of
    /// the instance.
    pub fn confirm_product_instance(
        &self,
        caller: &Caller,
        code: &str,
        instance: InstanceId,
    ) -> Result<Option<AccountId>, Error> {
        let state = self.snapshot();
        let is_own = state
            .products
            .get(code)
            .is_some_and(|product| product.owner == caller.account);
        if !is_own {
            let code = shown(code);
            return Err(Error::denied(format!(
                "Not authorized for the product code: [{code}]"
            )));
        }
        let found = state.instances.get(&instance);
        let found = found.ok_or_else(|| Error::not_found(Resource::Instance, instance))?;
        let has_code = found.product_codes.iter().any(|it| it == code);
        Ok(has_code.then_some(found.owner))
    }

    /// The hours that were used, product by product and instance by instance, each in their order;
    /// `hours_max` of them, and one more when there are more.
    pub fn product_usage(&self, asked: &UsageQuery, hours_max: usize) -> Vec<UsedHour> {
        let state = self.snapshot();
        let all = asked_for(&state, asked).flat_map(|usage| {
            let within = usage.within(asked.from, asked.until);
            let hours = within.flat_map(|hours| hours.first..hours.end());
            hours.map(|hour| UsedHour {
                usage: usage.clone(),
                hour,
                began: usage.began(hour),
            })
        });
        all.take(hours_max.saturating_add(1)).collect()
    }

    /// The same as sums: by product, seller and account.
    pub fn product_usage_sums(
        &self,
        asked: &UsageQuery,
    ) -> BTreeMap<(String, AccountId, AccountId), u64> {
        let state = self.snapshot();
        let mut sums = BTreeMap::new();
        for usage in asked_for(&state, asked) {
            let within = usage.within(asked.from, asked.until);
            let count: u64 = within.map(|hours| u64::from(hours.count)).sum();
            if count > 0 {
                *sums
                    .entry((usage.code.clone(), usage.seller, usage.account))
                    .or_default() += count;
            }
        }
        sums
    }

    /// Counts the hours that an instance has used of its products, as far as the host knows that it
    /// `ran`.  Durable when it returns; doing it again counts nothing.
    ///
    /// # Errors
    /// `ServiceUnavailable`: then nothing was counted.
    pub(crate) async fn count_usage(&self, instance: &Instance, ran: Ran) -> Result<(), Error> {
        if instance.product_codes.is_empty() {
            return Ok(());
        }
        // Who asked for the end does not pay for the time that it takes.
        let until = match &instance.intent.want {
            Want::Running => ran.until,
            Want::Terminated { since, .. } => ran.until.min(*since),
        };
        // It came up when its end was already asked for.
        if until < ran.since {
            return Ok(());
        }
        let (id, ran) = (instance.id, Ran { until, ..ran });
        let now = self.environment().now();
        if plan_usage(&self.snapshot(), id, ran, now).is_empty() {
            return Ok(());
        }
        self.commit_observed(move |state| {
            Ok(Plan {
                changes: plan_usage(state, id, ran, now),
                answer: (),
            })
        })
        .await
    }

    /// One round: wakes those that began an hour which is not counted, and forgets what is old.
    pub(crate) async fn maintain_usage(&self) {
        let now = self.environment().now();
        let state = self.snapshot();
        for id in &state.live_instances {
            let instance = state.instances.get(id);
            if instance.is_some_and(|it| is_due(&state, it, now)) {
                self.wake().instance(*id);
            }
        }
        let old: Vec<(Arc<str>, InstanceId)> = state
            .product_usage
            .iter()
            .filter(|(_, usage)| is_old(&state, usage, now))
            .map(|(key, _)| key.clone())
            .take(FORGET_MAX)
            .collect();
        if old.is_empty() {
            return;
        }
        let forgotten = self.commit_observed(move |state| {
            let found = old.iter().filter_map(|key| state.product_usage.get(key));
            let old = found.filter(|usage| is_old(state, usage, now));
            Ok(Plan {
                changes: old.map(|usage| usage.delete()).collect(),
                answer: (),
            })
        });
        if let Err(error) = forgotten.await {
            tracing::warn!(%error, log = error.log(), "could not forget the old usage of products");
        }
    }
}

/// The product of that code; for whoever puts the code on an image.
///
/// # Errors
/// `NotFound`.
pub(crate) fn find_product(state: &State, code: &str) -> Result<Arc<Product>, Error> {
    let found = state.products.get(code).cloned();
    found.ok_or_else(|| Error::not_found(Resource::Product, code))
}

/// Whether `account` may launch the image as far as its products go: it is subscribed to each, or
/// sells it.  A code that nobody sells here admits nobody.
///
/// # Errors
/// `NotSubscribed`.
pub(crate) fn check_subscribed(
    state: &State,
    account: AccountId,
    image: &Image,
) -> Result<(), Error> {
    let is_admitted = |code: &&String| {
        let product = state.products.get(code.as_str());
        product.is_some_and(|product| {
            product.owner == account || find_subscription(state, account, code).is_some()
        })
    };
    match image.product_codes.iter().find(|code| !is_admitted(code)) {
        None => Ok(()),
        Some(code) => Err(Error::NotSubscribed {
            message: format!(
                "The image {} needs a subscription to the product {code}, which the account {account} does not have",
                image.id
            ),
        }),
    }
}

fn find_subscription<'a>(
    state: &'a State,
    account: AccountId,
    code: &str,
) -> Option<&'a Arc<Subscription>> {
    state.subscriptions.get(&(account, code.into()))
}

/// Whether a code means something already: as a product, or in what was used of one.
fn is_known(state: &State, code: &str) -> bool {
    let least = (Arc::from(code), InstanceId::from_random(0));
    let used = state.product_usage.range(least..).next();
    state.products.contains_key(code) || used.is_some_and(|((used, _), _)| **used == *code)
}

fn asked_for<'a>(
    state: &'a State,
    asked: &'a UsageQuery,
) -> impl Iterator<Item = &'a Arc<Usage>> + 'a {
    state.product_usage.values().filter(|usage| {
        asked.account.is_none_or(|account| usage.account == account)
            && asked.code.as_ref().is_none_or(|code| usage.code == *code)
    })
}

/// The newest usage of each product of an instance, where counting changes it.
fn plan_usage(state: &State, id: InstanceId, ran: Ran, now: Timestamp) -> Vec<Change> {
    let Some(instance) = state.instances.get(&id) else {
        return vec![];
    };
    let mut changes = vec![];
    for code in &instance.product_codes {
        let known = state.product_usage.get(&(code.as_str().into(), id));
        let mut usage = match (known, state.products.get(code.as_str())) {
            (Some(known), _) => Usage::clone(known),
            (None, Some(product)) => Usage {
                code: code.clone(),
                instance: id,
                seller: product.owner,
                account: instance.owner,
                launched: instance.launched,
                next_hour: 0,
                hours: vec![],
            },
            // Launched before this cloud knew products, with a code that nobody sells.
            (None, None) => continue,
        };
        let before = usage.next_hour;
        usage.count(ran);
        if usage.next_hour != before {
            usage.forget_before(now.plus_millis(-USAGE_KEPT_MS));
            changes.push(usage.put());
        }
    }
    changes
}

/// Whether an hour has begun that is not counted for an instance that is meant to run.
fn is_due(state: &State, instance: &Instance, now: Timestamp) -> bool {
    let hour = hour_of(instance.launched, now);
    instance.intent.want == Want::Running
        && instance.product_codes.iter().any(|code| {
            let usage = state
                .product_usage
                .get(&(code.as_str().into(), instance.id));
            match usage {
                Some(usage) => usage.next_hour <= hour,
                None => state.products.contains_key(code.as_str()),
            }
        })
}

/// Whether nothing of it is to be kept, and its instance cannot use more.
fn is_old(state: &State, usage: &Usage, now: Timestamp) -> bool {
    let kept_from = now.plus_millis(-USAGE_KEPT_MS);
    !state.instances.contains_key(&usage.instance)
        && usage.within(Some(kept_from), None).next().is_none()
}

#[cfg(test)]
mod tests {
    use cumulet_domain::instances::{Intent, MetadataOptions, Observed, StateReason, Vm};
    use cumulet_domain::products::HOUR_MS;
    use cumulet_domain::{ImageId, ReservationId};
    use cumulet_store::View as _;

    use super::*;

    const LAUNCHED: Timestamp = Timestamp(1_000_000);

    fn instance() -> Instance {
        serde_json::from_value(serde_json::json!({
            "id": InstanceId::from_random(1),
            "reservation": ReservationId::from_random(1),
            "owner": AccountId::from_random(2),
            "image": ImageId::from_random(1),
            "launch_index": 0,
            "launched": LAUNCHED,
            "instance_type": "m1.small",
            "vcpus": 1,
            "memory_mib": 1024,
            "ephemeral_mib": 0,
            "swap_mib": 0,
            "disk_mib": 0,
            "key": null,
            "product_codes": ["ONE", "NOBODYS"],
            "kernel": null,
            "machine": "pc",
            "address": "10.0.0.4",
            "uid": 1,
            "metadata": MetadataOptions::default(),
            "intent": Intent { generation: 1, want: Want::Running, reboots: 0 },
            "observed": Observed { vm: Vm::Running { since: LAUNCHED }, ..Observed::default() },
        }))
        .expect("an instance")
    }

    fn state_of(changes: Vec<Change>) -> State {
        let mut state = State::default();
        for change in changes {
            state.apply(1, &change).expect("a record");
        }
        state
    }

    fn product() -> Product {
        Product {
            code: "ONE".into(),
            owner: AccountId::from_random(1),
            created: LAUNCHED,
        }
    }

    fn hours_later(hours: i64) -> Timestamp {
        LAUNCHED.plus_millis(hours * HOUR_MS)
    }

    #[test]
    fn an_instance_is_looked_at_once_for_each_hour_that_begins() {
        let it = instance();
        let mut state = state_of(vec![it.put(), product().put()]);
        assert!(is_due(&state, &it, LAUNCHED), "nothing is counted yet");
        for now in [LAUNCHED, hours_later(1), hours_later(7)] {
            let ran = Ran {
                since: LAUNCHED,
                until: now,
            };
            assert!(is_due(&state, &it, now));
            let changes = plan_usage(&state, it.id, ran, now);
            // The code that nobody sells is not counted.
            assert_eq!(changes.len(), 1);
            for change in &changes {
                state.apply(2, change).expect("a record");
            }
            assert_eq!(plan_usage(&state, it.id, ran, now), []);
            assert!(!is_due(&state, &it, now));
            assert!(!is_due(&state, &it, now.plus_millis(HOUR_MS - 1)));
            assert!(!is_due(&state, &it, LAUNCHED), "the clock was set back");
        }
        let mut ending = it.clone();
        ending.terminate(hours_later(9), StateReason::user_initiated());
        assert!(is_due(&state, &it, hours_later(9)));
        assert!(!is_due(&state, &ending, hours_later(9)));
        let free = Instance {
            product_codes: vec![],
            ..it
        };
        assert!(!is_due(&state, &free, hours_later(9)));
    }

    #[test]
    fn usage_is_kept_for_400_days_and_as_long_as_its_instance() {
        let it = instance();
        let state = state_of(vec![it.put(), product().put()]);
        let ran = Ran {
            since: LAUNCHED,
            until: hours_later(2),
        };
        let changes = plan_usage(&state, it.id, ran, hours_later(2));
        let usage = Usage::read(changes[0].value.as_ref().expect("a put")).expect("usage");
        let alone = state_of(changes);
        let last = hours_later(2).plus_millis(USAGE_KEPT_MS);
        assert!(!is_old(&alone, &usage, last));
        assert!(is_old(&alone, &usage, last.plus_millis(1)));
        let with_instance = state_of(vec![it.put(), usage.put()]);
        assert!(!is_old(&with_instance, &usage, last.plus_millis(1)));
        // What is old goes when more is counted, and is not counted again.
        let later = last.plus_millis(1);
        let ran = Ran {
            until: later,
            ..ran
        };
        let changes = plan_usage(&with_instance, it.id, ran, later);
        let usage = Usage::read(changes[0].value.as_ref().expect("a put")).expect("usage");
        assert_eq!(usage.hours.first().map(|it| it.first), Some(3));
        assert_eq!(usage.next_hour, hour_of(LAUNCHED, later) + 1);
    }
}
