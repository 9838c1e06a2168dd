//! Security groups: records and rules.
//!
//! `default` is there for every account and has a record once its rules were
//! changed.  A launch looks its groups up in the planner that commits it, and
//! deleting looks for members in its own, so that no instance ever is in a group
//! that is gone.
//!
//! Where machines are real nothing carries rules out yet: their network lets
//! nobody in.  There no rule is shown and none can be changed, so that what is
//! listed is what holds.

use std::sync::Arc;

use cumulet_domain::instances::Liveness;
use cumulet_domain::security_groups::{
    DEFAULT_GROUP, Era, GROUPS_MAX, GroupRef, Membership, Rule, SecurityGroup, Source, Traffic,
    check_description, check_new_name, check_rule_description, reserved,
};
use cumulet_domain::tags::TagMap;
use cumulet_domain::{AccountId, Error, InstanceId, ReservationId, Resource, SecurityGroupId};
use cumulet_store::Plan;

use crate::draws::Draws;
use crate::records::Stored;
use crate::state::State;
use crate::tags;
use crate::{Caller, Engine};

/// A rule as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleAsked {
    pub traffic: Traffic,
    pub source: SourceAsked,
    pub description: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceAsked {
    /// What needs no looking up.
    Known(Source),
    Group {
        /// `None`: the caller.
        owner: Option<AccountId>,
        group: GroupRef,
        /// If the name was given beside an id, it must be that.
        name: Option<String>,
    },
}

/// A group and those of its rules that a request was about.
#[derive(Debug, Clone)]
pub struct RulesChanged {
    pub group: SecurityGroup,
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Authorize,
    Revoke,
}

impl State {
    /// The groups of an account that have a record, by name.
    fn recorded_groups(&self, owner: AccountId) -> impl Iterator<Item = &Arc<SecurityGroup>> {
        self.groups_by_name
            .range((owner, Arc::from(""))..)
            .take_while(move |((account, _), _)| *account == owner)
            .filter_map(|(_, id)| self.security_groups.get(id))
    }

    /// The groups of an account, by name.
    pub fn groups_of(&self, owner: AccountId) -> Vec<Arc<SecurityGroup>> {
        let mut groups: Vec<_> = self.recorded_groups(owner).cloned().collect();
        let place = groups.partition_point(|group| group.name.as_str() < DEFAULT_GROUP);
        if groups.get(place).is_none_or(|it| it.name != DEFAULT_GROUP) {
            groups.insert(place, Arc::new(SecurityGroup::default_of(owner)));
        }
        groups
    }

    /// A group of the account.
    ///
    /// # Errors
    /// `NotFound`, also for a group of somebody else.
    pub fn group(&self, owner: AccountId, group: &GroupRef) -> Result<Arc<SecurityGroup>, Error> {
        let id = match group {
            GroupRef::Id(id) => Some(*id),
            GroupRef::Name(name) => {
                let known = self.groups_by_name.get(&(owner, name.as_str().into()));
                let implied = (name == DEFAULT_GROUP).then(|| SecurityGroupId::of(owner));
                known.copied().or(implied)
            }
        };
        let recorded = id.and_then(|id| self.security_groups.get(&id));
        match recorded {
            Some(found) if found.owner == owner => Ok(found.clone()),
            None if id == Some(SecurityGroupId::of(owner)) => {
                Ok(Arc::new(SecurityGroup::default_of(owner)))
            }
            _ => Err(Error::not_found(Resource::SecurityGroup, group)),
        }
    }

    /// What a launch with these groups is in: each once, in their order; `default` if there are none.
    ///
    /// # Errors
    /// `NotFound` naming the first that the account does not have.
    pub(crate) fn memberships(
        &self,
        owner: AccountId,
        groups: &[GroupRef],
    ) -> Result<Vec<Membership>, Error> {
        let mut memberships: Vec<Membership> = vec![];
        for group in groups {
            let found = self.group(owner, group)?;
            if !memberships.iter().any(|known| known.id == found.id) {
                memberships.push(found.membership());
            }
        }
        if memberships.is_empty() {
            memberships.push(SecurityGroup::default_of(owner).membership());
        }
        Ok(memberships)
    }

    /// Whether a launch that is still shown named the group.
    pub(crate) fn has_launches_in(&self, group: SecurityGroupId) -> bool {
        let least = (group, ReservationId::from_random(0));
        let next = self.reservations_by_group.range(least..).next();
        next.is_some_and(|(id, _)| *id == group)
    }

    /// An instance that is in the group and not gone.
    fn member(&self, group: SecurityGroupId) -> Option<InstanceId> {
        let least = (group, ReservationId::from_random(0));
        let reservations = self.reservations_by_group.range(least..);
        reservations
            .take_while(|(id, _)| *id == group)
            .filter_map(|(_, id)| self.reservations.get(id))
            .flat_map(|reservation| &reservation.instances)
            .filter_map(|id| self.instances.get(id))
            .find(|instance| instance.liveness() == Liveness::Alive)
            .map(|instance| instance.id)
    }
}

fn plan_create(
    state: &State,
    mut group: SecurityGroup,
    mut draws: Draws,
    tags: TagMap,
) -> Result<Plan<SecurityGroup>, Error> {
    let name = (group.owner, group.name.as_str().into());
    if state.groups_by_name.contains_key(&name) {
        return Err(Error::AlreadyExists {
            resource: Resource::SecurityGroup,
            id: group.name,
        });
    }
    let made = state.recorded_groups(group.owner);
    if made.filter(|it| it.name != DEFAULT_GROUP).count() >= GROUPS_MAX {
        return Err(Error::LimitExceeded {
            resource: Resource::SecurityGroup,
            message: format!(
                "The maximum number of security groups, {GROUPS_MAX}, has been reached"
            ),
        });
    }
    draws.settle(&mut group.id, SecurityGroupId::mint, |id| {
        state.shows_security_group(id)
    })?;
    let mut changes = vec![group.put()];
    changes.extend(tags::first(group.id, group.owner, tags));
    Ok(Plan {
        changes,
        answer: group,
    })
}

fn plan_delete(
    state: &State,
    owner: AccountId,
    group: &GroupRef,
) -> Result<Plan<SecurityGroupId>, Error> {
    let group = state.group(owner, group)?;
    if group.name == DEFAULT_GROUP {
        return Err(reserved(DEFAULT_GROUP));
    }
    let in_use = |message: String| Error::IncorrectState {
        resource: Resource::SecurityGroup,
        message,
    };
    let name = &group.name;
    if let Some(instance) = state.member(group.id) {
        let message = format!(
            "There are active instances using security group '{name}', for example {instance}"
        );
        return Err(in_use(message));
    }
    // A rule of somebody else's keeps nobody from deleting what is theirs: its source has no members
    // from then on, a group that gets the name later has another id, and `resolve` finds it to be
    // revoked.
    let mut others = state.recorded_groups(owner);
    if let Some(other) = others.find(|it| it.id != group.id && it.names(group.id)) {
        let message = format!(
            "The security group '{name}' is named by a rule of the group '{}'",
            other.name
        );
        return Err(in_use(message));
    }
    let mut changes = vec![group.delete()];
    changes.extend(tags::forget(state, [group.id.into()]));
    Ok(Plan {
        changes,
        answer: group.id,
    })
}

/// A group of an account as a source; if a name was given beside an id, it must be that.
fn find_source(
    state: &State,
    (caller, owner): (AccountId, AccountId),
    group: &GroupRef,
    name: Option<&str>,
) -> Result<Source, Error> {
    let unknown = || Error::not_found(Resource::SecurityGroup, group);
    if owner != caller && !state.accounts.contains_key(&owner) {
        return Err(unknown());
    }
    let found = state.group(owner, group)?;
    if name.is_some_and(|name| name != found.name) {
        return Err(unknown());
    }
    let Membership { id, name } = found.membership();
    Ok(Source::Group { owner, id, name })
}

/// A group's rules, of which some are to be revoked.
type Known<'a> = Option<(&'a SecurityGroup, Era)>;

/// The rules with their sources looked up.
///
/// One that is to be revoked goes by the words it is shown in.  Several groups of somebody else's
/// may have had one name, the last of which may be there: it is that which `known` has the rule of.
fn resolve(
    state: &State,
    caller: AccountId,
    asked: Vec<RuleAsked>,
    known: Known<'_>,
) -> Result<Vec<Rule>, Error> {
    let mut rules: Vec<Rule> = vec![];
    for asked in asked {
        let traffic = asked.traffic;
        let source = match asked.source {
            SourceAsked::Known(source) => source,
            SourceAsked::Group { owner, group, name } => {
                let owner = owner.unwrap_or(caller);
                let found = find_source(state, (caller, owner), &group, name.as_deref());
                let is_meant = |source: &&Source| is_told(source, owner, &group, name.as_deref());
                let of_group = known.into_iter().flat_map(|(of, _)| &of.ingress);
                let shown = of_group.map(|rule| &rule.source).filter(is_meant);
                // Two rules in the same words are two in a request, too.
                let is_asked = |source: &Source| {
                    let mut rules = rules.iter();
                    rules.any(|it| it.traffic == traffic && it.source == *source)
                };
                let is_there = |source: &&Source| {
                    known.is_some_and(|(of, era)| of.has(traffic, source, era)) && !is_asked(source)
                };
                let first = shown.clone().next().cloned();
                match found.iter().chain(shown).find(is_there).cloned() {
                    Some(source) => source,
                    None => found.or_else(|unknown| first.ok_or(unknown))?,
                }
            }
        };
        rules.push(Rule {
            traffic,
            source,
            description: asked.description.filter(|it| !it.is_empty()),
        });
    }
    Ok(rules)
}

/// Whether a rule's source is a group that these words tell.
fn is_told(source: &Source, owner: AccountId, group: &GroupRef, name: Option<&str>) -> bool {
    match source {
        Source::Group {
            owner: of,
            id,
            name: known,
        } => {
            let is_it = match group {
                GroupRef::Id(asked) => asked == id,
                GroupRef::Name(asked) => asked == known,
            };
            *of == owner && is_it && name.is_none_or(|asked| asked == known)
        }
        Source::Network(_) | Source::Nobody => false,
    }
}

/// The groups of others without the rules that name groups of an account that goes.  The id of its
/// `default` follows from its number: an account that gets the same number later must not be let in.
pub(crate) fn without_rules_naming(state: &State, gone: AccountId) -> Vec<SecurityGroup> {
    let is_named =
        |rule: &Rule| matches!(&rule.source, Source::Group { owner, .. } if *owner == gone);
    let groups = state.security_groups.values();
    let meant = groups.filter(|it| it.owner != gone && it.ingress.iter().any(is_named));
    meant
        .map(|group| {
            let mut group = SecurityGroup::clone(group);
            group.ingress.retain(|rule| !is_named(rule));
            group
        })
        .collect()
}

fn plan_rules(
    state: &State,
    owner: AccountId,
    group: &GroupRef,
    (change, era): (Change, Era),
    asked: Vec<RuleAsked>,
) -> Result<Plan<RulesChanged>, Error> {
    let mut group = SecurityGroup::clone(&*state.group(owner, group)?);
    let rules = match change {
        Change::Authorize => {
            let rules = resolve(state, owner, asked, None)?;
            group.authorize(rules, era)?
        }
        Change::Revoke => {
            let rules = resolve(state, owner, asked, Some((&group, era)))?;
            group.revoke(rules, era)?
        }
    };
    Ok(Plan {
        changes: vec![group.put()],
        answer: RulesChanged { group, rules },
    })
}

impl Engine {
    /// Lets in what the rules say: all of it, or nothing on an error.
    ///
    /// # Errors
    /// `NotFound` of the group or of a source, `InvalidValue`, `AlreadyExists`, `LimitExceeded`;
    /// `Unsupported` where nothing carries rules out.
    pub async fn authorize_ingress(
        &self,
        caller: &Caller,
        group: GroupRef,
        era: Era,
        rules: Vec<RuleAsked>,
    ) -> Result<RulesChanged, Error> {
        self.change_rules(caller, group, (Change::Authorize, era), rules)
            .await
    }

    /// Takes rules away: all of them, or none on an error.
    ///
    /// # Errors
    /// `NotFound` of the group, of a source or of a rule; `Unsupported` as with
    /// [`Self::authorize_ingress`].
    pub async fn revoke_ingress(
        &self,
        caller: &Caller,
        group: GroupRef,
        era: Era,
        rules: Vec<RuleAsked>,
    ) -> Result<RulesChanged, Error> {
        self.change_rules(caller, group, (Change::Revoke, era), rules)
            .await
    }

    async fn change_rules(
        &self,
        caller: &Caller,
        group: GroupRef,
        how: (Change, Era),
        rules: Vec<RuleAsked>,
    ) -> Result<RulesChanged, Error> {
        for rule in &rules {
            check_rule_description(rule.description.as_deref().unwrap_or_default())?;
        }
        if !self.carries_rules_out() {
            return Err(Error::Unsupported {
                message: "Rules of security groups cannot be changed here yet: nothing carries them out, and the network lets nobody in to an instance".into(),
            });
        }
        let owner = caller.account;
        self.commit(move |state| plan_rules(state, owner, &group, how, rules))
            .await
    }

    /// Makes a group that lets nobody in.
    ///
    /// # Errors
    /// `Missing`, `InvalidValue`, `Reserved`, `AlreadyExists`, `LimitExceeded`.
    pub async fn create_security_group(
        &self,
        caller: &Caller,
        name: String,
        description: String,
        tags: TagMap,
    ) -> Result<SecurityGroup, Error> {
        check_new_name(&name)?;
        check_description(&description)?;
        let mut draws = self.draw(1);
        let group = SecurityGroup {
            id: draws.next(SecurityGroupId::mint)?,
            owner: caller.account,
            name,
            description,
            ingress: vec![],
        };
        self.commit(move |state| plan_create(state, group, draws, tags))
            .await
    }

    /// The caller's groups: all by name, or those that are named, in their order and each once.
    ///
    /// # Errors
    /// `NotFound` naming the first that the caller does not have.
    pub fn describe_security_groups(
        &self,
        caller: &Caller,
        groups: &[GroupRef],
    ) -> Result<Vec<Arc<SecurityGroup>>, Error> {
        let state = self.snapshot();
        if groups.is_empty() {
            let all = state.groups_of(caller.account);
            return Ok(all.into_iter().map(|it| self.as_it_holds(it)).collect());
        }
        let mut found: Vec<Arc<SecurityGroup>> = vec![];
        for group in groups {
            let group = state.group(caller.account, group)?;
            if !found.iter().any(|known| known.id == group.id) {
                found.push(self.as_it_holds(group));
            }
        }
        Ok(found)
    }

    /// The group with those of its rules that somebody carries out.
    fn as_it_holds(&self, mut group: Arc<SecurityGroup>) -> Arc<SecurityGroup> {
        if !self.carries_rules_out() && !group.ingress.is_empty() {
            Arc::make_mut(&mut group).ingress.clear();
        }
        group
    }

    fn carries_rules_out(&self) -> bool {
        self.host().profile.carries_rules_out
    }

    /// Deletes a group that has no member and that no other group of its owner names.
    ///
    /// # Errors
    /// `NotFound`, `Reserved`, `IncorrectState` of what is in use.
    pub async fn delete_security_group(
        &self,
        caller: &Caller,
        group: GroupRef,
    ) -> Result<SecurityGroupId, Error> {
        let owner = caller.account;
        self.commit(move |state| plan_delete(state, owner, &group))
            .await
    }
}
