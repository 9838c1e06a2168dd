//! Security groups: who may reach the members of a group, and how rules read.
//!
//! A rule is one kind of traffic from one source; what the API calls a
//! permission is the rules of one kind of traffic together.  Two texts that mean
//! the same are the same [`Rule`]: networks are masked, protocols are told by
//! number or by name.
//!
//! Every account has the group `default`.  Until its rules change it has no
//! record: [`SecurityGroup::default_of`] says what it is, so that accounts of
//! any age have it.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::network::Ipv4Net;
use crate::{AccountId, Error, Resource, SecurityGroupId, SecurityGroupRuleId, shown};

/// The group of instances that are launched without one.
pub const DEFAULT_GROUP: &str = "default";
/// Longest name, description of a group, or description of a rule.
pub const TEXT_LEN_MAX: usize = 255;
/// Most rules of a group.
pub const RULES_MAX: usize = 100;
/// Most groups of an account, `default` not counted.
pub const GROUPS_MAX: usize = 500;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    pub id: SecurityGroupId,
    pub owner: AccountId,
    pub name: String,
    pub description: String,
    /// What may come in, in the order in which it was granted.  All may go out.
    pub ingress: Vec<Rule>,
}

/// A group as a launch remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    pub id: SecurityGroupId,
    pub name: String,
}

/// How a request names a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupRef {
    Name(String),
    Id(SecurityGroupId),
}

impl fmt::Display for GroupRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GroupRef::Name(name) => f.write_str(name),
            GroupRef::Id(id) => id.fmt(f),
        }
    }
}

/// One kind of traffic from one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub traffic: Traffic,
    pub source: Source,
    pub description: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Traffic {
    /// Every protocol.
    All,
    Tcp {
        from: u16,
        to: u16,
    },
    Udp {
        from: u16,
        to: u16,
    },
    /// Type and code, from 0 to 255; -1 is any.
    Icmp {
        kind: i16,
        code: i16,
    },
    /// Any other protocol, by its number.
    Other {
        protocol: u8,
    },
}

/// What together is all that 2007 knew of.
const CLASSIC: [Traffic; 3] = [
    Traffic::Tcp {
        from: 0,
        to: u16::MAX,
    },
    Traffic::Udp {
        from: 0,
        to: u16::MAX,
    },
    Traffic::Icmp { kind: -1, code: -1 },
];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Addresses; the part that the prefix leaves out is zero.
    Network(Ipv4Net),
    /// Members of a group.
    Group {
        owner: AccountId,
        id: SecurityGroupId,
        name: String,
    },
    /// Nobody: SOAP messages of the classic versions may name no source.
    Nobody,
}

/// Which words a version has for rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// Before 2011-01-01: TCP, UDP and ICMP.  All traffic of a group's members is three permissions.
    Classic,
    /// Protocols by number, and -1 for all of them.
    Numbered,
}

impl SecurityGroup {
    /// The group `default` of an account as it is before anybody changes it: its members may reach
    /// each other.
    pub fn default_of(owner: AccountId) -> Self {
        let id = SecurityGroupId::of(owner);
        let own = Source::Group {
            owner,
            id,
            name: DEFAULT_GROUP.into(),
        };
        Self {
            id,
            owner,
            name: DEFAULT_GROUP.into(),
            description: "default group".into(),
            ingress: vec![Rule {
                traffic: Traffic::All,
                source: own,
                description: None,
            }],
        }
    }

    pub fn membership(&self) -> Membership {
        Membership {
            id: self.id,
            name: self.name.clone(),
        }
    }

    /// Whether a rule has this group as its source.
    pub fn names(&self, other: SecurityGroupId) -> bool {
        let is_named =
            |rule: &Rule| matches!(&rule.source, Source::Group { id, .. } if *id == other);
        self.ingress.iter().any(is_named)
    }

    fn place(&self, traffic: Traffic, source: &Source) -> Option<usize> {
        let is_same = |rule: &Rule| rule.traffic == traffic && rule.source == *source;
        self.ingress.iter().position(is_same)
    }

    /// The places of the three rules that let all in that 2007 knew of.
    fn places_of_classic(&self, source: &Source) -> Option<Vec<usize>> {
        let places = CLASSIC.iter().map(|it| self.place(*it, source));
        places.collect()
    }

    /// Adds rules: all of them or none.
    ///
    /// # Errors
    /// `AlreadyExists` for a rule that there is, in these or in other words; `LimitExceeded`.
    pub fn authorize(&mut self, rules: Vec<Rule>, era: Era) -> Result<Vec<Rule>, Error> {
        let rules = gathered(rules, era);
        for rule in &rules {
            if self.has(rule.traffic, &rule.source, era) {
                return Err(Error::AlreadyExists {
                    resource: Resource::Permission,
                    id: rule.to_string(),
                });
            }
            self.ingress.push(rule.clone());
        }
        self.check_count()?;
        Ok(rules)
    }

    fn check_count(&self) -> Result<(), Error> {
        if self.ingress.len() <= RULES_MAX {
            return Ok(());
        }
        Err(Error::LimitExceeded {
            resource: Resource::Permission,
            message: format!(
                "The maximum number of rules per security group, {RULES_MAX}, has been reached: the group '{}' would have {}",
                self.name,
                self.ingress.len()
            ),
        })
    }

    /// Whether there is the rule, in these or in other words: what can be revoked, and not be
    /// granted again.
    pub fn has(&self, traffic: Traffic, source: &Source, era: Era) -> bool {
        let is_in_all = || {
            let is_shown = era == Era::Classic && CLASSIC.contains(&traffic);
            is_shown && self.place(Traffic::All, source).is_some()
        };
        let is_all_three = || {
            let is_all = era == Era::Classic
                && traffic == Traffic::All
                && matches!(source, Source::Group { .. });
            is_all && self.places_of_classic(source).is_some()
        };
        self.place(traffic, source).is_some() || is_in_all() || is_all_three()
    }

    /// Takes rules away: all of them or none.
    ///
    /// # Errors
    /// `NotFound` for a rule that there is not; `LimitExceeded` if what is left of a rule for all
    /// traffic would be more rules than a group may have.
    pub fn revoke(&mut self, rules: Vec<Rule>, era: Era) -> Result<Vec<Rule>, Error> {
        let rules = gathered(rules, era);
        let before = self.ingress.len();
        for rule in &rules {
            if !self.take(rule, era) {
                return Err(Error::not_found(Resource::Permission, rule));
            }
        }
        if self.ingress.len() > before {
            self.check_count()?;
        }
        Ok(rules)
    }

    fn take(&mut self, rule: &Rule, era: Era) -> bool {
        let is_group = matches!(rule.source, Source::Group { .. });
        match (era, rule.traffic) {
            (Era::Classic, Traffic::All) if is_group => self.take_whole(&rule.source),
            (Era::Classic, traffic) if CLASSIC.contains(&traffic) => {
                // Both may be there, shown as one: who revokes what is shown is rid of it.
                let was_there = self.take_one(rule);
                self.take_of_all(traffic, &rule.source) || was_there
            }
            _ => self.take_one(rule),
        }
    }

    fn take_one(&mut self, rule: &Rule) -> bool {
        let place = self.place(rule.traffic, &rule.source);
        if let Some(place) = place {
            self.ingress.remove(place);
        }
        place.is_some()
    }

    /// All that a source may send, where only three kinds of traffic are known: a rule for all of
    /// it, the three, or both.
    fn take_whole(&mut self, source: &Source) -> bool {
        let is_there =
            self.place(Traffic::All, source).is_some() || self.places_of_classic(source).is_some();
        if is_there {
            let is_part = |it: &Rule| it.traffic == Traffic::All || CLASSIC.contains(&it.traffic);
            self.ingress
                .retain(|it| it.source != *source || !is_part(it));
        }
        is_there
    }

    /// One of the three that stand for all where only these three are known: the others stay.
    fn take_of_all(&mut self, traffic: Traffic, source: &Source) -> bool {
        let Some(place) = self.place(Traffic::All, source) else {
            return false;
        };
        let all = self.ingress.remove(place);
        let left = CLASSIC.iter().filter(|it| **it != traffic);
        let left = left.map(|traffic| Rule {
            traffic: *traffic,
            ..all.clone()
        });
        let left: Vec<Rule> = left
            .filter(|it| self.place(it.traffic, source).is_none())
            .collect();
        self.ingress.splice(place..place, left);
        true
    }

    /// The rules as permissions, in the order in which their traffic was first granted.
    pub fn permissions(&self, era: Era) -> Vec<Permission<'_>> {
        let mut permissions: Vec<Permission<'_>> = vec![];
        for rule in &self.ingress {
            let shown = match (era, rule.traffic) {
                (Era::Classic, Traffic::All) => &CLASSIC[..],
                _ => std::slice::from_ref(&rule.traffic),
            };
            for traffic in shown {
                let known = permissions.iter_mut().find(|it| it.traffic == *traffic);
                match known {
                    Some(known) if known.rules.iter().any(|it| it.source == rule.source) => {}
                    Some(known) => known.rules.push(rule),
                    None => permissions.push(Permission {
                        traffic: *traffic,
                        rules: vec![rule],
                    }),
                }
            }
        }
        permissions
    }
}

/// The rules of one kind of traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission<'a> {
    pub traffic: Traffic,
    /// Their sources are what tells them apart.
    pub rules: Vec<&'a Rule>,
}

/// In classic words, the three permissions for all traffic of a group's members are one rule.
fn gathered(mut rules: Vec<Rule>, era: Era) -> Vec<Rule> {
    if era != Era::Classic {
        return rules;
    }
    let of_tcp: Vec<Rule> = rules
        .iter()
        .filter(|it| it.traffic == CLASSIC[0] && matches!(it.source, Source::Group { .. }))
        .cloned()
        .collect();
    for first in of_tcp {
        let place = |traffic: &Traffic| {
            let is_it = |it: &Rule| it.traffic == *traffic && it.source == first.source;
            rules.iter().position(is_it)
        };
        let places: Option<Vec<usize>> = CLASSIC.iter().map(place).collect();
        let Some(mut places) = places else { continue };
        places.sort_unstable();
        let least = places.first().copied().unwrap_or(0);
        for place in places.into_iter().rev() {
            rules.remove(place);
        }
        let all = Rule {
            traffic: Traffic::All,
            ..first
        };
        rules.insert(least, all);
    }
    rules
}

impl Traffic {
    /// Reads a protocol with its ports, or its type and code.
    ///
    /// # Errors
    /// `InvalidValue` of the parameter `IpPermissions`, saying what is wrong.
    pub fn parse(
        protocol: &str,
        from: Option<i64>,
        to: Option<i64>,
        era: Era,
    ) -> Result<Self, Error> {
        let name = protocol.to_ascii_lowercase();
        let name = match (era, name.as_str()) {
            (Era::Numbered, "6") => "tcp",
            (Era::Numbered, "17") => "udp",
            (Era::Numbered, "1") => "icmp",
            (_, name) => name,
        };
        match name {
            "tcp" => ports(name, from, to).map(|(from, to)| Traffic::Tcp { from, to }),
            "udp" => ports(name, from, to).map(|(from, to)| Traffic::Udp { from, to }),
            "icmp" => icmp(from, to),
            "-1" | "all" if era == Era::Numbered => Ok(Traffic::All),
            number => match (era, number.parse::<u8>()) {
                // 58 is ICMPv6, and there is no IPv6 here.
                (Era::Numbered, Ok(protocol))
                    if protocol != 58 && number.bytes().all(|it| it.is_ascii_digit()) =>
                {
                    Ok(Traffic::Other { protocol })
                }
                (Era::Classic, _) => Err(malformed(format!(
                    "Unsupported IP protocol \"{}\" - supported: [tcp, udp, icmp]",
                    shown(protocol)
                ))),
                (Era::Numbered, _) => Err(malformed(format!(
                    "Unsupported IP protocol \"{}\" - supported: [tcp, udp, icmp, -1] and numbers, without IPv6",
                    shown(protocol)
                ))),
            },
        }
    }

    /// `tcp`, `udp`, `icmp`, a number, or `-1` for all.
    pub fn protocol(self) -> String {
        match self {
            Traffic::All => "-1".into(),
            Traffic::Tcp { .. } => "tcp".into(),
            Traffic::Udp { .. } => "udp".into(),
            Traffic::Icmp { .. } => "icmp".into(),
            Traffic::Other { protocol } => protocol.to_string(),
        }
    }

    /// First and last port, or type and code; nothing where there are neither.
    pub fn range(self) -> Option<(i32, i32)> {
        match self {
            Traffic::Tcp { from, to } | Traffic::Udp { from, to } => Some((from.into(), to.into())),
            Traffic::Icmp { kind, code } => Some((kind.into(), code.into())),
            Traffic::All | Traffic::Other { .. } => None,
        }
    }
}

fn malformed(message: impl Into<String>) -> Error {
    Error::invalid("IpPermissions", message)
}

fn ports(protocol: &str, from: Option<i64>, to: Option<i64>) -> Result<(u16, u16), Error> {
    let port = |given: Option<i64>, which: &str| {
        match given {
        None => Err(malformed(format!(
            "A rule for {protocol} must say its {which} port"
        ))),
        Some(port) => u16::try_from(port).map_err(|_| {
            malformed(format!(
                "Invalid {which} port {port} of a rule for {protocol}: ports lie between 0 and 65535"
            ))
        }),
    }
    };
    let (from, to) = (port(from, "first")?, port(to, "last")?);
    if from > to {
        return Err(malformed(format!(
            "Invalid {protocol} port range ({from}:{to}): it ends before it begins"
        )));
    }
    Ok((from, to))
}

fn icmp(kind: Option<i64>, code: Option<i64>) -> Result<Traffic, Error> {
    let read = |given: Option<i64>, what: &str| {
        let number = given.ok_or_else(|| {
            malformed(format!(
                "A rule for icmp must say its {what}, or -1 for any"
            ))
        })?;
        match i16::try_from(number) {
            Ok(number @ -1..=255) => Ok(number),
            _ => Err(malformed(format!(
                "Invalid ICMP {what} {number}: it is -1 for any, or lies between 0 and 255"
            ))),
        }
    };
    let (kind, code) = (read(kind, "type")?, read(code, "code")?);
    if kind == -1 && code != -1 {
        return Err(malformed(format!(
            "Invalid ICMP code {code}: with any type there is any code, -1"
        )));
    }
    Ok(Traffic::Icmp { kind, code })
}

impl Source {
    /// Reads a network; bits that its prefix leaves out are dropped, as EC2 drops them.
    ///
    /// # Errors
    /// `InvalidValue` of the parameter `IpPermissions`.
    pub fn network(text: &str) -> Result<Self, Error> {
        let read = || {
            let (address, prefix) = text.split_once('/')?;
            let address: Ipv4Addr = address.parse().ok()?;
            let is_number =
                (1..=2).contains(&prefix.len()) && prefix.bytes().all(|it| it.is_ascii_digit());
            let prefix = prefix
                .parse::<u8>()
                .ok()
                .filter(|it| is_number && *it <= 32)?;
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            Some(Ipv4Net {
                address: Ipv4Addr::from(u32::from(address) & mask),
                prefix,
            })
        };
        let wrong = || malformed(format!("CIDR block {} is malformed", shown(text)));
        read().map(Source::Network).ok_or_else(wrong)
    }
}

impl Rule {
    /// The id of this rule in a group: as long as the rule is the same, so is the id.
    pub fn id_in(&self, group: SecurityGroupId) -> SecurityGroupRuleId {
        let (kind, number) = match self.traffic {
            Traffic::All => (0, 0),
            Traffic::Tcp { .. } => (1, 6),
            Traffic::Udp { .. } => (1, 17),
            Traffic::Icmp { .. } => (1, 1),
            Traffic::Other { protocol } => (2, u128::from(protocol)),
        };
        let (from, to) = self.traffic.range().unwrap_or_default();
        let range = [from, to].map(|it| u128::from(it.unsigned_abs()) << 1 | u128::from(it < 0));
        let (what, who) = match &self.source {
            Source::Network(net) => (
                1,
                u128::from(u32::from(net.address)) << 8 | u128::from(net.prefix),
            ),
            Source::Group { id, .. } => (2, id.parts().0),
            Source::Nobody => (0, 0),
        };
        SecurityGroupRuleId::of(group, &[kind, number, range[0], range[1], what, who])
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Network(net) => write!(f, "peer: {}/{}, ", net.address, net.prefix)?,
            Source::Group { owner, name, .. } => write!(f, "peer: {owner}/{name}, ")?,
            Source::Nobody => f.write_str("peer: none, ")?,
        }
        match (self.traffic, self.traffic.range()) {
            (Traffic::All, _) => f.write_str("ALL, ALLOW"),
            (traffic @ Traffic::Icmp { .. }, Some((kind, code))) => {
                let name = traffic.protocol();
                write!(f, "{name}, type: {kind}, code: {code}, ALLOW")
            }
            (traffic, Some((from, to))) => {
                let name = traffic.protocol();
                write!(f, "{name}, from port: {from}, to port: {to}, ALLOW")
            }
            (traffic, None) => write!(f, "protocol {}, ALLOW", traffic.protocol()),
        }
    }
}

/// Checks the name of a new group.
///
/// # Errors
/// `Missing`, `InvalidValue`; `Reserved` for `default`.
pub fn check_new_name(name: &str) -> Result<(), Error> {
    check_text("GroupName", name)?;
    if name == DEFAULT_GROUP {
        return Err(reserved(name));
    }
    if name.starts_with("sg-") {
        return Err(Error::invalid(
            "GroupName",
            format!("Invalid value '{name}' for GroupName. Ids begin with sg-, names may not."),
        ));
    }
    Ok(())
}

/// # Errors
/// `Missing`, `InvalidValue`.
pub fn check_description(description: &str) -> Result<(), Error> {
    check_text("GroupDescription", description)
}

/// # Errors
/// `InvalidValue`.
pub fn check_rule_description(description: &str) -> Result<(), Error> {
    if description.is_empty() {
        return Ok(());
    }
    check_text("Description", description)
}

pub fn reserved(name: &str) -> Error {
    Error::Reserved {
        resource: Resource::SecurityGroup,
        id: name.to_owned(),
    }
}

fn check_text(parameter: &str, text: &str) -> Result<(), Error> {
    if text.trim().is_empty() {
        return Err(Error::Missing {
            parameter: parameter.into(),
        });
    }
    let wrong = |why: String| {
        Err(Error::invalid(
            parameter,
            format!(
                "Value ({}) for parameter {parameter} is invalid. {why}",
                shown(text)
            ),
        ))
    };
    if text.len() > TEXT_LEN_MAX {
        return wrong(format!("It has at most {TEXT_LEN_MAX} characters."));
    }
    if let Some(bad) = text.chars().find(|it| !(' '..='~').contains(it)) {
        return wrong(format!(
            "It has printable ASCII characters only, and not {bad:?}."
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
