//! The object store as its users see it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use cumulet_domain::{AccountId, Timestamp};
use cumulet_objects::{
    Acl, Algorithm, Attributes, Bucket, ChecksumKind, CompletedPart, Condition, CopySource, Entry,
    Error, Expected, ListQuery, NewObject, NewUpload, ObjectStore, PART_BYTES_MIN, StagedBody,
    UploadQuery,
};
use futures::StreamExt as _;
use proptest::prelude::*;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn account(number: u64) -> AccountId {
    AccountId::from_random(number)
}

fn bucket(name: &str, owner: AccountId, acl: Acl) -> Bucket {
    Bucket {
        name: name.into(),
        owner,
        acl,
        created: NOW,
        location: "us-east-1".into(),
    }
}

fn new_object(bucket: &str, key: &str) -> NewObject {
    NewObject {
        bucket: bucket.into(),
        key: key.into(),
        acl: Acl::Private,
        attributes: Attributes::default(),
        condition: Condition::None,
        now: NOW,
    }
}

async fn staged(store: &ObjectStore, bytes: &[u8]) -> StagedBody {
    let mut body = store.begin_body(&BTreeSet::new(), u64::MAX);
    body.write(Bytes::copy_from_slice(bytes)).await.unwrap();
    body.finish(Expected::default()).await.unwrap()
}

async fn put(store: &ObjectStore, owner: AccountId, bucket: &str, key: &str, bytes: &[u8]) {
    let body = staged(store, bytes).await;
    let done = store.put(Some(owner), body, new_object(bucket, key)).await;
    done.unwrap();
}

async fn bytes_of(store: &ObjectStore, owner: AccountId, bucket: &str, key: &str) -> Vec<u8> {
    let body = store.get(Some(owner), bucket, key).await.unwrap();
    let mut bytes = vec![];
    body.reader().read_to_end(&mut bytes).unwrap();
    bytes
}

fn files(dir: &Path) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        count += if entry.file_type().unwrap().is_dir() {
            files(&entry.path())
        } else {
            1
        };
    }
    count
}

#[tokio::test]
async fn an_object_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let owner = account(1);
    let big: Vec<u8> = (0..3_000_000_u32).map(|at| at.to_le_bytes()[1]).collect();
    {
        let store = ObjectStore::open(dir.path()).unwrap();
        let made = store
            .create_bucket(bucket("images", owner, Acl::Private))
            .await;
        made.unwrap();
        put(&store, owner, "images", "a/b", b"first").await;
        put(&store, owner, "images", "a/b", &big).await;
        put(&store, owner, "images", "empty", b"").await;
        assert!(ObjectStore::open(dir.path()).is_err(), "it is in use");
        let clone = store.clone();
        store.close().await;
        let late = clone.head(Some(owner), "images", "empty").await;
        assert_eq!(late.err(), Some(Error::Closed));
    }
    let store = ObjectStore::open(dir.path()).unwrap();
    store.swept().await;
    assert_eq!(bytes_of(&store, owner, "images", "a/b").await, big);
    assert!(bytes_of(&store, owner, "images", "empty").await.is_empty());
    assert_eq!(
        files(&dir.path().join("bodies")),
        2,
        "the overwritten body went"
    );
    let object = store.head(Some(owner), "images", "empty").await.unwrap();
    assert_eq!(object.etag, "d41d8cd98f00b204e9800998ecf8427e");

    let body = store.get(Some(owner), "images", "a/b").await.unwrap();
    let blocks: Vec<_> = body
        .stream(1_000_000..2_500_000)
        .await
        .unwrap()
        .collect()
        .await;
    let read: Vec<u8> = blocks
        .into_iter()
        .flat_map(|block| block.unwrap())
        .collect();
    assert_eq!(read, big[1_000_000..2_500_000]);
}

#[tokio::test]
async fn an_index_of_a_newer_program_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    ObjectStore::open(dir.path()).unwrap().close().await;
    let path = dir.path().join("index.redb");
    let meta = redb::TableDefinition::<&str, u64>::new("meta");
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(meta)
        .unwrap()
        .insert("format", 2)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let refused = ObjectStore::open(dir.path()).err().unwrap();
    assert!(refused.to_string().contains("it has format 2"), "{refused}");
}

#[tokio::test]
async fn a_reader_keeps_what_it_reads() {
    let dir = tempfile::tempdir().unwrap();
    let store = ObjectStore::open(dir.path()).unwrap();
    let owner = account(1);
    store
        .create_bucket(bucket("images", owner, Acl::Private))
        .await
        .unwrap();
    put(&store, owner, "images", "key", b"old").await;
    let body = store.get(Some(owner), "images", "key").await.unwrap();
    put(&store, owner, "images", "key", b"new").await;
    store
        .delete(Some(owner), "images", "key", Condition::None)
        .await
        .unwrap();
    let mut bytes = vec![];
    body.reader().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"old");
    assert_eq!(files(&dir.path().join("bodies")), 0);
    let missing = store.get(Some(owner), "images", "key").await.err();
    assert_eq!(missing, Some(Error::NoSuchKey));
    store.delete_bucket(Some(owner), "images").await.unwrap();
}

#[tokio::test]
async fn what_differs_from_its_digest_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = ObjectStore::open(dir.path()).unwrap();
    let all = BTreeSet::from(Algorithm::ALL);
    let digests = {
        let mut hasher = cumulet_objects::Hasher::new(&all);
        hasher.update(b"hello");
        hasher.finish()
    };
    let right = Expected {
        md5: Some(digests.md5),
        content_sha256: digests.checksums[&Algorithm::Sha256]
            .as_slice()
            .try_into()
            .ok(),
        checksums: digests.checksums.clone(),
        size: Some(5),
    };
    let mut wrong = vec![
        Expected {
            md5: Some([0; 16]),
            ..right.clone()
        },
        Expected {
            content_sha256: Some([0; 32]),
            ..right.clone()
        },
        Expected {
            size: Some(6),
            ..right.clone()
        },
    ];
    for algorithm in Algorithm::ALL {
        let mut other = right.clone();
        other.checksums.insert(algorithm, vec![1, 2, 3, 4]);
        wrong.push(other);
    }
    for expected in wrong {
        let mut body = store.begin_body(&all, 100);
        body.write(Bytes::from_static(b"hello")).await.unwrap();
        assert!(body.finish(expected).await.is_err());
    }
    let mut body = store.begin_body(&all, 100);
    body.write(Bytes::from_static(b"hello")).await.unwrap();
    let body = body.finish(right).await.unwrap();
    assert_eq!(files(dir.path()), 2, "the index and the body that is whole");
    drop(body);
    let mut long = store.begin_body(&all, 4);
    let refused = long.write(Bytes::from_static(b"hello")).await;
    assert_eq!(refused, Err(Error::EntityTooLarge { max: 4 }));
    drop(long);
    assert_eq!(files(dir.path()), 1);
}

#[tokio::test]
async fn acls_say_who_may() {
    let dir = tempfile::tempdir().unwrap();
    let store = ObjectStore::open(dir.path()).unwrap();
    let (owner, other) = (account(1), account(2));
    store
        .create_bucket(bucket("images", owner, Acl::Private))
        .await
        .unwrap();
    let denied = Some(Error::AccessDenied);
    for acl in Acl::CANNED {
        let body = staged(&store, b"x").await;
        let new = NewObject {
            acl: acl.clone(),
            ..new_object("images", "key")
        };
        store.put(Some(owner), body, new).await.unwrap();
        let anonymous = store.get(None, "images", "key").await.err();
        let signed = store.get(Some(other), "images", "key").await.err();
        let service = store.open_for_service(other, "images", "key").await.err();
        let is_public = matches!(acl, Acl::PublicRead | Acl::PublicReadWrite);
        let is_read = is_public || acl == Acl::AuthenticatedRead;
        assert_eq!(anonymous, denied.clone().filter(|_| !is_public), "{acl:?}");
        assert_eq!(signed, denied.clone().filter(|_| !is_read), "{acl:?}");
        let is_shared = is_read || acl == Acl::AwsExecRead;
        assert_eq!(service, denied.clone().filter(|_| !is_shared), "{acl:?}");
    }
    let body = staged(&store, b"x").await;
    let refused = store
        .put(Some(other), body, new_object("images", "key"))
        .await;
    assert_eq!(refused.err(), denied);
    let hidden = store.head(Some(other), "images", "nothing").await.err();
    assert_eq!(hidden, denied);
    let refused = store
        .delete(Some(other), "images", "key", Condition::None)
        .await;
    assert_eq!(refused.err(), denied);
    let taken = store
        .create_bucket(bucket("images", other, Acl::Private))
        .await;
    assert_eq!(taken, Err(Error::BucketTaken));
    let owned = store
        .create_bucket(bucket("images", owner, Acl::Private))
        .await;
    assert_eq!(owned, Err(Error::BucketOwned));
    let full = store.delete_bucket(Some(owner), "images").await;
    assert_eq!(full, Err(Error::BucketNotEmpty));
}

#[tokio::test]
async fn parts_become_one_object() {
    let dir = tempfile::tempdir().unwrap();
    let store = ObjectStore::open(dir.path()).unwrap();
    let owner = account(1);
    let me = Some(owner);
    store
        .create_bucket(bucket("images", owner, Acl::Private))
        .await
        .unwrap();
    let upload = NewUpload {
        bucket: "images".into(),
        key: "big".into(),
        acl: Acl::Private,
        attributes: Attributes::default(),
        checksum: Some((Algorithm::Crc32, ChecksumKind::FullObject)),
        now: NOW,
    };
    let id = store.create_upload(me, upload).await.unwrap();
    let at = ("images", "big", id.as_str());
    let mut listed = vec![];
    let pieces = [
        vec![1_u8; usize::try_from(PART_BYTES_MIN).unwrap()],
        vec![2_u8; 10],
        vec![3_u8; 20],
    ];
    for (number, bytes) in (1..).zip(&pieces) {
        let mut body = store.begin_body(&BTreeSet::from([Algorithm::Crc32]), u64::MAX);
        body.write(Bytes::copy_from_slice(bytes)).await.unwrap();
        let body = body.finish(Expected::default()).await.unwrap();
        let part = store.put_part(me, at, number, body, NOW).await.unwrap();
        listed.push(CompletedPart {
            number,
            etag: part.etag(),
            checksums: part.checksums,
        });
    }
    let complete = |listed: Vec<CompletedPart>| {
        store.complete_upload(me, at, listed, BTreeMap::new(), Condition::None, NOW)
    };
    let small = complete(listed.clone()).await;
    assert_eq!(
        small.err(),
        Some(Error::EntityTooSmall { part: 2, size: 10 })
    );
    let order = complete(vec![listed[1].clone(), listed[0].clone()]).await;
    assert_eq!(order.err(), Some(Error::InvalidPartOrder));
    let mut other = listed[0].clone();
    other.number = 7;
    assert_eq!(
        complete(vec![other]).await.err(),
        Some(Error::InvalidPart(7))
    );
    let uploads = store.list_uploads(
        me,
        "images",
        UploadQuery {
            limit: 10,
            ..Default::default()
        },
    );
    assert_eq!(uploads.await.unwrap().entries.len(), 1);

    let object = complete(vec![listed[0].clone(), listed[2].clone()])
        .await
        .unwrap();
    let whole = [pieces[0].clone(), pieces[2].clone()].concat();
    assert_eq!(bytes_of(&store, owner, "images", "big").await, whole);
    assert!(object.etag.ends_with("-2"));
    let end = whole.len() as u64;
    for range in [
        0..1,
        PART_BYTES_MIN - 3..PART_BYTES_MIN + 3,
        PART_BYTES_MIN..end,
        PART_BYTES_MIN - 1..PART_BYTES_MIN,
        end - 1..end + 100,
        end..end,
        3..3,
    ] {
        let body = store.get(me, "images", "big").await.unwrap();
        let mut part = vec![];
        let read = body.range_reader(range.clone()).read_to_end(&mut part);
        read.unwrap();
        let at = |offset: u64| usize::try_from(offset.min(end)).unwrap();
        assert_eq!(part, whole[at(range.start)..at(range.end)], "{range:?}");
    }
    let mut hasher = cumulet_objects::Hasher::new(&BTreeSet::from([Algorithm::Crc32]));
    hasher.update(&whole);
    assert_eq!(object.checksums, hasher.finish().checksums);
    assert_eq!(complete(listed).await.err(), Some(Error::NoSuchUpload));
    assert_eq!(
        files(&dir.path().join("bodies")),
        2,
        "the part that was not listed went"
    );

    let source = CopySource {
        bucket: "images".into(),
        key: "big".into(),
        etag: None,
    };
    store
        .copy(me, source, new_object("images", "copy"), true)
        .await
        .unwrap();
    store
        .delete(me, "images", "big", Condition::None)
        .await
        .unwrap();
    assert_eq!(bytes_of(&store, owner, "images", "copy").await, whole);
    store
        .set_object_acl(me, "images", "copy", Acl::PublicRead)
        .await
        .unwrap();
    assert_eq!(bytes_of(&store, owner, "images", "copy").await, whole);
    store
        .delete(me, "images", "copy", Condition::None)
        .await
        .unwrap();
    assert_eq!(files(&dir.path().join("bodies")), 0);
}

#[tokio::test]
async fn conditions_are_decided_in_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    let store = ObjectStore::open(dir.path()).unwrap();
    let owner = account(1);
    store
        .create_bucket(bucket("images", owner, Acl::Private))
        .await
        .unwrap();
    let mut tasks = vec![];
    for number in 0..20_u8 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            let body = staged(&store, &[number]).await;
            let condition = Condition::Absent;
            let new = NewObject {
                condition,
                ..new_object("images", "once")
            };
            store.put(Some(owner), body, new).await
        }));
    }
    let mut won = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert_eq!(error, Error::PreconditionFailed),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(files(&dir.path().join("bodies")), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_see_whole_objects_while_others_write() {
    let dir = tempfile::tempdir().unwrap();
    let store = ObjectStore::open(dir.path()).unwrap();
    let owner = account(1);
    let made = store
        .create_bucket(bucket("images", owner, Acl::Private))
        .await;
    made.unwrap();
    put(&store, owner, "images", "key", &[0; 300_000]).await;
    let mut tasks = vec![];
    for writer in 1..=4_u8 {
        let (store, readers) = (store.clone(), store.clone());
        tasks.push(tokio::spawn(async move {
            for round in 0..15_usize {
                let bytes = vec![writer; 200_000 + round];
                put(&store, owner, "images", "key", &bytes).await;
            }
        }));
        tasks.push(tokio::spawn(async move {
            for _ in 0..40 {
                let bytes = bytes_of(&readers, owner, "images", "key").await;
                assert!(bytes.len() >= 200_000);
                assert!(bytes.iter().all(|byte| *byte == bytes[0]));
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(files(&dir.path().join("bodies")), 1);
}

/// What a listing must show, from the definition.
fn expected_listing(keys: &BTreeSet<String>, prefix: &str, delimiter: Option<&str>) -> Vec<String> {
    let mut shown = vec![];
    for key in keys.iter().filter(|key| key.starts_with(prefix)) {
        let rest = &key[prefix.len()..];
        let name = match delimiter.and_then(|found| rest.find(found).map(|at| at + found.len())) {
            Some(end) => format!("{prefix}{}|", &rest[..end]),
            None => key.clone(),
        };
        if shown.last() != Some(&name) {
            shown.push(name);
        }
    }
    shown
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn listings_show_what_the_definition_says(
        keys in prop::collection::btree_set("[ab/é]{1,6}", 0..40),
        prefix in "[ab/]{0,2}",
        delimiter in prop::option::of(prop::sample::select(vec!["/", "b", "a/"])),
        limit in 1_usize..5,
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let store = ObjectStore::open(dir.path()).unwrap();
            let owner = account(1);
            for name in ["aaa", "bucket", "bucket2"] {
                store.create_bucket(bucket(name, owner, Acl::Private)).await.unwrap();
                put(&store, owner, name, "zzz-else", b"").await;
            }
            store.delete(Some(owner), "bucket", "zzz-else", Condition::None).await.unwrap();
            for key in &keys {
                put(&store, owner, "bucket", key, b"").await;
            }
            let mut shown = vec![];
            let mut after = None;
            loop {
                let query = ListQuery {
                    prefix: prefix.clone(),
                    delimiter: delimiter.map(str::to_owned),
                    after: after.take(),
                    limit,
                };
                let page = store.list(Some(owner), "bucket", query).await.unwrap();
                prop_assert!(page.entries.len() <= limit);
                shown.extend(page.entries.into_iter().map(|entry| match entry {
                    Entry::Item((key, _)) => key,
                    Entry::Prefix(prefix) => format!("{prefix}|"),
                }));
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
            prop_assert_eq!(shown, expected_listing(&keys, &prefix, delimiter));
            Ok(())
        })?;
    }
}
