//! Power lost at every sync of a workload: what was acknowledged is there and
//! whole, no entry is without its body, and no body without an entry stays.

mod disk;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use cumulet_domain::{AccountId, Timestamp};
use redb::Database;

use crate::index::{self, Opener};
use crate::{
    Acl, Attributes, Bucket, CompletedPart, Condition, CopySource, Error, Expected, NewObject,
    NewUpload, ObjectStore, Result, StagedBody, UploadQuery,
};
use cumulet_durable::power::{Power, Unsynced};
use disk::Disk;

const SEED: &str = "TEST_SEED";
const NOW: Timestamp = Timestamp(1_700_000_000_000);
const BUCKET: &str = "power";

fn owner() -> AccountId {
    AccountId::from_random(1)
}

fn opener(disk: Disk) -> Opener {
    Box::new(move || {
        let opened = Database::builder().create_with_backend(disk.clone());
        index::prepared(opened.map_err(|cause| Error::disk("open the index", cause))?)
    })
}

fn new_object(key: &str) -> NewObject {
    NewObject {
        bucket: BUCKET.into(),
        key: key.into(),
        acl: Acl::Private,
        attributes: Attributes::default(),
        condition: Condition::None,
        now: NOW,
    }
}

/// What keys are, and what is being tried with one of them.
#[derive(Default)]
struct Model {
    settled: BTreeMap<String, Vec<u8>>,
    trying: Option<(String, Option<Vec<u8>>)>,
    /// The upload of `parts` from when its completion was asked for, and what it is to become.
    completion: Option<(String, CompletedPart, Vec<u8>)>,
}

impl Model {
    fn done(&mut self) {
        match self.trying.take() {
            Some((key, Some(bytes))) => drop(self.settled.insert(key, bytes)),
            Some((key, None)) => drop(self.settled.remove(&key)),
            None => {}
        }
    }
}

async fn staged(store: &ObjectStore, bytes: &[u8]) -> Result<StagedBody> {
    let mut body = store.begin_body(&BTreeSet::new(), u64::MAX);
    body.write(Bytes::copy_from_slice(bytes)).await?;
    body.finish(Expected::default()).await
}

async fn put(store: &ObjectStore, model: &mut Model, key: &str, bytes: &[u8]) -> Result<()> {
    model.trying = Some((key.into(), Some(bytes.to_vec())));
    let body = staged(store, bytes).await?;
    store.put(Some(owner()), body, new_object(key)).await?;
    model.done();
    Ok(())
}

async fn delete(store: &ObjectStore, model: &mut Model, key: &str) -> Result<()> {
    model.trying = Some((key.into(), None));
    store
        .delete(Some(owner()), BUCKET, key, Condition::None)
        .await?;
    model.done();
    Ok(())
}

async fn begin(store: &ObjectStore, key: &str) -> Result<String> {
    let new = NewUpload {
        bucket: BUCKET.into(),
        key: key.into(),
        acl: Acl::Private,
        attributes: Attributes::default(),
        checksum: None,
        now: NOW,
    };
    store.create_upload(Some(owner()), new).await
}

/// Puts, overwrites, copies, deletes, and uploads in parts, one after the other.
async fn work(store: &ObjectStore, model: &mut Model) -> Result<()> {
    let me = Some(owner());
    let bucket = Bucket {
        name: BUCKET.into(),
        owner: owner(),
        acl: Acl::Private,
        created: NOW,
        location: "us-east-1".into(),
    };
    store.create_bucket(bucket).await?;
    put(store, model, "a", &[1; 5000]).await?;
    put(store, model, "b", &[2; 100]).await?;
    put(store, model, "a", &[3; 7000]).await?;
    model.trying = Some(("copy".into(), Some(vec![3; 7000])));
    let source = CopySource {
        bucket: BUCKET.into(),
        key: "a".into(),
        etag: None,
    };
    store.copy(me, source, new_object("copy"), true).await?;
    model.done();
    delete(store, model, "a").await?;
    put(store, model, "empty", b"").await?;
    put(store, model, "parts", &[9; 300]).await?;
    let id = begin(store, "parts").await?;
    let at = (BUCKET, "parts", id.as_str());
    for bytes in [[4; 600], [5; 600]] {
        let body = staged(store, &bytes).await?;
        store.put_part(me, at, 1, body, NOW).await?;
    }
    let body = staged(store, &[6; 600]).await?;
    let spare = store.put_part(me, at, 2, body, NOW).await?;
    model.trying = Some(("parts".into(), Some(vec![6; 600])));
    let part = CompletedPart {
        number: 2,
        etag: spare.etag(),
        checksums: BTreeMap::new(),
    };
    model.completion = Some((id.clone(), part.clone(), vec![6; 600]));
    complete(store, &id, part).await?;
    model.done();
    let id = begin(store, "given-up").await?;
    let at = (BUCKET, "given-up", id.as_str());
    let body = staged(store, &[7; 600]).await?;
    store.put_part(me, at, 1, body, NOW).await?;
    store.abort_upload(me, at).await?;
    put(store, model, "b", &[8; 3000]).await?;
    delete(store, model, "copy").await
}

async fn complete(store: &ObjectStore, id: &str, part: CompletedPart) -> Result<()> {
    let at = (BUCKET, "parts", id);
    let asked = store.complete_upload(
        Some(owner()),
        at,
        vec![part],
        BTreeMap::new(),
        Condition::None,
        NOW,
    );
    asked.await.map(drop)
}

/// Whoever asked for a completion and got no answer asks again, until there is nothing to complete;
/// then the object is what it was to become, whichever time it was done.
async fn complete_again(store: &ObjectStore, model: &Model) {
    let Some((id, part, bytes)) = &model.completion else {
        return;
    };
    let is_open = match complete(store, id, part.clone()).await {
        Ok(()) => true,
        Err(Error::NoSuchUpload) => false,
        Err(error) => panic!("a completion is refused: {error}"),
    };
    let was_tried = model.trying.as_ref().is_some_and(|(key, _)| key == "parts");
    assert!(was_tried || !is_open, "an acknowledged completion is done");
    let again = complete(store, id, part.clone()).await;
    assert!(matches!(again, Err(Error::NoSuchUpload)), "{again:?}");
    assert_eq!(read(store, "parts").await.as_ref(), Some(bytes));
}

fn count_files(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => count_files(&entry.path()),
            false => 1,
        })
        .sum()
}

async fn read(store: &ObjectStore, key: &str) -> Option<Vec<u8>> {
    match store.get(Some(owner()), BUCKET, key).await {
        Ok(body) => {
            let mut bytes = vec![];
            body.reader().read_to_end(&mut bytes).unwrap();
            Some(bytes)
        }
        Err(Error::NoSuchKey | Error::NoSuchBucket) => None,
        Err(error) => panic!("{key}: {error}"),
    }
}

/// Opens what is left and compares.
async fn check(dir: &Path, index: Vec<u8>, model: &Model) {
    let whole = Disk::holding(index, Power::default(), dir.to_owned());
    let store = ObjectStore::over(dir, opener(whole)).unwrap();
    store.swept().await;
    for key in ["a", "b", "copy", "empty", "parts"] {
        let found = read(&store, key).await;
        let settled = model.settled.get(key).cloned();
        let trying = model.trying.as_ref().filter(|(tried, _)| tried == key);
        let is_new = trying.is_some_and(|(_, bytes)| *bytes == found);
        assert!(found == settled || is_new, "{key} is neither old nor new");
    }
    complete_again(&store, model).await;
    assert_eq!(
        count_files(&dir.join("tmp")),
        0,
        "temporaries are collected"
    );
    // Whatever the index names is given up; what is left then is named by nothing.
    for key in ["a", "b", "copy", "empty", "parts"] {
        let done = store.delete(Some(owner()), BUCKET, key, Condition::None);
        assert!(matches!(done.await, Ok(()) | Err(Error::NoSuchBucket)));
    }
    let query = UploadQuery {
        limit: 10,
        ..UploadQuery::default()
    };
    if let Ok(found) = store.list_uploads(Some(owner()), BUCKET, query).await {
        for entry in found.entries {
            let crate::Entry::Item(upload) = entry else {
                panic!("there is no delimiter");
            };
            let (parts, at) = (1..=2, (BUCKET, &*upload.key, &*upload.id));
            let listed = store.list_parts(Some(owner()), at, 0, 10).await.unwrap().1;
            assert!(listed.iter().all(|part| parts.contains(&part.number)));
            store.abort_upload(Some(owner()), at).await.unwrap();
        }
    }
    assert_eq!(count_files(&dir.join("bodies")), 0, "orphans are collected");
    store.close().await;
}

/// An index without entries, as the first start leaves it.  That it is made under another name is
/// what lets a cut before that be forgotten.
fn new_index(dir: &Path) -> Vec<u8> {
    let disk = Disk::holding(vec![], Power::default(), dir.to_owned());
    drop(opener(disk.clone())().unwrap());
    disk.after_power_loss(Unsynced::Kept)
}

#[tokio::test]
async fn a_first_start_that_was_cut_is_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("index.redb.new"), [0; 5000]).unwrap();
    for _ in 0..2 {
        ObjectStore::open(dir.path()).unwrap().close().await;
        assert!(!dir.path().join("index.redb.new").exists());
    }
}

/// Runs the workload until the power fails; whether it did.
async fn run_and_cut(cut_at: usize, modes: &[Unsynced]) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap().join("store");
    std::fs::create_dir(&root).unwrap();
    let power = Power::serve(&root, cut_at);
    let disk = Disk::holding(new_index(&root), power.clone(), root.clone());
    let mut model = Model::default();
    // A store that cannot even be opened has acknowledged nothing.
    let failure = match ObjectStore::over(&root, opener(disk.clone())) {
        Err(error) => Some(error),
        Ok(store) => {
            let failure = work(&store, &mut model).await.err();
            store.close().await;
            failure
        }
    };
    Power::forget(&root);
    let is_cut = power.is_off();
    // Closing syncs too, and has nothing to acknowledge.
    assert!(is_cut || failure.is_none(), "{failure:?}");
    if !is_cut {
        println!("{} syncs", power.syncs());
        return false;
    }
    for (number, mode) in modes.iter().enumerate() {
        let left = dir.path().join(number.to_string());
        power.restore(&left, *mode).unwrap();
        println!("cut at sync {cut_at}, {mode:?}");
        check(&left, disk.after_power_loss(*mode), &model).await;
    }
    true
}

#[tokio::test]
async fn power_lost_at_any_sync_loses_nothing_acknowledged() {
    let seed = std::env::var(SEED).ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or(20_070_301);
    println!("{SEED}={seed}");
    let mut cut_at = 1;
    loop {
        let torn = Unsynced::Torn(seed.wrapping_add(cut_at as u64));
        let modes = [Unsynced::Lost, torn, Unsynced::Kept];
        if !run_and_cut(cut_at, &modes).await {
            break;
        }
        cut_at += 1;
    }
    assert!(cut_at > 40, "the workload has many syncs, not {cut_at}");
}
