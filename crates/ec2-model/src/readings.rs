//! What else a text that was signed with signature version 1 could have meant.
//!
//! Version 1 joins names and values without separators, in the order of the names without regard
//! to case.  So `KeyName.1=a` with `KeyName.2=b` signs like `KeyName.1=aKeyName.2b`, and whoever
//! sees the one may send the other.  [`others`] looks for a second way to cut the text into
//! parameters that the operation's table admits; a request that has one is refused, whichever of
//! the two was meant.
//!
//! A cut is a reading if its names are in order, are parameters of the operation (or say who asks
//! for what), hold values of the right form, and if what the operation needs is there.  The forms
//! are wider than what operations accept, never narrower: a reading too many refuses a request
//! that was good, a reading too few lets a forged one pass.  Ids, accounts and words hold no
//! capital letter, and names begin with one, so that only names and texts that users choose can
//! be cut in two ways.
//!
//! Lists are counted 1, 2, 3 … here (or from 0), as clients of that time did.  Otherwise each
//! number of several digits, and each value that begins with one, would have a second reading.

use cumulet_wire::query::{INDEX_MAX, Params, parse_index};

use crate::Version;
use crate::dates::V2011_01_01;
use crate::generated::OPERATIONS;
use crate::model::{self, Found, Kind, Operation, Parameter, Rule};
use crate::request;

/// Longest signed text that is looked at; user data of 16 KiB fits in base64.
const SIGNED_LEN_MAX: usize = 128 * 1024;
/// Most places at which a name may stand in the signed text.
const PLACES_MAX: usize = 2_048;
/// Most pairs of operation and version that a signed text may mention.
const SUBJECTS_MAX: usize = 8;
/// Most parameters of which an operation needs one, or one because of another.
const NEEDS_MAX: usize = 24;

/// Why a request cannot be told from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    #[error(
        "The text that was signed could also be read as other parameters. Sign with SignatureVersion 2, or send fewer names in one request"
    )]
    Others,
    #[error("With SignatureVersion 1 lists are counted 1, 2, 3 and so on, without gaps")]
    Gaps,
    #[error("With SignatureVersion 1 zones, regions and instance types have no capital letters")]
    Capitals,
    #[error(
        "The request has too many parameters for SignatureVersion 1. Sign with SignatureVersion 2"
    )]
    TooLong,
}

/// Finds out whether `signed`, which is how version 1 joins `params`, has a second reading.
///
/// # Errors
/// [`Unclear`], when it has, or when that cannot be found out within limits.
pub fn others(signed: &str, params: &Params) -> Result<(), Unclear> {
    if !are_lists_counted(params) || has_bare_list(params) {
        return Err(Unclear::Gaps);
    }
    if !are_names_plain(params) {
        return Err(Unclear::Capitals);
    }
    if signed.len() > SIGNED_LEN_MAX {
        return Err(Unclear::TooLong);
    }
    let key = params.get("AWSAccessKeyId").unwrap_or_default();
    let subjects = subjects(signed)?;
    for (operation, version) in subjects {
        let search = Search::new(signed, operation, version, key)?;
        if search.count() > u8::from(search.holds(params)) {
            return Err(Unclear::Others);
        }
    }
    Ok(())
}

/// The operations and versions that a reading of the text could be about.
fn subjects(signed: &str) -> Result<Vec<(&'static Operation, Version)>, Unclear> {
    let follows = |name: &str, value: &str| {
        signed
            .match_indices(name)
            .any(|(at, _)| signed[at + name.len()..].starts_with(value))
    };
    let versions: Vec<Version> = Version::all()
        .filter(|version| follows("Version", version.as_str()))
        .collect();
    let mut subjects = vec![];
    for operation in OPERATIONS {
        if !follows("Action", operation.name) && !follows("Operation", operation.name) {
            continue;
        }
        for version in &versions {
            if matches!(model::find(operation.name, *version), Found::Implemented(_)) {
                subjects.push((*operation, *version));
            }
        }
    }
    if subjects.len() > SUBJECTS_MAX {
        return Err(Unclear::TooLong);
    }
    Ok(subjects)
}

/// Whether a value of a list stands under the list's name alone.
fn has_bare_list(params: &Params) -> bool {
    let action = params.get("Action").or_else(|| params.get("Operation"));
    let Some(operation) = action.and_then(model::operation) else {
        return false;
    };
    params
        .iter()
        .any(|(name, _)| request::bare_list(operation, name).is_some())
}

/// The list and the digits of a name such as `ImageId.12`.
fn list_of(name: &str) -> Option<(&str, &str)> {
    let (list, digits) = name.rsplit_once('.')?;
    let is_index = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    (is_index && !list.contains('.')).then_some((list, digits))
}

/// Whether every plain list is counted from 0 or 1 without gaps, and no number has leading zeros.
fn are_lists_counted(params: &Params) -> bool {
    let is_odd = |part: &str| {
        part.len() > 1 && part.starts_with('0') && part.bytes().all(|it| it.is_ascii_digit())
    };
    if params.iter().any(|(name, _)| name.split('.').any(is_odd)) {
        return false;
    }
    let mut lists: std::collections::BTreeMap<&str, Vec<u32>> = std::collections::BTreeMap::new();
    for (list, digits) in params.iter().filter_map(|(name, _)| list_of(name)) {
        let Ok(index) = digits.parse::<u32>() else {
            return false;
        };
        lists.entry(list).or_default().push(index);
    }
    lists.values_mut().all(|indexes| {
        indexes.sort_unstable();
        let first = indexes.first().copied().unwrap_or_default();
        first <= 1 && indexes.iter().copied().eq((first..).take(indexes.len()))
    })
}

/// Whether in a counted list, sorted as texts, `next` may come straight after `last`.
fn may_follow(last: u32, next: u32) -> bool {
    if last == 0 {
        return next == 1;
    }
    let mut stem = last;
    while stem > 0 {
        if next == stem + 1 {
            return true;
        }
        stem /= 10;
    }
    next == last * 10
}

/// Names that the operator gives.  They may hold capital letters, but then not with version 1.
const OPERATORS: &[&str] = &[
    "AvailabilityZone",
    "AvailabilityZoneId",
    "InstanceType",
    "RegionName",
    "ZoneName",
];

/// Names of protocols that permissions take, in capital letters too.
const PROTOCOLS: &[&str] = &["tcp", "udp", "icmp", "all"];

fn are_names_plain(params: &Params) -> bool {
    let (_, is_plain) = Form::Plain.bounds();
    let is_operators = |name: &str| {
        let mut parts = name.rsplit('.').filter(|part| parse_index(part).is_none());
        parts.next().is_some_and(|part| OPERATORS.contains(&part))
    };
    let mut named = params.iter().filter(|(name, _)| is_operators(name));
    named.all(|(_, value)| value.bytes().all(is_plain))
}

/// What a name says about its value.
#[derive(Debug, Clone, Copy)]
enum Form<'a> {
    /// This, and nothing else.
    Exactly(&'a str),
    /// A time of ISO 8601.
    Time,
    Integer,
    Boolean,
    /// Twelve digits, with or without dashes, or a word of small letters and digits.
    Account,
    /// Small letters, a dash, 8 or 17 digits: what resources are called.
    Id,
    /// Small letters, digits and `-./`: zones, types, networks, words.
    Plain,
    /// A protocol of the internet: its name, however it is written, or its number.
    Protocol,
    /// A word of letters.
    Word,
    Text,
}

impl<'a> Form<'a> {
    fn of(parameter: &Parameter) -> Option<Form<'a>> {
        match (parameter.rule, parameter.kind) {
            (Rule::Refused, _) => None,
            (Rule::Only(_), Kind::Integer) | (_, Kind::Integer) => Some(Form::Integer),
            (Rule::Only(_), Kind::Boolean) | (_, Kind::Boolean) => Some(Form::Boolean),
            (Rule::Only(value), _) => Some(Form::Exactly(value)),
            // What is not of its alphabet is ignored in base64: it may hold anything.
            (_, Kind::Base64) => Some(Form::Text),
            (_, Kind::Time) => Some(Form::Time),
            (_, Kind::Text) => Some(Form::of_text(parameter.name)),
        }
    }

    /// By the last part of the name.  What is not listed is a text of the user's.
    fn of_text(name: &str) -> Form<'a> {
        let name = name.strip_suffix(".n").unwrap_or(name);
        match name.rsplit('.').next().unwrap_or_default() {
            "Owner" | "ExecutableBy" | "UserId" | "OwnerId" | "SourceSecurityGroupOwnerId" => {
                Form::Account
            }
            "Attribute" => Form::Word,
            "ImageId" | "InstanceId" => Form::Id,
            // May be empty: messages and some clients say so that there is none.
            "KernelId" => Form::Plain,
            "OperationType" | "UserGroup" | "CidrIp" | "PrivateIpAddress" => Form::Plain,
            "DeviceName" | "VirtualName" => Form::Plain,
            "IpProtocol" => Form::Protocol,
            part if OPERATORS.contains(&part) => Form::Plain,
            _ => Form::Text,
        }
    }

    /// Longest value, and the bytes that it may have.
    fn bounds(self) -> (usize, fn(u8) -> bool) {
        let any: fn(u8) -> bool = |_| true;
        match self {
            Form::Exactly(value) => (value.len(), any),
            Form::Time => (64, |it| {
                it.is_ascii_alphanumeric() || b"-:.+ ".contains(&it)
            }),
            Form::Integer => (usize::MAX, |it| it.is_ascii_digit() || b"+-".contains(&it)),
            Form::Boolean => (5, |it| it.is_ascii_alphanumeric()),
            Form::Account | Form::Id | Form::Plain => (64, |it| {
                it.is_ascii_lowercase() || it.is_ascii_digit() || b"-./".contains(&it)
            }),
            Form::Protocol => (usize::MAX, |it| it.is_ascii_alphanumeric() || it == b'-'),
            Form::Word => (64, |it| it.is_ascii_alphabetic()),
            Form::Text => (usize::MAX, any),
        }
    }

    /// Whether a value within the bounds has the form.
    fn has(self, value: &str) -> bool {
        match self {
            Form::Exactly(wanted) => value == wanted,
            Form::Time => cumulet_wire::time::parse_iso8601(value).is_some(),
            Form::Integer => value.parse::<i64>().is_ok(),
            Form::Boolean => {
                matches!(value, "0" | "1")
                    || value.eq_ignore_ascii_case("true")
                    || value.eq_ignore_ascii_case("false")
            }
            Form::Account => {
                let digits = value.bytes().filter(u8::is_ascii_digit).count();
                let is_word = value.starts_with(|it: char| it.is_ascii_lowercase());
                digits == 0 || digits == 12 || is_word
            }
            Form::Id => value.split_once('-').is_some_and(|(prefix, digits)| {
                prefix.bytes().all(|it| it.is_ascii_lowercase())
                    && !prefix.is_empty()
                    && digits.bytes().all(|it| it.is_ascii_hexdigit())
                    && matches!(digits.len(), 8 | 17)
            }),
            Form::Protocol => {
                let is_named = |name: &&str| value.eq_ignore_ascii_case(name);
                PROTOCOLS.iter().any(is_named) || value.parse::<i16>().is_ok()
            }
            Form::Plain | Form::Word | Form::Text => true,
        }
    }
}

/// A name at a place of the signed text.
struct Place<'a> {
    start: usize,
    /// Where its value begins.
    end: usize,
    name: &'a str,
    /// Its order among the names, without regard to case.
    rank: usize,
    form: Form<'a>,
    /// How far its value may go.
    reach: usize,
    /// What of the needs it satisfies.
    gives: u32,
    /// What of the needs must be satisfied before it, since names come in order.
    due: u32,
    list: Option<(&'a str, u32)>,
}

/// What a reading has to have.
struct Needs {
    names: Vec<&'static str>,
    /// Each reading has all of these.
    always: u32,
    /// A reading with the first has the second.
    because: Vec<(u32, u32)>,
}

/// Parameters that no request has without another (2007's rules are given by their parts).
const TOGETHER: &[(&str, &str)] = &[
    ("CidrIp", "IpProtocol"),
    ("FromPort", "IpProtocol"),
    ("ToPort", "IpProtocol"),
    ("SourceSecurityGroupOwnerId", "SourceSecurityGroupName"),
];

/// As [`TOGETHER`], in the versions before [`V2011_01_01`]: from then on the owner of a group is the
/// caller, unless another is given.
const ONCE_TOGETHER: &[(&str, &str)] = &[("SourceSecurityGroupName", "SourceSecurityGroupOwnerId")];

const ACTION: &str = "Action";
const OPERATION: &str = "Operation";
const TIMESTAMP: &str = "Timestamp";
const EXPIRES: &str = "Expires";

impl Needs {
    fn of(operation: &'static Operation, version: Version) -> Result<Self, Unclear> {
        let mut needs = Self {
            names: vec![],
            always: 0,
            because: vec![],
        };
        for name in ["AWSAccessKeyId", "SignatureVersion", "Version"] {
            needs.always |= needs.bit(name);
        }
        for name in [ACTION, OPERATION, TIMESTAMP, EXPIRES] {
            needs.bit(name);
        }
        for parameter in operation.parameters {
            if parameter.rule == Rule::Required {
                needs.always |= needs.bit(parameter.name);
            }
        }
        let once = ONCE_TOGETHER.iter().filter(|_| version < V2011_01_01);
        for (first, second) in TOGETHER.iter().chain(once) {
            let has = |name: &str| operation.parameters.iter().any(|it| it.name == name);
            if has(first) && has(second) {
                let pair = (needs.bit(first), needs.bit(second));
                needs.because.push(pair);
            }
        }
        if needs.names.len() > NEEDS_MAX {
            return Err(Unclear::TooLong);
        }
        Ok(needs)
    }

    fn bit(&mut self, name: &'static str) -> u32 {
        let index = self.names.iter().position(|it| *it == name);
        let index = index.unwrap_or_else(|| {
            self.names.push(name);
            self.names.len() - 1
        });
        u32::try_from(index).map_or(0, |index| 1_u32.checked_shl(index).unwrap_or_default())
    }

    fn given_by(&self, pattern: &str) -> u32 {
        let index = self.names.iter().position(|it| *it == pattern);
        let index = index.and_then(|index| u32::try_from(index).ok());
        index.map_or(0, |index| 1_u32.checked_shl(index).unwrap_or_default())
    }

    /// What every reading has before a name (in small letters): no way leads back to it.
    fn due_before(&self, name: &str) -> u32 {
        let mut due = 0;
        for need in &self.names {
            let bit = self.given_by(need) & self.always;
            let first = need.to_ascii_lowercase();
            let is_past = match first.strip_suffix(".n") {
                Some(list) => name > list && !name.starts_with(&format!("{list}.")),
                None => name > first.as_str(),
            };
            if is_past {
                due |= bit;
            }
        }
        due
    }

    fn are_met(&self, given: u32) -> bool {
        let has = |name| given & self.given_by(name) != 0;
        given & self.always == self.always
            && (has(ACTION) || has(OPERATION))
            && has(TIMESTAMP) != has(EXPIRES)
            && self
                .because
                .iter()
                .all(|(first, second)| given & first == 0 || given & second != 0)
    }
}

/// All cuts of one text for one operation of one version.
struct Search<'a> {
    signed: &'a str,
    /// By their starts.
    places: Vec<Place<'a>>,
    needs: Needs,
}

impl<'a> Search<'a> {
    fn new(
        signed: &'a str,
        operation: &'static Operation,
        version: Version,
        key: &'a str,
    ) -> Result<Self, Unclear> {
        let needs = Needs::of(operation, version)?;
        let mut search = Self {
            signed,
            places: vec![],
            needs,
        };
        for (name, form) in [
            ("AWSAccessKeyId", Form::Exactly(key)),
            (ACTION, Form::Exactly(operation.name)),
            (OPERATION, Form::Exactly(operation.name)),
            (TIMESTAMP, Form::Time),
            (EXPIRES, Form::Time),
            ("SignatureVersion", Form::Exactly("1")),
            ("Version", Form::Exactly(version.as_str())),
        ] {
            search.add(name, form)?;
        }
        for parameter in operation.parameters {
            let is_there = version.is_within(parameter.first, parameter.last);
            if let Some(form) = Form::of(parameter).filter(|_| is_there) {
                search.add(parameter.name, form)?;
            }
        }
        search.sort();
        Ok(search)
    }

    /// Every place of a name of the table, whose `n` stands for any number.
    fn add(&mut self, pattern: &'static str, form: Form<'a>) -> Result<(), Unclear> {
        let signed = self.signed;
        let mut parts = pattern.split(".n");
        let first = parts.next().unwrap_or_default();
        let rest: Vec<&str> = parts.collect();
        let mut run = 0..0;
        for (start, _) in signed.match_indices(first) {
            let mut ends = vec![start + first.len()];
            for part in &rest {
                ends = ends
                    .into_iter()
                    .flat_map(|end| indexes(signed, end))
                    .filter(|end| signed[*end..].starts_with(part))
                    .map(|end| end + part.len())
                    .collect();
            }
            for end in ends {
                // Texts without a limit overlap: each byte is looked at once.
                if form.bounds().0 < usize::MAX || !run.contains(&end) {
                    run = end..reach(signed, form, end) + 1;
                }
                self.add_place(pattern, form, start..end, run.end - 1)?;
            }
        }
        Ok(())
    }

    fn add_place(
        &mut self,
        pattern: &'static str,
        form: Form<'a>,
        at: std::ops::Range<usize>,
        reach: usize,
    ) -> Result<(), Unclear> {
        let signed = self.signed;
        let name = &signed[at.clone()];
        let list = list_of(name)
            .filter(|_| pattern.matches(".n").count() == 1)
            .and_then(|(list, digits)| Some((list, digits.parse().ok()?)));
        let place = Place {
            start: at.start,
            end: at.end,
            name,
            rank: 0,
            form,
            reach,
            gives: self.needs.given_by(pattern),
            due: 0,
            list,
        };
        let value = &signed[at.end..];
        let is_possible = match form {
            Form::Exactly(wanted) => value.starts_with(wanted),
            Form::Id => value.starts_with(|it: char| it.is_ascii_lowercase()),
            _ => true,
        };
        if !is_possible {
            return Ok(());
        }
        if self.places.len() >= PLACES_MAX {
            return Err(Unclear::TooLong);
        }
        self.places.push(place);
        Ok(())
    }

    fn sort(&mut self) {
        let mut names: Vec<String> = self
            .places
            .iter()
            .map(|place| place.name.to_ascii_lowercase())
            .collect();
        names.sort_unstable();
        names.dedup();
        for place in &mut self.places {
            let name = place.name.to_ascii_lowercase();
            place.rank = names.binary_search(&name).unwrap_or_default();
            place.due = self.needs.due_before(&name);
        }
        self.places.sort_by_key(|place| (place.start, place.end));
    }

    /// Whether a reading may have `next` straight after `last`.
    fn may_follow(&self, last: &Place<'_>, next: &Place<'_>) -> bool {
        let are_counted = match (last.list, next.list) {
            (Some((one, from)), Some((other, to))) if one == other => may_follow(from, to),
            (_, Some((_, index))) => index <= 1,
            (_, None) => true,
        };
        last.rank < next.rank && are_counted && self.is_value(last, next.start)
    }

    fn is_value(&self, place: &Place<'_>, end: usize) -> bool {
        (place.end..=place.reach).contains(&end) && place.form.has(&self.signed[place.end..end])
    }

    /// How many readings there are; more than two are two.
    fn count(&self) -> u8 {
        let mut ways: Vec<Vec<(u32, u8)>> = vec![vec![]; self.places.len()];
        let mut total = 0_u8;
        for (index, place) in self.places.iter().enumerate() {
            let is_first = place.list.is_none_or(|(_, index)| index <= 1);
            if place.start == 0 && is_first {
                add_way(&mut ways[index], place.gives, 1);
            }
            let here = std::mem::take(&mut ways[index]);
            if here.is_empty() {
                continue;
            }
            if self.is_value(place, self.signed.len()) {
                for (given, count) in &here {
                    if self.needs.are_met(*given) {
                        total = (total + count).min(2);
                    }
                }
            }
            let from = self.places.partition_point(|it| it.start < place.end);
            let to = self.places.partition_point(|it| it.start <= place.reach);
            for (next, follower) in self.places.iter().enumerate().take(to).skip(from) {
                if self.may_follow(place, follower) {
                    let living = here.iter().filter(|it| it.0 & follower.due == follower.due);
                    for (given, count) in living {
                        add_way(&mut ways[next], given | follower.gives, *count);
                    }
                }
            }
        }
        total
    }

    /// Whether the parameters themselves are among the readings.
    fn holds(&self, params: &Params) -> bool {
        let mut pairs: Vec<(&str, &str)> = params
            .iter()
            .filter(|(name, _)| *name != "Signature")
            .collect();
        pairs.sort_by_key(|(name, _)| name.to_ascii_lowercase());
        let mut start = 0;
        let mut last: Option<&Place<'_>> = None;
        let mut given = 0;
        for (name, value) in pairs {
            let end = start + name.len();
            let place = self
                .places
                .binary_search_by_key(&(start, end), |it| (it.start, it.end));
            let Some(place) = place.ok().and_then(|index| self.places.get(index)) else {
                return false;
            };
            let follows = match last {
                Some(last) => self.may_follow(last, place),
                None => place.list.is_none_or(|(_, index)| index <= 1),
            };
            if !follows {
                return false;
            }
            given |= place.gives;
            last = Some(place);
            start = end + value.len();
        }
        last.is_some_and(|last| self.is_value(last, self.signed.len())) && self.needs.are_met(given)
    }
}

fn add_way(ways: &mut Vec<(u32, u8)>, given: u32, count: u8) {
    match ways.iter_mut().find(|(known, _)| *known == given) {
        Some((_, known)) => *known = (*known + count).min(2),
        None => ways.push((given, count)),
    }
}

/// How far a value of the form may go that begins at `at`.
fn reach(signed: &str, form: Form<'_>, at: usize) -> usize {
    let (longest, is_of_form) = form.bounds();
    if matches!(form, Form::Text) {
        return signed.len();
    }
    let value = signed.as_bytes().get(at..).unwrap_or_default();
    let fitting = value.iter().take(longest).take_while(|it| is_of_form(**it));
    at + fitting.count()
}

/// Where the numbers that begin at `at` may end.
fn indexes(text: &str, at: usize) -> Vec<usize> {
    let Some(digits) = text.get(at..).and_then(|rest| rest.strip_prefix('.')) else {
        return vec![];
    };
    let bytes = digits.as_bytes();
    let mut ends = vec![];
    let mut value = 0_u32;
    for (index, byte) in bytes.iter().enumerate() {
        let has_leading_zero = index > 0 && bytes.first() == Some(&b'0');
        if !byte.is_ascii_digit() || has_leading_zero {
            break;
        }
        value = value * 10 + u32::from(byte - b'0');
        if value > INDEX_MAX {
            break;
        }
        ends.push(at + 1 + index + 1);
    }
    ends
}
