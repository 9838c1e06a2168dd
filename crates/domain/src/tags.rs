//! Tags: what users write on their resources.
//!
//! A tag is a key with a value, unique by its key on each resource.  Nothing
//! here acts on them; they are shown, and searched for.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{
    AccountId, Error, ImageId, InstanceId, KeyPairId, NetworkInterfaceId, ReservationId, Resource,
    SecurityGroupId, SubnetId, VolumeId, VpcId, shown,
};

/// Most tags of one resource.
pub const TAGS_MAX: usize = 50;
/// Longest key, in characters.
pub const KEY_LEN_MAX: usize = 128;
/// Longest value, in characters.
pub const VALUE_LEN_MAX: usize = 256;
/// What keys begin with that are not users' to write.
pub const RESERVED: &str = "aws:";

/// The tags of one resource, by key.
pub type TagMap = BTreeMap<String, String>;

macro_rules! taggable {
    ($($name:ident($id:ty), $word:literal, $resource:ident;)*) => {
        /// What kind of thing carries a tag.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum TaggedKind { $($name),* }

        impl TaggedKind {
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// As the API names it, such as `key-pair`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }
        }

        /// A thing that carries tags.  Prints as its id.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum TaggedId { $($name($id)),* }

        impl TaggedId {
            pub fn kind(self) -> TaggedKind {
                match self { $(Self::$name(_) => TaggedKind::$name),* }
            }

            /// How refusals name it.
            pub fn resource(self) -> Resource {
                match self { $(Self::$name(_) => Resource::$resource),* }
            }

            /// Reads the id of anything that can carry tags.
            ///
            /// # Errors
            /// `Malformed`: of the resource when the prefix is known, else of `Tag`.
            pub fn parse(text: &str) -> Result<Self, Error> {
                let bad = |resource, form: &str| Error::Malformed {
                    resource,
                    id: shown(text),
                    form: form.to_owned(),
                };
                $(if text.starts_with(<$id>::PREFIX) {
                    let id = text.parse::<$id>();
                    return id
                        .map(Self::$name)
                        .map_err(|error| bad(Resource::$resource, error.form));
                })*
                Err(bad(Resource::Tag, "the id of something that can carry tags"))
            }
        }

        impl fmt::Display for TaggedId {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $(Self::$name(id) => id.fmt(f)),* }
            }
        }

        $(impl From<$id> for TaggedId {
            fn from(id: $id) -> Self {
                Self::$name(id)
            }
        })*
    };
}

taggable! {
    Image(ImageId), "image", Image;
    Instance(InstanceId), "instance", Instance;
    KeyPair(KeyPairId), "key-pair", KeyPair;
    NetworkInterface(NetworkInterfaceId), "network-interface", NetworkInterface;
    SecurityGroup(SecurityGroupId), "security-group", SecurityGroup;
    Subnet(SubnetId), "subnet", Subnet;
    Volume(VolumeId), "volume", Volume;
    Vpc(VpcId), "vpc", Vpc;
}

impl fmt::Debug for TaggedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TaggedId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl Serialize for TaggedId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TaggedId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl TaggedId {
    /// What an instance is, and what comes and goes with it.
    pub fn of_instance(id: InstanceId) -> [Self; 3] {
        [
            id.into(),
            VolumeId::of(id).into(),
            NetworkInterfaceId::of(id).into(),
        ]
    }

    /// The instance that this is, or that it comes and goes with.
    pub fn instance(self) -> Option<InstanceId> {
        match self {
            Self::Instance(id) => Some(id),
            Self::Volume(id) => Some(InstanceId::of_parts(id.parts())),
            Self::NetworkInterface(id) => Some(InstanceId::of_parts(id.parts())),
            Self::Image(_)
            | Self::KeyPair(_)
            | Self::SecurityGroup(_)
            | Self::Subnet(_)
            | Self::Vpc(_) => None,
        }
    }
}

/// The tags of one resource, as they are stored.  One that has none may have a record all the
/// same: then those that its launch gave were taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tags {
    pub resource: TaggedId,
    pub owner: AccountId,
    pub tags: TagMap,
}

/// What a launch wrote on all that it made, in one record: those of its instances that were written
/// on since have their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchTags {
    pub reservation: ReservationId,
    pub tags: BTreeMap<TaggedKind, TagMap>,
}

/// Which tags are to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    pub key: String,
    /// `None`: whatever its value is.
    pub value: Option<String>,
}

/// What is the matter with a key.
///
/// # Errors
/// `InvalidValue`.
pub fn check_key(key: &str) -> Result<(), Error> {
    let invalid = |message: String| Err(Error::invalid("Tag", message));
    if key.is_empty() {
        return invalid("Tag key cannot be empty".into());
    }
    if key.chars().count() > KEY_LEN_MAX {
        let shown: String = key.chars().take(KEY_LEN_MAX).collect();
        return invalid(format!(
            "Tag key exceeds the maximum length of {KEY_LEN_MAX} characters: '{shown}...'"
        ));
    }
    if key.starts_with(RESERVED) {
        return invalid(format!(
            "Tag keys starting with '{RESERVED}' are reserved for internal use: '{key}'"
        ));
    }
    Ok(())
}

/// Makes a set of tags out of a list.
///
/// # Errors
/// `InvalidValue` for a key or value that cannot be, or a key that occurs twice; `LimitExceeded`.
pub fn tag_map(tags: Vec<(String, String)>) -> Result<TagMap, Error> {
    let mut map = TagMap::new();
    for (key, value) in tags {
        check_key(&key)?;
        if value.chars().count() > VALUE_LEN_MAX {
            return Err(Error::invalid(
                "Tag",
                format!(
                    "Tag value exceeds the maximum length of {VALUE_LEN_MAX} characters: the value of '{key}'"
                ),
            ));
        }
        if map.contains_key(&key) {
            let message = format!("Duplicate tag key '{key}' specified.");
            return Err(Error::invalid("Tag", message));
        }
        map.insert(key, value);
    }
    check_count(&map)?;
    Ok(map)
}

/// What a resource has after more was written on it.
///
/// # Errors
/// `LimitExceeded`.
pub fn written(before: &TagMap, more: &TagMap) -> Result<TagMap, Error> {
    let mut after = before.clone();
    after.extend(more.iter().map(|(key, value)| (key.clone(), value.clone())));
    check_count(&after)?;
    Ok(after)
}

/// What is left; an empty list of removals takes everything.
pub fn removed(before: &TagMap, removals: &[Removal]) -> TagMap {
    if removals.is_empty() {
        return TagMap::new();
    }
    let mut after = before.clone();
    for Removal { key, value } in removals {
        let is_meant = |found: &String| value.as_ref().is_none_or(|value| value == found);
        if after.get(key).is_some_and(is_meant) {
            after.remove(key);
        }
    }
    after
}

fn check_count(tags: &TagMap) -> Result<(), Error> {
    if tags.len() <= TAGS_MAX {
        return Ok(());
    }
    Err(Error::LimitExceeded {
        resource: Resource::Tag,
        message: format!(
            "More than {TAGS_MAX} tags specified: a resource would have {}",
            tags.len()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(tags: &[(&str, &str)]) -> TagMap {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        tags.iter().map(own).collect()
    }

    #[test]
    fn keys_and_values_have_limits() {
        let list = |key: String, value: String| tag_map(vec![(key, value)]);
        for (key, value) in [
            ("Name".to_owned(), String::new()),
            ("ü".repeat(KEY_LEN_MAX), "ü".repeat(VALUE_LEN_MAX)),
            ("AWS:x".to_owned(), " ".to_owned()),
        ] {
            assert!(list(key.clone(), value).is_ok(), "{key}");
        }
        for (key, value, told) in [
            (String::new(), String::new(), "empty"),
            ("k".repeat(KEY_LEN_MAX + 1), String::new(), "128"),
            ("k".to_owned(), "v".repeat(VALUE_LEN_MAX + 1), "256"),
            ("aws:x".to_owned(), String::new(), "reserved"),
        ] {
            let text = list(key, value).unwrap_err().to_string();
            assert!(text.contains(told), "{text}");
        }
        let twice = ["a", "a"].map(|key| (key.to_owned(), String::new()));
        assert!(tag_map(twice.to_vec()).is_err());
    }

    #[test]
    fn a_resource_has_so_many_and_no_more() {
        let many = |count: usize| (0..count).map(|n| (format!("k{n}"), String::new()));
        let full: TagMap = many(TAGS_MAX).collect();
        assert!(tag_map(many(TAGS_MAX).collect()).is_ok());
        assert!(tag_map(many(TAGS_MAX + 1).collect()).is_err());
        // Writing over what is there takes no place.
        assert_eq!(
            written(&full, &map(&[("k0", "new")])).unwrap()["k0"],
            "new".to_owned()
        );
        assert!(matches!(
            written(&full, &map(&[("other", "")])),
            Err(Error::LimitExceeded {
                resource: Resource::Tag,
                ..
            })
        ));
    }

    #[test]
    fn removals_are_by_key_or_by_key_and_value() {
        let before = map(&[("a", "1"), ("b", ""), ("c", "3")]);
        let of = |key: &str, value: Option<&str>| Removal {
            key: key.into(),
            value: value.map(str::to_owned),
        };
        for (removals, left) in [
            (vec![], ""),
            (vec![of("a", None)], "bc"),
            (vec![of("a", Some("1"))], "bc"),
            (vec![of("a", Some(""))], "abc"),
            (vec![of("b", Some(""))], "ac"),
            (vec![of("x", None)], "abc"),
            (vec![of("a", None), of("c", Some("3"))], "b"),
        ] {
            let keys: String = removed(&before, &removals).into_keys().collect();
            assert_eq!(keys, left, "{removals:?}");
        }
    }

    #[test]
    fn ids_say_what_they_are() {
        for (text, kind) in [
            ("i-2ba64342", "instance"),
            ("ami-0123456789abcdef0", "image"),
            ("key-2ba64342", "key-pair"),
            ("eni-2ba64342", "network-interface"),
            ("sg-2ba64342", "security-group"),
            ("subnet-2ba64342", "subnet"),
            ("vol-2ba64342", "volume"),
            ("vpc-2ba64342", "vpc"),
        ] {
            let id = TaggedId::parse(text).unwrap();
            assert_eq!((id.to_string().as_str(), id.kind().as_str()), (text, kind));
        }
        let resource = |text: &str| match TaggedId::parse(text) {
            Err(Error::Malformed { resource, form, .. }) => {
                // Ids of 8 digits are as good as those of 17.
                assert!(resource == Resource::Tag || form == "i-...", "{form}");
                resource
            }
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(resource("i-xyz"), Resource::Instance);
        assert_eq!(resource("snap-2ba64342"), Resource::Tag);
        assert_eq!(resource(""), Resource::Tag);
        let id: InstanceId = "i-2ba64342".parse().unwrap();
        assert!(
            TaggedId::of_instance(id)
                .iter()
                .all(|it| it.instance() == Some(id))
        );
    }
}
